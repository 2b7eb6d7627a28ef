"""line_recorder.py: what is recorded of a conversation."""

from smtp_async.model.reply import Reply
from smtp_async.protocol.line_recorder import Trail, TrailLine
from smtp_async.protocol.states import Verb


def test_lines_are_taken_once_and_in_order() -> None:
    trail = Trail()
    reply = Reply(250, (b"ok",))
    trail.wrote(Verb.NOOP, b"NOOP\r\n")
    trail.read(Verb.NOOP, reply)
    assert trail.take() == [
        TrailLine(Verb.NOOP, b"NOOP", None, None),
        TrailLine(Verb.NOOP, b"", reply, None),
    ]
    assert trail.take() == []


def test_a_chunk_is_shown_without_its_octets() -> None:
    trail = Trail()
    trail.wrote(Verb.BDAT, b"BDAT 3\r\nabc")
    trail.wrote(Verb.BDAT_LAST, b"BDAT 4 LAST\r\n\r\n\r\n")
    assert [line.line for line in trail.take()] == [b"BDAT 3", b"BDAT 4 LAST"]


def test_nothing_is_recorded_unless_it_was_asked_for() -> None:
    assert Trail().recording is False
