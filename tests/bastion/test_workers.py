"""Why: several processes share one port, and operators and users must not have to know."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from bastion.admin import AdminError
from bastion.crew import Slot, Worker, pause_before
from bastion.crewlink import CrewLink
from bastion.settings import Settings, read_settings
from bastion.workers import Supervisor
from tests.support.processes import die_with_parent
from tests.support.site import LIMIT, Client, Site, site


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Site]:
    """A bastion of two workers."""
    async with site(tmp_path, METRICS_PORT="0", SHUTDOWN_GRACE="3") as made:
        await made.start("--workers", "2")
        yield made


def workers(of: Site) -> list[int]:
    """The processes of the workers."""
    if of.bastion is None:
        return []
    children = Path(f"/proc/{of.bastion.pid}/task/{of.bastion.pid}/children").read_text()
    return [int(child) for child in children.split()]


async def spread(of: Site, key: Path) -> dict[str, Client]:
    """A session in each of the workers: the kernel chooses by the client's port."""
    found: dict[str, Client] = {}
    known: set[str] = set()
    async with asyncio.timeout(LIMIT):
        while len(found) < 2:
            client = await of.ssh(key, "cat")
            assert await client.talks(b"in")
            new = [row["id"] for row in await of.sessions() if row["id"] not in known]
            known.update(new)
            found.setdefault(new[0].partition(".")[0], client)
    return found


def test_every_address_is_a_socket_for_each_family_so_that_ipv4_clients_keep_theirs() -> None:
    slot = Slot(1)
    slot.open("::", 0)  # bound, and never listening
    try:
        assert sorted(door.getsockname()[0] for door in slot.doors) == ["0.0.0.0", "::"]
    finally:
        slot.close()


async def test_both_workers_take_connections_and_operators_see_one_bastion(two: Site) -> None:
    found = await spread(two, two.key("alice"))
    rows = await two.sessions()
    assert {row["id"].partition(".")[0] for row in rows} == set(found) == {"1", "2"}
    assert len({row["id"] for row in rows}) == len(rows)
    status, shown, _ = await two.command("workers")
    assert status == 0
    assert shown.count("accepting") == 2
    _, said, _ = await two.command("refresh-keys")
    assert said == "0 pods answered with 0 keys; 1 pods did not answer. Each of 2 workers asked for itself.\n"
    metrics = await two.metrics()
    live = {name: value for name, value in metrics.items() if name.startswith('sessions{mode="direct"')}
    assert sum(live.values()) == len(rows)
    assert min(live.values()) >= 1
    assert metrics['workers{state="accepting"}'] == 2
    status, said, _ = await two.command("cut", "user:alice", "--why", "Maintenance begins.")
    assert (status, said) == (0, f"{len(rows)} session{'' if len(rows) == 1 else 's'} told to end.\n")
    for client in found.values():
        _, _, errors = await client.ends()
        assert b"Maintenance begins." in errors
    assert len(two.audit("session_opened")) == len(rows)


async def test_one_session_is_cut_by_its_number_whichever_worker_has_it(two: Site) -> None:
    found = await spread(two, two.key("alice"))
    rows = {row["id"].partition(".")[0]: row["id"] for row in reversed(await two.sessions())}
    assert (await two.command("cut", f"session:{rows['2']}"))[1] == "1 session told to end.\n"
    assert (await found["2"].ends())[0] == 255
    assert await found["1"].talks(b"still here")


async def test_a_worker_that_dies_is_replaced_and_the_other_does_not_notice(two: Site) -> None:
    key = two.key("alice")
    found = await spread(two, key)
    first, second = workers(two)
    begins = two.log.stat().st_size
    os.kill(first, signal.SIGKILL)
    await two.logged("worker 3 .* accepts connections", begins)
    assert await found["2"].talks(b"not noticed")
    assert (await found["1"].ends())[0] == 255
    assert second in workers(two)
    assert len(workers(two)) == 2
    assert await two.gets_in(key)
    assert await two.metric("worker_crashes_total") == 1


async def test_a_graceful_restart_keeps_sessions_and_loses_no_connection(two: Site) -> None:
    key = two.key("alice")
    found = await spread(two, key)
    before = set(workers(two))
    stop = asyncio.Event()

    async def knock() -> list[bool]:
        """People go on to log in all the time."""
        tries = []
        while not stop.is_set():
            tries.append(await two.gets_in(key))
        return tries

    knocking = [asyncio.create_task(knock()) for _ in range(2)]
    begins = two.log.stat().st_size
    assert two.bastion is not None
    two.bastion.send_signal(signal.SIGHUP)
    for number in (3, 4):
        await two.logged(f"worker {number} .* accepts connections", begins)
    await two.until("two workers to retire", lambda: two.log.read_text().count("accepting nobody any more") == 2)
    stop.set()
    for task in knocking:
        tries = await task
        assert tries
        assert all(tries)
    for client in found.values():
        assert await client.talks(b"still here")
    assert before < set(workers(two))
    shown = (await two.command("workers"))[1]
    assert (shown.count("leaving"), shown.count("accepting")) == (2, 2)
    client = await two.ssh(key, "cat")
    assert await client.talks(b"in a new one")
    assert {row["id"].partition(".")[0] for row in await two.sessions()} & {"3", "4"}
    for one in found.values():
        assert (await one.ends())[0] == 0
    await two.command("cut", "user:alice")
    await two.until("the old workers to be gone", lambda: not before & set(workers(two)))
    assert await two.gets_in(key)


