"""What the tests of the processor share: a manual clock, a fake client with set answers, a spool with set failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from smtp_async import ClientOptions, Outcome, Receipt, Recipient, Reply, SMTPError, Verdict
from smtp_async.errors import (
    ConnectionLost,
    MessageRefused,
    NotSent,
    OutcomeUnknown,
    RecipientsRefused,
    SocketError,
)
from smtp_async.model.content import Mail
from smtp_async.processor import ProcessorOptions, QueueProcessor, RetryPolicy
from smtp_async.spool.contract import Spool
from smtp_async.spool.entry import Entry, State
from smtp_async.testing.memory import MemoryLease, MemorySpool
from tests.lab import mail

#: Waits and pauses of full length.
STEADY = RetryPolicy(jitter=False)
#: Pauses that no test notices.
BRISK = RetryPolicy(jitter=False, pause=0.001, longest_pause=0.001)


class ManualClock:
    """A clock that tests move by hand. It begins a second after now, so that messages put before are due."""

    def __init__(self) -> None:
        self.now = time.time() + 1.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


def reply(text: str) -> Reply:
    return Reply(int(text[:3]), (text[4:].encode(),))


def receipt(recipients: Any, *answers: str | Outcome, error: SMTPError | None = None) -> Receipt:
    """A receipt with a reply, or an outcome without one, for each recipient; the last one holds for the rest."""
    verdicts = []
    for number, recipient in enumerate(recipients):
        answer = answers[min(number, len(answers) - 1)]
        if isinstance(answer, Outcome):
            verdicts.append(Verdict(recipient, answer))
            continue
        said = reply(answer)
        verdicts.append(Verdict(recipient, Outcome.ACCEPTED if said.positive else Outcome.REFUSED, said))
    blamed = next((one.reply for one in verdicts if one.outcome is Outcome.REFUSED), None)
    return Receipt(tuple(verdicts), blamed or (verdicts[0].reply if verdicts else None), error)


def dead() -> SMTPError:
    return SocketError("cannot connect", errno=111)


#: The answer to a message: replies per recipient, an error, or a function that is called with the mail.
Answer = Any


class FakeClient:
    """A client without connections: each message gets the next answer; the last answer is repeated.

    Attributes:
        tried: the messages that were tried, in order.
        left: the messages whose end of data left.
        gate: cleared, messages wait before their end of data.
        replies: cleared, messages wait for the reply to their end of data.
        waiting, most: messages being sent, now and at most.
    """

    host = "mx.example.org"

    def __init__(self, *answers: Answer, **pool: Any) -> None:
        self.options = ClientOptions(**pool)
        self.answers = list(answers) or ["250 2.0.0 queued as X1"]
        self.tried: list[Mail] = []
        self.left: list[Mail] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.replies = asyncio.Event()
        self.replies.set()
        self.waiting = 0
        self.most = 0

    async def send(self, message: Mail, *, options: Any, deadline: float) -> Receipt:
        self.tried.append(message)
        recipients = message.envelope().recipients
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await self.gate.wait()
            if callable(answer):
                answer = await answer(message)
            if isinstance(answer, BaseException):
                raise answer
            if options.before_end_of_data is not None:
                try:
                    await options.before_end_of_data()
                except Exception as error:
                    raise NotSent("stopped before its end") from error
            self.left.append(message)
            await self.replies.wait()
            found = answer if isinstance(answer, Receipt) else self._receipt(recipients, answer)
            if found.error is not None:
                found.raise_for_outcome()
            return found
        except asyncio.CancelledError as cancelled:
            # `SMTPClient` attaches a receipt to the cancellation, too.
            outcome = Outcome.UNKNOWN if message in self.left else Outcome.NOT_SENT
            vars(cancelled)["receipt"] = receipt(recipients, outcome, error=stopped(outcome))
            raise
        finally:
            self.waiting -= 1

    def _receipt(self, recipients: tuple[Recipient, ...], answer: Any) -> Receipt:
        answers = answer if isinstance(answer, tuple) else (answer,)
        if answers == (Outcome.UNKNOWN,):
            return receipt(recipients, Outcome.UNKNOWN, error=lost())
        found = receipt(recipients, *answers)
        if found.accepted:
            return found
        kind = RecipientsRefused if isinstance(answer, tuple) else MessageRefused
        return found._replace(error=kind("refused", reply=found.reply))

    @property
    def recipients(self) -> list[list[str]]:
        """The recipients of each message that was tried."""
        return [[str(one.address) for one in mail.envelope().recipients] for mail in self.tried]


def stopped(outcome: Outcome) -> SMTPError:
    return (OutcomeUnknown if outcome is Outcome.UNKNOWN else NotSent)("the call was cancelled")


def lost() -> SMTPError:
    error = OutcomeUnknown("no reply came")
    error.__cause__ = ConnectionLost("reset")
    return error


class FailingSpool(MemorySpool):
    """A spool whose calls fail as long as they are named in `broken`: mark, settle, defer, fail, release, claim, …

    Attributes:
        clock: returns the time; may be replaced.
        broken: the error that each call raises, by the name of the call.
        calls: the names of all calls so far.
        changes: changes that are not finished.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=lambda: self.clock())
        self.clock = clock
        self.broken: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.changes: set[asyncio.Future[None]] = set()

    async def check(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise self.broken[name]

    async def claim(self, *args: Any, **options: Any) -> Any:
        await self.check("claim")
        return await super().claim(*args, **options)

    async def recover(self) -> Any:
        await self.check("recover")
        return await super().recover()

    async def wait(self, seconds: float) -> bool:
        await self.check("wait")
        return await super().wait(seconds)

    async def put(self, *args: Any, **options: Any) -> str:
        await self.check("put")
        return await super().put(*args, **options)

    async def read(self, id: str) -> bytes:
        await self.check("read")
        return await super().read(id)

    def lend(self, job: Any, *, marked: bool) -> Any:
        entry = super().lend(job, marked=marked).entry
        job.lease = FailingLease(self, job)
        job.lease.entry = entry
        return job.lease


class FailingLease(MemoryLease):
    """A lease whose changes take a turn of the loop, and happen even if the caller is cancelled, as in a real store."""

    async def _change(self, name: str, change: Awaitable[None]) -> None:
        async def happen() -> None:
            try:
                await asyncio.sleep(0)
                await self._spool.check(name)  # type: ignore[attr-defined]
            except BaseException:
                change.close()  # type: ignore[attr-defined]
                raise
            await change

        task = asyncio.ensure_future(happen())
        self._spool.changes.add(task)  # type: ignore[attr-defined]
        task.add_done_callback(self._spool.changes.discard)  # type: ignore[attr-defined]
        await asyncio.shield(task)

    async def extend(self) -> None:
        await self._change("extend", super().extend())

    async def mark_end_of_data(self) -> None:
        await self._change("mark", super().mark_end_of_data())

    async def settle(self, *args: Any, **options: Any) -> None:
        await self._change("settle", super().settle(*args, **options))

    async def defer(self, *args: Any, **options: Any) -> None:
        await self._change("defer", super().defer(*args, **options))

    async def fail(self, *args: Any, **options: Any) -> None:
        await self._change("fail", super().fail(*args, **options))

    async def release(self) -> None:
        await self._change("release", super().release())


async def entries(spool: MemorySpool, state: State | None = None) -> list[Entry]:
    return [entry async for entry in spool.list(state)]


async def filled(spool: MemorySpool, count: int = 1, **fields: Any) -> list[str]:
    """Put messages; return their ids."""
    return [await spool.put(mail(number, **fields)) for number in range(count)]


class RecordingProcessor(QueueProcessor):
    """A processor that records the calls of `stop`.

    Attributes:
        stops: the grace of each call.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stops: list[float | None] = []

    def stop(self, *, grace: float | None = None) -> None:
        self.stops.append(grace)
        super().stop(grace=grace)


def processor(spool: Spool, client: Any, **options: Any) -> RecordingProcessor:
    """Return a processor; arguments of the constructor and fields of `ProcessorOptions` alike are `options`."""
    arguments = {
        name: options.pop(name) for name in ("routes", "concurrency", "retry", "keep_sent") if name in options
    }
    arguments.setdefault("retry", STEADY)
    options.setdefault("poll", 0.02)
    options.setdefault("clock", getattr(spool, "clock", time.time))
    # Pauses are measured by the same clock, so that a test moves one for both.
    options.setdefault("monotonic", options["clock"])
    return RecordingProcessor(spool, client, options=ProcessorOptions(**options), **arguments)


async def kill_worker(spool: FailingSpool, *, flagged: bool) -> None:
    """Claim a job as a worker that dies, after its end of data if `flagged`."""
    (lease,) = await spool.claim(1, now=spool.clock() + 1)
    if flagged:
        await lease.mark_end_of_data()
    spool.abandon(lease)
