"""Section by section: the tiers, the bounds on a replaced key, single flight, and pods that behave badly.

The pods are real HTTP listeners; the clock stands still unless a test moves it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_network
from typing import Any

import pytest

from bastion.directory.table import Moved, Pod, Started, Stopped
from bastion.pubkeys.cache import CacheLimits, KeyCache, Listing
from bastion.pubkeys.pod import PodKeys, PodLimits
from bastion.pubkeys.refresh import Counts
from ca.keys import AuthorizedKey, PublicKey
from ca.names import Server
from tests.support.clock import Clock
from tests.support.pods import LIMIT, Behaviour, KeyServer, Running, free_port, hanging, honest, key, key_server, pod

MINUTE = 60.0
ALICE, BOB = Server("alice"), Server("bob")


class Site:
    """A cache over real pods."""

    def __init__(self, stack: AsyncExitStack, client: PodKeys, limits: CacheLimits | None = None) -> None:
        self.stack = stack
        self.clock = Clock()
        self.directory = Running()
        patient = CacheLimits(wait=10 * LIMIT)  # so that a wait without an end is a failure, not an answer
        self.cache = KeyCache(self.directory, client.fetch, clock=self.clock, limits=limits or patient)

    async def start(self, owner: str, *keys: PublicKey | str, run: int = 1, behave: Behaviour = honest) -> KeyServer:
        """A pod that the directory knows and the cache has not been told of: what a missed fetch ahead leaves."""
        server = await self.stack.enter_async_context(key_server(*keys, behave=behave))
        self.directory.table.put(pod(owner, run=run, port=server.port))
        return server

    def pod(self, owner: str) -> Pod:
        found = self.directory.find(Server(owner))
        assert isinstance(found, Pod)
        return found

    async def may(self, who: PublicKey, server: Server | None = None) -> set[str]:
        """The owners of the pods that list the key."""
        async with asyncio.timeout(LIMIT):
            return {listing.pod.server.owner for listing in await self.cache.lookup(who, server)}

    async def idle(self) -> None:
        """Wait until nothing is being asked."""
        async with asyncio.timeout(LIMIT):
            while len(self.cache._fetches):
                await asyncio.sleep(0)


@pytest.fixture
async def client() -> AsyncIterator[PodKeys]:
    client = PodKeys((ip_network("127.0.0.0/8"),), PodLimits(seconds=LIMIT))
    yield client
    await client.aclose()


@pytest.fixture
async def site(client: PodKeys) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        site = Site(stack, client)
        stack.push_async_callback(site.cache.aclose)
        yield site


class TestTiers:
    async def test_the_first_connection_rebuilds_and_is_answered(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.start("bob", key(2))
        assert await site.may(key(1), ALICE) == {"alice"}
        assert await site.may(key(1), BOB) == set()
        assert await site.may(key(2)) == {"bob"}
        assert await site.may(key(3)) == set()

    async def test_within_two_minutes_the_cache_alone_answers(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        await site.idle()
        late = await site.start("bob", key(2))
        site.clock.advance(2 * MINUTE - 0.1)
        assert await site.may(key(1), ALICE) == {"alice"}
        assert await site.may(key(2), BOB) == set()
        assert await site.may(key(2)) == set()
        assert (len(alice.requests), len(late.requests)) == (1, 0)

    async def test_after_two_minutes_an_unknown_key_has_the_missing_pods_asked_and_no_others(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        late = await site.start("bob", key(2))
        site.clock.advance(2 * MINUTE)
        assert await site.may(key(2), BOB) == {"bob"}
        assert (len(alice.requests), len(late.requests)) == (1, 1)

    async def test_after_two_minutes_a_known_key_asks_nobody(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        late = await site.start("bob", key(2))
        site.clock.advance(2 * MINUTE)
        assert await site.may(key(1), ALICE) == {"alice"}
        assert await site.may(key(1)) == {"alice"}
        await site.idle()
        assert late.requests == []

    async def test_a_jump_login_with_an_unknown_key_has_the_missing_pods_asked(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1))
        await site.start("bob", key(2))
        site.clock.advance(2 * MINUTE)
        assert await site.may(key(2)) == {"bob"}

    async def test_a_fill_makes_the_cache_answer_alone_for_two_minutes_more(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        await site.start("bob", key(2))
        site.clock.advance(2 * MINUTE)
        await site.may(key(2), BOB)
        third = await site.start("carol", key(3))
        site.clock.advance(2 * MINUTE - 0.1)
        assert await site.may(key(3), Server("carol")) == set()
        assert third.requests == []
        site.clock.advance(0.1)
        assert await site.may(key(3), Server("carol")) == {"carol"}

    async def test_a_fill_with_nobody_to_ask_changes_no_age(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        site.clock.advance(2 * MINUTE)
        assert await site.may(key(9), ALICE) == set()
        await site.start("bob", key(2))
        assert await site.may(key(2), BOB) == {"bob"}

    async def test_after_fifteen_minutes_everything_is_asked_again(self, site: Site) -> None:
        alice, bob = await site.start("alice", key(1)), await site.start("bob", key(2))
        await site.may(key(1), ALICE)
        await site.idle()
        site.clock.advance(15 * MINUTE)
        assert await site.may(key(1), ALICE) == {"alice"}
        await site.idle()
        assert (len(alice.requests), len(bob.requests)) == (2, 2)

    async def test_fifteen_minutes_hold_although_partial_updates_keep_happening(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        alice.lines = [key(2).line]
        for minute in range(2, 15, 2):
            site.clock.advance(2 * MINUTE)
            owner = f"user{minute}"
            await site.start(owner, key(minute))
            assert await site.may(key(minute), Server(owner)) == {owner}
            assert await site.may(key(1), ALICE) == {"alice"}
        site.clock.advance(MINUTE)
        assert await site.may(key(1), ALICE) == set()
        assert await site.may(key(2), ALICE) == {"alice"}

    async def test_a_rebuild_by_hand_sees_a_replaced_key_at_once(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        await site.start("bob", key(2), key(3))
        await site.start("carol", behave=lambda *_: asyncio.sleep(0))
        await site.may(key(1), ALICE)
        alice.lines = [key(4).line]
        assert await site.cache.refresh() == Counts(pods=2, keys=3, failed=1)
        assert await site.may(key(1), ALICE) == set()
        assert await site.may(key(4), ALICE) == {"alice"}
        assert site.cache.counts == Counts(pods=2, keys=3, failed=1)

    async def test_a_rebuild_by_hand_of_nothing_counts_nothing(self, site: Site) -> None:
        assert await site.cache.refresh() == Counts(0, 0, 0)

    async def test_a_directory_that_lists_nobody_yet_starts_no_age(self, site: Site) -> None:
        assert await site.may(key(1)) == set()
        await site.start("alice", key(1))
        assert await site.may(key(1)) == {"alice"}


class TestReplacedKey:
    """A key replaced inside a running pod: both bounds."""

    async def test_the_removed_key_is_refused_and_the_new_one_accepted_at_fifteen_minutes(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        alice.lines = [key(2).line]
        site.clock.advance(15 * MINUTE - 0.1)
        assert await site.may(key(1), ALICE) == {"alice"}
        assert await site.may(key(2), ALICE) == set()
        site.clock.advance(0.1)
        assert await site.may(key(2), ALICE) == {"alice"}
        assert await site.may(key(1), ALICE) == set()

    async def test_a_pod_that_no_longer_answers_is_not_served_from_before_the_rebuild(self, site: Site) -> None:
        async def mute_without_lines(server: KeyServer, *streams: Any) -> None:
            if server.lines:
                await honest(server, *streams)

        alice = await site.start("alice", key(1), behave=mute_without_lines)
        assert await site.may(key(1), ALICE) == {"alice"}
        alice.lines = []
        site.clock.advance(15 * MINUTE)
        assert await site.may(key(1), ALICE) == set()
        assert await site.may(key(1)) == set()


class TestWaiting:
    """Whom an answer waits for."""

    async def test_a_hanging_pod_delays_neither_another_login_nor_a_jump_login(self, site: Site) -> None:
        hung = await site.start("mallory", behave=hanging)
        await site.start("alice", key(1))
        assert await site.may(key(1), ALICE) == {"alice"}
        assert await site.may(key(1)) == {"alice"}
        await hung.was_asked()
        assert not hung.released.is_set()

    async def test_a_queue_full_of_hanging_pods_delays_nobody(self, client: PodKeys) -> None:
        async with AsyncExitStack() as stack:
            site = Site(stack, client, CacheLimits(at_once=2, urgent=1))
            for number in range(6):
                await site.start(f"a{number}", behave=hanging)
            await site.start("zoe", key(1))
            assert await site.may(key(1), Server("zoe")) == {"zoe"}
            await site.cache.aclose()

    async def test_a_jump_login_is_not_delayed_by_pods_that_hung_the_last_time(self, client: PodKeys) -> None:
        async with AsyncExitStack() as stack:
            site = Site(stack, client, CacheLimits(at_once=2, wait=10 * LIMIT))
            hangs = False

            async def mute(server: KeyServer, *_: Any) -> None:
                if hangs:
                    await server.released.wait()

            for number in range(4):
                await site.start(f"a{number}", behave=mute)
            await site.cache.refresh()
            await site.start("zoe", key(1))
            hangs = True
            site.clock.advance(15 * MINUTE)
            assert await site.may(key(1)) == {"zoe"}
            await site.cache.aclose()

    async def test_a_jump_login_is_answered_first_by_the_pods_that_listed_its_key_before(self, client: PodKeys) -> None:
        async with AsyncExitStack() as stack:
            site = Site(stack, client, CacheLimits(at_once=2, wait=10 * LIMIT))
            hangs = False

            async def moody(server: KeyServer, *streams: Any) -> None:
                if hangs:
                    await server.released.wait()
                await honest(server, *streams)

            for number in range(4):
                await site.start(f"a{number}", behave=moody)
            await site.start("zoe", key(1))
            assert await site.may(key(1)) == {"zoe"}
            await site.idle()
            hangs = True
            site.clock.advance(15 * MINUTE)
            assert await site.may(key(1)) == {"zoe"}
            await site.cache.aclose()

    async def test_the_owner_of_a_hanging_pod_waits_for_it_and_is_let_in_when_it_speaks(self, site: Site) -> None:
        hung = await site.start("alice", key(1), behave=hanging)
        waiting = asyncio.ensure_future(site.may(key(1), ALICE))
        await hung.was_asked()
        assert not waiting.done()
        hung.released.set()
        assert await waiting == {"alice"}

    async def test_a_jump_login_whose_key_nobody_lists_waits_for_all(self, site: Site) -> None:
        hung = await site.start("mallory", behave=hanging)
        await site.start("alice", key(1))
        waiting = asyncio.ensure_future(site.may(key(9)))
        await hung.was_asked()
        await site.may(key(1), ALICE)
        assert not waiting.done()
        hung.released.set()
        assert await waiting == set()

    async def test_nobody_waits_longer_than_the_limit(self, client: PodKeys) -> None:
        async with AsyncExitStack() as stack:
            site = Site(stack, client, CacheLimits(wait=0.05))
            hung = await site.start("mallory", behave=hanging)
            assert await site.may(key(9)) == set()
            assert not hung.released.is_set()
            await site.cache.aclose()

    async def test_a_pod_that_becomes_ready_is_waited_for_while_it_is_asked_ahead(self, site: Site) -> None:
        await site.start("bob", key(2))
        await site.may(key(2), BOB)
        slow = await site.start("alice", key(1), behave=hanging)
        site.cache.heed(Started(site.pod("alice")))
        waiting = asyncio.ensure_future(site.may(key(1), ALICE))
        await slow.was_asked()
        slow.released.set()
        assert await waiting == {"alice"}

    async def test_a_pod_that_goes_while_somebody_waits_ends_the_wait(self, site: Site) -> None:
        hung = await site.start("alice", behave=hanging)
        gone = site.pod("alice")
        waiting = [asyncio.ensure_future(site.may(key(1), server)) for server in (ALICE, None)]
        await hung.was_asked()
        site.directory.table.remove(gone)
        site.cache.heed(Stopped(gone, ""))
        assert await asyncio.gather(*waiting) == [set(), set()]

    async def test_an_answer_to_a_question_from_before_the_rebuild_is_thrown_away(self, site: Site) -> None:
        await site.start("bob", key(2))
        hung = await site.start("alice", key(1), behave=hanging)
        site.cache.heed(Started(site.pod("alice")))
        await hung.was_asked()
        twin = pod("alice", run=2, port=free_port())
        site.directory.table.put(twin)  # alice is ambiguous, so the rebuild does not ask her pod again
        site.clock.advance(1)
        await site.cache.refresh()
        site.directory.table.remove(twin)
        hung.released.set()
        await site.idle()
        assert await site.may(key(1), ALICE) == set()
        site.clock.advance(2 * MINUTE)
        assert await site.may(key(1), ALICE) == {"alice"}


class TestSingleFlight:
    async def test_however_many_connections_wait_each_pod_is_asked_once(self, site: Site) -> None:
        alice = await site.start("alice", key(1), behave=hanging)
        bob = await site.start("bob", key(2))
        waiting = [asyncio.ensure_future(site.may(key(1), (ALICE, None)[number % 2])) for number in range(100)]
        await alice.was_asked()
        alice.released.set()
        assert await asyncio.gather(*waiting) == [{"alice"}] * 100
        await site.idle()
        assert (len(alice.requests), len(bob.requests)) == (1, 1)

    async def test_a_cancelled_connection_leaves_the_refresh_to_the_others(self, site: Site) -> None:
        alice = await site.start("alice", key(1), behave=hanging)
        first, second = (asyncio.ensure_future(site.may(key(1), ALICE)) for _ in range(2))
        await alice.was_asked()
        first.cancel()
        alice.released.set()
        assert await second == {"alice"}

    async def test_a_rebuild_that_falls_due_takes_the_place_of_a_fill(self, site: Site) -> None:
        bob = await site.start("bob", key(2))
        await site.may(key(2), BOB)
        await site.idle()
        site.clock.advance(15 * MINUTE - 1)
        alice = await site.start("alice", key(1), behave=hanging)
        waiting = [asyncio.ensure_future(site.may(key(1), server)) for server in (ALICE, None)]
        await alice.was_asked()
        site.clock.advance(1)
        assert await site.may(key(2), BOB) == {"bob"}
        await alice.was_asked(2)  # the answer to the first question would be from before the rebuild
        alice.released.set()
        assert await asyncio.gather(*waiting) == [{"alice"}, {"alice"}]
        assert len(bob.requests) == 2

    async def test_who_waited_for_a_fill_stays_in_front_when_a_rebuild_takes_its_place(self, client: PodKeys) -> None:
        async with AsyncExitStack() as stack:
            site = Site(stack, client, CacheLimits(at_once=2, urgent=1, wait=10 * LIMIT))
            await site.start("bob", key(2))
            await site.may(key(2), BOB)
            site.clock.advance(15 * MINUTE - 1)
            for number in range(4):
                await site.start(f"a{number}", behave=hanging)
            alice = await site.start("alice", key(1), behave=hanging)
            waiting = asyncio.ensure_future(site.may(key(1), ALICE))
            await alice.was_asked()
            site.clock.advance(1)
            assert await site.may(key(2), BOB) == {"bob"}
            await alice.was_asked(2)
            alice.released.set()
            assert await waiting == {"alice"}
            await site.cache.aclose()

    async def test_a_fetch_that_will_not_be_stopped_has_no_say_any_more(self) -> None:
        begun, asked = asyncio.Event(), 0

        async def stubborn(_: Pod) -> tuple[AuthorizedKey, ...]:
            nonlocal asked
            asked += 1
            if asked > 1:
                return (AuthorizedKey(key(2)),)
            begun.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return (AuthorizedKey(key(1)),)

        cache = KeyCache(Running(pod("alice")), stubborn, clock=Clock())
        cache.prefetch(pod("alice"))
        async with asyncio.timeout(LIMIT):
            await begun.wait()
            assert await cache.refresh() == Counts(1, 1, 0)
            assert await cache.lookup(key(1), ALICE) == ()
            assert len(await cache.lookup(key(2), ALICE)) == 1
            await cache.aclose()

    async def test_a_rebuild_by_hand_asks_after_the_call_even_if_one_is_under_way(self, site: Site) -> None:
        alice = await site.start("alice", key(1), behave=hanging)
        first = asyncio.ensure_future(site.cache.refresh())
        await alice.was_asked()
        second = [asyncio.ensure_future(site.cache.refresh()) for _ in range(2)]
        alice.released.set()
        assert await first == Counts(1, 1, 0)
        assert await asyncio.gather(*second) == [Counts(1, 1, 0)] * 2
        assert len(alice.requests) == 2


class TestAhead:
    """Pods are asked when they become ready, and forgotten when they go."""

    async def test_a_pod_asked_ahead_is_known_at_once_and_no_age_changes(self, site: Site) -> None:
        await site.start("bob", key(2))
        await site.may(key(2), BOB)
        site.clock.advance(MINUTE)
        await site.start("alice", key(1))
        site.cache.heed(Started(site.pod("alice")))
        assert await site.may(key(1), ALICE) == {"alice"}
        missed = await site.start("carol", key(3))
        site.clock.advance(MINUTE)
        assert await site.may(key(3), Server("carol")) == {"carol"}
        assert len(missed.requests) == 1

    async def test_pods_asked_ahead_do_not_put_off_the_rebuild(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        bob = await site.start("bob", key(2))
        site.cache.heed(Started(site.pod("alice")))
        await site.idle()
        assert await site.may(key(1), ALICE) == {"alice"}
        await site.idle()
        assert site.cache.rebuilds == 1, "there had been no full rebuild yet"
        assert (len(alice.requests), len(bob.requests)) == (1, 1)
        site.clock.advance(15 * MINUTE)
        assert await site.may(key(1), ALICE) == {"alice"}
        await site.idle()
        assert (len(alice.requests), len(bob.requests)) == (2, 2)

    async def test_a_first_login_needs_no_fetch_where_the_pod_was_asked_ahead(self, site: Site) -> None:
        async def once(server: KeyServer, *streams: Any) -> None:
            if len(server.requests) > 1:
                await server.released.wait()
            await honest(server, *streams)

        alice = await site.start("alice", key(1), behave=once)
        site.cache.heed(Started(site.pod("alice")))
        await site.idle()
        site.clock.advance(2 * MINUTE - 0.1)
        for server in (ALICE, None):
            assert await site.may(key(1), server) == {"alice"}
        assert len(alice.requests) == 1

    async def test_an_answer_from_ahead_that_is_as_old_as_a_fill_is_asked_for_again(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        site.cache.heed(Started(site.pod("alice")))
        await site.idle()
        site.clock.advance(2 * MINUTE)
        assert await site.may(key(1), ALICE) == {"alice"}
        assert len(alice.requests) == 2

    @pytest.mark.parametrize("server", [ALICE, None])
    async def test_a_key_that_was_added_since_the_pod_was_asked_ahead_counts_at_the_first_login(
        self, site: Site, server: Server | None
    ) -> None:
        alice = await site.start("alice", key(1))
        site.cache.heed(Started(site.pod("alice")))
        await site.idle()
        alice.lines = [key(2).line]
        assert await site.may(key(2), server) == {"alice"}
        assert await site.may(key(1), server) == set()
        assert len(alice.requests) == 2

    @pytest.mark.parametrize("server", [ALICE, None])
    async def test_a_key_that_was_replaced_since_is_refused_fifteen_minutes_after_the_question(
        self, site: Site, server: Server | None
    ) -> None:
        alice = await site.start("alice", key(1))
        site.cache.heed(Started(site.pod("alice")))
        await site.idle()
        site.clock.advance(MINUTE)
        assert await site.may(key(1), server) == {"alice"}
        alice.lines = [key(2).line]
        site.clock.advance(14 * MINUTE - 0.1)
        assert await site.may(key(1), server) == {"alice"}
        site.clock.advance(0.1)
        assert await site.may(key(1), server) == set(), "a minute before the next rebuild"
        assert await site.may(key(2), server) == {"alice"}
        assert (site.cache.rebuilds, len(alice.requests)) == (1, 2)

    async def test_a_rebuild_by_hand_asks_what_was_asked_ahead_as_well(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        site.cache.heed(Started(site.pod("alice")))
        await site.idle()
        assert await site.cache.refresh() == Counts(pods=1, keys=1, failed=0)
        assert len(alice.requests) == 2

    async def test_a_known_pod_is_not_asked_ahead_again(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        site.cache.prefetch(site.pod("alice"))
        await site.idle()
        assert len(alice.requests) == 1

    async def test_a_pod_the_directory_does_not_offer_is_not_asked(self, site: Site) -> None:
        site.cache.prefetch(pod("alice"))
        assert len(site.cache._fetches) == 0

    async def test_a_pod_that_is_gone_is_forgotten_at_once(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        gone = site.pod("alice")
        site.directory.table.remove(gone)
        assert await site.may(key(1)) == set(), "before the cache is told, too"
        site.cache.heed(Stopped(gone, ""))
        assert site.cache.counts == Counts(0, 0, 0)

    async def test_the_next_run_of_a_server_inherits_nothing(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        old = site.pod("alice")
        site.directory.table.remove(old)
        await site.start("alice", key(2), run=2)
        assert await site.may(key(1), ALICE) == set()
        assert await site.may(key(1)) == set()

    async def test_a_pod_that_moved_is_asked_at_its_new_place(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        old = site.pod("alice")
        await site.start("alice", key(2))
        assert await site.may(key(1), ALICE) == set()
        site.cache.heed(Moved(old, site.pod("alice")))
        assert await site.may(key(2), ALICE) == {"alice"}

    async def test_a_pod_that_only_enrolled_keeps_its_listing(self, site: Site) -> None:
        alice = await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        old = site.pod("alice")
        new = pod("alice", port=alice.port, host_key=key(5))
        site.directory.table.put(new)
        site.cache.heed(Moved(old, new))
        assert await site.cache.lookup(key(1), ALICE) == (Listing(new, ()),)
        assert len(alice.requests) == 1

    async def test_an_ambiguous_server_is_neither_asked_nor_offered(self, site: Site) -> None:
        await site.start("alice", key(1))
        await site.may(key(1), ALICE)
        await site.start("alice", key(1), run=2)
        assert await site.may(key(1), ALICE) == set()
        assert await site.may(key(1)) == set()


class TestFailures:
    async def test_a_pod_that_failed_is_asked_again_by_the_tiers_and_not_by_every_connection(self, site: Site) -> None:
        asked = 0

        async def refuse_once(server: KeyServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            if asked > 1:
                await honest(server, reader, writer)

        await site.start("alice", key(1), behave=refuse_once)
        for _ in range(5):
            assert await site.may(key(1), ALICE) == set()
            assert await site.may(key(1)) == set()
        assert asked == 1
        site.clock.advance(2 * MINUTE)
        assert await site.may(key(1), ALICE) == {"alice"}
        assert asked == 2

    async def test_one_dead_pod_does_not_spoil_the_refresh(self, site: Site) -> None:
        site.directory.table.put(pod("dead", port=free_port()))
        await site.start("alice", key(1))
        assert await site.cache.refresh() == Counts(1, 1, 1)
        assert await site.may(key(1)) == {"alice"}

    async def test_an_error_of_ours_in_a_fetch_is_logged_and_is_that_pod_s_failure(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(_: Pod) -> tuple[()]:
            raise RuntimeError("a bug")

        cache = KeyCache(Running(pod("alice")), broken, clock=Clock())
        assert await cache.refresh() == Counts(0, 0, 1)
        assert "a bug" in caplog.text

    async def test_a_cache_that_is_full_says_so_and_forgets_nobody(
        self, client: PodKeys, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with AsyncExitStack() as stack:
            site = Site(stack, client, CacheLimits(bytes=2000))
            await site.start("alice", key(1))
            await site.cache.refresh()
            await site.start("greedy", *[key(number) for number in range(10)])
            site.clock.advance(2 * MINUTE)
            assert await site.may(key(2), Server("greedy")) == set()
            assert await site.may(key(1), ALICE) == {"alice"}
            assert "full" in caplog.text
            await site.cache.aclose()

    async def test_more_pods_than_the_bound_are_left_out(
        self, client: PodKeys, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with AsyncExitStack() as stack:
            site = Site(stack, client, CacheLimits(pods=1))
            await site.start("alice", key(1))
            await site.start("bob", key(1))
            assert await site.cache.refresh() == Counts(1, 1, 0)
            assert "2 pods run" in caplog.text
            await site.cache.aclose()


async def test_the_options_of_the_first_line_for_a_key_are_kept(site: Site) -> None:
    await site.start("alice", f"restrict,pty {key(1).line}", key(1), key(2), f"restrict {key(2).line}")
    assert await site.cache.lookup(key(1), ALICE) == (Listing(site.pod("alice"), ("restrict", "pty")),)
    assert await site.cache.lookup(key(2), ALICE) == (Listing(site.pod("alice"), ()),)


async def test_a_key_is_the_same_whatever_its_comment_says(site: Site) -> None:
    await site.start("alice", f"{key(1).line} laptop")
    assert await site.may(key(1), ALICE) == {"alice"}


async def test_a_stopped_server_has_nobody_asked(site: Site) -> None:
    bob = await site.start("bob", key(2))
    assert await site.may(key(1), ALICE) == set()
    assert bob.requests == []


async def test_closing_lets_everybody_go(site: Site) -> None:
    hung = await site.start("alice", behave=hanging)
    waiting = [asyncio.ensure_future(site.may(key(1), server)) for server in (ALICE, None)]
    await hung.was_asked()
    await site.cache.aclose()
    assert await asyncio.gather(*waiting) == [set(), set()]
