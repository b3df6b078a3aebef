"""The bastion's list of pods as it is in a cluster: a service account's token and the chart's Role, TLS, and a real API
server that restarts, forgets its history, and takes tokens and permissions away."""

from __future__ import annotations

import asyncio
import time
import zlib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml

from bastion.directory.choose import open_directory
from bastion.directory.podapi import KubeError
from bastion.directory.table import Pod, Stopped
from ca.names import Server
from tests.chart.apiserver import ApiServer
from tests.chart.rendering import MINIMAL, NAME, of_kind, template
from tests.chart.watching import Site, ending, in_pod, watched
from tests.support.tls import Authority

ALICE = Server("alice")


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
