"""Why: sites, keys and certificates as hubssh keeps them, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ca.limits import ALL, Capabilities, extensions_for
from deploy.client.hubssh import Certificate, Machine, Server, Site, Store

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
