"""Why: `make screenshots` shows every page as it is, at two widths, light and dark, for the documentation and review.

A real JupyterHub, api and bastion stand behind the pages. What would differ with each run (ports, moments, this
machine's names) is written over in the browser just before the picture is taken, so that pictures change with pages.
What is written belongs together: moments keep their distance from now, to the hour, and each key stays one key.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import anyio
from playwright.async_api import Browser, Page

from tests.page.scenes import KEY, SETTINGS, Stage, scenes, staged
from tests.support.chromium import DESKTOP, MISSING, PHONE, chromium, new_context, open_chromium
from tests.support.hub import ROOT, Hub
from tests.support.system import POD_SIDE, System, unix_user

IMAGES = ROOT / "docs" / "images"
REWRITE = """([rewrites, others, now]) => {
    const day = new Intl.DateTimeFormat("en-GB", {day: "numeric", month: "long", year: "numeric", timeZone: "UTC"});
    const shifted = (_, date, time) => {
        const hours = Math.round((Date.parse(`${date} ${time} UTC`) - Date.now()) / 3600000);
        const moment = new Date(Date.parse(now) + hours * 3600000);
        return `${day.format(moment)}, ${moment.toISOString().slice(11, 16)} UTC`;
    };
    const met = others.map(() => new Map());
    const another = (of) => (text) => {
        const {own, instead} = others[of];
        if (text !== own && !met[of].has(text)) met[of].set(text, instead[met[of].size]);
        return met[of].get(text) || own;
    };
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        let text = walk.currentNode.data;
        for (const [from, to] of rewrites) text = text.replace(new RegExp(from, "g"), to);
        text = text.replace(/(\\d+ \\w+ \\d{4}), (\\d\\d:\\d\\d) UTC/g, shifted);
        for (const [of, one] of others.entries()) text = text.replace(new RegExp(one.looks, "g"), another(of));
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
        (r"11 hours \d+ minutes", "11 hours 59 minutes"),
        (r"\((less than a minute|\d minutes?)\)", "(less than a minute)"),
        (r"[\d.]+ (bytes|kB) (in|out)", "24 kB $2"),
        (r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", "BCDF-GHJK"),
    ]


OTHERS = [
    {
        "looks": "SHA256:[A-Za-z0-9+/]{43}",
        "own": "SHA256:hQN4etevBCUrhQVp9Krl7fmaWOpNAqZqT5FscuQ5bCo",
        "instead": [
            "SHA256:UdB4Q4HQ1xzFyJYiPi7BLvOLQzR0AWtjuumLhyRLZ7Y",
            "SHA256:OtFXF0mapS4ujVhj9zMG2n46Ranv8O6924y6vatkN8k",
            "SHA256:mezbDXRf1BaKa/6iJmOPAT7dJ8StwkR1lYIg8/Me0gU",
        ],
    },
    {
        "looks": "ssh-ed25519 AAAA[A-Za-z0-9+/]{64}",
        "own": KEY.removesuffix(" alice@laptop"),
        "instead": [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICkWORDMzxOXpKnRhDgIv7KM5vd3HZGB8eloAwGg2Rdh",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINS03cvmGvtQP3X9acZtyhYG3nBwSbEp0xn7r7aPN1d3",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOghlpUDWbIkppMPNWb+SoySGaM2RTS1IOPT/ULlB2Xt",
        ],
    },
]
"""How keys look, which of them is the same in every run, and what the others are called, in their order on a page."""

NOW = "2026-11-24T18:30:00Z"


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
    await page.evaluate(REWRITE, [rewrites(system), OTHERS, NOW])
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
        system = System(hub, place / "system", api_settings=SETTINGS)
        with system.running():
            async with staged(system, place) as stage, open_chromium(path) as browser:
                await take_all(stage, browser)
    return 0


if __name__ == "__main__":
    sys.exit(anyio.run(main))
