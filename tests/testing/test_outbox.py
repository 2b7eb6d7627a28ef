"""outbox.py: assertions on what was sent, and what they say when they fail."""

import re

import pytest

from smtp_async import Address
from smtp_async.testing import Outbox, ReceivedMessage


@pytest.fixture
def outbox():
    return Outbox(
        [
            ReceivedMessage("a@x.org", ["ann@x.org", "bob@x.org"], b"Subject: Welcome\r\n\r\n"),
            ReceivedMessage("b@x.org", ["ann@x.org"], b"Subject: Bye\r\n\r\n"),
        ]
    )


@pytest.mark.parametrize(
    ("conditions", "subjects"),
    [
        ({}, ["Welcome", "Bye"]),
        ({"to": "ANN@x.org"}, ["Welcome", "Bye"]),
        ({"to": Address.parse("bob@x.org")}, ["Welcome"]),
        ({"subject": "Bye"}, ["Bye"]),
        ({"subject": "By"}, []),
        ({"subject": re.compile("^W.l")}, ["Welcome"]),
        ({"to": "ann@x.org", "sender": "B@x.org"}, ["Bye"]),
        ({"to": "nobody@x.org"}, []),
    ],
)
def test_conditions(outbox, conditions, subjects):
    assert [one.subject for one in outbox.all(**conditions)] == subjects
    if len(subjects) == 1:
        assert outbox.one(**conditions) is outbox.all(**conditions)[0]


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ({"to": "z@x.org", "subject": "Hi"}, "no message to z@x.org with the subject 'Hi'; "),
        ({"to": "ann@x.org"}, "2 messages to ann@x.org in place of one; "),
        ({"sender": "z@x.org"}, "no message from z@x.org; "),
        ({"subject": re.compile("x+")}, "no message with the subject 'x+'; "),
        ({}, "2 messages in place of one; "),
    ],
)
def test_a_failure_shows_what_is_there(outbox, conditions, text):
    with pytest.raises(AssertionError) as caught:
        outbox.one(**conditions)
    there = "the outbox has 2 messages:\n  to ann@x.org, bob@x.org: 'Welcome'\n  to ann@x.org: 'Bye'"
    assert str(caught.value) == text + there


def test_an_empty_outbox_says_so(outbox):
    assert (
        outbox and outbox[1].subject == "Bye" and [one.mail_from for one in outbox] == ["a@x.org", "b@x.org"]
    )
    outbox.clear()
    assert not outbox
    with pytest.raises(AssertionError, match="^no message; the outbox is empty$"):
        outbox.one()


def test_a_long_outbox_is_shortened():
    outbox = Outbox([ReceivedMessage("a@x.org", ["b@x.org"], b"\r\n")] * 30)
    assert repr(outbox).endswith("and 10 more")
