"""Why: pods run OpenSSH, and so do people: what our CA signs must be worth there what it is worth to us."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ca.keyfiles import rotate
from ca.limits import ALL, Capability
from ca.names import Instance, Server
from ca.policy import Grant, HopGrant, HostGrant
from ca.signer import FileSigner, Signed
from tests.ca.makers import FILE_KEYS, CheckedSigner, private_key, public_key
from tests.support.sshd import Sshd

GPU = Instance(Server("alice", "gpu"), 1763000000000000)


def grant(**changes: object) -> Grant:
    now = int(time.time())
    plain = Grant(
        user="alice",
        key=public_key(),
        serial=7,
        instances=(GPU,),
        capabilities=ALL,
        valid_after=now - 60,
        valid_before=now + 3600,
        source_address=None,
        as_admin=False,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def host_grant(*names: str) -> HostGrant:
    plain = grant()
    return HostGrant("alice+gpu", public_key(number=2), 9, names, plain.valid_after, plain.valid_before)


class Pod(Sshd):
    """An sshd as in a pod: it trusts our user CA, takes one principal, and shows our host certificate."""

    signer: CheckedSigner

    def _write_keys(self) -> None:
        super()._write_keys()
        self.trust()
        (self.directory / "principals").write_text(f"{GPU.principal}\n")
        (self.directory / "authorized_keys").write_text("")
        made = self.signer.sign_host(host_grant(GPU.server.host_name("hub")))
        (self.directory / "host-cert.pub").write_text(f"{made.line}\n")

    def trust(self) -> None:
        """Write the CA keys of now; sshd reads them at each login."""
        lines = [key.line for key in self.signer.public.user]
        (self.directory / "user_ca").write_text("\n".join(lines) + "\n")

    def ssh(
        self, made: Signed, *command: str, kind: str = "ed25519", alias: str = "alice+gpu.hub"
    ) -> subprocess.CompletedProcess[str]:
        """Log in with this certificate and nothing else, checking the host certificate strictly."""
        identity = self.directory / f"id-{kind}"
        identity.touch(mode=0o600)
        identity.write_bytes(private_key(kind).export_private_key("openssh"))
        (self.directory / "cert.pub").write_text(f"{made.line}\n")
        ca = self.signer.public.host[0].line
        (self.directory / "known").write_text(f"@cert-authority *.hub {ca}\n")
        options = {
            "BatchMode": "yes",
            "CertificateFile": str(self.directory / "cert.pub"),
            "HostKeyAlias": alias,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.directory / "known"),
            "GlobalKnownHostsFile": "/dev/null",
        }
        arguments = [part for option in options.items() for part in ("-o", "=".join(option))]
        return subprocess.run(
            [
                "ssh",
                "-F",
                "none",
                "-i",
                str(identity),
                *arguments,
                "-p",
                str(self.port),
                f"{self.user}@127.0.0.1",
                *(command or ("echo in",)),
            ],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    directory = tmp_path_factory.mktemp("pod")
    pod = Pod(directory, host_key=private_key(number=2))
    pod.signer = CheckedSigner(FileSigner(directory / "ca", None))
    pod.start([f"AuthorizedPrincipalsFile {directory}/principals"])
    yield pod
    pod.stop()


def let_in(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode in {0, 255}, done.stderr
    assert done.returncode == 0 or "Permission denied (publickey)" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("kind", FILE_KEYS)
def test_the_certificate_of_this_run_logs_in_with_every_kind_of_key(pod: Pod, kind: str) -> None:
    done = pod.ssh(pod.signer.sign_user(grant(key=public_key(kind))), "echo in", kind=kind)
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


@pytest.mark.parametrize(
    "instances",
    [
        (replace(GPU, id=GPU.id + 1),),
        (replace(GPU, id=GPU.id - 1),),
        (Instance(Server("alice"), GPU.id),),
        (Instance(Server("bob", "gpu"), GPU.id),),
        tuple(Instance(Server("alice", f"s{number}"), GPU.id) for number in range(256)),
    ],
)
def test_the_certificate_of_another_run_is_refused(pod: Pod, instances: tuple[Instance, ...]) -> None:
    assert not let_in(pod.ssh(pod.signer.sign_user(grant(instances=instances))))


def test_a_certificate_for_many_servers_opens_this_one_too(pod: Pod) -> None:
    others = tuple(Instance(Server("alice", f"s{number}"), GPU.id) for number in range(255))
    assert let_in(pod.ssh(pod.signer.sign_user(grant(instances=(*others, GPU)))))


def test_an_expired_certificate_and_one_not_yet_valid_are_refused(pod: Pod) -> None:
    now = int(time.time())
    for valid_after, valid_before in ((now - 7200, now - 3600), (now + 3600, now + 7200)):
        made = pod.signer.sign_user(grant(valid_after=valid_after, valid_before=valid_before))
        assert not let_in(pod.ssh(made))


def test_certificates_of_the_other_two_cas_are_refused(pod: Pod) -> None:
    plain = grant()
    hop = HopGrant("alice", plain.key, 8, GPU, ALL, plain.valid_after, plain.valid_before)
    assert not let_in(pod.ssh(pod.signer.sign_hop(hop)))
    host = replace(host_grant("alice+gpu.hub"), key=plain.key)
    assert not let_in(pod.ssh(pod.signer.sign_host(host)))


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", True), ("192.0.2.7", False), ("::1", False)])
def test_a_bound_certificate_counts_from_its_address(pod: Pod, address: str, expected: bool) -> None:
    assert let_in(pod.ssh(pod.signer.sign_user(grant(source_address=address)))) is expected


def test_a_terminal_that_was_not_granted_is_not_given(pod: Pod) -> None:
    without = pod.signer.sign_user(grant(capabilities=ALL - {Capability.PTY}))
    assert "PTY allocation request failed" in pod.ssh(without, "-tt", "true").stderr
    assert "PTY allocation" not in pod.ssh(pod.signer.sign_user(grant()), "-tt", "true").stderr


def test_ssh_knows_the_pod_by_its_name_and_by_no_other(pod: Pod) -> None:
    made = pod.signer.sign_user(grant())
    assert let_in(pod.ssh(made))
    for alias in ("alice.hub", "bob+gpu.hub", "alice+gpu.other"):
        done = pod.ssh(made, alias=alias)
        assert done.returncode == 255
        assert "Host key verification failed" in done.stderr


def test_a_rotation_refuses_nobody_whether_or_not_the_pod_heard_of_it(tmp_path: Path) -> None:
    pod = Pod(tmp_path, host_key=private_key(number=2))
    signer = FileSigner(tmp_path / "ca", None)
    pod.signer = CheckedSigner(signer)
    pod.start([f"AuthorizedPrincipalsFile {tmp_path}/principals"])
    try:
        before = pod.signer.sign_user(grant())
        rotate(tmp_path / "ca", "user", None)
        signer.reload()
        after = pod.signer.sign_user(grant())
        assert let_in(pod.ssh(before))
        assert let_in(pod.ssh(after))
        pod.trust()
        assert let_in(pod.ssh(before))
        assert let_in(pod.ssh(after))
    finally:
        pod.stop()
