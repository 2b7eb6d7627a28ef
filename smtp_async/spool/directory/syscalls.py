"""The system calls of a spool directory: every one goes through `Files.call`, with the name of its step.

The steps are those of the protocol (see `job_files`): E1 to E8 enqueue, C1 to C5 claim, D1 before the end of data, S1
to S4 the end of a lease, R recovery, O what an operator does, L looking, H a hint. A test that wants to see what
happens when the disk is full at S3, or the process dies before E6, overrides `call`.

Names are relative to the directory, which is held open: it may be renamed, and cannot be exchanged.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...errors import FeatureUnavailable, FileError, SpoolError, SpoolFull, SpoolUnsafe

if TYPE_CHECKING:
    import fcntl
elif sys.platform != "win32":
    import fcntl

__all__ = ["FULL", "Files", "open_directory", "translated"]

T = TypeVar("T")

#: No room, in the words of the system.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _FLAGS
# fallocate(2): take the blocks, leave the length.
_KEEP_SIZE: Final = 1
# sync_file_range(2): begin to write what is not written yet.
_RANGE_WRITE: Final = 2
_NO_RESERVE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
# A sandbox may forbid it, a file system have no pages to write.
_NO_HINT: Final = _NO_RESERVE | {errno.EPERM, errno.ESPIPE}


def translated(error: OSError, message: str) -> SpoolError:
    """Return the error of the library for one of the system; what is one already stays."""
    if isinstance(error, SpoolError):
        return error
    return (SpoolFull if error.errno in FULL else SpoolError).of(error, message)


def open_directory(path: str | os.PathLike[str], *, create: bool) -> int:
    """Open a spool directory, after making sure that nobody else can write to it.

    Raises:
        FeatureUnavailable: this system has no file locks that a spool could rely on.
        FileError: it does not exist, or is not a directory.
        SpoolUnsafe: somebody else owns it or may write to it, or it is a symbolic link.
        SpoolError: the system refused it.
    """
    if sys.platform == "win32" or not hasattr(os, "O_NOFOLLOW"):
        raise FeatureUnavailable(
            "a spool directory needs flock() and the directory calls of POSIX", needs="a POSIX system"
        )
    # Without a slash at its end, or `/.`: those have the system follow a link before it tells what is there.
    where = os.fspath(path) and str(Path(path))
    try:
        if create:
            _make_directory(where)
        link = stat.S_ISLNK(os.lstat(where).st_mode)
        root = -1 if link else os.open(where, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        failed = FileError(f"there is no spool directory {where}")
        failed.errno = error.errno
        raise failed from error
    except OSError as error:
        raise translated(error, f"the spool directory {where} cannot be opened") from error
    if link:
        raise SpoolUnsafe(f"the spool directory {where} is a symbolic link")
    try:
        check_owned(os.fstat(root), where)
    except BaseException:
        os.close(root)
        raise
    return root


def check_owned(status: os.stat_result, where: str) -> None:
    """Refuse a directory that others may write to."""
    if status.st_uid != os.geteuid():
        raise SpoolUnsafe(f"the spool directory {where} belongs to another user ({status.st_uid})")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise SpoolUnsafe(f"others may write to the spool directory {where}: its mode is {mode:o}, not 700")


def _make_directory(where: str) -> None:
    """Make a directory, if it is not there, and make its name durable: whoever made it may not have come to that."""
    made = True
    try:
        os.mkdir(where, 0o700)
    except FileExistsError:
        made = False
    try:
        fd = os.open(Path(where).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _sync_directory(fd)
        finally:
            os.close(fd)
    except OSError:
        # What was there may be in a place that this user cannot read or write: then an administrator made it.
        if made:
            raise


class Files:
    """The system calls, for one directory that is open.

    Args:
        root: the directory.
        durable: wait until what was written is on the disk; without, a power failure may lose it, a crash may not.
    """

    def __init__(self, root: int, *, durable: bool = True) -> None:
        self.root = root
        self.durable = durable
        self._fallocate = _fallocate()
        self._begin_sync = _sync_file_range()

    def call(self, step: str, function: Callable[..., T], /, *args: Any, **named: Any) -> T:
        """Make one system call."""
        return function(*args, **named)

    # --- files -----------------------------------------------------------------------------------------------

    def create(self, step: str, name: str) -> int:
        """Make a file that did not exist, for its owner alone."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | _FLAGS
        return self.call(step, os.open, name, flags, 0o600, dir_fd=self.root)

    def open(self, step: str, name: str, *, write: bool = False) -> int:
        """Open a file, never through a symbolic link, never waiting for another end of a pipe."""
        flags = (os.O_RDWR | os.O_APPEND if write else os.O_RDONLY) | _FLAGS
        return self.call(step, os.open, name, flags, dir_fd=self.root)

    def write(self, step: str, fd: int, data: bytes) -> None:
        """Write all of it: the system may take less than it is given."""
        written = self.call(step, os.write, fd, data)
        if written < len(data):
            view = memoryview(data)
            while written < len(data):
                written += self.call(step, os.write, fd, view[written:])

    def read(self, step: str, fd: int, size: int, offset: int) -> bytes:
        """Read `size` octets, fewer only where the file ends."""
        data = self.call(step, os.pread, fd, size, offset)
        if not data or len(data) == size:
            return data
        pieces, length = [data], len(data)
        while length < size:
            data = self.call(step, os.pread, fd, size - length, offset + length)
            if not data:
                break
            pieces.append(data)
            length += len(data)
        return b"".join(pieces)

    def reserve(self, step: str, fd: int, offset: int, size: int) -> None:
        """Take room behind the end of the file, so that what is appended later will fit; its length stays."""
        if self._fallocate is not None:
            try:
                self.call(step, self._fallocate, fd, offset, size)
            except OSError as error:
                if error.errno not in _NO_RESERVE:
                    raise

    def sync(self, step: str, fd: int) -> None:
        """Wait until the file is on the disk."""
        if self.durable:
            self.call(step, _sync, fd)

    def begin_sync(self, fd: int) -> None:
        """H1: have the system begin to write a file for which `sync` will wait, so that many are written at once.

        A hint only where the system has no such call. An error of writing counts as one of `sync`, which may not hear
        of it again.
        """
        if self.durable and self._begin_sync is not None:
            try:
                self.call("H1", self._begin_sync, fd)
            except OSError as error:
                if error.errno not in _NO_HINT:
                    raise

    def close(self, step: str, fd: int) -> None:
        """Close it. Some file systems tell of a failed write only now."""
        self.call(step, os.close, fd)

    def lock(self, step: str, fd: int) -> bool:
        """Lock it, unless somebody else has."""
        try:
            self.call(step, fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait_lock(self, step: str, fd: int) -> None:
        """Lock it, waiting for whoever has it."""
        self.call(step, fcntl.flock, fd, fcntl.LOCK_EX)

    def status(self, step: str, fd: int) -> os.stat_result:
        """Return what the system knows of an open file."""
        return self.call(step, os.fstat, fd)

    def share(self, step: str, name: str) -> None:
        """Note that more than one caller was told of a file: by the bit that a file of mail has no other use for."""
        fd = self.open(step, name)
        try:
            self.call(step, os.fchmod, fd, 0o700)
        finally:
            os.close(fd)

    def is_shared(self, step: str, fd: int) -> bool:
        """Was that noted?"""
        return bool(self.status(step, fd).st_mode & stat.S_IXUSR)

    def empty(self, step: str, fd: int) -> None:
        """Take away what is in a file."""
        self.call(step, os.ftruncate, fd, 0)

    # --- names -----------------------------------------------------------------------------------------------

    def look(self, step: str, name: str) -> os.stat_result | None:
        """Return what the system knows of a name, None if there is none. Links are not followed."""
        try:
            return self.call(step, os.stat, name, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def link(self, step: str, old: str, new: str) -> None:
        """Give a file one more name; FileExistsError if that is taken."""
        self.call(step, os.link, old, new, src_dir_fd=self.root, dst_dir_fd=self.root, follow_symlinks=False)

    def rename(self, step: str, old: str, new: str) -> None:
        """Exchange a name for another."""
        self.call(step, os.rename, old, new, src_dir_fd=self.root, dst_dir_fd=self.root)

    def unlink(self, step: str, name: str) -> None:
        """Take a name away."""
        self.call(step, os.unlink, name, dir_fd=self.root)

    def due_at(self, step: str, name: str, when: float) -> None:
        """Set a file's time, which tells without opening it when the job is due."""
        nanoseconds = int(when * 1e9)
        self.call(
            step,
            os.utime,
            name,
            ns=(nanoseconds, nanoseconds),
            dir_fd=self.root,
            follow_symlinks=False,
        )

    # --- directories -----------------------------------------------------------------------------------------

    def make_directory(self, step: str, name: str) -> None:
        """Make a directory below the root, if it is not there, and make sure that it is ours and its name durable.

        Also the name of one that is there: whoever made it may have died before the disk had it.
        """
        with suppress(FileExistsError):
            self.call(step, os.mkdir, name, 0o700, dir_fd=self.root)
        self.sync_directory(step, "")
        self.check_directory(step, name)

    def check_directory(self, step: str, name: str) -> None:
        """Refuse what is no directory of ours."""
        try:
            fd = self.open_directory(step, name)
        except OSError as error:
            # What the system says of a symbolic link depends on the system.
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise
            raise SpoolUnsafe(f"{name} in the spool directory is not a directory") from error
        try:
            check_owned(self.status(step, fd), name)
        finally:
            os.close(fd)

    def open_directory(self, step: str, name: str) -> int:
        """Open a directory below the root, `""` for the root itself: a file description of its own."""
        return self.call(step, os.open, name or ".", _DIRECTORY, dir_fd=self.root)

    def sync_directory(self, step: str, name: str) -> None:
        """Wait until the names in a directory are on the disk."""
        if not self.durable:
            return
        if not name:
            self.call(step, _sync_directory, self.root)
            return
        fd = self.open_directory(step, name)
        try:
            self.call(step, _sync_directory, fd)
        finally:
            os.close(fd)

    def touch_directory(self, step: str, name: str) -> None:
        """Tell those who watch a directory that something in it has changed."""
        self.call(step, os.utime, name or ".", dir_fd=self.root)

    def entries(self, step: str, name: str) -> Iterator[os.DirEntry[str]]:
        """Iterate over what is in a directory, in no order."""
        fd = self.open_directory(step, name)
        try:
            with self.call(step, os.scandir, fd) as entries:
                yield from entries
        finally:
            os.close(fd)

    def free(self) -> int:
        """Return how many octets may still be written."""
        status = self.call("E0", os.fstatvfs, self.root)
        return status.f_bavail * status.f_frsize


def _sync(fd: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):
        # macOS: fsync leaves it in the cache of the drive.
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def _sync_directory(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems have no such thing, and need none.
        if error.errno != errno.EINVAL:
            raise


def _fallocate() -> Callable[[int, int, int], None] | None:
    """Return fallocate(2), which Python has only in the form that makes files longer."""
    function = _of_linux("fallocate", "int", "int64", "int64")
    if function is None:
        return None

    def fallocate(fd: int, offset: int, size: int) -> None:
        function(fd, _KEEP_SIZE, offset, size)

    return fallocate


def _sync_file_range() -> Callable[[int], None] | None:
    """Return sync_file_range(2) for a whole file: it begins to write, and waits for nothing."""
    function = _of_linux("sync_file_range", "int64", "int64", "uint")
    if function is None:
        return None

    def sync_file_range(fd: int) -> None:
        function(fd, 0, 0, _RANGE_WRITE)

    return sync_file_range


def _of_linux(name: str, *types: str) -> Callable[..., None] | None:
    """Return a system call that Python does not have: its first argument is a file, the others are of these types."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, *[getattr(ctypes, f"c_{one}") for one in types])

    def call(*arguments: int) -> None:
        if function(*arguments):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return call
