"""Every system call of the spool fails once, in every way: nothing is lost or sent twice, and mail flows again."""

import asyncio
import errno
import os
import resource
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, cast

import pytest

from smtp_async import SMTPClient
from smtp_async.errors import SpoolError, SpoolFull
from smtp_async.events import Event, JobFailed, JobSent, QueuePaused, QueueResumed
from smtp_async.processor import ProcessorOptions, QueueProcessor
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import FULL
from smtp_async.spool.entry import State
from tests.lab import client_of, sampled
from tests.spool.directory.made import Made
from tests.torture import letters
from tests.torture.children import BRISK, Spec
from tests.torture.directories import quick_directory
from tests.torture.faults import ERRORS, SHORT, Call, FailingFiles
from tests.torture.ledger import Log, entries
from tests.torture.recorder import Recorder
from tests.torture.template import Template

# A spool, a server and a processor for each call that fails.
pytestmark = pytest.mark.timeout(90)

#: A plain one, one with a key, one that is deferred for one of two, a large one that is deferred, one that is refused.
NUMBERS = (0, 1, 4, 5, 6)
NEXT = 10
#: The steps that write octets.
WRITING = {"E2", "D1", "S3", "S4"}
PATIENCE = 10.0

Failing = Callable[[Call], int | None]


@pytest.fixture
def quick() -> Iterator[Path]:
    with quick_directory() as path:
        yield path


class Hurried(FailingFiles):
    """System calls that may fail, with clocks on which a millisecond is a second: all pauses of the spool are short."""

    started = time.time(), time.monotonic()

    def time(self) -> float:
        began, _ = self.started
        return began + 1000 * (super().time() - began)

    def monotonic(self) -> float:
        _, began = self.started
        return began + 1000 * (super().monotonic() - began)


