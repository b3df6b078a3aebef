"""One client connection, from the relay's questions to the rooms that answer them: translation only.

The relay moves bytes and asks; authentication judges proofs; admission says what may be reached; the registry keeps
whoever is in and cuts whoever must go. This room joins them for one connection and writes its audit lines.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from bastion.admission import Admission, How, Mode, may_jump
from bastion.auth import Authenticator
from bastion.directory.table import Directory, Pod
from bastion.registry import About, Registration, Registry
from bastion.relay.front import (
    ChannelOpen,
    ChannelRequest,
    ClientLink,
    GlobalRequest,
    PodLink,
    RelayRefused,
    ToPod,
    Tunnel,
    TunnelLink,
    Verdict,
)
from bastion.relay.meanings import Asked, DirectTcp, Opened, Requested, Session, Unknown
from bastion.relay.requests import needed_capability
from bastion.target import Reach
from ca import audit
from ca.certificate import Certificate, decode, is_certificate
from ca.errors import MalformedCertificate, MalformedName, Reason, Refusal
from ca.keys import fingerprint
from ca.names import Instance, Server, parse_host_name

SSH_PORT = 22
MAX_AUDITED_REFUSALS = 100
"""Refused actions of one connection that are written down; a client that goes on asking only fills the disk."""
MAX_SHOWN = 256
"""Characters of an unverified name that go into an audit line."""


@dataclass(frozen=True, slots=True)
class House:
    """What every connection shares. `note` writes an audit event; `wall` gives seconds since the epoch."""

    authenticator: Authenticator
    directory: Directory
    registry: "Registry[Door | Passage]"
    reach: Reach
    note: Callable[[audit.Event], None]
    wall: Callable[[], float]
    zone: Callable[[], str]
    cut_at_expiry: bool = False


class Door:
    """One client connection: a `Front` for the relay, and a `Session` for the registry."""

    def __init__(self, house: House, link: ClientLink) -> None:
        self._house = house
        self._link = link
        self.id = secrets.token_hex(8)
        self._peer = link.peer[0]
        self._proven: tuple[str, bytes, Admission] | None = None
        self._about: About | None = None
        self._registration: Registration[Door | Passage] | None = None
        self._turned_away: audit.ConnectionRefused | None = None
        self._refused = False
        self._refused_actions = 0
        self._why = "client"
        self._over = asyncio.Event()

    # --- who comes in

    async def offer(self, login: str, blob: bytes) -> bool:
        """Whether a signature would be welcome. Remembers the last stranger's key for the one line at the end."""
        welcome = await self._house.authenticator.offer(login, blob)
        if not welcome:
            self._turn_away(login, blob)
        return welcome

    async def prove(self, login: str, blob: bytes) -> Verdict:
        """Judge a proven key."""
        self._proven = None
        judged = await self._house.authenticator.judge(login, blob, self._peer)
        if judged is None:
            self._turn_away(login, blob)
            return Verdict(False)
        if isinstance(judged, Refusal):
            self._refuse_entry(login, blob, judged)
            return Verdict(False, judged.sentence)
        self._proven = (login, blob, judged)
        return Verdict(True)

    def authenticated(self, login: str, blob: bytes) -> None:
        """Take the connection in: admission is asked once more in the very step that registers it."""
        if self._proven is None or self._proven[:2] != (login, blob):
            self._link.close("The login could not be completed.")
            return
        admission = self._proven[2]
        self._about = self._describe(admission, admission.target, admission.mode)
        registered = self._house.registry.register(self, lambda: self._house.authenticator.still_valid(admission))
        if isinstance(registered, Refusal):
            self._refuse_entry(login, blob, registered)
            self._link.close(registered.sentence)
            return
        self._registration = registered
        self._house.note(self._opened(admission))
        if self._house.cut_at_expiry and admission.expires_at is not None:
            asyncio.get_running_loop().call_later(
                max(admission.expires_at - self._house.wall(), 0.0), self._expire, admission
            )

    def _expire(self, admission: Admission) -> None:
        if not self._over.is_set() and (refusal := self._house.authenticator.expired(admission)):
            self._why = refusal.sentence
            self._link.close(refusal.sentence)

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
        """A remote forward."""
        if self._admission().target is None:
            return self._noted(asked.name, _jump_only_carries())
        return self._noted(asked.name, self._permitted(asked.meaning, unknown=_unknown(asked.name)))

    def decide_pod_open(self, asked: ChannelOpen) -> Refusal | None:
        """What the client asked for before, now coming back from the pod."""
        del asked
        return None

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
        self._why = sentence
        self._link.close(sentence)
        await self._over.wait()

    def abort(self) -> None:
        """End without a word."""
        self._link.abort()

    # --- the end

    def closed(self, exc: Exception | None) -> None:
        """The connection is over."""
        del exc
        self._over.set()
        if self._registration is None:
            if self._turned_away is not None:
                self._house.note(self._turned_away)
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
            jump = self._jump_target(asked.meaning)
            if jump is not None:
                return self._tunnel(jump, asked.meaning.port, admission)
        if admission.target is None:
            if isinstance(asked.meaning, Session):
                return _jump_only_carries()
            return _wrong_target()
        pod = self._pod(admission)
        if isinstance(pod, Refusal):
            return pod
        return self._permitted(asked.meaning, unknown=_unknown(asked.name)) or ToPod()

    def _jump_target(self, meaning: DirectTcp) -> Server | None:
        """The server that a `direct-tcpip` open names, if it has one of the forms of jump mode."""
        host = meaning.host.rstrip(".")
        try:
            return parse_host_name(host, self._house.zone())
        except MalformedName:
            found = self._house.directory.by_name(host)
        if isinstance(found, Pod):
            return found.server
        return None

    def _tunnel(self, server: Server, port: int, admission: Admission) -> Tunnel | Refusal:
        """One answer for everything that is not the user's, so that nobody learns what else there is."""
        if refusal := may_jump(admission):
            return refusal
        pod = self._house.directory.find(server)
        if not isinstance(pod, Pod) or port not in {SSH_PORT, pod.ssh_port}:
            return _wrong_target()
        named = pod.instance in admission.instances
        if not named and admission.how is How.CERTIFICATE:
            if server in {one.server for one in admission.instances}:
                return Refusal(
                    Reason.SERVER_RESTARTED, f"Your server {server} was restarted: log in again for a new certificate."
                )
            return _wrong_target()
        passage = Passage(self._describe(admission, pod.instance, Mode.JUMP))
        return Tunnel(
            pod.address,
            pod.ssh_port,
            prepare=lambda link: self._prepare(passage, link, pod, admission),
            ended=passage.ended,
        )

    async def _prepare(self, passage: "Passage", link: TunnelLink, pod: Pod, admission: Admission) -> Refusal | None:
        """Before a tunnel is dialled: the pod lists the key (where that is the claim), is the one that enrolled, and
        still runs in the very step that registers the tunnel."""
        passage.link = link
        refusal = await self._listed(pod, admission) or await self._house.reach.verify(pod)
        if refusal is None:
            registered = self._house.registry.register(
                passage, lambda: self._house.authenticator.still_valid(admission) or self._left(pod)
            )
            if isinstance(registered, Registration):
                passage.registration = registered
                self._house.note(
                    audit.TunnelOpened(
                        peer=self._peer, session=self.id, identity=admission.identity, principal=pod.instance.principal
                    )
                )
                return None
            refusal = registered
        return self._noted("direct-tcpip", refusal)

    async def _listed(self, pod: Pod, admission: Admission) -> Refusal | None:
        """A raw key opens exactly the pods that list it; what was known at login may have been a part of them."""
        if admission.how is How.CERTIFICATE or pod.instance in admission.instances:
            return None
        if await self._house.authenticator.lists(pod, admission.key):
            return None
        return _wrong_target()

    def _left(self, pod: Pod) -> Refusal | None:
        return None if self._house.directory.find(pod.server) == pod else _wrong_target()

    def _pod(self, admission: Admission) -> Pod | Refusal:
        """The pod of a direct login, if the bastion can log in there."""
        target = admission.target
        pod = self._house.directory.find(target.server) if target is not None else None
        if target is None or not isinstance(pod, Pod) or pod.instance != target:
            return Refusal(Reason.SERVER_STOPPED, "Your server is not running any more.")
        if pod.unix_user is None or pod.host_key is None:
            return Refusal(
                Reason.JUMP_ONLY,
                f"This server takes connections in jump mode only. Type: ssh -J "
                f"{min(self._house.authenticator.rules.jump_names, default='jump')}@BASTION "
                f"USER@{target.server.host_name(self._house.zone())}",
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

    def _describe(self, admission: Admission, instance: Instance | None, mode: Mode) -> About:
        return About(
            identity=admission.identity,
            user=admission.identity if admission.how is How.CERTIFICATE else None,
            serial=admission.serial,
            login=admission.login,
            instance=instance,
            mode=str(mode),
            peer=self._peer,
            since=self._house.wall(),
        )

    def _opened(self, admission: Admission) -> audit.SessionOpened:
        return audit.SessionOpened(
            peer=self._peer,
            session=self.id,
            login=admission.login,
            identity=admission.identity,
            how=str(admission.how),
            mode=str(admission.mode),
            fingerprint=admission.key.fingerprint,
            serial=_text(admission.serial),
            principal=admission.target.principal if admission.target is not None else None,
            capabilities=tuple(sorted(admission.capabilities)),
        )

    def _refuse_entry(self, login: str, blob: bytes, refusal: Refusal) -> None:
        """One audit line for a proven credential that opens nothing."""
        self._turned_away, self._refused = None, True
        shown = certificate_of(blob)
        self._house.note(
            audit.ConnectionRefused(
                peer=self._peer,
                login=login[:MAX_SHOWN],
                identity=shown.key_id[:MAX_SHOWN] if shown else f"key:{fingerprint(blob)}",
                fingerprint=fingerprint(shown.key_blob if shown else blob),
                serial=_text(shown.serial) if shown else None,
                reason=str(refusal.reason),
            )
        )

    def _turn_away(self, login: str, blob: bytes) -> None:
        """Keep what the one line will say of somebody who never proves anything that counts here. Nothing of it is
        believed. A foreign certificate says more than the bare key that ssh offers after it."""
        if self._refused:
            return
        foreign = is_certificate(blob)
        if self._turned_away is not None and self._turned_away.reason == Reason.UNKNOWN_CA and not foreign:
            return
        self._turned_away = audit.ConnectionRefused(
            peer=self._peer,
            login=login[:MAX_SHOWN],
            identity=None,
            fingerprint=fingerprint(blob),
            serial=None,
            reason=str(Reason.UNKNOWN_CA if foreign else Reason.UNKNOWN_CREDENTIAL),
        )


class Passage:
    """One tunnel of a jump connection: a `Session` of its own, since its pod may stop while others go on."""

    def __init__(self, about: About) -> None:
        self.about = about
        self.link: TunnelLink | None = None
        self.registration: Registration[Door | Passage] | None = None
        self._over = asyncio.Event()

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes from and to the client."""
        return self.link.transferred if self.link is not None else (0, 0)

    def still_valid(self) -> Refusal | None:
        """A tunnel stands and falls with its pod, of which the registry hears, and with its connection."""
        return None

    def tell(self, sentence: str) -> None:
        """A tunnel carries another SSH connection: there is nowhere to show anything."""

    async def close(self, sentence: str) -> None:
        """Cut the tunnel; the client's connection stays for its other tunnels."""
        if self.link is not None:
            self.link.close(sentence)
            await self._over.wait()

    def abort(self) -> None:
        """The same at once."""
        if self.link is not None:
            self.link.close("")

    def ended(self) -> None:
        """The channel is over."""
        self._over.set()
        if self.registration is not None:
            self.registration.release()


def certificate_of(blob: bytes) -> Certificate | None:
    """The fields of a certificate blob, for the audit line of a credential that was proven; None for a key."""
    try:
        return decode(blob) if is_certificate(blob) else None
    except MalformedCertificate:
        return None


def _text(serial: int | None) -> str | None:
    return None if serial is None else str(serial)


def _unknown(name: str) -> Refusal:
    return Refusal(Reason.NOT_PERMITTED, f"The bastion does not know {name}.")


def _jump_only_carries() -> Refusal:
    return Refusal(
        Reason.WRONG_TARGET,
        "This login only carries connections: use it with ssh -J, or log in with your server's own name.",
    )


def _wrong_target() -> Refusal:
    return Refusal(Reason.WRONG_TARGET, "Your login does not open that destination.")
