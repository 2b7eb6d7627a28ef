"""mailbox.py: what a list shows, how messages are found, and which are forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument
from smtp_async.web.catcher.mailbox import Caught, Keeper, Mailbox
from tests.web.catcher.lab import DIALOGUE, HTML, letter, received


def mailbox_with(*messages, **options):
    mailbox = Mailbox(**{"most": 1000, **options})
    for message in messages:
        mailbox.deliver(message, DIALOGUE)
    return mailbox


def subjects(found):
    return [one.subject for one in found]


def test_what_a_list_shows():
    message = letter("Grüße", text="Dear Bob,\n\n  see   you \x1b[2J there.\n" * 50, html=HTML)
    message.add_attachment("a", filename="a.txt")
    mailbox = mailbox_with(received(message, "bob@example.org", "hidden@example.org"))
    [one] = mailbox.search("")
    told = one.summary()
    assert told["from"] == "Ann <ann@example.com>" and told["to"] == "bob@example.org"
    assert told["subject"] == "Grüße" and told["attachments"] == 1
    assert (
        told["preview"].startswith("Dear Bob, see you \\x1b[2J there. Dear") and len(told["preview"]) <= 160
    )
    assert told["recipients"] == ["bob@example.org", "hidden@example.org"]
    assert told["size"] == len(one.received.data)


def test_without_a_header_the_envelope_is_shown():
    told = mailbox_with(received(b"\r\njust text\r\n", "bob@example.org")).search("")[0].summary()
    assert told["from"] == "ann@example.com" and told["to"] == "bob@example.org" and told["subject"] == ""


def test_only_html_has_a_preview_too():
    data = b"Content-Type: text/html\r\n\r\n<style>p {x:y}</style><p>Hi &amp; <b>bye</b></p>"
    assert mailbox_with(received(data)).search("")[0].preview == "Hi & bye"


MESSAGES = [
    received(letter("Order 42 shipped", sender="Shop <shop@example.com>", text="your parcel\n")),
    received(letter("Summer party", to="carol@example.org", text="Don't be late\n")),
    received(letter("Hidden", text="x\n"), "bob@example.org", "secret@example.net"),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["Hidden", "Summer party", "Order 42 shipped"]),
        ("order", ["Order 42 shipped"]),
        ("ORDER shipped", ["Order 42 shipped"]),
        ('"42 shipped"', ["Order 42 shipped"]),
        ('"shipped 42"', []),
        ("parcel", ["Order 42 shipped"]),
        ("don't", ["Summer party"]),
        ("from:shop", ["Order 42 shipped"]),
        ("to:carol", ["Summer party"]),
        ("to:secret@example.net", ["Hidden"]),
        ("subject:party late", ["Summer party"]),
        ("subject:late", []),
        ("has:attachment", []),
        ("from:", []),
        ("# comment", []),
    ],
)
def test_messages_are_found_by_words(query, found):
    assert subjects(mailbox_with(*MESSAGES).search(query)) == found


def test_messages_with_files_are_found():
    message = letter("with a file")
    message.add_attachment("a", filename="Plan.pdf")
    mailbox = mailbox_with(*MESSAGES, received(message))
    assert (
        subjects(mailbox.search("has:attachment")) == subjects(mailbox.search("plan.pdf")) == ["with a file"]
    )


def test_a_quote_that_is_not_closed():
    with pytest.raises(InvalidArgument, match="not closed"):
        mailbox_with().search('"open')


@given(st.text(max_size=60))
def test_any_query_is_answered(query):
    mailbox = mailbox_with(MESSAGES[0])
    try:
        found = mailbox.search(query)
    except InvalidArgument:
        return
    assert len(found) <= 1


def test_the_oldest_go_first_and_changes_are_told():
    changes: list[int] = []
    forgotten: list[str] = []
    saved: list[Caught] = []
    mailbox = mailbox_with(
        *(received(letter(f"{number}")) for number in range(5)),
        most=3,
        keeper=Keeper(saved.append, forgotten.append),
        changed=lambda: changes.append(1),
    )
    assert subjects(mailbox.search("")) == ["4", "3", "2"] and len(mailbox) == 3
    assert forgotten == [one.id for one in saved[:2]] and len(changes) == 5
    ids = [one.id for one in saved]
    assert ids == sorted(set(ids))
    assert mailbox.remove([ids[3], ids[0], "none"]) == 1 and forgotten[-1] == ids[3] and len(changes) == 6
    assert mailbox.remove([]) == 0 and len(changes) == 6
    assert mailbox.get(ids[4]) is mailbox.get("latest") and mailbox.get(ids[0]) is None


def test_latest_of_nothing():
    assert mailbox_with().get("latest") is None


def test_a_message_that_cannot_be_saved_is_not_there():
    def save(message):
        raise OSError("the disk is full")

    mailbox = Mailbox(most=10, keeper=Keeper(save, lambda id: None))
    with pytest.raises(OSError, match="full"):
        mailbox.deliver(MESSAGES[0], [])
    assert len(mailbox) == 0


def test_messages_of_earlier_runs_come_before_new_ones():
    mailbox = mailbox_with(most=2)
    mailbox.restore(
        Caught(f"{number:014x}", 1.0, received(letter(f"old {number}")), []) for number in (1, 2, 3)
    )
    mailbox.restore(iter([Caught("f" * 13 + "0", 2.0, received(letter("future")), [])]))
    mailbox.deliver(received(letter("new")), [])
    assert subjects(mailbox.search("")) == ["new", "future"]
    assert mailbox.get("f" * 13 + "1") is not None
