"""What the api last said of trust, held for everybody who has to judge a credential.

Silence is not news: the last word stays, grows old, and after `max_age` lets nobody new in.
"""

from dataclasses import dataclass

from bastion.authority import NO_RAW_KEYS, RawKeys, Word
from ca.revocation import Revocations
from ca.trust import TrustedKeys

_NOTHING = TrustedKeys()
_UNTOLD = Revocations()


@dataclass(slots=True)
class Known:
    """The last `Word`, or none yet: then nothing is trusted and nobody gets in."""

    max_age: float
    word: Word | None = None

    @property
    def trust(self) -> TrustedKeys:
        """The CA's public keys; none before the first word."""
        return self.word.trust if self.word is not None else _NOTHING

    @property
    def revocations(self) -> Revocations:
        """What no longer counts."""
        return self.word.revocations if self.word is not None else _UNTOLD

    @property
    def raw_keys(self) -> RawKeys:
        """What raw keys may do; nothing before the first word."""
        return self.word.raw_keys if self.word is not None else NO_RAW_KEYS

    @property
    def zone(self) -> str:
        """The zone of host names; before the first word nothing can be in it."""
        return self.word.zone if self.word is not None else "invalid"

    def fresh(self, now: float) -> bool:
        """Whether the last word is at most `max_age` old. `now` is monotonic seconds."""
        return self.word is not None and now - self.word.heard_at <= self.max_age

    def hear(self, word: Word) -> bool:
        """Take a new word; whether its revocations differ from the last one's."""
        changed = self.word is None or self.word.revocations != word.revocations
        self.word = word
        return changed
