"""A slow consumer may learn late and in fewer words, but never misses a stop."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.directory.changes import ConsumerStuck, FanOut, Subscription, fold
from bastion.directory.table import Change, Moved, Pod, Started, Stopped, Table
from tests.bastion.directory.test_table import pods, replay
from tests.support.pods import LIMIT, pod

A, B, C = (pod("alice", port=port) for port in (1, 2, 3))
GONE = Stopped(A, "gone")


@pytest.mark.parametrize(
    ("waiting", "change", "left"),
    [
        ([], Started(A), [Started(A)]),
        ([], Moved(A, B), [Moved(A, B)]),
        ([Started(A)], GONE, [GONE]),
        ([Moved(A, B)], GONE, [GONE]),
        ([Started(A)], Moved(A, B), [Started(B)]),
        ([Moved(A, B)], Moved(B, C), [Moved(A, C)]),
        ([GONE], Started(A), [GONE, Started(A)]),
        ([GONE, Started(A)], Moved(A, B), [GONE, Started(B)]),
        ([GONE, Started(A)], GONE, [GONE]),
    ],
)
def test_what_waits_for_one_pod_is_folded(waiting: list[Change], change: Change, left: list[Change]) -> None:
    assert fold(waiting, change) == left


async def read(subscription: Subscription) -> list[Change]:
    """Everything that waits."""
    subscription.close()
    return [change async for change in subscription]


async def test_a_new_consumer_is_told_first_of_everything_that_runs() -> None:
    assert await read(FanOut().subscribe([A, pod("bob")])) == [Started(A), Started(pod("bob"))]


async def test_every_consumer_gets_every_change_and_waits_for_the_next() -> None:
    fan_out = FanOut()
    consumers = [fan_out.subscribe([]), fan_out.subscribe([])]
    waiting = [asyncio.ensure_future(anext(consumer)) for consumer in consumers]
    await asyncio.sleep(0)
    fan_out.tell([Started(A)])
    async with asyncio.timeout(LIMIT):
        assert await asyncio.gather(*waiting) == [Started(A), Started(A)]


async def test_a_consumer_that_went_away_is_forgotten() -> None:
    fan_out = FanOut()
    consumer = fan_out.subscribe([])
    assert len(fan_out._consumers) == 1
    del consumer
    assert len(fan_out._consumers) == 0


async def test_a_consumer_that_never_reads_breaks_loudly_instead_of_losing_a_stop() -> None:
    consumer = FanOut(limit=2).subscribe([pod("a"), pod("b"), pod("c")])
    with pytest.raises(ConsumerStuck):
        await anext(consumer)
    consumer.push([GONE])
    with pytest.raises(ConsumerStuck):
        await anext(consumer)


@given(st.lists(st.tuples(st.lists(pods, max_size=5, unique_by=lambda one: one.identity), st.booleans()), max_size=12))
def test_a_consumer_that_reads_now_and_then_ends_with_the_truth_and_saw_every_stop(
    steps: list[tuple[list[Pod], bool]],
) -> None:
    async def scenario() -> None:
        table, subscription, waiting = Table(), Subscription([], 100), list[Change]()
        known: set[object] = set()
        stopped: set[object] = set()
        for listed, reads in [*steps, ([], True)]:
            changes = table.replace(listed, 0.0)
            subscription.push(changes)
            stopped |= {change.pod.identity for change in changes if isinstance(change, Stopped)}
            if reads:
                while subscription._waiting:
                    waiting.append(await anext(subscription))
        for change in waiting:
            if isinstance(change, Stopped):
                known.add(change.pod.identity)
        assert stopped == known
        believed = dict[object, Pod]()
        # A pod that came and went unseen is told only as stopped: nobody believes in it, so nothing is lost.
        for change in waiting:
            if not isinstance(change, Stopped) or change.pod.identity in believed:
                replay_one(believed, change)
        assert believed == {}

    asyncio.run(scenario())


def replay_one(believed: dict[object, Pod], change: Change) -> None:
    if isinstance(change, Stopped):
        believed.pop(change.pod.identity)
    else:
        replay(believed, [change])
