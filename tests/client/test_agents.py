"""Why: an agent is a convenience, and some ask a person before they take a key: the certificate counts without it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer

import pytest

from ca.certificate import line_of
from deploy.client import hubssh
from deploy.client.hubssh import Answer, Store, key_blob
from tests.ca import makers as ca_makers
from tests.client.makers import BOOK, GPU, NOW, Pretended
from tests.client.test_wishes import Laptop, fits, kept, login

_LIST, _KEYS, _FAILURE = 11, 12, 5
_ADD = (17, 25)
"""Messages of the agent's protocol: draft-ietf-sshm-ssh-agent, section 6.1."""


class _Speaking(StreamRequestHandler):
    """One program that speaks with the agent."""

    server: Asking

    def handle(self) -> None:
        while length := self.rfile.read(4):
            kind = self.rfile.read(int.from_bytes(length, "big"))[0]
            self.server.asked.append(kind)
            if kind in self.server.silent:
                self.rfile.read()  # until that program has given up
            elif kind == _LIST:
                self.wfile.write(b"\0\0\0\5" + bytes([_KEYS]) + b"\0\0\0\0")
            else:
                self.wfile.write(b"\0\0\0\1" + bytes([_FAILURE]))


class Asking(ThreadingUnixStreamServer):
    """An agent without keys, which asks somebody about some messages, who is not there."""

    silent: tuple[int, ...] = _ADD

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Speaking)
        self.asked: list[int] = []


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    monkeypatch.setattr(hubssh, "AGENT_PATIENCE", 1)
    with Asking(tmp_path / "agent") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def half_over(store: Store) -> None:
    """As if half of the certificate's life were over."""
    site = store.known()
    assert site.certificate is not None
    old = site.certificate._replace(valid_after=NOW - 99999, renew_until=NOW + 99999)
    store.update(site, certificate=old)


def renewing(folder: Path, monkeypatch: pytest.MonkeyPatch, serial: int) -> None:
    """The service renews the certificate with this one."""
    _, site = kept(folder)
    made = ca_makers.certificate(
        key_blob=key_blob(Path(f"{site.key}.pub").read_text())[1],
        principals=(f"alice/:{BOOK}", f"alice/gpu:{GPU}"),
        serial=serial,
    )
    fields = {"certificate": line_of(ca_makers.signed(made))}
    Pretended(certificates_renew=Answer(201, fields, "", False, None)).stand_in(monkeypatch)


@pytest.mark.parametrize("silent", [_ADD, (_LIST,)], ids=["asks about keys", "hangs"])
def test_an_agent_that_does_not_answer_costs_a_login_nothing_but_the_agent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    agent: Asking,
    silent: tuple[int, ...],
) -> None:
    Pretended().stand_in(monkeypatch)
    agent.silent = silent
    assert login(tmp_path / "ssh") == 0
    assert fits(tmp_path / "ssh")
    said = capsys.readouterr().err
    assert "ssh-add did not end within 1 seconds" in said
    assert "ssh uses the file; hubssh login --no-agent leaves the agent alone." in said
    assert (tmp_path / "ssh" / "config").exists()


def test_a_renewal_is_remembered_whatever_the_agent_does_and_ssh_waits_for_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: Asking
) -> None:
    Pretended().stand_in(monkeypatch)
    agent.silent = ()
    folder = tmp_path / "ssh"
    assert login(folder, "--no-agent") == 0
    store, site = kept(folder)
    store.update(site, agent=True)
    agent.silent = _ADD
    for serial in (7, 8):
        renewing(folder, monkeypatch, serial)
        half_over(store)
        assert hubssh.run_check(store, "gpu.hub") == 0
        assert fits(folder)
        renewed = store.known().certificate
        assert renewed is not None
        assert renewed.serial == str(serial)
    assert len([kind for kind in agent.asked if kind in _ADD]) == 1


def test_an_agent_that_failed_is_asked_again_by_whoever_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], agent: Asking
) -> None:
    Pretended().stand_in(monkeypatch)
    folder = tmp_path / "ssh"
    assert login(folder) == 0
    renewing(folder, monkeypatch, 7)
    capsys.readouterr()
    assert hubssh.main(["renew", "--ssh-dir", str(folder)], Laptop()) == 0
    assert "did not take the key" in capsys.readouterr().err
    Pretended().stand_in(monkeypatch)
    agent.silent = ()
    asked = len(agent.asked)
    assert login(folder) == 0
    assert len(agent.asked) > asked
