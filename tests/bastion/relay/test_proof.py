"""Why: a signature is the only thing that proves anything, so each way to fake or weaken one must fail."""

from __future__ import annotations

import hashlib
import struct

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.relay.proof import proves
from ca.certificate import algorithm_of, string

SESSION = b"s" * 32
ED = asyncssh.generate_private_key("ssh-ed25519")
ECDSA = asyncssh.generate_private_key("ecdsa-sha2-nistp384")
RSA = asyncssh.generate_private_key("ssh-rsa", key_size=3072)
CA = asyncssh.generate_private_key("ssh-ed25519")


def request(algorithm: str, blob: bytes, login: bytes = b"alice", method: bytes = b"publickey") -> bytes:
    head = b"\x32" + string(login) + string(b"ssh-connection") + string(method) + b"\x01"
    return head + string(algorithm.encode()) + string(blob)


def signed(key: asyncssh.SSHKey, asked: bytes, algorithm: str, session: bytes = SESSION) -> bytes:
    return key.sign(string(session) + asked, algorithm.encode())


def certified(key: asyncssh.SSHKey) -> bytes:
    made = CA.generate_user_certificate(key, "id", principals=["alice/:1"], valid_after="-1m", valid_before="+1m")
    return made.public_data


@pytest.mark.parametrize(
    ("key", "named", "with_"),
    [
        (ED, "ssh-ed25519", "ssh-ed25519"),
        (ECDSA, "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
        (RSA, "rsa-sha2-256", "rsa-sha2-256"),
        (RSA, "rsa-sha2-512", "rsa-sha2-512"),
    ],
)
def test_a_good_signature_proves_key_and_certificate(key: asyncssh.SSHKey, named: str, with_: str) -> None:
    asked = request(named, key.public_data)
    assert proves(key.public_data, asked, signed(key, asked, with_), SESSION)
    blob = certified(key)
    asked = request(f"{named}-cert-v01@openssh.com", blob)
    assert proves(blob, asked, signed(key, asked, with_), SESSION)


def test_rsa_certificates_of_old_clients_are_named_after_the_key() -> None:
    blob = certified(RSA)
    asked = request("ssh-rsa-cert-v01@openssh.com", blob)
    assert proves(blob, asked, signed(RSA, asked, "rsa-sha2-256"), SESSION)


@pytest.mark.parametrize(
    ("named", "with_"),
    [
        ("ssh-rsa", "ssh-rsa"),
        ("rsa-sha2-256", "ssh-rsa"),
        ("rsa-sha2-512", "rsa-sha2-256"),
        ("ssh-rsa", "rsa-sha2-256"),
    ],
)
def test_sha1_and_mixed_names_prove_nothing(named: str, with_: str) -> None:
    asked = request(named, RSA.public_data)
    assert not proves(RSA.public_data, asked, signed(RSA, asked, with_), SESSION)


def test_a_signature_for_something_else_proves_nothing() -> None:
    asked = request("ssh-ed25519", ED.public_data)
    good = signed(ED, asked, "ssh-ed25519")
    other = asyncssh.generate_private_key("ssh-ed25519")
    cert = certified(ED)
    assert proves(ED.public_data, asked, good, SESSION)
    assert not proves(ED.public_data, asked, good, b"t" * 32)
    assert not proves(ED.public_data, request("ssh-ed25519", ED.public_data, b"bob"), good, SESSION)
    assert not proves(ED.public_data, asked, signed(other, asked, "ssh-ed25519"), SESSION)
    assert not proves(other.public_data, asked, good, SESSION)
    assert not proves(cert, asked, good, SESSION)
    for odd in (
        request("ssh-ed25519", cert),
        request("ecdsa-sha2-nistp256", ED.public_data),
        request("ssh-ed25519", ED.public_data, method=b"hostbased"),
        asked + b"x",
        b"\x33" + asked[1:],
    ):
        assert not proves(ED.public_data, odd, signed(ED, odd, "ssh-ed25519"), SESSION)


def test_an_rsa_key_that_is_too_short_proves_nothing() -> None:
    short = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    asked = request("rsa-sha2-256", short.public_data)
    assert not proves(short.public_data, asked, signed(short, asked, "rsa-sha2-256"), SESSION)


@pytest.mark.parametrize(("flags", "touched"), [(0x01, True), (0x05, True), (0x00, False), (0x04, False)])
def test_a_security_key_must_have_been_touched(flags: int, touched: bool) -> None:
    device = Ed25519PrivateKey.generate()
    name = b"sk-ssh-ed25519@openssh.com"
    blob = string(name) + string(device.public_key().public_bytes_raw()) + string(b"ssh:")
    asked = request(name.decode(), blob)
    counted = bytes([flags]) + struct.pack(">I", 7)
    digest = hashlib.sha256(string(SESSION) + asked).digest()
    raw = device.sign(hashlib.sha256(b"ssh:").digest() + counted + digest)
    assert proves(blob, asked, string(name) + string(raw) + counted, SESSION) is touched


@settings(max_examples=300)
@given(st.data())
def test_no_garbage_crashes_or_proves(data: st.DataObject) -> None:
    blob = data.draw(st.sampled_from([ED.public_data, RSA.public_data, certified(ED)]) | st.binary(max_size=100))
    asked = request(algorithm_of(blob) or "ssh-ed25519", blob)
    which = data.draw(st.sampled_from(["request", "signature", "blob"]))
    signature = string(b"ssh-ed25519") + string(bytes(64))
    if which == "request":
        asked = data.draw(st.binary(max_size=200))
    elif which == "signature":
        signature = string(algorithm_of(blob).encode()) + data.draw(st.binary(max_size=100))
    else:
        cut = data.draw(st.integers(0, len(blob)))
        blob = blob[:cut] + data.draw(st.binary(max_size=8)) + blob[cut:]
        asked = request(algorithm_of(blob) or "x", blob)
    assert proves(blob, asked, signature, SESSION) is False
