"""render_cost.py: small messages are rendered at once, large ones in a thread; nothing is read or decoded for that."""

import email.message
import io
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from smtp_async import Attachment, Message
from smtp_async.sources.render_cost import HEAVY, is_heavy


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("part", ["text", "html", "attachment"])
def test_a_message_is_heavy_above_the_bound(part, kind):
    def message(size):
        octets = "x" * size if kind is str else b"x" * size
        if part == "attachment":
            return Message(attachments=[Attachment(octets if kind is bytes else octets.encode())])
        return Message(**{part: octets})

    assert not is_heavy(message(HEAVY))
    assert is_heavy(message(HEAVY + 1))


def test_parts_are_added_up():
    half = "x" * (HEAVY // 2)
    attached = [Attachment(b"x")]
    assert not is_heavy(Message(text=half, html=half))
    assert is_heavy(Message(text=half, html=half, attachments=attached))


def test_what_is_read_while_it_is_sent_weighs_nothing(tmp_path):
    stream = io.BytesIO(b"x" * (HEAVY + 1))
    message = Message(text=stream, attachments=[Attachment(stream), Attachment(tmp_path / "missing")])
    assert not is_heavy(message)
    assert stream.tell() == 0


def standard(size):
    message = email.message.EmailMessage()
    message.set_payload("x" * size)
    return message


def test_a_message_of_the_standard_library_is_heavy_above_the_bound():
    assert not is_heavy(standard(HEAVY))
    assert is_heavy(standard(HEAVY + 1))


def test_the_parts_of_parts_are_added_up():
    whole, inner = MIMEMultipart(), MIMEMultipart()
    for part in (whole, inner):
        part.attach(MIMEText("x" * (HEAVY // 2)))
    assert not is_heavy(whole)
    whole.attach(inner)
    inner.attach(MIMEText("x"))
    assert is_heavy(whole)


def test_parts_that_go_round_in_a_circle_are_heavy():
    whole = MIMEMultipart()
    whole.attach(MIMEText("x"))
    whole.attach(whole)
    assert is_heavy(whole)


def test_more_parts_than_are_looked_at_are_heavy():
    whole = MIMEMultipart()
    for _ in range(2000):
        whole.attach(MIMEText("x"))
    assert is_heavy(whole)


@pytest.mark.parametrize("thing", [None, "text", b"octets", object()])
def test_anything_else_weighs_nothing(thing):
    assert is_heavy(thing) is False
