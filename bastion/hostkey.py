"""The bastion's own host key and its certificate, kept over restarts.

The certificate comes from the api and is renewed long before it ends. It is kept on disk beside the key, so that a
bastion that starts while the api is down still shows clients what their one `@cert-authority` line asks for.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import asyncssh

from bastion.authority import Authority, AuthorityError
from bastion.files import replace_file
from ca.errors import KeyFileError
from ca.keyfiles import read_private
from ca.keys import PublicKey, parse_key_blob

RETRY_SECONDS = 10.0
_RENEW_AT = 2 / 3
_KEY = "ssh_host_ed25519_key"

_log = logging.getLogger(__name__)


class HostKey:
    """One ed25519 key pair and, as soon as the api gave one, its certificate."""

    def __init__(self, directory: Path) -> None:
        """Read the key, or make it. Raises `KeyFileError`."""
        self._path = directory / _KEY
        self._certificate_path = directory / f"{_KEY}-cert.pub"
        if not self._path.exists():
            replace_file(self._path, asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
        self.private = read_private(self._path, None)
        self.public: PublicKey = parse_key_blob(self.private.public_data)
        self.certificate: asyncssh.SSHCertificate | None = self._kept()

    async def keep_certified(
        self, authority: Authority, wall: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """For ever: get a certificate, wait until two thirds of its life are over, get the next one."""
        while True:
            try:
                issued = await authority.host_certificate(self.public)
                self._take(issued.certificate)
            except (AuthorityError, KeyFileError) as error:
                _log.warning("no host certificate from the api: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except OSError as error:
                _log.warning("the host certificate cannot be kept: %s", error)
            changed()
            await asyncio.sleep(max((issued.valid_before - wall()) * _RENEW_AT, RETRY_SECONDS))

    def _take(self, line: str) -> None:
        certificate = self._read(line.encode("utf-8"))
        if certificate is None:
            raise KeyFileError("the api's host certificate cannot be read, or is for another key")
        self.certificate = certificate
        replace_file(self._certificate_path, f"{line}\n".encode())

    def _kept(self) -> asyncssh.SSHCertificate | None:
        try:
            return self._read(self._certificate_path.read_bytes())
        except OSError:
            return None

    def _read(self, data: bytes) -> asyncssh.SSHCertificate | None:
        try:
            certificate = asyncssh.import_certificate(data)
        except (asyncssh.KeyImportError, ValueError):
            return None
        return certificate if certificate.key.public_data == self.public.blob else None
