"""One client connection, from the relay's questions to the rooms that answer them: translation only.

The relay moves bytes and asks; authentication judges proofs; admission says what may be reached; the registry keeps
whoever is in and cuts whoever must go. This room joins them for one connection and writes its audit lines.
"""

import asyncio
import secrets

from bastion import traces
from bastion.admission import Admission, Mode, claimed_twice, stopped
from bastion.arrival import Arrival
from bastion.directory.table import Pod
from bastion.house import House
from bastion.inside import Inside
from bastion.registry import About, Registration
from bastion.relay.front import (
    ChannelOpen,
    ChannelRequest,
    ClientLink,
    GlobalRequest,
    PodLink,
    RelayRefused,
    ToPod,
    Tunnel,
)
from bastion.relay.meanings import Asked, DirectTcp, Opened, Requested, Session, Unknown
from bastion.relay.requests import needed_capability
from bastion.tunnels import Tunnels, wrong_target
from ca import audit
from ca.errors import Reason, Refusal
from ca.names import Instance

MAX_AUDITED_REFUSALS = 100
"""Refused actions of one connection that are written down; a client that goes on asking only fills the disk."""

LOOK_AT_EXPIRY = 60.0
"""Seconds between two looks at the clock where expiry cuts: a clock that was set makes a cut late by no more."""


