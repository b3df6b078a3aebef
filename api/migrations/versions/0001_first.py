"""The first tables: what was issued, what was revoked, which pods enrolled."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.String(32), nullable=False),
        sa.Column("everyone_before", sa.BigInteger(), nullable=False),
        sa.Column("high_water", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(20), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("principals", sa.JSON(), nullable=False),
        sa.Column("valid_after", sa.BigInteger(), nullable=False),
        sa.Column("valid_before", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("how", sa.String(32), nullable=False),
        sa.Column("address", sa.String(64)),
    )
    op.create_index("certificates_by_user", "certificates", ["user", "valid_before"])
    op.create_index("certificates_by_end", "certificates", ["valid_before"])
    op.create_table(
        "revocations",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("before", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("revocations_by_moment", "revocations", ["revoked_at"])
    op.create_table(
        "enrolments",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("server_name", sa.Text(), nullable=False),
        sa.Column("instance", sa.String(20), nullable=False),
        sa.Column("host_key", sa.Text(), nullable=False),
        sa.Column("live_host_key", sa.String(64), unique=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("ssh_port", sa.Integer(), nullable=False),
        sa.Column("key_port", sa.Integer(), nullable=False),
        sa.Column("unix_user", sa.String(33), nullable=False),
        sa.Column("withdraw_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("seen_ready", sa.Boolean(), nullable=False),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("ended_why", sa.String(32)),
        sa.UniqueConstraint("owner", "server_name", "instance", name="enrolments_one_row_an_instance"),
    )


def downgrade() -> None:
    for table in ("enrolments", "revocations", "certificates", "meta"):
        op.drop_table(table)
