"""Why: a server's owner rules inside her pod, and some may make pods; neither may lead anybody else astray."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from tests.kube.conftest import KubeSystem
from tests.support import legacy_pod
from tests.support.kube.cluster import pod_object
from tests.support.system import Person, unix_user


@pytest.fixture
async def two(kube: KubeSystem, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Person, Person]]:
    """Alice and mallory, each with a server of her own."""
    await kube.hub.make_users()
    await kube.with_ssh("alice")
    await kube.with_ssh("mallory")
    yield tuple(kube.system.person(name, f"-{request.node.name}") for name in ("alice", "mallory"))  # type: ignore[misc]
    for pod in kube.cluster.pods():
        if pod["metadata"]["name"].startswith("forged"):
            kube.cluster.delete(pod["metadata"]["name"], pod["metadata"]["namespace"], grace=0)
    await kube.hub.clean()


def lists(kube: KubeSystem, owner: str, *people: Person) -> None:
    """What the pod of `owner` lists from now on."""
    folder = kube.cluster.folder / "home" / kube.cluster.pod_of(owner)["metadata"]["name"] / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "authorized_keys").write_text("".join(f"{person.public_key}\n" for person in people))


def refresh(kube: KubeSystem) -> None:
    done = kube.system.command("refresh-keys")
    assert done.returncode == 0, done.stderr


async def test_a_pod_that_lists_alices_key_catches_no_login_of_hers(
    kube: KubeSystem, two: tuple[Person, Person]
) -> None:
    alice, mallory = two
    lists(kube, "mallory", alice, mallory)
    lists(kube, "alice")
    refresh(kube)
    assert alice.ssh("alice", "hostname").returncode == 255
    assert alice.run("ssh", "-W", "alice.hub:22", "jump@127.0.0.1").returncode == 255
    assert mallory.run("ssh", "-W", "alice.hub:22", "jump@127.0.0.1").returncode == 255
    lists(kube, "alice", alice)
    refresh(kube)
    assert alice.ssh("alice", "echo $JUPYTERHUB_USER").stdout == b"alice\n"


async def test_labels_that_lie_about_the_user_lead_nobody_anywhere(
    kube: KubeSystem, two: tuple[Person, Person]
) -> None:
    alice, mallory = two
    await alice.certificate()
    await mallory.certificate()
    name = kube.cluster.pod_of("mallory")["metadata"]["name"]
    kube.cluster.patch(name, {"metadata": {"labels": {"hub.jupyter.org/username": "alice"}}})
    assert alice.ssh("alice", "echo $JUPYTERHUB_USER").stdout == b"alice\n"
    assert mallory.ssh("mallory", "echo $JUPYTERHUB_USER").stdout == b"mallory\n"
    assert mallory.ssh("alice", "true").returncode == 255


async def test_a_pod_in_another_namespace_is_not_there(kube: KubeSystem, two: tuple[Person, Person]) -> None:
    alice, _ = two
    issued = await alice.certificate()
    instance = int(issued["principals"][0].rpartition(":")[2])
    kube.cluster.create(pod_object("forged", "alice", instance=instance, namespace="mallorys"))
    assert alice.ssh("alice", "echo $JUPYTERHUB_USER").stdout == b"alice\n"


async def test_two_pods_that_claim_one_server_are_both_refused(kube: KubeSystem, two: tuple[Person, Person]) -> None:
    alice, _ = two
    issued = await alice.certificate()
    instance = int(issued["principals"][0].rpartition(":")[2])
    kube.cluster.create(pod_object("forged", "alice", instance=instance))
    kube.system.wait("the bastion to see both", lambda: "forged.hub" in kube.system.bastion.log.read_text())
    refused = alice.ssh("alice", "true")
    assert refused.returncode == 255
    assert b"Two pods claim to be alice" in refused.stderr
    kube.cluster.delete("forged", grace=0)
    kube.system.wait("alice to get in again", lambda: alice.ssh("alice", "true").returncode == 0)


async def test_another_pods_address_does_not_pass_for_alices(kube: KubeSystem, two: tuple[Person, Person]) -> None:
    """Whoever could write a pod's status still lacks a host certificate for alice's name."""
    alice, _ = two
    await alice.certificate()
    elsewhere = kube.cluster.pod_of("mallory")["status"]["podIP"]
    name = kube.cluster.pod_of("alice")["metadata"]["name"]
    own = kube.cluster.pod_of("alice")["status"]["podIP"]
    kube.cluster.patch(name, {"status": {"podIP": elsewhere}})
    kube.system.wait(
        "the bastion to believe it", lambda: b"is not the server that enrolled" in alice.ssh("alice", "true").stderr
    )
    kube.cluster.patch(name, {"status": {"podIP": own}})


async def test_an_sshd_without_a_host_certificate_does_not_pass_for_a_server(
    kube: KubeSystem, two: tuple[Person, Person]
) -> None:
    """The bastion knows no host keys of pods in Kubernetes: their certificates say whose they are."""
    alice, _ = two
    await alice.certificate()
    pod = kube.cluster.pod_of("alice")
    ports = [pod["metadata"]["annotations"][f"jupyterhub-bastion/{which}-port"] for which in ("ssh", "key")]
    program = [sys.executable, legacy_pod.__file__, "0.0.0.0", *ports]
    home = kube.cluster.folder / "home" / "forged-sshd" / ".ssh"
    home.mkdir(mode=0o700, parents=True)
    (home / "authorized_keys").write_text(f"{alice.public_key}\n")
    forged = {"metadata": {"name": "forged-sshd"}, "spec": {"containers": [{"name": "sshd", "command": program}]}}
    kube.cluster.create(forged)
    kube.system.wait("its address", lambda: bool((kube.cluster.pod("forged-sshd").get("status") or {}).get("podIP")))
    elsewhere, own = kube.cluster.pod("forged-sshd")["status"]["podIP"], pod["status"]["podIP"]
    kube.cluster.patch(pod["metadata"]["name"], {"status": {"podIP": elsewhere}})
    try:
        kube.system.wait(
            "the bastion to meet it", lambda: b"is not the server that enrolled" in alice.ssh("alice", "true").stderr
        )
        told = alice.ssh("alice", "true").stderr.decode()
        assert f"use jump mode. Type: ssh -J jump@BASTION {unix_user()}@alice.hub" in told
    finally:
        kube.cluster.patch(pod["metadata"]["name"], {"status": {"podIP": own}})
    kube.system.wait("alice to get in again", lambda: alice.ssh("alice", "true").returncode == 0)


async def test_a_jump_reaches_pods_by_name_and_only_ones_own(kube: KubeSystem, two: tuple[Person, Person]) -> None:
    alice, mallory = two
    await alice.certificate()
    await mallory.certificate()
    name = kube.cluster.pod_of("alice")["metadata"]["name"]
    hello = alice.run("ssh", "-W", f"{name}.hub:22", "limited-user@127.0.0.1")
    assert hello.stdout.startswith(b"SSH-2.0-")
    for target in (f"{name}.hub:22", f"{name}.hub:8080", "127.0.0.1:22"):
        refused = mallory.run("ssh", "-W", target, "limited-user@127.0.0.1")
        assert refused.returncode == 255
        assert b"does not open that destination" in refused.stderr
