"""Stands for the pool: gives a connection its jobs, and keeps what it is told."""

from typing import Any

from smtp_async import Outcome, Receipt
from smtp_async.connection.send_job import SendJob
from smtp_async.errors import SMTPError


class Recorder:
    """An owner of connections.

    Attributes:
        waiting: jobs to be taken, in order.
        told: the names of what a connection told, in order; idle is told often and left out.
        done: number and outcome of each job that has ended.
        unsent: the numbers of jobs to be tried again.
        idle_count: how often a connection said that it has no job.
    """

    def __init__(self) -> None:
        self.waiting: list[SendJob] = []
        self.told: list[str] = []
        self.done: list[tuple[int, Outcome]] = []
        self.unsent: list[int] = []
        self.errors: list[SMTPError | None] = []
        self.idle_count = 0

    def connection_opened(self, connection: Any) -> None:
        self.told.append("opened")

    def next_job(self, connection: Any) -> SendJob | None:
        return self.waiting.pop(0) if self.waiting else None

    def connection_idle(self, connection: Any) -> None:
        self.idle_count += 1

    def transaction_ended(self, job: SendJob, receipt: Receipt) -> None:
        self.done.append((job.number, receipt.outcome))
        job.settle(receipt)

    def retry_unsent(self, job: SendJob, receipt: Receipt) -> None:
        self.unsent.append(job.number)

    def cancel(self, job: SendJob) -> bool:
        job.abandoned = True
        return job.connection is not None and job.connection.cancel(job)

    def connection_failed(self, connection: Any, error: SMTPError) -> None:
        self.told.append("failed")
        self.errors.append(error)

    def offer_changed(self, connection: Any) -> None:
        self.told.append("greeted again")

    def connection_closed(self, connection: Any, error: SMTPError | None) -> None:
        self.told.append("ended")
        self.errors.append(error)
