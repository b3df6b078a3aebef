"""Which enrolled servers run, as JupyterHub says about once a second; and the news that the bastion waits for.

JupyterHub has no news of stops, so it is asked. What was heard is written to the database at once, so the list is
simply *the enrolments that live and were ready once*: it is the same in every replica, and after a restart it is
there before JupyterHub has answered. A JupyterHub that cannot be reached, or that is still finding out
(`pending: check`, after its own restart), means unknown: the list stays as it was and `heard_seconds_ago` grows.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from api import plainkeys
from api.errors import HubUnavailable, StoreUnavailable
from api.hub import HubClient, Model
from api.store import Enrolment, Store
from api.told import enrolment_told, revocations_told
from api.transactions import UNUSABLE
from ca.claims import Running, running_servers
from ca.errors import MalformedClaims
from ca.limits import Capabilities
from ca.names import Instance, Server
from ca.policy import Rules
from ca.signer import Signer

log = structlog.get_logger(__name__)

Clock = Callable[[], float]
"""Seconds."""

STOPPED = "stopped"
REPLACED = "restarted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What JupyterHub's list means for the enrolled. `doubtful` needs a second, single question."""

    ready: tuple[Instance, ...]
    ended: Mapping[Instance, str]
    doubtful: tuple[Instance, ...]


def reconcile(enrolled: Iterable[Enrolment], running: Mapping[Server, Running]) -> Verdict:
    """Judge each enrolment by a list that may be a moment old, and may lack servers that moved between its pages.

    Ended without doubt: the very run that enrolled is stopping. Absent, or there with another run: doubtful, since
    the list may be older than the enrolment. Starting and `check`: neither, it stays as it was.
    """
    ready: list[Instance] = []
    ended: dict[Instance, str] = {}
    doubtful: list[Instance] = []
    for one in enrolled:
        now = running.get(one.server)
        if now is None or now.instance != one.instance:
            doubtful.append(one.instance)
        elif now.pending == "stop":
            ended[one.instance] = STOPPED
        elif now.ready and not one.seen_ready:
            ready.append(one.instance)
    return Verdict(tuple(ready), ended, tuple(doubtful))


def why_ended(instance: Instance, now: Running | None) -> str | None:
    """What a fresh answer about one server says of `instance`: why it ended, or None while it has not."""
    if now is None or (now.instance == instance and now.pending == "stop"):
        return STOPPED
    return None if now.instance == instance else REPLACED


def running_in(models: Iterable[Model]) -> dict[Server, Running]:
    """Every server in JupyterHub's user models. A user whose model cannot be read has none: nobody else is affected.

    Raises `MalformedClaims` if that goes for all of them, which is no word on anybody."""
    found: dict[Server, Running] = {}
    unread, read = None, False
    for model in models:
        try:
            found.update((one.server, one) for one in running_servers(model))
            read = True
        except MalformedClaims as error:
            unread = error
    if unread is not None and not read:
        raise unread
    return found


@dataclass(frozen=True, slots=True)
class State:
    """What the bastion is told. `version` is opaque; equal versions hold equal bodies, in every replica."""

    version: str
    body: Mapping[str, Any]


