"""Why: the bastion's list of pods as it is in a cluster needs what is around it there: its namespace, account and Role,
the token that kubelet writes, and pods that run."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bastion.directory.changes import Subscription
from bastion.directory.choose import open_directory
from bastion.directory.pods import PodDirectory
from bastion.directory.table import Change, Pod, Started
from bastion.settings import DirectorySettings, read_settings
from tests.chart.apiserver import ApiServer, place
from tests.chart.rendering import MINIMAL, NAME, Object, merged, template
from tests.support.kube.cluster import pod_object

LIMIT = 30.0


@dataclass
class Site:
    """One namespace of the cluster with what the chart renders for its bastion, and what is mounted into its pod."""

    server: ApiServer
    namespace: str
    account: Path
    variables: dict[str, str]

    def objects(self, *kinds: str, **values: Any) -> list[Object]:
        done = template(merged(MINIMAL, values), self.namespace)
        assert done.returncode == 0, done.stderr
        objects = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] in kinds]
        return [one for one in objects if one["metadata"]["name"].endswith(f"{NAME}-bastion")]

    def install(self, *kinds: str, **values: Any) -> None:
        """Create these objects of the bastion's."""
        for one in self.objects(*kinds, **values):
            answer = self.server.create(one)
            assert answer.status in (201, 409), answer

    def uninstall(self, *kinds: str) -> None:
        for one in self.objects(*kinds):
            path = f"{place(one)}/{one['metadata']['name']}"
            assert self.server.ask("DELETE", path).status == 200

    def give_token(self, token: str | None = None) -> str:
        """What kubelet writes into the pod: a token of the account, unless another is given."""
        token = token or self.server.token_of(f"{NAME}-bastion", self.namespace)
        (self.account / "new").write_text(token)
        (self.account / "new").replace(self.account / "token")
        return token

    @property
    def settings(self) -> DirectorySettings:
        """The chart's, but for where the account is mounted, and a shorter watch."""
        chosen = {
            "BASTION_DIRECTORY_SERVICE_ACCOUNT": str(self.account),
            "BASTION_DIRECTORY_WATCH_SECONDS": "1",
        }
        return read_settings(self.variables | chosen).directory

    # -- what the hub, the scheduler and the kubelet do

    def run(self, user: str, instance: int, namespace: str | None = None) -> str:
        """A server's pod, running and ready; its path."""
        namespace = namespace or self.namespace
        pod = {**pod_object(f"jupyter-{user}-{instance}", user, instance=instance, namespace=namespace), "kind": "Pod"}
        path = f"{place(pod)}/{pod['metadata']['name']}"
        status = pod.pop("status")
        status["podIPs"] = [{"ip": status["podIP"]}]
        status["containerStatuses"][0] |= {"image": "notebook", "imageID": "", "restartCount": 0}
        assert self.server.create(pod).status == 201
        binding = {"kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": {"name": "node"}}
        assert self.server.ask("POST", f"{path}/binding", binding).status == 201
        answer = self.server.ask("PATCH", f"{path}/status", {"status": status}, kind="application/merge-patch+json")
        assert answer.status == 200, answer
        return path

    def delete(self, path: str, grace: int = 30) -> None:
        """As `kubectl delete` does: marked, and gone when its node says so, or at once without grace."""
        assert self.server.ask("DELETE", f"{path}?gracePeriodSeconds={grace}").status == 200

    def other_changes(self) -> None:
        """The cluster's version goes on; no pod of a server has a part in it."""
        secret = {"kind": "Secret", "metadata": {"generateName": "x-", "namespace": self.namespace}}
        for _ in range(3):
            assert self.server.create(secret).status == 201


@dataclass
class Watched:
    """A directory that runs, and what it tells."""

    directory: PodDirectory
    changes: Subscription

    async def next(self) -> Change:
        async with asyncio.timeout(LIMIT):
            return await anext(self.changes)

    async def started(self) -> Pod:
        change = await self.next()
        assert isinstance(change, Started)
        return change.pod

    async def until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.02)

    async def heard_again(self) -> None:
        since = time.monotonic()
        await self.until(lambda: (self.directory.heard_at or 0) > since)


def in_pod(server: ApiServer) -> dict[str, str]:
    return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}


@asynccontextmanager
async def watched(site: Site, settings: DirectorySettings | None = None) -> AsyncIterator[Watched]:
    async with AsyncExitStack() as stack:
        directory = await open_directory(settings or site.settings, in_pod(site.server), stack)
        assert isinstance(directory, PodDirectory)
        task = asyncio.create_task(directory.run())
        try:
            yield Watched(directory, directory.changes())
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def ending(server: ApiServer, token: str, at: float) -> str:
    """The same token, signed by the server's own key, with another end: the API gives none that is so short."""
    head, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | {"exp": int(at)}
    signed = f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}"
    key = load_pem_private_key(server.accounts.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
