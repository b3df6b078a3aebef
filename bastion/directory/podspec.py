"""What a Kubernetes pod says about itself, and how much of that counts: pure reading, no cluster.

Who a pod runs for comes from the annotations that KubeSpawner writes. Its labels only select: they are shortened and
escaped, so two users can share one, and an administrator's profile may set them. Nobody but the hub's service account
and cluster administrators may write a pod's annotations; a notebook has no token for that.

    the pod                                                     is
    ──────────────────────────────────────────────────────────  ─────────────────────────────────────
    no user name annotation, or a namespace that is not watched NotOurs
    marked for deletion, phase Succeeded or Failed, or the      Unusable(stopped), whatever its readiness and
    notebook container ended for good                           its address say: both outlive it
    no address yet                                              Unusable(starting)
    something of it cannot be read                              Unusable(why), worth a look by an administrator
    else                                                        a `Pod`, ready or not

Which run of the server a pod is: the annotation that our part of the hub's configuration writes, exactly. A pod
without it (an older bastion's) is judged by time: certificates count that were issued after it was created. A wrong
annotation is not "no annotation".
"""

import ipaddress
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from bastion.directory.table import Pod
from ca.errors import MalformedName
from ca.names import Instance, Server, instance_id

USERNAME = "hub.jupyter.org/username"
SERVER_NAME = "hub.jupyter.org/servername"
"""KubeSpawner's annotations, unescaped. A default server has none for its name."""

INSTANCE = "jupyterhub-bastion/instance"
"""JupyterHub's `started` of this run, in microseconds since the epoch, as text."""
SSH_PORT = "jupyterhub-bastion/ssh-port"
KEY_PORT = "jupyterhub-bastion/key-port"
UNIX_USER = "jupyterhub-bastion/unix-user"
"""Where this pod differs from the settings."""

_MICROSECONDS = re.compile(r"[1-9][0-9]{0,18}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_UNIX_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\$?")


class Why(StrEnum):
    """Why a pod of ours is not offered. The first two are a pod's usual life."""

    STOPPED = "stopped"
    STARTING = "starting"
    BAD_UID = "its uid cannot be read"
    BAD_NAME = "its user or server name cannot be read"
    BAD_INSTANCE = "its run cannot be read"
    BAD_ADDRESS = "its address cannot be read"
    BAD_PORT = "a port cannot be read"
    BAD_UNIX_USER = "its Unix user cannot be read"
    HOST_NETWORK = "it shares its node's network, where its ports may be another's"


USUAL = frozenset({Why.STOPPED, Why.STARTING})


@dataclass(frozen=True, slots=True)
class NotOurs:
    """A pod that is no notebook server, or not one of a watched namespace."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A notebook server's pod that is not offered."""

    why: Why


Judged = Pod | NotOurs | Unusable


@dataclass(frozen=True, slots=True)
class PodRules:
    """What counts for pods that do not say otherwise.

    `namespaces` are names or patterns (`*`). `unix_user` is the account of pods that carry our annotation, and so
    our pod side; others are entered in jump mode only. `container` is the one whose end is the server's end.
    """

    namespaces: tuple[str, ...] = ("*",)
    ssh_port: int = 22
    key_port: int = 8080
    unix_user: str | None = "jovyan"
    container: str = "notebook"


def uid_of(raw: Mapping[str, object]) -> str:
    """The pod's own, unique name; empty for something that is no Kubernetes object."""
    uid = _mapping(raw.get("metadata")).get("uid")
    return uid if isinstance(uid, str) else ""


def read_pod(raw: Mapping[str, object], rules: PodRules) -> Judged:
    """Judge one pod as the Kubernetes API gives it (core/v1 Pod, as a dictionary). Raises nothing."""
    metadata, spec, status = (_mapping(raw.get(part)) for part in ("metadata", "spec", "status"))
    annotations = _mapping(metadata.get("annotations"))
    namespace = metadata.get("namespace")
    if USERNAME not in annotations or not isinstance(namespace, str):
        return NotOurs()
    if not any(fnmatchcase(namespace, pattern) for pattern in rules.namespaces):
        return NotOurs()
    if not _is_text(uid_of(raw)):
        return Unusable(Why.BAD_UID)
    if _has_stopped(metadata, spec, status, rules.container):
        return Unusable(Why.STOPPED)
    if not status.get("podIP"):
        return Unusable(Why.STARTING)
    if spec.get("hostNetwork") is True:
        return Unusable(Why.HOST_NETWORK)
    return _read_running(metadata, annotations, status, rules)


