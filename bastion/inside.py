"""What the registry holds: connections, and each tunnel of a jump connection for itself."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from bastion.registry import About, Registration, Session
from bastion.relay.front import TunnelLink
from ca.errors import Refusal


class Inside(Session, Protocol):
    """A session that can be asked whether it may stay."""

    def still_valid(self) -> Refusal | None:
        """Why it may not stay, or None."""
        ...


class Passage:
    """One tunnel of a jump connection: a `Session` of its own, since its pod may stop while others go on.

    `part` ends the client's connection with a sentence.
    """

    def __init__(self, about: About, still_valid: Callable[[], Refusal | None], part: Callable[[str], None]) -> None:
        self.about = about
        self._still_valid = still_valid
        self._part = part
        self.cut: str | None = None
        """The sentence with which it was cut."""
        self.link: TunnelLink | None = None
        self.registration: Registration[Inside] | None = None
        self._over = asyncio.Event()

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes from and to the client."""
        return self.link.transferred if self.link is not None else (0, 0)

    def still_valid(self) -> Refusal | None:
        """Whether its pod still runs and nobody revoked the person's way to it."""
        return self._still_valid()

    def tell(self, sentence: str) -> None:
        """A tunnel carries another SSH connection: there is nowhere to show anything."""

    async def close(self, sentence: str) -> None:
        """Cut the tunnel; the client's connection stays for its other tunnels. Where it carries nothing else, the
        connection ends, since that can be said with a sentence."""
        if self.link is None:
            return
        self.cut = sentence if self.cut is None else self.cut
        if self.link.alone:
            self._part(sentence)
        else:
            self.link.close(sentence)
        await self._over.wait()

    def abort(self) -> None:
        """The same at once."""
        if self.link is not None:
            self.link.close("")

    @property
    def over(self) -> bool:
        """Whether the channel has ended."""
        return self._over.is_set()

    def ended(self) -> None:
        """The channel is over."""
        self._over.set()
        if self.registration is not None:
            self.registration.release()
