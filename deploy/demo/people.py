"""Why: the demo plays two people: an administrator who starts servers, and alice with her browser."""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from types import TracebackType
from typing import Self

import httpx

from deploy.demo.parts import PATIENCE, DemoFailed
from deploy.demo.scene import Scene, write_private


class Administrator:
    """What the demo does through REST: start and stop alice's servers, and ask the api which of them have SSH."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._client = httpx.AsyncClient(trust_env=False, timeout=PATIENCE)
        self._hub = {"Authorization": f"token {scene.admin_token.read_text()}"}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def start_server(self, user: str) -> None:
        """Start the default server with the box "Enable SSH" ticked."""
        url = f"{self._scene.hub_api_url}/users/{user}/server"
        _checked(await self._client.post(url, headers=self._hub, json={"enable_ssh": True}))

    async def stop_server(self, user: str) -> None:
        _checked(await self._client.delete(f"{self._scene.hub_api_url}/users/{user}/server", headers=self._hub))

    def enrolled(self, login: str) -> Callable[[], Awaitable[bool]]:
        """Whether the bastion is told of this server: it runs, JupyterHub calls it ready, and its sshd enrolled."""
        secret = {"Authorization": f"Bearer {self._scene.internal_secret.read_text().strip()}"}

        async def ask() -> bool:
            answer = _checked(await self._client.get(f"{self._scene.internal_url}/internal/state", headers=secret))
            return any(pod["login"] == login for pod in answer.json()["enrolled"])

        return ask

    async def furnish_laptop(self, scope: str) -> None:
        """alice's own computer: known hosts, and a JupyterHub token that is good for certificates only."""
        laptop = self._scene.laptop
        (laptop / "known_hosts").write_text((await self._client.get(f"{self._scene.public_url}/known_hosts")).text)
        url = f"{self._scene.hub_api_url}/users/alice/tokens"
        made = _checked(await self._client.post(url, headers=self._hub, json={"note": "demo", "scopes": [scope]}))
        write_private(laptop / "token-header", f"Authorization: token {made.json()['token']}\n")
        write_private(laptop / "ssh_config", ssh_config(self._scene, "key"))
        write_private(laptop / "legacy_config", ssh_config(self._scene, "legacy"))
        write_private(laptop / "bare_config", ssh_config(self._scene, "none", methods="keyboard-interactive"))


def ssh_config(scene: Scene, key: str, methods: str = "publickey") -> str:
    """Only this key, only these known hosts, no questions; nothing of the real user's ~/.ssh takes part."""
    return f"""\
Host *
    IdentityFile {scene.laptop}/{key}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {scene.laptop}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    PreferredAuthentications {methods}
"""


class Browser:
    """alice's browser: cookies, redirects and forms. `heard` gets a line for each page."""

    def __init__(self, scene: Scene, heard: Callable[[str], None]) -> None:
        self._scene = scene
        self._heard = heard
        self.client = httpx.AsyncClient(trust_env=False, timeout=PATIENCE, follow_redirects=True)

    async def log_in(self) -> httpx.Response:
        """From the api's first page through JupyterHub's login form and OAuth back to the api's page."""
        welcome = await self._open("GET", f"{self._scene.public_url}/")
        login_form = await self._open("GET", _link(welcome, "/login"))
        form = _form(login_form, "/hub/login")
        fields = {**form.fields, "username": "alice", "password": self._scene.password}
        return await self._open("POST", form.url(login_form), data=fields)

    async def start_server(self, name: str) -> None:
        """Tick "Enable SSH" on JupyterHub's spawn page, and send it."""
        page = await self._open("GET", f"{self._scene.hub_url}/hub/spawn/alice/{name}")
        form = _form(page, "/hub/spawn")
        if "enable_ssh" not in form.boxes:
            raise DemoFailed('the spawn page has no box "Enable SSH"')
        await self._open("POST", form.url(page), data={**form.fields, "enable_ssh": "on"})

    async def get_certificate(self, public_key: str) -> str:
        """Paste the public key into the api's form and download the certificate."""
        home = await self._open("GET", f"{self._scene.public_url}/")
        form = _form(home, "/certificates/form")
        fields = {**form.fields, "public_key": public_key, "then": "download"}
        origin = {"Origin": self._scene.public_url}
        answer = await self._open("POST", form.url(home), data=fields, headers=origin)
        if "-cert-v01@openssh.com " not in answer.text:
            raise DemoFailed(f"the page gave no certificate: {answer.text[:500]}")
        return answer.text

    async def approve(self, code: str) -> None:
        """Type the code that a terminal shows into the page for that, look at who asks, and approve."""
        page = await self._open("GET", f"{self._scene.public_url}/activate")
        origin = {"Origin": self._scene.public_url}
        for fields in ({"code": code, "then": "look"}, {"then": "approve"}):
            form = _form(page, "/activate")
            page = await self._open("POST", form.url(page), data={**form.fields, **fields}, headers=origin)

    async def _open(self, method: str, url: str, **options: object) -> httpx.Response:
        page = _checked(await self.client.request(method, url, **options))  # type: ignore[arg-type]
        for step in (*page.history, page):
            title = re.search(r"<title>\s*(.*?)\s*</title>", step.text, re.DOTALL) if step is page else None
            said = f"  {html.unescape(' '.join(title[1].split()))}" if title else ""
            # The query holds codes and states; a line on the screen does not need them.
            self._heard(f"{step.request.method:<4} {step.url.copy_with(query=None)} {step.status_code}{said}")
        return page


class _Forms(HTMLParser):
    """The forms of a page: where they go, their hidden fields and their boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given.get("action", "")))
        elif tag == "input" and self.found:
            if given.get("type") == "checkbox":
                self.found[-1].boxes.add(given.get("name", ""))
            elif given.get("type") == "hidden" or "checked" in given:
                self.found[-1].fields[given.get("name", "")] = given.get("value", "")


class Form:
    """One form of a page."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.fields: dict[str, str] = {}
        self.boxes: set[str] = set()

    def url(self, page: httpx.Response) -> str:
        return str(page.url.join(self.action))


def _form(page: httpx.Response, action: str) -> Form:
    forms = _Forms()
    forms.feed(page.text)
    for form in forms.found:
        if action in form.action:
            return form
    raise DemoFailed(f"{page.url.copy_with(query=None)} has no form for {action}")


def _link(page: httpx.Response, end: str) -> str:
    found = re.search(rf'href="([^"]*{re.escape(end)})"', page.text)
    if found is None:
        raise DemoFailed(f"{page.url} has no link to {end}")
    return str(page.url.join(html.unescape(found[1])))


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        url = answer.url.copy_with(query=None)
        raise DemoFailed(f"{answer.request.method} {url} answered {answer.status_code}: {answer.text[:500]}")
    return answer
