"""Why: the signer is the last to say no: whatever it is handed, nothing leaves that was not granted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca import signer as signer_module
from ca.certificate import blob_of, decode, encode_unsigned
from ca.errors import KeyFileError, MalformedName, Refusal
from ca.keyfiles import rotate
from ca.limits import ALL, Capabilities, Capability, extensions_for
from ca.names import Instance, Server
from ca.policy import Grant, HopGrant, HostGrant
from ca.revocation import Revocations
from ca.signer import FileSigner, Signer, SigningError
from ca.trust import Presented, examine, genuine
from tests.ca import strategies
from tests.ca.makers import KEY_KINDS, NOW, CheckedSigner, public_key

ALICE = Instance(Server("alice"), 17)
GRANT = Grant(
    user="alice",
    key=public_key(),
    serial=7,
    instances=(ALICE,),
    capabilities=ALL,
    valid_after=int(NOW) - 60,
    valid_before=int(NOW) + 3600,
    source_address=None,
    as_admin=False,
)
HOP = HopGrant(
    identity="alice",
    key=public_key(),
    serial=8,
    instance=ALICE,
    capabilities=frozenset({Capability.PTY}),
    valid_after=int(NOW) - 60,
    valid_before=int(NOW) + 300,
)
HOST = HostGrant(
    key_id="alice+gpu",
    key=public_key(),
    serial=9,
    names=("alice+gpu.hub", "ssh.example.org", "127.0.0.1", "::1", "=42ob.hub"),
    valid_after=int(NOW) - 60,
    valid_before=int(NOW) + 3600,
)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_every_kind_of_key_gets_its_certificates(signer: CheckedSigner, kind: str) -> None:
    key = public_key(kind)
    made = signer.sign_user(replace(GRANT, key=key, source_address="192.0.2.7"))
    answer = examine(blob_of(made.line), signer.public.user, Revocations(), NOW, "192.0.2.7")
    assert isinstance(answer, Presented)
    assert answer.key == key
    assert decode(blob_of(signer.sign_hop(replace(HOP, key=key)).line)).key_blob == key.blob
    assert decode(blob_of(signer.sign_host(replace(HOST, key=key)).line)).key_blob == key.blob


def test_a_certificate_of_a_held_connection_opens_no_door(signer: CheckedSigner) -> None:
    grant = replace(GRANT, held=True, source_address="192.0.2.7")
    blob = blob_of(signer.plain.sign_user(grant).line)  # ssh-keygen shows an option that it does not know
    for held, kind in ((False, Refusal), (True, Presented)):
        answer = examine(blob, signer.public.user, Revocations(), NOW, "192.0.2.7", held=held)
        assert isinstance(answer, kind)


def test_each_ca_signs_for_itself_only(signer: CheckedSigner) -> None:
    lines = (signer.sign_user(GRANT).line, signer.sign_host(HOST).line, signer.sign_hop(HOP).line)
    trusted = (signer.public.user, signer.public.host, signer.public.hop)
    for signed_by, line in enumerate(lines):
        for asked, keys in enumerate(trusted):
            assert (genuine(blob_of(line), keys) is not None) is (signed_by == asked)


@settings(max_examples=40)
@given(strategies.instances, strategies.capabilities, st.integers(1, (1 << 63) - 1))
def test_whatever_is_granted_is_what_is_signed(
    signer: CheckedSigner, instance: Instance, capabilities: Capabilities, serial: int
) -> None:
    made = signer.sign_user(replace(GRANT, instances=(instance,), capabilities=capabilities, serial=serial))
    read = decode(blob_of(made.line))
    assert read.principals == made.principals == (instance.principal,)
    assert tuple(name for name, _ in read.extensions) == made.extensions == extensions_for(capabilities)
    assert (read.serial, read.key_id, read.critical) == (serial, "alice", ())
    assert (read.valid_after, read.valid_before) == (GRANT.valid_after, GRANT.valid_before)
    made = signer.sign_hop(replace(HOP, instance=instance, capabilities=capabilities, serial=serial))
    assert decode(blob_of(made.line)).principals == (instance.principal,)


@settings(max_examples=40)
@given(strategies.servers)
def test_any_servers_host_name_is_one_that_can_be_signed(signer: CheckedSigner, server: Server) -> None:
    name = server.host_name("hub")
    assert signer.sign_host(replace(HOST, names=(name,), key_id=server.login)).principals == (name,)


def test_two_certificates_of_one_grant_differ_in_their_nonce(signer: CheckedSigner) -> None:
    one, other = (decode(blob_of(signer.sign_user(GRANT).line)) for _ in range(2))
    assert one.nonce != other.nonce
    assert len(one.nonce) == 32


@pytest.mark.parametrize(
    "wrong",
    [
        {"instances": ()},
        {"instances": tuple(Instance(Server("alice"), number) for number in range(1, 258))},
        {"serial": 0},
        {"serial": -1},
        {"serial": 1 << 63},
        {"user": ""},
        {"user": "a\0b"},
        {"valid_after": -1},
        {"valid_before": GRANT.valid_after},
        {"valid_before": GRANT.valid_after - 1},
        {"valid_before": 1 << 63},
        {"valid_before": 0xFFFFFFFFFFFFFFFF},
    ],
)
def test_a_grant_that_must_not_be_is_not_signed(signer: CheckedSigner, wrong: dict[str, object]) -> None:
    with pytest.raises(SigningError):
        signer.sign_user(replace(GRANT, **wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("",),
        ("*",),
        ("*.hub",),
        ("alice?.hub",),
        ("!alice.hub",),
        ("Alice.hub",),
        ("a.hub,b.hub",),
        ("a b",),
        ("a.hub\n",),
        ("a\0.hub",),
        ("a\x7f.hub",),
        ("a\x1b.hub",),
        ("ünï.hub",),
        ("good.hub", "*"),
        ("a%h.hub",),
        ("a/b",),
        ("x" * 1025,),
        tuple(f"s{number}.hub" for number in range(257)),
    ],
)
def test_a_host_name_that_ssh_would_read_otherwise_is_not_signed(signer: CheckedSigner, names: tuple[str, ...]) -> None:
    with pytest.raises(SigningError):
        signer.sign_host(replace(HOST, names=names))


class _OtherPrincipal:
    """An instance whose principal is not in the grammar: a bug elsewhere, seen from the signer."""

    def __init__(self, principal: str) -> None:
        self.principal = principal


@pytest.mark.parametrize("principal", ["*", "alice", "alice/:17,bob/:18", ""])
def test_a_principal_outside_the_grammar_is_not_signed(signer: CheckedSigner, principal: str) -> None:
    with pytest.raises((SigningError, MalformedName)):
        signer.sign_user(replace(GRANT, instances=(_OtherPrincipal(principal),)))  # type: ignore[arg-type]


def test_a_principal_read_as_another_is_not_signed(signer: CheckedSigner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signer_module, "parse_principal", lambda text: Instance(Server("bob"), 18))
    with pytest.raises(SigningError, match="canonical"):
        signer.sign_user(GRANT)


def test_a_certificate_that_is_not_the_granted_one_is_not_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = FileSigner(tmp_path, None)
    right = encode_unsigned
    monkeypatch.setattr(
        signer_module, "encode_unsigned", lambda wanted: right(replace(wanted, principals=("bob/:18",)))
    )
    with pytest.raises(SigningError, match="not the one that was granted"):
        signer.sign_user(GRANT)


@pytest.mark.parametrize("damage", [b"", b"x", bytes(83)])
def test_a_signature_that_does_not_verify_is_not_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    signer = FileSigner(tmp_path, None)
    monkeypatch.setattr(asyncssh.SSHKey, "sign", lambda self, data, algorithm: damage)
    with pytest.raises(SigningError, match="does not verify"):
        signer.sign_user(GRANT)


def test_keys_and_signers_show_no_secret(tmp_path: Path) -> None:
    signer: Signer = FileSigner(tmp_path, None)
    secret = asyncssh.read_private_key(tmp_path / "user" / "current")
    shown = repr(signer) + str(signer) + repr(signer.public) + repr(vars(signer))
    assert str(tmp_path) in repr(signer)
    for form in ("openssh", "pkcs8-pem"):
        for line in secret.export_private_key(form).decode().splitlines()[1:-1]:
            assert line not in shown
    assert "PRIVATE" not in shown
    assert "signing" not in shown


def test_a_rotation_is_read_without_a_restart_and_refuses_nobody(tmp_path: Path) -> None:
    signer = FileSigner(tmp_path, None)
    before, generations = signer.sign_user(GRANT), signer.generations
    rotate(tmp_path, "user", None)
    assert signer.sign_user(GRANT).line != before.line
    signer.reload()
    assert [one == other for one, other in zip(signer.generations, generations, strict=True)] == [False, True, True]
    after = CheckedSigner(signer).sign_user(GRANT)
    for made in (before, after):
        assert isinstance(examine(blob_of(made.line), signer.public.user, Revocations(), NOW, None), Presented)
    assert decode(blob_of(after.line)).ca_blob != decode(blob_of(before.line)).ca_blob


def test_an_unreadable_key_at_reload_leaves_the_keys_in_use(tmp_path: Path) -> None:
    signer = FileSigner(tmp_path, None)
    public = signer.public
    (tmp_path / "hop" / "current").chmod(0o644)
    rotate(tmp_path, "user", None)
    with pytest.raises(KeyFileError):
        signer.reload()
    assert signer.public == public
    assert genuine(blob_of(signer.sign_user(GRANT).line), public.user) is not None


@pytest.mark.parametrize("part", ["current", "next"])
def test_two_cas_that_share_a_key_are_refused(tmp_path: Path, part: str) -> None:
    FileSigner(tmp_path, None)
    for ending in ("", ".pub"):
        (tmp_path / "user" / f"{part}{ending}").write_bytes((tmp_path / "hop" / f"current{ending}").read_bytes())
    with pytest.raises(KeyFileError, match="share a key"):
        FileSigner(tmp_path, None)
