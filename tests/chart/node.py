"""Why: a real API server runs nothing. This is what else a cluster has: a scheduler, and a node with the tests'
kubelet, so that what the real KubeSpawner asks a real API server for becomes real processes."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import urllib.error
from collections.abc import Callable
from pathlib import Path

from tests.chart.apiserver import ApiServer
from tests.support.kube.kubelet import Kubelet, claim_network
from tests.support.kube.store import Key, Missing, Object, Store

STREAM_SECONDS = 2


class Mirror(Store):
    """The server's pods in one namespace. What is written goes to the server, and comes back as everybody hears it."""

    def __init__(self, server: ApiServer) -> None:
        super().__init__()
        self._server = server

    def take(self, key: Key, pod: Object) -> bool:
        """A pod as the server has it now; whether it is a new one, which then has its node."""
        before = self.objects.get(key)
        self.objects[key] = pod
        if before is not None and before["metadata"]["uid"] == pod["metadata"]["uid"]:
            return False
        binding = {"kind": "Binding", "metadata": {"name": key[2]}, "target": {"name": "node"}}
        self._server.ask("POST", f"{_path(key)}/binding", binding)
        self._note(key[0], copy.deepcopy(pod), None, deleted=False)
        return True

    def change(self, key: Key, change: Callable[[Object], None]) -> Object:
        after = copy.deepcopy(self.get(key))
        change(after)
        status = {"status": after["status"]}
        answer = self._server.ask("PATCH", f"{_path(key)}/status", status, kind="application/merge-patch+json")
        if answer.status == 404:
            raise Missing(key[2])
        assert answer.status == 200, answer
        self.objects[key] = answer.body
        return after

    def remove(self, key: Key) -> Object:
        gone = self.get(key)
        self._server.ask("DELETE", f"{_path(key)}?gracePeriodSeconds=0")
        del self.objects[key]
        return gone


class Node:
    """Runs the pods of one namespace of a real cluster while it is started."""

    def __init__(self, server: ApiServer, namespace: str, folder: Path) -> None:
        self.server = server
        self.namespace = namespace
        self.folder = folder
        self._stopping = False
        self._ended: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._loop.run_forever, self._listen)]

    def start(self) -> None:
        network, self._claim = claim_network()
        self._mirror = Mirror(self.server)
        self._kubelet = Kubelet(self._mirror, network, self.folder)
        for thread in self._threads:
            thread.start()
        self._running = asyncio.run_coroutine_threadsafe(self._kubelet.run(), self._loop)

    def stop(self) -> None:
        self._stopping = True
        self._threads[1].join()

        async def end() -> None:
            self._running.cancel()
            self._kubelet.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join()
        self._loop.close()
        self._claim.close()

    def kubeconfig(self) -> Path:
        """For JupyterHub, as the administrator."""
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(self.server.kubeconfig()))
        return path

    def _listen(self) -> None:
        """Watch, for as long as the node is there; each stream begins with all that there is."""
        path = f"/api/v1/namespaces/{self.namespace}/pods?watch=1&timeoutSeconds={STREAM_SECONDS}"
        while not self._stopping:
            try:
                for event in self.server.stream(path, self.server.token):
                    self._loop.call_soon_threadsafe(self._heed, event["type"], event["object"])
            except (urllib.error.URLError, OSError):
                pass

    def _heed(self, kind: str, pod: Object) -> None:
        about = pod["metadata"]
        key = ("pods", about["namespace"], about["name"])
        if kind == "DELETED":
            if key in self._mirror.objects:
                self._end(key, about["uid"], 0)
                self._mirror.objects.pop(key, None)
            return
        self._mirror.take(key, pod)
        if "deletionTimestamp" in about:
            self._end(key, about["uid"], about["deletionGracePeriodSeconds"])

    def _end(self, key: Key, uid: str, grace: int) -> None:
        if uid not in self._ended:
            self._ended.add(uid)
            self._kubelet.end(key, grace)


def _path(key: Key) -> str:
    resource, namespace, name = key
    return f"/api/v1/namespaces/{namespace}/{resource}/{name}"
