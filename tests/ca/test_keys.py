"""Why: which keys become certificates, and which lines of `authorized_keys` open a door, is decided in `ca.keys`."""

from __future__ import annotations

import base64

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.certificate import line_of, string
from ca.errors import MalformedKey
from ca.keys import (
    HOST_ALGORITHMS,
    MAX_KEY_BYTES,
    AuthorizedKey,
    PublicKey,
    parse_authorized_keys,
    parse_key_blob,
    parse_public_key,
)
from tests.ca.makers import KEY_KINDS, forge, private_key, public_key
from tests.support import ssh_keygen


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def rsa_blob(bits: int, exponent: int = 65537) -> bytes:
    return string(b"ssh-rsa") + mpint(exponent) + mpint((1 << bits) - 1)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_every_accepted_kind_of_key_is_read_as_openssh_reads_it(kind: str) -> None:
    key = public_key(kind)
    again = parse_public_key(f"  {key.line} alice@laptop \n")
    assert again == key
    assert again.comment == "alice@laptop"
    assert again.line == key.line
    assert again.fingerprint == ssh_keygen.fingerprint(key.line)
    assert parse_public_key(key.line.encode()) == key


def test_a_key_is_equal_by_its_bytes_and_shows_no_blob() -> None:
    key = public_key()
    assert parse_public_key(f"{key.line} one") == parse_public_key(f"{key.line} two")
    assert "blob" not in repr(key)


@pytest.mark.parametrize("kind", ["sk-ed25519", "sk-ecdsa"])
def test_a_security_key_is_no_host_key(kind: str) -> None:
    with pytest.raises(MalformedKey, match="not accepted"):
        parse_public_key(public_key(kind).line, algorithms=HOST_ALGORITHMS)


def test_dsa_is_refused() -> None:
    dsa = asyncssh.generate_private_key("ssh-dss").export_public_key().decode()
    with pytest.raises(MalformedKey, match="Keys of type ssh-dss are not accepted"):
        parse_public_key(dsa)


@pytest.mark.parametrize("bits", [1024, 2048, 3071, 16385, 20000])
def test_rsa_outside_the_sizes_that_are_safe_and_usable_is_refused(bits: int) -> None:
    with pytest.raises(MalformedKey, match=f"this one has {bits}"):
        parse_key_blob(rsa_blob(bits))


@pytest.mark.parametrize("bits", [3072, 16384])
def test_rsa_at_the_limits_is_accepted_and_openssh_can_read_it(bits: int) -> None:
    key = parse_key_blob(rsa_blob(bits))
    assert key.fingerprint == ssh_keygen.fingerprint(key.line)


@pytest.mark.parametrize("exponent", [0, 1, 2, 65536])
def test_rsa_with_an_exponent_that_is_none_is_refused(exponent: int) -> None:
    with pytest.raises(MalformedKey):
        parse_key_blob(rsa_blob(3072, exponent))


@pytest.mark.parametrize("kind", ["ecdsa-256", "ecdsa-384", "ecdsa-521", "sk-ecdsa"])
def test_a_point_that_is_not_on_its_curve_is_refused(kind: str) -> None:
    blob = bytearray(public_key(kind).blob)
    blob[-9 if kind == "sk-ecdsa" else -1] ^= 1
    with pytest.raises(MalformedKey, match="damaged"):
        parse_key_blob(bytes(blob))


def test_a_compressed_point_is_refused() -> None:
    plain = public_key("ecdsa-256").blob
    point = plain[-65:]
    compressed = bytes([2 + (point[-1] & 1)]) + point[1:33]
    with pytest.raises(MalformedKey):
        parse_key_blob(string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(compressed))


def test_a_point_under_the_name_of_another_curve_is_refused() -> None:
    with pytest.raises(MalformedKey):
        parse_key_blob(public_key("ecdsa-256").blob.replace(b"nistp256", b"nistp384"))
    swapped = string(b"ecdsa-sha2-nistp384") + public_key("ecdsa-256").blob[4 + 19 :]
    with pytest.raises(MalformedKey):
        parse_key_blob(swapped)


