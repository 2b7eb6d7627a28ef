"""The history of a job of another spool, as its first record."""

from smtp_async.model.envelope import Envelope
from smtp_async.model.receipt import Outcome
from smtp_async.spool.entry import Entry, Result, State
from smtp_async.spool.history import history_record
from smtp_async.spool.record import encode_header, parse
from smtp_async.spool.submission import adopted


def test_a_history_is_read_as_it_was_written() -> None:
    body = b"From: ann@example.com\r\n\r\nHello\r\n"
    results = (Result(Outcome.ACCEPTED, True, 5.0, 250, None, "ok", "X1"), None)
    envelope = Envelope("ann@example.com", ["bob@example.org", "carl@example.org"])
    entry = Entry(
        id="id-1", envelope=envelope, created=1.5, size=len(body), key="id-1", not_before=2.5, attempts=3,
        recoveries=1, held=True, results=results, flagged=True, reason="451 later", scheduled_at=2.0,
    )  # fmt: skip
    data = encode_header(adopted(entry, body), "id-1") + body + history_record(entry)
    assert parse(data, State.QUEUED).entry == entry
