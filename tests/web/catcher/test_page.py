"""The catcher's page in a real Chromium: by mouse, by keys, in three looks, with hostile mail, and with much mail."""

import contextlib

import pytest
from playwright.async_api import expect

from smtp_async import SMTPClient
from smtp_async.errors import SMTPError
from smtp_async.model.receipt import Outcome, Receipt
from smtp_async.testing import RecordingSink
from smtp_async.web.catcher.catching import CatcherOptions, catching
from smtp_async.web.serving import Address
from tests.web.catcher.lab import HTML, letter, received
from tests.web.lab import LOOKS, overflow_of, take_picture

pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]

NICE = (
    "<!doctype html><style>body{margin:0;background:#f2f4f8;font-family:sans-serif}div{max-width:480px;"
    "margin:24px auto;"
    "padding:28px;background:#fff;border-radius:12px}a{display:inline-block;padding:12px 22px;background:#e4572e;"
    "color:#fff;border-radius:8px;text-decoration:none}</style><div><h1>Welcome, Bob</h1><p>Please confirm your "
    'address.</p><p><a href="https://example.com/confirm">Confirm</a></p><img src="http://tracker.example/1.png"></div>'
)


@pytest.fixture
async def catcher():
    async with catching(CatcherOptions(web=Address(port=0), port=0)) as running:
        yield running


def fill(catcher, *messages):
    for message in messages:
        catcher.mailbox.deliver(received(message, "bob@example.org", "audit@example.net"), [])


def rows(page):
    return page.locator("#list .row")


async def test_mail_appears_and_is_read(catcher, browser):
    page = await browser.open(catcher.url)
    await expect(page.locator("#detail")).to_contain_text("Waiting for mail")
    message = letter("Summer party", text="See https://example.com/a?b=1 there.\n", html="<h1>Party</h1>")
    message.add_attachment("a,b\n", subtype="csv", filename="dishes.csv")
    async with SMTPClient.from_url(catcher.server.url) as client:
        await client.send(message)
    await expect(rows(page)).to_have_count(1)
    await expect(page).to_have_title("(1) Caught mail")
    await rows(page).click()
    await expect(page.frame_locator("iframe").locator("h1")).to_have_text("Party")
    await page.click("#tab-text")
    await expect(page.locator("#panel a")).to_have_attribute("href", "https://example.com/a?b=1")
    await page.click("#tab-source")
    await expect(page.locator("#panel")).to_contain_text("MIME-Version: 1.0")
    await page.click("#tab-headers")
    await expect(page.locator("#panel")).to_contain_text("Summer party")
    await page.click("#tab-envelope")
    await expect(page.locator("#panel")).to_contain_text("<bob@example.org>")
    await page.click("#tab-dialogue")
    await expect(page.locator("#panel")).to_contain_text("250 2.0.0 Ok: queued")
    await page.click("#tab-files")
    async with page.expect_download() as download:
        await page.click("#panel a >> text=dishes")
    assert (await download.value).suggested_filename == "dishes.csv"


