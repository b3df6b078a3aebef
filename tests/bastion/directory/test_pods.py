"""Why: the list of running servers must be right again after whatever happens to the Kubernetes API, and must never
miss a stop; so a Kubernetes API is killed, restarted, compacted, cut and hung here."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bastion.directory.changes import Subscription
from bastion.directory.choose import open_directory
from bastion.directory.kube import Access, Cluster, configuration
from bastion.directory.podapi import Event, KubeError, Page
from bastion.directory.pods import EARLY_ENDS, Backoff, PodDirectory
from bastion.directory.podspec import PodRules
from bastion.directory.table import Ambiguous, Change, Moved, Pod, Started, Stopped
from bastion.settings import DirectorySettings
from ca.names import Server
from tests.support.kube.cluster import FakeCluster, pod_object

SELECTOR = "component=singleuser-server,ssh-bastion-server/notebook=true"
LIMIT = 30.0
ALICE = Server("alice")
QUICK = Backoff(first=0.05, most=0.2)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    made = FakeCluster(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@dataclass
class Watched:
    """A directory that runs, and what it tells."""

    directory: PodDirectory
    changes: Subscription

    async def next(self) -> Change:
        async with asyncio.timeout(LIMIT):
            return await anext(self.changes)

    async def until(self, condition: object) -> None:
        """Wait until `condition()` holds."""
        assert callable(condition)
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.01)

    async def listed(self) -> None:
        await self.until(lambda: self.directory.heard_at is not None)


@asynccontextmanager
async def watched(
    cluster: FakeCluster, namespaces: tuple[str, ...] = ("hub",), watch_seconds: int = 30
) -> AsyncIterator[Watched]:
    api = Cluster(await configuration(Access(kubeconfig=cluster.kubeconfig()), {}))
    directory = PodDirectory(api, PodRules(namespaces=namespaces), SELECTOR, backoff=QUICK, watch_seconds=watch_seconds)
    task = asyncio.create_task(directory.run())
    seen = Watched(directory, directory.changes())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.aclose()


async def test_what_runs_already_is_listed(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster) as seen:
        change = await seen.next()
        assert isinstance(change, Started)
        assert change.pod.instance.principal == "alice/:7"
        assert seen.directory.find(ALICE) == change.pod
        assert seen.directory.by_name("jupyter-alice.hub") == change.pod


async def test_nothing_is_fresh_before_the_first_list(cluster: FakeCluster) -> None:
    cluster.hang()
    async with watched(cluster) as seen:
        await seen.until(lambda: cluster.requests)
        assert seen.directory.heard_at is None
        assert not seen.directory.heard.is_set()
        assert not seen.directory.fresh(asyncio.get_running_loop().time(), 1e9)


async def test_a_pod_is_offered_when_it_is_ready_and_stops_with_its_deletion_mark(cluster: FakeCluster) -> None:
    async with watched(cluster) as seen:
        await seen.listed()
        cluster.create(pod_object("jupyter-alice", "alice", instance=7, ready=False))
        cluster.patch("jupyter-alice", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        assert isinstance(await seen.next(), Started)
        cluster.patch("jupyter-alice", {"metadata": {"deletionTimestamp": "2026-11-21T23:20:00Z"}})
        stopped = await seen.next()
        assert isinstance(stopped, Stopped)
        assert stopped.why == "Your server alice stopped."
        assert seen.directory.find(ALICE) is None


async def test_a_pod_that_is_not_ready_any_more_stays_and_says_so(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster) as seen:
        await seen.next()
        cluster.patch("jupyter-alice", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
        change = await seen.next()
        assert isinstance(change, Moved)
        assert (change.old.ready, change.new.ready) == (True, False)


async def test_a_pod_that_was_never_ready_is_not_known_yet(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7, ready=False))
    async with watched(cluster) as seen:
        await seen.listed()
        assert seen.directory.find(ALICE) is None


async def test_a_pod_that_loses_its_address_stops(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster) as seen:
        await seen.next()
        cluster.patch("jupyter-alice", {"status": {"podIP": None}})
        assert isinstance(await seen.next(), Stopped)
        assert seen.directory.find(ALICE) is None


async def test_a_pod_without_the_label_is_not_seen_and_one_that_loses_it_stops(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-bob", "bob", labels={"ssh-bastion-server/notebook": "false"}))
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster) as seen:
        await seen.listed()
        assert seen.directory.find(Server("bob")) is None
        assert isinstance(await seen.next(), Started)
        cluster.patch("jupyter-alice", {"metadata": {"labels": {"ssh-bastion-server/notebook": None}}})
        assert isinstance(await seen.next(), Stopped)


async def test_two_live_pods_of_one_server_are_refused_and_reported(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster) as seen:
        await seen.next()
        cluster.create(pod_object("sneaky", "alice", instance=7, address="127.1.255.3"))
        await seen.next()
        assert isinstance(seen.directory.find(ALICE), Ambiguous)
        assert len(seen.directory.ambiguous()) == 1
        assert "jupyter-alice.hub, sneaky.hub" in caplog.text
        cluster.delete("sneaky")
        assert isinstance(await seen.next(), Stopped)
        assert isinstance(seen.directory.find(ALICE), Pod)


async def test_a_pod_that_cannot_be_read_is_reported_once_and_counted(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create(pod_object("odd", "alice", annotations={"jupyterhub-bastion/instance": "seven"}))
    async with watched(cluster) as seen:
        await seen.listed()
        cluster.patch("odd", {"metadata": {"labels": {"more": "1"}}})
        cluster.create(pod_object("jupyter-bob", "bob", instance=1))
        await seen.next()
        assert seen.directory.unusable == {"its run cannot be read": 1}
        assert caplog.text.count("its run cannot be read") == 1
        cluster.delete("odd")
        await seen.until(lambda: not seen.directory.unusable)


async def test_a_stop_while_the_api_was_away_is_told_when_it_is_back(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    cluster.create(pod_object("jupyter-bob", "bob", instance=8))
    async with watched(cluster) as seen:
        await seen.next()
        await seen.next()
        cluster.kill()
        cluster.delete("jupyter-alice")
        cluster.create(pod_object("jupyter-carol", "carol", instance=9))
        heard_at = seen.directory.heard_at
        assert isinstance(seen.directory.find(ALICE), Pod)  # unknown is not stopped
        cluster.restart()
        assert [type(await seen.next()) for _ in range(2)] == [Stopped, Started]
        assert seen.directory.find(ALICE) is None
        assert isinstance(seen.directory.find(Server("bob")), Pod)
        await seen.until(lambda: (seen.directory.heard_at or 0) > (heard_at or 0))


async def test_a_name_that_a_new_pod_took_over_meanwhile_is_another_run(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster) as seen:
        await seen.next()
        cluster.kill()
        cluster.delete("jupyter-alice")
        cluster.create(pod_object("jupyter-alice", "alice", instance=8))
        cluster.restart()
        stopped, started = await seen.next(), await seen.next()
        assert isinstance(stopped, Stopped)
        assert isinstance(started, Started)
        assert (stopped.pod.instance.id, started.pod.instance.id) == (7, 8)


async def test_a_compacted_history_is_listed_anew(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster, watch_seconds=1) as seen:
        await seen.next()
        cluster.kill()
        cluster.delete("jupyter-alice")
        cluster.compact()
        cluster.restart()
        assert isinstance(await seen.next(), Stopped)


async def test_410_inside_a_watch_leads_to_a_list_at_once(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster, watch_seconds=1) as seen:
        await seen.next()
        lists = seen.directory.lists
        # The watch goes on from what it knew; everything since then is forgotten before it asks again.
        cluster.cut_silently()
        cluster.delete("jupyter-alice")
        cluster.compact()
        assert isinstance(await seen.next(), Stopped)
        assert seen.directory.lists > lists


async def test_a_connection_cut_without_a_word_is_noticed_when_the_watch_should_have_ended(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bastion.directory.kube.MARGIN_SECONDS", 0.5)
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster, watch_seconds=1) as seen:
        await seen.next()
        cluster.cut_silently()
        cluster.delete("jupyter-alice")
        assert isinstance(await seen.next(), Stopped)


async def test_while_nothing_is_heard_the_list_stays_and_grows_old(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7))
    async with watched(cluster) as seen:
        await seen.next()
        await seen.listed()
        cluster.kill()
        heard_at = seen.directory.heard_at
        assert heard_at is not None
        assert seen.directory.fresh(heard_at + 299, 300)
        assert not seen.directory.fresh(heard_at + 301, 300)
        assert isinstance(seen.directory.find(ALICE), Pod)


async def test_a_quiet_cluster_keeps_the_list_fresh(cluster: FakeCluster) -> None:
    async with watched(cluster, watch_seconds=1) as seen:
        await seen.listed()
        heard_at = seen.directory.heard_at
        await seen.until(lambda: (seen.directory.heard_at or 0) > (heard_at or 0))
        assert seen.directory.lists == 1


class Empty:
    """A Kubernetes API behind something that answers every watch with nothing, and lists what `pods` are."""

    def __init__(self, *pods: dict[str, object]) -> None:
        self.pods = list(pods)
        self.heard: list[float | None] = []
        self.directory: PodDirectory | None = None

    async def page(self, namespace: str | None, selector: str, more: str = "") -> Page:
        return Page(self.pods, "1", "")

    async def events(
        self, namespace: str | None, selector: str, version: str, seconds: int
    ) -> AsyncGenerator[Event, None]:
        self.heard.append(self.directory.heard_at if self.directory is not None else None)
        return
        yield


async def test_watches_that_end_at_once_without_a_word_are_no_news_and_lead_to_a_list(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alice = pod_object("jupyter-alice", "alice", instance=7)
    alice["metadata"]["uid"] = "u"
    api = Empty(alice)
    directory = PodDirectory(api, PodRules(namespaces=("hub",)), SELECTOR, backoff=Backoff(first=0.01, most=0.02))
    api.directory = directory
    task = asyncio.create_task(directory.run())
    seen = Watched(directory, directory.changes())
    try:
        assert isinstance(await seen.next(), Started)
        await seen.until(lambda: len(api.heard) >= EARLY_ENDS)
        assert len(set(api.heard[:EARLY_ENDS])) == 1
        api.pods.clear()
        assert isinstance(await seen.next(), Stopped), "nobody tells it but a list"
        assert directory.lists >= 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [line.levelname for line in caplog.records if "ended a watch early" in line.message].count("WARNING") == 1


async def test_a_pod_with_half_a_character_in_its_uid_does_not_end_the_directory() -> None:
    odd = pod_object("odd", "bob", instance=None)
    odd["metadata"]["uid"] = "\ud800"
    odd["metadata"]["creationTimestamp"] = "2026-11-21T23:12:27Z"
    alice = pod_object("jupyter-alice", "alice", instance=7)
    alice["metadata"]["uid"] = "u"
    directory = PodDirectory(Empty(odd, alice), PodRules(namespaces=("hub",)), SELECTOR, backoff=QUICK)
    task = asyncio.create_task(directory.run())
    seen = Watched(directory, directory.changes())
    try:
        started = await seen.next()
        assert isinstance(started, Started)
        assert started.pod.server == ALICE
        assert directory.unusable == {"its uid cannot be read": 1}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_several_namespaces_are_one_directory_and_as_old_as_the_oldest(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7, namespace="one"))
    cluster.create(pod_object("jupyter-bob", "bob", instance=8, namespace="two"))
    cluster.create(pod_object("jupyter-eve", "eve", instance=9, namespace="three"))
    async with watched(cluster, ("one", "two")) as seen:
        await seen.listed()
        assert {pod.server.owner for pod in seen.directory.running()} == {"alice", "bob"}
        cluster.delete("jupyter-alice", namespace="one")
        await seen.until(lambda: seen.directory.find(ALICE) is None)
        assert isinstance(seen.directory.find(Server("bob")), Pod)


async def test_a_pattern_watches_every_namespace_and_takes_those_that_match(cluster: FakeCluster) -> None:
    cluster.create(pod_object("jupyter-alice", "alice", instance=7, namespace="user-alice"))
    cluster.create(pod_object("jupyter-bob", "bob", instance=8, namespace="mallory"))
    async with watched(cluster, ("user-*",)) as seen:
        await seen.listed()
        assert [pod.server.owner for pod in seen.directory.running()] == ["alice"]
        assert not any("namespaces" in request for request in cluster.requests)


async def test_a_long_list_is_read_in_pages(cluster: FakeCluster) -> None:
    for number in range(250):
        cluster.create(pod_object(f"jupyter-{number}", f"user{number}", instance=7))
    async with watched(cluster) as seen:
        await seen.listed()
        assert len(seen.directory.running()) == 250
        assert sum("continue=" in request for request in cluster.requests) == 2


async def test_a_list_that_lost_its_place_begins_again(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(150):
        cluster.create(pod_object(f"jupyter-{number}", f"user{number}", instance=7))
    page = Cluster.page

    async def compacted_in_between(self: Cluster, namespace: str | None, selector: str, more: str = "") -> object:
        if more and not monkeyed:
            monkeyed.append(True)
            cluster.compact()
        return await page(self, namespace, selector, more)

    monkeyed: list[bool] = []
    monkeypatch.setattr(Cluster, "page", compacted_in_between)
    async with watched(cluster) as seen:
        await seen.listed()
        assert monkeyed
        assert len(seen.directory.running()) == 150


async def test_what_is_no_json_is_an_outage_and_not_an_empty_list(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html></h")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    file = tmp_path / "kubeconfig"
    port = server.sockets[0].getsockname()[1]
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {}}
    body = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}
    file.write_text(json.dumps(body))
    api = Cluster(await configuration(Access(), {"KUBECONFIG": str(file)}))
    try:
        with pytest.raises(KubeError, match="no JSON"):
            await api.page("hub", SELECTOR)
        with pytest.raises(KubeError, match="no JSON"):
            await anext(api.events("hub", SELECTOR, "1", 5))
    finally:
        await api.aclose()
        server.close()


async def test_without_a_cluster_the_operator_is_told_what_to_set() -> None:
    settings = DirectorySettings(source="kubernetes")
    async with AsyncExitStack() as stack:
        with pytest.raises(KubeError, match="BASTION_DIRECTORY_KUBECONFIG"):
            await open_directory(settings, {}, stack)


async def test_an_outage_is_logged_once_and_so_is_its_end(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(cluster, watch_seconds=1) as seen:
        await seen.listed()
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            cluster.kill()
            await seen.until(lambda: "cannot be reached" in caplog.text)
            cluster.restart()
            cluster.create(pod_object("jupyter-alice", "alice", instance=7))
            await seen.next()
        assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 1
