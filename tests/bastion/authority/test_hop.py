"""Hop certificates: one question however many wait, kept until they are nearly over, good while the api is down."""

import asyncio

import asyncssh
import pytest

from bastion.authority import AuthorityRefused, AuthorityUnavailable, Hop, HopCertificates, Issued, Proof
from ca.keys import PublicKey
from ca.limits import ALL, Capabilities, Capability
from ca.names import Instance, Server
from tests.support.clock import Clock
from tests.support.pods import LIMIT

GPU, OTHER = Instance(Server("alice", "gpu"), 1), Instance(Server("alice"), 1)
PROOF = Proof(certificate="alice's certificate")
CA = asyncssh.generate_private_key("ssh-ed25519")
LIFE = 300


class Issuer:
    """Signs with a CA of its own; `error` makes it fail, `hold` makes it wait."""

    def __init__(self, wall: Clock) -> None:
        self.wall = wall
        self.asked: list[tuple[Instance, Proof]] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.swap: PublicKey | None = None
        self.line: str | None = None

    async def hop_certificate(
        self,
        instance: Instance,
        public_key: PublicKey,
        *,
        certificate: str | None,
        raw_key: str | None,
        peer: str | None,
    ) -> Issued:
        self.asked.append((instance, Proof(certificate, raw_key, peer)))
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        subject = asyncssh.import_public_key((self.swap or public_key).line)
        end = int(self.wall()) + LIFE
        signed = CA.generate_user_certificate(
            subject, "alice", principals=[instance.principal], valid_after=0, valid_before=end
        )
        return Issued(self.line or signed.export_certificate().decode(), end)


class Setting:
    def __init__(self, **more: int) -> None:
        self.wall = Clock(1_000_000.0)
        self.issuer = Issuer(self.wall)
        self.hops = HopCertificates(self.issuer, wall=self.wall, **more)

    async def hop(
        self, identity: str = "alice", instance: Instance = GPU, may: Capabilities = ALL, proof: Proof = PROOF
    ) -> Hop:
        async with asyncio.timeout(LIMIT):
            return await self.hops.hop(identity, instance, may, proof)


async def test_a_hop_is_a_key_of_its_own_with_its_certificate() -> None:
    setting = Setting()
    hop = await setting.hop()
    private, certificate = hop.client_key
    assert certificate.key.public_data == private.public_data
    assert setting.issuer.asked == [(GPU, PROOF)]
    other = await setting.hop("bob")
    assert other.key.public_data != hop.key.public_data
    assert "PRIVATE" not in repr(hop)
    assert "key=" not in repr(hop)


async def test_it_is_kept_until_a_minute_before_its_end() -> None:
    setting = Setting()
    first = await setting.hop()
    setting.wall.advance(LIFE - 60.1)
    assert await setting.hop() is first
    setting.wall.advance(0.1)
    assert await setting.hop() is not first
    assert len(setting.issuer.asked) == 2


async def test_a_kept_one_works_while_the_api_is_down_and_then_no_more() -> None:
    setting = Setting()
    first = await setting.hop()
    setting.issuer.error = AuthorityUnavailable("down")
    assert await setting.hop() is first
    setting.wall.advance(LIFE)
    with pytest.raises(AuthorityUnavailable):
        await setting.hop()
    setting.issuer.error = None
    assert await setting.hop() is not first


async def test_another_person_instance_or_set_of_capabilities_gets_another() -> None:
    setting = Setting()
    await setting.hop()
    await setting.hop("bob")
    await setting.hop(instance=OTHER)
    await setting.hop(may=frozenset({Capability.PTY}))
    assert len(setting.issuer.asked) == len(setting.hops) == 4


async def test_a_raw_key_is_shown_as_such() -> None:
    setting = Setting()
    proof = Proof(raw_key="SHA256:x", peer="192.0.2.1")
    await setting.hop("key:SHA256:x", proof=proof)
    assert setting.issuer.asked == [(GPU, proof)]


async def test_however_many_wait_the_api_is_asked_once() -> None:
    setting = Setting()
    setting.issuer.hold = asyncio.Event()
    waiting = [asyncio.ensure_future(setting.hop()) for _ in range(20)]
    await asyncio.sleep(0)
    setting.issuer.hold.set()
    assert len(set(map(id, await asyncio.gather(*waiting)))) == 1
    assert len(setting.issuer.asked) == 1


async def test_somebody_who_gives_up_leaves_the_answer_to_the_others() -> None:
    setting = Setting()
    setting.issuer.hold = asyncio.Event()
    first, second = (asyncio.ensure_future(setting.hop()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    setting.issuer.hold.set()
    assert isinstance(await second, Hop)


async def test_an_error_that_nobody_waits_for_any_more_is_not_shouted_about() -> None:
    setting = Setting()
    setting.issuer.hold = asyncio.Event()
    setting.issuer.error = AuthorityUnavailable("down")
    alone = asyncio.ensure_future(setting.hop())
    await asyncio.sleep(0)
    alone.cancel()
    setting.issuer.hold.set()
    await asyncio.gather(*setting.hops._asking.values(), return_exceptions=True)
    assert len(setting.hops) == 0


async def test_a_refusal_is_not_remembered_and_not_shared_with_another_proof() -> None:
    setting = Setting()
    setting.issuer.error = AuthorityRefused("revoked", "Your certificate was revoked.")
    with pytest.raises(AuthorityRefused):
        await setting.hop()
    setting.issuer.error = None
    assert isinstance(await setting.hop(proof=Proof(certificate="a newer one")), Hop)


async def test_a_certificate_for_another_key_or_none_at_all_is_an_outage() -> None:
    from tests.support.pods import key

    setting = Setting()
    setting.issuer.swap = key(1)
    with pytest.raises(AuthorityUnavailable, match="another key"):
        await setting.hop()
    setting.issuer.line = "ssh-ed25519-cert-v01@openssh.com AAAA"
    with pytest.raises(AuthorityUnavailable, match="cannot be read"):
        await setting.hop()
    assert len(setting.hops) == 0


async def test_the_least_used_goes_when_there_are_too_many_and_a_gone_instance_goes_at_once() -> None:
    setting = Setting(max_entries=2)
    await setting.hop("a")
    await setting.hop("b")
    await setting.hop("a")
    await setting.hop("c")
    await setting.hop("a")
    assert len(setting.issuer.asked) == 3
    setting.hops.forget(GPU)
    assert len(setting.hops) == 0
