"""Why: a bastion that accepts before it knows anything shows an unknown key and turns everybody away."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import asyncssh

from bastion.authority import Authority, Secret
from bastion.hostkey import HostKey
from tests.support.internal_api import SECRET
from tests.support.site import LIMIT, Site, site


async def strict(at: Site, key: Path) -> bytes:
    """What `ssh` says to somebody who trusts host certificates alone; b"in\\n" from whom it lets in."""
    known = at.folder / "known_hosts"
    known.write_text(f"@cert-authority * {at.sshd.host_ca.export_public_key().decode()}")
    options = ("StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "BatchMode=yes", "IdentityAgent=none")
    process = await asyncio.create_subprocess_exec(
        *("ssh", "-F", "none", "-i", str(key), "-p", str(at.port)),
        *(word for option in options for word in ("-o", option)),
        *("alice@127.0.0.1", "echo in"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(at.folder)},
    )
    async with asyncio.timeout(LIMIT):
        output, errors = await process.communicate()
    return output or errors


def certificate(at: Site, public_key: str, begins: str, ends: str) -> str:
    made = at.sshd.host_ca.generate_host_certificate(
        asyncssh.import_public_key(public_key), "bastion", valid_after=begins, valid_before=ends
    )
    return made.export_certificate().decode().strip()


class Told(asyncssh.SSHClient):
    """Keeps what a client is shown before it is in. `keys` are offered; then it waits, and goes on when `go` is set."""

    def __init__(self, *keys: Path) -> None:
        self.keys = [asyncssh.read_private_key(one) for one in keys]
        self.sentences: list[str] = []
        self.offered, self.go = asyncio.Event(), asyncio.Event()

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.sentences.append(msg)

    async def public_key_auth_requested(self) -> asyncssh.SSHKey | None:
        if self.keys:
            return self.keys.pop(0)
        self.offered.set()
        await self.go.wait()
        return None

    async def tries(self, at: Site) -> Exception:
        """How it ended."""
        try:
            async with asyncio.timeout(LIMIT):
                await asyncssh.connect(
                    "127.0.0.1",
                    at.port,
                    username="alice",
                    client_factory=lambda: self,
                    known_hosts=None,
                    agent_path=None,
                    config=None,
                    preferred_auth=["publickey"],
                )
        except (OSError, asyncssh.Error) as error:
            return error
        raise AssertionError("it was let in")


async def test_a_bastion_that_starts_before_the_api_shows_its_host_certificate_from_the_first_connection_on(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as made:
        await made.api.stop()
        starting = asyncio.create_task(made.start())
        await made.until("the log to begin", made.log.exists)
        await made.logged("no host certificate from the api")
        await made.api.start()
        await starting
        assert await strict(made, made.key("alice")) == b"in\n"


async def test_without_a_host_certificate_the_bastion_listens_after_a_moment_and_shows_it_when_it_comes(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as made:
        given = made.api.answers.pop("/internal/host-certificates")
        await made.start()
        assert "listening without a host certificate" in made.log.read_text()
        key = made.key("alice")
        assert await made.gets_in(key)
        assert b"Host key verification failed" in await strict(made, key)
        made.api.answers["/internal/host-certificates"] = given
        made.api.change(version="2")
        await made.logged("the api gives host certificates again")
        assert await strict(made, key) == b"in\n"


async def test_a_host_certificate_that_has_ended_is_neither_taken_from_disk_nor_shown_on(tmp_path: Path) -> None:
    now = 1_000_000_000.0
    async with site(tmp_path) as made:
        key = HostKey(tmp_path)
        kept = tmp_path / "ssh_host_ed25519_key-cert.pub"
        kept.write_text(certificate(made, key.public.line, "-2h", "-1h"))
        assert HostKey(tmp_path).certificate is None
        assert not HostKey(tmp_path).certified.is_set()
        kept.write_text(certificate(made, key.public.line, "19990101", "20020101"))
        key = HostKey(tmp_path, wall=lambda: now)
        assert key.certificate is not None
        now *= 2
        await made.api.stop()
        authority, changed = Authority(made.api.url, Secret(SECRET)), asyncio.Event()
        keeping = asyncio.create_task(key.keep_certified(authority, changed.set))
        async with asyncio.timeout(LIMIT):
            await changed.wait()
        assert key.certificate is None
        keeping.cancel()
        await asyncio.wait([keeping])
        await authority.aclose()


async def test_who_asks_a_bastion_that_does_not_know_which_servers_run_is_told_so_once_a_key_or_not(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, SHUTDOWN_GRACE="0") as made:
        await made.start()
        await made.end()
        await made.api.stop()
        await made.start()
        assert "which servers run is not known yet" in made.log.read_text()
        certified = made.key("alice")
        plain = [made.key(f"plain-{number}", certified=False) for number in range(2)]
        for number, keys in enumerate([plain, [certified, *plain]]):
            client = Told(*keys)
            client.go.set()
            assert isinstance(await client.tries(made), asyncssh.PermissionDenied)
            assert len(client.sentences) == 1
            assert "has not heard for too long which servers run" in client.sentences[0]
            await made.until("the line", lambda count=number + 1: len(made.audit("connection_refused")) == count)  # type: ignore[misc]
        assert {line["reason"] for line in made.audit("connection_refused")} == {"unavailable"}
        await made.api.start()
        await made.logged("the api's state is available again")
        assert await made.gets_in(certified)


async def test_in_kubernetes_the_port_stays_closed_until_the_pods_are_known(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(NOBODY)
    async with site(tmp_path, DIRECTORY_SOURCE="kubernetes", DIRECTORY_KUBECONFIG=str(kubeconfig)) as made:
        starting = asyncio.create_task(made.start())
        await made.until("the log to begin", made.log.exists)
        await made.logged("which servers run is not known yet(.|\n)*namespace hub(.|\n)*namespace hub")
        assert "listening" not in made.log.read_text()
        starting.cancel()
        await asyncio.wait([starting])
        assert await made.end() == 0


async def test_a_stranger_who_is_still_here_at_the_end_leaves_a_line(tmp_path: Path) -> None:
    async with site(tmp_path, SHUTDOWN_GRACE="0") as made:
        await made.start()
        client = Told(made.key("plain", certified=False))
        trying = asyncio.create_task(client.tries(made))
        async with asyncio.timeout(LIMIT):
            await client.offered.wait()
        assert await made.end() == 0
        client.go.set()
        await trying
        lines: list[dict[str, Any]] = made.audit("connection_refused")
        assert [line["reason"] for line in lines] == ["unknown_credential"]


NOBODY = """
apiVersion: v1
kind: Config
clusters: [{name: away, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: nobody, user: {token: none}}]
contexts: [{name: away, context: {cluster: away, user: nobody}}]
current-context: away
"""
