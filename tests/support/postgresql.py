"""Why: more than one replica means PostgreSQL, so the store's tests run on a real server where there is one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.hub import free_port
from tests.support.processes import die_with_parent

USER = "bastion"


def binaries() -> Path | None:
    """The folder with `initdb` and `postgres`, None where PostgreSQL's server is not installed."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    needed = ("initdb", "postgres", "pg_isready")
    return next((folder for folder in folders if all((folder / one).exists() for one in needed)), None)


def account() -> int | None:
    """PostgreSQL refuses to run as root: whom it runs as then. None: as we are."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


@contextmanager
def running_postgresql(folder: Path) -> Iterator[str]:
    """An empty server on loopback, whose log is in `folder`; gives the SQLAlchemy address of its database."""
    place = binaries()
    if place is None:
        raise FileNotFoundError("initdb")
    # Not in `folder`: pytest's own are closed to other accounts, anew by each run that starts.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as data:
        user = account()
        if user is not None:
            os.chown(data, user, -1)
        with _serving(place, Path(data), user, folder / "postgresql.log") as address:
            yield address


@contextmanager
def _serving(place: Path, data: Path, user: int | None, log: Path) -> Iterator[str]:
    port = free_port()
    with log.open("ab") as output:
        subprocess.run(
            [place / "initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"],
            check=True,
            stdout=output,
            stderr=output,
            user=user,
            cwd="/",
        )
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(data), "-F"]
        server = subprocess.Popen(
            [place / "postgres", "-D", data, *options],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            user=user,
            cwd="/",
            preexec_fn=die_with_parent(signal.SIGQUIT),  # noqa: PLW1509 - it only asks the kernel for a signal
        )
        try:
            ready: list[str | Path] = [
                place / "pg_isready",
                "-q",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-U",
                USER,
                "-t",
                "30",
            ]
            for _ in range(600):
                if subprocess.run(ready, check=False).returncode == 0:
                    break
                try:
                    server.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
                raise RuntimeError(log.read_text()[-2000:])
            yield f"postgresql+asyncpg://{USER}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
