"""Why: a certificate that two programs read differently is how restrictions get lost; ours reads as theirs do."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import asyncssh
import pytest
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType, load_ssh_public_identity
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.certificate import (
    CERTIFICATE_TYPES,
    FOREVER,
    MAX_CERTIFICATE_BYTES,
    Certificate,
    Kind,
    algorithm_of,
    blob_of,
    decode,
    encode_unsigned,
    is_certificate,
    line_of,
    string,
)
from ca.errors import MalformedCertificate
from tests.ca.makers import KEY_KINDS, ca_key, certificate, forge, public_key, signed
from tests.support import ssh_keygen

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_option_names = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


def _options(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[tuple[str, bytes], ...]]:
    return st.dictionaries(_option_names, data, max_size=4).map(lambda found: tuple(sorted(found.items())))


certificates = st.builds(
    certificate,
    kind=st.sampled_from([Kind.USER, Kind.HOST]),
    key_blob=st.sampled_from(KEY_KINDS).map(lambda kind: public_key(kind).blob),
    serial=st.integers(0, FOREVER),
    key_id=_text,
    principals=st.lists(_text.filter(bool), max_size=5).map(tuple),
    valid_after=st.integers(0, 1 << 40),
    valid_before=st.integers(1 << 41, FOREVER),
    critical=_options(st.binary(max_size=20)),
    extensions=_options(st.binary(max_size=20)),
)


@given(certificates)
def test_what_is_written_is_what_is_read(wanted: Certificate) -> None:
    blob = signed(wanted)
    read = decode(blob)
    assert read == wanted
    assert read.signed + string(read.signature) == blob
    assert encode_unsigned(read) == read.signed
    assert blob_of(line_of(blob, "a comment")) == blob
    assert is_certificate(blob)
    assert not is_certificate(wanted.key_blob)


@given(certificates)
def test_asyncssh_reads_the_same(wanted: Certificate) -> None:
    # asyncssh decodes the options that it knows, and only their proper form: those are not the matter here.
    wanted = replace(wanted, critical=(), extensions=(("permit-pty", b""),) if wanted.kind == Kind.USER else ())
    read: Any = asyncssh.import_certificate(line_of(signed(wanted)))
    assert read.key.public_data == wanted.key_blob
    assert read.signing_key.public_data == wanted.ca_blob
    assert list(read.principals) == list(wanted.principals)
    assert (read._serial, read._key_id) == (wanted.serial, wanted.key_id)
    assert (read._valid_after, read._valid_before) == (wanted.valid_after, wanted.valid_before)


@given(certificates.filter(lambda one: not one.key_blob[4:].startswith(b"sk-")))
def test_cryptography_reads_the_same(wanted: Certificate) -> None:
    # It reads the data of an option as the string that PROTOCOL.certkeys asks for, and takes an empty one for none.
    inner = dict((*wanted.critical, *wanted.extensions))
    wrapped = {name: string(data) if data else b"" for name, data in inner.items()}
    wanted = replace(
        wanted,
        critical=tuple((name, wrapped[name]) for name, _ in wanted.critical),
        extensions=tuple((name, wrapped[name]) for name, _ in wanted.extensions),
    )
    read = load_ssh_public_identity(line_of(signed(wanted)).encode())
    assert isinstance(read, SSHCertificate)
    read.verify_cert_signature()
    assert read.type is (SSHCertificateType.USER if wanted.kind == Kind.USER else SSHCertificateType.HOST)
    assert (read.serial, read.key_id) == (wanted.serial, wanted.key_id.encode())
    assert read.valid_principals == [name.encode() for name in wanted.principals]
    assert (read.valid_after, read.valid_before) == (wanted.valid_after, wanted.valid_before)
    assert read.critical_options == {name.encode(): inner[name] for name, _ in wanted.critical}
    assert read.extensions == {name.encode(): inner[name] for name, _ in wanted.extensions}


@pytest.mark.parametrize("key_kind", KEY_KINDS)
@pytest.mark.parametrize("kind", ["user", "host"])
def test_openssh_reads_the_same_for_every_kind_of_key(key_kind: str, kind: str) -> None:
    key = public_key(key_kind)
    wanted = certificate(
        kind=Kind.USER if kind == "user" else Kind.HOST,
        key_blob=key.blob,
        serial=(1 << 63) - 1,
        key_id='Bob "ü" Smith@example.org',
        principals=("alice/:17", "=42ob/gpu:18"),
        extensions=(("permit-pty", b""),) if kind == "user" else (),
        critical=(("source-address", string(b"10.0.0.0/8,::1")),) if kind == "user" else (),
    )
    shown = ssh_keygen.show(line_of(signed(wanted)))
    assert shown == ssh_keygen.Shown(
        algorithm=CERTIFICATE_TYPES[key.algorithm],
        kind=kind,
        fingerprint=key.fingerprint,
        ca_fingerprint=ca_key()[1].fingerprint,
        key_id='Bob "ü" Smith@example.org',
        serial=(1 << 63) - 1,
        valid_after=wanted.valid_after,
        valid_before=wanted.valid_before,
        principals=("alice/:17", "=42ob/gpu:18"),
        critical=("source-address 10.0.0.0/8,::1",) if kind == "user" else (),
        extensions=("permit-pty",) if kind == "user" else (),
    )


@given(st.binary(max_size=300))
def test_random_bytes_are_malformed(blob: bytes) -> None:
    with pytest.raises(MalformedCertificate):
        decode(blob)


@given(st.sampled_from(KEY_KINDS), st.integers(0, 5000))
def test_a_truncated_certificate_is_malformed(kind: str, at: int) -> None:
    blob = forge(key_blob=public_key(kind).blob)
    with pytest.raises(MalformedCertificate):
        decode(blob[: at % len(blob)])


@settings(max_examples=200)
@given(st.sampled_from(KEY_KINDS), st.integers(0, 50_000))
def test_a_certificate_with_a_flipped_bit_is_malformed_or_another(kind: str, at: int) -> None:
    blob = bytearray(forge(key_blob=public_key(kind).blob))
    at %= 8 * len(blob)
    blob[at // 8] ^= 1 << at % 8
    try:
        read = decode(bytes(blob))
    except MalformedCertificate:
        return
    assert read.signed + string(read.signature) == blob


def _unsigned_with(reserved: bytes = b"", principals: bytes | None = None, extensions: bytes | None = None) -> bytes:
    """A certificate whose inner fields are written by hand."""
    plain = certificate(principals=(), extensions=())
    data = encode_unsigned(plain)
    tail = string(b"") + string(b"") + string(plain.ca_blob)  # extensions, reserved, CA key
    head = data[: -len(tail)]
    if principals is not None:
        times_and_critical = struct.pack(">QQ", plain.valid_after, plain.valid_before) + string(b"")
        head = head[: -len(times_and_critical) - 4] + string(principals) + times_and_critical
    return head + string(extensions or b"") + string(reserved) + string(plain.ca_blob) + string(b"signature")


def _option(name: bytes) -> bytes:
    return string(name) + string(b"")


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (_unsigned_with(reserved=b"x"), "reserved"),
        (_unsigned_with() + b"\0", "after its end"),
        (_unsigned_with(extensions=_option(b"b") + _option(b"a")), "out of order"),
        (_unsigned_with(extensions=_option(b"a") + _option(b"a")), "repeated"),
        (_unsigned_with(extensions=string(b"a")), "too early"),
        (_unsigned_with(extensions=b"\0\0"), "too early"),
        (_unsigned_with(extensions=_option(b"\xff")), "not UTF-8"),
        (_unsigned_with(principals=string(b"\xff\xfe")), "not UTF-8"),
        (_unsigned_with(principals=string(b"a") + b"\0"), "too early"),
        (_unsigned_with(principals=string(b"a") * 1025), "too many"),
        (bytes(MAX_CERTIFICATE_BYTES + 1), "too long"),
        (public_key().blob, "type is not known"),
        (string(b"\xff") + b"x", "not UTF-8"),
        (b"", "too early"),
        (string(CERTIFICATE_TYPES["ssh-ed25519"].encode()) + string(b"n") + string(b"k") + b"\0" * 7, "too early"),
    ],
)
def test_a_certificate_against_the_protocol_is_malformed(blob: bytes, says: str) -> None:
    with pytest.raises(MalformedCertificate, match=says):
        decode(blob)


def test_a_hand_written_certificate_without_a_fault_is_read() -> None:
    assert decode(_unsigned_with(principals=string(b"a"), extensions=_option(b"a") + _option(b"b"))).principals == (
        "a",
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519-cert-v01@openssh.com",
        "ssh-ed25519-cert-v01@openssh.com !!!",
        "ssh-ed25519-cert-v01@openssh.com ünï",
        line_of(forge()).replace("ssh-ed25519-cert", "ssh-rsa-cert", 1),
        f"{line_of(forge())}\n{line_of(forge())}",
        "x " + "A" * (2 * MAX_CERTIFICATE_BYTES),
    ],
)
def test_a_line_that_is_no_certificate_file_is_malformed(line: str) -> None:
    with pytest.raises(MalformedCertificate):
        blob_of(line)


@pytest.mark.parametrize("blob", [b"", b"\0\0\0\0", b"\0\0\0\5abc", string(b"a" * 65), string(b"\xff")])
def test_bytes_without_a_type_have_none(blob: bytes) -> None:
    assert algorithm_of(blob) == ""
