"""Why: a login asks for what was meant and no more, and one that comes to nothing leaves the one that works alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import Answer, Done, Machine, Site, Store
from tests.ca import makers as ca_makers
from tests.client.makers import NOW, Pretended


class Laptop(Machine):
    """A machine whose agent holds these keys."""

    def __init__(self, *held: str) -> None:
        super().__init__(clock=lambda: NOW)
        self.held = held

    def run(self, *command: str, data: bytes = b"", alone: bool = False, limit: float = 120) -> Done:
        if command[:2] == ("ssh-add", "-L"):
            return Done(0, "\n".join(self.held).encode(), "")
        return super().run(*command, data=data, alone=alone, limit=limit)


def hubssh_main(folder: Path, *words: str, machine: Machine | None = None) -> int:
    browser = ["--no-browser"] if words[0] in ("login", "start") else []
    return hubssh.main([words[0], "--ssh-dir", str(folder), *browser, *words[1:]], machine or Laptop())


def login(folder: Path, *words: str, machine: Machine | None = None) -> int:
    return hubssh_main(folder, "login", "https://ssh.example.org", *words, machine=machine)


def files(folder: Path) -> dict[str, bytes]:
    """Everything that is kept, but for the lock, which is empty."""
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def kept(folder: Path) -> tuple[Store, Site]:
    store = Store(Laptop(), str(folder))
    return store, store.known()


def fits(folder: Path) -> bool:
    """Whether key, certificate and what is remembered of it belong together, as ssh will find them."""
    store, site = kept(folder)
    certificate = Path(store.certificate_file(site)).read_text().strip()
    key = subprocess.run(["ssh-keygen", "-y", "-f", site.key], capture_output=True, text=True, check=True).stdout
    named = Path(store.config).read_text()
    return hubssh.read_certificate(certificate, key) == site.certificate and f'"{site.key}"' in named


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["login"], {}),
        (["login", "--server", "gpu"], {"server": "alice+gpu", "only": "1"}),
        (["login", "--server", "gpu", "--start"], {"server": "alice+gpu", "only": "1", "start": "1"}),
        (["login", "--start"], {"server": "alice", "start": "1"}),
        (["start"], {"server": "alice", "start": "1"}),
        (["start", "gpu"], {"server": "alice+gpu", "start": "1"}),
    ],
    ids=" ".join,
)
def test_only_a_login_for_one_server_gives_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], wanted: dict[str, str]
) -> None:
    service = Pretended().stand_in(monkeypatch)
    assert login(tmp_path) == 0
    assert hubssh_main(tmp_path, *words) == 0
    asked = service.forms[-1]
    assert {name: asked[name] for name in asked if name not in ("public_key", "host_name")} == wanted


NO: dict[str, Callable[[], Pretended]] = {
    "denied": lambda: Pretended("access_denied"),
    "late": lambda: Pretended("expired_token"),
    "no authority": lambda: Pretended(known_hosts=Answer(503, {}, "", False, None)),
    "too many": lambda: Pretended(device=Answer(429, {}, "", False, None)),
    "no certificate": lambda: Pretended(device_token=Answer(200, {"certificate": "x"}, "", False, None)),
}


@pytest.mark.parametrize("no", NO)
@pytest.mark.parametrize("words", [["--type", "ed25519"], ["--key", "agent:yubi"], []], ids=" ".join)
def test_a_login_that_comes_to_nothing_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no: str, words: Sequence[str]
) -> None:
    Pretended().stand_in(monkeypatch)
    assert login(tmp_path) == 0
    before = files(tmp_path)
    NO[no]().stand_in(monkeypatch)
    assert login(tmp_path, *words, machine=Laptop(f"{ca_makers.public_key().line} yubi")) == 1
    assert files(tmp_path) == before


def test_a_key_of_an_agent_stays_the_one_that_was_approved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ca_makers.public_key().line, ca_makers.public_key(number=7).line
    Pretended().stand_in(monkeypatch)
    assert login(tmp_path, "--key", "agent", machine=Laptop(first)) == 0
    before = files(tmp_path)
    Pretended("access_denied").stand_in(monkeypatch)
    assert login(tmp_path, "--key", "agent", machine=Laptop(second)) == 1
    assert files(tmp_path) == before
    Pretended().stand_in(monkeypatch)
    assert login(tmp_path, "--key", "agent", machine=Laptop(second)) == 0
    _, site = kept(tmp_path)
    assert Path(site.key).read_text().strip() == second
    assert len(list(Path(site.key).parent.glob("from-agent*"))) == 1


def test_what_can_fail_is_tried_before_somebody_is_asked_for_a_click(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Pretended(known_hosts=Answer(503, {}, "", False, None)).stand_in(monkeypatch)
    assert login(tmp_path) == 1
    service.changed.clear()
    assert login(tmp_path / "a$b") == 1
    assert service.forms == []


def test_a_new_key_takes_the_place_of_the_old_one_once_it_is_approved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretended().stand_in(monkeypatch)
    for words in ([], ["--type", "ed25519"], ["--type", "ed25519"]):
        before = {name for name, content in files(tmp_path).items() if b"PRIVATE KEY" in content}
        assert login(tmp_path, *words) == 0
        assert fits(tmp_path)
        (key,) = {name for name, content in files(tmp_path).items() if b"PRIVATE KEY" in content}
        assert key not in before


@pytest.mark.parametrize("crash", ["save", "write_if_other", "keep", "configure"])
def test_whenever_a_login_is_interrupted_what_is_there_fits_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    Pretended().stand_in(monkeypatch)
    assert login(tmp_path) == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if crash == "save":
            patched.setattr(Store, "save", interrupted)
        else:
            patched.setattr(hubssh, crash, interrupted)
        assert login(tmp_path, "--type", "ed25519") == 130
    store, site = kept(tmp_path)
    certificate = Path(store.certificate_file(site)).read_text().strip()
    assert hubssh.read_certificate(certificate, Path(f"{site.key}.pub").read_text()) == site.certificate
    named = Path(store.config).read_text()
    for path in [line.split('"')[1] for line in named.splitlines() if "IdentityFile" in line]:
        assert Path(path).exists()  # that of before, or that of now: both are there until it names the new one
    assert login(tmp_path) == 0
    assert fits(tmp_path)


@pytest.mark.parametrize("way", ["BROWSER", "xdg-open"])
def test_a_browser_that_stays_open_and_talks_is_not_waited_for_and_does_not_spoil_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], way: str
) -> None:
    Pretended().stand_in(monkeypatch)
    browser, shown, closed = tmp_path / "bin" / way, tmp_path / "shown", tmp_path / "closed"
    browser.parent.mkdir()
    os.mkfifo(shown)
    os.mkfifo(closed)
    browser.write_text(f'#!/bin/sh\necho Opening.; echo Opening. >&2\necho "$1" >{shown}; read -r _ <{closed}\n')
    (browser.parent / "xdg-settings").write_text("#!/bin/sh\nexit 1\n")  # else it names the one of this machine
    for program in browser.parent.iterdir():
        program.chmod(0o700)
    for name in ("BROWSER", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{browser.parent}:{os.environ['PATH']}")
    monkeypatch.setenv(*("BROWSER", str(browser)) if way == "BROWSER" else ("DISPLAY", ":0"))
    words = ["login", "--ssh-dir", str(tmp_path / "ssh"), "--json", "https://ssh.example.org"]
    assert hubssh.main(words, Laptop()) == 0
    said = capfd.readouterr()
    assert shown.read_text() == "https://ssh.example.org/activate\n"  # comes once the browser runs
    assert said.err.startswith("Open in a browser, if yours does not show it: https://ssh.example.org/activate\nCode: ")
    closed.write_text("\n")  # taken once the browser has said everything
    later = capfd.readouterr()
    assert json.loads(said.out)["user"] == "alice"
    assert "Opening." not in said.err + later.out + later.err


def test_a_program_in_the_folder_one_is_in_is_not_taken_for_the_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "shown"
    os.mkfifo(shown)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{shown}\n')
    browser.chmod(0o700)
    (tmp_path / "webbrowser.py").write_text(f"open({str(shown)!r}, 'w').write('not the browser')\n")
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    hubssh.open_browser("https://ssh.example.org/activate")
    assert shown.read_text() == "https://ssh.example.org/activate\n"
