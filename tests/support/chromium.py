"""Why: people see pages in a browser, so the tests drive a real one: the Chromium of the system, through Playwright."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.support.hub import LIMIT, Hub

MISSING = "there is no chromium here; `deploy/dev/environment chromium` installs it where apt-get works"
FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    # Letters look the same on every machine that has the same fonts.
    "--font-render-hinting=none",
    "--disable-lcd-text",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


def chromium() -> str | None:
    """Where the system's Chromium is; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@asynccontextmanager
async def open_chromium(path: str, *, scripts: bool = True) -> AsyncIterator[Browser]:
    """A browser without a window, ended with the block. Without `scripts`, pages show what they have for that."""
    # Playwright's own switch stops scripts, but leaves <noscript> out of the page.
    plain = () if scripts else ("--blink-settings=scriptEnabled=false",)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=[*FLAGS, *plain],
        )
        try:
            yield browser
        finally:
            await browser.close()


async def new_context(browser: Browser, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> BrowserContext:
    """A person with cookies of their own. What goes wrong in a page's script fails the test."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    context.set_default_timeout(LIMIT * 1000 / 3)
    return context


async def log_in(page: Page, hub: Hub, site: str, user: str, wanted: str = "/") -> None:
    """Our login link, JupyterHub's own form, and back."""
    await page.goto(f"{site}/login?next={wanted}")
    await page.get_by_label("Username").fill(user)
    await page.get_by_label("Password").fill(hub.admin_password if user == "admin" else hub.password)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(f"{site}/**")
