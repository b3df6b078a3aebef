"""Exists to keep the files that sshd reads whole: put there together, tried, and put there again when they are gone.

sshd reads most of them at each login, so a folder that somebody cleaned or filled keeps everybody out, while the
sessions that run need none of them. What the files hold is therefore kept in memory too, the host key above all: the
api accepts no other for this run of the server.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from pathlib import Path

from . import environment, ports, revoked, session, sshd
from .enrol import Enrolment
from .log import say
from .settings import Settings
from .storage import Storage


class Installation:
    """One server's sshd as files."""

    def __init__(self, storage: Storage, settings: Settings, account: sshd.Account) -> None:
        """Find what is needed and make the host key. Raises SshdError, OSError, TimeoutExpired."""
        self._storage = storage
        self._settings = settings
        self._account = account
        key = storage.path / "host_key"
        if storage.spare is not None:
            with contextlib.suppress(OSError):  # the pod's first container
                storage.write("host_key", storage.spare.read("host_key"))
        self.host_key = sshd.make_host_key(key)
        """The public line."""
        self._sshd = sshd.find(key)
        self._lasting = {"host_key": key.read_bytes(), "host_key.pub": f"{self.host_key}\n".encode()}
        self._keep_spare()
        self.revoked = revoked.RevokedKeys(storage, key)
        if sshd.is_locked(account):
            name = account.name
            say(f"sshd will let nobody in: the account {name} is locked. In the image, run: usermod -p '*' {name}")
        self._script = self._session_script()
        self._sftp_server = self._find_sftp_server()
        self._variables = self._carried()
        self._configuration = storage.path / "sshd_config"
        self.current: Enrolment | None = None
        """What sshd lets in by and shows; None before there was an enrolment."""
        self._since = 0.0

    def put(self, new: Enrolment, port: int) -> Enrolment:
        """Write an enrolment's files and have sshd read them. What is in force from now on.

        Raises OSError, SshdError, TimeoutExpired; then what was in force still is, as far as its files are there.
        """
        old = self.current
        if old is not None and _still_good(old, new, time.time() - self._since):
            # A new certificate costs a moment in which nobody can connect: not for an hourly look at the CA keys.
            new = replace(new, host_certificate=old.host_certificate, valid_before=old.valid_before)
        self._restore()
        write = self._storage.write
        certificate = write("host_key-cert.pub", f"{new.host_certificate}\n".encode())
        ca = write("trusted_ca", "".join(f"{line}\n" for line in (*new.user_ca, *new.hop_ca)).encode())
        principals = write("principals", f"{new.principal}\n".encode())
        plan = sshd.Plan(
            listen=ports.addresses(self._settings.listen),
            port=port,
            host_key=self._storage.path / "host_key",
            host_certificate=certificate,
            trusted_user_ca=ca,
            principals=principals,
            revoked_keys=self.revoked.path,
            authorized_keys=self._settings.authorized_keys,
            account=self._account,
            environment=self._variables,
            session_script=self._script,
            sftp_server=self._sftp_server,
        )
        fresh = write("sshd_config.fresh", sshd.configuration(plan, self._sshd))
        self._sshd.check(fresh)
        fresh.replace(self._configuration)
        if old is None or old.host_certificate != new.host_certificate:
            self._since = time.time()
        self.current = new
        return new

    @property
    def valid_before(self) -> float:
        """The end of the host certificate in force, in seconds since the epoch; 0 before there is one."""
        return self.current.valid_before if self.current is not None else 0.0

    def sshd_command(self) -> list[str]:
        """How to run sshd with what was put."""
        return self._sshd.command(self._configuration)

    def is_whole(self) -> bool:
        """Whether all that was put there is still there."""
        names = ("host_key-cert.pub", "trusted_ca", "principals", "sshd_config", "revoked_keys", *self._lasting)
        return self._storage.is_ours() and all((self._storage.path / name).exists() for name in names)

    def _restore(self) -> None:
        """Put back what does not come with an enrolment."""
        self._storage.make_again()
        for name, content in self._lasting.items():
            if not (self._storage.path / name).exists():
                self._storage.write(name, content)
        self.revoked.restore()
        self._keep_spare()

    def _keep_spare(self) -> None:
        """Leave the host key to a restarted container. Where that cannot be, nothing else is worse for it."""
        spare = self._storage.spare
        if spare is not None:
            with contextlib.suppress(OSError):
                spare.make_again()
                spare.write("host_key", self._lasting["host_key"])

    # -- before there is an enrolment

    def _session_script(self) -> Path | None:
        if os.path.realpath(self._settings.home) == os.path.realpath(self._account.home):
            return None
        text = session.script(self._settings.home, self._account.shell, self._settings.authorized_keys)
        self._lasting["session"] = text
        return self._storage.write("session", text)

    def _find_sftp_server(self) -> str:
        if self._script is None:
            return "internal-sftp"
        # internal-sftp is part of sshd: a forced command can only start a program.
        program = sshd.find_sftp_server()
        if program is None:
            say("There is no sftp-server program, so sftp and scp do not work here.")
        return program or "/bin/false"

    def _carried(self) -> bytes:
        """The `SetEnv` line."""
        carried = environment.carry(dict(os.environb), escapes=self._sshd.escapes)
        for why in sorted({why for _, why in carried.left_out}):
            names = sorted(name for name, reason in carried.left_out if reason == why)
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            say(f"Missing in SSH sessions, because {why}: {', '.join(names[:20])}{more}.")
        if self._script is None:
            return carried.line
        level = b'"SHLVL=' + session.FIRST_SHELL_LEVEL + b'"\n'
        return (carried.line.rstrip(b"\n") or b"SetEnv") + b" " + level


def _still_good(old: Enrolment, new: Enrolment, age: float) -> bool:
    """Whether the host certificate that sshd shows since `age` seconds can stay: same name, in its first half."""
    same = (old.host_name, old.epoch) == (new.host_name, new.epoch)
    left = old.valid_before - time.time()
    return same and left > 0 and age < left
