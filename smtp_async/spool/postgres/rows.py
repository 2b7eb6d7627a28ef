"""Rows of a spool in PostgreSQL: from a submission to the values of a new row, and from a row to the entry of a job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ...errors import RecordInvalid, SMTPError
from ..entry import Entry, Result, State
from ..fields import read_results
from ..record import Header, header_text, read_header_text
from ..submission import Submission, job_id

__all__ = ["NewJob", "entry_of", "header_of", "require_digest", "require_intact", "shift", "shifted"]


class Digest(Protocol):
    """A digest of `hashlib`."""

    def hexdigest(self) -> str:
        """Return the digest in hexadecimal."""


class NewJob(NamedTuple):
    """The values of a new row, in the order of the statement.

    Attributes:
        id: the id of the job.
        keyed: the job has a key, of which the id is the digest.
        not_before: when the job is due; None for now, by the clock of the database.
        expires: the time after which sending is not tried again.
        size: octets of the message.
        header: what never changes, as JSON.
        body: the message.
    """

    id: str
    keyed: bool
    not_before: float | None
    expires: float | None
    size: int
    header: str
    body: bytes

    @classmethod
    def of(cls, job: Submission, id: str | None = None) -> NewJob:
        """Return the row of a message that is put."""
        id = job_id(job) if id is None else id
        not_before = None if job.not_before == job.created else job.not_before
        return cls(
            id, job.key is not None, not_before, job.expires, len(job.body), header_text(job, id), job.body
        )


def header_of(row: Mapping[str, Any]) -> Header:
    """Return the part of a job that never changes, with the entry of `row`.

    Raises:
        RecordInvalid: the row is not a valid job.
    """
    header = read_header_text(row["header"].encode())
    entry = header.entry
    if entry.id != row["id"]:
        raise RecordInvalid(f"not a job: its header is that of {entry.id}")
    entry.state = State(row["state"])
    entry.created, entry.not_before = row["created"], row["not_before"]
    entry.scheduled_at, entry.expires = row["scheduled_at"], row["expires"]
    entry.attempts, entry.recoveries = row["attempts"], row["recoveries"]
    entry.held, entry.reason = row["held"], row["reason"]
    # The mark of the lease in progress flags the job until the lease has ended.
    entry.flagged = row["flagged"] or row["marked"]
    entry.confirmed = row["confirmed"] and not row["marked"]
    if row["results"] is not None:
        entry.results = read_results(row["results"], entry)
    return header


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Return the entry of a row.

    Raises:
        RecordInvalid: the row is not a valid job.
    """
    try:
        return header_of(row).entry
    except SMTPError as error:
        raise RecordInvalid(f"the row {row['id']} cannot be read: {error}") from error


def shift(entry: Entry, seconds: float) -> None:
    """Move the times of an entry from one clock to another."""
    entry.created += seconds
    entry.not_before += seconds
    entry.scheduled_at += seconds if entry.scheduled_at else 0.0
    entry.expires = None if entry.expires is None else entry.expires + seconds
    entry.results = shifted(entry.results, seconds)


def shifted(results: tuple[Result | None, ...], seconds: float) -> tuple[Result | None, ...]:
    """Return results with their times moved from one clock to another."""
    if not seconds:
        return results
    return tuple([None if one is None else one._replace(at=one.at + seconds) for one in results])


def require_intact(header: Header, body: bytes) -> None:
    """Check a message against its digest.

    Raises:
        RecordInvalid: the message was changed.
    """
    require_digest(header, hashlib.sha256(body), len(body))


def require_digest(header: Header, digest: Digest, size: int) -> None:
    """Check the digest and the size of a message.

    Raises:
        RecordInvalid: the message was changed.
    """
    if size != header.entry.size or digest.hexdigest() != header.digest:
        raise RecordInvalid("the message does not match its SHA-256 digest")