@pytest.mark.parametrize(
    "blob",
    [
        public_key().blob + b"\0",
        public_key().blob[:-1],
        public_key("rsa-3072").blob + b"\0",
        string(b"ssh-rsa") + string(b"\0" + (65537).to_bytes(3, "big")) + mpint((1 << 3072) - 1),
        string(b"ssh-rsa") + mpint(65537) + string(b"\0\0" + b"\xff" * 384),
        string(b"ssh-rsa") + mpint(65537) + string(b"\xff" * 384),
        string(b"ssh-ed25519") + string(b"\0" * 31),
        string(b"ssh-ed25519") + string(b"\0" * 33),
        string(b"sk-ssh-ed25519@openssh.com") + string(b"\0" * 32) + string(b"\xff\xfe"),
    ],
)
def test_bytes_that_are_not_the_canonical_form_of_a_key_are_refused(blob: bytes) -> None:
    with pytest.raises(MalformedKey):
        parse_key_blob(blob)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: string(b"ssh-ed25519") + tail))
def test_random_bytes_are_a_key_or_malformed(blob: bytes) -> None:
    try:
        key = parse_key_blob(blob)
    except MalformedKey:
        return
    assert key.blob == blob


@given(st.sampled_from(KEY_KINDS), st.integers(0, 600), st.integers(0, 255))
def test_a_key_with_one_byte_changed_is_a_key_or_malformed(kind: str, at: int, value: int) -> None:
    blob = bytearray(public_key(kind).blob)
    blob[at % len(blob)] = value
    try:
        key = parse_key_blob(bytes(blob))
    except MalformedKey:
        return
    assert key.blob == blob


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_random_text_is_never_anything_but_malformed(text: str | bytes) -> None:
    with pytest.raises(MalformedKey):
        parse_public_key(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "one line"),
        ("ssh-ed25519", "one line"),
        ("ssh-ed25519 !!!!", "base64"),
        ("ssh-ed25519 ünï", "base64"),
        ("ssh-ed25519 AAA", "base64"),
        (b"\xff\xfe\x00", "not text"),
        (public_key().line + "\n" + public_key(number=1).line, "exactly one"),
        (f"ssh-rsa {public_key().line.split()[1]}", "differ"),
        ("x" * 40_000, "far too long"),
        (f"ssh-ed25519 {base64.b64encode(bytes(20_000)).decode()}", "longer than"),
        (f"ssh-ed25519 {base64.b64encode(string(b'a' * 99)).decode()}", "type unknown"),
        (f"ssh-ed25519 {base64.b64encode(string(bytes(9))).decode()}", "type unknown"),
    ],
)
def test_what_is_no_key_gets_a_sentence_that_says_so(text: str | bytes, says: str) -> None:
    with pytest.raises(MalformedKey, match=says):
        parse_public_key(text)


def test_a_pasted_private_key_is_named_as_such_and_not_repeated() -> None:
    secret = private_key().export_private_key("openssh").decode()
    for text in (secret, secret.replace("\n", " "), secret.encode()):
        with pytest.raises(MalformedKey, match="Never send it anywhere") as caught:
            parse_public_key(text)
        assert secret.splitlines()[2] not in str(caught.value)


def test_a_certificate_is_no_key() -> None:
    with pytest.raises(MalformedKey, match="That is a certificate"):
        parse_public_key(line_of(forge()))


@pytest.mark.parametrize("comment", ["a\x1b[31mb", "a\u202eb", "c" * 300])
def test_a_comment_that_could_deceive_is_dropped(comment: str) -> None:
    assert parse_public_key(f"{public_key().line} {comment}").comment == ""


def only(text: str | bytes) -> AuthorizedKey:
    (one,) = parse_authorized_keys(text)
    return one


