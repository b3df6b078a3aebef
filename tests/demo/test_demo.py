"""Why: a newcomer's first five minutes: what the demo prints must work when it is copied, and nothing may stay behind.

`make demo CHECK=1` goes through the uses themselves; here it is the guide, and the ways in which a demo ends.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.demo.scene import choose_ports
from tests.support.hub import LIMIT, ROOT, Release, binaries

pytestmark = [pytest.mark.timeout(400)]


class Demo:
    """A demo in a process of its own, told to stop in one way or another."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.demo"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # The hub's environment may be elsewhere, and nothing else of this process's environment is needed.
            env={"PATH": os.environ["PATH"], "HUB6_BIN": str(binaries("6"))},
        )
        self.said = ""

    def wait_for_the_guide(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line.decode()
            if "Ctrl-C ends all of this" in self.said:
                return
        raise AssertionError(f"the demo ended early:\n{self.said}")

    @property
    def folder(self) -> Path:
        found = re.search(r"cd (/\S+)/laptop", self.said)
        assert found is not None
        return Path(found[1])

    def family(self) -> dict[int, str]:
        """Every process below this one: pid and when it started, so that a reused pid is not taken for it."""
        return {pid: start for pid, start in descendants(self.process.pid).items() if pid != self.process.pid}

    def stage(self) -> int:
        return next(pid for pid in self.family() if parent(pid) == self.process.pid)


def stat_fields(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def parent(pid: int) -> int | None:
    fields = stat_fields(pid)
    return int(fields[1]) if fields and fields[0] not in "ZX" else None


def descendants(root: int) -> dict[int, str]:
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    found, before = {root}, 0
    while len(found) > before:
        before = len(found)
        found |= {pid for pid in pids if parent(pid) in found}
    return {pid: stat_fields(pid)[19] for pid in found if stat_fields(pid)}


def still_there(family: dict[int, str]) -> list[int]:
    return [pid for pid, start in family.items() if parent(pid) is not None and stat_fields(pid)[19:20] == [start]]


@pytest.fixture
def demo(hub_release: Release) -> Iterator[Demo]:
    if hub_release != "6":
        pytest.skip("the demo is JupyterHub 6")
    started = Demo()
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.process.terminate()
        started.process.communicate()


def test_what_the_guide_says_works_when_it_is_copied(demo: Demo) -> None:
    demo.wait_for_the_guide()
    guide = demo.said.partition("By hand:")[2]  # what stands before it waits for somebody at a browser
    typed = "\n".join(line for line in guide.splitlines() if line.startswith("  "))
    typed = re.sub(r"(ssh -F ssh_config .*)", r"\1 'echo in $JUPYTERHUB_USER'", typed)
    answer = subprocess.run(
        ["/bin/sh", "-ec", typed],
        cwd=demo.folder / "laptop",
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == ["in alice", "in alice"]


def test_secrets_are_private_and_on_no_command_line(demo: Demo) -> None:
    demo.wait_for_the_guide()
    assert stat.S_IMODE(demo.folder.stat().st_mode) == 0o700
    secrets = [(demo.folder / name).read_text() for name in ("hub-token", "demo-token", "proxy-token")]
    secrets.append((demo.folder / "api" / "internal-secret").read_text().strip())
    secrets.append((demo.folder / "laptop" / "token-header").read_text().strip().rpartition(" ")[2])
    for name in ("hub-token", "demo-token", "proxy-token", "hub.json", "api/internal-secret", "laptop/token-header"):
        assert stat.S_IMODE((demo.folder / name).stat().st_mode) == 0o600, name
    for pid in demo.family():
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_text()
            assert not [secret for secret in secrets if secret in arguments]


@pytest.mark.parametrize("end", ["Ctrl-C", "closed terminal", "the keeper is killed", "the stage is killed"])
def test_however_it_ends_it_leaves_nothing(demo: Demo, end: str) -> None:
    demo.wait_for_the_guide()
    family, folder = demo.family(), demo.folder
    assert len(family) >= 6  # the stage, the hub, its proxy, the api, the bastion, alice's server
    if end == "the stage is killed":
        os.kill(demo.stage(), signal.SIGKILL)
    else:
        by = {"Ctrl-C": signal.SIGINT, "closed terminal": signal.SIGHUP, "the keeper is killed": signal.SIGKILL}
        demo.process.send_signal(by[end])
    status = demo.process.wait(LIMIT)
    assert end != "Ctrl-C" or status == 0
    deadline = time.monotonic() + LIMIT
    while still_there(family) or folder.exists():
        assert time.monotonic() < deadline, f"left: {still_there(family)} {list(folder.parent.glob(folder.name))}"
        time.sleep(0.05)


def test_ports_that_are_taken_are_left_alone() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = choose_ports((taken, taken, taken, taken, taken, taken))
    chosen = {ports.hub, ports.hub_internal, ports.proxy_api, ports.api, ports.api_internal, ports.bastion}
    assert len(chosen) == 6
    assert taken not in chosen
