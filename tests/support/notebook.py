"""Why: tests use the pod side as people do: as a program, with OpenSSH's own clients on the other end."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.enrolment_api import HOST_NAME, PRINCIPAL, EnrolmentApi, make_key, sign

FOLDER = Path(__file__).parents[2] / "deploy/notebook/jupyterhub_bastion_notebook"
PYTHON = os.environ.get("NOTEBOOK_PYTHON", sys.executable)
"""The interpreter to run the pod side with: notebook images have older ones than we do."""
TOKEN = "jupyterhub-token-secret"
ACCOUNT = pwd.getpwuid(os.getuid())
_LIMIT = 150.0  # an account whose start-up files wait for a lock (pyenv: a minute) is slow, and no failure


class Notebook:
    """One notebook server with its pod side, started as a spawner would; the server is `sleep` unless told."""

    def __init__(self, folder: Path, api: EnrolmentApi, home: Path) -> None:
        self.folder = folder
        self.api = api
        self.home = home
        self.account = ACCOUNT.pw_name
        self.authorized_keys = folder / "authorized_keys"
        self.runtime = folder / "run"
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.environment: dict[str, str] = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.runtime),
            "JUPYTERHUB_USER": "alice",
            "JUPYTERHUB_SERVER_NAME": "gpu",
            "JUPYTERHUB_API_TOKEN": TOKEN,
            "SSH_BASTION_ENABLE": "1",
            "SSH_BASTION_API_URL": api.url,
            "SSH_BASTION_KEY_PORT": "0",
            "SSH_BASTION_LISTEN": "127.0.0.1",
            "SSH_BASTION_POLL": "0.2",
            "SSH_BASTION_AUTHORIZED_KEYS": str(self.authorized_keys),
        }
        self.prefix: tuple[str, ...] = ()
        self.program: tuple[str, ...] = (PYTHON, str(FOLDER))
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._closed = False
        self._certified = 0
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "known_hosts").write_text(api.known_hosts)

    # -- the server

    def start(self, *command: str, options: Sequence[str] = ()) -> None:
        """Start, with COMMAND `sleep infinity` when none is given."""
        self._lines.clear()
        self._closed = False
        self._process = subprocess.Popen(
            [*self.prefix, *self.program, *options, "--", *(command or ("sleep", "infinity"))],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def ready(self, count: int = 1) -> Notebook:
        """Wait until sshd has said for the `count`th time that it listens."""
        self.wait_for_line(r"sshd: Server listening", count)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return "\n".join(self._lines)

    @property
    def ssh_port(self) -> int:
        return int(self.wait_for_line(r"sshd: Server listening on \S+ port (\d+)").group(1))

    @property
    def key_port(self) -> int:
        return int(self.api.wait_for("POST", "/enrolments").body["key_port"])

    @property
    def storage(self) -> Path:
        (found,) = self.runtime.iterdir()
        return found

    def supervisor(self) -> int:
        """The supervisor's pid."""
        (pid,) = (pid for pid in children_of(self.pid) if FOLDER.name.encode() in command_line(pid))
        return pid

    def listener(self) -> int:
        """The pid of the sshd that listens."""
        (pid,) = (pid for pid in children_of(self.supervisor()) if b"sshd" in command_line(pid))
        return pid

    def wait_for_line(self, pattern: str, count: int = 1) -> re.Match[str]:
        """The `count`th line of the log that matches."""

        def found() -> list[re.Match[str]]:
            return [match for line in self._lines if (match := re.search(pattern, line))]

        with self._said:
            assert self._said.wait_for(lambda: len(found()) >= count, _LIMIT), (pattern, self._lines)
            return found()[count - 1]

    def end(self) -> int:
        """Kill the server if it still runs and wait until its log is closed: nobody of it is left. Its status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
        status = self._process.wait(_LIMIT)
        with self._said:
            assert self._said.wait_for(lambda: self._closed, _LIMIT), self._lines
        self._process = None
        return status

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                with self._said:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._said.notify_all()
        with self._said:
            self._closed = True
            self._said.notify_all()

    # -- clients

    def certificate(self, name: str = "user", principals: str = PRINCIPAL, ca: str = "user_ca") -> Path:
        """A new key with a certificate; the path of the private key."""
        key = make_key(self.folder / name)
        self._certified += 1
        sign(self.api.folder / ca, key.with_suffix(".pub"), principals, "-V", "-5m:+1h", "-z", str(self._certified))
        return key

    def raw_key(self, name: str = "raw", options: str = "") -> Path:
        """A new key that is appended to authorized_keys."""
        key = make_key(self.folder / name)
        with self.authorized_keys.open("a") as stream:
            stream.write(f"{options}{key.with_suffix('.pub').read_text()}")
        return key

    def options(self, key: Path) -> list[str]:
        """How each of OpenSSH's clients reaches this server with that key, host keys checked strictly."""
        return [
            *("-F", "none", "-i", str(key), "-o", f"Port={self.ssh_port}", "-o", f"User={self.account}"),
            *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
            *("-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "GlobalKnownHostsFile=none"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"HostKeyAlias={HOST_NAME}"),
        ]

    def ssh(
        self, key: Path, *words: str | bytes, stdin: bytes = b"", options: Iterable[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """`ssh` with a command, to its end."""
        command: list[str | bytes] = ["ssh", *self.options(key), *options, "127.0.0.1", *words]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=_LIMIT, check=False)

    @contextlib.contextmanager
    def session(self, key: Path, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A session that runs while the test does something else."""
        with subprocess.Popen(
            ["ssh", *self.options(key), "127.0.0.1", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def children_of(pid: int) -> list[int]:
    """The pids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> bytes:
    """A process's arguments; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Ends:
    """Hold on to processes now, to wait for their end later without mistaking a reused pid for them."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._descriptors = {os.pidfd_open(pid): pid for pid in pids}

    def wait(self, limit: float = _LIMIT) -> None:
        """Return when all have ended; fails after `limit` seconds."""
        poll = select.poll()
        for descriptor in self._descriptors:
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + limit
        while self._descriptors:
            ended = poll.poll(max(0, (deadline - time.monotonic()) * 1000))
            assert ended, f"still running: {list(self._descriptors.values())}"
            for descriptor, _ in ended:
                poll.unregister(descriptor)
                os.close(descriptor)
                del self._descriptors[descriptor]


def descendants(pid: int) -> list[int]:
    """Everything below a process."""
    found = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal one process."""
    os.kill(pid, number)


def texts(mapping: Mapping[bytes, bytes]) -> dict[str, str]:
    """Environment variables as Popen wants them."""
    return {os.fsdecode(name): os.fsdecode(value) for name, value in mapping.items()}
