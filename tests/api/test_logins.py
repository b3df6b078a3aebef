"""Why: a code that works twice, or for whoever was denied, is a certificate in the wrong hands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import select

from api import logins, tables, waiting
from api.logins import Begun, Bounds, Kind, Login, NewLogin, State, TooFast
from api.records import BrowserLogin, CertificateRecord
from api.routes.certificates import MAX_LIFETIME
from api.settings import LoginSettings
from api.store import Store
from api.waiting import ALPHABET
from ca.errors import Reason, Refusal
from ca.keys import parse_public_key
from ca.revocation import make_serial
from tests.support.ports import new_key

NOW = 1_800_000_000_000
BROWSER = BrowserLogin(at=NOW // 1000 - 60, ends_at=NOW // 1000 + 3600, made="2026-01-01")


def wanted(kind: Kind = Kind.DEVICE, address: str | None = "192.0.2.7") -> NewLogin:
    key = parse_public_key(new_key())
    return NewLogin(kind, key, address, "laptop", "alice+gpu", 600, start=True)


async def begun(store: Store, new: NewLogin | None = None, now_ms: int = NOW, bounds: Bounds = logins.BOUNDS) -> Begun:
    made = await logins.begin(store, new or wanted(), now_ms, bounds)
    assert isinstance(made, Begun)
    return made


async def found(store: Store, user_code: str) -> Login:
    login = await logins.by_code(store, user_code)
    assert login is not None
    return login


def record(random_bits: int = 1) -> CertificateRecord:
    return CertificateRecord(
        make_serial(NOW, random_bits), "user", "alice", "SHA256:x", ("alice/:5",), 1, 2, NOW, "device"
    )


async def test_a_login_remembers_what_was_asked_for(store: Store) -> None:
    new = wanted()
    made = await begun(store, new)
    login = await found(store, made.user_code)
    assert login.wanted == new
    assert (login.state, login.created_at, login.expires_at) == (State.PENDING, NOW, NOW + 600_000)
    assert made.expires_at == NOW // 1000 + 600


async def test_the_longest_lifetime_that_may_be_asked_for_is_remembered(store: Store) -> None:
    new = replace(wanted(), lifetime=MAX_LIFETIME)
    assert (await found(store, (await begun(store, new)).user_code)).wanted == new


async def test_codes_have_no_vowels_and_are_found_as_people_type_them(store: Store) -> None:
    made = await begun(store)
    assert re.fullmatch(f"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}", made.user_code)
    letters = made.user_code.replace("-", "").lower()
    for typed in (letters, f" {letters[:4]} {letters[4:]} ", made.user_code):
        assert (await found(store, typed)).user_code == made.user_code


@pytest.mark.parametrize("typed", ["", "-", "AEIOUAEI", "BCDF-GHJ", "BCDFGHJKL", "BCDF-GHJ\0", "ß" * 8, "B" * 9999])
async def test_what_can_be_no_code_is_not_looked_up(store: Store, typed: str) -> None:
    assert logins.read_code(typed) is None
    assert await logins.by_code(store, typed) is None


async def test_the_device_code_is_nowhere_in_the_database(store: Store) -> None:
    made = await begun(store)
    async with store.reading() as connection:
        row = (await connection.execute(select(tables.logins))).one()
    assert made.device_code not in str(row)
    assert made.device_code not in repr(made)


async def test_approved_it_is_taken_once_with_its_certificate(store: Store) -> None:
    made = await begun(store)
    login = await found(store, made.user_code)
    assert await logins.approve(store, login, "alice", BROWSER, NOW + 1)
    polled = await logins.poll(store, made.device_code, Kind.DEVICE, NOW + 2)
    assert isinstance(polled, Login)
    assert (polled.state, polled.user, polled.browser) == (State.APPROVED, "alice", BROWSER)
    assert await logins.keep(store, polled, record()) is None
    assert await store.certificate(record().serial) == record()
    again = await logins.keep(store, polled, record(2))
    assert isinstance(again, Refusal)
    assert again.reason == Reason.INVALID_GRANT
    assert await store.certificate(record(2).serial) is None
    assert not await logins.spend(store, polled)


async def test_of_many_who_collect_at_once_one_gets_a_certificate(stores: Callable[[str], Store]) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    made = await begun(one)
    await logins.approve(one, await found(one, made.user_code), "alice", BROWSER, NOW)
    login = await found(one, made.user_code)
    collected = await asyncio.gather(*(logins.keep((one, two)[at % 2], login, record(at)) for at in range(8)))
    assert [answer for answer in collected if answer is None] == [None]
    assert len(await one.certificates_of("alice", 0)) == 1


async def test_of_two_who_decide_at_once_one_does(stores: Callable[[str], Store]) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    login = await found(one, (await begun(one)).user_code)
    decided = await asyncio.gather(
        logins.approve(one, login, "alice", BROWSER, NOW),
        logins.approve(two, login, "bob", BROWSER, NOW),
        logins.deny(one, login, "alice", NOW),
        logins.deny(two, login, "bob", NOW),
    )
    assert sorted(decided) == [False, False, False, True]


async def test_what_was_denied_or_is_too_late_cannot_be_approved_or_taken(store: Store) -> None:
    denied = await found(store, (await begun(store)).user_code)
    assert await logins.deny(store, denied, "alice", NOW)
    assert not await logins.approve(store, denied, "alice", BROWSER, NOW)
    assert isinstance(await logins.keep(store, denied, record()), Refusal)
    late = await found(store, (await begun(store)).user_code)
    assert not await logins.approve(store, late, "alice", BROWSER, NOW + 600_000)
    assert not await logins.deny(store, late, "alice", NOW + 600_000)
    assert isinstance(await logins.keep(store, late, record()), Refusal)


async def test_an_approval_gives_the_client_ten_minutes_more(store: Store) -> None:
    made = await begun(store)
    await logins.approve(store, await found(store, made.user_code), "alice", BROWSER, NOW + 599_000)
    login = await found(store, made.user_code)
    assert not login.is_over(NOW + 1_198_999)
    assert login.is_over(NOW + 1_199_000)


async def test_a_client_that_asks_too_soon_has_to_leave_longer_pauses(store: Store) -> None:
    made = await begun(store)

    async def ask(at: int) -> Login | TooFast | None:
        return await logins.poll(store, made.device_code, Kind.DEVICE, NOW + at)

    assert isinstance(await ask(0), Login)
    assert await ask(1000) == TooFast(7)
    assert await ask(2000) == TooFast(12)
    assert isinstance(await ask(12_000), Login)
    for pause in (17, 22, 27, 32, 32):
        assert await ask(12_100) == TooFast(pause)


async def test_a_client_that_keeps_its_pause_nearly_is_answered(store: Store) -> None:
    made = await begun(store)
    for at in (0, 1600, 3100, 5200):
        assert isinstance(await logins.poll(store, made.device_code, Kind.DEVICE, NOW + at), Login)


async def test_the_bastion_may_ask_as_often_as_it_likes(store: Store) -> None:
    made = await begun(store, wanted(Kind.INTERACTIVE))
    for _ in range(3):
        assert isinstance(await logins.poll(store, made.device_code, Kind.INTERACTIVE, NOW), Login)


async def test_a_code_of_one_kind_is_nothing_to_the_other(store: Store) -> None:
    device, ssh = await begun(store), await begun(store, wanted(Kind.INTERACTIVE))
    assert await logins.poll(store, device.device_code, Kind.INTERACTIVE, NOW) is None
    assert await logins.poll(store, ssh.device_code, Kind.DEVICE, NOW) is None
    assert await logins.poll(store, "never given", Kind.DEVICE, NOW) is None
    assert await logins.poll(store, "\ud800\0", Kind.DEVICE, NOW) is None


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        (None, None, "192.0.2.7"),
    ],
)
async def test_only_so_many_logins_of_one_network_wait(
    store: Store, one: str | None, same: str | None, other: str | None
) -> None:
    bounds = Bounds(of_network=2)
    first = await begun(store, wanted(address=one), NOW, bounds)
    await begun(store, wanted(address=same), NOW, bounds)
    refusal = await logins.begin(store, wanted(address=same), NOW, bounds)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == Reason.TOO_MANY
    await begun(store, wanted(address=other), NOW, bounds)
    await logins.approve(store, await found(store, first.user_code), "alice", BROWSER, NOW)
    await begun(store, wanted(address=one), NOW, bounds)
    await begun(store, wanted(address=one), NOW + 600_000, bounds)


async def test_a_class_of_300_behind_one_nat_may_wait_at_once_on_the_defaults(store: Store) -> None:
    settings = LoginSettings()
    bounds = Bounds(in_all=settings.waiting, of_network=settings.waiting_per_address)
    for _ in range(300):
        await begun(store, replace(wanted(), kind=Kind.INTERACTIVE), NOW, bounds)


async def test_only_so_many_logins_of_one_ipv6_site_wait(store: Store) -> None:
    bounds = Bounds(of_network=2)
    for number in range(10):
        await begun(store, wanted(address=f"2001:db8:0:{number:x}::1"), NOW, bounds)
    assert isinstance(await logins.begin(store, wanted(address="2001:db8:0:ff::1"), NOW, bounds), Refusal)
    await begun(store, wanted(address="2001:db8:1::1"), NOW, bounds)


async def test_when_all_places_are_taken_the_oldest_of_the_network_with_the_most_gives_way(store: Store) -> None:
    bounds = Bounds(in_all=4, of_network=2)
    one = await begun(store, wanted(address="192.0.2.1"), NOW, bounds)
    crowd = [await begun(store, wanted(address=f"2001:db8:0:{at}::1"), NOW + 1 + at, bounds) for at in range(3)]
    late = await begun(store, wanted(address="192.0.2.2"), NOW + 10, bounds)
    for begun_one, waits in ((one, True), (crowd[0], False), (crowd[1], True), (crowd[2], True), (late, True)):
        login = await found(store, begun_one.user_code)
        assert (login.state, not login.is_over(NOW + 10)) == (State.PENDING, waits)
    assert not await logins.approve(store, await found(store, crowd[0].user_code), "alice", BROWSER, NOW + 10)


async def test_clients_and_ssh_connections_take_no_places_from_each_other(store: Store) -> None:
    bounds = Bounds(in_all=1)
    device = await begun(store, wanted(address="192.0.2.1"), NOW, bounds)
    await begun(store, replace(wanted(address="192.0.2.2"), kind=Kind.INTERACTIVE), NOW, bounds)
    assert not (await found(store, device.user_code)).is_over(NOW)


async def test_a_code_that_somebody_has_is_not_given_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = iter("BBBBBBBB" + "BBBBBBBB" + "CCCCCCCC")
    monkeypatch.setattr(waiting.secrets, "choice", lambda _: next(letters))
    assert (await begun(store)).user_code == "BBBB-BBBB"
    assert (await begun(store)).user_code == "CCCC-CCCC"


async def test_a_key_is_known_as_anothers_when_somebody_else_was_given_a_certificate_for_it(store: Store) -> None:
    await store.record(record())
    assert await logins.is_known_as_anothers(store, "SHA256:x", "bob")
    assert not await logins.is_known_as_anothers(store, "SHA256:x", "alice")
    assert not await logins.is_known_as_anothers(store, "SHA256:y", "bob")
    await store.record(replace(record(2), kind="host", fingerprint="SHA256:h"))
    assert not await logins.is_known_as_anothers(store, "SHA256:h", "bob")


async def test_the_store_forgets_old_logins(store: Store) -> None:
    made = await begun(store)
    await store.refresh(NOW + 2 * 86400 * 1000)
    assert await logins.by_code(store, made.user_code) is None


@pytest.mark.parametrize("everyone", [False, True])
async def test_what_was_revoked_after_the_approval_is_not_fetched(
    stores: Callable[[str], Store], everyone: bool
) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    login = await found(one, (await begun(one)).user_code)
    await logins.approve(one, login, "alice", BROWSER, NOW)
    approved = await found(one, login.user_code)
    await (two.revoke_everyone(NOW + 1) if everyone else two.revoke_user("alice", "admin", "test", NOW + 1))
    refusal = await logins.keep(one, approved, record())
    assert isinstance(refusal, Refusal)
    assert refusal.reason == Reason.ACCESS_DENIED
    assert await one.certificate(record().serial) is None