class Door(Arrival):
    """One client connection: a `Front` for the relay, and a `Session` for the registry."""

    def __init__(self, house: House, link: ClientLink) -> None:
        super().__init__(house.authenticator, house.browser, house.note, link)
        self._house = house
        self.id = secrets.token_hex(8)
        self._about: About | None = None
        self._registration: Registration[Inside] | None = None
        self._refused_actions = 0
        self._tunnels = Tunnels(house, self.id, self._peer, self._describe, self._noted, self._cut, lambda: self._why)
        self._why = "client"
        self._expiry: asyncio.TimerHandle | None = None

    # --- who is in

    def authenticated(self, login: str, blob: bytes) -> None:
        """Take the connection in: admission is asked once more in the very step that registers it."""
        if self._over.is_set():  # gone while its key was looked at: nobody would end what is registered now
            return
        if self._proven is None or self._proven[:2] != (login, blob):
            self._link.close("The login could not be completed.")
            return
        admission = self._proven[2]
        self._about = self._describe(admission, admission.target, admission.mode, self.id)
        registered = self._house.registry.register(self, lambda: self._house.authenticator.may_enter(admission))
        if isinstance(registered, Refusal):
            self._refuse_entry(login, blob, registered.reason)
            self._link.close(registered.sentence)
            return
        self._registration = registered
        self._house.note(traces.opened(self.id, self._peer, admission))
        if self._house.cut_at_expiry and admission.expires_at is not None:
            self._expire_at(admission, admission.expires_at)

    def _expire_at(self, admission: Admission, expires_at: float) -> None:
        """The certificate's end is a time of the wall clock, which is set back and forward, and goes on while the
        machine sleeps, when timers stand still: so it is looked at again and again."""
        pause = min(max(expires_at - self._house.wall(), 0.0), LOOK_AT_EXPIRY)
        self._expiry = asyncio.get_running_loop().call_later(pause, self._expire, admission, expires_at)

    def _expire(self, admission: Admission, expires_at: float) -> None:
        refusal = self._house.authenticator.expired(admission)
        if refusal is None:
            self._expire_at(admission, expires_at)
            return
        self._cut(refusal.sentence)

    def _cut(self, sentence: str) -> None:
        """Say why, and end. What comes first counts: it is what the person reads."""
        if self._why == "client":
            self._why = sentence
        self._link.close(sentence)

    # --- what they may do

    def decide_open(self, asked: ChannelOpen) -> ToPod | Tunnel | Refusal:
        """A session or a forward: to the pod of the login name, or through a tunnel to an admitted pod's SSH port."""
        decided = self._decide_open(asked)
        if isinstance(decided, Refusal):
            self._noted(asked.name, decided)
        return decided

    def decide_request(self, asked: ChannelRequest) -> Refusal | None:
        """A request on a channel that leads to the pod."""
        return self._noted(asked.name, self._permitted(asked.meaning, unknown=None))

    def decide_global(self, asked: GlobalRequest) -> Refusal | None:
        """A remote forward, or its end. After the credential's expiry only the end."""
        admission = self._admission()
        if admission.target is None:
            return self._noted(asked.name, _jump_only_carries())
        refusal = self._permitted(asked.meaning, unknown=_unknown(asked.name))
        if refusal is None and needed_capability(asked.meaning) is not None:
            refusal = self._house.authenticator.expired(admission)
        return self._noted(asked.name, refusal)

    def decide_pod_open(self, asked: ChannelOpen) -> Refusal | None:
        """What the client asked for before, now coming back from the pod: a new channel, so not after the expiry."""
        return self._noted(asked.name, self._house.authenticator.expired(self._admission()))

    async def upstream(self) -> PodLink:
        """Log in to the pod."""
        admission = self._admission()
        pod = self._pod(admission)
        if isinstance(pod, Refusal):
            raise RelayRefused(pod.sentence)
        return await self._house.reach.connect(self._link, pod, admission)

    # --- what the registry asks

    @property
    def about(self) -> About:
        """Who this is and where it goes."""
        if self._about is None:
            raise RuntimeError("a connection is described only once it has authenticated")
        return self._about

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes from and to the client."""
        return self._link.transferred

    def still_valid(self) -> Refusal | None:
        """Whether this person may stay."""
        return self._house.authenticator.still_valid(self._admission())

    def tell(self, sentence: str) -> None:
        """Show a sentence on the open sessions; they go on."""
        self._link.tell(sentence)

    async def close(self, sentence: str) -> None:
        """Say the sentence and end."""
        self._cut(sentence)
        await self._over.wait()

    def abort(self) -> None:
        """End without a word."""
        self._link.abort()

    # --- the end

    def pod_lost(self) -> None:
        """The pod's side ended it; the relay says so to the person."""
        if self._why == "client":
            self._why = "pod"

    def closed(self, exc: Exception | None) -> None:
        """The connection is over."""
        del exc
        self.gone(inside=self._registration is not None)
        if self._expiry is not None:
            self._expiry.cancel()  # else it would keep this connection in memory for hours
        if self._registration is None:
            return
        self._registration.release()
        received, sent = self._link.transferred
        self._house.note(
            audit.SessionClosed(
                peer=self._peer,
                session=self.id,
                identity=self.about.identity,
                why=self._why,
                seconds=round(self._house.wall() - self.about.since, 3),
                bytes_in=received,
                bytes_out=sent,
            )
        )

    # --- inside

    def _admission(self) -> Admission:
        if self._proven is None or self._registration is None:
            raise RuntimeError("nothing is decided before authentication")
        return self._proven[2]

    def _decide_open(self, asked: ChannelOpen) -> ToPod | Tunnel | Refusal:
        admission = self._admission()
        if refusal := self._house.authenticator.expired(admission):
            return refusal
        if isinstance(asked.meaning, DirectTcp):
            jump = self._tunnels.target(asked.meaning, admission)
            if jump is not None:
                return self._tunnels.open(jump, asked.meaning.port, admission)
        if admission.target is None:
            if isinstance(asked.meaning, Session):
                return _jump_only_carries()
            return wrong_target()
        pod = self._pod(admission)
        if isinstance(pod, Refusal):
            return pod
        return self._permitted(asked.meaning, unknown=_unknown(asked.name)) or ToPod()

    def _pod(self, admission: Admission) -> Pod | Refusal:
        """The pod of a direct login, if the bastion can log in there."""
        target = admission.target
        if target is None:
            return wrong_target()
        if refusal := claimed_twice(target.server, self._house.directory):
            return refusal
        pod = self._house.directory.find(target.server)
        if not isinstance(pod, Pod) or pod.instance != target:
            return stopped(target.server)
        if pod.unix_user is None:
            return Refusal(
                Reason.JUMP_ONLY,
                f"This server takes connections in jump mode only. Type: {self._house.reach.jump_line(pod)}",
            )
        return pod

    def _permitted(self, meaning: Opened | Requested | Asked, *, unknown: Refusal | None) -> Refusal | None:
        needed = needed_capability(meaning)
        if isinstance(needed, Unknown):
            return unknown
        if needed is None or needed in self._admission().capabilities:
            return None
        return Refusal(
            Reason.NOT_PERMITTED, f"{needed} is not permitted to you here. Ask the administrator of this hub."
        )

    def _noted(self, action: str, refusal: Refusal | None) -> Refusal | None:
        """One audit line for a refused action, up to a bound per connection."""
        if refusal is None:
            return None
        self._refused_actions += 1
        if self._refused_actions <= MAX_AUDITED_REFUSALS:
            self._house.note(
                audit.ActionRefused(
                    peer=self._peer,
                    session=self.id,
                    identity=self._admission().identity,
                    action=action,
                    reason=str(refusal.reason),
                )
            )
        return refusal

    def _describe(self, admission: Admission, instance: Instance | None, mode: Mode, name: str) -> About:
        return About(
            identity=admission.identity,
            user=admission.identity if admission.certified else None,
            serial=admission.serial,
            login=admission.login,
            instance=instance,
            mode=str(mode),
            peer=self._peer,
            since=self._house.wall(),
            how=str(admission.how),
            name=name,
        )


def _unknown(name: str) -> Refusal:
    return Refusal(Reason.NOT_PERMITTED, f"The bastion does not know {name}.")


def _jump_only_carries() -> Refusal:
    return Refusal(
        Reason.WRONG_TARGET,
        "This login only carries connections: use it with ssh -J, or log in with your server's own name.",
    )
