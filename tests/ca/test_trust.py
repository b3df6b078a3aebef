"""Why: `examine` is the lock on the door: who is a stranger, who hears why not, and who is let through."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.certificate import Kind, decode, encode_unsigned, string
from ca.errors import Reason, Refusal
from ca.limits import ALL, Capability, extensions_for
from ca.names import Instance, Server
from ca.revocation import Revocations, issued_ms, make_serial
from ca.trust import HELD_CONNECTION, Presented, examine, genuine
from tests.ca.makers import KEY_KINDS, NOW, ca_key, certificate, forge, public_key, signed

TRUSTED = (ca_key()[1], ca_key(1)[1], ca_key(2)[1])
ALICE, GPU = Instance(Server("alice"), 17), Instance(Server("alice", "gpu"), 18)
SERIAL = make_serial(int(NOW * 1000), 7)
EVERYTHING = tuple((name, b"") for name in extensions_for(ALL))


def judge(
    blob: bytes, now: float = NOW, peer: str | None = "192.0.2.7", revocations: Revocations | None = None
) -> Presented | Refusal | None:
    return examine(blob, TRUSTED, revocations or Revocations(), now, peer)


def reason(answer: Presented | Refusal | None) -> Reason | None:
    assert isinstance(answer, Refusal), answer
    assert answer.sentence.endswith(".")
    return answer.reason


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_genuine_certificate_says_what_it_says(kind: str) -> None:
    blob = forge(
        key_blob=public_key(kind).blob,
        serial=SERIAL,
        principals=(ALICE.principal, GPU.principal),
        extensions=EVERYTHING,
    )
    assert judge(blob) == Presented(
        user="alice",
        serial=SERIAL,
        instances=(ALICE, GPU),
        capabilities=ALL,
        valid_before=int(NOW) + 3600,
        key=public_key(kind),
    )


@pytest.mark.parametrize("ca", [0, 1, 2])
def test_the_current_next_and_previous_ca_all_count(ca: int) -> None:
    assert isinstance(judge(forge(ca)), Presented)


def test_a_certificate_of_another_ca_is_a_strangers() -> None:
    assert judge(forge(3)) is None
    assert examine(forge(), (), Revocations(), NOW, None) is None


def test_a_certificate_that_only_claims_our_ca_is_a_strangers() -> None:
    assert judge(signed(certificate(), ca_key(3)[0])) is None


def test_a_signature_of_another_kind_is_a_strangers() -> None:
    unsigned = certificate()
    data = encode_unsigned(unsigned)
    good = decode(signed(unsigned)).signature
    for signature in (b"", b"x", good[:-1], good + b"\0", good[15:], string(b"ssh-rsa") + good[15:], bytes(83)):
        assert judge(data + string(signature)) is None


def test_a_ca_that_is_not_ed25519_signs_nothing_for_us() -> None:
    rsa = public_key("rsa-3072")
    assert genuine(signed(certificate(ca_blob=rsa.blob)), (rsa,)) is None


@given(st.binary(max_size=400))
def test_random_bytes_are_a_strangers(blob: bytes) -> None:
    assert judge(blob) is None


BLOB = forge(serial=SERIAL, extensions=EVERYTHING, critical=(("source-address", string(b"192.0.2.0/24")),))


@given(st.integers(0, len(BLOB) - 1))
def test_a_truncated_certificate_is_a_strangers(at: int) -> None:
    assert judge(BLOB[:at]) is None


@settings(max_examples=200)
@given(st.integers(0, 8 * len(BLOB) - 1))
def test_a_certificate_with_a_flipped_bit_is_a_strangers(at: int) -> None:
    blob = bytearray(BLOB)
    blob[at // 8] ^= 1 << at % 8
    assert judge(bytes(blob)) is None


def test_every_single_flipped_bit_of_the_signature_is_a_strangers() -> None:
    for at in range(8 * (len(BLOB) - 64), 8 * len(BLOB)):
        blob = bytearray(BLOB)
        blob[at // 8] ^= 1 << at % 8
        assert judge(bytes(blob)) is None


@pytest.mark.parametrize("kind", [Kind.HOST, 0, 3])
def test_a_certificate_that_is_not_for_a_user_is_refused(kind: int) -> None:
    assert reason(judge(forge(kind=kind))) is Reason.WRONG_CERTIFICATE_TYPE


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (999.999, Reason.NOT_YET_VALID),
        (1000.0, None),
        (1999.999, None),
        (2000.0, Reason.EXPIRED),
        (2000.5, Reason.EXPIRED),
    ],
)
def test_valid_means_from_its_beginning_until_just_before_its_end(now: float, expected: Reason | None) -> None:
    answer = judge(forge(valid_after=1000, valid_before=2000), now=now)
    if expected is None:
        assert isinstance(answer, Presented)
    else:
        assert reason(answer) is expected


def test_a_certificate_that_ends_before_it_begins_is_never_valid() -> None:
    blob = forge(valid_after=2000, valid_before=1000)
    assert {reason(judge(blob, now=now)) for now in (999, 1000, 1500, 2000, 2001)} == {
        Reason.NOT_YET_VALID,
        Reason.EXPIRED,
    }


def test_an_empty_principal_list_is_nobodys_and_not_anybodys() -> None:
    assert reason(judge(forge(principals=()))) is Reason.NO_PRINCIPALS


@pytest.mark.parametrize(
    "principal", ["", "alice", "root", "*", "alice/:17,bob/:18", "alice/*:17", "alice/:017", "Alice/:17", "alice/:17 "]
)
def test_one_principal_outside_the_grammar_spoils_the_certificate(principal: str) -> None:
    assert reason(judge(forge(principals=(principal,)))) is Reason.BAD_PRINCIPAL
    assert reason(judge(forge(principals=(ALICE.principal, principal)))) is Reason.BAD_PRINCIPAL


def test_no_more_than_256_principals_count() -> None:
    principals = tuple(f"alice/:{number}" for number in range(1, 258))
    assert reason(judge(forge(principals=principals))) is Reason.BAD_PRINCIPAL
    assert isinstance(judge(forge(principals=principals[:256])), Presented)


@pytest.mark.parametrize(
    "name", ["force-command", "verify-required", "permit-pty", "source-address@example.org", "ü"[:0] + "x"]
)
def test_an_unknown_critical_option_refuses(name: str) -> None:
    assert reason(judge(forge(critical=((name, string(b"x")),)))) is Reason.UNKNOWN_CRITICAL_OPTION


def test_an_unknown_critical_option_beside_a_good_address_refuses() -> None:
    critical = (("source-address", string(b"192.0.2.7")), ("verify-required", b""))
    assert reason(judge(forge(critical=critical))) is Reason.UNKNOWN_CRITICAL_OPTION


@pytest.mark.parametrize(
    ("listed", "peer"),
    [
        (b"192.0.2.7", "192.0.2.7"),
        (b"192.0.2.0/24", "192.0.2.7"),
        (b"10.0.0.0/8,192.0.2.7/32", "192.0.2.7"),
        (b"192.0.2.0/24", "::ffff:192.0.2.7"),
        (b"2001:db8::/32", "2001:db8::1"),
        (b"2001:DB8::1", "2001:db8::1"),
        (b"10.0.0.0/8,2001:db8::/32", "2001:db8::1"),
        (b"0.0.0.0/0", "192.0.2.7"),
    ],
)
def test_a_bound_certificate_counts_from_its_addresses(listed: bytes, peer: str) -> None:
    assert isinstance(judge(forge(critical=(("source-address", string(listed)),)), peer=peer), Presented)


@pytest.mark.parametrize(
    ("data", "peer"),
    [
        (string(b"192.0.2.8"), "192.0.2.7"),
        (string(b"192.0.2.0/24"), "192.0.3.7"),
        (string(b"0.0.0.0/0"), "2001:db8::1"),
        (string(b"::/0"), "192.0.2.7"),
        (string(b"192.0.2.0/24"), "::ffff:192.0.3.7"),
        (string(b"192.0.2.0/24"), None),
        (string(b"192.0.2.0/24"), ""),
        (string(b"192.0.2.0/24"), "localhost"),
        (string(b"192.0.2.0/24"), "/run/socket"),
        (string(b""), "192.0.2.7"),
        (b"", "192.0.2.7"),
        (b"192.0.2.7", "192.0.2.7"),
        (string(b"192.0.2.7") + b"\0", "192.0.2.7"),
        (string(b"192.0.2.7")[:-1], "192.0.2.7"),
        (string(b"192.0.2.7,"), "192.0.2.7"),
        (string(b"192.0.2.7, 192.0.2.8"), "192.0.2.7"),
        (string(b"192.0.2.7,x"), "192.0.2.7"),
        (string(b"!192.0.2.8,192.0.2.7"), "192.0.2.7"),
        (string(b"192.0.2.*"), "192.0.2.7"),
        (string(b"192.0.2.7/24"), "192.0.2.7"),
        (string(b"192.0.2.0/255.255.255.0"), "192.0.2.7"),
        (string(b"192.0.2.0/0.0.0.255"), "192.0.2.7"),
        (string(b"192.0.2.0/33"), "192.0.2.7"),
        (string(b"\xff\xfe"), "192.0.2.7"),
    ],
)
def test_a_bound_certificate_counts_from_nowhere_else(data: bytes, peer: str | None) -> None:
    answer = judge(forge(critical=(("source-address", data),)), peer=peer)
    assert reason(answer) is Reason.SOURCE_ADDRESS


def test_a_certificate_on_a_key_that_is_not_accepted_is_refused() -> None:
    off_curve = bytearray(public_key("ecdsa-256").blob)
    off_curve[-1] ^= 1
    assert reason(judge(forge(key_blob=bytes(off_curve)))) is Reason.BAD_KEY


@pytest.mark.parametrize(
    "revocations",
    [
        Revocations(serials=frozenset({SERIAL})),
        Revocations(users={"alice": issued_ms(SERIAL) + 1}),
        Revocations(servers={ALICE.server: issued_ms(SERIAL) + 1}),
        Revocations(everyone_before=issued_ms(SERIAL) + 1),
    ],
)
def test_a_revoked_certificate_is_refused_by_each_kind_of_row(revocations: Revocations) -> None:
    blob = forge(serial=SERIAL, principals=(ALICE.principal,))
    assert reason(judge(blob, revocations=revocations)) is Reason.REVOKED


def test_a_revoked_server_is_taken_out_of_a_certificate_for_several() -> None:
    blob = forge(serial=SERIAL, principals=(ALICE.principal, GPU.principal))
    answer = judge(blob, revocations=Revocations(servers={ALICE.server: issued_ms(SERIAL) + 1}))
    assert isinstance(answer, Presented)
    assert answer.instances == (GPU,)


def test_only_an_extension_without_data_grants_what_it_names() -> None:
    answer = judge(forge(extensions=(("permit-X11-forwarding", string(b"no")), ("permit-pty", b""), ("zzz", b"1"))))
    assert isinstance(answer, Presented)
    assert answer.capabilities == {Capability.PTY}


def test_no_extensions_grant_nothing() -> None:
    answer = judge(forge(extensions=()))
    assert isinstance(answer, Presented)
    assert answer.capabilities == frozenset()


@given(
    st.integers(0, 1 << 62),
    st.text(st.characters(codec="utf-8"), max_size=10),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=3),
    st.dictionaries(st.sampled_from(["source-address", "x"]), st.binary(max_size=12)),
    st.floats(0, 1e10),
)
def test_whatever_our_ca_signed_is_judged_and_never_crashes(
    serial: int, key_id: str, principals: list[str], critical: dict[str, bytes], now: float
) -> None:
    blob = forge(serial=serial, key_id=key_id, principals=tuple(principals), critical=tuple(sorted(critical.items())))
    answer = judge(blob, now=now)
    assert isinstance(answer, Presented | Refusal)
    if isinstance(answer, Presented):
        assert [one.principal for one in answer.instances] == principals
        assert answer.valid_before > now


def test_the_certificate_is_found_whoever_else_is_trusted() -> None:
    read = genuine(BLOB, TRUSTED)
    assert read is not None
    assert read == replace(decode(BLOB))


def test_a_certificate_of_a_held_connection_counts_for_that_alone() -> None:
    critical = ((HELD_CONNECTION, b""),)
    blob = forge(serial=SERIAL, critical=critical)
    assert reason(judge(blob)) is Reason.UNKNOWN_CRITICAL_OPTION
    assert isinstance(examine(blob, TRUSTED, Revocations(), NOW, None, held=True), Presented)
    for other in (((HELD_CONNECTION, string(b"x")),), (*critical, ("source-address", string(b"192.0.2.9/32")))):
        assert isinstance(examine(forge(critical=other), TRUSTED, Revocations(), NOW, "192.0.2.7", held=True), Refusal)
