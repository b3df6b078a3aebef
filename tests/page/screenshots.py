"""Why: `make screenshots` shows every page as it is, at two widths, light and dark, for the documentation and review.

A real JupyterHub, api and bastion stand behind the pages. What would differ with each run (ports, moments, this
machine's names) is written over in the browser just before the picture is taken, so that pictures change with pages.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import anyio
from playwright.async_api import Browser, Page

from tests.page.scenes import KEY, Stage, scenes, staged
from tests.support.chromium import DESKTOP, MISSING, PHONE, chromium, new_context, open_chromium
from tests.support.hub import ROOT, Hub
from tests.support.system import POD_SIDE, System, unix_user

IMAGES = ROOT / "docs" / "images"
REWRITE = """(rewrites) => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        let text = walk.currentNode.data;
        for (const [from, to] of rewrites) text = text.replace(new RegExp(from, "g"), to);
        if (text !== walk.currentNode.data) walk.currentNode.data = text;
    }
    for (const bar of document.querySelectorAll("progress")) if (!bar.hasAttribute("value")) bar.value = 40;
    document.activeElement.blur();
}"""


def rewrites(system: System) -> list[tuple[str, str]]:
    """What is shown instead, as regular expressions, in this order."""
    return [
        (system.url, "https://ssh.example.org"),
        (system.hub.url, "https://hub.example.org"),
        (rf"\[localhost\]:{system.port},", ""),
        (rf"([-:P ]){system.port}\b", "$12222"),
        (r"@127\.0\.0\.1", "@ssh.example.org"),
        (r"(HostName |\[)127\.0\.0\.1", "$1ssh.example.org"),
        (r"127\.0\.0\.1", "192.0.2.7"),
        (rf"\b{unix_user()}@", "jovyan@"),
        (rf"User {unix_user()}\b", "User jovyan"),
        (r"\d+ \w+ \d{4}, \d\d:\d\d UTC", "24 November 2026, 18:30 UTC"),
        (r"11 hours \d+ minutes", "11 hours 59 minutes"),
        (r"[\d.]+ (bytes|kB) (in|out)", "24 kB $2"),
        (r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:hQN4etevBCUrhQVp9Krl7fmaWOpNAqZqT5FscuQ5bCo"),
        (r"ssh-ed25519 AAAA[A-Za-z0-9+/]{64}", KEY.removesuffix(" alice@laptop")),
        (r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", "BCDF-GHJK"),
    ]


async def take_all(stage: Stage, browser: Browser) -> None:
    """Every page, four times."""
    for size, width in ((DESKTOP, "desktop"), (PHONE, "phone")):
        for dark, scheme in ((False, "light"), (True, "dark")):
            context = await new_context(browser, size=size, dark=dark)
            page = await context.new_page()
            async for name in scenes(stage, page):
                await take(page, stage.system, IMAGES / f"page-{name}-{width}-{scheme}.png")
            await context.close()


async def take(page: Page, system: System, file: Path) -> None:
    """One picture, of the whole page."""
    await page.evaluate(REWRITE, rewrites(system))
    if page.viewport_size is not None:  # no taller than what is on it
        await page.set_viewport_size({"width": page.viewport_size["width"], "height": 200})
    await page.screenshot(path=file, full_page=True, animations="disabled", caret="hide", scale="css")
    sys.stdout.write(f"{file.relative_to(ROOT)}  {file.stat().st_size // 1024} KB\n")


async def main() -> int:
    """Write the pictures; 1 where there is no browser."""
    path = chromium()
    if path is None:
        sys.stderr.write(f"{MISSING}\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "hub").mkdir()
        (place / "system").mkdir()
        hub = Hub(place / "hub", pod_environment=POD_SIDE)
        system = System(hub, place / "system", api_settings={"SSH_API_SERVERS_START": "true"})
        with system.running():
            async with staged(system, place) as stage, open_chromium(path) as browser:
                await take_all(stage, browser)
    return 0


if __name__ == "__main__":
    sys.exit(anyio.run(main))