async def test_hostile_mail_does_nothing(catcher, browser):
    evil = '<img src=x onerror="parent.hacked=1"><script>window.hacked=1</script>'
    message = letter(
        evil, sender=f'"{evil.replace(chr(34), "")}" <a@example.com>', text=evil, html=HTML + evil
    )
    message["X-Evil"] = evil
    message.add_attachment("x", filename="<b>evil</b>.txt")
    fill(catcher, message)
    page = await browser.open(catcher.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await rows(page).click()
    frame = page.frame_locator("iframe")
    await expect(frame.locator("p")).to_have_text("Hi Bob")
    # The picture of the message is there, without the network.
    assert await frame.locator("#logo").evaluate("image => image.complete && image.naturalWidth") == 1
    for name in ("text", "source", "headers", "files", "envelope", "dialogue", "html"):
        await page.click(f"#tab-{name}")
    await expect(frame.locator("p")).to_have_text("Hi Bob")
    assert await page.evaluate("window.hacked") is None
    assert await page.evaluate("document.querySelectorAll('img[onerror]').length") == 0
    assert await frame.locator("body").evaluate("() => self.origin") == "null"
    outside = [one for one in asked if not one.startswith((catcher.url, "data:"))]
    assert [one for one in outside if "tracker" not in one and "evil" in one] == []


async def test_the_network_is_asked_only_when_the_reader_wants_it(catcher, browser):
    fill(catcher, letter(html='<p>Hi</p><img src="http://tracker.example/1.png">'))
    page = await browser.open(catcher.url)
    reached: list[str] = []

    async def answer(route):
        reached.append(route.request.url)
        await route.fulfill(status=200, body="")

    await page.context.route("http://tracker.example/**", answer)
    await rows(page).click()
    await expect(page.frame_locator("iframe").locator("p")).to_have_text("Hi")
    await expect(page.locator("#panel")).to_contain_text("blocked")
    assert reached == []
    async with page.expect_request("http://tracker.example/1.png"):
        await page.click("#load-external")
    await expect(page.locator("#panel")).to_contain_text("Loaded from the network")
    assert reached == ["http://tracker.example/1.png"]


async def test_everything_by_keys(catcher, browser):
    fill(catcher, *(letter(f"letter {number}", html="<p>x</p>") for number in range(5)))
    page = await browser.open(catcher.url)
    title = page.locator("#detail h1")
    await page.locator("#list").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(title).to_have_text("letter 3")
    await page.keyboard.press("j")
    await expect(title).to_have_text("letter 2")
    await page.keyboard.press("k")
    await expect(title).to_have_text("letter 3")
    await page.keyboard.press("2")
    await expect(page.locator("#tab-text")).to_have_attribute("aria-selected", "true")
    await page.locator("#tab-text").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#tab-source")).to_be_focused()
    await page.keyboard.press("/")
    await expect(page.locator("#search")).to_be_focused()
    await page.keyboard.type("letter 1")
    await expect(rows(page)).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(rows(page)).to_have_count(5)
    await page.keyboard.press("End")
    await page.keyboard.press("Enter")
    await expect(title).to_have_text("letter 0")
    await page.keyboard.press("Delete")
    await expect(rows(page)).to_have_count(4)
    await page.keyboard.press("?")
    await expect(page.locator("#keys-dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#keys-dialog")).to_be_hidden()
    for focused in ("#search", "#faults"):
        await page.locator(focused).focus()
        assert (
            await page.locator(focused).evaluate("element => getComputedStyle(element).outlineStyle")
            != "none"
        )


async def send(catcher, to="bob@example.org"):
    async with SMTPClient.from_url(catcher.server.url) as client:
        try:
            return await client.send(letter(to=to))
        except SMTPError as error:
            return Receipt.of(error)


async def test_faults_by_click(catcher, browser):
    page = await browser.open(catcher.url)
    await page.click("#faults")
    await page.click("text=Defer")
    await page.select_option("[name=stage]", "recipient")
    await page.fill("[name=match]", "bob")
    await page.fill("[name=text]", "4.2.2 Mailbox full")
    await page.click("text=Add the fault")
    await expect(page.locator("#faults-list")).to_contain_text("Defer at recipient: 450 4.2.2 Mailbox full")
    receipt = await send(catcher)
    assert receipt.outcome is Outcome.REFUSED and receipt.reply.text == "4.2.2 Mailbox full"
    assert (await send(catcher, "carol@example.org")).outcome is Outcome.ACCEPTED
    await expect(page.locator("#faults-list")).to_contain_text("happened 1 time")
    await take_picture(page, "catcher-faults")
    await page.keyboard.press("Escape")
    await expect(page.locator("#fault-notice")).to_be_visible()
    await page.click("#fault-notice button")
    await expect(page.locator("#fault-notice")).to_be_hidden()
    assert (await send(catcher)).outcome is Outcome.ACCEPTED


async def test_messages_are_deleted_by_click(catcher, browser):
    fill(catcher, *(letter(f"letter {number}") for number in range(3)), letter("other"))
    page = await browser.open(catcher.url)
    await page.fill("#search", "letter")
    await expect(rows(page)).to_have_count(3)
    await page.click("#clear")
    await page.click("#question >> text=Cancel")
    await expect(rows(page)).to_have_count(3)
    await page.click("#clear")
    await page.click("#question-yes")
    await expect(page.locator("#count")).to_have_text("0 of 1 message")
    await page.fill("#search", "")
    await rows(page).click()
    await page.click('[aria-label^="Delete (Del)"]')
    await expect(page.locator("#count")).to_have_text("0 messages")


async def test_a_message_is_relayed_by_click(browser):
    async with contextlib.AsyncExitStack() as stack:
        sink = await stack.enter_async_context(RecordingSink())
        relay = await stack.enter_async_context(SMTPClient.from_url(sink.url))
        catcher = await stack.enter_async_context(
            catching(CatcherOptions(web=Address(port=0), port=0, relay=relay))
        )
        fill(catcher, letter())
        page = await browser.open(catcher.url)
        await rows(page).click()
        await page.click("[aria-label=Relay]")
        await page.fill("[name=to]", "tester@example.net")
        await page.click("#relay-form [type=submit]")
        await expect(page.locator("#relay-result")).to_contain_text("accepted")
        assert sink.last.rcpt_tos == ["tester@example.net"]


@pytest.mark.parametrize("look", LOOKS)
async def test_the_look(catcher, browser, look):
    people = ("Günther Grass", "Shop", "Иван", "Ann Example")
    fill(
        catcher,
        *(
            letter(f"Letter {n} about the party", sender=f"{people[n % 4]} <u@example.com>")
            for n in range(12)
        ),
    )
    nice = letter(
        "Welcome to Acme, please confirm your address", sender="Acme accounts <hello@acme.example>", html=NICE
    )
    nice.add_attachment("a,b\n", subtype="csv", filename="a-rather-long-name-of-a-file-" * 3 + ".csv")
    fill(catcher, nice)
    page = await browser.open(catcher.url, look)
    await expect(rows(page).first).to_be_visible()
    assert await overflow_of(page) == 0
    if look == "360":
        await take_picture(page, "catcher-list-360")
    await rows(page).first.click()
    await expect(page.frame_locator("iframe").locator("h1")).to_be_visible()
    await take_picture(page, f"catcher-{look}")
    for tab in ("headers", "files", "envelope", "dialogue", "source", "text"):
        await page.click(f"#tab-{tab}")
        assert await overflow_of(page) == 0, tab
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(14, 16, 21)") is (look == "dark")
    if look == "360":
        await expect(rows(page).first).to_be_hidden()
        await page.click("[aria-label='Back to the list']")
        await expect(rows(page).first).to_be_visible()
        await page.click("#faults")
        assert await overflow_of(page) == 0
    elif look == "light":
        for _ in range(2):
            await page.click("#theme")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 16, 21)"


async def test_ten_thousand_messages_stay_fluent(catcher, browser):
    data = received(letter("letter"))
    for _ in range(10_000):
        catcher.mailbox.deliver(data, [])
    page = await browser.open(catcher.url)
    await expect(page.locator("#count")).to_have_text("10,000 messages")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.locator("#list").focus()
    await page.keyboard.press("End")
    await expect(page.locator("#row-9999 .subject")).to_have_text("letter")
    await page.keyboard.press("Home")
    await page.keyboard.press("PageDown")
    await expect(page.locator("#row-5 .subject")).to_have_text("letter")
    # Only what is in sight exists, and only what is near it was asked for.
    assert await rows(page).count() < 40 and len(asked) < 10
    catcher.mailbox.deliver(received(letter("new")), [])
    await expect(page.locator("#count")).to_have_text("10,000 messages")
    await page.fill("#search", "subject:new")
    await expect(rows(page)).to_have_count(1)
