"""Why: a pod's sshd and the bastion must refuse the same certificates, so OpenSSH itself judges what we write."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.keyfiles import rotate
from ca.keys import PublicKey
from ca.krl import Recorded, RevokedSerials, krl, revoked_serials, sections
from ca.limits import ALL
from ca.names import Instance, Server
from ca.policy import Grant, HopGrant
from ca.revocation import Revocations, make_serial
from ca.signer import FileSigner
from tests.ca.makers import private_key, public_key
from tests.clients.openssh import Missing, OpenSSH
from tests.support import sshd
from tests.support.sshd import Sshd

T = 1_763_000_000_000
INSTANCES = tuple(Instance(Server(owner, name), 5) for owner in ("alice", "bob", "ünï") for name in ("", "gpu"))
USERS = ("alice", "bob", "ünï")

moments = st.integers(T - 3, T + 3)
issued = st.builds(
    Recorded,
    serial=st.builds(make_serial, moments, st.sampled_from([0, 1, 2, 3, 4, 5, 6, (1 << 20) - 1])),
    user=st.sampled_from(USERS),
    instances=st.lists(st.sampled_from(INSTANCES), min_size=1, max_size=2, unique=True).map(tuple),
)
SERVERS = st.sampled_from([one.server for one in INSTANCES])
watermarks = st.sampled_from([0, 0, 0, T - 3, T - 2, T, T + 2])


@st.composite
def sites(draw: st.DrawFn) -> tuple[list[Recorded], Revocations]:
    """Certificates with serials of their own, and revocations that meet some of them."""
    certificates = draw(st.lists(issued, max_size=30, unique_by=lambda one: one.serial))
    serials = [one.serial for one in certificates]
    some = st.frozensets(st.sampled_from(serials)) if serials else st.just(frozenset())
    revoked = Revocations(
        everyone_before=draw(watermarks),
        serials=draw(some) | draw(st.frozensets(st.integers(1, (1 << 63) - 1), max_size=2)),
        users=draw(st.dictionaries(st.sampled_from(USERS), moments)),
        servers=draw(st.dictionaries(SERVERS, moments, min_size=1)),
        shares=draw(st.dictionaries(st.sampled_from(USERS), st.dictionaries(SERVERS, moments, min_size=1))),
    )
    return certificates, revoked


class Authorities:
    """The user CA before and after a rotation, with the keys that are trusted after it."""

    def __init__(self, folder: Path) -> None:
        self.previous = FileSigner(folder, None)
        rotate(folder, "user", None)
        self.current = FileSigner(folder, None)
        self.trusted = self.current.public.user

    def sign(self, one: Recorded, signer: FileSigner | None = None) -> str:
        grant = Grant(one.user, public_key(), one.serial, one.instances, ALL, 1, 1 << 40, None, as_admin=False)
        return (signer or self.current).sign_user(grant).line


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("authorities"))


@pytest.fixture(scope="module", params=["own", "trixie", "testing"])
def openssh(request: pytest.FixtureRequest) -> OpenSSH:
    """The machine's OpenSSH, and newer ones where they can be had."""
    try:
        return OpenSSH.of(request.param)
    except Missing as why:
        pytest.skip(str(why))


def asked(content: bytes, lines: Sequence[str], keygen: str = "ssh-keygen") -> list[bool]:
    """What `ssh-keygen -Q` says of each line: whether it is revoked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "krl").write_bytes(content)
        paths = [folder / f"{number:04d}.pub" for number in range(len(lines))]
        for path, line in zip(paths, lines, strict=True):
            path.write_text(f"{line}\n")
        done = subprocess.run(
            [keygen, "-Q", "-f", folder / "krl", *paths], capture_output=True, text=True, timeout=60, check=False
        )
    said = re.findall(r"^\S+ \(.*\): (ok|REVOKED)$", done.stdout, re.MULTILINE)
    assert len(said) == len(lines), done
    assert (done.returncode == 0) == ("REVOKED" not in said), done
    return [word == "REVOKED" for word in said]


def listed(content: bytes) -> str:
    """What `ssh-keygen -Q -l` reads in it."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "krl").write_bytes(content)
        return subprocess.run(
            ["ssh-keygen", "-Q", "-l", "-f", f"{name}/krl"], capture_output=True, text=True, timeout=60, check=True
        ).stdout


