"""The cache against a model that is too simple to be wrong, over any history of pods, keys, time and logins.

Two oracles. The model follows the table of the tiers to the letter and says what the answer is; what was asked a
moment before a rebuild is kept by it, and owed: asked if that login's key is not known, and else when it is 15 min
old. The history of what each pod listed when says what no answer may ever claim: a key that the pod has not listed for
15 minutes.
"""

import asyncio
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from bastion.directory.table import Pod, Started, Stopped
from bastion.pubkeys.cache import KeyCache
from bastion.pubkeys.pod import KeysUnavailable
from bastion.pubkeys.refresh import Counts
from ca.keys import AuthorizedKey
from ca.names import Instance, Server
from tests.support.clock import Clock
from tests.support.pods import LIMIT, Running, key, pod

OWNERS = ("alice", "bob", "carol")
FULL, PARTIAL = 900.0, 120.0

owners = st.sampled_from(OWNERS)
numbers = st.integers(0, 3)
key_sets = st.frozensets(numbers, max_size=3)


@dataclass
class Life:
    """One pod: what it lists since when, and how it behaves. `steps`: turns of the loop before it answers."""

    pod: Pod
    lists: list[tuple[float, frozenset[int]]]
    healthy: bool
    steps: int

    @property
    def keys(self) -> frozenset[int]:
        return self.lists[-1][1]

    def listed_since(self, number: int, moment: float) -> bool:
        """Whether the key was listed at `moment` or at any time after."""
        ends = [start for start, _ in self.lists[1:]] + [float("inf")]
        return any(number in keys and end > moment for (_, keys), end in zip(self.lists, ends, strict=True))


@dataclass
class Model:
    """The table of the tiers, to the letter."""

    full_at: float = float("-inf")
    updated_at: float = float("-inf")
    known: dict[Instance, tuple[float, frozenset[int]]] = field(default_factory=dict)
    owed: set[Instance] = field(default_factory=set)


class CacheMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.directory = Running()
        self.cache = KeyCache(self.directory, self.fetch, clock=self.clock)
        self.lives: dict[str, Life] = {}
        self.runs = 0
        self.model = Model()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.cache.aclose())
            self.runner.close()

    async def fetch(self, one: Pod) -> tuple[AuthorizedKey, ...]:
        life = self.lives[one.server.owner]
        keys = life.keys
        for _ in range(life.steps):
            await asyncio.sleep(0)
        if not life.healthy:
            raise KeysUnavailable("broken")
        return tuple(AuthorizedKey(key(number)) for number in keys)

    async def idle(self) -> None:
        async with asyncio.timeout(LIMIT):
            while len(self.cache._fetches):
                await asyncio.sleep(0)

    def hear(self, lives: list[Life]) -> None:
        for life in lives:
            self.model.owed.discard(life.pod.instance)
            self.model.known.pop(life.pod.instance, None)
            if life.healthy:
                self.model.known[life.pod.instance] = (self.clock.now, life.keys)

    @rule(owner=owners, keys=key_sets, healthy=st.booleans(), steps=st.integers(0, 3), ahead=st.booleans())
    def start(self, owner: str, keys: frozenset[int], healthy: bool, steps: int, ahead: bool) -> None:
        if owner in self.lives:
            return
        self.runs += 1
        life = Life(pod(owner, run=self.runs), [(self.clock.now, keys)], healthy, steps)
        self.lives[owner] = life
        self.directory.table.put(life.pod)

        async def heed() -> None:
            self.cache.heed(Started(life.pod))
            await self.idle()

        if ahead:
            self.runner.run(heed())
            self.hear([life])

    @rule(owner=owners, told=st.booleans())
    def stop(self, owner: str, told: bool) -> None:
        life = self.lives.pop(owner, None)
        if life is None:
            return
        self.directory.table.remove(life.pod)
        self.model.known.pop(life.pod.instance, None)
        self.model.owed.discard(life.pod.instance)
        if told:
            self.cache.heed(Stopped(life.pod, ""))

    @rule(owner=owners, keys=key_sets)
    def replace_keys(self, owner: str, keys: frozenset[int]) -> None:
        if owner in self.lives:
            self.lives[owner].lists.append((self.clock.now, keys))

    @rule(owner=owners, healthy=st.booleans())
    def break_or_heal(self, owner: str, healthy: bool) -> None:
        if owner in self.lives:
            self.lives[owner].healthy = healthy

    @rule(seconds=st.sampled_from([1, 59, 60, 119, 120, 300, 600, 899, 900]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def refresh_by_hand(self) -> None:
        async def refresh() -> Counts:
            async with asyncio.timeout(LIMIT):
                return await self.cache.refresh()

        counts = self.runner.run(refresh())
        running = list(self.lives.values())
        healthy = [life for life in running if life.healthy]
        assert counts == Counts(len(healthy), sum(len(life.keys) for life in healthy), len(running) - len(healthy))
        self.rebuild(youngest=0.0)

    def rebuild(self, youngest: float) -> None:
        """Everything is asked but what has answered within the time of a partial update: that is kept, and owed."""
        if self.lives:
            model, now = self.model, self.clock.now
            model.known = {one: said for one, said in model.known.items() if now - said[0] < youngest}
            model.owed = set(model.known)
            self.hear([life for life in self.lives.values() if life.pod.instance not in model.owed])
            model.full_at = model.updated_at = now

    def expected(self, number: int, owner: str | None) -> set[str]:
        return {
            one for one, life in self.lives.items() if owner in (None, one) and self.listed(number, life.pod.instance)
        }

    def listed(self, number: int, instance: Instance) -> bool:
        asked_at, keys = self.model.known.get(instance, (0.0, frozenset[int]()))
        return number in keys and self.clock.now - asked_at < FULL

    def follow_the_table(self, number: int, owner: str | None) -> None:
        if owner is not None and owner not in self.lives:
            return
        in_scope = [life for one, life in self.lives.items() if owner in (None, one)]
        if self.clock.now - self.model.full_at >= FULL:
            self.rebuild(youngest=PARTIAL)
            unknown = not any(self.listed(number, one) for one in self.model.owed if one in self.instances(in_scope))
            due = set(self.model.owed)
        else:
            unknown = not self.expected(number, owner)
            missing = [life for life in self.lives.values() if life.pod.instance not in self.model.known]
            due = {one for one in self.model.owed if self.clock.now - self.model.known[one][0] >= FULL}
            if unknown and missing and self.clock.now - self.model.updated_at >= PARTIAL:
                self.hear(missing)
                self.model.updated_at = self.clock.now
        if unknown:
            self.hear([life for life in in_scope if life.pod.instance in due])

    @staticmethod
    def instances(lives: list[Life]) -> set[Instance]:
        return {life.pod.instance for life in lives}

    @rule(number=numbers, owner=st.none() | owners, together=st.integers(1, 3))
    def connect(self, number: int, owner: str | None, together: int) -> None:
        server = None if owner is None else Server(owner)

        async def look_up() -> list[set[str]]:
            async with asyncio.timeout(LIMIT):
                found = await asyncio.gather(*(self.cache.lookup(key(number), server) for _ in range(together)))
            return [{listing.pod.server.owner for listing in one} for one in found]

        answers = self.runner.run(look_up())
        self.runner.run(self.idle())
        self.follow_the_table(number, owner)
        expected = self.expected(number, owner)
        for answer in answers:
            # A jump login is answered by the first pod that lists the key.
            assert answer <= expected
            assert bool(answer) == bool(expected)
            for one in answer:
                assert self.lives[one].listed_since(number, self.clock.now - FULL)


CacheMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTheCacheAgainstItsModel = CacheMachine.TestCase
