"""What dead workers and half-done work left in a spool directory, put in order: steps R (see `job_files`)."""

from __future__ import annotations

import heapq
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeAlias

from ...errors import Busy, RecordNewer
from ..contract import MAX_KEYS
from ..entry import CLOCK_STEP, POISON, Recovery, State
from ..record import Job, line
from .due_queue import directory_of
from .job_files import KEYS, TMP, Held, Shelf
from .syscalls import translated

__all__ = ["recover"]

#: Seconds after which keys are counted, if few were added; and for which the worker that ended a job is left time to
#: empty what remembers its key.
COUNT_EACH: Final = 600.0
EMPTIED: Final = 60.0
#: Names that are taken away under one lock.
AT_ONCE: Final = 200
#: Seconds after which a file that was never finished is removed: no writer takes a day and a half.
ABANDONED: Final = 36 * 3600.0

_SENDING: Final = f".{State.SENDING.value}"

_log = logging.getLogger("smtp_async")

#: When a job with a key was gone, and the name of the file that remembers that.
_Key: TypeAlias = tuple[float, str]


def recover(shelf: Shelf) -> Recovery:
    """Take back what dead workers held, remove what was never finished.

    Raises:
        SpoolError: the system refused it; what was done is done, and the rest can be done again.
    """
    requeued: list[str] = []
    flagged: list[str] = []
    poisoned: list[str] = []
    try:
        for path in _sending(shelf):
            job = _recovered(shelf, path)
            if job is None:
                continue
            if job.entry.state is State.FAILED:
                poisoned.append(job.entry.id)
                continue
            requeued.append(job.entry.id)
            if job.entry.flagged:
                flagged.append(job.entry.id)
    except OSError as error:
        raise translated(error, "the spool cannot be put in order") from error
    # What fails here must not hide who was recovered.
    with _contained("what is left alone"):
        shelf.forget_gone()
    with _contained(TMP):
        _clean(shelf)
    if shelf.buried > MAX_KEYS // 10 or time.monotonic() - shelf.counted_at > COUNT_EACH:
        with _contained(KEYS):
            _forget_keys(shelf)
    return Recovery(tuple(requeued), tuple(flagged), tuple(poisoned))


def _recovered(shelf: Shelf, path: str) -> Job | None:
    """Take a job back from a dead worker; None if it lives, or had noted how it ended."""
    try:
        held = shelf.grasp("R", path, State.SENDING)
    except (Busy, FileNotFoundError, RecordNewer):
        return None
    except OSError as error:
        _log.error("the job %s cannot be taken back: %s", path, error)
        return None
    if held is None:
        return None
    try:
        return _take_back(shelf, held)
    except OSError as error:
        # It keeps its name, so the next time finds it.
        _log.error("the job %s cannot be taken back: %s", path, error)
        return None
    finally:
        os.close(held.fd)


def _sending(shelf: Shelf) -> Iterator[str]:
    for directory in shelf.lineup.directories():
        prefix = f"{directory}/" if directory else ""
        entries = shelf.files.entries("R0", directory)
        # All of them first, as their names are about to change; and no others, of which there may be very many.
        for name in [entry.name for entry in entries if entry.name.endswith(_SENDING)]:
            yield prefix + name[: -len(_SENDING)]


def _take_back(shelf: Shelf, held: Held) -> Job | None:
    job = held.job
    if job.ended is State.FAILED or job.ended is State.SENT:
        # Its worker had written how it ended, and did not come to give it the new name.
        _give_back(shelf, held, job.ended)
        return None
    shelf.append("R5", held, line(r="recovered", n=job.token, at=time.time()))
    job.entry.state = State.FAILED if job.entry.recoveries + 1 >= POISON else State.QUEUED
    if job.entry.state is State.QUEUED:
        # It was due when it was claimed; unless the worker died in putting it off.
        shelf.files.due_at("R6", held.name, job.entry.due(time.time()))
    else:
        _log.error("the job %s is given up: %d workers have died with it", job.entry.id, POISON)
    _give_back(shelf, held, job.entry.state)
    if job.entry.state is State.QUEUED:
        shelf.lineup.push(job.entry.not_before, held.path)
    return job


def _give_back(shelf: Shelf, held: Held, state: State) -> None:
    shelf.rename("R7", held, state)
    shelf.files.sync_directory("R8", directory_of(held.path))


def _forget_keys(shelf: Shelf) -> None:
    """Forget the keys that are too old, and the oldest where there are too many; mend the others.

    What a dead worker left full is emptied. A time that has not come yet is that of a clock that was ahead: it becomes
    now, lest the key be remembered until then.
    """
    shelf.buried, shelf.counted_at = 0, time.monotonic()
    now = time.time()
    found: list[_Key] = []
    full: set[_Key] = set()
    for name, status in _keys(shelf):
        key = (status.st_mtime, name)
        found.append(key)
        if status.st_size and now - status.st_mtime > EMPTIED:
            full.add(key)
    oldest = now - shelf.key_retention()
    forgotten = [key for key in found if key[0] <= oldest]
    too_many = len(found) - len(forgotten) - MAX_KEYS
    if too_many > 0:
        _log.warning("%d keys are forgotten before their time: the spool remembers %d", too_many, MAX_KEYS)
        forgotten = heapq.nsmallest(len(forgotten) + too_many, found)
    _for_each(shelf, forgotten, lambda key: shelf.files.unlink("F3", key[1]))
    ahead = [key for key in found if key[0] > now + CLOCK_STEP]
    _for_each(shelf, ahead, lambda key: shelf.files.due_at("F5", key[1], now))
    _for_each(shelf, sorted(full.difference(forgotten)), partial(_empty, shelf))


def _for_each(shelf: Shelf, keys: list[_Key], change: Callable[[_Key], None]) -> None:
    """Change what remembers keys, unless it has changed meanwhile."""
    for start in range(0, len(keys), AT_ONCE):
        # What looks for a key, or makes one anew, has the lock.
        with shelf.naming():
            for key in keys[start : start + AT_ONCE]:
                with _contained(key[1]):
                    there = shelf.files.look("F2", key[1])
                    if there is not None and there.st_mtime == key[0]:
                        change(key)


@contextmanager
def _contained(name: str) -> Iterator[None]:
    """Log what the system refuses: the rest goes on, and the next look tries again."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        _log.error("%s in the spool cannot be put in order: %s", name, error)


def _keys(shelf: Shelf) -> Iterator[tuple[str, os.stat_result]]:
    """Go through what remembers keys."""
    for entry in shelf.files.entries("F1", KEYS):
        with _contained(f"{KEYS}/{entry.name}"):
            status = shelf.files.call("F1", entry.stat, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield f"{KEYS}/{entry.name}", status


def _empty(shelf: Shelf, key: _Key) -> None:
    when, name = key
    fd = shelf.files.open("F4", name, write=True)
    try:
        shelf.files.empty("F4", fd)
    finally:
        os.close(fd)
    # It is not younger now.
    shelf.files.due_at("F4", name, when)


def _clean(shelf: Shelf) -> None:
    """Remove what putting left behind: second names of jobs that are queued, and files that nobody finished."""
    now = time.time()
    for entry in shelf.files.entries("T1", TMP):
        with _contained(f"{TMP}/{entry.name}"):
            status = entry.stat(follow_symlinks=False)
            finished = status.st_nlink > 1
            if stat.S_ISREG(status.st_mode) and (finished or now - status.st_ctime > ABANDONED):
                shelf.files.unlink("T2", f"{TMP}/{entry.name}")
