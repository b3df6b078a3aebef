"""Why: sites, keys and certificates as hubssh keeps them, without a service."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ca.certificate import line_of
from ca.limits import ALL, Capabilities, extensions_for
from deploy.client import hubssh
from deploy.client.hubssh import Answer, Certificate, Machine, Server, Site, Store, Web, key_blob
from tests.ca import makers as ca_makers

NOW = 1_763_000_000
BOOK = "1763000000000000"
GPU = "1763000000000001"


def certificate(**changes: Any) -> Certificate:
    """alice's, for her default server and her server "gpu", half an hour old and good for twelve."""
    made = Certificate(
        serial="1916478223745024000",
        user="alice",
        principals=[f"alice/:{BOOK}", f"alice/gpu:{GPU}"],
        valid_after=NOW - 1800,
        valid_before=NOW + 12 * 3600,
        extensions=list(extensions_for(ALL)),
        renew_until=NOW + 23 * 3600,
    )
    return made._replace(**changes)


def limited(missing: Capabilities) -> list[str]:
    """The extensions of somebody who lacks these capabilities."""
    return list(extensions_for(ALL - missing))


def site(**changes: Any) -> Site:
    """alice at ssh.example.org, with a stopped server and one that bob shares."""
    made = Site(
        public_url="https://ssh.example.org",
        key="/nowhere/id_ed25519",
        own_key=True,
        zone="hub",
        hosts=["ssh.example.org"],
        port=2222,
        jump_login="jump",
        unix_user="jovyan",
        user="alice",
        certificate=certificate(),
        servers=(
            Server("alice", "alice", True, "running", True, BOOK),
            Server("alice+gpu", "alice/gpu", True, "running", True, GPU),
            Server("alice+off", "alice/off", True, "stopped"),
            Server("bob+lab", "bob/lab", False, "running", True, "1763000000000002"),
        ),
        logged_in_at=NOW,
    )
    return made._replace(**changes)


def store(folder: Path, *sites: Site, machine: Machine | None = None) -> Store:
    """A store in `folder` that knows these sites. Keys lie where hubssh makes them."""
    made = Store(machine or Machine(clock=lambda: NOW), str(folder))
    for one in sites or (site(),):
        made.save(one._replace(key=made.file(one, "id_ed25519")))
    return made


def asked(made: Store, host: str, *options: str, ssh: str = "ssh") -> dict[str, list[str]]:
    """What ssh itself makes of a host name."""
    done = subprocess.run(
        [ssh, "-G", "-F", f"{made.ssh}/config", *options, host],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    return found


def configured(folder: Path, *sites: Site) -> Store:
    """The same, with ssh's configuration."""
    made = store(folder, *sites)
    hubssh.configure(made)
    # A check of this ssh would look at the real clock, and ask the service.
    Path(made.path, hubssh.SCRIPT).write_text("#!/bin/sh\nexit 1\n")
    return made


class Pretended:
    """A service that answers without a network, and notes the forms that it gets. `decided`: how logins end."""

    def __init__(self, decided: str = "approved", **changed: Answer) -> None:
        self.decided = decided
        self.changed = changed
        self.forms: list[dict[str, str]] = []
        self.asked: list[str] = []

    def ask(self, method: str, path: str, form: dict[str, str] | None = None) -> Answer:
        self.asked.append(f"{method} {path}")
        name = path.strip("/").replace("/", "_")
        if name in self.changed:
            return self.changed[name]
        if name == "device":
            self.forms.append(form or {})
        if name == "device_token" and self.decided != "approved":
            return _answer({"error": self.decided}, 400)
        found: dict[str, Callable[[], Answer]] = {
            "about": lambda: _answer(ABOUT),
            "known_hosts": lambda: Answer(200, {}, f"@cert-authority * {ca_makers.public_key().line}\n", False, None),
            "device": lambda: _answer({
                "user_code": "BCDF-GHJK", "device_code": "secret", "interval": 1, "expires_in": 600,
                "verification_uri": "https://ssh.example.org/activate",
            }),
            "device_token": lambda: _answer({"certificate": self._certificate()}),
        }  # fmt: skip
        return found.get(name, lambda: _answer({"error": "not_found"}, 404))()

    def _certificate(self) -> str:
        blob = key_blob(self.forms[-1]["public_key"])[1]
        principals = (f"alice/:{BOOK}", f"alice/gpu:{GPU}")
        return line_of(ca_makers.signed(ca_makers.certificate(key_blob=blob, principals=principals)))

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> Pretended:
        """It answers whatever hubssh asks."""

        def ask(_: Web, method: str, path: str, *, form: dict[str, str] | None = None, **__: object) -> Answer:
            return self.ask(method, path, form)

        monkeypatch.setattr(Web, "ask", ask)
        monkeypatch.setattr("time.sleep", lambda _: None)  # between two questions
        return self


ABOUT = {
    "public_url": "https://ssh.example.org",
    "zone": "hub",
    "bastion": {"hosts": ["ssh.example.org"], "port": 2222, "jump_login": "jump"},
    "unix_user": "jovyan",
    "features": {"start": True},
}


def _answer(fields: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, fields, "", False, None)
