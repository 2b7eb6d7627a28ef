"""line_recorder.py: what is recorded of a conversation."""

from smtp_async.model.reply import Reply
from smtp_async.protocol.line_recorder import LineRecorder, RecordedLine
from smtp_async.protocol.states import Verb


def test_lines_are_taken_once_and_in_order() -> None:
    recorder = LineRecorder()
    reply = Reply(250, (b"ok",))
    recorder.wrote(Verb.NOOP, b"NOOP\r\n")
    recorder.read(Verb.NOOP, reply)
    assert recorder.take() == [
        RecordedLine(Verb.NOOP, b"NOOP", None, None),
        RecordedLine(Verb.NOOP, b"", reply, None),
    ]
    assert recorder.take() == []


def test_a_chunk_is_shown_without_its_octets() -> None:
    recorder = LineRecorder()
    recorder.wrote(Verb.BDAT, b"BDAT 3\r\nabc")
    recorder.wrote(Verb.BDAT_LAST, b"BDAT 4 LAST\r\n\r\n\r\n")
    assert [line.line for line in recorder.take()] == [b"BDAT 3", b"BDAT 4 LAST"]


def test_nothing_is_recorded_unless_it_was_asked_for() -> None:
    assert LineRecorder().recording is False
