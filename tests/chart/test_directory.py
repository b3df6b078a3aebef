"""The bastion's list of pods as it is in a cluster: a service account's token and the chart's Role, TLS, and a real API
server that restarts, forgets its history, and takes tokens and permissions away."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bastion.directory.changes import Subscription
from bastion.directory.choose import open_directory
from bastion.directory.podapi import KubeError
from bastion.directory.pods import PodDirectory
from bastion.directory.table import Change, Pod, Started, Stopped
from bastion.settings import DirectorySettings, read_settings
from ca.names import Server
from tests.chart.apiserver import ApiServer, place
from tests.chart.rendering import MINIMAL, NAME, Object, merged, of_kind, template
from tests.support.kube.cluster import pod_object
from tests.support.tls import Authority

LIMIT = 30.0
ALICE = Server("alice")


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
        return [one for one in objects if one["metadata"]["name"] == f"{NAME}-bastion"]

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


@pytest.fixture
def site(server: ApiServer, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    if server.process is None:  # a test before this one failed while it was away
        server.start()
    namespace = f"n{zlib.crc32(request.node.name.encode())}"
    assert server.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).status == 201
    objects = [one for one in yaml.safe_load_all(template(MINIMAL, namespace).stdout) if one]
    variables = {
        one["name"]: one.get("value", "")
        for deployment in of_kind(objects, "Deployment")
        if deployment["metadata"]["name"] == f"{NAME}-bastion"
        for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    made = Site(server, namespace, tmp_path, variables)
    made.install("ServiceAccount", "Role", "RoleBinding")
    (tmp_path / "ca.crt").write_bytes(server.ca.read_bytes())
    made.give_token()
    return made


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


async def test_with_the_charts_account_pods_are_seen_to_start_to_be_marked_and_to_vanish(site: Site) -> None:
    site.run("bob", 1)
    async with watched(site) as seen:
        assert (await seen.started()).names == (f"jupyter-bob-1.{site.namespace}",)
        path = site.run("alice", 7)
        assert (await seen.started()).instance.principal == "alice/:7"
        site.delete(path)
        stopped = await seen.next()
        assert isinstance(stopped, Stopped)
        assert stopped.why == "Your server alice stopped."
        assert site.server.ask("GET", path).status == 200, "marked, and there still"
        gone = site.run("carol", 9)
        assert (await seen.started()).server.owner == "carol"
        site.delete(gone, grace=0)
        assert isinstance(await seen.next(), Stopped)
        assert [pod.server.owner for pod in seen.directory.running()] == ["bob"]


async def test_a_pod_of_another_namespace_and_one_without_the_label_are_not_seen(site: Site) -> None:
    site.run("bob", 1, namespace="staff")
    path = site.run("alice", 7)
    async with watched(site) as seen:
        assert (await seen.started()).server == ALICE
        patch = {"metadata": {"labels": {"ssh-bastion-server/notebook": None}}}
        assert site.server.ask("PATCH", path, patch, kind="application/merge-patch+json").status == 200
        assert isinstance(await seen.next(), Stopped)
        assert seen.directory.running() == ()


async def test_a_restarted_api_server_hides_no_stop(site: Site) -> None:
    site.run("bob", 1)
    path = site.run("alice", 7)
    async with watched(site) as seen:
        await seen.started()
        await seen.started()
        site.server.kill()
        assert isinstance(seen.directory.find(ALICE), Pod)
        await asyncio.to_thread(site.server.start)
        site.delete(path, grace=0)
        assert isinstance(await seen.next(), Stopped)
        await seen.heard_again()
        assert isinstance(seen.directory.find(Server("bob")), Pod)


async def test_a_compacted_history_is_listed_anew_and_hides_no_stop(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = site.run("alice", 7)
    async with watched(site) as seen:
        await seen.started()
        lists = seen.directory.lists
        site.other_changes()
        site.server.compact()
        await seen.until(lambda: seen.directory.lists > lists)
        assert "the history is gone" in caplog.text
        site.server.kill()
        await asyncio.to_thread(site.server.start)
        site.delete(path, grace=0)
        site.other_changes()
        site.server.compact()
        assert isinstance(await seen.next(), Stopped)


UNTAKEN = "does not take this service account's token (401)"


async def test_a_token_that_counts_no_more_is_replaced_by_the_one_that_is_in_the_file_by_then(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.run("alice", 7)
    async with watched(site) as seen:
        await seen.started()
        site.uninstall("ServiceAccount")
        site.install("ServiceAccount")  # another one of the same name: tokens of the first are worth nothing
        await seen.until(lambda: UNTAKEN in caplog.text)
        assert isinstance(seen.directory.find(ALICE), Pod), "unknown is not stopped"
        site.give_token()
        await seen.heard_again()
        site.run("bob", 1)
        assert (await seen.started()).server.owner == "bob"


async def test_with_a_token_that_has_ended_nobody_is_let_in(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.run("alice", 7)
    good = site.give_token()
    site.give_token(ending(site.server, good, time.time() - 600))
    async with watched(site) as seen:
        await seen.until(lambda: UNTAKEN in caplog.text)
        assert seen.directory.heard_at is None
        site.give_token(ending(site.server, good, time.time() + 600))
        assert (await seen.started()).server == ALICE


async def test_an_account_that_may_not_watch_lets_nobody_in_until_it_may(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    site.run("alice", 7)
    site.uninstall("RoleBinding")
    async with watched(site) as seen:
        sentence = f"list and watch pods in the namespace {site.namespace} (403)"
        await seen.until(lambda: sentence in caplog.text)
        assert not seen.directory.fresh(time.monotonic(), 300)
        site.install("RoleBinding")
        assert (await seen.started()).server == ALICE
        caplog.clear()
        site.uninstall("RoleBinding")
        await seen.until(lambda: sentence in caplog.text)
        assert isinstance(seen.directory.find(ALICE), Pod)
        heard_at = seen.directory.heard_at
        assert heard_at is not None
        assert not seen.directory.fresh(heard_at + 301, 300)


async def test_patterns_of_namespaces_are_watched_with_the_charts_cluster_role(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"notebooks": {"namespaces": [f"{site.namespace}*"]}}
    settings = site.settings.model_copy(update={"namespaces": (f"{site.namespace}*",)})
    site.run("alice", 7)
    site.run("carol", 1, namespace="staff")
    async with watched(site, settings) as seen:
        await seen.until(lambda: "list and watch pods in every namespace (403)" in caplog.text)
        site.install("ClusterRole", "ClusterRoleBinding", **values)
        assert (await seen.started()).server == ALICE
        assert len(seen.directory.running()) == 1


async def test_an_api_with_another_authoritys_certificate_is_not_spoken_to(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    (site.account / "ca.crt").write_bytes(Authority.make().pem)
    site.run("alice", 7)
    async with watched(site) as seen:
        await seen.until(lambda: "the Kubernetes API's certificate does not count" in caplog.text)
        assert seen.directory.heard_at is None


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("token", None, "token"),
        ("token", "", "holds no token"),
        ("ca.crt", None, "ca.crt"),
        ("ca.crt", "", "ca.crt is empty"),
        ("ca.crt", "no certificate", "holds no certificate that can be read"),
    ],
)
async def test_a_pod_without_a_whole_account_does_not_start(
    site: Site, name: str, text: str | None, sentence: str
) -> None:
    (site.account / name).unlink()
    if text is not None:
        (site.account / name).write_text(text)
    async with AsyncExitStack() as stack:
        with pytest.raises(KubeError, match=sentence):
            await open_directory(site.settings, in_pod(site.server), stack)


def ending(server: ApiServer, token: str, at: float) -> str:
    """The same token, signed by the server's own key, with another end: the API gives none that is so short."""
    head, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | {"exp": int(at)}
    signed = f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}"
    key = load_pem_private_key(server.accounts.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
