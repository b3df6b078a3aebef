"""Why: whoever can forge one of these is somebody else, so ours and OpenSSH's verdicts are compared on real ones."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import asyncssh
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ca.errors import MalformedSignature
from ca.keys import parse_public_key
from ca.sshsig import parse_signature
from tests.support.sshsig import NAMESPACE, SecurityKey, make_key, public_line, sign, string, verified_by_openssh

SPACE = NAMESPACE.encode()
MESSAGE = b"POST\nhttps://ssh.example.org/certificates/renew\n"
KINDS = {
    "ed25519": (),
    "ecdsa-256": ("-b", "256"),
    "ecdsa-384": ("-b", "384"),
    "ecdsa-521": ("-b", "521"),
    "rsa": ("-b", "3072"),
}


@pytest.fixture(scope="module")
def ed25519(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_ssh_keygen_signed_is_of_its_key(tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path, "id", kind.partition("-")[0], *KINDS[kind])
    signature = parse_signature(sign(key, MESSAGE))
    assert signature.key == parse_public_key(public_line(key))
    assert signature.is_of(MESSAGE, SPACE)
    assert not signature.is_of(MESSAGE + b"x", SPACE)
    assert not signature.is_of(b"", SPACE)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_security_key_must_have_been_touched(tmp_path: Path, kind: str) -> None:
    key = SecurityKey(kind)
    touched = key.sign(MESSAGE)
    assert verified_by_openssh(tmp_path, key.line, MESSAGE, touched)
    assert parse_signature(touched).is_of(MESSAGE, SPACE)
    assert parse_signature(key.sign(MESSAGE, flags=5)).is_of(MESSAGE, SPACE)
    for flags in (0, 4):
        assert not parse_signature(key.sign(MESSAGE, flags=flags)).is_of(MESSAGE, SPACE)
    assert not parse_signature(touched).is_of(MESSAGE + b"x", SPACE)


def test_a_flag_that_was_set_afterwards_spoils_the_signature() -> None:
    blob = SecurityKey("ssh-ed25519").sign(MESSAGE, flags=0)
    assert not parse_signature(blob[:-5] + b"\x01" + blob[-4:]).is_of(MESSAGE, SPACE)


def test_a_signature_for_something_else_is_none_here(ed25519: Path) -> None:
    for namespace in ("file", "git", "jupyterhub-bastion2", "Jupyterhub-bastion"):
        assert not parse_signature(sign(ed25519, MESSAGE, namespace)).is_of(MESSAGE, SPACE)


def test_a_key_beside_which_its_certificate_lies_signs_as_the_key(tmp_path: Path, ed25519: Path) -> None:
    key = make_key(tmp_path)
    authority = asyncssh.read_private_key(ed25519)
    certificate = authority.generate_user_certificate(asyncssh.read_public_key(f"{key}.pub"), "alice")
    certificate.write_certificate(f"{key}-cert.pub")
    assert parse_signature(sign(key, MESSAGE)).is_of(MESSAGE, SPACE)


def test_rsa_with_sha1_is_refused() -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=3072)
    inner = b"SSHSIG" + string(SPACE) + string(b"") + string(b"sha512") + string(hashlib.sha512(MESSAGE).digest())
    for algorithm, accepted in ((b"ssh-rsa", False), (b"rsa-sha2-256", True), (b"rsa-sha2-512", True)):
        made = string(algorithm) + key.sign_ssh(inner, algorithm)
        fields = (key.public_data, SPACE, b"", b"sha512", made)
        blob = b"SSHSIG" + struct.pack(">I", 1) + b"".join(string(one) for one in fields)
        if accepted:
            assert parse_signature(blob).is_of(MESSAGE, SPACE)
        else:
            with pytest.raises(MalformedSignature, match="kind"):
                parse_signature(blob)


def test_keys_that_get_no_certificate_prove_nothing(tmp_path: Path) -> None:
    key = make_key(tmp_path, "weak", "rsa", "-b", "2048")
    with pytest.raises(MalformedSignature, match="3072"):
        parse_signature(sign(key, MESSAGE))


def test_another_hash_than_the_one_is_refused(ed25519: Path) -> None:
    with pytest.raises(MalformedSignature, match="sha512"):
        parse_signature(sign(ed25519, MESSAGE, NAMESPACE, "-O", "hashalg=sha256"))


def test_the_signature_of_one_key_is_none_of_another(tmp_path: Path, ed25519: Path) -> None:
    one, two = sign(ed25519, MESSAGE), parse_public_key(public_line(make_key(tmp_path)))
    mine = parse_public_key(public_line(ed25519))
    assert not parse_signature(one.replace(mine.blob, two.blob)).is_of(MESSAGE, SPACE)


@pytest.mark.parametrize(
    "blob",
    [b"", b"SSHSIG", b"SSHSIG" + struct.pack(">I", 2), b"x" * 20_000, b"SSHSIG" + struct.pack(">I", 1) + b"\xff" * 99],
)
def test_what_is_no_signature_is_said_to_be_none(blob: bytes) -> None:
    with pytest.raises(MalformedSignature):
        parse_signature(blob)


def test_nothing_may_follow_or_stand_in_the_reserved_field(ed25519: Path) -> None:
    blob = sign(ed25519, MESSAGE)
    with pytest.raises(MalformedSignature, match="after its end"):
        parse_signature(blob + b"\0")
    with pytest.raises(MalformedSignature, match="has to be empty"):
        parse_signature(blob.replace(string(SPACE) + string(b""), string(SPACE) + string(b"x")))


_SAMPLES = [SecurityKey(kind).sign(MESSAGE) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
for _kind in ("ssh-ed25519", "ecdsa-sha2-nistp384"):
    _key = asyncssh.generate_private_key(_kind)
    _SAMPLES.append(
        b"SSHSIG"
        + struct.pack(">I", 1)
        + b"".join(string(one) for one in (_key.public_data, SPACE, b"", b"sha512", _key.sign(b"x", _kind.encode())))
    )


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(_SAMPLES), st.integers(0, 2000), st.binary(min_size=1, max_size=6))
@example(_SAMPLES[0], 10, b"\xff\xff\xff\xff")
def test_no_byte_that_is_changed_makes_a_signature_good_or_raises_anything_else(
    sample: bytes, at: int, new: bytes
) -> None:
    at %= len(sample)
    changed = sample[:at] + new + sample[at + len(new) :]
    try:
        signature = parse_signature(changed)
        verdict = signature.is_of(MESSAGE, SPACE)
    except MalformedSignature:
        return
    assert not verdict or changed == sample
