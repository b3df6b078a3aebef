"""The tables, as SQLAlchemy sees them. `api.store` alone reads and writes them; `api/migrations` makes them.

Plain SQL that SQLite and PostgreSQL both have. Serials and instance ids are text: they fill 63 bits, and JSON and
some drivers round such numbers. Moments in columns that end in `_at` or `_before` of our own making are
milliseconds since the epoch; `valid_after` and `valid_before` are seconds, as certificates have them.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", String(32), nullable=False),
    Column("everyone_before", BigInteger, nullable=False),
    Column("high_water", BigInteger, nullable=False),
)
"""One row, id 1. `high_water` grows with every write: a database that knows less than it did was restored."""

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(20), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("user", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("principals", JSON, nullable=False),
    Column("valid_after", BigInteger, nullable=False),
    Column("valid_before", BigInteger, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("how", String(32), nullable=False),
    Column("address", String(64)),
    Column("login_at", BigInteger),
    Column("user_made", Text),
    Index("certificates_by_user", "user", "valid_before"),
    Index("certificates_by_end", "valid_before"),
    Index("certificates_by_key", "fingerprint"),
)
"""Every user and host certificate, written before it was handed out.

`login_at` is when (seconds) the person last logged in with a browser, where the certificate rests on that: renewals
end a day after it. `user_made` is JupyterHub's `created` of that user at that login, so that a name given to somebody
else renews nothing."""

revocations = Table(
    "revocations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("revoked_at", BigInteger, nullable=False),
    Index("revocations_by_moment", "revoked_at"),
)
"""One row a revocation. `kind` is serial, user, server or share; `subject` the serial, the user name, the login name,
or the login names of a user and of a server. What was issued before `before` does not count. Or `kind` is session:
somebody logged out, and `subject` is the SHA-256 of the id of that browser session."""

enrolments = Table(
    "enrolments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("server_name", Text, nullable=False),
    Column("instance", String(20), nullable=False),
    Column("host_key", Text, nullable=False),
    Column("live_host_key", String(64), unique=True),
    Column("address", String(64), nullable=False),
    Column("ssh_port", Integer, nullable=False),
    Column("key_port", Integer, nullable=False),
    Column("unix_user", String(33), nullable=False),
    Column("withdraw_sha256", String(64), nullable=False, unique=True),
    Column("seen_ready", Boolean, nullable=False),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("ended_why", String(32)),
    UniqueConstraint("owner", "server_name", "instance", name="enrolments_one_row_an_instance"),
)
"""One row an instance: its first host key stays. `live_host_key` is the fingerprint while the enrolment lives, and
unique: one host key never stands for two servers at a time."""

logins = Table(
    "logins",
    metadata,
    Column("device_sha256", String(64), primary_key=True),
    Column("user_code", String(16), nullable=False, unique=True),
    Column("kind", String(12), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("host_name", Text),
    Column("address", String(64)),
    Column("network", String(64)),
    Column("server", Text),
    Column("lifetime", Integer),
    Column("start", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("pause", Integer, nullable=False),
    Column("polled_at", BigInteger),
    Column("state", String(12), nullable=False),
    Column("decided_at", BigInteger),
    Column("user", Text),
    Column("user_made", Text),
    Column("login_at", BigInteger),
    Column("login_ends_at", BigInteger),
    Column("only", Boolean),
    Index("logins_by_end", "expires_at"),
)
"""One row for each login that waits for a browser (RFC 8628), bound to one public key. `kind` is device (a client that
polls) or interactive (an ssh connection that waits at a bastion). `state` goes from pending to approved or denied, and
from approved to taken; never back. `network` is what its address counts under where addresses are counted. `pause` is
how many seconds a client has to leave between two questions. `user` and what follows is who approved it, and the end
of that browser login. `only`: whether the certificate is for `server` alone; where that is not said, it is."""

nonces = Table(
    "nonces",
    metadata,
    Column("nonce_sha256", String(64), primary_key=True),
    Column("used_at", BigInteger, nullable=False),
    Index("nonces_by_moment", "used_at"),
)
"""Proofs of possession that were seen: each counts once."""

bastions = Table(
    "bastions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seen_at", BigInteger, nullable=False),
    Column("sessions", JSON, nullable=False),
)
"""One row a bastion process: the sessions that live in it, as it last said."""

ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("session", String(64), nullable=False),
    Column("by", Text, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    Index("ended_sessions_by_moment", "ended_at"),
)
"""Sessions that somebody ended by hand; the bastions hear of them with the state."""
