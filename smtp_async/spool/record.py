r"""The form of a job in a file: pure, versioned, bounded, and never trusted.

    SPOOL1 <length of the header in octets>\n
    {"id": …, "envelope": …, "body_len": …, "sha256": …}\n
    the message, octet for octet
    \n<crc32> {"r": "eod", …}\n
    \n<crc32> {"r": "result", …}\n

The header never changes. What happened since is the journal behind the message: records that are only ever appended.
Each begins with a line end of its own, so one that was torn by a crash spoils nothing but itself, and is passed over. A
job is what its header says, and then each record in turn.

A job is known by the number of its attempt. An attempt writes `eod` before its end of data leaves, and one of `result`,
`untouched` (it was given back) or, by whoever found its worker dead, `recovered`. `hold` and `requeue` are an
operator's.

There is nothing in a file that would be run, and no credentials. Whatever is wrong with one ends in `RecordInvalid`; a
later version is `RecordNewer`.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import product
from operator import itemgetter
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from ..errors import RecordInvalid, RecordNewer, SMTPError
from ..model.address import Address
from ..model.dsn import DSN, Notify
from ..model.envelope import Envelope, Kind, Recipient
from ..model.receipt import Outcome
from .entry import POISON, Entry, Result, State, flagged_after, requeued
from .submission import Submission

__all__ = [
    "MAX_FIRST_LINE",
    "MAX_HEADER",
    "Header",
    "Job",
    "encode",
    "fold",
    "header_end",
    "line",
    "parse",
    "read_header",
    "record",
]

#: Octets of a header: a hundred thousand recipients with their wishes.
MAX_HEADER: Final = 2**24
#: `SPOOL1 16777216\n` and a little.
MAX_FIRST_LINE: Final = 32

_FIRST_LINE: Final = re.compile(rb"SPOOL1 ([0-9]{1,8})\n")
_VERSION: Final = re.compile(rb"SPOOL([0-9]{1,8}) ")
_ID: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}")
_RECORD: Final = re.compile(rb"([0-9a-f]{8}) (\{[^\n]*\})")
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_KINDS: Final = {kind.value: kind for kind in Kind}
_STATES: Final = {state.value: state for state in State}

# ASCII only: no octet of it can be taken for a line end, and every editor shows it.
_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_string: Final = json.encoder.encode_basestring_ascii

_NONE: Final = type(None)
#: What a header has, each with the types that JSON may make of it.
_TYPES: Final = {
    "id": (str,),
    "key": (str, _NONE),
    "created": (float, int),
    "not_before": (float, int),
    "expires": (float, int, _NONE),
    "sender": (str, _NONE),
    "recipients": (list,),
    "needs": (list,),
    "message_id": (str, _NONE),
    "body_len": (int,),
    "sha256": (str,),
}
_FIELDS: Final = itemgetter(*_TYPES)
_SHAPES: Final = frozenset(product(*_TYPES.values()))

_T = TypeVar("_T")


class Header(NamedTuple):
    """What never changes about a job.

    Attributes:
        entry: the job as it was put.
        digest: SHA-256 of the message, in hexadecimal.
        body_at: where the message begins.
        eightbit, utf8, binary: what the message needs of a server.
    """

    entry: Entry
    digest: str
    body_at: int
    eightbit: bool
    utf8: bool
    binary: bool

    @property
    def journal_at(self) -> int:
        """Where the journal begins."""
        return self.body_at + self.entry.size


class Job(NamedTuple):
    """A job as header and journal tell it.

    Attributes:
        header: what never changes.
        entry: how it stands.
        token: the number that the next attempt gets.
        ended: where its last record wants it to be; None while an attempt may be going on.
    """

    header: Header
    entry: Entry
    token: int
    ended: State | None


# --- writing -------------------------------------------------------------------------------------------------


def encode(job: Submission, id: str) -> bytes:
    """Return what stands in front of the message in a file."""
    envelope, key = job.envelope, _string(id) if job.key is not None else "null"
    sender = "null" if envelope.sender is None else _string(_text(envelope.sender))
    recipients = ",".join([_recipient(one) for one in envelope.recipients])
    needs = [name for name in ("eightbit", "utf8", "binary") if getattr(job, name)]
    # Put together by hand: an encoder is made anew for each object, and this is on the way of every message.
    header = (
        f'{{"id":{_string(id)},"key":{key},"created":{job.created!r},"not_before":{job.not_before!r},'
        f'"expires":{_or_null(job.expires)},"sender":{sender},"recipients":[{recipients}],'
        f'"needs":{_encode(needs) if needs else "[]"},"message_id":{_string_or_null(job.message_id)},'
        f'"body_len":{len(job.body)},"sha256":"{hashlib.sha256(job.body).hexdigest()}"}}'
    )
    return f"SPOOL1 {len(header)}\n{header}\n".encode("ascii")


def _or_null(number: float | None) -> str:
    return "null" if number is None else repr(number)


def _string_or_null(text: str | None) -> str:
    return "null" if text is None else _string(text)


def line(**fields: Any) -> bytes:
    """Return one record of the journal."""
    text = _encode(fields).encode("ascii")
    return b"\n%08x %b\n" % (zlib.crc32(text), text)


def record(
    n: int,
    at: float,
    state: State,
    entry: Entry,
    results: Iterable[Result | None],
    *,
    reason: str,
    not_before: float | None,
) -> bytes:
    """Return the record of an attempt's end.

    Args:
        n: the number of the attempt.
        at: what time it is.
        state: where the job goes.
        entry: the job as the attempt found it.
        results: how its recipients stand now; those that changed are written.
        reason: in words, for a person.
        not_before: when it is due again, if it is.
    """
    changed = {
        str(place): [new.outcome.value, new.final, new.at, new.code, new.enhanced, new.text, new.queue_id]
        for place, (old, new) in enumerate(zip(entry.results, results, strict=True))
        if new is not None and new is not old
    }
    return line(
        r="result", n=n, at=at, state=state.value, not_before=not_before, reason=reason, results=changed
    )


def _text(address: Address) -> str:
    # As it travels: made when the address was parsed, and parsed again it is the same mailbox. It is read leniently,
    # which changes nothing about an address that was taken without: one that needs quotes has them.
    return address.wire(utf8=True).decode()


def _recipient(recipient: Recipient) -> str:
    text, kind, dsn = _text(recipient.address), recipient.kind.value, recipient.dsn
    if dsn is None:
        return f'[{_string(text)},"{kind}"]'
    notify = [one.name for one in Notify if dsn.notify is not None and one in dsn.notify]
    orcpt = _text(dsn.orcpt) if isinstance(dsn.orcpt, Address) else dsn.orcpt
    return _encode([text, kind, {"notify": notify, "orcpt": orcpt}])


# --- reading -------------------------------------------------------------------------------------------------


def parse(data: bytes, state: State = State.QUEUED) -> Job:
    """Read a whole file.

    Raises:
        RecordInvalid: it is not a job.
    """
    header = read_header(data)
    if len(data) < header.journal_at:
        _refuse("the message is shorter than its header says")
    if hashlib.sha256(data[header.body_at : header.journal_at]).hexdigest() != header.digest:
        _refuse("the message is not the one that was put")
    return fold(header, data[header.journal_at :], state)


def header_end(data: bytes) -> int:
    """Return where the message begins, told from the first `MAX_FIRST_LINE` octets of a file.

    Raises:
        RecordInvalid: it is not a job.
    """
    match = _first_line(data)
    return match.end() + int(match[1]) + 1


def read_header(data: bytes) -> Header:
    """Read a header from a file's beginning.

    Raises:
        RecordInvalid: it is not a job.
    """
    match = _first_line(data)
    start = match.end()
    end = start + int(match[1]) + 1
    if data[end - 1 : end] != b"\n":
        _refuse("its header is not complete")
    fields = _json(data[start : end - 1])
    try:
        return _header(fields, end)
    except (LookupError, TypeError, ValueError, SMTPError) as error:
        raise RecordInvalid(f"not a job: {type(error).__name__} in its header: {error}") from error


def _first_line(data: bytes) -> re.Match[bytes]:
    match = _FIRST_LINE.match(data)
    if match is None:
        version = _VERSION.match(data)
        if version is not None and int(version[1]) > 1:
            raise RecordNewer(f"its version is {int(version[1])}, and this library knows version 1 only")
        _refuse("it does not begin as one")
    if int(match[1]) > MAX_HEADER:
        _refuse("its header is too long")
    return match


def fold(header: Header, journal: bytes, state: State) -> Job:
    """Return how a job stands, from what never changes and what happened since; the entry of the header is used up.

    Raises:
        RecordInvalid: a record is complete, and makes no sense.
    """
    if not journal:
        header.entry.state = state
        return Job(header, header.entry, 1, None)
    story = _Story(header.entry)
    for fields in _records(journal):
        try:
            story.tell(fields)
        except (LookupError, TypeError, ValueError, SMTPError) as error:
            raise RecordInvalid(f"not a job: {type(error).__name__} in its journal: {error}") from error
    story.entry.state = state
    return Job(header, story.entry, story.top + 1, story.ended)


class _Story:
    """A job while its journal is read."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.top = 0
        self.ended: State | None = None
        # The last attempt that is counted: a record may have been written twice by one whose disk failed.
        self._counted = 0
        self._marked = 0
        self._before = (False, False)

    def tell(self, fields: dict[str, Any]) -> None:
        kind = _of(fields["r"], str)
        told = _TOLD.get(kind)
        if told is None:
            return  # of a later day: what it says does not change where the message goes
        n = fields.get("n")
        if n is not None:
            self.top = max(self.top, _count(n))
        told(self, fields)

    def eod(self, fields: dict[str, Any]) -> None:
        n = _count(fields["n"])
        if n != self._marked:
            self._marked, self._before = n, (self.entry.flagged, self.entry.confirmed)
        self.entry.flagged, self.entry.confirmed = True, False
        self.ended = None

    def result(self, fields: dict[str, Any]) -> None:
        entry, n = self.entry, _count(fields["n"])
        self._count(n)
        if n == self._marked:
            # Its own mark was for the case that it does not come to this.
            entry.flagged, _ = self._before
        entry.results = _results(entry.results, _of(fields["results"], dict))
        entry.reason = _of(fields["reason"], str)
        entry.flagged, entry.confirmed = flagged_after(entry, entry.results), False
        if fields["not_before"] is not None:
            entry.not_before, entry.reckoned = _time(fields["not_before"]), _time(fields["at"])
        self.ended = _STATES[_of(fields["state"], str)]

    def recovered(self, fields: dict[str, Any]) -> None:
        self._count(_count(fields["n"]))
        self.entry.recoveries += 1
        poisoned = self.entry.recoveries >= POISON
        self.ended = State.FAILED if poisoned else State.QUEUED
        if poisoned:
            self.entry.reason = "poison"

    def untouched(self, fields: dict[str, Any]) -> None:
        if _count(fields["n"]) == self._marked:
            self.entry.flagged, self.entry.confirmed = self._before
        self.ended = State.QUEUED

    def hold(self, fields: dict[str, Any]) -> None:
        self.entry.held = _of(fields["held"], bool)

    def requeue(self, fields: dict[str, Any]) -> None:
        expires = fields["expires"]
        expires = None if expires is None else _time(expires)
        self.entry = requeued(self.entry, _time(fields["not_before"]), expires, _time(fields["at"]))
        self.ended = State.QUEUED

    def _count(self, n: int) -> None:
        if n > self._counted:
            self._counted = n
            self.entry.attempts += 1


