"""Why: each row of the table is run with several releases of OpenSSH and in both modes; a `Way` is one such choice.

Newer releases than the machine's own live in a cache folder (`deploy/dev/openssh10`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ca.names import Server
from tests.support.system import Person, unix_user

LIMIT = 90.0
"""Seconds until a client that does not end is a failure."""
SUITES = ("trixie", "testing")
"""Debian's suites with OpenSSH 10."""


class Mode(Enum):
    """The two ways through the bastion."""

    DIRECT = "direct"
    JUMP = "jump"


class Missing(Exception):
    """A client is not on this machine; the text is the reason."""


@dataclass(frozen=True)
class OpenSSH:
    """One release. `folder` holds its programs; None: those of the machine."""

    folder: Path | None = None

    @classmethod
    def of(cls, suite: str) -> OpenSSH:
        """A release of Debian's, or the machine's for "own". Raises Missing."""
        if suite == "own":
            return cls()
        folder = cache() / suite
        if (folder / "bin" / "ssh").exists():
            return cls(folder)
        with contextlib.suppress(OSError):
            raise Missing(f"OpenSSH of Debian {suite}: {(cache() / f'{suite}.why').read_text().strip()}")
        raise Missing(f"OpenSSH of Debian {suite} is not in {cache()}: run deploy/dev/openssh10")

    def program(self, name: str) -> str:
        return name if self.folder is None else str(self.folder / "bin" / name)

    @property
    def version(self) -> tuple[int, int]:
        said = subprocess.run([self.program("ssh"), "-V"], capture_output=True, check=True, text=True).stderr
        found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
        assert found, said
        return int(found[1]), int(found[2])


def cache() -> Path:
    """Where `deploy/dev/openssh10` puts releases, a folder per suite."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("OPENSSH10_ROOT") or home / "jupyterhub-bastion" / "openssh10")


def need(*programs: str) -> None:
    """Raises Missing for what is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed here")


@dataclass(frozen=True)
class Way:
    """A person, through the bastion, in one mode, with one release of OpenSSH."""

    person: Person
    mode: Mode
    openssh: OpenSSH
    short: Path
    """A folder with a short name, of this row alone."""
    server: str = ""
    """Which of the person's servers."""

    @property
    def host(self) -> str:
        return "127.0.0.1" if self.mode is Mode.DIRECT else f"{self._name}.hub"

    @property
    def login(self) -> str:
        return self._name if self.mode is Mode.DIRECT else unix_user()

    @property
    def _name(self) -> str:
        return Server(self.person.user, self.server).login

    @property
    def target(self) -> str:
        return f"{self.login}@{self.host}"

    @property
    def options(self) -> list[str]:
        """What ssh, scp and sftp alike need to get there; nothing of the machine's configuration."""
        chosen = self.person.options(port=self.mode is Mode.DIRECT)
        if self.mode is Mode.JUMP:
            inner = [self.openssh.program("ssh"), *self.person.options(), "-W", "%h:%p", "jump@127.0.0.1"]
            chosen += ["-o", f"ProxyCommand={' '.join(inner)}"]
        return chosen

    @property
    def remote_shell(self) -> str:
        """For programs that take a command line to run as ssh."""
        words = [self.openssh.program("ssh"), *self.options]
        return " ".join(f"'{word}'" if " " in word or "%" in word else word for word in words)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**self.person.environment(), **(more or {})}

    def command(self, program: str, *arguments: str | bytes) -> list[str | bytes]:
        """A client with its options. Arguments before `--` go before ours, since the first one given counts.

        `scp` and `sftp` start the ssh of their own release.
        """
        cut = arguments.index("--") if "--" in arguments else 0
        own = ["-S", self.openssh.program("ssh")] if program in {"scp", "sftp"} else []
        rest = arguments[cut + 1 :] if "--" in arguments else arguments
        return [self.openssh.program(program), *own, *arguments[:cut], *self.options, *rest]

    def ssh_command(self, *arguments: str | bytes) -> list[str | bytes]:
        """`ssh`: options come before `--`, the command after it; without `--` everything is the command."""
        cut = arguments.index("--") if "--" in arguments else 0
        rest = arguments[cut + 1 :] if "--" in arguments else arguments
        return self.command("ssh", *arguments[:cut], "--", self.target, *rest)

    def run(
        self,
        program: str,
        *arguments: str | bytes,
        data: bytes | None = b"",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """A client to its end. `data=None`: its input is /dev/null."""
        return self._end(self.command(program, *arguments), data, env)

    def _end(
        self, command: list[str | bytes], data: bytes | None, env: Mapping[str, str] | None
    ) -> subprocess.CompletedProcess[bytes]:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            command, env=self.environment(env), capture_output=True, timeout=LIMIT, check=False, **given
        )
        return done

    def ssh(
        self, *arguments: str | bytes, data: bytes | None = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """`ssh_command`, to its end."""
        return self._end(self.ssh_command(*arguments), data, env)

    def says(self, *arguments: str | bytes, data: bytes | None = b"", env: Mapping[str, str] | None = None) -> bytes:
        """What a command prints; it must succeed and print nothing on its standard error."""
        done = self.ssh(*arguments, data=data, env=env)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout

    @contextlib.contextmanager
    def session(
        self, *arguments: str, stderr: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """An ssh (`ssh_command`) that stays while the block runs. Its input and output are pipes without buffers."""
        with subprocess.Popen(
            self.ssh_command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=self.environment(env),
            bufsize=0,
        ) as client:
            try:
                yield client
            finally:
                client.kill()

    @contextlib.contextmanager
    def forwarding(self, *arguments: str) -> Iterator[None]:
        """`ssh -N` with these forwards, which are ready; it runs while the block does."""
        ready = (
            "-o",
            "PermitLocalCommand=yes",
            "-o",
            "LocalCommand=echo ready",
            "-o",
            "ExitOnForwardFailure=yes",
        )
        with self.session("-N", *ready, *arguments, "--") as client:
            assert client.stdout is not None
            assert client.stdout.read(6) == b"ready\n"
            yield

    @contextlib.contextmanager
    def background(self, *arguments: str) -> Iterator[list[str]]:
        """`ssh -f -N` as master; yields what makes others share its connection."""
        control = ["-S", str(self.short / "control")]
        with (self.short / "master.log").open("wb") as log:  # a pipe would stay open with the master
            started = subprocess.run(
                self.ssh_command("-f", "-N", "-M", *control, *arguments, "--"),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=LIMIT,
                check=False,
            )
        assert started.returncode == 0, (self.short / "master.log").read_text()
        try:
            yield control
        finally:
            ended = self.ssh(*control, "-O", "exit", "--")
            assert ended.returncode == 0, ended