async def test_new_workers_that_do_not_know_which_servers_run_leave_the_old_ones_in_their_place(two: Site) -> None:
    key = two.key("alice")
    await two.api.stop()
    old, begins = set(workers(two)), two.log.stat().st_size
    assert two.bastion is not None
    two.bastion.send_signal(signal.SIGHUP)
    for number in (3, 4):
        await two.logged(rf"which servers run is not known yet.*\"worker\": {number}\D", begins)
    for _ in range(8):  # the kernel chooses a worker for each
        client = await two.ssh(key, "-W", "alice.hub:22", login="jump")
        assert client.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert (await client.process.stdout.readline()).startswith(b"SSH-2.0-OpenSSH")
        assert (await client.ends())[0] == 0
    assert old < set(workers(two))
    assert "accepting nobody any more" not in two.log.read_text()
    await two.api.start()
    for number in (3, 4):
        await two.logged(f"worker {number} .* accepts connections", begins)
    await two.until("the old workers to be gone", lambda: not old & set(workers(two)))
    assert await two.gets_in(key)


async def test_a_worker_that_cannot_take_over_in_time_is_ended_and_the_old_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bastion.workers.READY_SECONDS", 0.0)
    async with site(tmp_path) as made:
        crew = SlowToStart(read_settings(made.environment() | {"BASTION_WORKERS": "1"}))
        crew.released.set()
        running = asyncio.create_task(crew.run())
        await made.until("the first worker", lambda: crew._slots[0].current is not None)
        crew.listens = False
        crew.restart()
        await made.until("the second worker to have ended", lambda: len(crew.started) == 2 and crew.started[1].ended)
        assert crew._slots[0].current is crew.started[0]
        assert not crew.started[0].leaving
        crew.stop.set()
        await running


async def test_at_the_end_every_worker_tells_its_sessions(two: Site) -> None:
    found = await spread(two, two.key("alice"))
    assert two.bastion is not None
    ending = asyncio.create_task(two.end())
    for client in found.values():
        assert client.process.stderr is not None
        async with asyncio.timeout(LIMIT):
            while b"shutting down" not in await client.process.stderr.readline():
                pass
        assert await client.talks(b"time to save")
        assert (await client.ends())[0] == 0
    assert await ending == 0


async def test_workers_end_with_a_supervisor_that_is_killed(two: Site) -> None:
    children = workers(two)
    client = await two.ssh(two.key("alice"), "cat")
    assert await client.talks(b"in")
    await two.end(signal.SIGKILL)
    await gone(children)
    assert (await client.ends())[0] == 255
    await two.start("--workers", "2")
    assert await two.gets_in(two.key("again"))


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(LIMIT):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether it runs: one that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_bastion_that_cannot_start_says_why_once_and_ends(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        made.settings["BASTION_API_SECRET_FILE"] = str(tmp_path / "missing")
        status, _, errors = await made.command("serve", "--workers", "2")
        assert status == 1
        assert "missing" in errors
        made.settings["BASTION_WORKERS"] = "many"
        status, _, errors = await made.command("serve")
        assert status == 2
        assert "BASTION_WORKERS" in errors


class Silent(CrewLink):
    """The line to a process that is no worker."""

    async def ask(self, request: Mapping[str, object], seconds: float) -> Mapping[str, object]:
        raise AdminError("It is no worker.")


class SlowToStart(Supervisor):
    """The first worker takes as long to start as a test wants; each is a `sleep` that says at once that it listens."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.begun, self.released = asyncio.Event(), asyncio.Event()
        self.started: list[Worker] = []
        self.listens = True

    async def _start(self, slot: Slot, *, insist: bool) -> Worker:
        self.begun.set()
        number = next(self._numbers)
        process = await asyncio.create_subprocess_exec("sleep", "600", preexec_fn=die_with_parent(signal.SIGKILL))
        worker = Worker(number, slot, process, 0.0, lambda _: None)
        self.started.append(worker)
        worker.link = Silent({})
        if self.listens:
            worker.listening = True
            worker.ready.set()
        self._workers[number] = worker
        self._spawn(self._buried(worker), f"worker {number}")
        if number == 1:
            await self.released.wait()
        return worker

    async def _buried(self, worker: Worker) -> None:
        await worker.process.wait()
        worker.ended = True


async def test_a_restart_while_the_first_workers_start_makes_no_worker_that_nobody_knows(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        settings = read_settings(made.environment() | {"BASTION_WORKERS": "2"})
        crew = SlowToStart(settings)
        running = asyncio.create_task(crew.run())
        await crew.begun.wait()
        crew.restart()

        def replacing() -> set[str]:
            return {name for task in crew._tasks if (name := task.get_name()).startswith("replace")}

        first, second = (f"replace worker of place {number}" for number in (0, 1))
        await made.until(
            "the replacements to be done or to wait",
            lambda: second not in replacing() and (first not in replacing() or len(crew.started) == 1),
        )
        crew.released.set()
        await made.until("the replacements to be done", lambda: not replacing())
        await made.until("both to have a worker", lambda: all(slot.current is not None for slot in crew._slots))
        known = {slot.current for slot in crew._slots}
        assert all(worker in known or worker.leaving for worker in crew.started)
        crew.stop.set()
        await running


@pytest.mark.parametrize(("failures", "pause"), [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (60, 30)])
def test_the_first_end_costs_no_pause_and_the_next_ones_longer_and_longer_ones(failures: int, pause: float) -> None:
    assert pause_before(failures) == pause
