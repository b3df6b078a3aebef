"""Why: hubssh is a program on somebody's laptop: it is run as one, and what it leaves there is used by OpenSSH."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.client.hubssh import ssh_folder
from tests.support.browser import form
from tests.support.hub import LIMIT, ROOT, no_tls
from tests.support.system import ACCESS, System, SystemFailed

HUBSSH = ROOT / "deploy" / "client" / "hubssh.py"
_OLD = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python3"))
PYTHON = str(_OLD[-1]) if _OLD else sys.executable
"""The oldest Python that hubssh promises to run on, where there is one."""


@dataclass
class Laptop:
    """A machine with OpenSSH and Python, an ssh folder, and somebody with a browser."""

    system: System
    folder: Path
    user: str = "alice"
    agent: str = ""
    ahead: int = 0
    """Seconds by which its clock is wrong."""
    extra: dict[str, str] = field(default_factory=dict)
    program: Path = HUBSSH
    at_home: bool = False
    """True: the folder is the account's own ~/.ssh for whatever runs here, so that nothing has to be told about it."""

    @property
    def ssh_folder(self) -> Path:
        return self.folder / ".ssh"

    @property
    def site_folder(self) -> Path:
        (found,) = self.ssh_folder.glob("hubssh/*/site.json")
        return found.parent

    @property
    def certificate(self) -> Path:
        return self.site_folder / "id_ed25519-cert.pub"

    def environment(self) -> dict[str, str]:
        agent = {"SSH_AUTH_SOCK": self.agent} if self.agent else {}
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            **agent,
            **self.extra,
        }

    def command(self, *words: str) -> list[str]:
        """hubssh as it is run: the file itself, or, where the clock is wrong, with another clock given to `main`."""
        if self.at_home:
            return self.home([PYTHON, str(self.program), *words])
        if not words or words[0].startswith("-"):
            return [PYTHON, str(self.program), *words]
        words = (words[0], "--ssh-dir", str(self.ssh_folder), *words[1:])
        if not self.ahead:
            return [PYTHON, str(self.program), *words]
        late = (
            f"import sys, time; sys.path.insert(0, {str(HUBSSH.parent)!r}); import hubssh; sys.exit(hubssh.main("
            f"sys.argv[1:], hubssh.Machine(clock=lambda: time.time() + {self.ahead})))"
        )
        return [PYTHON, "-c", late, *words]

    def home(self, command: Sequence[str]) -> list[str]:
        """A command in a world of its own, where the account's ~/.ssh is this folder."""
        self.ssh_folder.mkdir(mode=0o700, exist_ok=True)
        mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, str(self.ssh_folder), ssh_folder(), *command]

    def hubssh(self, *words: str) -> subprocess.CompletedProcess[str]:
        """hubssh to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def told(self, *words: str) -> dict[str, Any]:
        """The JSON of a command that does what it is asked for."""
        done = self.hubssh(*words, "--json")
        if done.returncode:
            raise SystemFailed(f"hubssh {' '.join(words)}: {done.stdout} {done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wrong(self, *words: str) -> dict[str, str]:
        """What `doctor` finds wrong."""
        done = self.hubssh("doctor", *words, "--json")
        found = json.loads(done.stdout)["findings"]
        if done.returncode != 1 or found[-1]["state"] != "wrong":
            raise SystemFailed(f"nothing is wrong: {done.stdout} {done.stderr}")
        last: dict[str, str] = found[-1]
        return last

    async def runs(self, *names: str) -> None:
        """These of the person's servers run with SSH; "" is the default one."""
        for name in names:
            if await self.system.hub.server(self.user, name) is None:
                await self.system.start_server(self.user, name)

    async def login(
        self, *words: str, then: str = "approve", by: str = "", command: str = "login"
    ) -> subprocess.CompletedProcess[str]:
        """`hubssh login`, with somebody who opens what it prints and decides there."""
        known = list(self.ssh_folder.glob("hubssh/*/site.json"))
        address = [self.system.url] if command == "login" and not known else []
        with subprocess.Popen(
            self.command(command, *address, "--no-browser", *words),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                assert running.stderr is not None
                said = ""
                while "Code:" not in said:
                    line = running.stderr.readline()
                    if not line:
                        break
                    said += line
                else:
                    await self.decide(said, then, by or self.user)
                out, err = running.communicate(timeout=LIMIT)
            finally:
                running.kill()
        return subprocess.CompletedProcess(running.args, running.returncode, out, said + err)

    async def logged_in(self, *words: str) -> Laptop:
        """The same, where nothing may go wrong."""
        done = await self.login(*words)
        if done.returncode:
            raise SystemFailed(f"hubssh login: {done.stdout} {done.stderr}")
        return self

    async def decide(self, said: str, then: str, by: str) -> None:
        """Open the address that hubssh printed, look at the login, and decide."""
        page_at, code = re.findall(r"https?://\S+/activate", said)[0], re.findall(r"Code: (\S+)", said)[0]
        hub = self.system.hub
        async with hub.browser() as browser:
            await hub.log_in_here(browser, page_at, by)
            page = await browser.get(page_at)
            page = await self.submit(browser, page, code=code)
            if then == "approve once a server runs":
                assert "None of your servers is running" in page.text, page.text
                await self.runs("")
                page, then = await browser.get(f"{page_at}?code={code}"), "approve"
            page = await self.submit(browser, page, then=then)
            if page.is_error:
                raise SystemFailed(f"{page.status_code} {page.text}")

    async def submit(self, browser: httpx.AsyncClient, page: httpx.Response, **fields: str) -> httpx.Response:
        """Fill in the form of the approval page as a browser does."""
        found = form(page, "/activate")
        headers = {"Origin": self.system.url, "Sec-Fetch-Site": "same-origin"}
        return await browser.post(found.action, data={**found.fields, **fields}, headers=headers)

    def options(self) -> list[str]:
        return ["-F", str(self.ssh_folder / "config")]

    def ssh(self, host: str, *command: str, data: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Plain ssh, as anybody types it."""
        return self.run("ssh", host, *command)

    def says(self, host: str, *command: str) -> str:
        """What a command says that plain ssh runs there; it must succeed."""
        done = self.ssh(host, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Another client of OpenSSH, or one that calls ssh."""
        return subprocess.run(
            self.home([program, *words]) if self.at_home else [program, *self.options(), *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def site(self) -> dict[str, Any]:
        """What hubssh remembers."""
        kept: dict[str, Any] = json.loads((self.site_folder / "site.json").read_text())
        return kept

    def remember(self, **changes: Any) -> None:
        """As if hubssh remembered something else."""
        (self.site_folder / "site.json").write_text(json.dumps({**self.site(), **changes}))

    def half_over(self) -> None:
        """As if half of the certificate's life were over."""
        kept = self.site()["certificate"]
        began = kept["valid_after"] - 2 * (kept["valid_before"] - kept["valid_after"])
        self.remember(certificate={**kept, "valid_after": began})

    async def revoke(self, serial: str) -> None:
        """As its owner does with a token, from elsewhere."""
        token = await self.system.hub.token(self.user, [ACCESS])
        async with httpx.AsyncClient(verify=no_tls(), trust_env=False) as client:
            headers = {"Authorization": f"token {token}"}
            (await client.delete(f"{self.system.url}/certificates/{serial}", headers=headers)).raise_for_status()

    @contextmanager
    def with_agent(self) -> Iterator[None]:
        """An ssh-agent runs."""
        socket = self.folder / "agent"
        with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE) as agent:
            assert agent.stdout is not None
            agent.stdout.readline()  # written when it listens
            self.agent = str(socket)
            try:
                yield
            finally:
                self.agent = ""
                agent.kill()


def laptop(system: System, folder: Path, user: str = "alice") -> Laptop:
    """A new machine of somebody."""
    folder.mkdir(parents=True, exist_ok=True)
    return Laptop(system, folder, user)


def words(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    """What a program said on its error output, line by line."""
    return [line for line in done.stderr.splitlines() if line]
