"""Why: people use forms, so tests read the forms of real pages and send exactly their fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlsplit

import httpx

from tests.support.service import Service


@dataclass
class Form:
    """A form as the page has it: where it goes, and the fields that it would send untouched."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    """Values of radio buttons and of submit buttons with a name."""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._open: Form | None = None
        self._textarea: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = Form(given.get("method", "get"), given.get("action", ""))
            self.found.append(self._open)
        elif self._open is None or not (name := given.get("name", "")):
            return
        elif tag == "textarea":
            self._textarea = name
            self._open.fields[name] = ""
        elif tag == "button" or given.get("type") == "radio":
            self._open.choices.setdefault(name, []).append(given.get("value", ""))
            if "checked" in given:
                self._open.fields[name] = given.get("value", "")
        elif tag == "input":
            self._open.fields[name] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._open is not None and self._textarea is not None:
            self._open.fields[self._textarea] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._textarea = None
        elif tag == "form":
            self._open = None


def forms(page: httpx.Response) -> list[Form]:
    """Every form of a page."""
    reader = _Forms()
    reader.feed(page.text)
    return reader.found


def form(page: httpx.Response, path: str) -> Form:
    """The one form of a page that goes to a path with this end."""
    (found,) = [one for one in forms(page) if urlsplit(one.action).path.endswith(path)]
    return found


class Person:
    """Somebody with a browser: keeps cookies, follows redirects, says where forms come from as browsers do."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = service.client(follow_redirects=True)

    async def __aenter__(self) -> Person:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def log_in(self, user: str, wanted: str = "") -> httpx.Response:
        """Our login link, JupyterHub's own form, and back; the page where that ends."""
        path = f"{self.service.url}/login{wanted and f'?next={wanted}'}"
        return await self.service.hub.log_in_here(self.client, path, user)

    async def submit(self, page: httpx.Response, path: str, **fields: str) -> httpx.Response:
        """Fill in the form of `page` that goes to `path`, and send it."""
        found = form(page, path)
        headers = {"Origin": self.service.front.sessions.origin, "Sec-Fetch-Site": "same-origin"}
        return await self.client.post(found.action, data={**found.fields, **fields}, headers=headers)
