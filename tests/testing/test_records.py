"""The records of a test server count right, because clients are judged by them."""

import pytest

from smtp_async.testing.records import ConnectionLogs, ReceivedLine, ReceivedMessage


def test_a_message_is_parsed_once_and_its_subject_decoded() -> None:
    one = ReceivedMessage("a@x.test", ["b@x.test"], b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nline\r\n")
    assert one.subject == "Grüße" and one.parsed is one.parsed
    assert one.parsed.get_content() == "line\n"
    assert ReceivedMessage("", [], b"\r\nx\r\n").subject == ""


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
