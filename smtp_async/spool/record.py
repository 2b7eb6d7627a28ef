r"""The file format of a job: versioned, bounded in size, and validated on every read. Nothing here does I/O.

    SPOOL1 <length of the header in octets>\n
    {"id": …, "envelope": …, "body_len": …, "sha256": …, "trace": …, "tag": …}\n
    the message, octet for octet
    \n<crc32> {"r": "eod", …}\n
    \n<crc32> {"r": "result", …}\n

The header never changes; `trace` is there only if telemetry was on, `tag` only if one was given, and fields of later
versions are ignored. Later changes are records in the journal behind the message, which is only ever appended to. Each
record begins with a line ending, so that a record torn by a crash damages no other record; it is ignored. The current
state of a job is its header with all records applied in order.

Records contain the number of the attempt. An attempt appends `eod` before end of data is sent, and then `result`, or
`untouched` if the job was released. A store may keep the mark of the first attempt elsewhere: then `eod` is added when
the job is read, and appended by recovery. Recovery appends `recovered` for a worker that died. An operator's commands
append `hold` and `requeue`. The journal of a job of another spool begins with `moved`.

A file contains nothing that is executed, and no credentials. Invalid files raise `RecordInvalid`, and files of a later
version `RecordNewer`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple, NoReturn

from ..errors import RecordInvalid, RecordNewer, SMTPError
from ..model.address import Address
from ..model.dsn import DSN, Notify
from ..model.envelope import Envelope, Kind, Recipient
from .entry import POISON, Entry, Result, State, flagged_after, requeued
from .fields import changed_results, count, encode, of, result_values, time_of
from .submission import BodyNeeds, Submission, checked_tag

__all__ = [
    "JOB_ID",
    "MAX_FIRST_LINE",
    "MAX_HEADER",
    "Header",
    "Job",
    "encode_header",
    "header_end",
    "header_text",
    "journal_record",
    "parse",
    "read_header",
    "read_header_text",
    "replay",
    "result_record",
]

#: Maximum size of a header in octets: room for a hundred thousand recipients with DSN options.
MAX_HEADER: Final = 2**24
#: Maximum length of the first line, `SPOOL1 16777216\n`, with a margin.
MAX_FIRST_LINE: Final = 32
#: The ids that a spool assigns.
JOB_ID: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}")

_FIRST_LINE: Final = re.compile(rb"SPOOL1 ([0-9]{1,8})\n")
_VERSION: Final = re.compile(rb"SPOOL([0-9]{1,8}) ")
_RECORD: Final = re.compile(rb"([0-9a-f]{8}) (\{[^\n]*\})")
_KINDS: Final = {kind.value: kind for kind in Kind}
_STATES: Final = {state.value: state for state in State}

# Whatever is wrong with what telemetry needs must not keep a message from being sent: it is ignored.
_TRACE: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_NONE: Final = type(None)
#: The fields of a header, with the types that each may have after JSON decoding.
_FIELDS: Final = {
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
_values: Final = itemgetter(*_FIELDS)
# The allowed types of all values: one quick check of a header, because reading must not slow down sending.
_SHAPES: Final = frozenset(itertools.product(*_FIELDS.values()))
_NEEDS: Final = BodyNeeds._fields
_NO_NEEDS: Final = BodyNeeds()
# `json.loads` looks at its options at each call, and searches for white space.
_decode: Final = json.JSONDecoder().raw_decode


class Header(NamedTuple):
    """The part of a job that never changes.

    Attributes:
        entry: the job as it was put.
        digest: SHA-256 of the message, in hexadecimal.
        body_at: offset of the message in the file.
        needs: what the message requires of a server.
    """

    entry: Entry
    digest: str
    body_at: int
    needs: BodyNeeds

    @property
    def journal_at(self) -> int:
        """Offset of the journal in the file."""
        return self.body_at + self.entry.size


class Job(NamedTuple):
    """A job, read from its header and journal.

    Attributes:
        header: the part that never changes.
        entry: the current entry.
        token: the number of the next attempt.
        ended: the state after the last record; None while an attempt may be in progress.
        mark_unrecorded: the store has a mark of the first attempt, and the journal neither the mark nor its result.
    """

    header: Header
    entry: Entry
    token: int
    ended: State | None
    mark_unrecorded: bool = False


# --- writing -------------------------------------------------------------------------------------------------


def encode_header(job: Submission, id: str) -> bytes:
    """Return the octets that precede the message in the file of the job `id`."""
    header = header_text(job, id)
    return f"SPOOL1 {len(header)}\n{header}\n".encode("ascii")


def header_text(job: Submission, id: str) -> str:
    """Return the JSON text of the header of the job `id`."""
    envelope, text = job.envelope, encode(id)
    created = repr(job.created)
    not_before = created if job.not_before == job.created else repr(job.not_before)
    sender = "null" if envelope.sender is None else encode(_text(envelope.sender))
    recipients = ",".join([_recipient_json(recipient) for recipient in envelope.recipients])
    needs = "[]" if job.needs == _NO_NEEDS else encode([*itertools.compress(_NEEDS, job.needs)])
    trace = "" if job.trace is None else f',"trace":{encode(job.trace)}'
    tag = "" if job.tag is None else f',"tag":{encode(job.tag)}'
    # Put together by hand, because the json module makes a new encoder for each dict, which took 9 of 100 instructions
    # of a put without a sync.
    return (
        f'{{"id":{text},"key":{"null" if job.key is None else text},"created":{created},"not_before":{not_before},'
        f'"expires":{"null" if job.expires is None else repr(job.expires)},"sender":{sender},'
        f'"recipients":[{recipients}],"needs":{needs},'
        f'"message_id":{"null" if job.message_id is None else encode(job.message_id)},'
        f'"body_len":{len(job.body)},"sha256":"{hashlib.sha256(job.body).hexdigest()}"{trace}{tag}}}'
    )


def journal_record(**fields: Any) -> bytes:
    """Return one record of the journal."""
    text = encode(fields).encode("ascii")
    return b"\n%08x %b\n" % (zlib.crc32(text), text)


def result_record(
    n: int,
    at: float,
    state: State,
    entry: Entry,
    results: Iterable[Result | None],
    *,
    reason: str,
    not_before: float | None,
    counts: bool = True,
) -> bytes:
    """Return the record that ends an attempt.

    Args:
        n: the number of the attempt.
        at: the current time.
        state: the new state of the job.
        entry: the job before the attempt.
        results: the results after the attempt; those that changed are written.
        reason: the reason, for an operator.
        not_before: when the job is due again, None if it is not.
        counts: the attempt counts.
    """
    changed = {
        str(place): result_values(new)
        for place, (old, new) in enumerate(zip(entry.results, results, strict=True))
        if new is not None and new is not old
    }
    # Left out of most records, so that earlier versions of this library, which do not know it, count the attempt.
    uncounted = {} if counts else {"counts": False}
    return journal_record(
        r="result",
        n=n,
        at=at,
        state=state.value,
        not_before=not_before,
        reason=reason,
        results=changed,
        **uncounted,
    )


def _text(address: Address) -> str:
    # The address as sent parses to the same mailbox. It is parsed leniently, which changes no address that strict
    # parsing accepts, because an address that needs quotes has them.
    return address.wire(utf8=True).decode()


def _recipient_json(recipient: Recipient) -> str:
    text, kind, dsn = _text(recipient.address), recipient.kind.value, recipient.dsn
    if dsn is None:
        return f'[{encode(text)},"{kind}"]'
    notify = [flag.name for flag in Notify if dsn.notify is not None and flag in dsn.notify]
    orcpt = _text(dsn.orcpt) if isinstance(dsn.orcpt, Address) else dsn.orcpt
    return encode([text, kind, {"notify": notify, "orcpt": orcpt}])


# --- reading -------------------------------------------------------------------------------------------------


def parse(data: bytes, state: State = State.QUEUED) -> Job:
    """Parse a complete file.

    Raises:
        RecordInvalid: the file is not a valid job.
    """
    header = read_header(data)
    if len(data) < header.journal_at:
        _refuse("the message is shorter than its header states")
    if hashlib.sha256(data[header.body_at : header.journal_at]).hexdigest() != header.digest:
        _refuse("the message does not match its SHA-256 digest")
    return replay(header, data[header.journal_at :], state)


def header_end(data: bytes) -> int:
    """Return the offset of the message, given at least the first `MAX_FIRST_LINE` octets of a file.

    Raises:
        RecordInvalid: the file is not a valid job.
    """
    match = _first_line(data)
    return match.end() + int(match[1]) + 1


def read_header(data: bytes) -> Header:
    """Parse the header at the beginning of a file.

    Raises:
        RecordInvalid: the file is not a valid job.
    """
    match = _first_line(data)
    start = match.end()
    end = start + int(match[1]) + 1
    if data[end - 1 : end] != b"\n":
        _refuse("its header is incomplete")
    return read_header_text(data[start : end - 1], end)


def read_header_text(text: bytes, end: int = 0) -> Header:
    """Parse the JSON text of a header.

    Args:
        text: the text.
        end: offset of the message in the file, if there is one.

    Raises:
        RecordInvalid: the text is not that of a valid job.
    """
    fields = _json(text)
    try:
        # Without an escape, no letter of an address is outside ASCII.
        return _header(fields, end, escaped=b"\\" in text)
    except (LookupError, TypeError, ValueError, SMTPError) as error:
        raise RecordInvalid(f"not a job: {type(error).__name__} in its header: {error}") from error


def _first_line(data: bytes) -> re.Match[bytes]:
    match = _FIRST_LINE.match(data)
    if match is None:
        version = _VERSION.match(data)
        if version is not None and int(version[1]) > 1:
            raise RecordNewer(f"its version is {int(version[1])}, and this library supports version 1 only")
        _refuse("it does not begin with SPOOL1")
    if int(match[1]) > MAX_HEADER:
        _refuse("its header is too long")
    return match


def replay(header: Header, journal: bytes, state: State, *, marked: bool = False) -> Job:
    """Apply a journal to a header and return the job. The entry of the header is updated in place.

    Args:
        header: the header, just read.
        journal: the octets behind the message.
        state: the state that the store says the job has.
        marked: the store has a mark of the first attempt besides the journal.

    Raises:
        RecordInvalid: a complete record has invalid fields.
    """
    if not journal and not marked:
        header.entry.state = state
        return Job(header, header.entry, 1, None)
    replayed = _Replay(header.entry)
    for fields in _records(journal):
        try:
            replayed.apply(fields)
        except (LookupError, TypeError, ValueError, SMTPError) as error:
            raise RecordInvalid(f"not a job: {type(error).__name__} in its journal: {error}") from error
    unrecorded = marked and not replayed.first_mark_known
    if unrecorded:
        replayed.apply({"r": "eod", "n": 1})
    replayed.entry.state = state
    return Job(header, replayed.entry, replayed.last_attempt + 1, replayed.ended, unrecorded)


class _Replay:
    """The state of a job while the records of its journal are applied.

    Attributes:
        entry: the entry after the records so far.
        last_attempt: the highest number of an attempt so far.
        first_mark_known: there is an `eod` or a `result` of the first attempt.
        ended: the state after the last record; None while an attempt may be in progress.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.last_attempt = 0
        self.first_mark_known = False
        self.ended: State | None = None
        # The last attempt that was counted. A worker whose disk failed may have written its record twice.
        self._counted = 0
        # The attempt that wrote `eod`, and (flagged, confirmed) before it did.
        self._marked = 0
        self._before_mark = (False, False)

    def apply(self, fields: dict[str, Any]) -> None:
        """Apply one record. Record types of later versions are ignored, because they do not affect where mail goes."""
        apply = _APPLY.get(of(fields["r"], str))
        if apply is None:
            return
        n = fields.get("n")
        if n is not None:
            self.last_attempt = max(self.last_attempt, count(n))
        apply(self, fields)

    def eod(self, fields: dict[str, Any]) -> None:
        n = count(fields["n"])
        self.first_mark_known |= n == 1
        if n != self._marked:
            self._marked, self._before_mark = n, (self.entry.flagged, self.entry.confirmed)
        self.entry.flagged, self.entry.confirmed = True, False
        self.ended = None

    def result(self, fields: dict[str, Any]) -> None:
        entry, n = self.entry, count(fields["n"])
        self.first_mark_known |= n == 1
        counts = of(fields.get("counts", True), bool)
        if counts:
            self._count_attempt(n)
        if n == self._marked:
            # The attempt has a result, so its own mark no longer flags the job.
            entry.flagged, entry.confirmed = self._before_mark
        entry.results = changed_results(entry.results, of(fields["results"], dict))
        entry.reason = of(fields["reason"], str)
        entry.flagged = flagged_after(entry, entry.results)
        entry.confirmed = entry.confirmed and not counts
        if fields["not_before"] is not None:
            entry.not_before, entry.scheduled_at = time_of(fields["not_before"]), time_of(fields["at"])
        self.ended = _STATES[of(fields["state"], str)]

    def recovered(self, fields: dict[str, Any]) -> None:
        self._count_attempt(count(fields["n"]))
        self.entry.recoveries += 1
        poisoned = self.entry.recoveries >= POISON
        self.ended = State.FAILED if poisoned else State.QUEUED
        if poisoned:
            self.entry.reason = "poison"

    def untouched(self, fields: dict[str, Any]) -> None:
        if count(fields["n"]) == self._marked:
            self.entry.flagged, self.entry.confirmed = self._before_mark
        self.ended = State.QUEUED

    def moved(self, fields: dict[str, Any]) -> None:
        entry = self.entry
        entry.attempts, entry.recoveries = count(fields["attempts"]), count(fields["recoveries"])
        entry.held, entry.reason = of(fields["held"], bool), of(fields["reason"], str)
        entry.flagged, entry.confirmed = of(fields["flagged"], bool), of(fields["confirmed"], bool)
        entry.scheduled_at = time_of(fields["scheduled_at"])
        entry.results = changed_results(entry.results, of(fields["results"], dict))

    def hold(self, fields: dict[str, Any]) -> None:
        self.entry.held = of(fields["held"], bool)

    def requeue(self, fields: dict[str, Any]) -> None:
        expires = fields["expires"]
        expires = None if expires is None else time_of(expires)
        self.entry = requeued(self.entry, time_of(fields["not_before"]), expires, time_of(fields["at"]))
        self.ended = State.QUEUED

    def _count_attempt(self, n: int) -> None:
        if n > self._counted:
            self._counted = n
            self.entry.attempts += 1


