"""No session slips past a cut, and no client can hold up the end of another."""

import asyncio
from dataclasses import dataclass, field

import pytest

from bastion.registry import About, Limits, Registration, Registry
from ca.errors import Reason, Refusal
from ca.names import Instance, Server
from tests.support.pods import LIMIT

ALICE, GPU = Instance(Server("alice"), 1), Instance(Server("alice", "gpu"), 1)
GONE = Refusal(Reason.SERVER_STOPPED, "Your server alice stopped.")


@dataclass(eq=False)
class Session:
    """A session that writes down what is done to it. With `hold` its close hangs until it is set."""

    about: About
    hold: asyncio.Event | None = None
    error: Exception | None = None
    transferred: tuple[int, int] = (3, 4)
    said: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    aborted: bool = False

    def tell(self, sentence: str) -> None:
        self.told.append(sentence)

    async def close(self, sentence: str) -> None:
        self.said.append(sentence)
        if self.error is not None:
            raise self.error
        if self.hold is not None:
            await self.hold.wait()

    def abort(self) -> None:
        self.aborted = True


def session(
    identity: str = "alice", instance: Instance | None = ALICE, *, serial: int | None = 7, user: str | None = "alice"
) -> Session:
    return Session(About(identity, user, serial, "alice", instance, "direct", "127.0.0.1", 0.0))


def yes() -> Refusal | None:
    return None


def enter(registry: Registry[Session], one: Session) -> Registration[Session]:
    registration = registry.register(one, yes)
    assert isinstance(registration, Registration)
    return registration


@pytest.fixture
def registry() -> Registry[Session]:
    return Registry(Limits(total=5, per_user=3))


async def test_a_registered_session_is_listed_with_what_is_known_of_it(registry: Registry[Session]) -> None:
    one = session()
    enter(registry, one)
    (line,) = registry.sessions()
    assert (line.id, line.about, line.received, line.sent, line.ending) == (1, one.about, 3, 4, False)


async def test_admission_is_asked_again_in_the_step_that_registers(registry: Registry[Session]) -> None:
    assert registry.register(session(), lambda: GONE) is GONE
    assert len(registry) == 0


async def test_a_session_admitted_before_a_cut_and_registered_after_it_does_not_get_in(
    registry: Registry[Session],
) -> None:
    running = {ALICE}
    running.remove(ALICE)
    assert registry.cut(ALICE, GONE.sentence) == 0
    assert registry.register(session(), lambda: None if ALICE in running else GONE) is GONE


async def test_a_cut_server_ends_its_sessions_with_the_sentence_and_no_others(registry: Registry[Session]) -> None:
    mine, other = session(), session(instance=GPU)
    enter(registry, mine)
    enter(registry, other)
    assert registry.cut(Server("alice"), "stopped") == 1
    await registry.settled()
    assert mine.said == ["stopped"]
    assert other.said == []
    assert len(registry) == 1


async def test_a_cut_instance_leaves_the_sessions_of_the_next_run(registry: Registry[Session]) -> None:
    old, new = session(), session(instance=Instance(Server("alice"), 2))
    enter(registry, old)
    enter(registry, new)
    assert registry.cut(ALICE, "stopped") == 1
    await registry.settled()
    assert (old.said, new.said) == (["stopped"], [])


async def test_sessions_are_cut_by_serial_by_user_and_by_number(registry: Registry[Session]) -> None:
    first, second, third = session(serial=1), session(serial=2), session("key:SHA256:x", serial=None, user=None)
    for one in (first, second, third):
        enter(registry, one)
    assert registry.cut_serials(frozenset({2, 9}), "revoked") == 1
    assert registry.cut_user("alice", "out") == 1
    assert registry.cut_session(3, "by hand") == 1
    assert registry.cut_session(99, "by hand") == 0
    await registry.settled()
    assert (first.said, second.said, third.said) == (["out"], ["revoked"], ["by hand"])


async def test_a_revision_ends_those_it_refuses_each_with_its_own_sentence(registry: Registry[Session]) -> None:
    kept, refused = session(serial=1), session(serial=2)
    enter(registry, kept)
    enter(registry, refused)
    assert registry.revise(lambda one: GONE if one.about.serial == 2 else None) == 1
    await registry.settled()
    assert (kept.said, refused.said) == ([], [GONE.sentence])


