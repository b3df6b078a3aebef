"""Why: page, token, device and renewal all end here, so here no certificate leaves without its record."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.errors import StoreUnavailable
from api.issue import claims_for, issue, revoke_serial, revoke_server, revoke_user
from ca.claims import Claims, Running, TokenKind, TokenOwner, Via
from ca.errors import Reason, Refusal
from ca.keys import parse_public_key
from ca.names import Instance, Server
from ca.policy import CertificateRequest
from ca.signer import Signed
from tests.support.hub import Hub
from tests.support.ports import Ports, new_key, open_ports
from tests.support.ssh_keygen import show

ALICE = Running(instance=Instance(Server("alice", "gpu"), 5), ready=True)
CLAIMS = Claims(user="alice", kind=TokenKind.BROWSER, running=(ALICE,))
NOTHING = Claims(user="alice", kind=TokenKind.BROWSER)


def request() -> CertificateRequest:
    return CertificateRequest(key=parse_public_key(new_key()), peer="192.0.2.7")


async def test_a_certificate_is_recorded_audited_and_what_openssh_reads(lone: Ports) -> None:
    asked = request()
    signed = await issue(lone.services, asked, CLAIMS, "page", "192.0.2.7")
    assert isinstance(signed, Signed)
    shown = show(signed.line)
    assert (shown.key_id, shown.principals, shown.serial) == ("alice", (ALICE.instance.principal,), signed.serial)
    assert shown.fingerprint == asked.key.fingerprint
    (record,) = await lone.services.store.certificates_of("alice", lone.clock.now)
    assert (record.serial, record.principals, record.how) == (signed.serial, signed.principals, "page")
    assert (record.valid_before, record.address) == (shown.valid_before, "192.0.2.7")
    (line,) = lone.events()
    assert (line["audit"], line["serial"]) == ("certificate_issued", str(signed.serial))


async def test_a_refusal_leaves_one_audit_line_and_no_record(lone: Ports) -> None:
    refusal = await issue(lone.services, request(), NOTHING, "page", "192.0.2.7")
    assert isinstance(refusal, Refusal)
    assert [(line["audit"], line["reason"]) for line in lone.events()] == [("certificate_refused", "no_server")]
    assert await lone.services.store.certificates_of("alice", lone.clock.now) == ()


async def test_no_certificate_leaves_while_its_record_cannot_be_kept(lone: Ports, tmp_path: Path) -> None:
    (tmp_path / "state" / "api.sqlite").unlink()
    with pytest.raises(StoreUnavailable):
        await issue(lone.services, request(), CLAIMS, "page", None)
    assert lone.events() == []
    lone.clock.advance(1)
    await lone.services.roster.read_store()
    assert isinstance(await issue(lone.services, request(), CLAIMS, "page", None), Signed)


async def test_revocations_reach_the_list_and_the_audit_log(lone: Ports) -> None:
    version = lone.services.roster.state().version
    await revoke_serial(lone.services, 1 << 40, "alice", "lost")
    await revoke_user(lone.services, "bob", "admin", "left")
    await revoke_server(lone.services, Server("alice", "gpu"), "admin", "moved")
    state = lone.services.roster.state()
    assert state.version != version
    assert state.body["revocations"]["serials"] == [str(1 << 40)]
    assert [line["audit"] for line in lone.events()] == ["revoked"] * 3


async def test_claims_hold_own_and_shared_servers_and_an_admins_only_where_that_is_switched_on(
    hub: Hub, ports: Ports, tmp_path: Path
) -> None:
    await hub.start_server("alice", "gpu")
    await hub.start_server("alice", "web")
    await hub.start_server("bob")
    await hub.share("alice", "gpu", "bob")
    await hub.share("alice", "web", "bob", ["access:servers"])
    bob = await claims_for(ports.services, TokenOwner("bob", TokenKind.ACCESS))
    assert isinstance(bob, Claims)
    assert {one.server: one.via for one in bob.running} == {
        Server("bob"): Via.OWN,
        Server("alice", "gpu"): Via.SHARED,
    }
    own = await claims_for(ports.services, TokenOwner("bob", TokenKind.SERVER, Server("bob")))
    assert isinstance(own, Claims)
    assert [one.server for one in own.running] == [Server("bob")]
    admin = TokenOwner("admin", TokenKind.BROWSER)
    off = await claims_for(ports.services, admin, admin=True)
    assert isinstance(off, Claims)
    assert off.running == ()
    async with open_ports(hub, tmp_path / "other", CERTIFICATES_ADMIN_SSH="true") as other:
        on = await claims_for(other.services, admin, admin=True)
        assert isinstance(on, Claims)
        assert {one.via for one in on.running} == {Via.ADMIN}
        token = await claims_for(other.services, TokenOwner("admin", TokenKind.ACCESS), admin=True)
        assert isinstance(token, Claims)
        assert token.running == ()


async def test_a_user_whom_jupyterhub_forgot_gets_nothing(hub: Hub, ports: Ports) -> None:
    refusal = await claims_for(ports.services, TokenOwner("nobody", TokenKind.BROWSER))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOT_A_USER
