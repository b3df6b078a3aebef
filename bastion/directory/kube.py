"""The one door to the Kubernetes API: pods listed in pages, pods watched, everything as plain dictionaries.

Three things that a client library does not do by itself, and that the list of running servers rests on:

* a list of thousands of pods is read a page at a time, so that neither memory nor the event loop feels it;
* one watch request has an end that both sides know, so that a connection that was cut without a word is noticed;
* what the server says is checked: an error inside the stream, a line that is no event, a silent end.
"""

import json
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client, config

from bastion.directory.podapi import Event, HistoryGone, Kind, KubeError, Page

PAGE = 100
"""Pods in one page: about a megabyte, which is read in a few milliseconds."""

LIST_SECONDS = 20.0
"""What one page may take."""

MARGIN_SECONDS = 5.0
"""How much longer than announced a watch may take to end; then its connection is dead."""

TOKEN_SECONDS = 60.0
"""How long a service account's token is used before its file is read again. Kubernetes replaces it ten minutes or more
before it ends."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a service account into its pods: `token`, and `ca.crt` of its API."""

_OUTAGES = (aiohttp.ClientError, OSError, ValueError, config.ConfigException)
"""What the client raises. TimeoutError is an OSError; a line longer than the client's buffer, for which no pod is large
enough, a ValueError; a kubeconfig whose token cannot be renewed, a ConfigException."""

_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """How the API is reached. `host` and `port` override those that Kubernetes tells its pods.

    `kubeconfig` is a file as kubectl reads it; None: the service account of the pod this runs in.
    """

    kubeconfig: Path | None = None
    host: str | None = None
    port: int | None = None
    service_account: Path = SERVICE_ACCOUNT


class AccountToken:
    """A service account's token, read again every minute, and before its time once it was refused.

    A file that cannot be read now leaves the token as it is: Kubernetes says itself when that counts no more.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `OSError`, and `ValueError` for a file without a token."""
        self._file = file
        self._clock = clock
        self._token = self._read()
        self._due = clock() + TOKEN_SECONDS

    def __call__(self, made: client.Configuration) -> None:
        """The client's hook before each request."""
        if self._clock() >= self._due:
            try:
                self._token = self._read()
            except (OSError, ValueError) as error:
                _log.warning("the service account's token cannot be read again: %s", error)
            self._due = self._clock() + TOKEN_SECONDS
        made.api_key["BearerToken"] = f"Bearer {self._token}"

    def refused(self) -> None:
        """Read it again before the next request."""
        self._due = self._clock()

    def _read(self) -> str:
        token = self._file.read_text("ascii").strip()
        if not token or not token.isprintable():
            raise ValueError(f"{self._file} holds no token")
        return token


async def configuration(access: Access, environment: Mapping[str, str]) -> client.Configuration:
    """What the client needs to know. Raises `KubeError` with a sentence for the operator.

    Where there is no service account and no `kubeconfig` is set, the variable `KUBECONFIG` names one, as for kubectl.
    """
    made = client.Configuration()
    # Neither proxies nor passwords of the process's own environment have anything to do with this.
    made.client_session_kwargs = {"trust_env": False}
    # Names and chains are verified. Not, what Python 3.13 asks for besides, that a CA has every extension that RFC 5280
    # wants: those that EKS and MicroK8s make for a cluster have not.
    made.disable_strict_ssl_verification = True
    file = access.kubeconfig
    in_cluster = _HOST in environment
    if file is None and not in_cluster and environment.get("KUBECONFIG"):
        file = Path(environment["KUBECONFIG"])
    try:
        if file is not None:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(file), client_configuration=made, persist_config=False
            )
        else:
            _as_in_a_pod(made, access, environment)
    except (config.ConfigException, OSError, ValueError) as error:
        raise KubeError(
            f"The Kubernetes API cannot be reached: {error}. Run in a pod with a service account, or set "
            "BASTION_DIRECTORY_KUBECONFIG."
        ) from None
    return made


def _as_in_a_pod(made: client.Configuration, access: Access, environment: Mapping[str, str]) -> None:
    """Raises `OSError` and `ValueError`."""
    host, port = access.host or environment.get(_HOST), access.port or environment.get(_PORT, "443")
    if not host:
        raise ValueError("this is no pod, since KUBERNETES_SERVICE_HOST is not set")
    authorities = access.service_account / "ca.crt"
    if not authorities.read_bytes():
        raise ValueError(f"{authorities} is empty")
    made.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    made.ssl_ca_cert = str(authorities)
    token = AccountToken(access.service_account / "token")
    token(made)  # without any token the client would ask no hook either
    made.refresh_api_key_hook = token  # type: ignore[assignment]


