"""submission.py: what is put is rendered once, for a server without extensions, and its streams are closed."""

import io
import time
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import FileError, InvalidArgument, MissingRecipient, MissingSender
from smtp_async.mail.coerce import Raw
from smtp_async.message import Message
from smtp_async.model.content import Source
from smtp_async.model.envelope import Envelope
from smtp_async.spool.submission import (
    MAX_KEY,
    BodyNeeds,
    JobOptions,
    StoredMail,
    Submission,
    epoch_seconds,
    job_id,
    submission,
)
from smtp_async.testing.contracts import TEXT
from tests.sources.origins import Awaited

PEOPLE: dict[str, Any] = {"sender": "a@x.test", "recipients": ["b@x.test", "c@x.test"]}
EIGHT_BIT = TEXT + b"\xc3\xa9\r\n"


# --- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY + 1), b"k", 7])
def test_a_key_is_a_short_text(key: Any) -> None:
    with pytest.raises(InvalidArgument, match="a key is a string"):
        JobOptions.checked(key, None, None)
    assert JobOptions.checked("x" * MAX_KEY, None, None).key == "x" * MAX_KEY


def test_a_time_is_seconds_or_a_moment_with_a_zone() -> None:
    assert epoch_seconds(5) == 5.0 and isinstance(epoch_seconds(5), float)
    assert epoch_seconds(datetime(1970, 1, 1, 1, tzinfo=UTC)) == 3600.0
    assert epoch_seconds(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0.0
    assert JobOptions.checked(None, 5, datetime(1970, 1, 1, 1, tzinfo=UTC)) == JobOptions(None, 5.0, 3600.0)


@pytest.mark.parametrize("moment", [-1, 2**40, float("nan"), float("inf"), True, "tomorrow", None])
def test_anything_else_is_no_time(moment: Any) -> None:
    with pytest.raises(InvalidArgument, match="is not a time in seconds"):
        epoch_seconds(moment)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="time zone"):
        epoch_seconds(datetime(2030, 1, 1))


