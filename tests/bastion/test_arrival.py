"""Why: a script asks for a certificate and calls ssh in the same second, before the bastion has heard of the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest

from bastion import arrival
from bastion.admission import Admission, How, not_ready, stopped
from bastion.arrival import SETTLE_SECONDS, Arrival
from bastion.auth import Authenticator
from bastion.interactive import BrowserLogins
from bastion.relay.front import ClientLink
from ca import audit
from ca.certificate import blob_of
from ca.errors import Reason, Refusal
from ca.keys import PublicKey, parse_public_key
from ca.limits import ALL
from ca.names import Instance, Server
from ca.policy import Grant
from ca.revocation import make_serial
from ca.signer import FileSigner

ALICE = Instance(Server("alice"), 1763000000000000)
MADE = 1763000000.0
STOPPED = stopped(ALICE.server)


@dataclass
class Judge:
    """Stands where authentication does: says one thing after the other, the last for ever."""

    sayings: list[Admission | Refusal]
    now: float = MADE
    asked: int = 0

    def wall(self) -> float:
        return self.now

    async def judge(self, login: str, blob: bytes, peer: str, *, held: bool, told: bool) -> Admission | Refusal:
        assert (login, peer, held, told) == ("alice", "192.0.2.1", False, False)
        self.asked += 1
        return self.sayings[min(self.asked, len(self.sayings)) - 1]


@dataclass
class Link:
    peer: tuple[str, int] = ("192.0.2.1", 40000)


@dataclass
class Place:
    key: PublicKey
    certificate: bytes
    noted: list[audit.Event] = field(default_factory=list)

    @property
    def admission(self) -> Admission:
        return Admission("alice", How.CERTIFICATE, "alice", self.key, ALICE, (ALICE,), ALL)

    async def proves(self, judge: Judge, blob: bytes | None = None) -> arrival.Verdict:
        one = Arrival(
            cast("Authenticator", judge), cast("BrowserLogins", None), self.noted.append, cast("ClientLink", Link())
        )
        return await one.prove("alice", self.certificate if blob is None else blob)

    @property
    def reasons(self) -> Sequence[Any]:
        return [event.reason for event in self.noted if isinstance(event, audit.ConnectionRefused)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(arrival, "_LOOK_AGAIN_SECONDS", 0)
    (tmp_path / "ca").mkdir(mode=0o700)
    key = parse_public_key(asyncssh.generate_private_key("ssh-ed25519").export_public_key())
    serial, begin = make_serial(int(MADE * 1000), 1), int(MADE) - 60
    grant = Grant("alice", key, serial, (ALICE,), ALL, begin, begin + 3600, None, as_admin=False)
    return Place(key, blob_of(FileSigner(tmp_path / "ca", None).sign_user(grant).line))


@pytest.mark.parametrize("before", [STOPPED, not_ready(ALICE.server)], ids=["not heard of", "not ready"])
async def test_a_new_certificate_waits_for_the_news_of_the_start_that_it_stands_for(
    place: Place, before: Refusal
) -> None:
    judge = Judge([before, before, place.admission])
    assert (await place.proves(judge)).ok
    assert judge.asked == 3
    assert not place.reasons


async def test_a_certificate_that_is_not_new_is_judged_once(place: Place) -> None:
    judge = Judge([STOPPED, place.admission], now=MADE + SETTLE_SECONDS)
    verdict = await place.proves(judge)
    assert (verdict.ok, verdict.sentence) == (False, STOPPED.sentence)
    assert judge.asked == 1
    assert place.reasons == [Reason.SERVER_STOPPED]


async def test_what_no_news_can_change_is_said_at_once(place: Place) -> None:
    judge = Judge([Refusal(Reason.REVOKED, "Your certificate was revoked."), place.admission])
    assert not (await place.proves(judge)).ok
    assert judge.asked == 1
    assert place.reasons == [Reason.REVOKED]


async def test_waiting_has_an_end_though_the_clock_of_the_signer_is_ahead(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "SETTLE_SECONDS", 0.05)
    judge = Judge([STOPPED], now=MADE - 3600)
    assert not (await place.proves(judge)).ok
    assert judge.asked > 1
    assert place.reasons == [Reason.SERVER_STOPPED]


async def test_a_plain_key_waits_for_nothing(place: Place) -> None:
    judge = Judge([STOPPED, place.admission])
    assert not (await place.proves(judge, place.key.blob)).ok
    assert judge.asked == 1