class Roster:
    """Keeps the list true while `run()` runs. `publish()` tells the waiters about anything that was just written."""

    def __init__(
        self,
        store: Store,
        hub: HubClient,
        signer: Signer,
        zone: str,
        rules: Rules,
        *,
        interactive: bool = False,
        interval: float = 1.0,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
        on_end: Callable[[Instance, str], None] = lambda _instance, _why: None,
    ) -> None:
        """`interactive`: bastions may let people log in with a browser."""
        self._store = store
        self._interactive = interactive
        self._hub = hub
        self._signer = signer
        self._zone = zone
        self._rules = rules
        self._interval = interval
        self._clock = clock
        self._monotonic = monotonic
        self._on_end = on_end
        self._heard_at: float | None = None
        self._narrower: dict[str, Capabilities] | None = None
        self._state: State | None = None
        self._made_from: tuple[object, object, object] | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self._trouble = ""

    @property
    def listed(self) -> tuple[Enrolment, ...]:
        """The enrolled servers that run and are ready, as far as anybody knows."""
        return tuple(one for one in self._store.snapshot.enrolments if one.seen_ready)

    @property
    def heard_seconds_ago(self) -> float | None:
        """How old JupyterHub's last word is; None before its first."""
        return None if self._heard_at is None else self._monotonic() - self._heard_at

    @property
    def size(self) -> int:
        """How many servers are listed; 0 while the database has not been read."""
        return 0 if self._state is None else len(self._state.body["enrolled"])

    @property
    def closed(self) -> bool:
        """Whether the service ends: whoever waits for something goes home."""
        return self._closed

    def runs(self, instance: Instance) -> bool:
        """Whether exactly this run is listed."""
        return any(one.instance == instance for one in self.listed)

    def state(self) -> State:
        """The state now. Raises `StoreUnavailable` before the database could be read."""
        if self._state is None:
            self._remake()
        if self._state is None:
            raise StoreUnavailable("The database has not been read yet.")
        return self._state

    async def wait(self, version: str, seconds: float) -> State:
        """The state as soon as its version is not `version`, or after `seconds`. Raises `StoreUnavailable`, also where
        what others revoke would not be in it."""
        try:
            async with asyncio.timeout(seconds):
                while self.state().version == version and not self._closed and not self._store.misses_others:
                    await self._changed.wait()
        except TimeoutError:
            pass
        if self._store.misses_others:
            raise StoreUnavailable(UNUSABLE)
        return self.state()

    async def publish(self) -> None:
        """Wake those who wait, if anything they see has changed."""
        if self._remake():
            self._wake()

    def close(self) -> None:
        """Send those who wait home: the service ends."""
        self._closed = True
        self._wake()

    async def run(self) -> None:
        """Ask for ever, until cancelled. The database is read on its own beat: a hub that hangs delays no news."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._for_ever(self.read_store))
            tasks.create_task(self._for_ever(self.ask_hub))

    async def read_store(self) -> None:
        """Notice what other replicas and the command line wrote, and a database that was lost."""
        try:
            await self._store.refresh(int(self._clock() * 1000))
        except StoreUnavailable:
            if self._store.misses_others:
                self._wake()
            return
        await self.publish()

    async def ask_hub(self) -> None:
        """One question to JupyterHub, and what follows from its answer."""
        try:
            enrolled = self._store.snapshot.enrolments  # before the question: newer ones are not judged by its answer
            asked_at = self._monotonic()
            models = await self._hub.active_servers()
            verdict = reconcile(enrolled, running_in(models))
            narrower = plainkeys.narrower_owners(models, self._rules)
            if narrower != self._narrower:
                self._narrower = narrower
            ended = {**verdict.ended, **await self._confirm(verdict.doubtful)}
            self._heard_at = asked_at
            if self._trouble:
                log.info("hub_heard_again")
            self._trouble = ""
            await self._write(verdict.ready, ended)
        except (HubUnavailable, MalformedClaims) as error:
            if self._trouble != str(error):  # once, not once a second
                log.warning("hub_not_heard", why=str(error))
            self._trouble = str(error)
        except StoreUnavailable:
            return
        await self.publish()

    async def _confirm(self, doubtful: Iterable[Instance]) -> dict[Instance, str]:
        """Ask for each owner by name, which no change between pages can disturb.

        What cannot be read for one owner says of no server that it runs: hers end, and nobody else waits for her.
        """
        ended: dict[Instance, str] = {}
        for instance in doubtful:
            model = await self._hub.user(instance.server.owner)
            try:
                running = {} if model is None else running_in([model])
            except MalformedClaims as error:
                log.warning("user_not_read", user=instance.server.owner, why=str(error))
                running = {}
            why = why_ended(instance, running.get(instance.server))
            if why is not None:
                ended[instance] = why
        return ended

    async def _write(self, ready: tuple[Instance, ...], ended: Mapping[Instance, str]) -> None:
        now_ms = int(self._clock() * 1000)
        if ready:
            await self._store.mark_ready(ready, now_ms)
        for why in sorted(set(ended.values())):
            await self._store.end_enrolments([one for one in ended if ended[one] == why], why, now_ms)
        for instance, why in ended.items():
            self._on_end(instance, why)

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            began = self._monotonic()
            try:
                await work()
            except Exception:  # the root of a task: one bad beat must not end the watching
                log.exception("roster_beat_failed")
            # A hub with thousands of servers answers slowly: never ask it more than half of the time.
            await asyncio.sleep(max(self._interval, self._monotonic() - began))

    def _wake(self) -> None:
        """Each event wakes those who wait for it once; later ones wait for the next."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _remake(self) -> bool:
        """Make the state anew if what it is made from changed; True when it differs from before."""
        made_from = (self._store.snapshot, self._signer.public, self._narrower)
        if self._made_from is not None:
            snapshot, public, narrower = self._made_from
            if made_from[0] is snapshot and made_from[1] == public and made_from[2] is narrower:
                return False
        self._made_from = made_from
        body = self._body()
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        version = hashlib.sha256(text.encode()).hexdigest()[:32]
        before, self._state = self._state, State(version, body)
        return before is None or before.version != version

    def _body(self) -> dict[str, Any]:
        public = self._signer.public
        return {
            "zone": self._zone,
            "interactive": self._interactive,
            "epoch": self._store.snapshot.meta.epoch,
            "trust": {
                "user": [key.line for key in public.user],
                "host": [key.line for key in public.host],
                "hop": [key.line for key in public.hop],
            },
            "raw_keys": plainkeys.told(self._rules, self._narrower),
            "revocations": revocations_told(self._store.snapshot.revocations),
            "enrolled": [enrolment_told(one) for one in self.listed],
            "ended_sessions": dict(self._store.snapshot.ended_sessions),
        }
