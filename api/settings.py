"""Every choice an operator has, in one place, read once by `__main__`.

Settings are environment variables: `SSH_API_` and the names below, groups first (`SSH_API_HUB_TOKEN_FILE` is
`token_file` of the group `hub`). Lists are written with commas. On a machine where JupyterHub runs with its
defaults only the hub token must be given. A variable with our prefix that is no setting is an error, since a
misspelt setting that is silently ignored is how a limit gets lost.

Whatever is wrong is told in sentences, all at once, as `SettingsError`.
"""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.pace import Kind
from ca.environment import Group, read, split
from ca.errors import MalformedName
from ca.limits import Capability
from ca.names import check_zone
from ca.policy import GroupRule, Rules

PREFIX = "SSH_API_"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("this is not a web address like https://ssh.example.org")
    if parts.username is not None or parts.password is not None:
        raise ValueError("web addresses here hold no user name and no password")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    """Whether only this machine can be meant: a trial, where hub and api may share the name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _overlap(some: tuple[Network, ...], others: tuple[Network, ...]) -> tuple[Network, Network] | None:
    """The first two that have an address in common."""
    pairs = ((one, other) for one in some for other in others if one.version == other.version)
    return next((pair for pair in pairs if pair[0].overlaps(pair[1])), None)


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError:
        raise ValueError("this is not JSON") from None


def _host(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9.:-]{1,253}", text) or text.startswith("-"):
        raise ValueError(f"{text!r} is not a host name in lower case, nor an address")
    return text


WebAddress = Annotated[str, AfterValidator(_web_address)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], NoDecode, BeforeValidator(split)]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(split)]
CapabilitySet = Annotated[frozenset[Capability], NoDecode, BeforeValidator(split)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Group(Group):
    model_config = ConfigDict(use_attribute_docstrings=True)


class GroupSettings(_Group):
    """What membership in one JupyterHub group adds and takes; taking wins."""

    allow: frozenset[Capability] = frozenset()
    deny: frozenset[Capability] = frozenset()


GroupMap = Annotated[dict[str, GroupSettings], NoDecode, BeforeValidator(_json)]


class HubSettings(_Group):
    """Where JupyterHub is, and who we are to it."""

    url: WebAddress = "http://127.0.0.1:8000"
    """JupyterHub as browsers see it, with its base path but without `/hub`."""

    api_url: str = ""
    """JupyterHub's REST API as this service reaches it. Empty: `<url>/hub/api`."""

    token: SecretStr | None = None
    """The service's API token, as in JupyterHub's `services` list. It is the OAuth client secret as well."""

    token_file: Path | None = None
    """A file that holds the token, instead of `token`."""

    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds that JupyterHub may take to answer one request."""

    poll_interval: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    """Seconds between two questions which servers run."""

    shares_interval: Annotated[float, Field(ge=0.05, le=300)] = 5.0
    """Seconds between two questions whether servers that certificates name are still shared with their holders."""

    activity: bool = True
    """Whether JupyterHub is told which servers are used over SSH, so that its idle culler lets them be. It needs the
    scope `users:activity`."""

    @model_validator(mode="after")
    def _read_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("give the hub's token once: either TOKEN or TOKEN_FILE")
        if self.token_file is not None:
            object.__setattr__(self, "token", SecretStr(_secret_from(self.token_file)))
        if self.token is None or not self.token.get_secret_value():
            raise ValueError(
                "JupyterHub's token for this service is missing: set SSH_API_HUB_TOKEN_FILE or SSH_API_HUB_TOKEN to "
                "the api_token of the service in jupyterhub_config.py"
            )
        if not re.fullmatch(r"[\x21-\x7e]+", self.token.get_secret_value()):
            raise ValueError("JupyterHub's token for this service holds blanks or characters that no token has")
        object.__setattr__(self, "api_url", _web_address(self.api_url or f"{self.url}/hub/api"))
        return self

    @property
    def secret(self) -> str:
        """The token itself, for the one request that needs it."""
        return self.token.get_secret_value() if self.token else ""


class ListenSettings(_Group):
    """The public port: browsers, scripts and pods."""

    host: str = "127.0.0.1"
    """Address to listen on. `0.0.0.0`: all of IPv4; `::`: all of both."""

    port: Port = 9080
    """Port to listen on; 0 takes a free one and prints it."""

    trusted_proxies: Networks = ()
    """Addresses of reverse proxies whose `X-Forwarded-For` is believed. Nobody else's is. None of a network in which
    notebook servers are (`SSH_API_PODS_NETWORKS`), since they would be believed as well."""

    proxy_socket: Path | None = None
    """A unix socket for a reverse proxy on this machine, beside `port`: whoever can open it is believed. The api makes
    it with mode 0660, in a folder (mode 2750, of the proxy's group) that no notebook server can enter."""

    pod_port: Port | None = None
    """One more port, for notebook servers alone, where no `X-Forwarded-For` is believed: for clusters, where proxies
    are pods as well. Then nothing but proxies may reach `port`. Empty: notebook servers come to `port`."""

    max_body: Annotated[int, Field(ge=16384, le=1 << 24)] = 65536
    """Bytes that one request may carry."""


class InternalSettings(_Group):
    """The second port: the bastion and the operators' metrics. Never put it behind an ingress."""

    host: str = "127.0.0.1"
    """Address to listen on. `0.0.0.0`: all of IPv4; `::`: all of both."""

    port: Port = 9081
    """Port to listen on; 0 takes a free one and prints it."""

    secret_file: Path | None = None
    """The secret shared with the bastion. Empty: `internal-secret` in the state directory, made at first start."""


class BastionSettings(_Group):
    """The bastion as people reach it: names of its host certificate, `known_hosts` and `ssh_config`."""

    hosts: Hosts = ("127.0.0.1", "localhost")
    """Host names and addresses that people type. The first is the one in examples."""

    port: Port = 2222
    """Port that people type."""

    jump_login: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "jump"
    """Login name for `ssh -J`, as the bastion has it."""


class PodSettings(_Group):
    """What is believed of a notebook server that enrols."""

    networks: Networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    """Networks that notebook servers live in. An enrolment from elsewhere is refused."""

    unix_user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,31}$")] = "jovyan"
    """The user that notebook servers run as, for `ssh_config`; each enrolment says its own."""

    host_certificate_lifetime: Annotated[int, Field(ge=600, le=30 * 86400)] = 86400
    """Seconds that a pod's or the bastion's host certificate counts; they ask for a new one in time."""


