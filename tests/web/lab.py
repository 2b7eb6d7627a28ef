"""What the tests of both pages share: a client of a program without a socket, and a real Chromium."""

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from playwright import async_api as playwright
from playwright.async_api import Page
from starlette.applications import Starlette
from starlette.routing import Route

from tests.servers import machine

# A machine under load is slow; a test has its own limit.
playwright.expect.set_options(timeout=30_000)

ROOT = Path(__file__).parents[2]
#: Where the pictures of the pages are left.
PICTURES = ROOT / "screenshots"
#: The widths and colours in which each page is looked at.
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "360": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light"},
}


@contextlib.asynccontextmanager
async def asking(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a program, without a socket."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8025") as client:
        yield client


def requests_of(app: Starlette) -> set[tuple[str, str]]:
    """The requests of a program's interface: method and path, without the types of parameters."""
    routes = [route for route in app.routes if isinstance(route, Route) and route.path.startswith("/api/")]
    return {
        (method, route.path.replace(":int", ""))
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
    }


class Browser:
    """The system's Chromium; each window is a visitor of its own.

    Attributes:
        problems: the exceptions of the scripts of all windows.
    """

    def __init__(self, browser: playwright.Browser) -> None:
        self._browser = browser
        self.problems: list[str] = []

    async def open(self, url: str, look: str = "light") -> Page:
        """Open a page in a new window."""
        context = await self._browser.new_context(**LOOKS[look])
        page = await context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        await page.goto(url)
        await page.wait_for_selector("#live[data-state=on]", state="attached")
        return page


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run the system's Chromium inside the context."""
    program = machine.program("chromium")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield Browser(browser)
        finally:
            await browser.close()


async def take_picture(page: Page, name: str) -> None:
    """Leave a picture of the page for people, as WebP, which Playwright's own method does not write."""
    PICTURES.mkdir(exist_ok=True)
    session = await page.context.new_cdp_session(page)
    answer = await session.send("Page.captureScreenshot", {"format": "webp", "quality": 80})
    (PICTURES / f"{name}.webp").write_bytes(base64.b64decode(answer["data"]))


async def overflow_of(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(await page.evaluate("document.documentElement.scrollWidth - innerWidth"))
