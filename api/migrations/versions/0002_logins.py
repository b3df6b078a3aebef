"""Logins that wait for a browser, proofs of possession, live sessions; what a renewal rests on."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("certificates", sa.Column("login_at", sa.BigInteger()))
    op.add_column("certificates", sa.Column("user_made", sa.Text()))
    op.create_index("certificates_by_key", "certificates", ["fingerprint"])
    op.create_table(
        "logins",
        sa.Column("device_sha256", sa.String(64), primary_key=True),
        sa.Column("user_code", sa.String(16), nullable=False, unique=True),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("host_name", sa.Text()),
        sa.Column("address", sa.String(64)),
        sa.Column("network", sa.String(64)),
        sa.Column("server", sa.Text()),
        sa.Column("lifetime", sa.Integer()),
        sa.Column("start", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("pause", sa.Integer(), nullable=False),
        sa.Column("polled_at", sa.BigInteger()),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("decided_at", sa.BigInteger()),
        sa.Column("user", sa.Text()),
        sa.Column("user_made", sa.Text()),
        sa.Column("login_at", sa.BigInteger()),
        sa.Column("login_ends_at", sa.BigInteger()),
    )
    op.create_index("logins_by_end", "logins", ["expires_at"])
    op.create_table(
        "nonces",
        sa.Column("nonce_sha256", sa.String(64), primary_key=True),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("nonces_by_moment", "nonces", ["used_at"])
    op.create_table(
        "bastions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("sessions", sa.JSON(), nullable=False),
    )
    op.create_table(
        "ended_sessions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("ended_sessions_by_moment", "ended_sessions", ["ended_at"])


def downgrade() -> None:
    for table in ("ended_sessions", "bastions", "nonces", "logins"):
        op.drop_table(table)
    op.drop_index("certificates_by_key", "certificates")
    op.drop_column("certificates", "user_made")
    op.drop_column("certificates", "login_at")
