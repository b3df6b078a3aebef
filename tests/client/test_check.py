"""Why: what hubssh says before a connection is all that somebody sees: it has to help with the server they typed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import RETRY, Answer, Machine, Server, Store, Unreachable, Web
from tests.ca.makers import public_key
from tests.client.makers import BOOK, GPU, NOW, Pretended, certificate, site, store

NAMED = Answer(
    403, {"error": "server_stopped", "error_description": "Your server alice is stopped: hubssh start"}, "", False, None
)


def listed(*servers: Server) -> Answer:
    """The service's list of alice's servers."""
    fields = [
        {
            "owner": "alice",
            "name": one.label.partition("/")[2],
            "login": one.login,
            "state": one.state,
            "instance": one.run,
        }
        for one in servers
    ]
    return Answer(200, {"servers": fields}, "", False, None)


def old(folder: Path, clock: Callable[[], float] = lambda: NOW) -> Store:
    """A certificate that half of its life is over for."""
    made = certificate(valid_after=NOW - 13 * 3600)
    return store(folder, site(certificate=made), machine=Machine(clock=clock))


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("alice.hub", "Your server alice is stopped: hubssh start"),
        ("gpu.hub", "Your server alice/gpu is stopped: hubssh start gpu"),
        ("again.hub", "Your server alice/again is not in your certificate: hubssh login"),
    ],
)
def test_once_all_servers_of_a_certificate_are_stopped_the_one_that_was_typed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, said: str
) -> None:
    servers = listed(
        Server("alice", "alice", True, "stopped"),
        Server("alice+gpu", "alice/gpu", True, "stopped"),
        Server("alice+again", "alice/again", True, "running", True, BOOK),
    )
    Pretended(certificates_renew=NAMED, servers=servers).stand_in(monkeypatch)
    assert hubssh.run_check(old(tmp_path), host) == hubssh.STOP
    assert capsys.readouterr().err == f"hubssh: {said}\n"


@pytest.mark.parametrize("servers", [Answer(503, {}, "", False, None), listed()], ids=["not known", "gone"])
def test_where_nothing_is_known_of_the_server_that_was_typed_the_service_has_the_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], servers: Answer
) -> None:
    Pretended(certificates_renew=NAMED, servers=servers).stand_in(monkeypatch)
    assert hubssh.run_check(old(tmp_path), "gpu.hub") == hubssh.STOP
    assert capsys.readouterr().err == "hubssh: Your server alice is stopped: hubssh start\n"


def security_key(path: Path) -> None:
    Path(f"{path}.pub").write_text(public_key("sk-ed25519").line)


def with_passphrase(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True)


@pytest.mark.parametrize("key", [security_key, with_passphrase])
def test_a_key_that_wants_its_owner_is_told_once_a_minute_to_be_renewed_and_after_its_end_to_log_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: Callable[[Path], None],
) -> None:
    for name in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    moment = [NOW]
    made = old(tmp_path, lambda: moment[0])
    key(Path(made.known().key))

    def checked() -> str:
        assert hubssh.run_check(made, "gpu.hub") == 0
        return capsys.readouterr().err

    for _ in range(2):
        said = checked()
        assert said.startswith("hubssh: Your certificate ends at ")
        assert said.endswith(", and cannot be renewed without you: hubssh renew\n")
        assert checked() == ""
        moment[0] += RETRY
    moment[0] = NOW + 13 * 3600
    said = checked()
    assert said.startswith("hubssh: Your certificate ended at ")
    assert said.endswith(": hubssh login\n")
    assert "renew" not in said


def test_a_certificate_that_has_ended_is_cured_by_a_login_also_while_the_service_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object, **__: object) -> Answer:
        raise Unreachable("ssh.example.org does not answer in time", "check your network, VPN and proxy", "time_out")

    monkeypatch.setattr(Web, "ask", away)
    made = store(tmp_path, site(certificate=certificate(valid_before=NOW, principals=[f"alice/gpu:{GPU}"])))
    assert hubssh.run_check(made, "gpu.hub") == 0
    said = capsys.readouterr().err
    assert said.endswith(" (ssh.example.org does not answer in time): hubssh login\n")