_TOLD: Final = {
    "eod": _Story.eod,
    "result": _Story.result,
    "recovered": _Story.recovered,
    "untouched": _Story.untouched,
    "hold": _Story.hold,
    "requeue": _Story.requeue,
}


def _records(journal: bytes) -> Iterator[dict[str, Any]]:
    for text in journal.split(b"\n"):
        match = _RECORD.fullmatch(text)
        # What is torn, or was never written to its end, does not match its sum.
        if match is not None and int(match[1], 16) == zlib.crc32(match[2]):
            yield _json(match[2])


def _header(fields: dict[str, Any], end: int) -> Header:
    values = _FIELDS(fields)
    # One look for all of them: a queue is read as fast as it is sent.
    if tuple(map(type, values)) not in _SHAPES:
        raise TypeError("a field is not of the type that it should be")
    id, key, created, not_before, expires, sender, recipients, needs, message_id, size, digest = values
    if _ID.fullmatch(id) is None:
        raise ValueError("the id is not one that a spool makes")
    envelope = Envelope(
        None if sender is None else Address.parse(sender, lenient=True),
        [_read_recipient(*one) for one in recipients],
    )
    entry = Entry(
        id=id,
        envelope=envelope,
        created=_time(created),
        size=_count(size),
        key=key,
        not_before=_time(not_before),
        expires=None if expires is None else _time(expires),
        needs_utf8="utf8" in needs or envelope.needs_utf8,
        message_id=message_id,
        reckoned=_time(created) if not_before == created else 0.0,
    )
    return Header(entry, digest, end, "eightbit" in needs, "utf8" in needs, "binary" in needs)