ONE, TWO = public_key().line, public_key(number=1).line


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ("restrict", ("restrict",)),
        ("restrict,pty", ("restrict", "pty")),
        ('command="ls -l, really"', ('command="ls -l, really"',)),
        ('command="say \\"hi, you\\" ,x",no-pty', ('command="say \\"hi, you\\" ,x"', "no-pty")),
        ('from="10.0.0.0/8,*.example.org",no-pty', ('from="10.0.0.0/8,*.example.org"', "no-pty")),
        (f'command="{TWO}"', (f'command="{TWO}"',)),
        ('environment="A=1",environment="B=ü"', ('environment="A=1"', 'environment="B=ü"')),
        ('command=""', ('command=""',)),
    ],
)
def test_options_are_read_whole_and_in_order(options: str, read: tuple[str, ...]) -> None:
    assert only(f"{options} {ONE} comment here") == AuthorizedKey(public_key(), read)
    assert only(f"\t {options} \t {ONE}\r\n").options == read


@pytest.mark.parametrize(
    "options",
    [
        "cert-authority",
        "CERT-AUTHORITY",
        'cert-authority,principals="alice"',
        'principals="x",cert-authority',
        "no-pty,Cert-Authority",
    ],
)
def test_a_ca_in_authorized_keys_is_no_key(options: str) -> None:
    assert parse_authorized_keys(f"{options} {ONE}\n{TWO}") == (AuthorizedKey(public_key(number=1)),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# a comment",
        f"#{ONE}",
        "garbage",
        'command="never closed ssh-ed25519 AAAA',
        f",{ONE}",
        f"no pty {ONE}",
        f"restrict, pty {ONE}",
        f"restrict,,pty {ONE}",
        f'"quoted" {ONE}',
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "restrict ssh-ed25519",
        "restrict",
        f"\x0c{ONE}",
        "x" * 40_000,
        asyncssh.generate_private_key("ssh-rsa", key_size=2048).export_public_key().decode(),
    ],
)
def test_a_line_that_is_no_usable_key_hides_no_other(line: str) -> None:
    assert parse_authorized_keys(f"{ONE}\n{line}\n{TWO}\n") == (
        AuthorizedKey(public_key()),
        AuthorizedKey(public_key(number=1)),
    )


@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_a_newline_ends_a_line_as_for_sshd(separator: str) -> None:
    text = f'restrict,command="true" {ONE} by bob{separator}{TWO}\n'
    assert all(one.key == public_key() and one.options for one in parse_authorized_keys(text))
    text = f'command="a{separator}{TWO} " {ONE}\n'
    assert all(one.key == public_key() and one.options for one in parse_authorized_keys(text))


def test_an_escaped_quote_outside_quotes_opens_none_as_for_sshd() -> None:
    assert only(f'environment=\\"x {ONE} " {TWO}') == AuthorizedKey(public_key(), ('environment=\\"x',))


def test_no_more_keys_are_read_than_asked_for() -> None:
    assert parse_authorized_keys(f"{ONE}\n" * 50, max_keys=3) == (AuthorizedKey(public_key()),) * 3


def test_megabytes_of_garbage_hold_no_key() -> None:
    assert parse_authorized_keys(bytes(range(256)) * 20_000) == ()
    assert parse_authorized_keys(b"\n" * 3_000_000) == ()
    assert parse_authorized_keys(b'restrict,"' * 300_000) == ()
    assert only(b"\xff\xfe\n" * 1000 + ONE.encode() + b" \xff\n").key == public_key()


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from([ONE, TWO, "restrict", "cert-authority", 'command="', '"', ",", " ", "\\", "\n", "#", "\t"]),
        max_size=12,
    )
)
def test_any_mixture_of_pieces_gives_whole_keys_only(pieces: list[str]) -> None:
    for one in parse_authorized_keys("".join(pieces)):
        assert isinstance(one.key, PublicKey)
        assert one.key in (public_key(), public_key(number=1))
        assert "cert-authority" not in {option.lower() for option in one.options}


def test_a_key_at_the_size_limit_is_still_judged() -> None:
    with pytest.raises(MalformedKey, match="not accepted"):
        parse_key_blob(string(b"odd") + bytes(MAX_KEY_BYTES - 7))
