"""What the init containers leave is what the processes take, with the modes of mounted volumes and Secrets."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from api.session import cookie_key
from bastion.authority import read_secret
from bastion.hostkey import HostKey
from ca.errors import KeyFileError
from ca.keyfiles import NAMES, open_authority, rotate
from deploy.images import cluster_secrets
from tests.chart.rendering import NAME, pod_specs, rendered

GROUP = os.getgid()


def mount(folder: Path, version: str, data: Mapping[str, bytes]) -> None:
    """A mounted Secret as kubelet makes it: a folder for each version, links into it, mode 0440 for the group."""
    for name, value in data.items():
        file = folder / version / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(value)
        file.chmod(0o440)
    (folder / "..new").symlink_to(version)
    (folder / "..new").replace(folder / "..data")
    for name in data:
        top = folder / name.partition("/")[0]
        if not top.is_symlink():
            top.symlink_to(f"..data/{top.name}")


def as_paths(data: Mapping[str, bytes]) -> dict[str, bytes]:
    """A Secret's keys as the chart's volume lays them out: user.current -> user/current."""
    return {key.replace(".", "/", 1): value for key, value in data.items()}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    mount(folder / "internal", "..1", cluster_secrets.internal_data())
    mount(folder / "cookie", "..1", cluster_secrets.cookie_data())
    mount(folder / "host-key", "..1", cluster_secrets.host_key_data())
    mount(folder / "keys", "..1", as_paths(cluster_secrets.ca_data()))
    return folder


def prepare(part: str, state: Path, secrets: Path, storage: str = "state") -> subprocess.CompletedProcess[str]:
    """Run the script of the rendered init container."""
    (one,) = pod_specs(rendered({"api": {"keys": {"storage": storage}}}))[f"{NAME}-{part}"]["initContainers"]
    variables = {variable["name"]: variable["value"] for variable in one["env"]}
    return subprocess.run(
        [*one["command"], *one["args"]],
        env={"PATH": os.environ["PATH"], **variables, "STATE": str(state), "SECRETS": str(secrets)},
        capture_output=True,
        text=True,
        check=False,
    )


def open_to_group(state: Path) -> None:
    """What kubelet does to a volume with fsGroup, each time a pod starts on it."""
    for path in (state, *state.rglob("*")):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o2070 if path.is_dir() else 0o060))


def test_the_api_finds_its_cookie_key_and_makes_its_ca_keys(tmp_path: Path, secrets: Path) -> None:
    state = tmp_path / "volume" / "state"
    assert prepare("api", state, secrets).returncode == 0
    assert cookie_key(state / "cookie-key").hex() == (secrets / "cookie" / "cookie-key").read_text()
    first = [open_authority(state / "keys", name, GROUP).current for name in NAMES]
    open_to_group(state)
    with pytest.raises(KeyFileError, match="group"):
        open_authority(state / "keys", "user", None)
    assert prepare("api", state, secrets).returncode == 0
    assert [open_authority(state / "keys", name, None).current for name in NAMES] == first


def test_keys_in_a_secret_are_read_and_their_rotation_is_noticed(tmp_path: Path, secrets: Path) -> None:
    state = tmp_path / "volume" / "state"
    assert prepare("api", state, secrets, "secret").returncode == 0
    before = open_authority(state / "keys", "user", GROUP)
    with pytest.raises(KeyFileError, match="managed from outside"):
        rotate(state / "keys", "user", GROUP)
    data = {f"{name}.{file.name}": file.read_bytes() for name in NAMES for file in (secrets / "keys" / name).iterdir()}
    mount(secrets / "keys", "..2", as_paths(cluster_secrets.rotated(data, "user")))
    after = open_authority(state / "keys", "user", GROUP)
    assert after.generation != before.generation
    assert before.current in after.public
    assert after.current == before.public[1]
    assert len(after.public) == 3


def test_a_second_rotation_forgets_the_first_key() -> None:
    first = cluster_secrets.ca_data()
    third = cluster_secrets.rotated(cluster_secrets.rotated(first, "hop"), "hop")
    kept = {third[f"hop.{part}.pub"] for part in ("previous", "current", "next")}
    assert first["hop.current.pub"] not in kept
    assert third["hop.previous.pub"] == first["hop.next.pub"]


def test_a_damaged_secret_is_not_rotated() -> None:
    data = cluster_secrets.ca_data()
    with pytest.raises(KeyFileError, match="not the public key"):
        cluster_secrets.rotated({**data, "user.next.pub": data["user.current.pub"]}, "user")


def test_keys_are_never_made_anew_because_a_value_was_changed(tmp_path: Path, secrets: Path) -> None:
    state = tmp_path / "volume" / "state"
    assert prepare("api", state, secrets).returncode == 0
    open_authority(state / "keys", "user", None)
    done = prepare("api", state, secrets, "secret")
    assert done.returncode == 1
    assert "move them first" in done.stderr

    other = tmp_path / "other" / "state"
    assert prepare("api", other, secrets, "secret").returncode == 0
    done = prepare("api", other, secrets)
    assert done.returncode == 1
    assert "set it to secret" in done.stderr


def test_the_bastion_finds_its_host_key_and_the_shared_secret(tmp_path: Path, secrets: Path) -> None:
    state = tmp_path / "volume" / "state"
    for _start in range(2):
        assert prepare("bastion", state, secrets).returncode == 0
        assert read_secret(state / "secret")
        assert HostKey(state).public == HostKey(state).public
        given = (secrets / "host-key" / "ssh_host_ed25519_key").read_bytes()
        assert (state / "ssh_host_ed25519_key").read_bytes() == given
        open_to_group(state)


def test_the_api_starts_on_what_the_init_container_left(tmp_path: Path, secrets: Path) -> None:
    state = tmp_path / "volume" / "state"
    assert prepare("api", state, secrets, "secret").returncode == 0
    environment: dict[str, Any] = {
        "PATH": os.environ["PATH"],
        "SSH_API_HUB_TOKEN": "x" * 64,
        "SSH_API_STATE_DIRECTORY": str(state),
        "SSH_API_INTERNAL_SECRET_FILE": str(secrets / "internal" / "secret"),
        "SSH_API_CERTIFICATES_KEYS_GROUP": str(GROUP),
    }
    command = [sys.executable, "-m", "api", "check-settings"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "These settings can be used." in done.stdout
