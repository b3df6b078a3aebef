"""Why: the service as an operator runs it: one process, two ports, signals, and commands beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.store import CertificateRecord, Store
from ca.revocation import make_serial
from tests.support.hub import ROOT
from tests.support.ports import NOBODY, new_key
from tests.support.processes import die_with_parent

LIMIT = 60.0
TOKEN = "hub-token-0123456789"


def environment(state: Path, **changes: str) -> dict[str, str]:
    given = {
        "STATE_DIRECTORY": str(state),
        "HUB_TOKEN": TOKEN,
        "HUB_API_URL": NOBODY,
        "HUB_POLL_INTERVAL": "0.1",
        "LISTEN_PORT": "0",
        "INTERNAL_PORT": "0",
        **changes,
    }
    settings = {f"SSH_API_{name}": value for name, value in given.items()}
    return {"PATH": os.environ["PATH"], "HOME": str(state.parent), **settings}


def run(state: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api", *arguments],
        cwd=ROOT,
        env=environment(state, **changes),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


class Running:
    """A service in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, state: Path) -> None:
        self.process = process
        self.log = folder / "log"
        self.audit = folder / "audit"
        addresses: dict[str, str] = {}
        end = time.monotonic() + LIMIT
        while len(addresses) < 2:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            lines = [line for line in self.log.read_text().splitlines() if line.endswith("}")]
            events = [json.loads(line) for line in lines]
            addresses = {one["port"]: one["address"] for one in events if one["event"] == "listening"}
        self.public = f"http://{addresses['public']}"
        self.internal = f"http://{addresses['internal']}"
        self.secret = (state / "internal-secret").read_text().strip()

    def state(self, version: str = "", wait: float = 0) -> dict[str, Any]:
        answer = httpx.get(
            f"{self.internal}/internal/state",
            params={"version": version, "wait": wait},
            headers={"Authorization": f"Bearer {self.secret}"},
            timeout=LIMIT,
            trust_env=False,
        )
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def serving(folder: Path, **changes: str) -> Iterator[Running]:
    state = folder / "state"
    with (folder / "log").open("ab") as log, (folder / "audit").open("ab") as audit:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "api", "serve"],
            cwd=ROOT,
            env=environment(state, **changes),
            stdin=subprocess.DEVNULL,
            stdout=audit,
            stderr=log,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - calls nothing but prctl
        )
    try:
        yield Running(process, folder, state)
    finally:
        process.kill()
        process.wait(LIMIT)


def test_it_serves_both_ports_and_ends_on_sigterm_though_polls_wait(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        assert httpx.get(f"{api.public}/readyz", trust_env=False).json() == {"ready": True}
        assert "server" not in httpx.get(f"{api.public}/healthz?code=in-the-query", trust_env=False).headers
        state = api.state()
        with (
            httpx.Client(trust_env=False, timeout=LIMIT, headers={"Authorization": f"Bearer {api.secret}"}) as client,
            client.stream("GET", f"{api.internal}/internal/state?wait=0&version={state['version']}") as answer,
        ):
            assert answer.status_code == 200
        api.process.send_signal(signal.SIGTERM)
        assert api.process.wait(LIMIT) == 0
        log = api.log.read_text()
        assert all(json.loads(line) for line in log.splitlines())
        assert "in-the-query" not in log
        assert TOKEN not in log + api.audit.read_text()
        assert api.secret not in log + api.audit.read_text()


def test_a_proxy_on_this_machine_comes_through_a_socket_that_nobody_else_can_open(tmp_path: Path) -> None:
    folder = tmp_path / "proxy"
    folder.mkdir(0o750)
    path = folder / "api.sock"
    for name in ("one", "two"):  # the second time over what a killed process left
        (tmp_path / name).mkdir()
        with serving(tmp_path / name, LISTEN_PROXY_SOCKET=str(path)) as api:
            assert path.stat().st_mode & 0o777 == 0o660
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=LIMIT) as proxy:
                body = {"public_key": new_key()}
                headers = {"X-Forwarded-For": "127.0.0.1, 192.0.2.7"}
                assert proxy.post("http://api/device", data=body, headers=headers).status_code == 200
            lines = [json.loads(line) for line in api.audit.read_text().splitlines()]
            assert [one["peer"] for one in lines if one["audit"] == "device_login_begun"] == ["192.0.2.7"]
    with serving(tmp_path, LISTEN_PROXY_SOCKET=str(path)) as api:
        api.process.send_signal(signal.SIGTERM)
        assert api.process.wait(LIMIT) == 0
        assert not path.exists()


