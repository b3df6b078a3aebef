"""The one door to the Kubernetes API: pods listed in pages, pods watched, everything as plain dictionaries.

Three things that a client library does not do by itself, and that the list of running servers rests on:

* a list of thousands of pods is read a page at a time, so that neither memory nor the event loop feels it;
* one watch request has an end that both sides know, so that a connection that was cut without a word is noticed;
* what the server says is checked: an error inside the stream, a line that is no event, a silent end.
"""

import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_PORT_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

from bastion.directory.podapi import Event, HistoryGone, Kind, KubeError, Page

PAGE = 100
"""Pods in one page: about a megabyte, which is read in a few milliseconds."""

LIST_SECONDS = 20.0
"""What one page may take."""

MARGIN_SECONDS = 5.0
"""How much longer than announced a watch may take to end; then its connection is dead."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the API is reached. `host` and `port` override those that Kubernetes tells its pods.

    `kubeconfig` is a file as kubectl reads it; None: the service account of the pod this runs in.
    """

    kubeconfig: Path | None = None
    host: str | None = None
    port: int | None = None


async def configuration(access: Access, environment: Mapping[str, str]) -> client.Configuration:
    """What the client needs to know. Raises `KubeError` with a sentence for the operator.

    In a pod the service account's token is read again every minute, since it is replaced before it ends. Where there
    is no service account and no `kubeconfig` is set, the variable `KUBECONFIG` names one, as for kubectl.
    """
    made = client.Configuration()
    # Neither proxies nor passwords of the process's own environment have anything to do with this.
    made.client_session_kwargs = {"trust_env": False}
    file = access.kubeconfig
    in_cluster = SERVICE_HOST_ENV_NAME in environment
    if file is None and not in_cluster and environment.get("KUBECONFIG"):
        file = Path(environment["KUBECONFIG"])
    try:
        if file is not None:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(file), client_configuration=made, persist_config=False
            )
        else:
            place = {
                SERVICE_HOST_ENV_NAME: access.host or environment.get(SERVICE_HOST_ENV_NAME, ""),
                SERVICE_PORT_ENV_NAME: str(access.port or environment.get(SERVICE_PORT_ENV_NAME, "443")),
            }
            loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
                SERVICE_TOKEN_FILENAME, SERVICE_CERT_FILENAME, environ=place
            )
            loader.load_and_set(made)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, ValueError) as error:
        raise KubeError(
            f"The Kubernetes API cannot be reached: {error} Run in a pod with a service account, or set "
            "BASTION_DIRECTORY_KUBECONFIG."
        ) from None
    return made


class Cluster:
    """A client of one Kubernetes API. Make it inside the event loop and `aclose` it."""

    def __init__(self, made: client.Configuration) -> None:
        self._client = client.ApiClient(made)
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
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
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
                # A line longer than the buffer raises ValueError; no pod is that large.
                while line := await response.content.readline():
                    yield _event(line)
            finally:
                response.release() if response.content.at_eof() else response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
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
    if status in {401, 403}:
        where = "in any namespace" if namespace is None else f"in the namespace {namespace}"
        return KubeError(f"the Kubernetes API does not let this service account list and watch pods {where} ({status})")
    return KubeError(f"the Kubernetes API answered {status}")


def _unreachable(error: BaseException) -> KubeError:
    if isinstance(error, TimeoutError):
        return KubeError("the Kubernetes API went silent")
    if isinstance(error, ssl.SSLError):
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