class HalfWritten(Hurried):
    """Of the calls, only those that write octets may fail.

    They are counted by themselves: how many other calls of their step come before depends on which threads share one.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writes: Counter[str] = Counter()
        self._counting_writes = Lock()

    def meet(self, here: Call, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        if function is not os.write:
            return function(*args, **named)
        with self._counting_writes:
            self.writes[here.step] += 1
            here = Call(here.step, self.writes[here.step])
        return super().meet(here, function, *args, **named)


class Office:
    """A spool whose disk fails, a client and a server, with a record of what happened.

    Attributes:
        events: the events of the processor.
        tries: number → how often the message had to be put.
    """

    def __init__(self, path: Path, recorder: Recorder, client: SMTPClient) -> None:
        self.path = path
        self.recorder = recorder
        self._client = client
        self.events: list[Event] = []
        self.tries: Counter[int] = Counter()
        self._changed = asyncio.Event()

    async def open(self, failing: Failing, kind: type[Hurried] = Hurried) -> None:
        """Create the spool, repeatedly if that fails."""
        for _ in range(30):
            with suppress(SpoolError):
                made = Made(partial(kind, failing=failing))
                self.spool = DirectorySpool(self.path, create=True, low_water=0, poll=0.01, syscalls=made)
                break
        self.files = made.calls
        self.processor = QueueProcessor(
            self.spool,
            self._client,
            concurrency=4,
            retry=BRISK,
            options=ProcessorOptions(poll=0.01, heartbeat=0.05),
        )
        for event in (JobSent, JobFailed, QueuePaused, QueueResumed):
            self.processor.on(event, self._note)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until events make the condition true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_empty(self) -> None:
        """Wait until every message was delivered."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(SpoolError):
                    left = await self.spool.statistics()
                    if not left.queued + left.sending:
                        return
                await asyncio.sleep(0.001)

    async def put(self, number: int) -> None:
        """Put a message, repeatedly if that fails."""
        while True:
            self.tries[number] += 1
            try:
                await self.spool.put(
                    letters.body(number),
                    sender=letters.SENDER,
                    recipients=letters.recipients(number),
                    key=letters.key(number),
                )
                return
            except SpoolError:
                assert self.files.failed

    def count(self, *kinds: type[Event]) -> int:
        """Return the number of events of a type."""
        return sum(isinstance(event, kinds) for event in self.events)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run the processor."""
        running = asyncio.create_task(self.processor.run())
        try:
            yield
        finally:
            self.processor.stop()
            await running

    def wrong(self, *, put_twice: bool = False) -> list[str]:
        """Return the broken promises, in words."""
        found = []
        jobs = entries(self.path)
        for number in self.tries:
            for place, fate in enumerate(letters.fates(number)):
                copies = self.recorder.copies[number, place]
                most = self.tries[number] if put_twice and letters.key(number) is None else 1
                if (
                    not (0 if fate == letters.NEVER else 1)
                    <= copies
                    <= (0 if fate == letters.NEVER else most)
                ):
                    found.append(f"{number} to {fate}: {copies} copies")
        failed = sum(letters.NEVER in letters.fates(number) for number in self.tries)
        if len(jobs) < failed or any(entry.state is not State.FAILED for entry in jobs.values()):
            found.append(f"left: {[(entry.id, entry.state) for entry in jobs.values()]}")
        found += [f"{number} arrived changed" for number in self.recorder.spoilt]
        return found


async def deliver(
    path: Path, failing: Failing, *, put_twice: bool = False, kind: type[Hurried] = Hurried
) -> Office:
    """Put and deliver the messages while calls fail."""
    async with Recorder() as recorder, client_of(recorder) as client:
        office = Office(path, recorder, client)
        await office.open(failing, kind)
        for number in NUMBERS:
            await office.put(number)
        async with office.working():
            await office.until(lambda: office.count(JobSent, JobFailed) >= len(NUMBERS))
            if office.count(QueuePaused):
                # The next message proves that mail flows again.
                await office.put(NEXT)
                await office.until(lambda: isinstance(last_of(office), QueueResumed))
            await office.until_empty()
        await office.spool.close()
        assert office.wrong(put_twice=put_twice) == [], office.files.failed
    return office


def last_of(office: Office) -> Event | None:
    """Return the last event about pausing or resuming."""
    told = [event for event in office.events if isinstance(event, QueuePaused | QueueResumed)]
    return told[-1] if told else None


def once(call: Call, error: int) -> Failing:
    """One call fails and none after it, although a spool that is created again counts its calls from 0."""
    left = 1

    def failing(here: Call) -> int | None:
        nonlocal left
        if here != call or not left:
            return None
        left -= 1
        return error

    return failing


async def some_at_once(rounds: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all of them, four at once, because they mostly wait."""
    waiting = iter(rounds)

    async def one_after_the_other() -> None:
        for one in waiting:
            await one

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one_after_the_other())


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
async def test_each_call_fails_once(quick: Path, error: int) -> None:
    watched = await deliver(quick / "watched", lambda call: None)
    calls = watched.files.calls()
    assert {call.step for call in calls} >= {*"E1 E2 E3 E4 E5 E6 E7 E8 C1 C2 C3 C4 C5 D1 S1 S2 S3 S4".split()}
    failed: Counter[str] = Counter()

    async def fail(number: int, call: Call) -> None:
        office = await deliver(quick / str(number), once(call, error))
        failed.update(one.step for one in office.files.failed)
        # A job with a key ends even if there is no room for its key.
        pausing = {"D1", "S3", "S4"} if error in FULL else {"D1", "S1", "S3", "S4"}
        if call in office.files.failed and call.step in pausing:
            assert office.count(QueuePaused), f"{call} failed, and mail went on as if nothing were"

    first = {call.step: call for call in reversed(calls)}.values()
    chosen = dict.fromkeys([*first, *sampled(calls, 7)])
    await some_at_once(fail(number, call) for number, call in enumerate(chosen))
    assert {*failed} >= {"E2", "C5", "D1", "S1", "S2", "S3", "S4"}


async def test_each_write_is_short_once(quick: Path) -> None:
    failed: Counter[str] = Counter()

    async def fail(number: int, call: Call) -> None:
        office = await deliver(quick / str(number), once(call, SHORT), kind=HalfWritten)
        failed.update(one.step for one in office.files.failed)

    watched = await deliver(quick / "watched", lambda call: None, kind=HalfWritten)
    writes = cast(HalfWritten, watched.files).writes
    assert {*writes} == WRITING
    calls = (Call(step, number) for step, count in writes.items() for number in range(1, count + 1))
    await some_at_once(fail(number, call) for number, call in enumerate(calls))
    assert {*failed} == WRITING


