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

Older = Literal[
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "chacha20-poly1305@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
]

_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def bind_to(host: str) -> str | None:
    """`host` as socket functions want it. For them `::` is IPv6 alone; here it is every address, with a socket for each
    family, so that IPv4 clients keep their IPv4 addresses."""
    return None if host in ("", "::") else host


class ListenSettings(Group):
    """Where people's ssh arrives."""

    host: str = "127.0.0.1"
    """Address to listen on. `0.0.0.0`: all of IPv4; `::`: all of both."""

    port: Port = 2222
    """Port to listen on; 0 takes a free one and prints it."""

    also_offer: Annotated[tuple[Older, ...], NoDecode, BeforeValidator(split)] = ()
    """Older algorithms to offer besides, after all others, for clients that know nothing better: `hmac-sha2-256` for
    libssh2 before 1.11 (curl in Debian 12), `chacha20-poly1305@openssh.com` for an OpenSSH that was told to speak
    nothing else, key exchanges such as `ecdh-sha2-nistp256`. SHA-1 is none of them."""


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
    """Seconds from the connection to the end of authentication (sshd's LoginGraceTime)."""

    attempts: Count = 6
    """Keys that may be tried by signature on one connection (sshd's MaxAuthTries)."""

    probes: Count = 40
    """Keys that a client may ask about on one connection without signing. An agent may hold many."""

    interactive: bool = True
    """Whether people without a certificate and a known key get an address and a code, and are let in when somebody has
    approved that in a browser. The api has a word in it, too: off where its device flow is."""

    interactive_jump: bool = False
    """The same for jump logins. Servers then still ask for a key or a certificate of the person's own, end to end, so
    it is of use only where they know keys that the bastion does not; without it such a login is refused at once."""

    interactive_seconds: Annotated[float, Field(gt=0, le=3600)] = 600.0
    """Seconds that such a login waits at most. A code counts for ten minutes, so more is of no use."""

    cut_at_expiry: bool = False
    """Whether running sessions end with their certificate. If not, only new channels are refused."""


class LimitSettings(Group):
    """How much anybody may take. docs/limits.md says of each what people see when they reach it, and its metric.

    Each process counts for itself. With several workers the bounds on the whole (`unauthenticated_start`,
    `unauthenticated_full`, `interactive`, `connections`, `tunnels`) are divided by their number; those on one address,
    user or connection are not, since a user's connections may all meet the same worker.
    """

    unauthenticated_start: Count = 600
    """Connections that have not logged in yet, from which on newcomers have one of them dropped (`bastion.lobby`)."""

    unauthenticated_rate: Annotated[int, Field(ge=0, le=100)] = 30
    """The chance, in percent, that a newcomer above `unauthenticated_start` has one dropped. It grows to 100 at
    `unauthenticated_full`. The three are start:rate:full of sshd's MaxStartups."""

    unauthenticated_full: Count = 1200
    """There are never more than these."""

    unauthenticated_per_address: Count = 600
    """The same from one address; one more has the oldest of that address dropped. A class of 300 behind one NAT passes,
    with an editor that opens two at once."""

    interactive: Count = 1000
    """Connections that wait for a login in a browser. They are not among the `unauthenticated_…` ones; one more has the
    oldest of the address with most of them dropped. Never more than half of `connections`."""

    interactive_per_address: Count = 400
    """The same from one address, and how many such logins an address may begin in `login_interactive_seconds`; those
    that let somebody in do not count. A class of 300 behind one NAT passes."""

    connections_per_address: Count = 2000
    """Connections from one address, logged in or not. An IPv6 /64 is one address."""

    connections_per_user: Count = 64
    """Live connections of one user or key, and of all raw keys together into the servers of one owner. Each tunnel of
    a jump connection counts as one."""

    connections: Count = 5000
    """Connections in all. Each may need two file descriptors; the limit of the process is raised as far as it goes."""

    tunnels: Count = 5000
    """Tunnels of jump connections in all. Each needs a file descriptor."""

    channels: Count = 256
    """Channels of one connection, open or being opened, of every kind and in both directions."""

    sessions: Count = 32
    """Of these, sessions: shells, commands, subsystems (sshd's MaxSessions)."""

    window: Annotated[int, Field(ge=1 << 15, le=1 << 30)] = 2 << 20
    """Bytes on their way in one channel and direction, however large a window the receiver offers."""

    buffered: Annotated[int, Field(ge=1 << 15, le=1 << 30)] = 1 << 20
    """Bytes that wait for one TCP connection before the other side is not read any more."""

    deferred: Annotated[int, Field(ge=1 << 20, le=1 << 30)] = 16 << 20
    """Bytes that wait for a key exchange to end before the connection that holds it up is dropped."""

    unanswered: Count = 256
    """Requests that wait for an answer, for each channel, and for the connection as a whole. With so many the client
    waits until one is answered."""

    rekey_bytes: Annotated[int, Field(ge=1 << 20, le=64 << 30)] = 16 << 30
    """Bytes sent with one key before the bastion asks for new ones, of clients and of pods, which may ask more often.
    Some old clients end when a server asks, so this is as late as is safe: AES is good for 64 GiB (RFC 4344), and even
    the smallest packets number less than 2^31 in 16 GiB. A site whose rules name a number sets that."""

    rekey_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Age of a key in seconds from which the bastion asks for new ones. 0: never, as in OpenSSH. RFC 4253 recommends an
    hour, from the time of ciphers with small blocks."""

    keepalive: Annotated[float, Field(ge=0)] = 30.0
    """Seconds of silence before a client, or a pod, is asked whether it is still there. 0: nobody is asked."""

    keepalive_count: Count = 3
    """Questions without an answer until it counts as gone: after (count + 1) × `keepalive` seconds of silence."""


class ProxySettings(Group):
    """A load balancer before the bastion that tells clients' addresses (PROXY protocol, versions 1 and 2)."""

    networks: Networks = ()
    """Addresses of the balancers: connections from there must begin with a header, from elsewhere none is read.
    Empty: off."""

    timeout: Seconds = 5.0
    """Seconds that a header may take."""


