"""Every choice an operator of the bastion has, in one place, read once by `__main__`.

Settings are environment variables: `BASTION_` and the names below, groups first (`BASTION_API_SECRET_FILE` is
`secret_file` of the group `api`). Lists are written with commas. Beside an api with its defaults on the same machine
only the secret's file must be given.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ca.environment import Group, read, split

PREFIX = "BASTION_"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(split)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]

_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class ListenSettings(Group):
    """Where people's ssh arrives."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: Port = 2222
    """Port to listen on; 0 takes a free one and prints it."""


class ApiSettings(Group):
    """The api's internal port."""

    url: str = "http://127.0.0.1:9081"
    """Where it is. Plain http only on loopback, or with `allow_http`."""

    secret_file: Path = Path("/var/lib/jupyterhub-bastion/internal-secret")
    """The secret shared with the api: the file `internal-secret` in its state directory."""

    allow_http: bool = False
    """Whether plain http may leave this machine (inside a cluster whose network is trusted)."""


class LoginSettings(Group):
    """Who may enter, and how."""

    jump_names: Names = ("jump",)
    """Login names without a server of their own, for `ssh -J`. Several are allowed (`jump,limited-user`)."""

    raw_keys: bool = True
    """Whether keys from the pods' `authorized_keys` open anything at all."""

    raw_keys_direct: bool = True
    """Whether they open direct mode as well; otherwise jump mode only. The api has a word in it, too."""

    grace: Seconds = 60.0
    """Seconds from the connection to the end of authentication."""

    attempts: Count = 6
    """Keys that may be tried by signature on one connection."""

    cut_at_expiry: bool = False
    """Whether running sessions end with their certificate. If not, only new channels are refused."""


class LimitSettings(Group):
    """How much anybody may take."""

    unauthenticated: Count = 400
    """Connections that have not authenticated yet, all together; more are turned away."""

    unauthenticated_per_address: Count = 320
    """The same from one address: a class of 300 behind one NAT passes."""

    connections_per_user: Count = 64
    """Live connections of one user or key."""

    connections: Count = 5000
    """Live connections in this process."""

    channels: Count = 64
    """Channels of one connection."""


class KeyCacheSettings(Group):
    """The tiered cache of the pods' public keys (`bastion.pubkeys.cache`). Ages are in seconds."""

    full_after: Seconds = 900.0
    """Since the last full rebuild, until everything is fetched anew."""

    partial_after: Seconds = 120.0
    """Since the last update of any kind, until an unknown key has the missing pods fetched."""

    fetch_timeout: Seconds = 3.0
    """What one pod may cost."""


class DirectorySettings(Group):
    """Where the bastion learns which servers run."""

    max_age: Seconds = 300.0
    """How long the last news stay good. After that new connections are refused and live ones stay."""


class PodSettings(Group):
    """How pods are reached."""

    networks: Networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    """Networks that notebook servers live in: the bastion dials nothing else."""


class LogSettings(Group):
    """What is written where. Both logs are lines of JSON."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe thing written to standard error."""

    audit_file: Path | None = None
    """File that audit lines are appended to. Empty: standard output."""


class Settings(BaseSettings):
    """All settings of the bastion. Immutable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    state_directory: Path = Path("/var/lib/jupyterhub-bastion/bastion")
    """Keeps the bastion's host key, its certificate, the last trusted keys, and the admin socket."""

    shutdown_grace: Annotated[float, Field(ge=0)] = 10.0
    """Seconds that sessions get to end by themselves after SIGTERM."""

    metrics_port: Port | None = None
    """Port for Prometheus on loopback. Empty: none."""

    listen: ListenSettings = Field(default_factory=ListenSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    login: LoginSettings = Field(default_factory=LoginSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    keys: KeyCacheSettings = Field(default_factory=KeyCacheSettings)
    directory: DirectorySettings = Field(default_factory=DirectorySettings)
    pods: PodSettings = Field(default_factory=PodSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        for name in self.login.jump_names:
            if not _LOGIN.fullmatch(name):
                raise ValueError(f"BASTION_LOGIN_JUMP_NAMES: {name!r} is not a login name")
        if self.keys.partial_after > self.keys.full_after:
            raise ValueError("BASTION_KEYS_PARTIAL_AFTER must not be longer than BASTION_KEYS_FULL_AFTER")
        return self

    @property
    def admin_socket(self) -> Path:
        """Where the commands `sessions`, `refresh-keys` and `cut` reach the running bastion."""
        return self.state_directory / "admin.sock"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from `environment`. Raises `ca.environment.SettingsError` naming everything that is wrong."""
    return read(Settings, environment, "python -m bastion settings")
