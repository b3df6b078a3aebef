"""Why: SSH begins with a box on the spawn page, so real people's real forms are sent, whatever they are called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ca.names import Server
from tests.kube.conftest import KubeSystem, running
from tests.support.system import unix_user


@pytest.fixture
async def clean(kube: KubeSystem) -> AsyncIterator[KubeSystem]:
    """The file's system, without servers before and after."""
    await kube.hub.make_users()
    yield kube
    await kube.hub.clean()


@pytest.mark.parametrize(
    ("user", "server"),
    [("alice", ""), ("alice", "gpu"), ("Bob.Smith@example.org", ""), ("ünï", ""), ("Bob.Smith@example.org", "gpu")],
)
async def test_whoever_ticks_the_box_can_log_in(clean: KubeSystem, user: str, server: str) -> None:
    await clean.with_ssh(user, server)
    person = clean.system.person(user, f"-{len(user)}{server}")
    await person.certificate()
    login = Server(user, server).login
    done = person.ssh(login, "echo $JUPYTERHUB_USER/$JUPYTERHUB_SERVER_NAME")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{user}/{server}\n", b"")
    done = person.jump(f"{login}.hub", "echo $JUPYTERHUB_USER")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{user}\n", b"")


async def test_the_pod_carries_what_the_bastion_goes_by(clean: KubeSystem) -> None:
    await clean.with_ssh("alice", "gpu")
    pod = clean.cluster.pod_of("alice", "gpu")
    assert pod["metadata"]["labels"]["ssh-bastion-server/notebook"] == "true"
    model = await clean.hub.server("alice", "gpu")
    assert model is not None
    person = clean.system.person("alice", "-labels")
    issued = await person.certificate()
    notes = pod["metadata"]["annotations"]
    assert issued["principals"] == [f"alice/gpu:{notes['jupyterhub-bastion/instance']}"]
    (notebook,) = pod["spec"]["containers"]
    given = {one["name"]: one["value"] for one in notebook["env"]}
    assert notes["jupyterhub-bastion/ssh-port"] == given["SSH_BASTION_SSH_PORT"]
    assert notes["jupyterhub-bastion/key-port"] == given["SSH_BASTION_KEY_PORT"]
    port = {"name": "ssh", "containerPort": int(given["SSH_BASTION_SSH_PORT"]), "protocol": "TCP"}
    assert port in notebook["ports"]


async def test_whoever_leaves_the_box_alone_is_told_in_one_sentence(clean: KubeSystem) -> None:
    await clean.submit("bob")
    assert "ssh-bastion-server/notebook" not in clean.cluster.pod_of("bob")["metadata"]["labels"]
    bob = clean.system.person("bob", "-unticked")
    await bob.certificate()
    for refused in (bob.ssh("bob", "true"), bob.jump("bob.hub", "true")):
        assert refused.returncode == 255
        assert b"bob is not running with SSH. Start it in JupyterHub with Enable SSH ticked" in refused.stderr


@pytest.mark.parametrize(
    ("box", "options"),
    [
        ("on", {}),
        (1, {}),
        (False, {"extra_labels": {"ssh-bastion-server/notebook": "true"}, "environment": {"SSH_BASTION_ENABLE": "1"}}),
        (None, {"metadata": {"annotations": {"hub.jupyter.org/username": "alice"}}, "cmd": ["sshd"]}),
    ],
)
async def test_options_sent_by_hand_gain_nothing(clean: KubeSystem, box: object, options: dict[str, Any]) -> None:
    await clean.hub.start_server("bob", ssh=box, **options)
    pod = clean.cluster.pod_of("bob")
    assert "ssh-bastion-server/notebook" not in pod["metadata"]["labels"]
    assert not [name for name in pod["metadata"]["annotations"] if name.startswith("jupyterhub-bastion/")]
    environment = {one["name"] for one in pod["spec"]["containers"][0]["env"]}
    assert not {name for name in environment if name.startswith("SSH_BASTION_")}


async def test_a_restarted_server_refuses_the_certificate_of_its_last_run(clean: KubeSystem) -> None:
    await clean.with_ssh("alice")
    alice = clean.system.person("alice", "-restarted")
    await alice.certificate()
    assert alice.ssh("alice", "true").returncode == 0
    await clean.hub.stop_server("alice")
    await clean.with_ssh("alice")
    refused = alice.ssh("alice", "true")
    assert refused.returncode == 255
    assert b"was restarted since your certificate was made" in refused.stderr


async def test_the_home_of_sessions_is_the_servers(clean: KubeSystem) -> None:
    await clean.with_ssh("alice")
    alice = clean.system.person("alice", "-home")
    await alice.certificate()
    home = clean.cluster.folder / "home" / clean.cluster.pod_of("alice")["metadata"]["name"]
    assert alice.ssh("alice", "pwd; id -un").stdout.decode() == f"{home}\n{unix_user()}\n"


@pytest.fixture(scope="module")
def furnished(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSystem]:
    """A hub whose administrator has profiles and a hook already. One profile's image has a Unix user of its own, and
    its annotation says which."""
    users = {"BASTION_DIRECTORY_UNIX_USER": "nobody-here"}
    yield from running(hub_release, tmp_path_factory, users, existing_form=True)


async def test_profiles_and_hooks_that_were_there_go_on(furnished: KubeSystem) -> None:
    await furnished.hub.make_users()
    await furnished.submit("alice", profile="large", enable_ssh="on")
    await furnished.system.listed("alice")
    pod = furnished.cluster.pod_of("alice")
    (notebook,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"]["size"] == "large"
    assert "ssh-bastion-server/notebook" in pod["metadata"]["annotations"]["seen-by-hook"]
    assert "as-the-profile-has-it" in notebook["args"]
    alice = furnished.system.person("alice")
    await alice.certificate()
    assert alice.ssh("alice", "echo $SIZE").stdout == b"large\n"
    await furnished.hub.clean()


async def test_a_profile_says_by_annotation_which_user_its_image_works_as(furnished: KubeSystem) -> None:
    await furnished.hub.make_users()
    for server, profile in (("one", "large"), ("other", "small")):
        await furnished.submit("alice", server, profile=profile, enable_ssh="on")
        await furnished.system.listed("alice", server)
    alice = furnished.system.person("alice", "-users")
    await alice.certificate()
    assert alice.ssh("alice+one", "id -un").stdout.decode() == f"{unix_user()}\n"
    assert b"does not let the bastion in as nobody-here" in alice.ssh("alice+other", "true").stderr
    await furnished.hub.clean()


@pytest.fixture(scope="module")
def without_pod_side(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSystem]:
    """A hub whose images lack the pod side that it names."""
    yield from running(hub_release, tmp_path_factory, pod_side=Path("/opt/nowhere/jupyterhub_bastion_notebook"))


async def test_on_an_image_without_the_pod_side_the_box_keeps_no_server_from_starting(
    without_pod_side: KubeSystem,
) -> None:
    await without_pod_side.hub.make_users()
    await without_pod_side.submit("alice", enable_ssh="on")  # waits until JupyterHub can reach the server
    pod = without_pod_side.cluster.pod_of("alice")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    log = (without_pod_side.cluster.folder / f"{pod['metadata']['name']}.log").read_text()
    assert "SSH stays off: this image has no pod side in /opt/nowhere/jupyterhub_bastion_notebook" in log
    alice = without_pod_side.system.person("alice")
    await alice.certificate()
    refused = alice.ssh("alice", "true")
    assert refused.returncode == 255
    assert b"The server alice does not answer on its SSH port." in refused.stderr
    await without_pod_side.hub.clean()