class ServerSettings(_Group):
    """What people may do with their own servers here, besides entering them."""

    start: bool = False
    """Whether people may start and stop their own servers, with SSH, from here. JupyterHub must let this
    service do that: `configure(..., start_servers=True)`."""


class CertificateSettings(_Group):
    """What a user certificate may be. The rules of one request stand in `ca.policy`."""

    lifetime: Annotated[int, Field(ge=60, le=7 * 86400)] = 12 * 3600
    """Seconds that a certificate counts at most."""

    shared_lifetime: Annotated[int, Field(ge=60, le=7 * 86400)] = 3600
    """The same, as soon as somebody else's server is in it."""

    renew_for: Annotated[int, Field(ge=0, le=7 * 86400)] = 86400
    """Seconds after a browser login for which its certificates can be renewed with the key alone, while their servers
    run. No certificate outlives that. 0: never."""

    capabilities: CapabilitySet = frozenset(Capability)
    """What sessions may do: any of pty, exec, subsystem, local-forward, remote-forward, streamlocal, agent, x11.
    local-forward and streamlocal are given only together with exec and subsystem."""

    groups: GroupMap = Field(default_factory=dict)
    """JupyterHub groups that may do more or less, as JSON: `{"students": {"deny": ["remote-forward"]}}`."""

    raw_key_capabilities: CapabilitySet = frozenset(Capability)
    """What people may do who come with a key from the pod's `authorized_keys` instead of a certificate; never more than
    `capabilities`, nor than `groups` leave the server's owner, who writes that file herself."""

    raw_keys: bool = True
    """Whether the bastion gets hop certificates (direct mode) for raw keys, on its word alone."""

    admin_ssh: bool = False
    """Whether JupyterHub admins may enter servers that are not theirs. Each such certificate is audited as such."""

    source_address: bool = False
    """Bind certificates to the address that asked. Breaks behind NAT and load balancers."""

    keys_group: int | None = None
    """Group id that may read the CA key files (a pod's fsGroup). Empty: nobody but the owner."""

    @property
    def rules(self) -> Rules:
        """The site's policy, as `ca.policy` knows it."""
        return Rules(
            lifetime=self.lifetime,
            shared_lifetime=self.shared_lifetime,
            capabilities=self.capabilities,
            groups={name: GroupRule(allow=one.allow, deny=one.deny) for name, one in self.groups.items()},
            admin_ssh=self.admin_ssh,
            bind_source_address=self.source_address,
            raw_keys_direct=self.raw_keys,
            raw_key_capabilities=self.raw_key_capabilities,
        )


class LimitSettings(_Group):
    """How much one user may ask for in ten minutes, counted by each process; 0 is no limit. Who asks for more waits."""

    certificates: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """User certificates, from the page, with tokens and renewed."""

    enrolments: Annotated[int, Field(ge=0, le=1_000_000)] = 300
    """Enrolments of the user's notebook servers, tries included."""

    revocations: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Revocations, and live sessions that are ended by hand."""

    @property
    def by_kind(self) -> Mapping[Kind, int]:
        """The same, as `api.pace` knows it."""
        return {
            Kind.CERTIFICATES: self.certificates,
            Kind.ENROLMENTS: self.enrolments,
            Kind.REVOCATIONS: self.revocations,
        }


class LoginSettings(_Group):
    """Ways to a certificate for people whose ssh is not where their browser is."""

    device: bool = True
    """Whether clients may begin logins that somebody approves in a browser (`POST /device`, as `hubssh` does)."""

    interactive: bool = True
    """Whether the bastion may do so for people who have neither a certificate nor a known key. Needs `device`; the
    bastion has a setting of its own."""

    interactive_jump: bool = False
    """Whether that is possible for jump logins, too: for every server of whoever approves. The bastion asks for it with
    `BASTION_LOGIN_INTERACTIVE_JUMP`, and it is off here so that a bastion alone cannot."""

    waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Logins that may wait for somebody to approve them, of clients and of ssh connections so many each; each does for
    ten minutes at most. Beyond that the oldest of the network with the most gives way."""

    waiting_per_address: Annotated[int, Field(ge=1, le=1_000_000)] = 400
    """The same for one address of clients (IPv6: one /64; a /48 has five times as many). A class behind one NAT has to
    fit."""

    @property
    def holds_connections(self) -> bool:
        """Both."""
        return self.device and self.interactive


