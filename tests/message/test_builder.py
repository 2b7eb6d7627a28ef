"""builder.py: what a message takes, how it behaves as an object, its envelope."""

import copy
import hashlib
import pickle
import re
import secrets
import sys
from datetime import UTC, datetime
from email.utils import formataddr
from typing import Any

import pytest

from smtp_async.errors import (
    InvalidAddress,
    InvalidHeader,
    MissingRecipient,
    MissingSender,
)
from smtp_async.message import Attachment, Message
from smtp_async.model.address import Address
from smtp_async.model.envelope import Kind, Recipient

from .reading import names_of, parsed


@pytest.mark.parametrize(
    "value",
    [
        "a@x, Bob <b@x>",
        ["a@x", "Bob <b@x>"],
        (Address.parse("a@x"), "b@x"),
        iter([Address.parse("a@x"), Address.parse("b@x")]),
        "Team: a@x, b@x;",
        " a@x ,, b@x , ",
    ],
)
def test_addresses_in_every_form(value):
    assert [str(a) for a in Message(to=value).to] == ["a@x", "b@x"]


@pytest.mark.parametrize("name", ["Jörg", "Smith, Jörg", 'J. "Ö" <x@y>', "Smith, John (Süd)"])
def test_the_standard_way_to_write_an_address_shows_its_name(name):
    text = formataddr((name, "a@x.org"))
    message = Message(sender=text, to=text, cc=f"c@x.org, {text}", text="x")
    assert (message.sender, [a.name for a in message.to], len(message.cc)) == (
        Address("a", "x.org"),
        [name.strip()],
        2,
    )
    read = parsed(message.as_bytes())
    for field in ("From", "To"):
        assert [(a.display_name, a.addr_spec) for a in read[field].addresses] == [(name.strip(), "a@x.org")]
    assert [a.display_name for a in read["Cc"].addresses] == ["", name.strip()]


def test_a_comment_is_the_name_of_a_mailbox_that_has_none():
    message = Message(
        sender="root@host.example.com (Cron Daemon)", to="ann@x.org <ann@x.org>, b@x.org (B, c@d)", text="x"
    )
    read = parsed(message.as_bytes())
    assert str(read["From"]) == "Cron Daemon <root@host.example.com>"
    assert [a.addr_spec for a in read["To"].addresses] == ["ann@x.org", "b@x.org"]
    assert [str(r.address) for r in message.envelope().recipients] == ["ann@x.org", "b@x.org"]


def test_one_address():
    assert Message(cc=Address.parse("a@x")).cc == (Address.parse("a@x"),)


@pytest.mark.parametrize("field", ["sender", "to", "cc", "bcc", "reply_to", "authors", "return_path"])
def test_bad_addresses_are_refused_at_once(field):
    arguments: dict[str, Any] = {field: "a b@c"}
    with pytest.raises(InvalidAddress):
        Message(**arguments)
    message = Message()
    with pytest.raises(InvalidAddress):
        setattr(message, field, "a b@c")


def test_only_keywords():
    with pytest.raises(TypeError):
        Message("a@b", "c@d")  # type: ignore[call-arg]  # that is the point


def test_recipients_is_the_one_list():
    message = Message(to="a@x", cc="b@x", bcc=["c@x", "d@x"])
    assert [(str(r.address), r.kind) for r in message.recipients] == [
        ("a@x", Kind.TO),
        ("b@x", Kind.CC),
        ("c@x", Kind.BCC),
        ("d@x", Kind.BCC),
    ]
    message.recipients.append(Recipient("e@x"))
    assert [str(a) for a in message.to] == ["a@x", "e@x"]
    message.to = "f@x"
    message.cc = ()
    message.bcc = "g@x"
    assert [str(a) for a in message.bcc] == ["g@x"]
    assert [str(r.address) for r in message.recipients] == ["f@x", "g@x"]


