"""Pages for people: HTML from templates, with headers that let nothing else act in them.

No script and no style stands in the pages themselves, nothing is loaded from elsewhere, and nobody may frame
them. Templates escape everything; a user name or a key comment is text, whatever it looks like.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, Response

from api.hub import segment
from api.session import Session

HERE = Path(__file__).parent
STATIC = {
    "page.css": "text/css",
    "copy.js": "text/javascript",
    "drop.js": "text/javascript",
    "live.js": "text/javascript",
    "mark.svg": "image/svg+xml",
}
"""Files that the pages load, and their types. Nothing else is served."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

PRIVATE = {**HEADERS, "Cache-Control": "no-store"}
"""For whatever belongs to one person."""


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody can do next: a link and its words."""

    text: str
    url: str


class Pages:
    """Renders the templates for one site."""

    def __init__(self, public_url: str, hub_url: str) -> None:
        self.site = public_url
        self.hub_url = hub_url
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(site=public_url, hub_url=hub_url)
        self._templates.filters.update(iso=_iso, moment=_moment, segment=segment)

    def page(self, name: str, session: Session | None, status: int = 200, **values: Any) -> HTMLResponse:
        """The page `name`. `session` shows who is logged in, and puts its form token into every form."""
        text = self._templates.get_template(f"{name}.html").render(session=session, **values)
        return HTMLResponse(text, status_code=status, headers=PRIVATE)

    def problem(
        self, title: str, sentence: str, status: int, session: Session | None = None, *steps: Step
    ) -> HTMLResponse:
        """A page for what did not work: a sentence, and where to go from here (default: the first page)."""
        shown = steps or (Step("Back to the start", f"{self.site}/"),)
        return self.page("error", session, status, title=title, sentence=sentence, steps=shown)


def static_file(name: str) -> Response | None:
    """One of the files that the pages load; None for every other name."""
    kind = STATIC.get(name)
    if kind is None:
        return None
    content = (HERE / "static" / name).read_bytes()
    return Response(content, media_type=kind, headers={**HEADERS, "Cache-Control": "public, max-age=3600"})


def attachment(text: str, file_name: str) -> Response:
    """A text file that the browser saves under `file_name`, which must come from us."""
    headers = {**PRIVATE, "Content-Disposition": f'attachment; filename="{file_name}"'}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(seconds: float) -> str:
    """A moment as people read it, in UTC, since the server does not know the reader's zone."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %B %Y, %H:%M UTC")
