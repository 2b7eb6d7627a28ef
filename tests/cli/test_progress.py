"""What is noted of a queue at work, and how it is shown."""

import pytest
from rich.console import Console

from smtp_async import QueueProcessor, Receipt, Recipient, Reply, SMTPClient, Verdict, events
from smtp_async.cli.progress import LiveFace, Note, Notes, Picture, PlainFace, Rate, clock_of
from smtp_async.cli.screen import Screen
from smtp_async.errors import NotSent
from smtp_async.model.receipt import Outcome
from smtp_async.processor import ProcessorStatistics
from smtp_async.spool.directory.spool import DirectorySpool

ACCEPTED = Receipt(
    (Verdict(Recipient("bob@example.org"), Outcome.ACCEPTED, Reply(250, (b"2.0.0 Ok\x1b[2J",))),)
)


@pytest.fixture
async def processor(tmp_path):
    async with DirectorySpool(tmp_path / "spool", create=True) as spool, SMTPClient("localhost") as client:
        yield QueueProcessor(spool, client)


EVENTS = (
    events.JobSent(id="a", receipt=ACCEPTED),
    events.JobSent(id="a2", receipt=Receipt(())),
    events.JobDeferred(id="b", receipt=ACCEPTED, not_before=1.9e9, reason="450\tlater\n"),
    events.JobFailed(id="c", receipt=None, reason="poison"),
    events.JobQueued(id="d", recovered=True),
    events.QueuePaused(error=NotSent("nobody is there"), until=1.9e9 + 60),
    events.QueueResumed(),
)


async def noted(processor, *, sent):
    notes = Notes(processor, sent=sent)
    for event in EVENTS:
        await processor._tell(event)
    return notes


async def test_a_line_for_each_event(processor):
    notes = await noted(processor, sent=True)
    assert [*map(str, notes.take())] == [
        "sent\ta\t-\t250 2.0.0 Ok\\x1b[2J",
        "sent\ta2\t-\t-",
        "deferred\tb\t2030-03-17T17:46:40Z\t450\\tlater\\n",
        "failed\tc\t-\tpoison",
        "recovered\td\t-\t-",
        "paused\t-\t2030-03-17T17:47:40Z\tnobody is there",
        "resumed\t-\t-\t-",
    ]
    assert notes.take() == []


async def test_what_was_sent_is_not_noted_if_nobody_wants_to_know(processor):
    notes = await noted(processor, sent=False)
    assert [one.word for one in notes.take()] == ["deferred", "failed", "recovered", "paused", "resumed"]


async def test_what_is_deferred_waits_until_it_is_due(processor):
    notes = await noted(processor, sent=False)
    assert (notes.waiting(1.9e9 - 1), notes.waiting(1.9e9), notes.waiting(0.0)) == (1, 0, 0)


def test_the_rate_is_that_of_the_last_seconds():
    rate = Rate()
    assert rate.add(0.0, 0) == 0.0
    assert rate.add(2.0, 100) == 50.0
    assert rate.add(20.0, 100) == pytest.approx(0.0)
    assert rate.add(21.0, 110) == pytest.approx(10 / 19)
    assert rate.add(32.0, 120) == pytest.approx(10 / 11)


@pytest.mark.parametrize(
    ("picture", "seconds"),
    [
        (Picture(ProcessorStatistics(), 100, 4.0), 25.0),
        (Picture(ProcessorStatistics(), 0, 4.0), None),
        (Picture(ProcessorStatistics(), 100, 0.0), None),
        (Picture(ProcessorStatistics(paused_until=1.0), 100, 4.0), None),
    ],
)
def test_how_long_it_takes(picture, seconds):
    assert picture.seconds_left == seconds


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (61.4, "0:01:01"), (100 * 3600, "100:00:00")])
def test_a_clock(seconds, text):
    assert clock_of(seconds) == text


def test_plain_lines_have_no_control_characters(capsys):
    face = PlainFace(Screen())
    face.tell([Note("failed", "a", None, "x\x1b[2J\r"), Note("resumed")])
    face.tell([])
    face.draw(Picture(ProcessorStatistics(), 1, 1.0))
    face.close()
    assert capsys.readouterr().out == "failed\ta\t-\tx\\x1b[2J\\r\nresumed\t-\t-\t-\n"


def wide(screen):
    screen.out = Console(force_terminal=True, width=120, color_system=None, markup=False, highlight=False)
    return screen


def test_a_live_picture(capsys):
    face = LiveFace(wide(Screen()), now=lambda: 100.0)
    counts = ProcessorStatistics(sending=12, sent=1200, deferred=3, failed=1)
    face.tell(
        [Note("failed", "job7", None, "550 [b]no[/b]"), Note("recovered", "job8"), Note("deferred", "job9")]
    )
    face.draw(Picture(counts, 796, 398.0))
    face._live.refresh()
    face.draw(Picture(ProcessorStatistics(paused_until=107.0, problem="dead\x1b"), 5, 0.0))
    face.close()
    shown = capsys.readouterr().out
    assert "✗ job7 failed: 550 [b]no[/b]" in shown and "job8 was left by a worker" in shown
    assert "Sending" in shown and "1,204 of 2,000" in shown
    assert "398.0/s · 12 in flight · 1,200 sent · 3 deferred · 1 failed · ETA 0:00:02" in shown
    assert "Paused" in shown and "Again in 7 s: dead\\x1b" in shown and "ETA -:--:--" in shown
    assert "job9" not in shown
