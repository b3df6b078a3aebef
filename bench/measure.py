"""Why: what a server costs is read where the kernel accounts for it: CPU and memory of a process and its children."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        for task in _read(Path(f"/proc/{one}/task")):
            try:
                left += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


def _read(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return ()


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, of a family: those who live, and those whose end their parent has seen."""
    total = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / _TICK


def waited_seconds(pid: int) -> float:
    """How long the threads of a process were ready to run and had no core, in all (the kernel's run delay).

    Raises `OSError` where the kernel does not count it.
    """
    tasks = _read(Path(f"/proc/{pid}/task"))
    return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9


def pss_bytes(pid: int) -> int:
    """Memory of a family, shared pages counted by their share (the kernel's PSS)."""
    total = 0
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024
