"""The bastion's parts, made from its settings and joined. Nothing runs yet: `bastion.service` does that."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self, TextIO

from bastion.admission import DoorRules
from bastion.auth import Authenticator
from bastion.authority import Authority, AuthorityStore, HopCertificates, LoginDesk, read_secret
from bastion.bounds import lobby_limits, relay_limits, room_for, session_limits, waiting_limits
from bastion.commands import Commands
from bastion.directory.choose import open_directory
from bastion.directory.enrolled import EnrolledDirectory
from bastion.directory.pods import PodDirectory
from bastion.hall import Hall, Proxies
from bastion.hostkey import HostKey
from bastion.house import House
from bastion.inside import Inside
from bastion.interactive import BrowserLogins
from bastion.knowledge import Known
from bastion.lobby import Lobby
from bastion.metrics import Metrics, Sources, Tally
from bastion.pubkeys import Ages, KeyCache, PodKeys, PodLimits
from bastion.registry import Registry
from bastion.relay.limits import default_algorithms, has_fast_aes
from bastion.relay.wire import Entrance
from bastion.relay.wire import HostKey as ShownKey
from bastion.reports import Reports
from bastion.server import Door
from bastion.settings import Settings
from bastion.surroundings import audit_stream, cpuinfo, private_directory
from bastion.target import Reach
from bastion.waitingroom import WaitingRoom
from ca.audit import AuditLog, Event


class Parts:
    """All of one process; what each is for stands in its own module."""

    def __init__(
        self,
        settings: Settings,
        audit_stream: TextIO,
        directory: EnrolledDirectory | PodDirectory,
        clock: Callable[[], float],
        prefix: str,
    ) -> None:
        self._settings = settings
        self._audit = AuditLog(audit_stream)
        self.tally = Tally()
        limits = relay_limits(settings, self.tally.reached)
        room = room_for(settings)
        fast_aes = has_fast_aes(cpuinfo())
        self.host_key = HostKey(settings.state_directory)
        self.store = AuthorityStore(settings.state_directory)
        self.authority = Authority(
            settings.api.url, read_secret(settings.api.secret_file), allow_plain_http=settings.api.allow_http
        )
        self.known = Known(max_age=settings.directory.max_age, word=self.store.load())
        self.directory = directory
        self.pod_keys = PodKeys(settings.pods.networks, PodLimits(seconds=settings.keys.fetch_timeout))
        self.keys = KeyCache(
            self.directory,
            self.pod_keys.fetch,
            ages=Ages(full=settings.keys.full_after, partial=settings.keys.partial_after),
            clock=clock,
        )
        self.hops = HopCertificates(self.authority)
        self.reports = Reports(self.authority, time.time)
        self.registry: Registry[Inside] = Registry(
            session_limits(settings, room), hit=self.tally.reached, came=self.reports.came, went=self.reports.went
        )
        self.commands = Commands(self.registry, self.keys, prefix)
        self.reach = Reach(
            hops=self.hops,
            trust=lambda: self.known.trust,
            zone=lambda: self.known.zone,
            networks=settings.pods.networks,
            limits=limits,
            algorithms=default_algorithms(fast_aes=fast_aes),
            lost=lambda pod: self.directory.lost(pod.instance),
            failed=self.tally.pod_failed,
            jump_name=min(settings.login.jump_names, default="jump"),
        )
        self.browser = BrowserLogins(
            LoginDesk(self.authority),
            enabled=settings.login.interactive,
            jump_names=frozenset(settings.login.jump_names),
            jumps=settings.login.interactive_jump,
            seconds=settings.login.interactive_seconds,
        )
        self.house = House(
            authenticator=Authenticator(
                knowledge=self.known,
                directory=self.directory,
                keys=self.keys,
                rules=DoorRules(
                    jump_names=frozenset(settings.login.jump_names),
                    raw_keys=settings.login.raw_keys,
                    raw_keys_direct=settings.login.raw_keys_direct,
                ),
                max_age=settings.directory.max_age,
                wall=time.time,
                clock=time.monotonic,
            ),
            browser=self.browser,
            directory=self.directory,
            registry=self.registry,
            reach=self.reach,
            note=self.note,
            wall=time.time,
            zone=lambda: self.known.zone,
            cut_at_expiry=settings.login.cut_at_expiry,
        )
        self.entrance = Entrance(
            lambda link: Door(self.house, link),
            self.shown_keys(),
            limits,
            default_algorithms(fast_aes=fast_aes, also=settings.listen.also_offer),
        )
        self.hall = Hall(
            Lobby(lobby_limits(settings, room), hit=self.tally.reached),
            self.entrance,
            self.house,
            WaitingRoom(waiting_limits(settings, room), clock=time.monotonic, hit=self.tally.reached),
            Proxies(settings.proxy.networks, settings.proxy.timeout),
        )
        self.metrics = Metrics(
            Sources(
                tally=self.tally,
                hall=self.hall,
                registry=self.registry,
                keys=self.keys,
                hops=self.hops,
                directory=self.directory,
                pods_unusable=lambda: self.directory.unusable if isinstance(self.directory, PodDirectory) else {},
                known=self.known,
                authority=self.authority,
                audit_lost=lambda: self._audit.lost,
                clock=time.monotonic,
            )
        )
        self.informed = asyncio.Event()
        """Set as soon as it is known whom to trust."""
        if self.known.word is not None:
            self.informed.set()

    @classmethod
    async def make(
        cls,
        settings: Settings,
        stack: AsyncExitStack,
        clock: Callable[[], float] = time.monotonic,
        prefix: str = "",
    ) -> Self:
        """Make the parts, and see to it that they are closed. `clock` is that of the key cache's ages; `prefix` is put
        before the numbers of sessions."""
        private_directory(settings.state_directory)
        stream = audit_stream(settings.log.audit_file)
        if stream is not sys.stdout:
            stack.callback(stream.close)
        directory = await open_directory(settings.directory, os.environ, stack)
        bastion = cls(settings, stream, directory, clock, prefix)
        stack.push_async_callback(bastion.authority.aclose)
        stack.push_async_callback(bastion.pod_keys.aclose)
        stack.push_async_callback(bastion.keys.aclose)
        return bastion

    def note(self, event: Event) -> None:
        """Write an audit line."""
        self.tally.saw(event)
        self._audit.write(event, time.time())

    def shown_keys(self) -> list[ShownKey]:
        """The host key as clients see it: with its certificate, as soon as there is one."""
        key = self.host_key
        plain = ShownKey(key.private)
        return [ShownKey(key.private, key.certificate)] if key.certificate is not None else [plain]