class KeyCacheSettings(Group):
    """The tiered cache of the pods' public keys (`bastion.pubkeys.cache`). Ages are in seconds."""

    full_after: Seconds = 900.0
    """Since the last full rebuild, until everything is fetched anew."""

    partial_after: Seconds = 120.0
    """Since the last update of any kind, until an unknown key has the missing pods fetched."""

    fetch_timeout: Seconds = 3.0
    """What one pod may cost."""


class DirectorySettings(Group):
    """Where the bastion learns which servers run. All but the first two are for Kubernetes."""

    source: Literal["hub", "kubernetes"] = "hub"
    """`hub`: the servers that enrolled, as the api and JupyterHub say. `kubernetes`: the pods, as Kubernetes says."""

    max_age: Seconds = 300.0
    """How long the last news stay good. After that new connections are refused and live ones stay."""

    namespaces: Names = ("hub",)
    """Namespaces that notebook servers run in. With a pattern (`jupyter-*`, `*`) all namespaces are watched, which
    takes a ClusterRole; then nobody but the hub may create pods in those that match."""

    selector: str = "component=singleuser-server,ssh-bastion-server/notebook=true"
    """Labels of pods with SSH, as kubectl writes a selector."""

    ssh_port: Annotated[int, Field(gt=0, le=65535)] = 22
    """Port of the sshd in pods that do not say otherwise (annotation `jupyterhub-bastion/ssh-port`)."""

    key_port: Annotated[int, Field(gt=0, le=65535)] = 8080
    """Port of the public-key API in pods that do not say otherwise (annotation `jupyterhub-bastion/key-port`)."""

    unix_user: str | None = "jovyan"
    """Whom the bastion logs in as, in pods with our pod side that do not say otherwise (annotation
    `jupyterhub-bastion/unix-user`). Pods without it take connections in jump mode only."""

    watch_seconds: Annotated[int, Field(ge=1, le=300)] = 30
    """How long one watch request lasts: a connection to the Kubernetes API that was cut without a word is noticed 5 s
    after that. Far below `max_age`."""

    kube_api_host: str | None = None
    """Host of the Kubernetes API. Empty: the one that Kubernetes tells its pods."""

    kube_api_port: Annotated[int | None, Field(gt=0, le=65535)] = None
    """Its port, likewise."""

    kubeconfig: Path | None = None
    """A file as kubectl reads it. Empty: the service account of the pod that the bastion runs in."""

    service_account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """The folder with that account's `token` and `ca.crt`, for pods that mount it elsewhere."""


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

    metrics_host: str = "127.0.0.1"
    """Address for Prometheus. In a cluster 0.0.0.0, with a NetworkPolicy that lets nobody else in."""

    metrics_port: Port | None = None
    """Port for Prometheus; 0 takes a free one. Empty: none. One port speaks for all workers."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the port, one for each core that SSH may use. 1: just this process."""

    restart_grace: Annotated[float, Field(ge=0)] = 43200.0
    """Seconds that sessions of old workers may go on after a graceful restart (SIGHUP, with several workers)."""

    activity_interval: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """Seconds between two reports to the api which servers are used, so that JupyterHub's idle culler lets them be.
    0: none."""

    listen: ListenSettings = Field(default_factory=ListenSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    login: LoginSettings = Field(default_factory=LoginSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    proxy: ProxySettings = Field(default_factory=ProxySettings)
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
        if self.limits.unauthenticated_start >= self.limits.unauthenticated_full:
            raise ValueError(
                "BASTION_LIMITS_UNAUTHENTICATED_START must be less than BASTION_LIMITS_UNAUTHENTICATED_FULL"
            )
        if self.directory.source == "kubernetes" and not self.directory.namespaces:
            raise ValueError("BASTION_DIRECTORY_NAMESPACES names no namespace")
        return self

    @property
    def admin_socket(self) -> Path:
        """Where the commands `sessions`, `refresh-keys` and `cut` reach the running bastion."""
        return self.state_directory / "admin.sock"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from `environment`. Raises `ca.environment.SettingsError` naming everything that is wrong."""
    return read(Settings, environment, "python -m bastion settings")