@pytest.mark.parametrize(("kind", "names"), [(Kind.TO, ["to"]), (Kind.CC, ["cc"]), (Kind.BCC, ["bcc"])])
def test_each_kind_of_recipient_is_one_of_to_cc_and_bcc(kind, names):
    message = Message(recipients=[Recipient("r@x", kind)])
    assert [name for name in ("to", "cc", "bcc") if getattr(message, name)] == names
    message = Message()
    setattr(message, names[0], "r@x")
    assert [(str(one.address), one.kind) for one in message.recipients] == [("r@x", kind)]


def test_a_recipient_has():
    (recipient,) = Message(cc="Rob <r@x>").recipients
    assert (recipient.address, recipient.name, recipient.kind) == (Address.parse("r@x"), "Rob", Kind.CC)


def test_attachments_are_a_list():
    message = Message(attachments=[Attachment(b"one")])
    message.attach(b"two")
    assert len(message.attachments) == 2
    del message.attachments[0]
    assert [one.source for one in message.attachments] == [b"two"]


def test_attributes_can_be_changed():
    message = Message()
    message.sender = "a@x"
    message.authors = "b@x, c@x"
    message.reply_to = ["d@x"]
    message.return_path = "e@x"
    message.headers = {"X-A": "1"}
    assert str(message.sender) == "a@x"
    assert [str(a) for a in message.authors] == ["b@x", "c@x"]
    assert [str(a) for a in message.reply_to] == ["d@x"]
    assert str(message.return_path) == "e@x"
    assert message.headers == [("X-A", "1")]
    message.sender = message.return_path = None
    assert message.sender is None
    assert message.return_path is None
    with pytest.raises(AttributeError):
        message.form = "typo"  # type: ignore[attr-defined]  # that is the point


def test_headers_are_checked_when_they_are_set():
    bad: list[Any] = [{"X:": "y"}, [("X", "y\n")], {"X": None}]
    for headers in bad:
        with pytest.raises(InvalidHeader):
            Message(headers=headers)


@pytest.mark.parametrize(
    ("arguments", "sender"),
    [
        ({"sender": "a@x"}, "a@x"),
        ({"sender": "a@x", "return_path": "b@x"}, "b@x"),
        ({"sender": "a@x", "return_path": "<>"}, None),
        ({"authors": "a@x, b@x"}, "a@x"),
        ({"sender": "a@x", "authors": "b@x"}, "a@x"),
    ],
)
def test_the_envelope_sender(arguments, sender):
    found = Message(to="z@x", **arguments).envelope().sender
    assert (None if found is None else str(found)) == sender


def test_the_envelope_names_everybody():
    envelope = Message(sender="a@x", to="b@x", cc="c@x", bcc="d@x").envelope()
    assert [(str(r.address), r.kind) for r in envelope.recipients] == [
        ("b@x", Kind.TO),
        ("c@x", Kind.CC),
        ("d@x", Kind.BCC),
    ]


def test_the_envelope_needs_both():
    with pytest.raises(MissingSender) as no_sender:
        Message(to="a@x").envelope()
    assert no_sender.value.code == 164
    with pytest.raises(MissingRecipient) as no_recipient:
        Message(sender="a@x").envelope()
    assert no_recipient.value.code == 165


def test_size_is_the_length_of_the_bytes():
    message = Message(sender="a@x", to="jösé@x", text="ü", subject="ü")
    message.attach(bytes(100_000))
    assert message.size == len(message.as_bytes())


def test_dates():
    when = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)
    message = Message(sender="a@x", to="b@x", date=when)
    assert parsed(message.as_bytes())["Date"].datetime == when
    message.date = datetime(2024, 2, 29, 12, 0)
    assert b"Date: Thu, 29 Feb 2024 12:00:00 -0000\r\n" in message.as_bytes()
    message.date = "Thu, 29 Feb 2024 12:00 GMT"
    assert b"Date: Thu, 29 Feb 2024 12:00 GMT\r\n" in message.as_bytes()
    message.date = ""
    assert "Date" not in names_of(message.as_bytes())


