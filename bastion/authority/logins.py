"""Logins that people approve in a browser, as the api keeps them: begin one, learn which are decided, fetch, give up.

The id of a login is what its certificate is handed out for. It travels in bodies only and is in no log and no text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bastion.authority.client import Authority
from bastion.authority.errors import AuthorityUnavailable
from ca.keys import PublicKey

MAX_IDS = 1000
"""Logins that one question may be about."""

_ID = re.compile(r"[A-Za-z0-9_-]{16,128}")
_CODE = re.compile(r"[A-Z0-9-]{4,16}")
_ADDRESS = re.compile(r"https?://[\x21-\x7e]{1,400}")
_MAX_SECONDS = 86400
_MAX_MESSAGE = 200


@dataclass(frozen=True, slots=True)
class BegunLogin:
    """What the api said: `page` is the address where `code` is approved, within `seconds`."""

    id: str = field(repr=False)
    code: str
    page: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """The certificate line of a login that was approved; None while it is undecided, or while a server starts that was
    asked for: `message` says how far it is. It is somebody else's text, of any characters."""

    certificate: str | None
    message: str = ""


class LoginDesk:
    """The api's counter for such logins. Everything raises `AuthorityRefused` and `AuthorityUnavailable`."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    async def begin(self, key: PublicKey, server: str | None, peer: str) -> BegunLogin:
        """A login for `key`, from the client's address `peer`. `server` is the login name that was typed; None for a
        jump login, which is for every server of whoever approves."""
        question = {"public_key": key.line, "server": server, "peer": peer}
        answer = await self._authority.post("/internal/logins", question)
        code, page, seconds = answer.get("user_code"), answer.get("verification_uri_complete"), answer.get("expires_in")
        if not (isinstance(code, str) and _CODE.fullmatch(code) and isinstance(page, str) and _ADDRESS.fullmatch(page)):
            raise AuthorityUnavailable("the api's login has no usable code or address")
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds <= _MAX_SECONDS:
            raise AuthorityUnavailable("the api does not say how long a login waits")
        return BegunLogin(_id(answer.get("id")), code, page, float(seconds))

    async def decided(self, ids: Sequence[str]) -> frozenset[str]:
        """Those of `ids`, at most `MAX_IDS`, that nobody can decide any more: approved, denied, over or unknown."""
        answer = await self._authority.post("/internal/logins/decided", {"ids": list(ids)})
        decided = answer.get("decided")
        if not isinstance(decided, list):
            raise AuthorityUnavailable("the api does not say which logins are decided")
        return frozenset(ids) & frozenset(one for one in decided if isinstance(one, str))

    async def certificate(self, login_id: str) -> Fetched:
        """The certificate of a login that was approved: once."""
        answer = await self._authority.post("/internal/logins/certificate", {"id": login_id})
        line = answer.get("certificate")
        if line is not None and not isinstance(line, str):
            raise AuthorityUnavailable("the api's answer holds no certificate")
        message = answer.get("message")
        return Fetched(line, message[:_MAX_MESSAGE] if isinstance(message, str) else "")

    async def give_up(self, login_id: str) -> None:
        """Nobody waits for it any more, so that nobody can approve it."""
        await self._authority.post("/internal/logins/give-up", {"id": login_id})


def _id(raw: object) -> str:
    if not isinstance(raw, str) or not _ID.fullmatch(raw):
        raise AuthorityUnavailable("the api's login has no usable id")
    return raw