def _read_recipient(address: Any, kind: Any, wishes: Any = None) -> Recipient:
    dsn = None if wishes is None else _dsn(_of(wishes, dict))
    return Recipient(_of(address, str), _KINDS[_of(kind, str)], dsn=dsn, lenient=True)


def _dsn(wishes: dict[str, Any]) -> DSN:
    notify = Notify(0)
    for name in _of(wishes["notify"], list):
        notify |= Notify[_of(name, str)]
    orcpt = wishes["orcpt"]
    return DSN(notify=notify or None, orcpt=None if orcpt is None else _of(orcpt, str))


def _results(old: tuple[Result | None, ...], changed: dict[str, Any]) -> tuple[Result | None, ...]:
    results = [*old]
    for place, values in changed.items():
        outcome, final, at, code, enhanced, text, queue_id = _of(values, list)
        results[_count(int(place))] = Result(
            _OUTCOMES[_of(outcome, str)],
            _of(final, bool),
            _time(at),
            None if code is None else _count(code),
            None if enhanced is None else _of(enhanced, str),
            _of(text, str),
            None if queue_id is None else _of(queue_id, str),
        )
    return tuple(results)


def _json(text: bytes) -> dict[str, Any]:
    try:
        return _of(json.loads(text.decode("ascii")), dict)
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordInvalid(f"not a job: {type(error).__name__} in what should be JSON") from error


def _of(value: Any, kind: type[_T]) -> _T:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} is needed, not {type(value).__name__}")
    return value


def _count(value: Any) -> int:
    if not 0 <= _of(value, int) < 2**53:
        raise ValueError("a count is out of range")
    return int(value)


def _time(value: Any) -> float:
    if type(value) is not float and type(value) is not int or not 0 <= value < 2**40:
        raise ValueError("a time is out of range")
    return float(value)


def _refuse(reason: str) -> NoReturn:
    raise RecordInvalid(f"not a job: {reason}")
