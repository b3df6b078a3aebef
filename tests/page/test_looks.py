"""Why: a page that works is not yet one that can be read: on a phone, in the dark, with a keyboard, by a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.page.scenes import NAMES, scenes, staged
from tests.support.chromium import DESKTOP, PHONE, log_in, new_context
from tests.support.hub import LIMIT, Hub
from tests.support.system import System

pytestmark = pytest.mark.timeout(600)
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
NARROW = (320, 640)

# What sticks out of the window, what is cut without a way to scroll to it, and controls that lie on each other.
MEASURE = """() => {
    const name = (one) => one.tagName + " " + (one.innerText || one.value || "").trim().slice(0, 40);
    const seen = [...document.body.querySelectorAll("*")].filter((one) => one.checkVisibility()
        && !one.closest(".skip") && one.getClientRects().length);
    const wide = document.documentElement.scrollWidth > window.innerWidth
        ? seen.filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1).map(name) : [];
    const cut = seen.filter((one) => {
        const hides = (way) => ["hidden", "clip"].includes(way);
        const style = getComputedStyle(one);
        return (hides(style.overflowX) && one.scrollWidth > one.clientWidth + 1)
            || (hides(style.overflowY) && one.scrollHeight > one.clientHeight + 1);
    }).map(name);
    const controls = seen.filter((one) => one.matches("a, button, input, textarea, summary"));
    const over = [];
    const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
    for (const [at, one] of controls.entries()) {
        for (const other of controls.slice(at + 1)) {
            if (one.contains(other) || other.contains(one)) continue;
            const lines = [...other.getClientRects()];  // a link may go on in the next line
            if ([...one.getClientRects()].some((a) => lines.some((b) => meet(a, b))))
                over.push(name(one) + " / " + name(other));
        }
    }
    return {wide, cut, over};
}"""


async def open_all(page: Page) -> None:
    await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")


async def test_no_page_is_cut_or_overlaps_and_axe_finds_nothing_on_any(
    system: System, hub: Hub, browser: Browser, tmp_path: Path
) -> None:
    axe = Axe()
    found: dict[str, Any] = {}
    seen: list[str] = []
    async with staged(system, tmp_path) as stage:
        for size, dark in ((DESKTOP, False), (PHONE, True)):
            context = await new_context(browser, size=size, dark=dark)
            page = await context.new_page()
            async for name in scenes(stage, page):
                seen.append(name)
                await open_all(page)
                for width in {size, NARROW} if size == PHONE else {size}:
                    await page.set_viewport_size({"width": width[0], "height": width[1]})
                    measured = await page.evaluate(MEASURE)
                    if any(measured.values()):
                        found[f"{name} at {width}"] = measured
                report = await axe.run(page, options=RULES)
                wrong = [(one["id"], [node["html"] for node in one["nodes"]]) for one in report.response["violations"]]
                if wrong:
                    found[f"{name}, dark: {dark}"] = wrong
                await page.set_viewport_size({"width": size[0], "height": size[1]})
            await context.close()
    assert seen == [*NAMES, *NAMES]
    assert found == {}


async def test_everything_can_be_reached_and_done_with_the_keyboard_and_is_seen_to_have_the_focus(
    system: System, hub: Hub, browser: Browser
) -> None:
    context = await new_context(browser)
    page = await context.new_page()
    await log_in(page, hub, system.url, "alice")
    visited: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        told = await page.evaluate(
            """() => {
                const one = document.activeElement, style = getComputedStyle(one), at = one.getBoundingClientRect();
                return {
                    name: one === document.body ? "" : one.tagName + " " + (one.getAttribute("aria-label")
                        || one.labels?.[0]?.innerText || one.innerText).trim(),
                    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
                    shown: at.width > 0 && at.right > 0 && at.bottom > 0 && at.top < window.innerHeight,
                };
            }"""
        )
        if not told["name"]:
            break
        assert told["ring"], f"{told['name']} does not show that it has the focus"
        assert told["shown"], f"{told['name']} has the focus out of sight"
        visited.append(told["name"])
    assert visited[0] == "A Skip to the content"
    order = [visited.index(name) for name in ("BUTTON Log out", "BUTTON Start alice", "BUTTON Get the certificate")]
    assert order == sorted(order)
    assert "TEXTAREA Your public key" in visited

    await page.reload()
    await page.get_by_role("button", name="Start alice").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("running, SSH enabled")).to_be_visible(timeout=LIMIT * 1000 / 3)
    await context.close()


async def test_no_other_site_can_show_a_page_in_a_frame(system: System, hub: Hub, browser: Browser) -> None:
    context = await new_context(browser)
    page = await context.new_page()
    await log_in(page, hub, system.url, "alice")
    await page.goto(f"{hub.url}/hub/login")
    for path in ("/", "/activate", "/servers/alice/stop"):
        await page.evaluate(
            """(url) => new Promise((done) => {
                const frame = document.createElement("iframe");
                frame.addEventListener("load", done);
                frame.src = url;
                document.body.replaceChildren(frame);
            })""",
            f"{system.url}{path}",
        )
        (frame,) = page.frames[1:]
        assert "SSH" not in await frame.content(), path
    await context.close()
