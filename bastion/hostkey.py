"""The bastion's own host key and its certificate, kept over restarts.

The certificate comes from the api and is renewed long before it ends. It is kept on disk beside the key, so that a
bastion that starts while the api is down still shows clients what their one `@cert-authority` line asks for. One that
has ended is shown to nobody.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncssh

from bastion.authority import Authority, AuthorityError, Pace
from bastion.files import replace_file
from ca.certificate import blob_of, decode
from ca.errors import KeyFileError, MalformedCertificate
from ca.keyfiles import read_private
from ca.keys import PublicKey, parse_key_blob

_RETRY = Pace()
"""After a failure: that of the state, which is asked for at the same time."""

_LEAST_SECONDS = 10.0
"""Between two certificates, however short their life is."""

_RENEW_AT = 2 / 3
_KEY = "ssh_host_ed25519_key"

_log = logging.getLogger(__name__)


class HostKey:
    """One ed25519 key pair and, as soon as the api gave one, its certificate."""

    def __init__(self, directory: Path, *, wall: Callable[[], float] = time.time) -> None:
        """Read the key, or make it. `wall` gives seconds since the epoch. Raises `KeyFileError`."""
        self._path = directory / _KEY
        self._certificate_path = directory / f"{_KEY}-cert.pub"
        self._wall = wall
        if not self._path.exists():
            replace_file(self._path, asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
        self.private = read_private(self._path, None)
        self.public: PublicKey = parse_key_blob(self.private.public_data)
        self.certificate: asyncssh.SSHCertificate | None = None
        self._ends = 0.0
        self._api_heard = asyncio.Event()
        self.certified = asyncio.Event()
        """Set while there is a certificate."""
        self._take_kept()

    async def keep_certified(self, authority: Authority, changed: Callable[[], None]) -> None:
        """For ever: get a certificate, wait until two thirds of its life are over, get the next one."""
        failures = 0
        while True:
            self._api_heard.clear()
            try:
                issued = await authority.host_certificate(self.public)
                self._take(issued.certificate)
            except (AuthorityError, KeyFileError) as error:
                failures += 1
                if failures == 1:
                    _log.warning("no host certificate from the api: %s", error)
                if self._drop_ended():
                    changed()
                await self._pause(failures)
                continue
            except OSError as error:
                _log.warning("the host certificate cannot be kept: %s", error)
            if failures:
                _log.info("the api gives host certificates again")
            failures = 0
            changed()
            await asyncio.sleep(max((issued.valid_before - self._wall()) * _RENEW_AT, _LEAST_SECONDS))

    def api_heard(self) -> None:
        """The api has spoken: whoever waits to ask it again need not wait longer."""
        self._api_heard.set()

    async def _pause(self, failures: int) -> None:
        """Before the api is asked again: until its next word, or until the certificate ends, if that is sooner."""
        pause = _RETRY.pause(failures)
        if self.certificate is not None:
            pause = min(pause, max(self._ends - self._wall(), _RETRY.first))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._api_heard.wait()

    def _take(self, line: str) -> None:
        if not self._show(line):
            raise KeyFileError("the api's host certificate cannot be read, or is for another key")
        replace_file(self._certificate_path, f"{line}\n".encode())

    def _take_kept(self) -> None:
        with suppress(OSError, UnicodeDecodeError):
            self._show(self._certificate_path.read_text("utf-8"))
        if self._drop_ended():
            _log.info("the host certificate that was kept has ended")

    def _show(self, line: str) -> bool:
        """Take a certificate if it is one, and for this key."""
        try:
            ends = decode(blob_of(line)).valid_before
            certificate = asyncssh.import_certificate(line)
        except (MalformedCertificate, asyncssh.KeyImportError, ValueError):
            return False
        if certificate.key.public_data != self.public.blob:
            return False
        self.certificate, self._ends = certificate, ends
        self.certified.set()
        return True

    def _drop_ended(self) -> bool:
        """No longer have a certificate that has ended; whether there was one."""
        if self.certificate is None or self._wall() < self._ends:
            return False
        self.certificate = None
        self.certified.clear()
        return True
