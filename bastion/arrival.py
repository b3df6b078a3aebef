"""Who comes in: one connection from its first key, or its first word with a browser, to a proven admission.

What is here judges nothing and lets nobody in: authentication judges, and the door registers. It keeps the two ways
apart, and sees to it that somebody who does not get in leaves one audit line and no more.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from bastion import traces
from bastion.admission import Admission, How
from bastion.auth import Authenticator
from bastion.doorbell import Doorbell
from bastion.interactive import BrowserLogins
from bastion.relay.front import ClientLink, Verdict
from ca import audit
from ca.certificate import decode, is_certificate
from ca.errors import Reason, Refusal
from ca.revocation import issued_ms

SETTLE_SECONDS = 5.0
"""How long the news of a server that has just started may take to come here. So long after it was made, a certificate
may know of a start that was not heard of here: a script asks for one and calls ssh in the same second."""

_LOOK_AGAIN_SECONDS = 0.25
_MAY_SETTLE = frozenset({Reason.SERVER_STOPPED, Reason.UNAVAILABLE})


class Arrival:
    """The part of a `Front` that the relay asks while somebody authenticates. `note` writes an audit event."""

    def __init__(
        self,
        authenticator: Authenticator,
        browser: BrowserLogins,
        note: Callable[[audit.Event], None],
        link: ClientLink,
    ) -> None:
        self._authenticator = authenticator
        self._note = note
        self._link = link
        self._peer = link.peer[0]
        self._bell = Doorbell(browser, self._peer)
        self._proven: tuple[str, bytes, Admission] | None = None
        self._turned_away: audit.ConnectionRefused | None = None
        self._refused = False
        self._refused_interactive = False
        self._over = asyncio.Event()

    async def offer(self, login: str, blob: bytes) -> bool:
        """Whether a signature would be welcome. Remembers the last stranger's key for the one line at the end."""
        welcome = await self._authenticator.offer(login, blob, told=self._refused)
        if not welcome:
            self._turn_away(login, blob)
        return welcome

    async def prove(self, login: str, blob: bytes) -> Verdict:
        """Judge a proven key."""
        self._proven = None
        judged = await self._judge_settled(login, blob, held=False)
        if judged is None:
            self._turn_away(login, blob)
            return Verdict(False)
        if isinstance(judged, Refusal):
            self._refuse_entry(login, blob, judged.reason)
            return Verdict(False, judged.sentence)
        self._proven = (login, blob, judged)
        return Verdict(True)

    def interactive(self, login: str) -> bool:
        """Whether somebody without a key may log in with a browser. Not for whoever has proven a credential that is
        genuine and opens nothing: that was told why, and a script that holds it must end and not wait for anybody."""
        return self._bell.offered_to(login) and not self._refused

    async def invite(self, login: str) -> str | Refusal:
        """Begin a login with a browser."""
        text = await self._bell.ring(login)
        if isinstance(text, Refusal):
            self._refuse_interactive(login, text.reason)
        return text

    async def invited(self, login: str) -> bytes | str | Refusal:
        """Wait for the browser, and judge the certificate that it brings exactly as one that was shown and proven."""
        outcome = await self._bell.outcome()
        if isinstance(outcome, str):
            return outcome
        if isinstance(outcome, Refusal):
            self._refuse_interactive(login, outcome.reason)
            return outcome
        judged = await self._judge_settled(login, outcome, held=True) or _not_known_yet()
        if isinstance(judged, Refusal):
            self._refuse_interactive(login, judged.reason, outcome)
            return judged
        self._proven = (login, outcome, replace(judged, how=How.INTERACTIVE))
        return outcome

    async def _judge_settled(self, login: str, blob: bytes, *, held: bool) -> Admission | Refusal | None:
        """Judge, and where a certificate is newer than what is known here may be, give its server a moment to run."""
        loop = asyncio.get_running_loop()
        end: float | None = None
        while True:
            judged = await self._authenticator.judge(login, blob, self._peer, held=held, told=self._refused)
            if not isinstance(judged, Refusal) or judged.reason not in _MAY_SETTLE or not is_certificate(blob):
                return judged
            if end is None:
                end = loop.time() + self._settles_in(blob)
            if loop.time() >= end:
                return judged
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def _settles_in(self, blob: bytes) -> float:
        """Seconds until a genuine certificate is no longer newer than what is known here may be."""
        age = self._authenticator.wall() - issued_ms(decode(blob).serial) / 1000
        return min(max(SETTLE_SECONDS - age, 0.0), SETTLE_SECONDS)

    @property
    def waits_seconds(self) -> float:
        """How long a login with a browser may be waited for, from its beginning."""
        return self._bell.seconds

    def turn_down(self, login: str, refusal: Refusal) -> Refusal:
        """There is no room to wait for a browser."""
        self._bell.silence()
        self._refuse_interactive(login, refusal.reason)
        return refusal

    def end_waiting(self, reason: Reason, sentence: str) -> None:
        """Whoever waits for a browser has waited long enough, or has to make room."""
        if self._bell.waits:
            self._bell.leave()
            self._refuse_interactive(self._bell.login, reason)
            self._link.close(sentence)

    def gone(self, *, inside: bool) -> None:
        """The connection is over; `inside`: it had been let in, and leaves no line here."""
        if self._bell.waits:
            self._bell.leave()
            self._refuse_interactive(self._bell.login, Reason.ABANDONED)
        self._over.set()
        if not inside and self._turned_away is not None:
            self._note(self._turned_away)

    def _refuse_entry(self, login: str, blob: bytes, reason: Reason) -> None:
        """One audit line for a proven credential that opens nothing."""
        self._turned_away, self._refused = None, True
        self._note(traces.refused(self._peer, login, blob, reason))

    def _refuse_interactive(self, login: str, reason: Reason, blob: bytes | None = None) -> None:
        """One audit line for a login with a browser that came to nothing."""
        if not self._over.is_set() and not self._refused_interactive:
            self._refused_interactive = True
            self._turned_away, self._refused = None, True
            self._note(traces.interactive_refused(self._peer, login, reason, blob))

    def _turn_away(self, login: str, blob: bytes) -> None:
        """Keep what the one line will say of somebody who never proves anything that counts here. A foreign
        certificate says more than the bare key that ssh offers after it."""
        kept = self._turned_away
        if not self._refused and (kept is None or kept.reason != Reason.UNKNOWN_CA or is_certificate(blob)):
            self._turned_away = traces.stranger(self._peer, login, blob)


def _not_known_yet() -> Refusal:
    """The api signs with a key that this bastion was not told of: a rotation that it has not heard of."""
    return Refusal(
        Reason.UNKNOWN_CA, "The certificate for your login cannot be checked here yet. Type your ssh command again."
    )
