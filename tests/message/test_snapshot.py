"""snapshot.py: a message is rendered from what it was at one moment, and its generated values are drawn once."""

from typing import Any

import pytest

from smtp_async.errors import MissingSender
from smtp_async.message.render import render
from smtp_async.message.snapshot import GeneratedValues, Snapshot
from smtp_async.message.transfer_encoding import Capabilities
from smtp_async.model.address import Address
from smtp_async.model.envelope import Kind, Recipient

GENERATED = GeneratedValues(1_700_000_000.0, "0" * 32, "b" * 24)


def snapshot(**changes: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "generated": GENERATED,
        "sender": Address.parse("ann@example.com"),
        "authors": (),
        "reply_to": (),
        "recipients": (Recipient("bob@example.org"), Recipient("carl@example.org", Kind.BCC)),
        "subject": "Hi",
        "text": "Hello",
        "html": None,
        "attachments": (),
        "headers": (),
        "date": None,
        "message_id": None,
        "rare": None,
    }
    return Snapshot(**{**fields, **changes})


NOTHING = Capabilities(eightbit=False, utf8=False, binary=False)


def never(*_: Any) -> Any:
    pytest.fail("the message has generated values: nothing is drawn again")


def rendered(one: Snapshot) -> bytes:
    content, _ = render(one, NOTHING, now=never, token=never)
    return content.join()


def test_a_snapshot_says_all_that_is_rendered() -> None:
    """No message stands behind it."""
    data = rendered(snapshot())
    assert data == rendered(snapshot())
    assert b"To: bob@example.org\r\n" in data and b"Subject: Hi\r\n" in data
    assert b"0" * 32 in data and data.endswith(b"\r\n\r\nHello\r\n")
    assert b"carl" not in data


def test_the_date_and_the_id_are_the_generated_values() -> None:
    data = rendered(snapshot())
    assert b"Date: Tue, 14 Nov 2023 22:13:20" in data
    other = rendered(snapshot(generated=GENERATED._replace(random="1" * 32)))
    assert other != data and other.replace(b"1" * 32, b"0" * 32) == data


def test_an_identity_is_drawn_for_a_view_without_one() -> None:
    tokens = iter(["0123456789abcdef" * 4])
    drawn = render(snapshot(generated=None), NOTHING, now=lambda: 5.0, token=lambda count: next(tokens))[1]
    assert drawn == GeneratedValues(5.0, ("0123456789abcdef" * 4)[:32], ("0123456789abcdef" * 4)[32:56])


def test_a_callable_makes_the_id_once() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("x@example.com")
        return made[-1]

    one = snapshot(message_id=make)
    content, generated = render(one, NOTHING, now=never, token=never)
    assert content.message_id == "<x@example.com>" and generated is not None
    again, _ = render(snapshot(generated=generated, message_id=make), NOTHING, now=never, token=never)
    assert again.join() == content.join() and len(made) == 1
    # Another callable is another id.
    other, _ = render(
        snapshot(generated=generated, message_id=lambda: "y@x.test"), NOTHING, now=never, token=never
    )
    assert other.message_id == "<y@x.test>"


def test_a_view_without_an_author_is_refused() -> None:
    with pytest.raises(MissingSender):
        rendered(snapshot(sender=None))


def test_a_whole_message_needs_no_identity() -> None:
    raw = b"From: a@x.test\r\n\r\nx\r\n"
    content, generated = render(snapshot(generated=None, rare={"raw": raw}), NOTHING, now=never, token=never)
    assert content.join() == raw and generated is None
