"""Why: which algorithms are offered is a promise, and ssh-audit is the list that security officers hold against it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from ca.names import Server
from tests.clients.conftest import enter
from tests.clients.openssh import SUITES, Missing, Mode, OpenSSH, Way
from tests.clients.table import BOTH
from tests.support.hub import no_tls
from tests.support.system import Person, System

KEPT = {"curve25519-sha256", "curve25519-sha256@libssh.org"}
"""Warned about because it is not post-quantum, and kept for clients that know no ML-KEM."""


def _audit(port: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "ssh_audit", "--json", "--skip-rate-test", "-p", str(port), "127.0.0.1"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _complaints(found: dict[str, Any]) -> set[tuple[str, str, str]]:
    """(level, algorithm, what is said) for everything offered."""
    return {
        (level, offered["algorithm"], text)
        for kind in ("kex", "key", "enc", "mac")
        for offered in found[kind]
        for level in ("fail", "warn")
        for text in offered["notes"].get(level, ())
    }


def _pod_port(person: Person, server: str = "") -> int:
    system = person.system
    secret = (system.state / "internal-secret").read_text().strip()
    state = httpx.get(
        f"http://127.0.0.1:{system.internal_port}/internal/state",
        headers={"Authorization": f"Bearer {secret}"},
        trust_env=False,
        verify=no_tls(),
    ).json()
    return int(next(one["ssh_port"] for one in state["enrolled"] if one["login"] == Server(person.user, server).login))


@pytest.mark.parametrize("where", ["bastion", "pod"])
def test_ssh_audit_fails_nothing_and_warns_only_of_curve25519(alice: Person, where: str) -> None:
    found = _audit(alice.system.port if where == "bastion" else _pod_port(alice))
    complaints = _complaints(found)
    assert {level for level, _, _ in complaints} <= {"warn"}, complaints
    assert {name for _, name, _ in complaints} <= KEPT, complaints
    assert not found["cves"]
    assert found["kex"][0]["algorithm"] == "mlkem768x25519-sha256" or where == "pod"


@pytest.mark.parametrize("mode", BOTH, ids=lambda mode: mode.value)
@pytest.mark.parametrize("suite", SUITES)
def test_openssh_10_has_nothing_to_warn_of(alice: Person, suite: str, mode: Mode, short: Path) -> None:
    """The pod's sshd is the machine's own here, and may be too old for ML-KEM: then sntrup761 is agreed on."""
    try:
        way = Way(alice, mode, OpenSSH.of(suite), short)
    except Missing as reason:
        pytest.skip(str(reason))
    assert way.says("echo in") == b"in\n"  # and nothing on its standard error
    if mode is Mode.DIRECT:
        done = way.ssh("-v", "--", "echo in")
        assert b"kex: algorithm: mlkem768x25519-sha256" in done.stderr


@pytest.mark.parametrize("suite", SUITES)
async def test_a_pod_with_openssh_10_works_with_old_and_new_clients(system: System, suite: str, short: Path) -> None:
    try:
        newer = OpenSSH.of(suite)
        if os.geteuid() != 0:
            raise Missing("only root can put another sshd in the place of the machine's")
        if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
            raise Missing("no mount namespace can be made here")
    except Missing as reason:
        pytest.skip(str(reason))
    person = await enter(system, "alice", suite)
    for openssh in (OpenSSH(), newer):
        for mode in BOTH:
            way = Way(person, mode, openssh, short, suite)
            assert way.says("echo in") == b"in\n"
            assert way.says("cat", data=bytes(3_000_000)) == bytes(3_000_000)
            (short / "sent").write_bytes(b"content")
            assert way.run("scp", "-q", f"{short}/sent", f"{way.target}:{short}/there").returncode == 0
            assert (short / "there").read_bytes() == b"content"
            terminal = way.ssh("-tt", "--", data=b"echo $((6*7)); exit 7\n", env={"TERM": "xterm"})
            assert (terminal.returncode, b"42" in terminal.stdout) == (7, True)
    with socket.create_connection(("127.0.0.1", _pod_port(person, suite))) as stream:
        assert stream.recv(100).startswith(b"SSH-2.0-OpenSSH_%d.%d" % newer.version)
    end_to_end = Way(person, Mode.JUMP, newer, short, suite).ssh("-v", "--", "true")
    assert end_to_end.stderr.count(b"kex: algorithm: mlkem768x25519-sha256") == 1
    complaints = _complaints(_audit(_pod_port(person, suite)))
    assert {(level, name) for level, name, _ in complaints} <= {("warn", name) for name in KEPT}, complaints
    await system.hub.stop_server("alice", suite)