class LogSettings(_Group):
    """What is written where. Both logs are lines of JSON."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe thing written to standard error."""

    audit_file: Path | None = None
    """File that audit lines are appended to. Empty: standard output."""


class Settings(BaseSettings):
    """All settings. Immutable; secrets do not show when it is printed."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        use_attribute_docstrings=True,
        frozen=True,
        validate_default=True,
    )

    public_url: WebAddress = "http://127.0.0.1:9080"
    """This service as browsers and pods see it. Every link is made from it, never from a request."""

    service_name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "ssh"
    """Our name in JupyterHub's `services` list. JupyterHub takes no capitals in the scope that is made of it."""

    zone: str = "hub"
    """The domain in which servers have names: `alice+gpu.hub`. It exists in SSH only, never in DNS."""

    state_directory: Path = Path("/var/lib/jupyterhub-bastion")
    """Keeps the CA keys, the database and secrets. Back it up; whoever reads it can sign."""

    database_url: SecretStr | None = None
    """SQLAlchemy address, `postgresql+asyncpg://…` for more than one replica. Empty: SQLite in the state directory."""

    hub: HubSettings = Field(default_factory=HubSettings)
    listen: ListenSettings = Field(default_factory=ListenSettings)
    internal: InternalSettings = Field(default_factory=InternalSettings)
    bastion: BastionSettings = Field(default_factory=BastionSettings)
    pods: PodSettings = Field(default_factory=PodSettings)
    servers: ServerSettings = Field(default_factory=ServerSettings)
    certificates: CertificateSettings = Field(default_factory=CertificateSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    logins: LoginSettings = Field(default_factory=LoginSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.bastion.hosts:
            raise ValueError("the bastion needs at least one public host name: SSH_API_BASTION_HOSTS")
        try:
            check_zone(self.zone, *self.bastion.hosts, urlsplit(self.public_url).hostname or "")
        except MalformedName as error:
            raise ValueError(str(error)) from None
        # With a port of their own, notebook servers are kept from the public one, by the chart's policies.
        overlap = _overlap(self.listen.trusted_proxies, self.pods.networks)
        if overlap and self.listen.pod_port is None:
            raise ValueError(
                f"SSH_API_LISTEN_TRUSTED_PROXIES ({overlap[0]}) and SSH_API_PODS_NETWORKS ({overlap[1]}) overlap, so "
                "any notebook server could write X-Forwarded-For and seem to be anywhere. Let a proxy on this machine "
                "come through a unix socket (SSH_API_LISTEN_PROXY_SOCKET) and leave it out of TRUSTED_PROXIES; in a "
                "cluster, give notebook servers a port of their own (SSH_API_LISTEN_POD_PORT) and let nothing but "
                "proxies reach the public one; else name proxies by addresses that no notebook server can have"
            )
        ours, hubs = (urlsplit(url).hostname or "" for url in (self.public_url, self.hub.url))
        if ours == hubs and not _is_loopback(ours):
            raise ValueError(
                "SSH_API_PUBLIC_URL needs a host name of its own, not JupyterHub's: browsers send a host's cookies to "
                "each of its ports, so notebook servers would be sent the sessions of this service"
            )
        return self

    @property
    def oauth_client_id(self) -> str:
        """Our OAuth client id at JupyterHub: it prefixes service names so."""
        return f"service-{self.service_name}"

    @property
    def connect_scope(self) -> str:
        """The custom scope with which owners share SSH, as `deploy/hub` declares it."""
        return f"custom:{self.service_name}:connect"

    @property
    def database(self) -> str:
        """The SQLAlchemy address that is really used. It may hold a password."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.state_directory.absolute() / 'api.sqlite'}"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from `environment` and nothing else. Raises `SettingsError` naming everything that is wrong."""
    return read(Settings, environment, "python -m api check-settings --list")


def describe() -> str:
    """Every setting with its default and its meaning, for people."""
    return "\n\n".join(_described(PREFIX, Settings))


def _described(prefix: str, group: type[BaseModel]) -> Iterator[str]:
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            yield from _described(f"{prefix}{name.upper()}_", field.annotation)
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        meaning = " ".join((field.description or "").split())
        shown = _shown(default)
        yield f"{prefix}{name.upper()}" + (f" (default: {shown})" if shown else "") + f"\n    {meaning}"


def _shown(value: object) -> str:
    if isinstance(value, tuple | frozenset):
        return ",".join(sorted(str(one) for one in value))
    return "" if value is None or value == {} else str(value)


def _secret_from(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"the secret in {path} cannot be read") from None
