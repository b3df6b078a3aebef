"""Why: which algorithms are offered is a promise, and ssh-audit is the list that security officers hold against it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.clients.openssh import Missing, OpenSSH, Way
from tests.clients.table import BOTH, Mode
from tests.support.hub import no_tls
from tests.support.system import Person

KEPT = {"curve25519-sha256", "curve25519-sha256@libssh.org"}
"""Warned about because it is not post-quantum, and kept for clients that know no ML-KEM."""
_PROBLEMS = ("critical", "warning")


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


def _pod_port(person: Person) -> int:
    system = person.system
    secret = (system.state / "internal-secret").read_text().strip()
    state = httpx.get(
        f"http://127.0.0.1:{system.internal_port}/internal/state",
        headers={"Authorization": f"Bearer {secret}"},
        trust_env=False,
        verify=no_tls(),
    ).json()
    return int(next(one["ssh_port"] for one in state["enrolled"] if one["login"] == person.user))


@pytest.mark.parametrize("where", ["bastion", "pod"])
def test_ssh_audit_fails_nothing_and_warns_only_of_curve25519(alice: Person, where: str) -> None:
    found = _audit(alice.system.port if where == "bastion" else _pod_port(alice))
    complaints = _complaints(found)
    assert {level for level, _, _ in complaints} <= {"warn"}, complaints
    assert {name for _, name, _ in complaints} <= KEPT, complaints
    assert not found["cves"]
    assert found["kex"][0]["algorithm"] == "mlkem768x25519-sha256" or where == "pod"


@pytest.mark.parametrize("mode", BOTH, ids=lambda mode: mode.value)
@pytest.mark.parametrize("suite", ["trixie", "testing"])
def test_openssh_10_agrees_on_a_post_quantum_exchange_without_a_warning(
    alice: Person, suite: str, mode: Mode, short: Any
) -> None:
    try:
        way = Way(alice, mode, OpenSSH.of(suite), short)
    except Missing as reason:
        pytest.skip(str(reason))
    if mode is Mode.DIRECT:
        assert way.says("echo in") == b"in\n"  # nothing on its standard error
    done = way.ssh("-v", "-o", "KexAlgorithms=mlkem768x25519-sha256", "--", "echo in")
    assert done.stdout == b"in\n"
    assert b"kex: algorithm: mlkem768x25519-sha256" in done.stderr
    assert b"post-quantum" not in done.stderr