# --- what is put ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "path", "stream", "async", "raw"])
async def test_a_complete_message_is_stored_as_it_is(kind: str, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(TEXT)
    given: Any = {
        "bytes": TEXT,
        "bytearray": bytearray(TEXT),
        "path": tmp_path / "message",
        "stream": io.BytesIO(TEXT),
        "async": Awaited([TEXT[:20], TEXT[20:]]),
        "raw": Raw(TEXT),
    }[kind]
    job = await submission(given)
    assert job.body == TEXT and job.message_id == "<1@example.com>"
    assert job.envelope == Envelope("ann@example.com", ["bob@example.org"])


async def test_the_envelope_that_is_given_wins() -> None:
    job = await submission(TEXT, **PEOPLE)
    assert job.envelope == Envelope("a@x.test", ["b@x.test", "c@x.test"])


async def test_a_message_is_rendered_for_any_server() -> None:
    job = await submission(Message(sender="a@x.test", to="b@x.test", subject="Grüße", text="Grüße"))
    assert job.body.isascii() and job.needs == BodyNeeds()
    standard = EmailMessage()
    standard["From"], standard["To"] = "a@x.test", "b@x.test"
    standard.set_content("Grüße", cte="8bit")
    assert (await submission(standard)).body.isascii()


async def test_what_cannot_be_written_in_ascii_says_what_it_needs() -> None:
    job = await submission(Message(sender="jörg@x.test", to="b@x.test", text="x"))
    assert job.needs.utf8 and "jörg@x.test".encode() in job.body
    assert job.entry("1").needs_utf8
    assert (await submission(EIGHT_BIT)).needs == BodyNeeds(eightbit=True)


async def test_line_ends_are_mended_once() -> None:
    """Each attempt sends the same octets."""
    job = await submission(TEXT.replace(b"\r\n", b"\n"))
    assert job.body == TEXT


async def test_a_message_without_an_envelope_is_refused() -> None:
    with pytest.raises(MissingSender):
        await submission(Message(to="b@x.test", text="x"))
    with pytest.raises(MissingRecipient):
        await submission(Message(sender="a@x.test", text="x"))


async def test_attachments_are_read_and_given_streams_closed(tmp_path: Path) -> None:
    given, kept = io.BytesIO(b"given"), io.BytesIO(b"kept")
    message = Message(sender="a@x.test", to="b@x.test", text="x")
    message.attach(given, filename="given", close=True)
    message.attach(kept, filename="kept")
    job = await submission(message)
    assert b"Z2l2ZW4=" in job.body and b"a2VwdA==" in job.body
    assert given.closed and not kept.closed


async def test_a_part_that_cannot_be_read_is_an_error_before_anything_is_stored(tmp_path: Path) -> None:
    message = Message(sender="a@x.test", to="b@x.test", text="x")
    message.attach(tmp_path / "missing")
    with pytest.raises(FileError):
        await submission(message)


async def test_the_application_s_own_messages_are_adapted() -> None:
    asked = []

    def adapt(note: Any, sender: Any, recipients: Any) -> Message:
        asked.append((note, sender, recipients))
        return Message(sender=sender, to=recipients, text=note)

    job = await submission("a note", **PEOPLE, adapt=adapt)
    assert asked == [("a note", "a@x.test", ["b@x.test", "c@x.test"])]
    assert b"\r\n\r\na note" in job.body and len(job.envelope.recipients) == 2


# --- the job -------------------------------------------------------------------------------------------------


async def test_a_job_is_due_now_unless_a_time_was_named() -> None:
    before = time.time()
    job = await submission(TEXT)
    assert before <= job.created == job.not_before <= time.time() and job.expires is None
    assert job.entry("1").scheduled_at == job.created
    job = await submission(TEXT, options=JobOptions("k", 5.0, 9.0))
    assert (job.not_before, job.expires, job.key) == (5.0, 9.0, "k")
    assert job.entry("1").scheduled_at == 0.0


def test_the_entry_of_a_new_job_has_the_digest_of_its_key_and_not_the_key() -> None:
    job = Submission(Envelope("a@x.test", ["b@x.test"]), TEXT, BodyNeeds(), "<1>", 1.0, 2.0, key="secret key")
    entry = job.entry("0123")
    assert (entry.id, entry.key, entry.size, entry.message_id) == ("0123", "0123", len(TEXT), "<1>")
    assert job._replace(key=None).entry("0123").key is None
    assert entry.trace is None and job._replace(trace="00-1-2-01").entry("0123").trace == "00-1-2-01"


def test_the_id_of_a_key_stays_the_same_from_version_to_version() -> None:
    """Otherwise a message that is put again after an update would be stored and sent a second time."""
    job = Submission(Envelope("a@x.test", ["b@x.test"]), TEXT, BodyNeeds(), "<1>", 1.0, 2.0, key="order 7")
    assert job_id(job) == "0fc89f8ae19394b48debd6353bb9ad33"


# --- what is sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("needs", [BodyNeeds(), BodyNeeds(eightbit=True, utf8=True), BodyNeeds(binary=True)])
def test_stored_content_is_never_changed(needs: BodyNeeds) -> None:
    content = needs.content(TEXT, size=len(TEXT), message_id="<1>")
    assert (content.eightbit, content.utf8, content.binary) == needs
    # Lines that are not SMTP's travel as they are; the others need no look at each line.
    assert content.canonical is not content.exact
    assert content.exact is needs.binary
    assert content.size == len(TEXT) and content.message_id == "<1>"


def test_stored_mail_is_the_same_for_every_server() -> None:
    envelope = Envelope("a@x.test", ["b@x.test"])
    asked = []

    def content() -> Any:
        asked.append(1)
        return BodyNeeds().content(Source(io.BytesIO(TEXT)), size=len(TEXT), message_id=None)

    mail = StoredMail(envelope, content)
    assert mail.envelope() is envelope
    assert mail.content(eightbit=True, utf8=True, binary=True).size == mail.content().size == len(TEXT)
    assert len(asked) == 2, "each attempt opens the message for itself"
