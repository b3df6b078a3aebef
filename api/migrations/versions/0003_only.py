"""Whether a login that starts a server is for that server alone, or for everything that runs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("logins", sa.Column("only", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("logins", "only")
