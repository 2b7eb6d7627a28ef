"""The notes of a working queue, and how they are displayed."""

import pytest
from rich.console import Console

from smtp_async import Receipt, Recipient, Reply, Verdict, events
from smtp_async.cli.output import Output
from smtp_async.cli.progress import LineDisplay, LiveDisplay, Note, NoteCollector, Rate, Snapshot, clock_of
from smtp_async.errors import NotSent
from smtp_async.hooks import Observed
from smtp_async.model.receipt import Outcome
from smtp_async.processor import ProcessorStatistics

ACCEPTED = Receipt(
    (Verdict(Recipient("bob@example.org"), Outcome.ACCEPTED, Reply(250, (b"2.0.0 Ok\x1b[2J",))),)
)


class FakeProcessor(Observed):
    """Registers hooks as a processor does, and publishes what a test wants."""

    async def publish(self, event):
        await self._hooks.tell((event,))


EVENTS = (
    events.JobSent(id="a", receipt=ACCEPTED),
    events.JobSent(id="a2", receipt=Receipt(())),
    events.JobDeferred(id="b", receipt=ACCEPTED, not_before=1.9e9, reason="450\tlater\n"),
    events.JobFailed(id="c", receipt=None, reason="poison"),
    events.JobQueued(id="d", recovered=True),
    events.QueuePaused(error=NotSent("no connection"), until=1.9e9 + 60),
    events.QueueResumed(),
)


async def collected(*, sent):
    processor = FakeProcessor()
    notes = NoteCollector(processor, sent=sent)
    for event in EVENTS:
        await processor.publish(event)
    return notes


async def test_each_event_has_a_line():
    notes = await collected(sent=True)
    assert [*map(str, notes.take())] == [
        "sent\ta\t-\t250 2.0.0 Ok\\x1b[2J",
        "sent\ta2\t-\t-",
        "deferred\tb\t2030-03-17T17:46:40Z\t450\\tlater\\n",
        "failed\tc\t-\tpoison",
        "recovered\td\t-\t-",
        "paused\t-\t2030-03-17T17:47:40Z\tno connection",
        "resumed\t-\t-\t-",
    ]
    assert notes.take() == []


async def test_sent_jobs_are_not_collected_if_not_wanted():
    notes = await collected(sent=False)
    assert [one.word for one in notes.take()] == ["deferred", "failed", "recovered", "paused", "resumed"]


async def test_a_deferred_job_waits_until_it_is_due():
    notes = await collected(sent=False)
    assert (notes.waiting(1.9e9 - 1), notes.waiting(1.9e9), notes.waiting(0.0)) == (1, 0, 0)


def test_the_rate_is_measured_over_the_last_seconds():
    rate = Rate()
    assert rate.add(0.0, 0) == 0.0
    assert rate.add(2.0, 100) == 50.0
    assert rate.add(20.0, 100) == pytest.approx(0.0)
    assert rate.add(21.0, 110) == pytest.approx(10 / 19)
    assert rate.add(32.0, 120) == pytest.approx(10 / 11)


@pytest.mark.parametrize(
    ("snapshot", "seconds"),
    [
        (Snapshot(ProcessorStatistics(), 100, 4.0), 25.0),
        (Snapshot(ProcessorStatistics(), 0, 4.0), None),
        (Snapshot(ProcessorStatistics(), 100, 0.0), None),
        (Snapshot(ProcessorStatistics(paused_until=1.0), 100, 4.0), None),
    ],
)
def test_the_remaining_time_follows_from_the_rate(snapshot, seconds):
    assert snapshot.seconds_left == seconds


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (61.4, "0:01:01"), (100 * 3600, "100:00:00")])
def test_a_duration_is_shown_in_hours_minutes_and_seconds(seconds, text):
    assert clock_of(seconds) == text


def test_lines_have_no_control_characters(capsys):
    display = LineDisplay(Output())
    display.show_notes([Note("failed", "a", None, "x\x1b[2J\r"), Note("resumed")])
    display.show_notes([])
    display.show_progress(Snapshot(ProcessorStatistics(), 1, 1.0))
    display.close()
    assert capsys.readouterr().out == "failed\ta\t-\tx\\x1b[2J\\r\nresumed\t-\t-\t-\n"


def wide(output):
    output.out = Console(force_terminal=True, width=120, color_system=None, markup=False, highlight=False)
    return output


def test_the_live_display_shows_progress_and_notes_that_need_attention(capsys):
    display = LiveDisplay(wide(Output()), now=lambda: 100.0)
    counts = ProcessorStatistics(sending=12, sent=1200, deferred=3, failed=1)
    display.show_notes(
        [Note("failed", "job7", None, "550 [b]no[/b]"), Note("recovered", "job8"), Note("deferred", "job9")]
    )
    display.show_progress(Snapshot(counts, 796, 398.0))
    display.show_progress(Snapshot(ProcessorStatistics(paused_until=107.0, problem="dead\x1b"), 5, 0.0))
    display.close()
    shown = capsys.readouterr().out
    assert "✗ job7 failed: 550 [b]no[/b]" in shown and "job8 was left by a worker" in shown
    assert "Sending" in shown and "1,204 of 2,000" in shown
    assert "398.0/s · 12 in flight · 1,200 sent · 3 deferred · 1 failed · ETA 0:00:02" in shown
    assert "Paused" in shown and "Again in 7 s: dead\\x1b" in shown and "ETA -:--:--" in shown
    assert "job9" not in shown
