"""The records of a test server count right, because clients are judged by them."""

import pytest

from smtp_async import Message
from smtp_async.testing.records import ConnectionLogs, ReceivedLine, ReceivedMessage


def test_a_message_is_parsed_once_and_its_subject_decoded() -> None:
    one = ReceivedMessage("a@x.test", ["b@x.test"], b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nline\r\n")
    assert one.subject == "Grüße" and one.parsed is one.parsed
    assert one.parsed.get_content() == "line\n"
    assert ReceivedMessage("", [], b"\r\nx\r\n").subject == ""


def test_texts_links_and_attachments_of_a_message() -> None:
    message = Message(
        sender="a@x.test",
        to="b@x.test",
        text="Grüße: see https://x.test/text?a=1&b=2. Or (https://x.test/html).",
        html="<a class=b href='https://x.test/html'>x</a><A HREF=\"/path?a&amp;b\"><img src='cid:logo@x'></A>",
    )
    message.attach(b"data", filename="größe.pdf")
    message.attach(b"png", filename="logo.png", cid="logo@x")
    one = ReceivedMessage("a@x.test", ["b@x.test"], message.as_bytes())
    assert one.text.startswith("Grüße: see") and one.html.startswith("<a class=b")
    assert one.links == ["https://x.test/html", "/path?a&b", "https://x.test/text?a=1&b=2"]
    [attachment] = one.attachments
    assert (attachment.filename, attachment.content_type, attachment.data) == (
        "größe.pdf",
        "application/pdf",
        b"data",
    )


def test_a_message_without_texts_has_empty_ones() -> None:
    one = ReceivedMessage("", [], b"Content-Type: application/pdf\r\n\r\nx\r\n")
    assert (one.text, one.html, one.links) == ("", "", []) and len(one.attachments) == 1


@pytest.mark.parametrize(
    ("line", "verb"),
    [(b"rcpt TO:<b@x.test>", "RCPT"), (b".", "."), (b"", ""), (b"\xff\xfe x", "\ufffd\ufffd")],
)
def test_the_verb_of_a_line(line: bytes, verb: str) -> None:
    assert ReceivedLine(0, line, 1.0, False).verb == verb


def test_connections_are_counted_from_the_client_s_side() -> None:
    logs = ConnectionLogs()
    first, second = logs.add(), logs.add()
    assert (logs.opened, logs.open, logs.closed, len(logs)) == (2, 2, 0, 2)
    assert logs[1] is second and list(logs) == [first, second] and second.number == 1
    for _ in range(2):  # an end may be noticed twice
        logs.end(first)
    assert (logs.opened, logs.open, logs.closed) == (2, 1, 1) and not first.open


def test_the_bytes_of_a_connection_are_no_part_of_its_text() -> None:
    log = ConnectionLogs().add()
    log.raw += b"AUTH PLAIN c2VjcmV0"
    log.clear += b"secret"
    assert "AUTH" not in repr(log) and "secret" not in repr(log)
