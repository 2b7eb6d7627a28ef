"""Claim, end of data, and the end of a lease: steps C, D and S (see `job_files`)."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from threading import BoundedSemaphore, Lock
from typing import Final

from ...errors import Busy, LeaseLost, RecordNewer, SMTPError, SpoolError
from ..entry import State
from ..record import line
from .due_queue import directory_of
from .job_files import HELD, KEYS, Held, Shelf, Slow, changed_by_burying
from .syscalls import translated

__all__ = ["Delivery", "End"]

#: Seconds after which a job whose file could not be read, or an end that could not be noted, is tried again.
AGAIN: Final = 30.0
#: The same for a file that somebody else has locked.
MOMENT: Final = 1.0
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Removed files that may wait to be closed, and threads that close them.
REMOVED: Final = 64
CLOSERS: Final = 4

_log = logging.getLogger("smtp_async")


class End:
    """How a lease is to end, and which steps of that are done.

    Attributes:
        held: the job.
        state: where it goes; None removes it.
        record: what is appended first, if anything.
        needless: the record may be lost: what it says can be told from the name.
        when: when the job is due again, if it is queued again.
        done: all steps are.
        failed: one of them failed, the last time.
    """

    __slots__ = ("done", "failed", "held", "moved", "needless", "record", "state", "when")

    def __init__(
        self,
        held: Held,
        state: State | None,
        record: bytes | None = None,
        *,
        when: float | None = None,
        needless: bool = False,
    ) -> None:
        self.held = held
        self.state = state
        self.record = record
        self.when = when
        self.needless = needless
        self.moved = False
        self.done = False
        self.failed = False

    @property
    def directories(self) -> list[str]:
        """The directories in which names change, in the order in which they are to be synced."""
        return changed_by_burying(self.held) if self.state is None else [directory_of(self.held.path)]

    @property
    def step(self) -> str:
        """The name of its steps but for those that take a name away."""
        return "S4" if self.state is State.FAILED else "S3"


class Delivery:
    """Hand out the jobs of a spool directory, and note what became of them. Used by several threads.

    Args:
        shelf: its files.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._files = shelf.files
        self._lineup = shelf.lineup
        self._lock = Lock()
        self._finishing = Lock()
        # What is handed out, and how it is to end once that is known.
        self._out: dict[Held, End | None] = {}
        # Ends that could not be noted: their jobs stay locked, so nobody sends them again.
        self._unfinished: list[End] = []
        self._pause = FIRST_PAUSE
        self._retry_at = 0.0
        # Files of jobs that are gone need only be closed; those that remember a key are emptied before.
        self._removed: list[tuple[int, bool]] = []
        self._closers = BoundedSemaphore(CLOSERS)

    @property
    def durable(self) -> bool:
        """Do marks and ends wait until the disk has them?"""
        return self._files.durable

    def claim(self, n: int, now: float, *, marked: bool, at_once: bool = False) -> list[Held]:
        """Take up to `n` jobs that are due; `at_once` only those before one that would take its time, none at worst."""
        if at_once and self._unfinished:
            # They may have to wait for the lock of another process.
            return []
        self.finish()
        taken: list[Held] = []
        due: list[tuple[float, str]] = []
        try:
            while len(taken) < n:
                due = self._lineup.take(now, n - len(taken), look=not at_once)
                if not due or not self._take_all(due, now, taken, at_once=at_once):
                    break
            if marked:
                for error in self.mark(taken):
                    if error is not None:
                        raise error
        except BaseException as error:
            if not taken or not isinstance(error, SpoolError) or marked:
                self.unclaim(taken)
                raise
            # The others are well; if it is not only this one, the next claim will tell.
        finally:
            # They keep their turn.
            for when, path in due:
                self._lineup.push(when, path)
        return taken

    def _take_all(
        self, due: list[tuple[float, str]], now: float, taken: list[Held], *, at_once: bool
    ) -> bool:
        """Take what can be taken, and tell whether that is all; those stay in `due` that were not tried."""
        due.reverse()
        while due:
            when, path = due.pop()
            try:
                held = self._take(path, now, at_once=at_once)
            except Slow:
                due.append((when, path))
                return False
            except SpoolError:
                # Not this one now; and it must not keep the others from being tried.
                self._lineup.push(now + AGAIN, path)
                raise
            if held is not None:
                taken.append(held)
        return True

    def unclaim(self, taken: list[Held]) -> bool:
        """Give back what nobody will use."""
        self.end([self.untouched(held) for held in taken])
        return True

    def _take(self, path: str, now: float, *, at_once: bool) -> Held | None:
        try:
            held = self._shelf.grasp("C", path, State.QUEUED, at_once=at_once)
            if held is None:
                return None
            try:
                if at_once and held.job.entry.key is not None:
                    # Its name is changed under a lock, which another process may have.
                    raise Slow
                if not self._due(held, now):
                    self._files.close("C4", held.fd)
                    return None
                self._shelf.rename("C5", held, State.SENDING)
                self._out[held] = None
            except BaseException:
                os.close(held.fd)
                raise
        except (FileNotFoundError, RecordNewer):
            return None
        except Busy:
            # Somebody is about to send or to change it.
            self._lineup.push(now + MOMENT, path)
            return None
        except OSError as error:
            raise translated(error, f"the job {path} cannot be claimed") from error
        return held

    def _due(self, held: Held, now: float) -> bool:
        """Tell whether the journal wants the job to be tried now, and mend what its name or time tells otherwise."""
        entry, ended = held.job.entry, held.job.ended
        if ended is State.FAILED or ended is State.SENT:
            # Its end was written, and a power failure took the new name.
            self._shelf.rename("C5", held, ended)
            return False
        when = HELD if entry.held else entry.due(time.time())
        if when > now:
            self._files.due_at("C4", held.name, when)
            self._lineup.push(when, held.path)
            return False
        return True

    def note(self, news: list[Held | End]) -> list[SMTPError | None]:
        """Mark each job, and do each end; tell what failed. What is waited for is waited for together."""
        # Where the system frees them more slowly than they come, it is waited for here.
        self._close_removed(REMOVED)
        marks = {one: self._noted(one, self._write_mark) for one in news if isinstance(one, Held)}
        written = [held for held, error in marks.items() if error is None]
        if len(news) > 1:
            for held in written:
                marks[held] = self._noted(held, self._begin_sync_mark)
        ends = [one for one in news if isinstance(one, End)]
        ended = dict(zip(ends, self.end(ends), strict=True))
        for held in written:
            if marks[held] is None:
                marks[held] = self._noted(held, self._sync_mark)
        return [ended[one] if isinstance(one, End) else marks[one] for one in news]

    def mark(self, helds: list[Held]) -> list[SMTPError | None]:
        """Mark jobs only."""
        return self.note([*helds])

    def _write_mark(self, held: Held) -> None:
        """D1: note that the end of data is about to leave."""
        if held.marked:
            return
        held.tainted = True
        places = [
            place for place, result in enumerate(held.job.entry.results) if result is None or not result.final
        ]
        record = line(r="eod", n=held.job.token, at=time.time(), rcpts=places)
        self._files.write("D1", held.fd, record)

    def _begin_sync_mark(self, held: Held) -> None:
        if not held.marked:
            self._files.begin_sync(held.fd)

    def _sync_mark(self, held: Held) -> None:
        if not held.marked:
            self._files.sync("D1", held.fd)
            held.marked = True

    def _noted(self, held: Held, step: Callable[[Held], None]) -> SpoolError | None:
        try:
            step(held)
        except OSError as error:
            return translated(error, f"the end of data of the job {held.path} cannot be noted")
        return None

    def untouched(self, held: Held) -> End:
        """Return the end that gives a job back as it was."""
        record = None
        if held.tainted:
            record = line(r="untouched", n=held.job.token, at=time.time())
        return End(held, State.QUEUED, record)

    def end(self, ends: list[End]) -> list[SMTPError | None]:
        """Do what is left of each, and tell what failed. What fails stays locked, to be tried again."""
        # Who repeats an end may do so twice at once.
        one_by_one = dict.fromkeys(ends)
        errors: dict[End, SMTPError] = {}
        with self._finishing if any(end.failed for end in one_by_one) else nullcontext():
            unmoved = [end for end in one_by_one if not end.moved]
            hints = (self._hint,) if len(unmoved) > 1 else ()
            for step in (self._begin, *hints, self._move):
                for end in unmoved:
                    if end not in errors and (error := self._failed(end, step)) is not None:
                        errors[end] = error
            moved = [end for end in one_by_one if end.moved and not end.done]
            directories = dict.fromkeys(
                sorted(itertools.chain(*[end.directories for end in moved]), key=_keys_first)
            )
            unsynced = {name: error for name in directories if (error := self._unsynced(name)) is not None}
            for end in one_by_one:
                if end in errors or end.done:
                    continue
                failed = [unsynced[name] for name in end.directories if name in unsynced]
                if failed:
                    errors[end] = failed[0]
                else:
                    self._let_go(end)
        if self._unfinished or errors:
            self._remember([end for end in one_by_one if not end.done])
        return [errors.get(end) for end in ends]

    def _failed(self, end: End, step: Callable[[End], None]) -> SMTPError | None:
        """Take a step; return why it failed."""
        try:
            step(end)
        except LeaseLost as error:
            end.done = True
            return error
        except OSError as error:
            return translated(error, f"the end of the job {end.held.path} cannot be noted")
        return None

    def _decided(self, end: End) -> bool:
        """Tell whether a lease ends like this: the first end that comes is the one, and none when it was given up."""
        with self._lock:
            if self._out.get(end.held, end) is None:
                self._out[end.held] = end
            return self._out.get(end.held) is end

    def _unsynced(self, directory: str) -> SpoolError | None:
        try:
            self._shelf.sync_names("S2", directory)
        except OSError as error:
            return translated(error, "the end of a job cannot be made durable")
        return None

    def _remember(self, failed: list[End]) -> None:
        with self._lock:
            self._unfinished = [end for end in self._unfinished if not end.done]
            for end in failed:
                end.failed = True
                if end not in self._unfinished:
                    self._unfinished.append(end)
                    _log.error("the end of the job %s cannot be noted yet", end.held.path)

    def close(self) -> None:
        """Give back what is handed out, and let go of all files."""
        with suppress(SpoolError):
            self.finish()
        # Nobody says that it is untouched: what is marked may have been sent, and stays so.
        self.end([End(held, State.QUEUED) for held, end in list(self._out.items()) if end is None])
        self.forked()

    def forked(self) -> None:
        """Close all files, whatever they are."""
        for held in list(self._out):
            self.forget(held)
        self._close_removed(0)

    def close_removed(self) -> None:
        """S5 for jobs that are removed: the system frees their room now, which takes its time and holds up nobody."""
        while self._removed and self._closers.acquire(blocking=False):
            self._close_removed(0)
            self._closers.release()

    def _close_removed(self, left: int) -> None:
        while len(self._removed) > left:
            with suppress(IndexError):
                fd, keyed = self._removed.pop()
                if keyed:
                    with suppress(OSError):
                        # Recovery does it where this fails.
                        self._files.empty("S5", fd)
                with suppress(OSError):
                    self._files.close("S5", fd)

    def forget(self, held: Held) -> None:
        """Close the file of a job, as the system does for a process that dies."""
        fd, held.fd = held.fd, -1
        self._out.pop(held, None)
        with suppress(OSError):
            os.close(fd)

    def finish(self) -> None:
        """Try again to note the ends that could not be; nothing is handed out before they are.

        To send on while it cannot be noted what was sent would be to send it again after a crash.
        """
        with self._lock:
            unfinished = [end for end in self._unfinished if not end.done]
        if not unfinished:
            return
        if time.monotonic() < self._retry_at:
            raise SpoolError("what became of the messages before cannot be noted; it is tried again soon")
        errors = [error for error in self.end(unfinished) if error is not None]
        self.close_removed()
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if errors else FIRST_PAUSE
        if errors:
            self._retry_at = time.monotonic() + self._pause
            raise errors[0]

    def _begin(self, end: End) -> None:
        """S3 and S4: append what became of it."""
        if not self._decided(end):
            raise LeaseLost(f"the lease of the job {end.held.path} has ended")
        if end.record is not None:
            try:
                self._files.write(end.step, end.held.fd, end.record)
            except OSError:
                if not end.needless:
                    raise

    def _hint(self, end: End) -> None:
        """H1."""
        if end.record is not None and not end.needless:
            self._files.begin_sync(end.held.fd)

    def _move(self, end: End) -> None:
        """The rest of S1, S3 and S4, up to the name."""
        held, step = end.held, end.step
        if end.record is not None and not end.needless:
            self._files.sync(step, held.fd)
        end.record = None
        if end.when is not None and end.state is State.QUEUED:
            self._files.due_at(step, held.name, end.when)
        if end.state is None:
            self._shelf.bury("S1", held)
        else:
            self._shelf.rename("S1" if end.state is State.SENT else step, held, end.state)
        end.moved = True

    def _let_go(self, end: End) -> None:
        with self._lock:
            if end.done:
                return
            end.done = True
            fd, end.held.fd = end.held.fd, -1
            self._out.pop(end.held, None)
        if end.state is None:
            self._removed.append((fd, end.held.job.entry.key is not None))
            return
        with suppress(OSError):
            # Nothing was written that is not synced.
            self._files.close("S5", fd)
        if end.state is State.QUEUED:
            entry = end.held.job.entry
            self._lineup.push(entry.not_before if end.when is None else end.when, end.held.path)


def _keys_first(directory: str) -> bool:
    return directory != KEYS
