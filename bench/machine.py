"""Why: figures belong to a machine. What is said of it names no host, no user and no path."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


def describe(taken: float) -> str:
    """CPU, kernel and versions, as lines of Markdown. `taken`: share of CPU time that others on its host had."""
    lines = [
        f"- CPU: {_cpu_model()}, {os.cpu_count()} cores visible",
        f"- CPU time that its host gave to others meanwhile: {taken:.1%}",
        f"- memory: {_memory_gib():.0f} GiB",
        f"- kernel: {platform.system()} {platform.release()}",
        f"- OpenSSH (clients, pods and the jump host): {_openssh()}",
        f"- Python {platform.python_version()}, asyncssh {version('asyncssh')}, cryptography {version('cryptography')}",
    ]
    if rsync := _first_line(["rsync", "--version"]):
        lines.append(f"- {re.sub(r' +', ' ', rsync)}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time of the machine since it started, in the kernel's ticks."""

    stolen: int
    whole: int

    @classmethod
    def now(cls) -> CpuTime:
        """As the kernel counts it (proc(5), `/proc/stat`); guests' time is in that of users already."""
        fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return cls(fields[7], sum(fields))

    def stolen_since(self, earlier: CpuTime) -> float:
        """The share that the host gave to others."""
        return (self.stolen - earlier.stolen) / max(1, self.whole - earlier.whole)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model", "Hardware"}:
            return value.strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _openssh() -> str:
    return _first_line(["ssh", "-V"]).partition(",")[0]


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.partition("\n")[0]