def test_a_socket_for_the_proxy_is_not_made_where_others_could_put_theirs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (open_to_all := tmp_path / "open").mkdir()
    open_to_all.chmod(0o1777)
    for place, said in (
        (tmp_path / "file", "no socket"),
        (open_to_all / "s", "Everybody may write"),
        (tmp_path / "no" / "s", "cannot be listened on"),
    ):
        done = run(tmp_path / "state", "serve", LISTEN_PROXY_SOCKET=str(place))
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_revocation_on_the_command_line_reaches_the_running_service(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        serial = str(make_serial(int(time.time() * 1000), 1))
        for arguments in (("--serial", serial), ("--user", "bob"), ("--server", "alice+gpu"), ("--everyone",)):
            version = api.state()["version"]
            done = run(tmp_path / "state", "revoke", *arguments, "--why", "lost laptop")
            assert done.returncode == 0, done.stderr
            line = json.loads(done.stdout)
            assert (line["audit"], line["by"], line["reason"]) == ("revoked", "command line", "lost laptop")
            assert api.state(version, wait=60)["version"] != version
        revoked = api.state()["revocations"]
        assert revoked["serials"] == [serial]
        assert set(revoked["users"]) == {"bob"}
        assert set(revoked["servers"]) == {"alice+gpu"}
        assert revoked["everyone_before"] > make_serial(0, 0)


def test_what_was_renewed_from_a_certificate_is_revoked_with_it(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    now = int(time.time())
    serials = [make_serial(now * 1000 + number, number) for number in range(4)]

    async def fill() -> None:
        async with Store(f"sqlite+aiosqlite:///{tmp_path / 'state' / 'api.sqlite'}", tmp_path / "state") as store:
            await store.open(now * 1000 - 5000)
            for number, (how, key) in enumerate((("device", "x"), ("renew", "x"), ("renew", "y"), ("page", "x"))):
                end, at = now + 900, now * 1000 + number
                record = CertificateRecord(
                    serials[number], "user", "alice", f"SHA256:{key}", (), now, end, at, how, None, now, "made"
                )
                await store.record(record)

    asyncio.run(fill())
    assert run(tmp_path / "state", "revoke", "--serial", str(serials[0])).returncode == 0
    listed = json.loads(run(tmp_path / "state", "revocations", "--json").stdout)
    assert sorted(int(one["subject"]) for one in listed if one["kind"] == "serial") == serials[:2]


def test_certificates_and_revocations_are_listed_for_whoever_knows_no_serial(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run(state, "revocations").stdout.split() == ["at", "kind", "which", "by", "why"]
    now = int(time.time())  # after the database was made, which refuses whatever is older

    async def fill() -> None:
        async with Store(f"sqlite+aiosqlite:///{state}/api.sqlite", state) as store:
            await store.open(now * 1000)
            for number, (user, *principals) in enumerate(
                (("alice", "alice/:5", "alice/gpu:5"), ("bob\x1b[2J", "alice/gpu:5"), ("bob", "bob/:5"))
            ):
                serial = make_serial(now * 1000 + 2000, number)
                await store.record(
                    CertificateRecord(
                        serial, "user", user, "SHA256:x", tuple(principals), now, now + 900, now * 1000, "page", "::1"
                    )
                )

    asyncio.run(fill())
    assert run(state, "revoke", "--user", "bob", "--why", "left").returncode == 0
    rows = json.loads(run(state, "certificates", "--server", "alice+gpu", "--json").stdout)
    assert [(row["user"], row["servers"], row["revoked"]) for row in rows] == [
        ("alice", ["alice", "alice+gpu"], None),
        ("bob\x1b[2J", ["alice+gpu"], None),
    ]
    assert rows[0]["serial"] == str(make_serial(now * 1000 + 2000, 0))
    (row,) = json.loads(run(state, "certificates", "--user", "bob", "--json").stdout)
    assert (row["address"], row["how"], row["valid_before"]) == ("::1", "page", now + 900)
    table = run(state, "certificates").stdout
    assert "\x1b" not in table
    assert len(table.splitlines()) == 4
    (revocation,) = json.loads(run(state, "revocations", "--json").stdout)
    assert (revocation["kind"], revocation["subject"], revocation["why"]) == ("user", "bob", "left")
    assert run(state, "revocations").stdout.splitlines()[1].split()[1:] == ["user", "bob", "command", "line", "left"]


@pytest.mark.parametrize("ca", ["user", "host", "hop"])
def test_a_rotation_reaches_the_running_service_and_refuses_nobody(tmp_path: Path, ca: str) -> None:
    with serving(tmp_path) as api:
        before = api.state()
        done = run(tmp_path / "state", "rotate", ca)
        assert done.returncode == 0, done.stderr
        after = api.state(before["version"], wait=60)
        assert set(before["trust"][ca]) < set(after["trust"][ca])
        assert after["trust"][ca][0] == before["trust"][ca][1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("revoke", "--serial", "x"), "number"),
        (("revoke", "--server", "Alice Gpu"), "quoted"),
        (("revoke",), "required"),
        (("certificates", "--server", "Alice Gpu"), "quoted"),
        (("rotate", "root"), "invalid choice"),
        (("nothing",), "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(tmp_path / "state", *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_it_does_not_start_on_settings_or_keys_that_cannot_be_used(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run(state, "serve", ZONE="127.0.0.1", LOG_LEVEL="loud", HUB_TOKN="x")
    assert (done.returncode, "HUB_TOKEN" in done.stderr) == (1, True)
    done = run(state, "check-settings")
    assert (done.returncode, "can be used" in done.stdout) == (0, True)
    key = next(path for path in (state / "keys").rglob("current") if path.is_file())
    key.chmod(0o644)
    done = run(state, "serve")
    assert (done.returncode, "chmod 600" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    key.chmod(0o600)
    with serving(tmp_path) as api:
        done = run(state, "serve", LISTEN_PORT=api.public.rpartition(":")[2])
        assert (done.returncode, "cannot be listened on" in done.stderr) == (1, True)


def test_help_teaches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert "SSH_API_HUB_TOKEN_FILE" in done.stdout
    assert "`check-settings --list` lists them" in done.stdout
    assert all(
        command in done.stdout
        for command in ("serve", "rotate", "revoke", "certificates", "revocations", "check-settings")
    )


def test_the_settings_are_listed_without_any_being_set() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api", "check-settings", "--list"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0
    assert "SSH_API_PODS_NETWORKS" in done.stdout


def test_plain_ssh_reads_the_client_configuration(tmp_path: Path) -> None:
    with serving(tmp_path, BASTION_HOSTS="ssh.example.org", BASTION_PORT="2200") as api:
        texts = [
            httpx.get(f"{api.public}/ssh_config{query}", trust_env=False).text
            for query in (
                "",
                "?key=id_hub&server=alice%2Bgpu&server=alice&user=alice",
                "?mode=direct&key=k&server=alice%2Bgpu",
            )
        ]
    key = {f"identityfile ~/.ssh/{name}" for name in ("id_hub", "k")}
    bastion = {"hostname ssh.example.org", "port 2200", "stricthostkeychecking true"}
    for at, name, wanted, unwanted in (
        (0, "alice+gpu.hub", {"proxyjump jupyterhub-bastion", "user jovyan", "stricthostkeychecking true"}, key),
        (0, "new.hub", {"proxyjump jupyterhub-bastion", "port 22"}, key),  # whatever one has for all hosts
        (0, "jupyterhub-bastion", {*bastion, "user jump"}, key),
        (1, "alice+gpu.hub", {"proxyjump jupyterhub-bastion", "identityfile ~/.ssh/id_hub", "identitiesonly yes"}, ()),
        (1, "alice.hub", {"user alice"}, key - {"identityfile ~/.ssh/id_hub"}),
        (1, "jupyterhub-bastion", {*bastion, "user jump", "identityfile ~/.ssh/id_hub"}, ()),
        (2, "alice+gpu.hub", {*bastion, "user alice+gpu", "identityfile ~/.ssh/k"}, {"proxyjump jupyterhub-bastion"}),
        (2, "other.hub", bastion, {"user alice+gpu"}),
    ):
        (tmp_path / "config").write_text(f"{texts[at]}\nHost *\n    Port 2022\n")
        shown = subprocess.run(
            ["ssh", "-F", tmp_path / "config", "-G", name], capture_output=True, text=True, timeout=20, check=True
        )
        said = set(shown.stdout.splitlines())
        assert wanted <= said
        assert not said & set(unwanted)
