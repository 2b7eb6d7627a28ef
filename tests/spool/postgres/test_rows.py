"""rows.py: from a submission to a row, and back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import RecordInvalid
from smtp_async.spool.postgres.rows import NewJob, entry_of, header_of, require_intact
from smtp_async.spool.submission import JobOptions, submission
from smtp_async.testing.contracts import TEXT


async def row_of(**options: Any) -> tuple[NewJob, dict[str, Any]]:
    """Return a new job, and the row that the database would make of it."""
    new = NewJob.of(await submission(TEXT, options=JobOptions(**options)))
    row = {
        **new._asdict(),
        **{"state": "queued", "created": 10.0, "not_before": new.not_before or 10.0, "scheduled_at": 10.0},
        **{"attempts": 2, "recoveries": 1, "held": True, "reason": "why", "results": None},
        **{"flagged": False, "confirmed": True, "marked": False, "token": 3},
    }
    return new, row


async def test_the_columns_win_over_the_header() -> None:
    new, row = await row_of(expires=50.0)
    entry = entry_of(row)
    assert (entry.id, entry.created, entry.not_before, entry.expires) == (new.id, 10.0, 10.0, 50.0)
    assert (entry.attempts, entry.recoveries, entry.held, entry.reason) == (2, 1, True, "why")
    assert (entry.flagged, entry.confirmed) == (False, True)


async def test_a_mark_flags_the_job_while_it_is_sent() -> None:
    _, row = await row_of()
    entry = entry_of({**row, "marked": True})
    assert (entry.flagged, entry.confirmed) == (True, False)


async def test_when_a_message_is_due_now_the_database_says_when_that_is() -> None:
    assert (await row_of())[0].not_before is None
    assert (await row_of(not_before=5.0))[0].not_before == 5.0


async def test_a_key_is_the_id() -> None:
    first, second = (await row_of(key="k"))[0], (await row_of(key="k"))[0]
    assert first.id == second.id and first.keyed
    assert (await row_of())[0].id != (await row_of())[0].id


async def test_a_row_with_the_header_of_another_job_is_refused() -> None:
    _, row = await row_of()
    with pytest.raises(RecordInvalid, match="its header is that of"):
        entry_of({**row, "id": "other"})


@given(st.text())
async def test_any_header_is_read_or_refused(text: str) -> None:
    _, row = await row_of()
    with pytest.raises(RecordInvalid):
        entry_of({**row, "header": text})


async def test_a_changed_message_is_refused() -> None:
    _, row = await row_of()
    header = header_of(row)
    require_intact(header, TEXT)
    for body in (TEXT[:-1], TEXT.replace(b"Hello", b"Hallo")):
        with pytest.raises(RecordInvalid, match="digest"):
            require_intact(header, body)