def made(revocations: Revocations, recorded: Sequence[Recorded], trusted: Sequence[PublicKey], most: int = 99) -> bytes:
    return krl(sections(revoked_serials(revocations, recorded, most), trusted), 7, T // 1000)


@given(sites())
def test_openssh_refuses_exactly_the_certificates_that_we_refuse(
    authorities: Authorities, openssh: OpenSSH, site: tuple[list[Recorded], Revocations]
) -> None:
    certificates, revocations = site
    content = made(revocations, certificates, authorities.trusted)
    if not certificates:
        assert listed(content).startswith("# KRL version 7\n")
        return
    wanted = [revocations.refuses(one.serial, one.user, one.instances) is not None for one in certificates]
    for signer in (authorities.previous, authorities.current):
        lines = [authorities.sign(one, signer) for one in certificates]
        assert asked(content, lines, openssh.program("ssh-keygen")) == wanted


ALICE, GPU = INSTANCES[0].server, INSTANCES[1].server
EDGES = [
    Revocations(),
    Revocations(everyone_before=T),
    Revocations(users={"alice": T}),
    Revocations(users={"alice": T, "bob": T + 1}),
    Revocations(servers={ALICE: T}),
    Revocations(servers={ALICE: T, GPU: T + 1}),
    Revocations(servers={ALICE: T}, users={"bob": T}),
    Revocations(shares={"bob": {ALICE: T}}),
    Revocations(shares={"bob": {ALICE: T, GPU: T + 1}}, servers={GPU: T}),
    Revocations(servers={GPU: T + 1}, everyone_before=T),
    Revocations(serials=frozenset({make_serial(T, 0), make_serial(T - 1, (1 << 20) - 1)})),
    Revocations(serials=frozenset({make_serial(T - 1, 0)}), everyone_before=T),
]


@pytest.mark.parametrize("revocations", EDGES, ids=range(len(EDGES)))
def test_openssh_refuses_the_same_around_every_edge(
    authorities: Authorities, openssh: OpenSSH, revocations: Revocations
) -> None:
    """Certificates of the very millisecond, and of those beside it, with the least and the greatest serial."""
    sets = (INSTANCES[:1], INSTANCES[1:2], INSTANCES[:2], (INSTANCES[0], INSTANCES[2]))
    certificates = [
        Recorded(make_serial(moment, bits), user, instances)
        for moment in (T - 1, T, T + 1)
        for bits in (0, (1 << 20) - 1)
        for user in ("alice", "bob")
        for instances in sets
    ]
    for some in (certificates[at :: len(sets) * 2] for at in range(len(sets) * 2)):  # each serial once
        content = made(revocations, some, authorities.trusted)
        wanted = [revocations.refuses(one.serial, one.user, one.instances) is not None for one in some]
        assert asked(content, [authorities.sign(one) for one in some], openssh.program("ssh-keygen")) == wanted


@given(sites(), st.integers(0, 4))
def test_a_list_that_would_be_too_long_refuses_more_and_never_less(
    authorities: Authorities, site: tuple[list[Recorded], Revocations], most: int
) -> None:
    certificates, revocations = site
    exact, short = (revoked_serials(revocations, certificates, limit) for limit in (99, most))
    assert len(short.single) <= most
    assert short.exact is (len(exact.single) <= most)

    def refused(by: RevokedSerials, serial: int) -> bool:
        return serial < by.below or serial in by.single

    for one in certificates:
        assert refused(short, one.serial) >= refused(exact, one.serial)
        assert refused(exact, one.serial) == bool(revocations.refuses(one.serial, one.user, one.instances))


def test_a_watermark_for_everybody_needs_no_records(authorities: Authorities) -> None:
    lost = Recorded(make_serial(T - 1, (1 << 20) - 1), "alice", INSTANCES[:1])
    kept = Recorded(make_serial(T, 0), "alice", INSTANCES[:1])
    content = made(Revocations(everyone_before=T), (), authorities.trusted)
    assert asked(content, [authorities.sign(lost), authorities.sign(kept)]) == [True, False]


def test_certificates_of_the_other_cas_and_plain_keys_stay_as_they_are(authorities: Authorities) -> None:
    revocations = Revocations(everyone_before=T, serials=frozenset({make_serial(T, 1)}))
    content = made(revocations, (), authorities.trusted)
    hop = HopGrant("alice", public_key(), make_serial(T - 5, 1), INSTANCES[0], ALL, 1, 1 << 40)
    assert asked(content, [authorities.current.sign_hop(hop).line, public_key().line]) == [False, False]


def test_neighbouring_serials_become_one_range_and_others_a_list(authorities: Authorities) -> None:
    revocations = Revocations(serials=frozenset({0, 1, 2, 3, 10, 12, 1 << 64}), everyone_before=0)
    text = listed(made(revocations, (), authorities.trusted[:1]))
    assert re.findall(r"serial: (\S+)", text) == ["1-3", "10", "12"]
    assert re.findall(r"# KRL version (\S+)", text) == ["7"]
    assert "# Comment: jupyterhub-bastion" in text


def test_nothing_revoked_is_a_header_and_no_more(authorities: Authorities) -> None:
    content = made(Revocations(), (), authorities.trusted)
    assert content[:12] == b"SSHKRL\n\0" + struct.pack(">I", 1)
    assert asked(content, [authorities.sign(Recorded(1, "alice", INSTANCES[:1]))]) == [False]


class Pod(Sshd):
    """An sshd that trusts a user CA and obeys a list of what is revoked."""

    authority = ""

    def _write_keys(self) -> None:
        super()._write_keys()
        (self.directory / "user_ca").write_text(f"{self.authority}\n")
        (self.directory / "authorized_keys").write_text("")
        (self.directory / "principals").write_text(f"{INSTANCES[0].principal}\n")


@pytest.fixture
def pod(tmp_path: Path, authorities: Authorities, openssh: OpenSSH, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    lines = [f"AuthorizedPrincipalsFile {tmp_path}/principals", f"RevokedKeys {tmp_path}/revoked"]
    if openssh.folder is not None:
        monkeypatch.setattr(sshd, "BINARY", str(openssh.folder / "sbin" / "sshd"))
        parts = {"SshdSessionPath": "sshd-session", "SshdAuthPath": "sshd-auth"}
        lines += [f"{option} {openssh.folder}/libexec/{name}" for option, name in parts.items()]
    pod = Pod(tmp_path, user_key=private_key())
    pod.authority = authorities.current.public.user[0].line
    (tmp_path / "revoked").write_bytes(krl(b"", 1, 1))
    pod.start(lines)
    yield pod
    pod.stop()


def let_in(pod: Pod, line: str) -> bool:
    (pod.directory / "cert.pub").write_text(f"{line}\n")
    options = (
        *("BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", f"CertificateFile={pod.directory}/cert.pub"),
        *(f"UserKnownHostsFile={pod.known_hosts}", f"Port={pod.port}", f"User={pod.user}"),
    )
    done = subprocess.run(
        ["ssh", "-F", "none", "-i", pod.identity, *(w for o in options for w in ("-o", o)), "127.0.0.1", "echo in"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) in {(0, "in\n"), (255, "")}, done
    assert done.returncode == 0 or "Permission denied (publickey)" in done.stderr, done
    return done.returncode == 0


def test_sshd_obeys_the_list(pod: Pod, authorities: Authorities) -> None:
    mine = Recorded(make_serial(T, 1), "alice", INSTANCES[:1])
    other = replace(mine, serial=make_serial(T, 2))
    both = [authorities.sign(one) for one in (mine, other)]
    assert [let_in(pod, line) for line in both] == [True, True]
    content = made(Revocations(serials=frozenset({mine.serial})), (), authorities.trusted)
    (pod.directory / "revoked").write_bytes(content)
    assert [let_in(pod, line) for line in both] == [False, True]