async def test_a_session_is_ended_once_however_often_it_is_cut(registry: Registry[Session]) -> None:
    one = session()
    one.hold = asyncio.Event()
    enter(registry, one)
    assert [registry.cut(ALICE, "first"), registry.cut(ALICE, "second")] == [1, 0]
    assert registry.sessions()[0].ending
    one.hold.set()
    await registry.settled()
    assert one.said == ["first"]
    assert one.aborted


async def test_a_client_that_hangs_delays_no_other_and_is_aborted() -> None:
    registry = Registry[Session](Limits(), close_seconds=0.01)
    stuck, quick = session(), session()
    stuck.hold = asyncio.Event()
    enter(registry, stuck)
    enter(registry, quick)
    registry.cut(ALICE, "stopped")
    async with asyncio.timeout(LIMIT):
        await registry.settled()
    assert stuck.aborted
    assert quick.said == ["stopped"]
    assert len(registry) == 0


async def test_an_error_while_closing_is_logged_and_the_connection_goes_all_the_same(
    registry: Registry[Session], caplog: pytest.LogCaptureFixture
) -> None:
    one = session()
    one.error = RuntimeError("broken")
    enter(registry, one)
    registry.cut(ALICE, "stopped")
    await registry.settled()
    assert one.aborted
    assert len(registry) == 0
    assert "could not be closed" in caplog.text


async def test_a_released_session_is_not_cut_and_frees_its_place(registry: Registry[Session]) -> None:
    with enter(registry, session()) as registration:
        assert len(registry) == 1
    registration.release()
    assert len(registry) == 0
    assert registry.cut(ALICE, "stopped") == 0


async def test_one_user_cannot_take_all_places_and_all_together_cannot_take_more_than_there_are(
    registry: Registry[Session],
) -> None:
    mine = [enter(registry, session()) for _ in range(3)]
    refusal = registry.register(session(), yes)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.TOO_MANY
    for _ in range(2):
        enter(registry, session("bob"))
    refusal = registry.register(session("carol"), yes)
    assert isinstance(refusal, Refusal)
    assert "bastion" in refusal.sentence
    mine[0].release()
    enter(registry, session())


async def test_a_jump_connection_has_no_server_and_is_not_cut_with_one(registry: Registry[Session]) -> None:
    jump = session(instance=None)
    enter(registry, jump)
    assert registry.cut(Server("alice"), "stopped") == 0
    assert registry.cut_user("alice", "out") == 1
    await registry.settled()


class TestDrain:
    async def test_everyone_is_told_and_whoever_leaves_in_time_is_not_closed(self, registry: Registry[Session]) -> None:
        one = session()
        registration = enter(registry, one)
        draining = asyncio.ensure_future(registry.drain("going down", LIMIT, "gone"))
        await asyncio.sleep(0)
        assert one.told == ["going down"]
        refusal = registry.register(session("bob"), yes)
        assert refusal == Refusal(Reason.UNAVAILABLE, "going down")
        registration.release()
        assert await draining == 0
        assert one.said == []

    async def test_whoever_stays_is_closed_with_the_farewell(self, registry: Registry[Session]) -> None:
        one = session()
        enter(registry, one)
        assert await registry.drain("going down", 0, "gone") == 1
        assert one.said == ["gone"]
        assert len(registry) == 0

    async def test_an_empty_registry_drains_at_once(self, registry: Registry[Session]) -> None:
        async with asyncio.timeout(LIMIT):
            assert await registry.drain("going down", 10 * LIMIT, "gone") == 0


async def test_raw_keys_into_the_servers_of_one_owner_count_together(registry: Registry[Session]) -> None:
    """Otherwise somebody who lists a hundred keys of their own may have a hundred times as much."""
    gpu, bobs = Instance(Server("alice", "gpu"), 2), Instance(Server("bob"), 3)
    kept = [
        enter(registry, session(f"key:{number}", instance, user=None, serial=None))
        for number, instance in enumerate((ALICE, ALICE, gpu))
    ]
    refused = registry.register(session("key:3", gpu, user=None, serial=None), yes)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.TOO_MANY
    enter(registry, session("key:3", bobs, user=None, serial=None))
    enter(registry, session("alice")).release()  # a certificate is its user's matter
    kept[0].release()
    enter(registry, session("key:3", gpu, user=None, serial=None))


async def test_a_raw_key_that_only_jumps_counts_for_itself(registry: Registry[Session]) -> None:
    """Its pods are not known yet, and anybody's pod may list it: nobody must be able to use up somebody else's."""
    for number in range(4):
        enter(registry, session(f"key:{number}", None, user=None, serial=None))
