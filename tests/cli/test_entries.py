"""Jobs as they are shown."""

import pytest

from smtp_async import Envelope
from smtp_async.cli.entries import in_order, line_of, size, span, state_of
from smtp_async.spool.entry import Entry, State


def entry(number, **more):
    return Entry(
        id=f"job{number}",
        envelope=Envelope("ann@example.com", ["bob@example.org", "cid@example.org"]),
        created=1_900_000_000.0 + number,
        size=7,
        **more,
    )


async def given(entries):
    for one in entries:
        yield one


async def ids(entries, **how):
    return [int(one.id[3:]) async for one in in_order(given(entries), **how)]


async def test_the_oldest_jobs_come_first():
    entries = [entry(number) for number in (3, 1, 2, 5, 4)]
    assert await ids(entries) == [1, 2, 3, 4, 5]
    assert await ids(entries, limit=2) == [1, 2]
    assert await ids(entries, limit=9) == [1, 2, 3, 4, 5]
    assert await ids([]) == []


async def test_more_jobs_than_the_limit_are_sorted_in_batches():
    entries = [entry(number) for number in (3, 1, 2, 5, 4)]
    assert await ids(entries, sorted_at_once=2) == [1, 3, 2, 5, 4]


async def test_a_job_that_is_listed_twice_is_shown_twice():
    assert await ids([entry(1), entry(1), entry(0)]) == [0, 1, 1]
    assert await ids([entry(1), entry(1), entry(1)], limit=1) == [1]


def test_a_line_has_nine_fields_whatever_they_contain():
    line = line_of(entry(1, reason="550 no\tsuch\nuser \x1b[2J", not_before=2e9, attempts=3))
    fields = line.split("\t")
    assert fields[:6] == ["job1", "queued", "3", "2030-03-17T17:46:41Z", "2033-05-18T03:33:20Z", "7"]
    assert fields[6:8] == ["ann@example.com", "bob@example.org,cid@example.org"]
    assert fields[8:] == ["550 no\\tsuch\\nuser \\x1b[2J"]
    bounce = Entry(id="b", envelope=Envelope(None, ["x@example.org"]), created=0.0, size=1)
    assert line_of(bounce).split("\t")[6:] == ["<>", "x@example.org", "-"]


def test_held_is_a_state_of_its_own():
    assert state_of(entry(1, held=True)) == "held" and state_of(entry(1)) == "queued"
    assert state_of(entry(1, held=True, state=State.FAILED)) == "failed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "now"), (0.5, "now"), (45, "45s"), (119, "119s"), (121, "2m"), (3 * 3600, "3h"), (8 * 86400, "8d")],
)
def test_durations_are_shown_in_their_largest_unit(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 << 19, "1.5 MiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 42, "4096.0 GiB"),
    ],
)
def test_sizes_are_shown_in_binary_units(octets, text):
    assert size(octets) == text
