"""Why: no grant ever widens. Whatever is asked, claimed and configured, a certificate holds no more than all three."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ca.certificate import MAX_CERTIFICATE_BYTES, blob_of
from ca.claims import Claims, Running, TokenKind, Via
from ca.errors import Reason, Refusal
from ca.limits import ALL, Capability, extensions_for, usable
from ca.names import Instance, Server
from ca.policy import (
    CLOCK_SKEW,
    HOP_LIFETIME,
    CertificateRequest,
    Grant,
    GroupRule,
    HopGrant,
    Rules,
    decide,
    decide_hop,
    decide_key_hop,
)
from ca.revocation import Revocations, issued_ms
from ca.trust import Presented, examine
from tests.ca import strategies
from tests.ca.makers import NOW, CheckedSigner, public_key

KEY = public_key()


def run(owner: str, name: str = "", number: int = 17, *, ready: bool = True, via: Via = Via.OWN) -> Running:
    return Running(Instance(Server(owner, name), number), ready=ready, via=via)


def ask(claims: Claims, rules: Rules | None = None, now: float = NOW, **asked: object) -> Grant | Refusal:
    return decide(CertificateRequest(key=KEY, **asked), claims, rules or Rules(), now, 5)  # type: ignore[arg-type]


def granted(answer: Grant | Refusal) -> Grant:
    assert isinstance(answer, Grant), answer
    return answer


def reason(answer: Grant | HopGrant | Refusal) -> Reason:
    assert isinstance(answer, Refusal), answer
    assert answer.sentence.endswith(".")
    return answer.reason


def hold(request: CertificateRequest, claims: Claims, rules: Rules, now: float, grant: Grant) -> None:
    """What must be true of any grant."""
    claimed = {one.instance: one for one in claims.running}
    assert grant.instances
    assert len(set(grant.instances)) <= 256
    for instance in grant.instances:
        assert instance in claimed
    rows = [one for one in claims.running if one.instance in grant.instances]
    if request.servers is not None:
        assert {instance.server for instance in grant.instances} == set(request.servers)
    for instance in grant.instances:
        assert any(one.instance == instance and one.ready for one in rows)
        if all(one.via is Via.ADMIN for one in rows if one.instance == instance):
            assert rules.admin_ssh
            assert claims.admin
            assert claims.kind is TokenKind.BROWSER
            assert request.servers is not None
            assert instance.server in request.servers
            assert grant.as_admin
    lifetime = grant.valid_before - now
    assert 0 < lifetime <= rules.lifetime
    if any(all(one.via is not Via.OWN for one in rows if one.instance == instance) for instance in grant.instances):
        assert lifetime <= rules.shared_lifetime
    if request.lifetime is not None:
        assert lifetime <= request.lifetime
    if claims.until is not None:
        assert grant.valid_before <= claims.until
    assert grant.valid_after < now < grant.valid_before
    allowed = set(rules.capabilities)
    for group in claims.groups & set(rules.groups):
        allowed |= rules.groups[group].allow
    for group in claims.groups & set(rules.groups):
        allowed -= rules.groups[group].deny
    assert grant.capabilities
    assert grant.capabilities == usable(frozenset(allowed))
    assert (grant.source_address is not None) is rules.bind_source_address
    assert (grant.user, grant.key) == (claims.user, request.key)
    assert issued_ms(grant.serial) == int(now * 1000)


@settings(max_examples=200)
@given(strategies.requests, strategies.claims, strategies.rules, st.integers(0, 1 << 30))
def test_no_grant_ever_widens(request: CertificateRequest, claims: Claims, rules: Rules, random_bits: int) -> None:
    answer = decide(request, claims, rules, NOW, random_bits)
    if isinstance(answer, Refusal):
        event(answer.reason)
        assert answer.sentence.endswith(".")
        return
    event("granted")
    hold(request, claims, rules, NOW, answer)


_willing = st.builds(
    replace, strategies.claims, until=st.none() | st.floats(NOW + 100, NOW + 1e6), admin=st.just(True)
).map(lambda claims: replace(claims, running=(*claims.running, run("alice", "own"))))


@settings(max_examples=60)
@given(strategies.requests, _willing, strategies.rules, st.booleans())
def test_no_certificate_says_more_than_its_grant(
    signer: CheckedSigner, request: CertificateRequest, claims: Claims, rules: Rules, narrow: bool
) -> None:
    request = replace(request, lifetime=None, servers=request.servers if narrow else None)
    answer = decide(request, claims, replace(rules, admin_ssh=True), NOW, 3)
    if isinstance(answer, Refusal):
        event(answer.reason)
        return
    event("granted")
    made = signer.sign_user(answer)
    assert made.principals == tuple(one.principal for one in answer.instances)
    assert made.extensions == extensions_for(answer.capabilities)
    assert (made.valid_after, made.valid_before) == (answer.valid_after, answer.valid_before)
    shown = examine(blob_of(made.line), signer.public.user, Revocations(), NOW, answer.source_address or "192.0.2.1")
    assert shown == Presented(
        user=claims.user,
        serial=answer.serial,
        instances=answer.instances,
        capabilities=answer.capabilities,
        valid_before=answer.valid_before,
        key=KEY,
    )
    if answer.source_address is not None:
        elsewhere = examine(blob_of(made.line), signer.public.user, Revocations(), NOW, "198.51.100.77")
        assert isinstance(elsewhere, Refusal)
    for other in (signer.public.hop, signer.public.host):
        assert examine(blob_of(made.line), other, Revocations(), NOW, None) is None


ALICE = Claims(
    user="alice", kind=TokenKind.BROWSER, running=(run("alice"), run("alice", "gpu"), run("alice", "off", ready=False))
)
WITH_SHARED = replace(ALICE, running=(run("alice"), run("carol", via=Via.SHARED)))
ADMIN = replace(ALICE, admin=True, running=(run("alice"), run("dave", via=Via.ADMIN)))


def test_without_a_wish_every_ready_server_is_named() -> None:
    grant = granted(ask(ALICE))
    assert grant.instances == (run("alice").instance, run("alice", "gpu").instance)
    assert (grant.valid_after, grant.valid_before) == (int(NOW) - CLOCK_SKEW, int(NOW) + 12 * 3600)
    assert grant.capabilities == ALL
    assert grant.source_address is None
    assert not grant.as_admin


def test_a_wish_is_followed_to_the_letter() -> None:
    wish = (Server("alice", "gpu"), Server("alice", "gpu"))
    assert granted(ask(ALICE, servers=wish)).instances == (run("alice", "gpu").instance,)
    assert reason(ask(ALICE, servers=())) is Reason.NO_SERVER
    assert reason(ask(ALICE, servers=(Server("alice", "off"),))) is Reason.SERVER_NOT_RUNNING
    assert reason(ask(ALICE, servers=(Server("bob"),))) is Reason.SERVER_NOT_RUNNING
    assert reason(ask(ALICE, servers=(Server("alice"), Server("bob")))) is Reason.SERVER_NOT_RUNNING


def test_a_user_who_is_named_like_a_plain_key_cannot_pass_for_one() -> None:
    user = f"key:{KEY.fingerprint}"
    assert reason(ask(Claims(user, TokenKind.BROWSER, running=(run(user),)))) == Reason.BAD_NAME


def test_nobody_without_a_ready_server_gets_anything() -> None:
    assert reason(ask(replace(ALICE, running=()))) is Reason.NO_SERVER
    assert reason(ask(replace(ALICE, running=(run("alice", ready=False),)))) is Reason.NO_SERVER


def test_a_shared_server_shortens_the_whole_certificate() -> None:
    assert granted(ask(WITH_SHARED)).valid_before == int(NOW) + 3600
    assert granted(ask(WITH_SHARED, servers=(Server("alice"),))).valid_before == int(NOW) + 12 * 3600
    assert granted(ask(WITH_SHARED, Rules(lifetime=600))).valid_before == int(NOW) + 600


@pytest.mark.parametrize(
    ("claims", "rules", "servers", "expected"),
    [
        (ADMIN, Rules(admin_ssh=True), (Server("dave"),), None),
        (ADMIN, Rules(admin_ssh=True), (Server("alice"), Server("dave")), None),
        (ADMIN, Rules(), (Server("dave"),), Reason.SERVER_NOT_RUNNING),
        (replace(ADMIN, admin=False), Rules(admin_ssh=True), (Server("dave"),), Reason.SERVER_NOT_RUNNING),
        (replace(ADMIN, kind=TokenKind.ACCESS), Rules(admin_ssh=True), (Server("dave"),), Reason.SERVER_NOT_RUNNING),
        (replace(ADMIN, kind=TokenKind.SERVER), Rules(admin_ssh=True), (Server("dave"),), Reason.SERVER_NOT_RUNNING),
        (replace(ADMIN, running=ADMIN.running[1:]), Rules(admin_ssh=True), None, Reason.NO_SERVER),
    ],
)
def test_an_admin_enters_by_browser_by_name_and_where_the_site_allows_it(
    claims: Claims, rules: Rules, servers: tuple[Server, ...] | None, expected: Reason | None
) -> None:
    answer = ask(claims, rules, servers=servers)
    if expected is not None:
        assert reason(answer) is expected
        return
    grant = granted(answer)
    assert grant.as_admin
    assert grant.valid_before == int(NOW) + 3600


def test_an_admin_who_names_nothing_gets_own_servers_only() -> None:
    grant = granted(ask(ADMIN, Rules(admin_ssh=True)))
    assert grant.instances == (run("alice").instance,)
    assert not grant.as_admin


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (frozenset(), {Capability.PTY, Capability.EXEC}),
        ({"staff"}, {Capability.PTY, Capability.EXEC, Capability.AGENT}),
        ({"students"}, {Capability.PTY}),
        ({"staff", "students"}, {Capability.PTY, Capability.AGENT}),
        ({"strangers"}, {Capability.PTY, Capability.EXEC}),
    ],
)
def test_groups_add_and_take_and_taking_wins(groups: frozenset[str], expected: set[Capability]) -> None:
    rules = Rules(
        capabilities=frozenset({Capability.PTY, Capability.EXEC}),
        groups={
            "staff": GroupRule(allow=frozenset({Capability.EXEC, Capability.AGENT})),
            "students": GroupRule(allow=frozenset({Capability.EXEC}), deny=frozenset({Capability.EXEC})),
        },
    )
    assert granted(ask(replace(ALICE, groups=frozenset(groups)), rules)).capabilities == expected


def test_nothing_granted_is_no_certificate() -> None:
    assert reason(ask(ALICE, Rules(capabilities=frozenset()))) is Reason.NOTHING_GRANTED


@pytest.mark.parametrize(
    ("until", "expected"),
    [(NOW + 100.9, int(NOW + 100.9)), (NOW + 1e9, int(NOW) + 12 * 3600), (NOW, None), (NOW + 0.4, None), (0.0, None)],
)
def test_nothing_outlives_what_authorised_it(until: float, expected: int | None) -> None:
    answer = ask(replace(ALICE, until=until))
    if expected is None:
        assert reason(answer) is Reason.EXPIRED
    else:
        assert granted(answer).valid_before == expected


@pytest.mark.parametrize("lifetime", [59, 0, -1])
def test_a_lifetime_under_a_minute_is_refused(lifetime: int) -> None:
    assert reason(ask(ALICE, lifetime=lifetime)) is Reason.BAD_LIFETIME


def test_a_shorter_lifetime_is_given_and_a_longer_one_is_not() -> None:
    assert granted(ask(ALICE, lifetime=60)).valid_before == int(NOW) + 60
    assert granted(ask(ALICE, lifetime=10**9)).valid_before == int(NOW) + 12 * 3600


@pytest.mark.parametrize(
    ("peer", "bound"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_a_bound_certificate_counts_from_the_address_that_asked_for_it(
    signer: CheckedSigner, peer: str, bound: str
) -> None:
    grant = granted(ask(ALICE, Rules(bind_source_address=True), peer=peer))
    assert grant.source_address == bound
    blob = blob_of(signer.sign_user(grant).line)
    for shown_from in (peer, bound):
        assert isinstance(examine(blob, signer.public.user, Revocations(), NOW, shown_from), Presented)


@pytest.mark.parametrize("peer", [None, "", "testclient", "192.0.2.7,0.0.0.0/0", "0.0.0.0/0", "unix:"])
def test_without_an_address_nothing_is_bound_to_one(peer: str | None) -> None:
    assert reason(ask(ALICE, Rules(bind_source_address=True), peer=peer)) is Reason.SOURCE_ADDRESS
    assert granted(ask(ALICE, peer=peer)).source_address is None


def test_more_servers_than_a_certificate_names_have_to_be_chosen_from() -> None:
    many = replace(ALICE, running=tuple(run("alice", f"s{number}") for number in range(257)))
    assert reason(ask(many)) is Reason.TOO_MANY_SERVERS
    assert len(granted(ask(replace(many, running=many.running[:256]))).instances) == 256
    assert len(granted(ask(many, servers=(Server("alice", "s7"),))).instances) == 1


def test_names_too_long_for_one_certificate_have_to_be_chosen_from(signer: CheckedSigner) -> None:
    owner = "\U0001f600" * 255
    long = replace(
        ALICE, user=owner, running=tuple(run(owner, f"{number:03}" + "\U0001f600" * 252) for number in range(9))
    )
    assert reason(ask(long)) is Reason.TOO_MANY_SERVERS
    for count in range(1, 10):
        answer = ask(replace(long, running=long.running[:count]))
        if isinstance(answer, Grant):
            largest = replace(answer, key=public_key("rsa-4096"))
            assert len(blob_of(signer.sign_user(largest).line)) < MAX_CERTIFICATE_BYTES
    assert isinstance(ask(long, servers=(long.running[0].server,)), Grant)


PRESENTED = Presented(
    user="alice",
    serial=7,
    instances=(run("alice").instance,),
    capabilities=frozenset({Capability.PTY}),
    valid_before=int(NOW) + 1000,
    key=KEY,
)


def test_a_hop_is_for_one_named_run_and_minutes() -> None:
    answer = decide_hop(PRESENTED, run("alice").instance, KEY, NOW, 5)
    assert answer == HopGrant(
        identity="alice",
        key=KEY,
        serial=answer.serial if isinstance(answer, HopGrant) else 0,
        instance=run("alice").instance,
        capabilities=frozenset({Capability.PTY}),
        valid_after=int(NOW) - CLOCK_SKEW,
        valid_before=int(NOW) + HOP_LIFETIME,
    )


def test_a_hop_gives_no_forward_that_an_older_certificate_holds_without_commands() -> None:
    held = frozenset({Capability.PTY, Capability.LOCAL_FORWARD, Capability.STREAMLOCAL})
    answer = decide_hop(replace(PRESENTED, capabilities=held), run("alice").instance, KEY, NOW, 5)
    assert isinstance(answer, HopGrant)
    assert answer.capabilities == {Capability.PTY}


def test_administrators_are_told_what_cannot_be_had_as_it_stands() -> None:
    assert Rules().withheld == ()
    told = Rules(capabilities=frozenset({Capability.EXEC, Capability.LOCAL_FORWARD})).withheld
    assert len(told) == 1
    assert told[0].startswith("local-forward is not given to sessions, since")
    assert (
        Rules(raw_key_capabilities=frozenset({Capability.STREAMLOCAL}))
        .withheld[0]
        .startswith("streamlocal is not given to plain keys, since")
    )


@pytest.mark.parametrize("other", [run("alice", number=18), run("alice", "gpu"), run("bob")])
def test_a_hop_to_anything_else_is_refused(other: Running) -> None:
    assert reason(decide_hop(PRESENTED, other.instance, KEY, NOW, 5)) is Reason.NOT_NAMED


@pytest.mark.parametrize("left", [-100, -1, 0, 1, 299, 300, 301])
def test_a_hop_ends_with_the_certificate_that_it_is_for(left: int) -> None:
    answer = decide_hop(replace(PRESENTED, valid_before=int(NOW) + left), run("alice").instance, KEY, NOW, 5)
    if left <= 0:
        assert reason(answer) is Reason.EXPIRED
    else:
        assert isinstance(answer, HopGrant)
        assert answer.valid_before == int(NOW) + min(left, HOP_LIFETIME)


@given(strategies.rules, strategies.instances, st.data())
def test_a_hop_for_a_plain_key_has_the_limits_of_plain_keys_and_of_the_owner(
    rules: Rules, instance: Instance, data: st.DataObject
) -> None:
    groups = data.draw(st.frozensets(st.sampled_from([*rules.groups, "other"])))
    expected = usable(rules.raw_key_capabilities & rules.capabilities & rules.capabilities_of(groups))
    answer = decide_key_hop("SHA256:abc", instance, KEY, rules, groups, NOW, 5)
    if not rules.raw_keys_direct:
        assert reason(answer) is Reason.NOT_PERMITTED
    elif not expected:
        assert reason(answer) is Reason.NOTHING_GRANTED
    else:
        assert isinstance(answer, HopGrant)
        assert (answer.identity, answer.instance) == ("key:SHA256:abc", instance)
        assert answer.capabilities == expected
        assert answer.valid_before == int(NOW) + HOP_LIFETIME
