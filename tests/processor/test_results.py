"""The values that say how jobs end."""

import pytest

from smtp_async import QueueReport, Recipient
from smtp_async.processor import Unfinished
from smtp_async.processor.results import Fate, JobResult, RecipientResult

ONE = Unfinished("a", "450 later", 1.0)


@pytest.mark.parametrize(
    ("report", "true"),
    [
        (QueueReport(), True),
        (QueueReport(sent=("a",)), True),
        (QueueReport(deferred=(ONE,)), False),
        (QueueReport(failed=(ONE,)), False),
        (QueueReport(error=ValueError()), False),
        (QueueReport(sent=("a",), unreadable=(ONE,)), False),
    ],
)
def test_a_report_is_true_if_everything_was_sent_and_read(report: QueueReport, true: bool) -> None:
    assert bool(report) is true


def test_a_report_counts_the_jobs_that_had_their_turn() -> None:
    assert QueueReport(sent=("a", "b"), deferred=(ONE,), failed=(ONE,), unreadable=(ONE,)).tried == 4


def test_a_job_result_groups_recipients_by_fate() -> None:
    ann, bob, cid = (
        RecipientResult(Recipient(f"{name}@example.org"), fate)
        for name, fate in (("ann", Fate.DELIVERED), ("bob", Fate.DEFERRED), ("cid", Fate.FAILED))
    )
    result = JobResult(Fate.DEFERRED, (ann, bob, cid))
    assert (result.delivered, result.deferred, result.failed) == ((ann,), (bob,), (cid,))