def _read_running(
    metadata: Mapping[str, object], annotations: Mapping[str, object], status: Mapping[str, object], rules: PodRules
) -> Pod | Unusable:
    server = _server(annotations)
    if server is None:
        return Unusable(Why.BAD_NAME)
    run = _run(server, metadata, annotations)
    if run is None:
        return Unusable(Why.BAD_INSTANCE)
    instance, created_ms = run
    try:
        address = str(ipaddress.ip_address(_text(status.get("podIP"))))
    except ValueError:
        return Unusable(Why.BAD_ADDRESS)
    ssh_port = _port(annotations.get(SSH_PORT), rules.ssh_port)
    key_port = _port(annotations.get(KEY_PORT), rules.key_port)
    if ssh_port is None or key_port is None:
        return Unusable(Why.BAD_PORT)
    user = annotations.get(UNIX_USER, rules.unix_user)
    if user is not None and not (isinstance(user, str) and _UNIX_USER.fullmatch(user)):
        return Unusable(Why.BAD_UNIX_USER)
    return Pod(
        instance=instance,
        address=address,
        ssh_port=ssh_port,
        key_port=key_port,
        unix_user=user if created_ms is None else None,
        host_key=None,
        names=(f"{_text(metadata.get('name'))}.{_text(metadata.get('namespace'))}",),
        uid=uid_of({"metadata": metadata}),
        ready=_is_ready(status),
        created_ms=created_ms,
    )


def _server(annotations: Mapping[str, object]) -> Server | None:
    owner, name = annotations.get(USERNAME), annotations.get(SERVER_NAME, "")
    if not isinstance(owner, str) or not isinstance(name, str):
        return None
    try:
        return Server(owner, name)
    except MalformedName:
        return None


def _run(
    server: Server, metadata: Mapping[str, object], annotations: Mapping[str, object]
) -> tuple[Instance, int | None] | None:
    """Which run this is, and None; or, where nobody wrote that down, a name for this pod alone, and its creation in
    milliseconds since the epoch."""
    try:
        if INSTANCE in annotations:
            written = annotations[INSTANCE]
            if not isinstance(written, str) or not _MICROSECONDS.fullmatch(written):
                return None
            return Instance(server, int(written)), None
        created = instance_id(_text(metadata.get("creationTimestamp")))
        # Kubernetes counts in seconds: the fraction tells apart pods that one second has seen.
        fraction = zlib.crc32(uid_of({"metadata": metadata}).encode()) % 1_000_000
        return Instance(server, created + fraction), created // 1000
    except MalformedName:
        return None


def _has_stopped(
    metadata: Mapping[str, object], spec: Mapping[str, object], status: Mapping[str, object], container: str
) -> bool:
    if metadata.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return True
    for one in _list(status.get("containerStatuses")):
        ended = _mapping(_mapping(_mapping(one).get("state")).get("terminated"))
        if _mapping(one).get("name") == container and ended:
            policy = spec.get("restartPolicy", "Always")
            return policy == "Never" or (policy == "OnFailure" and ended.get("exitCode") == 0)
    return False


def _is_ready(status: Mapping[str, object]) -> bool:
    conditions = [_mapping(one) for one in _list(status.get("conditions"))]
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _port(raw: object, default: int) -> int | None:
    if raw is None:
        return default
    if not isinstance(raw, str) or not _PORT.fullmatch(raw) or int(raw) > 65535:
        return None
    return int(raw)


def _text(raw: object) -> str:
    return raw if isinstance(raw, str) else ""


def _is_text(raw: str) -> bool:
    """JSON can hold halves of characters, which nothing can write down."""
    return not any("\ud800" <= char <= "\udfff" for char in raw)


def _mapping(raw: object) -> Mapping[str, object]:
    return raw if isinstance(raw, dict) else {}


def _list(raw: object) -> list[object]:
    return raw if isinstance(raw, list) else []