_APPLY: Final = {
    "eod": _Replay.eod,
    "result": _Replay.result,
    "recovered": _Replay.recovered,
    "untouched": _Replay.untouched,
    "moved": _Replay.moved,
    "hold": _Replay.hold,
    "requeue": _Replay.requeue,
}


def _records(journal: bytes) -> Iterator[dict[str, Any]]:
    for text in journal.split(b"\n"):
        match = _RECORD.fullmatch(text)
        # A torn or incomplete record does not match its checksum.
        if match is not None and int(match[1], 16) == zlib.crc32(match[2]):
            yield _json(match[2])


def _header(fields: dict[str, Any], end: int, *, escaped: bool) -> Header:
    values = _values(fields)
    if tuple(map(type, values)) not in _SHAPES:
        wrong = [name for name, types in _FIELDS.items() if type(fields[name]) not in types]
        raise TypeError(f"the field {wrong[0]} has the wrong type")
    id, key, created, not_before, expires, sender, recipients, needs, message_id, size, digest = values
    if JOB_ID.fullmatch(id) is None:
        raise ValueError("the id is not a valid job id")
    envelope = Envelope(
        None if sender is None else Address.parse(sender, lenient=True),
        [_read_recipient(*one) for one in recipients],
    )
    put_at = time_of(created)
    entry = Entry(
        id=id,
        envelope=envelope,
        created=put_at,
        size=count(size),
        key=key,
        not_before=put_at if not_before == created else time_of(not_before),
        expires=None if expires is None else time_of(expires),
        needs_utf8="utf8" in needs or (escaped and envelope.needs_utf8),
        message_id=message_id,
        scheduled_at=put_at if not_before == created else 0.0,
        trace=_trace(fields.get("trace")),
        tag=None if (tag := fields.get("tag")) is None else checked_tag(tag),
    )
    required = BodyNeeds("eightbit" in needs, "utf8" in needs, "binary" in needs) if needs else _NO_NEEDS
    return Header(entry, digest, end, required)


def _trace(value: Any) -> str | None:
    return value if isinstance(value, str) and _TRACE.fullmatch(value) else None


def _read_recipient(address: Any, kind: Any, dsn: Any = None) -> Recipient:
    options = None if dsn is None else _dsn(of(dsn, dict))
    return Recipient(of(address, str), _KINDS[of(kind, str)], dsn=options, lenient=True)


def _dsn(fields: dict[str, Any]) -> DSN:
    notify = Notify(0)
    for name in of(fields["notify"], list):
        notify |= Notify[of(name, str)]
    orcpt = fields["orcpt"]
    return DSN(notify=notify or None, orcpt=None if orcpt is None else of(orcpt, str))


def _json(text: bytes) -> dict[str, Any]:
    try:
        content = text.decode("ascii").strip(" \t\r\n")
        if (found := _decode(content))[1] != len(content):
            raise ValueError("there is something behind the object")
        return of(found[0], dict)
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordInvalid(f"not a job: {type(error).__name__} in its JSON text") from error


def _refuse(reason: str) -> NoReturn:
    raise RecordInvalid(f"not a job: {reason}")