@pytest.mark.parametrize("date", [None, "now"])
def test_now_is_the_first_rendering(date):
    message = Message(sender="a@x", to="b@x", date=date)
    first = message.content(now=lambda: 86400.0 * 365.25 * 30).join()
    assert message.content(now=lambda: 0.0).join() == first
    assert parsed(first)["Date"].datetime.year == 2000


@pytest.mark.parametrize(
    "date", ["yesterday", "*", "Thu, 29 Feb 2024 12:00 GMT\r\nBcc: evil@x", "1 Jan 2024"]
)
def test_a_text_that_is_no_date(date):
    with pytest.raises(InvalidHeader):
        Message(sender="a@x", to="b@x", date=date).content()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_a_message_id_by_a_digest_of_random_octets(algorithm):
    def digest():
        octets = secrets.token_bytes(32)
        return f"{hashlib.new(algorithm, octets, usedforsecurity=False).hexdigest()}@example.com"

    message = Message(sender="a@x", to="b@x", message_id=digest)
    length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    found = re.findall(rb"(?m)^Message-ID: <([0-9a-f]+)@example\.com>\r\n", message.as_bytes())
    assert [len(one) for one in found] == [length]
    assert (
        Message(sender="a@x", to="b@x", message_id=digest).content().message_id
        != message.content().message_id
    )


def test_a_callable_makes_the_message_id_once():
    made = iter(["1@x", "<2@x>", "3@x y"])
    message = Message(sender="a@x", to="b@x", message_id=lambda: next(made))
    assert message.content().message_id == "<1@x>"
    assert message.content(eightbit=True).message_id == "<1@x>"
    message.message_id = lambda: next(made)
    assert message.content().message_id == "<2@x>"
    message.message_id = lambda: next(made)
    with pytest.raises(InvalidHeader):
        message.content()


def test_recipients_are_given_with_their_kinds():
    message = Message(to="a@x", recipients=["b@x", Recipient("C <c@x>", Kind.BCC), Address.parse("d@x")])
    assert [(r.name, str(r.address), r.kind) for r in message.recipients] == [
        *[("", "a@x", Kind.TO), ("", "b@x", Kind.TO), ("C", "c@x", Kind.BCC), ("", "d@x", Kind.TO)]
    ]
    assert [str(a) for a in message.to] == ["a@x", "b@x", "d@x"]


# --- as an object -------------------------------------------------------------------------------------------


def test_the_callers_objects_are_not_changed():
    to, headers, attachments = ["a@x"], {"X": "y"}, [Attachment(b"")]
    message = Message(sender="s@x", to=to, headers=headers, attachments=attachments)
    message.attach(b"more")
    message.headers.append(("Z", "z"))
    message.content()
    assert (to, headers, len(attachments)) == (["a@x"], {"X": "y"}, 1)


def test_messages_pickle_and_copy():
    message = Message(sender="a@x", to="b@x", bcc="c@x", text="t", html="h", subject="s", headers={"X": "y"})
    message.attach(b"data", filename="f", cid="c")
    rendered = message.as_bytes()
    for twin in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert twin.as_bytes() == rendered
        assert twin.envelope() == message.envelope()


def test_repr():
    message = Message(sender="a@x", to="b@x, c@x", subject="Grüße\n")
    assert repr(message) == "<Message 'Grüße\\\\n' from a@x to 2>"
    assert repr(message.attach(b"abc", filename="f.pdf")) == "<Attachment 'f.pdf' application/pdf 3 bytes>"


def test_importing_loads_neither_email_nor_idna():
    import subprocess

    code = (
        "import sys, smtp_async.message.foreign_mail, smtp_async.message;"
        "bad = {'email', 'email.message', 'http', 'idna', 'mimetypes', 'anyio'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
