"""Why: `make demo CHECK=1` is the proof: each use with plain OpenSSH, each command with its answer."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import hashlib
import os
import re
import shlex
import sys
import time

import httpx

from deploy.demo.guide import hubssh_command
from deploy.demo.parts import DemoFailed, Parts, say, wait_for
from deploy.demo.people import Administrator, Browser
from deploy.demo.scene import ROOT, Scene, system_path

_LIMIT = 90.0
"""Seconds that one command may take."""
_PAYLOAD = 32 * 1024 * 1024
_CODE = re.compile(r"\b[A-Z]{4}-[A-Z]{4}\b")


class Tour:
    """Goes through the three uses, and through the end of a server. Counts what did not work."""

    def __init__(self, scene: Scene, administrator: Administrator, parts: Parts) -> None:
        self._scene = scene
        self._administrator = administrator
        self._parts = parts
        self._laptop = scene.laptop
        self._port = str(scene.ports.bastion)
        self._account = getpass.getuser()
        self._done = 0
        self._failed: list[str] = []

    async def take(self) -> int:
        """Everything, in order. An exit status."""
        await self._oauth_login()
        await self._ssh_with_certificate()
        await self._hubssh()
        await self._nothing_installed()
        await self._token()
        await self._legacy_key()
        await self._server_stops()
        say()
        if not self._failed:
            say(f"All {self._done} checks passed.")
            return 0
        for what in self._failed:
            say(f"FAILED: {what}")
        for name in ("bastion", "api", "JupyterHub"):
            say(f"The log of {name} ends with\n{self._parts.last_words(name)}")
        return 1

    # -- the uses

    async def _oauth_login(self) -> None:
        self._title("OAuth login to fetch a certificate")
        await self._run("ssh-keygen -q -t ed25519 -N '' -f key")
        browser = Browser(self._scene, lambda line: say(f"  {line}"))
        async with browser.client:
            page = await browser.log_in()
            self._check("the api's page knows alice", "alice" in page.text and str(page.url).startswith(
                self._scene.public_url))  # fmt: skip
            await browser.start_server("gpu")
            await wait_for(self._administrator.enrolled("alice+gpu"), lambda: "alice/gpu did not enrol.")
            certificate = await browser.get_certificate((self._laptop / "key.pub").read_text())
        (self._laptop / "key-cert.pub").write_text(certificate)
        await self._run("ssh-keygen -L -f key-cert.pub", expect="alice/gpu:")

    async def _ssh_with_certificate(self) -> None:
        self._title("ssh with the issued certificate")
        await self._run(self._ssh("alice", "echo $JUPYTERHUB_USER"), expect="alice")
        await self._run(self._ssh("alice+gpu", "echo $JUPYTERHUB_USER/$JUPYTERHUB_SERVER_NAME"), expect="alice/gpu")
        await self._run(self._ssh("alice", "exit 3"), status=3)
        await self._run(self._ssh("alice", "tty", "-tt"), expect="/dev/pts/")
        await self._run(self._jump("alice.hub", "echo $JUPYTERHUB_USER"), expect="alice")
        await self._copies()

    async def _copies(self) -> None:
        payload = os.urandom(_PAYLOAD)
        (self._laptop / "payload").write_bytes(payload)
        scp = f"scp -q -F ssh_config -P {self._port}"
        await self._run(f"{scp} payload alice@127.0.0.1:from-laptop")
        await self._run(f"{scp} alice@127.0.0.1:from-laptop back")
        await self._run(self._ssh("alice", "sha256sum < from-laptop"), expect=hashlib.sha256(payload).hexdigest())
        back = self._laptop / "back"
        self._check("what came back is what was sent", back.exists() and back.read_bytes() == payload)
        (self._laptop / "batch").write_text("put key.pub by-sftp\nls by-sftp\nrm by-sftp\nrm from-laptop\n")
        await self._run(f"sftp -F ssh_config -P {self._port} -b batch alice@127.0.0.1", expect="by-sftp")

    async def _hubssh(self) -> None:
        self._title("hubssh: one command and one click, and every tool knows the servers by name")
        await self._run(f"curl -fsS {self._scene.public_url}/hubssh -o hubssh")
        await self._approved(hubssh_command("login", self._scene.public_url, "--no-browser", "--no-agent"))
        await self._run("ssh -F ssh/config alice.hub 'echo $JUPYTERHUB_USER'", expect="alice")
        await self._run("ssh -F ssh/config gpu.hub 'echo $JUPYTERHUB_SERVER_NAME'", expect="gpu")
        await self._run(hubssh_command("list"), expect="running")
        await self._run(hubssh_command("doctor", "gpu"), expect="Everything works.")
        await self._run(hubssh_command("logout"))

    async def _nothing_installed(self) -> None:
        self._title("no certificate and no key: ssh and a browser")
        command = self._ssh("alice", "echo I am $JUPYTERHUB_USER", config="bare_config")
        await self._approved(command, expect="I am alice")

    async def _approved(self, command: str, *, expect: str = "") -> None:
        """Run something that shows a code and waits; approve it in alice's browser."""
        say(f"$ {command}")
        process = await self._spawn(command)
        said: list[str] = []
        code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_LIMIT), asyncio.TaskGroup() as tasks:
                for stream in (process.stdout, process.stderr):
                    tasks.create_task(self._listen(stream, said, code))
                browser = Browser(self._scene, lambda line: say(f"  {line}"))
                async with browser.client:
                    await browser.log_in()
                    await browser.approve(await code)
                await process.wait()
        except TimeoutError:
            process.kill()
        self._check(command, process.returncode == 0 and expect in "\n".join(said))

    async def _listen(self, stream: asyncio.StreamReader | None, said: list[str], code: asyncio.Future[str]) -> None:
        """Show what a command says, keep it, and find the code in it."""
        if stream is None:
            raise DemoFailed("the command has no output")
        async for line in stream:
            text = line.decode(errors="replace").rstrip()
            said.append(text)
            say(f"  {text}")
            if (found := _CODE.search(text)) and not code.done():
                code.set_result(found[0])

    async def _token(self) -> None:
        self._title("a certificate with a JupyterHub token, for scripts")
        say(f"$ POST {self._scene.public_url}/certificates")
        name, _, value = (self._laptop / "token-header").read_text().strip().partition(": ")
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.post(
                f"{self._scene.public_url}/certificates",
                headers={name: value},
                json={"public_key": (self._laptop / "key.pub").read_text(), "server": "alice"},
            )
        shown = {key: answer.json().get(key) for key in ("key_id", "principals", "error_description")}
        say(f"  {answer.status_code} {shown}")
        self._check("the token gets a certificate", answer.status_code == 201)
        (self._laptop / "key-cert.pub").write_text(answer.json().get("certificate", "") + "\n")
        await self._run(self._ssh("alice", "echo $JUPYTERHUB_USER"), expect="alice")
        await self._run(self._ssh("alice+gpu", "true"), status=255)

    async def _legacy_key(self) -> None:
        self._title("a key in the server's authorized_keys, without a certificate")
        await self._run("ssh-keygen -q -t ed25519 -N '' -f legacy")
        await self._run(self._ssh("alice", "true", config="legacy_config"), status=255)
        await self._run(f"{self._ssh('alice', 'cat >> ~/.ssh/authorized_keys')} < legacy.pub")
        say("$ python -m bastion refresh-keys")
        await self._run_here([sys.executable, "-m", "bastion", "refresh-keys"])
        await self._run(self._ssh("alice", "echo $JUPYTERHUB_USER", config="legacy_config"), expect="alice")
        await self._run(self._jump("alice.hub", "echo $JUPYTERHUB_USER", config="legacy_config"), expect="alice")

    async def _server_stops(self) -> None:
        self._title("the certificate dies with the server")
        command = self._ssh("alice", "echo in; exec sleep 600", "-tt")
        say(f"$ {command}")
        session = await self._spawn(command)
        if session.stdout is None or session.stderr is None:
            raise DemoFailed("the session has no output")
        first = await asyncio.wait_for(session.stdout.readline(), _LIMIT)
        self._check("a session is open", first.strip() == b"in")
        say("alice's server is stopped in JupyterHub")
        began = time.monotonic()
        stopping = asyncio.create_task(self._administrator.stop_server("alice"))
        try:
            _, said = await asyncio.wait_for(session.communicate(), _LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                session.kill()
        say(f"  after {time.monotonic() - began:.1f} s: {said.decode(errors='replace').strip()}")
        self._check("the session ended", session.returncode == 255)
        await stopping
        await self._run(self._ssh("alice", "true"), status=255)

    # -- running things

    def _ssh(self, login: str, command: str, *options: str, config: str = "ssh_config") -> str:
        return shlex.join(["ssh", "-F", config, *options, "-p", self._port, f"{login}@127.0.0.1", command])

    def _jump(self, host: str, command: str, config: str = "ssh_config") -> str:
        via = f"jump@127.0.0.1:{self._port}"
        return shlex.join(["ssh", "-F", config, "-J", via, f"{self._account}@{host}", command])

    async def _run(self, command: str, *, expect: str = "", status: int = 0) -> None:
        """Show a command, run it on the laptop, show its answer, and judge it."""
        say(f"$ {command}")
        process = await self._spawn(command)
        try:
            out, error = await asyncio.wait_for(process.communicate(), _LIMIT)
        except TimeoutError:
            process.kill()
            self._check(f"{command}: answers within {_LIMIT:.0f} s", False)
            return
        text = (out + error).decode(errors="replace")
        for line in text.strip().splitlines():
            say(f"  {line.rstrip()}")
        if process.returncode or status:
            say(f"  status {process.returncode}")
        self._check(command, process.returncode == status and expect in text)

    async def _spawn(self, command: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", f"exec {command}"),
            cwd=self._laptop,
            env={"PATH": system_path(), "HOME": str(self._laptop), "LANG": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def _run_here(self, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=self._scene.bastion_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), _LIMIT)
        say(f"  {out.decode(errors='replace').strip()}")
        self._check(shlex.join(command[1:]), process.returncode == 0)

    def _check(self, what: str, worked: bool) -> None:
        self._done += 1
        if not worked:
            say(f"  FAILED: {what}")
            self._failed.append(what)

    def _title(self, text: str) -> None:
        say(f"\n== {text}")
