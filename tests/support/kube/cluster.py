"""Why: the directory of running servers must be right whatever happens to the Kubernetes API, so tests make it happen.

`FakeCluster` runs the API server and the kubelet in a thread with an event loop of its own, so that tests of any kind
may use it and nothing that blocks a test stops the cluster. What the objects are outlives the API server, as etcd
does: `kill` and `restart` lose nothing but connections.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from tests.support.kube.kubelet import Kubelet, claim_network
from tests.support.kube.server import ApiServer
from tests.support.kube.store import Object, Store, merge

T = TypeVar("T")
NAMESPACE = "hub"
SSH_LABELS = {"component": "singleuser-server", "ssh-bastion-server/notebook": "true"}


class FakeCluster:
    """One cluster. Every method may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster", daemon=True)
        self._runner: web.AppRunner | None = None

    # -- its life

    def start(self) -> None:
        self.network, self._claim = claim_network()
        self._thread.start()
        self._run(self._begin())

    def stop(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._claim.close()

    def kill(self) -> None:
        """The API server is gone, from one moment to the next: connections are reset, new ones refused."""
        self._run(self._kill())

    def restart(self) -> None:
        """It is there again, at the same port, with what etcd has kept."""
        self._run(self._listen())

    def compact(self) -> None:
        """Forget the history."""
        self._do(self._store.compact)

    def cut_silently(self, selector: str = "") -> None:
        """Whoever watches now with a selector that contains this hears nothing any more, and no end either; new
        requests are answered."""
        self._do(lambda: self._server.cut(selector))

    def hang(self, on: bool = True) -> None:
        """New requests are taken and never answered."""
        self._do(lambda: setattr(self._server, "hung", on))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """The lists and watches that were asked for so far."""
        return list(self._server.requests)

    def kubeconfig(self) -> Path:
        """A file with which kubectl, KubeSpawner and the bastion find this cluster."""
        path = self.folder / "kubeconfig"
        cluster = {"name": "fake", "cluster": {"server": self.url}}
        context = {"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}}
        body = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context]}
        path.write_text(json.dumps(body | {"users": [{"name": "fake", "user": {}}], "current-context": "fake"}))
        return path

    # -- its objects

    def pods(self) -> list[Object]:
        return self._do(lambda: [one for key, one in self._store.objects.items() if key[0] == "pods"])

    def pod(self, name: str, namespace: str = NAMESPACE) -> Object:
        return self._do(lambda: self._store.get(("pods", namespace, name)))

    def pod_of(self, user: str, server: str = "") -> Object:
        """The pod that KubeSpawner made for a server."""
        for pod in self.pods():
            annotations = pod["metadata"].get("annotations") or {}
            named = annotations.get("hub.jupyter.org/servername", "")
            if annotations.get("hub.jupyter.org/username") == user and named == server:
                return pod
        raise KeyError((user, server))

    def create(self, pod: Object) -> Object:
        """Create a pod. One that has an address already is not run: it is as the test says."""
        metadata = pod["metadata"]
        namespace, name = metadata.get("namespace", NAMESPACE), metadata["name"]
        return self._do(lambda: self._server.make("pods", namespace, name, copy.deepcopy(pod)))

    def patch(self, name: str, patch: Mapping[str, Any], namespace: str = NAMESPACE) -> Object:
        return self._do(lambda: self._store.change(("pods", namespace, name), lambda pod: merge(pod, patch)))

    def delete(self, name: str, namespace: str = NAMESPACE, grace: int | None = None) -> None:
        """Delete a pod, as `kubectl delete` does."""
        self._do(lambda: self._server.delete(("pods", namespace, name), grace))

    # -- inside its thread

    async def _begin(self) -> None:
        self._store = Store()
        self._kubelet = Kubelet(self._store, self.network, self.folder)
        self._server = ApiServer(self._store, self._kubelet.end)
        self._kubelet_task = asyncio.get_running_loop().create_task(self._kubelet.run())
        await self._listen()

    async def _listen(self) -> None:
        self._runner = web.AppRunner(
            self._server.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def _kill(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None or runner.server is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for connection in list(runner.server.connections):
            transport = connection.transport
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        await runner.cleanup()

    async def _end(self) -> None:
        self._kubelet_task.cancel()
        await asyncio.gather(self._kubelet_task, return_exceptions=True)
        self._kubelet.close()
        await self._kill()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _do(self, work: Callable[[], T]) -> T:
        async def do() -> T:
            return work()

        return self._run(do())


def pod_object(
    name: str,
    user: str,
    server: str = "",
    *,
    address: str = "127.1.255.2",
    ready: bool = True,
    instance: int | None = None,
    namespace: str = NAMESPACE,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """A pod as KubeSpawner and a kubelet leave it, with SSH: it is not run, since it has an address already."""
    written = {"hub.jupyter.org/username": user, **({"hub.jupyter.org/servername": server} if server else {})}
    if instance is not None:
        written["jupyterhub-bastion/instance"] = str(instance)
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**SSH_LABELS, **(labels or {})},
            "annotations": {**written, **(annotations or {})},
        },
        "spec": {"containers": [{"name": "notebook", "image": "notebook"}], "restartPolicy": "OnFailure"},
        "status": {
            "phase": "Running",
            "podIP": address,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "notebook", "ready": ready, "state": {"running": {}}}],
        },
    }
