"""The console's page in a real Chromium: live numbers, changes, keys, three looks, hostile mail, and many jobs."""

import asyncio
import contextlib

import pytest
from playwright.async_api import expect

from smtp_async import DirectorySpool, Message, QueueProcessor, SMTPClient
from smtp_async.spool.entry import State
from smtp_async.testing import MemorySpool, ScriptedServer, reply
from smtp_async.web.console.app import serving_console
from smtp_async.web.serving import Address
from tests.web.lab import LOOKS, overflow_of, take_picture

pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]

EVIL = "<img src=x onerror='window.hacked=1'>"


def letter(*people):
    return Message(sender="shop@example.com", to=[*people], subject="x", text="x")


@pytest.fixture
async def lab():
    """A processor with jobs in all states; it is not running any more."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer())
        server.on("RCPT", reply(450, "4.2.1 mailbox busy, try again later"), match="later")
        server.on("RCPT", reply(550, f"5.1.1 no such user {EVIL}"), match="bad")
        client = await stack.enter_async_context(SMTPClient.from_url(server.url))
        spool = MemorySpool()
        processor = QueueProcessor(spool, client, keep_sent=True)
        page = serving_console(
            spool, Address(port=0), name=f"mail {EVIL}", processor=processor, allow_changes=True
        )
        url = await stack.enter_async_context(page)
        for number in range(4):
            for name in ("fine", "later", "bad"):
                await spool.put(letter(f"{name}{number}@example.org", f"second{number}@example.org"))
        await processor.run_once()
        await spool.hold(await spool.put(letter("held@example.org")))
        yield url, spool, processor


def rows(page):
    return page.locator("#list .row")


def count_of(page, state):
    return page.locator("#states button", has_text=state).locator("b")


async def test_numbers_and_jobs_are_live(lab, browser):
    url, spool, processor = lab
    page = await browser.open(url)
    for state, number in (("queued", "4"), ("failed", "4"), ("sent", "4"), ("held", "1"), ("sending", "0")):
        await expect(count_of(page, state)).to_have_text(number)
    await expect(page.locator("#detail")).to_contain_text("550 5.1.1 no such user")
    await spool.put(letter("fine9@example.org"))
    await processor.run_once()
    await expect(count_of(page, "sent")).to_have_text("5")
    await expect(page.locator("#count")).to_have_text("14 jobs, in all")
    await page.fill("#search", "fine9")
    await expect(rows(page)).to_have_count(1)
    await rows(page).click()
    timeline = page.locator(".timeline")
    await expect(timeline).to_contain_text("sent")
    await expect(timeline).to_contain_text("250 2.0.0 Ok: queued")


async def test_jobs_are_changed_by_click(lab, browser):
    url, spool, _ = lab
    page = await browser.open(url)
    await page.locator("#states button", has_text="failed").click()
    await expect(rows(page)).to_have_count(4)
    await page.locator(".row-mark").nth(0).click()
    await page.locator(".row-mark").nth(1).click()
    await expect(page.locator("#selection")).to_contain_text("2 selected")
    await page.click("#selection >> text=Requeue")
    await expect(rows(page)).to_have_count(2)
    await rows(page).first.click()
    await page.click("#detail >> text=Remove")
    await page.click("#question-yes")
    await expect(rows(page)).to_have_count(1)
    await page.locator("#states button", has_text="held").click()
    await rows(page).first.click()
    await page.click("#detail >> text=Release")
    await expect(page.locator("#detail h1")).to_contain_text("queued")
    await page.click("#detail >> text=Hold")
    await expect(page.locator("#detail h1")).to_contain_text("held")
    states = [entry.state async for entry in spool.list()]
    assert states.count(State.FAILED) == 1 and len(states) == 12


async def test_everything_by_keys(lab, browser):
    url, _, _ = lab
    page = await browser.open(url)
    await page.locator("#list").focus()
    await page.keyboard.press("Space")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Space")
    await expect(page.locator("#selection")).to_contain_text("2 selected")
    await page.keyboard.press("Escape")
    await expect(page.locator("#selection")).to_be_hidden()
    await page.keyboard.press("Enter")
    await expect(page.locator("#detail h1")).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.type("later")
    await expect(rows(page)).to_have_count(4)
    await page.keyboard.press("Escape")
    await expect(rows(page).nth(5)).to_be_visible()


async def test_hostile_mail_does_nothing_and_nothing_is_changed_without_leave(browser):
    spool = MemorySpool()
    await spool.put(letter(f'"{EVIL}"@example.org'))
    async with serving_console(spool, Address(port=0), name=EVIL) as url:
        page = await browser.open(url)
        await expect(rows(page)).to_contain_text("onerror")
        assert "null" not in await page.inner_text("body")
        await expect(page.locator(".brand")).to_contain_text("onerror")
        await rows(page).click()
        await expect(page.locator(".recipients")).to_contain_text("onerror")
        assert await page.evaluate("window.hacked") is None
        assert await page.locator("img[onerror]").count() == 0
        assert await page.locator(".row-mark").count() == 0
        assert await page.locator("#detail .actions button").count() == 0


async def test_a_pause_says_why(browser, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer())
        server.on("GREETING", reply(554, "5.3.2 no service today"))
        spool = await stack.enter_async_context(
            DirectorySpool(tmp_path / "spool", create=True, durable=False)
        )
        client = await stack.enter_async_context(SMTPClient.from_url(server.url))
        processor = QueueProcessor(spool, client)
        url = await stack.enter_async_context(
            serving_console(spool, Address(port=0), name="mail", processor=processor)
        )
        await spool.put(letter("bob@example.org"))
        running = asyncio.create_task(processor.run())
        page = await browser.open(url)
        await expect(page.locator("#pause")).to_contain_text("no service today")
        await expect(page.locator("#pause")).to_contain_text("Paused for")
        await take_picture(page, "console-paused")
        processor.stop(grace=0)
        await running


@pytest.mark.parametrize("look", LOOKS)
async def test_the_look(lab, browser, look):
    url, _, _ = lab
    page = await browser.open(url, look)
    await expect(rows(page).first).to_be_visible()
    assert await overflow_of(page) == 0
    await take_picture(page, f"console-{look}")
    await page.locator("#states button", has_text="failed").click()
    await expect(rows(page)).to_have_count(4)
    await rows(page).first.click()
    await expect(page.locator(".timeline")).to_be_visible()
    assert await overflow_of(page) == 0
    await take_picture(page, f"console-job-{look}")
    if look == "360":
        await expect(rows(page).first).to_be_hidden()
        await page.click("[aria-label='Back to the list']")
        await expect(rows(page).first).to_be_visible()


async def test_ten_thousand_jobs_stay_fluent(browser):
    spool = MemorySpool()
    for number in range(10_000):
        await spool.put(b"From: a@example.com\r\nTo: b@example.org\r\n\r\nx\r\n", key=str(number))
    async with serving_console(spool, Address(port=0), name="mail") as url:
        page = await browser.open(url)
        await expect(page.locator("#count")).to_have_text("10,000 jobs, in all")
        await page.locator("#list").focus()
        await page.keyboard.press("End")
        await expect(page.locator("#row-9999 .who")).to_have_text("b@example.org")
        assert await rows(page).count() < 40
        await page.click("#order")
        await expect(page.locator("#row-0 .who")).to_have_text("b@example.org")
