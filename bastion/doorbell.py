"""One connection that waits for a browser: what it reads, what it waits for, and what becomes of it.

It holds no policy. The certificate that a browser login brings is judged where every certificate is; here it is only
waited for, once a connection.
"""

from bastion.interactive import BrowserLogins, News, Waiting
from bastion.relay.sentences import NAME, printable
from ca.errors import Reason, Refusal

MOST_SHOWN = 64
"""Characters of a login name that are repeated to whoever typed it."""

MOST_NEWS = 120
"""Characters of what is said of a server that starts."""

_ONCE = Refusal(Reason.NOT_PERMITTED, "One login with a browser for each connection. Type your ssh command again.")


class Doorbell:
    """Rings for one connection, at most once. `peer` is the client's address."""

    def __init__(self, logins: BrowserLogins, peer: str) -> None:
        self._logins = logins
        self._peer = peer
        self._rung = False
        self._waiting: Waiting | None = None
        self.login = ""
        """For which login name it was rung."""

    def offered_to(self, login: str) -> bool:
        """Whether it may be rung by this name."""
        return self._logins.offered_to(login) and not self._rung

    @property
    def waits(self) -> bool:
        """Whether somebody was told an address, and it is not known yet what became of it."""
        return self._waiting is not None

    @property
    def seconds(self) -> float:
        """How long it may be waited for, from the ring on."""
        return self._waiting.seconds if self._waiting is not None else 0.0

    def silence(self) -> None:
        """It may not be rung any more."""
        self._rung = True

    async def ring(self, login: str) -> str | Refusal:
        """Begin a login: the text that the person has to read."""
        if self._rung:
            return _ONCE
        self._rung, self.login = True, login
        begun = await self._logins.begin(login, self._peer)
        if isinstance(begun, Refusal):
            return begun
        self._waiting = begun
        return invitation(login, begun)

    async def outcome(self) -> bytes | str | Refusal:
        """Wait for the browser: a certificate, still to be judged, or why there is none. A text is news for the person
        to read on the way there; then wait again."""
        if self._waiting is None:
            return _ONCE
        waiting = self._waiting
        outcome = await self._logins.outcome(waiting)
        if self._waiting is not waiting:
            return _ONCE  # time was up meanwhile, or it had to make room
        if isinstance(outcome, News):
            return f"{NAME}: {_shown(outcome.text, MOST_NEWS)}\n"
        self._logins.leave(waiting, taken=True)
        self._waiting = None
        return outcome

    def leave(self) -> None:
        """Nobody waits any more: nobody may approve its login any more."""
        if self._waiting is not None:
            self._logins.leave(self._waiting, taken=False)
            self._waiting = None


def invitation(login: str, waiting: Waiting) -> str:
    """What somebody reads. Seven-bit and short: ssh shows other characters as numbers, and cuts after 1,000."""
    minutes = max(round(waiting.seconds / 60), 1)
    return (
        f"{NAME}: to log in as {_shown(login, MOST_SHOWN)}, open this address in a browser:\n\n"
        f"    {waiting.begun.page}\n\n"
        f"and approve the code {waiting.begun.code} there. This connection then goes on by itself.\n"
        f"It waits {minutes} minute{'' if minutes == 1 else 's'}; Ctrl-C gives up.\n"
        "Never approve a code that somebody sent you.\n"
    )


def _shown(text: str, most: int) -> str:
    """Somebody else's text for a terminal, in characters that ssh shows as they are."""
    return printable(text)[:most].encode("ascii", "replace").decode("ascii")
