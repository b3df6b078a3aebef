"""Why: two hubs may have servers of the same names: what hubssh says to type leads to the hub that was asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import Answer, Finding, Server, Store
from tests.client.makers import BOOK, GPU, NOW, Pretended, certificate, site, store

OLDER, LATER = "https://ssh.example.org", "https://ssh.other.org"
SERVERS = [
    {"owner": "alice", "name": "", "login": "alice", "state": "running", "ssh": True, "instance": BOOK},
    {"owner": "alice", "name": "gpu", "login": "alice+gpu", "state": "running", "ssh": True, "instance": GPU},
]
ELSEWHERE = f"gpu.hub leads to {LATER} now: hubssh login {OLDER}"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """alice at two hubs, of which the later knows only her server "gpu"."""
    Pretended(
        servers=Answer(200, {"servers": SERVERS}, "", False, None),
        sessions=Answer(200, {"sessions": []}, "", False, None),
    ).stand_in(monkeypatch)
    later = site(
        public_url=LATER,
        hosts=["ssh.other.org"],
        user="al",
        certificate=certificate(user="al", principals=[f"al/gpu:{GPU}"]),
        servers=(Server("al+gpu", "al/gpu", True, "running", True, GPU),),
        logged_in_at=NOW + 1,
    )
    return store(tmp_path, site(), later)


def run(made: Store, command: str, *words: str, of: str = "ssh.example.org") -> int:
    return hubssh.main([command, "--site", of, "--ssh-dir", made.ssh, *words], made.machine)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("command", ["list", "status"])
def test_no_command_is_shown_that_leads_to_the_other_hub(
    made: Store, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(made, command) == 0
    shown = said(capsys)
    assert ELSEWHERE in shown
    assert "config gpu.hub" not in shown
    assert "config alice.hub" in shown
    assert run(made, "status", of="ssh.other.org") == 0
    assert "config gpu.hub" in said(capsys)


def test_in_json_a_name_that_leads_to_the_other_hub_is_not_the_host(
    made: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made, "list", "--json") == 0
    assert {one["login"]: one["host"] for one in told(capsys)["servers"]} == {"alice": "alice.hub", "alice+gpu": None}
    assert run(made, "status", "--json") == 0
    assert told(capsys)["certificate"]["servers"] == {"alice": "alice.hub", "alice+gpu": None}


def test_the_doctor_does_not_find_the_other_hub_s_server_well(
    made: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def pod(_: Store, one: hubssh.Site, server: Server) -> Finding:
        tried.append(one.short(server.login))
        return Finding("pod", "ok", "it works")

    for step in ("configuration", "bastion", "host_key", "certificate"):
        finding = Finding(step, "ok", "as it should be")
        monkeypatch.setattr(hubssh, f"_{step}", lambda *_, found=finding: found)
    monkeypatch.setattr(hubssh, "_pod", pod)
    assert run(made, "doctor", "gpu") == 1
    assert said(capsys).splitlines()[-3:-1] == [
        f"WRONG  configuration: gpu.hub leads to {LATER} now",
        f"       What to do: hubssh login {OLDER}",
    ]
    assert run(made, "doctor", "alice") == 0
    assert tried == ["alice.hub"]


@pytest.mark.parametrize(
    ("state", "renewal", "cure"),
    [
        ("stopped", Answer(500, {}, "", False, None), "Your server alice/off is stopped: hubssh start --site {} off"),
        (
            "running",
            Answer(403, {"error": "revoked", "error_description": "Log in again: hubssh login"}, "", False, None),
            "Log in again: hubssh login --site {}",
        ),
    ],
)
def test_what_ssh_is_told_to_do_is_done_at_the_hub_that_the_name_leads_to(
    made: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    renewal: Answer,
    cure: str,
) -> None:
    servers = [{"owner": "alice", "name": "off", "login": "alice+off", "state": state}]
    Pretended(certificates_renew=renewal, servers=Answer(200, {"servers": servers}, "", False, None)).stand_in(
        monkeypatch
    )
    older = made.known("ssh.example.org")
    made.update(older, certificate=certificate(valid_after=NOW - 13 * 3600))
    assert hubssh.run_check(made, "off.hub") == hubssh.STOP
    assert capsys.readouterr().err == f"hubssh: {cure.format('ssh.example.org')}\n"
