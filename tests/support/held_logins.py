"""Why: whether a bastion holds connections well needs no JupyterHub and no page, only somebody who decides.

`HeldLogins` is the part of the api's double that begins logins with a browser; a test is the browser.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ca.keys import PublicKey, parse_public_key
from ca.limits import ALL, Capabilities
from ca.names import Instance
from ca.policy import Grant
from ca.signer import FileSigner
from tests.support.internal_api import InternalApi

Answer = tuple[int, dict[str, Any]]


@dataclass
class Held:
    """One login. `answer` is what its certificate is asked for; None while nobody has decided."""

    id: str
    code: str
    key: PublicKey
    server: str | None
    peer: str
    answer: Answer | None = None
    fetched: int = 0


@dataclass
class HeldLogins:
    """The logins that a bastion began, in order."""

    api: InternalApi
    signer: FileSigner
    begun: list[Held] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    begin_with: Answer | None = None
    """What a bastion is answered instead, when it wants to begin one."""

    def __post_init__(self) -> None:
        self.api.change(interactive=True, version="with-browsers")
        self.api.answers |= {
            "/internal/logins": self._begin,
            "/internal/logins/decided": self._decided,
            "/internal/logins/certificate": self._certificate,
            "/internal/logins/give-up": self._give_up,
        }

    def approve(self, held: Held, by: str, *instances: Instance, **changes: Any) -> None:
        """Somebody at a browser gives this login a certificate for `instances`."""
        held.answer = (200, {"certificate": self.line(held.key, by, *instances, held=True, **changes)})

    def line(
        self,
        key: PublicKey,
        by: str,
        *instances: Instance,
        capabilities: Capabilities = ALL,
        source_address: str | None = None,
        lifetime: int = 3600,
        held: bool = False,
    ) -> str:
        now = int(time.time())
        serial = (int(time.time() * 1000) << 20) + 500_000 + len(self.begun)
        grant = Grant(
            by,
            key,
            serial,
            instances,
            capabilities,
            now - 60,
            now + lifetime,
            source_address,
            as_admin=False,
            held=held,
        )
        return self.signer.sign_user(grant).line

    def refuse(self, held: Held, code: str, sentence: str, status: int = 403) -> None:
        """Nobody gets a certificate for it."""
        held.answer = (status, {"error": code, "error_description": sentence})

    def deny(self, held: Held) -> None:
        self.refuse(held, "access_denied", "This login was denied in the browser.", 400)

    def has_begun(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.begun) >= count

    def _begin(self, body: Any) -> Answer:
        if self.begin_with is not None:
            return self.begin_with
        number = len(self.begun)
        held = Held(
            id=f"the-id-of-login-number-{number}",
            code=f"BCDF-{number:04d}",
            key=parse_public_key(body["public_key"]),
            server=body["server"],
            peer=body["peer"],
        )
        self.begun.append(held)
        page = "https://ssh.example.org/activate"
        return 200, {
            "id": held.id,
            "user_code": held.code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?code={held.code}",
            "expires_in": 600,
        }

    def _decided(self, body: Any) -> Answer:
        open_still = {one.id for one in self.begun if one.answer is None and one.id not in self.given_up}
        return 200, {"decided": [one for one in body["ids"] if one not in open_still]}

    def _certificate(self, body: Any) -> Answer:
        (held,) = [one for one in self.begun if one.id == body["id"]]
        held.fetched += 1
        return held.answer or (200, {"certificate": None})

    def _give_up(self, body: Any) -> Answer:
        self.given_up.append(body["id"])
        return 200, {}
