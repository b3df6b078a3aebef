"""From a proof to an admission: certificate first, else the pods' own public keys.

What a stranger can learn here: nothing. A certificate that our CA did not sign and a key that no pod lists get the
same silence. A genuine credential that opens nothing (stopped, revoked, expired) is refused with its sentence, but
only after its holder has signed, and only then does anything leave a trace. While it is not known which servers run,
every plain key is asked for its signature and then told so, whether a pod lists it or not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from bastion.admission import Admission, DoorRules, admit_certificate, admit_key, claimed_twice, may_jump, still_valid
from bastion.authority import RawKeys
from bastion.directory.table import Directory, Pod
from bastion.pubkeys import Listing
from ca.certificate import is_certificate
from ca.errors import MalformedKey, Reason, Refusal
from ca.keys import PublicKey, parse_key_blob
from ca.limits import RESTORABLE_BY_OWNER
from ca.names import Server
from ca.revocation import Revocations
from ca.trust import TrustedKeys, examine, genuine

_UNINFORMED = Refusal(
    Reason.UNAVAILABLE,
    "The bastion has not heard for too long which servers run, and lets nobody new in. Try again in a minute.",
)


class Knowledge(Protocol):
    """What the api last said of trust, and how long ago."""

    @property
    def trust(self) -> TrustedKeys:
        """The CA's public keys."""
        ...

    @property
    def revocations(self) -> Revocations:
        """What no longer counts."""
        ...

    @property
    def raw_keys(self) -> RawKeys:
        """What the site lets raw keys do."""
        ...

    def fresh(self, now: float) -> bool:
        """Whether that is young enough to let anybody new in. `now` is monotonic seconds."""
        ...


class PodKeys(Protocol):
    """The tiered cache of the pods' public keys."""

    async def lookup(self, key: PublicKey, server: Server | None) -> tuple[Listing, ...]:
        """The pods that list `key`: that of `server`, or any for None."""
        ...


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Judges proofs. `wall` gives seconds since the epoch, `clock` monotonic seconds."""

    knowledge: Knowledge
    directory: Directory
    keys: PodKeys
    rules: DoorRules
    max_age: float
    wall: Callable[[], float]
    clock: Callable[[], float]

    async def offer(self, login: str, blob: bytes, *, told: bool = False) -> bool:
        """Whether a signature by this key or certificate would be welcome. Leaves no trace.

        `told`: the client has read already why a credential of its own does not count now."""
        if is_certificate(blob):
            return genuine(blob, self.knowledge.trust.user) is not None
        if self.informed():
            return self._outage(blob, told) is not None
        return await self._admit_key(login, blob) is not None

    async def judge(
        self, login: str, blob: bytes, peer: str, *, held: bool = False, told: bool = False
    ) -> Admission | Refusal | None:
        """Whether the proven holder of `blob` may enter as `login`. None: a stranger, who is told nothing.

        `held`: the api gave it for this very connection, which waited for a browser. `told`: as in `offer`."""
        judged: Admission | Refusal | None
        if is_certificate(blob):
            judged = self._admit_certificate(login, blob, peer, held)
        elif self.informed():
            judged = self._outage(blob, told)
        else:
            judged = await self._admit_key(login, blob)
        if judged is None:
            return None
        # Said before any other reason: what is not known now must not be called stopped.
        return self.informed() or judged

    def informed(self) -> Refusal | None:
        """Whether what is known is young enough to begin anything on: who is in stays in meanwhile."""
        now = self.clock()
        fresh = self.knowledge.fresh(now) and self.directory.fresh(now, self.max_age)
        return None if fresh else _UNINFORMED

    async def lists(self, pod: Pod, key: PublicKey) -> bool:
        """Whether the running pod lists the key."""
        return any(one.pod.identity == pod.identity for one in await self.keys.lookup(key, pod.server))

    def may_jump_into(self, pod: Pod, admission: Admission) -> Refusal | None:
        """Whether jump mode is open to somebody in this pod: with a raw key the groups of its owner have a word."""
        if admission.certified:
            return may_jump(admission)
        theirs = self.knowledge.raw_keys.of(pod.server.owner)
        return may_jump(replace(admission, capabilities=admission.capabilities & theirs))

    def still_valid(self, admission: Admission) -> Refusal | None:
        """Whether somebody who was let in may stay."""
        return still_valid(admission, self.knowledge.revocations, self.directory)

    def may_enter(self, admission: Admission) -> Refusal | None:
        """The same in the step that lets somebody in, who needs more than whoever is in."""
        if refusal := self.still_valid(admission):
            return refusal
        return claimed_twice(admission.target.server, self.directory) if admission.target is not None else None

    def expired(self, admission: Admission) -> Refusal | None:
        """Whether the credential has ended, after which nothing new is opened."""
        if admission.expires_at is None or self.wall() < admission.expires_at:
            return None
        return Refusal(Reason.EXPIRED, "Your certificate has expired. Log in again for a new one.")

    def _admit_certificate(self, login: str, blob: bytes, peer: str, held: bool) -> Admission | Refusal | None:
        known = self.knowledge
        presented = examine(blob, known.trust.user, known.revocations, self.wall(), peer, held=held)
        if presented is None or isinstance(presented, Refusal):
            return presented
        return admit_certificate(login, presented, blob, self.directory, self.rules)

    def _outage(self, blob: bytes, told: bool) -> Refusal | None:
        """What each plain key is told while nobody knows which count: once a connection, since clients show several."""
        return _UNINFORMED if not told and self._reads(blob) is not None else None

    def _reads(self, blob: bytes) -> PublicKey | None:
        """The plain key, where such keys count at all."""
        if not self.rules.raw_keys:
            return None
        try:
            return parse_key_blob(blob)
        except MalformedKey:
            return None

    async def _admit_key(self, login: str, blob: bytes) -> Admission | Refusal | None:
        key = self._reads(blob)
        if key is None:
            return None
        jumps = login in self.rules.jump_names
        server = None
        if not jumps:
            found = self.directory.find_login(login)
            if not isinstance(found, Pod):
                return None
            server = found.server
        listings = await self.keys.lookup(key, server)
        if not jumps:
            owner = None if server is None else server.owner
            return admit_key(login, key, listings, self.directory, self._key_rules(owner))
        # Jump mode goes to pods of several owners: those count into which it is open; else one says why it is closed.
        rules = [(one, self._key_rules(one.pod.server.owner)) for one in listings]
        into = [(one, each) for one, each in rules if each.raw_key_capabilities >= RESTORABLE_BY_OWNER] or rules[:1]
        door = into[0][1] if into else self._key_rules(None)
        admitted = admit_key(login, key, [one for one, _ in into], self.directory, door)
        return (may_jump(admitted) or admitted) if isinstance(admitted, Admission) else admitted

    def _key_rules(self, owner: str | None) -> DoorRules:
        """The door's rules for a raw key in a server of `owner`, which may do no more than the owner."""
        site = self.knowledge.raw_keys
        return replace(
            self.rules,
            raw_keys_direct=self.rules.raw_keys_direct and site.direct,
            raw_key_capabilities=self.rules.raw_key_capabilities
            & (site.capabilities if owner is None else site.of(owner)),
        )
