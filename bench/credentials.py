"""Why: the bastion is measured as it runs, so its certificates are decided and signed by the code that does it.

Three CAs in a folder, user certificates by `ca.policy.decide`, hop certificates by `decide_hop`, host certificates for
everybody, as the api would give them; only JupyterHub is missing, and with it who somebody is.
"""

import time
from pathlib import Path
from typing import Any

import asyncssh

from ca.certificate import blob_of
from ca.claims import Claims, Running, TokenKind
from ca.errors import MalformedName, Refusal
from ca.keys import PublicKey, parse_key_blob, parse_public_key
from ca.names import Instance, parse_login
from ca.policy import CertificateRequest, HostGrant, Rules, decide, decide_hop
from ca.revocation import Revocations
from ca.signer import FileSigner
from ca.trust import examine

ZONE = "hub"
LIFETIME = 6 * 3600


class Credentials:
    """Who signs, and one key pair that all clients of the benchmark share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.signer = FileSigner(folder, None)
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self._client = parse_key_blob(self.client_key.public_data)
        self._serials = 0

    def user(self, name: str, *instances: Instance) -> str:
        """The line of a certificate of the user `name` that opens these runs of servers."""
        claims = Claims(user=name, kind=TokenKind.ACCESS, running=tuple(Running(one, ready=True) for one in instances))
        grant = decide(CertificateRequest(self._client), claims, Rules(), time.time(), self._next())
        if isinstance(grant, Refusal):
            raise RuntimeError(grant.sentence)  # noqa: TRY004 - a value of the policy, not a wrong type
        return self.signer.sign_user(grant).line

    def host(self, key: PublicKey, *names: str) -> tuple[str, int]:
        """The line of a host certificate, and when it ends."""
        now = int(time.time())
        signed = self.signer.sign_host(HostGrant("bench", key, self._next() + 1, names, now - 60, now + LIFETIME))
        return signed.line, signed.valid_before

    def answer_host(self, asked: Any) -> tuple[int, dict[str, Any]]:
        """`POST /internal/host-certificates`."""
        line, end = self.host(parse_public_key(asked["public_key"]), "bastion")
        return 201, {"certificate": line, "valid_before": end}

    def answer_hop(self, asked: Any) -> tuple[int, dict[str, Any]]:
        """`POST /internal/hop-certificates`, on a user's certificate."""
        now = time.time()
        key = parse_public_key(asked["public_key"])
        try:
            instance = Instance(parse_login(asked["login"]), int(asked["instance"]))
        except MalformedName as error:
            return 400, {"error": "bad_request", "error_description": str(error)}
        nothing = Revocations()
        shown = examine(blob_of(asked["certificate"]), self.signer.public.user, nothing, now, asked["peer"])
        if shown is None or isinstance(shown, Refusal):
            return 403, {"error": "not_permitted", "error_description": "The certificate is not good."}
        grant = decide_hop(shown, instance, key, now, self._next())
        if isinstance(grant, Refusal):
            return 403, {"error": grant.reason, "error_description": grant.sentence}
        signed = self.signer.sign_hop(grant)
        return 201, {"certificate": signed.line, "valid_before": signed.valid_before}

    def _next(self) -> int:
        self._serials = (self._serials + 1) % (1 << 20)
        return self._serials