class Cluster:
    """A client of one Kubernetes API. Make it inside the event loop and `aclose` it."""

    def __init__(self, made: client.Configuration) -> None:
        """Raises `KubeError` when the API's certificate authorities cannot be read."""
        self._token: object = made.refresh_api_key_hook
        try:
            self._client = client.ApiClient(made)
        except OSError as error:
            raise KubeError(f"{made.ssl_ca_cert} holds no certificate that can be read: {error}") from None
        self._core = client.CoreV1Api(self._client)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def page(self, namespace: str | None, selector: str, more: str = "") -> Page:
        """See `PodApi.page`. Read from the cluster's database, not from a cache: never older than the question."""
        arguments = {"limit": PAGE, **({"_continue": more} if more else {})}
        try:
            response = await self._ask(namespace, selector, LIST_SECONDS, arguments)
            try:
                raw = await response.read()
            finally:
                response.release()
        except _OUTAGES as error:
            raise _unreachable(error) from None
        body = _object(raw)
        metadata, items = body.get("metadata"), body.get("items", [])
        if not isinstance(metadata, dict) or not isinstance(items, list):
            raise KubeError("the Kubernetes API answered with something that is no list")
        pods = [one for one in items if isinstance(one, dict)]
        return Page(pods, _text(metadata.get("resourceVersion")), _text(metadata.get("continue")))

    async def events(
        self, namespace: str | None, selector: str, version: str, seconds: int
    ) -> AsyncGenerator[Event, None]:
        """See `PodApi.events`."""
        arguments = {
            "watch": True,
            "resource_version": version,
            "allow_watch_bookmarks": True,
            "timeout_seconds": seconds,
        }
        try:
            response = await self._ask(namespace, selector, seconds + MARGIN_SECONDS, arguments)
            try:
                while line := await response.content.readline():
                    yield _event(line)
            finally:
                response.release() if response.content.at_eof() else response.close()
        except _OUTAGES as error:
            raise _unreachable(error) from None

    async def _ask(
        self, namespace: str | None, selector: str, seconds: float, arguments: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        """Send one request; the answer's status is good."""
        arguments = {"label_selector": selector, "_request_timeout": seconds, **arguments}
        if namespace is None:
            asked = self._core.list_pod_for_all_namespaces_without_preload_content(**arguments)
        else:
            asked = self._core.list_namespaced_pod_without_preload_content(namespace, **arguments)
        response: aiohttp.ClientResponse = await asked
        if response.status != 200:
            response.release()
            if response.status == 401 and isinstance(self._token, AccountToken):
                self._token.refused()
            raise _refused(response.status, namespace)
        return response


def _event(line: bytes) -> Event:
    body = _object(line)
    kind, pod = body.get("type"), body.get("object")
    if not isinstance(pod, dict):
        raise KubeError("the Kubernetes API sent an event without an object")
    if kind == "ERROR":
        code = pod.get("code")
        raise _refused(code if isinstance(code, int) else 500, None)
    metadata = pod.get("metadata")
    version = _text(metadata.get("resourceVersion")) if isinstance(metadata, dict) else ""
    if not isinstance(kind, str) or kind not in Kind.__members__ or not version:
        raise KubeError("the Kubernetes API sent an event that is not known here")
    return Event(Kind(kind), pod, version)


def _refused(status: int, namespace: str | None) -> KubeError:
    if status == 410:
        return HistoryGone("the Kubernetes API does not remember as far back as was asked")
    if status == 401:
        return KubeError("the Kubernetes API does not take this service account's token (401)")
    if status == 403:
        where = "in every namespace" if namespace is None else f"in the namespace {namespace}"
        return KubeError(f"the Kubernetes API does not let this service account list and watch pods {where} (403)")
    return KubeError(f"the Kubernetes API answered {status}")


def _unreachable(error: BaseException) -> KubeError:
    if isinstance(error, TimeoutError):
        return KubeError("the Kubernetes API went silent")
    if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
        return KubeError("the Kubernetes API's certificate does not count")
    return KubeError(f"the Kubernetes API cannot be reached ({type(error).__name__})")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise KubeError("the Kubernetes API answered with something that is no JSON") from None
    if not isinstance(body, dict):
        raise KubeError("the Kubernetes API answered with something that is no object")
    return body


def _text(raw: object) -> str:
    return raw if isinstance(raw, str) else ""