@pytest.mark.parametrize("length", [3, 20])
async def test_a_disk_may_fail_for_a_while(quick: Path, length: int) -> None:
    """Every call fails from one on. Withdrawing a `put` fails, too, so a refused message may be stored."""
    watched = await deliver(quick / "watched", lambda call: None)
    total = sum(watched.files.counts.values())

    async def fail(first: int) -> None:
        seen = 0

        def failing(call: Call) -> int | None:
            nonlocal seen
            seen += 1
            return errno.EIO if first < seen <= first + length else None

        await deliver(quick / str(first), failing, put_twice=True)

    await some_at_once(fail(first) for first in sampled(range(0, total, 3), 4))


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize(("steps", "accepted"), [(("D1",), 0), (("S1", "S2", "S3", "S4"), 4)], ids=["D", "S"])
async def test_nothing_is_sent_while_results_cannot_be_recorded(
    quick: Path, error: int, steps: tuple[str, ...], accepted: int
) -> None:
    """Four jobs are sent at once, so up to four may have been accepted when the first finds the disk dead."""
    broken = True
    async with Recorder() as recorder, client_of(recorder) as client:
        office = Office(quick / "spool", recorder, client)
        await office.open(lambda call: error if broken and call.step in steps else None)
        for number in range(0, 200, 10):
            await office.put(number)
        async with office.working():
            await office.until(lambda: office.count(QueuePaused) > 0)
            tries = len(office.files.failed)
            async with asyncio.timeout(PATIENCE):
                # The spool goes on trying to record the ends.
                while len(office.files.failed) < tries + 20:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert recorder.accepted <= accepted
            broken = False
            await office.until(lambda: office.count(JobSent) == 20)
            assert isinstance(last_of(office), QueueResumed)
        await office.spool.close()
        assert office.wrong() == []


# --- real disks ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system of 1 MiB")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", path], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system of 1 MiB cannot be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


async def test_a_completely_full_disk(small_disk: Path) -> None:
    async with Recorder() as recorder, client_of(recorder) as client:
        office = Office(small_disk / "spool", recorder, client)
        await office.open(lambda call: None)
        number = 0
        with pytest.raises(SpoolFull):
            while True:
                await office.spool.put(
                    letters.body(number), sender=letters.SENDER, recipients=letters.recipients(number)
                )
                office.tries[number] += 1
                number += 1
        assert number > 20
        assert not list((small_disk / "spool" / "tmp").iterdir())
        # Another program fills the disk: records fit into the room that is reserved for each job.
        with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(512))
        status = os.statvfs(small_disk)
        assert status.f_bavail == 0
        async with office.working():
            await office.until(lambda: office.count(JobSent, JobFailed) == number)
        assert office.count(QueuePaused) == 0
        await office.put(number)
        async with office.working():
            await office.until(lambda: office.count(JobSent, JobFailed) == number + 1)
        await office.spool.close()
        assert office.wrong() == []


async def test_a_disk_below_the_low_water_mark_takes_no_more_messages(small_disk: Path) -> None:
    async with DirectorySpool(small_disk / "spool", create=True) as spool:
        with pytest.raises(SpoolFull, match="keeps .* free"):
            await spool.put(letters.body(0), sender=letters.SENDER, recipients=letters.recipients(0))


async def test_a_file_at_its_size_limit_loses_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: a message that is too large is refused, and the others go on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert (soft, hard) == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    numbers = (0, 5, 1)
    assert len(letters.body(5)) > 32768
    async with Template() as template, Recorder() as recorder:
        spec = Spec("produce", str(directory), str(tmp_path / "log"), port=recorder.port, fsize=32768)
        assert await template.run(spec._replace(numbers=numbers)) == 0
        log = Log(tmp_path / "log", set())
        assert (set(log.acknowledged), log.full) == ({0, 1}, [5])
        assert not list((directory / "tmp").iterdir())
        assert await template.run(spec._replace(role="work")) == 0
        assert recorder.copies == {(0, 0): 1, (1, 0): 1}
    assert entries(directory) == {}
