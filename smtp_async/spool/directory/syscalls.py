"""The system calls of a spool directory. All of them go through `SystemCalls.call` with the name of their step.

The steps are those of the protocol in `job_files`: E1 to E8 enqueue, C1 to C5 claim, D1 before end of data, S1 to S5
the end of a lease, R recovery, O operator commands, L lookups, H a hint. A test that fills the disk at S3, or kills the
process before E6, overrides `call`. The clocks are methods here, too, so that a test can set them.

Names are relative to the spool directory. The directory is kept open, so it may be renamed but not replaced.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...errors import FeatureUnavailable, FileError, SpoolError, SpoolFull, SpoolUnsafe

if TYPE_CHECKING:
    import fcntl
elif sys.platform != "win32":
    import fcntl

__all__ = ["FULL", "SystemCalls", "logged_errors", "open_directory", "translated"]

T = TypeVar("T")

_log = logging.getLogger("smtp_async")

#: errno values that mean that there is no space left.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _FLAGS
# fallocate(2): allocate blocks without changing the length.
_KEEP_SIZE: Final = 1
# sync_file_range(2): start writing dirty pages.
_RANGE_WRITE: Final = 2
_NO_RESERVE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
# A sandbox may forbid the call, and a file system may have no page cache.
_NO_HINT: Final = _NO_RESERVE | {errno.EPERM, errno.ESPIPE}


def translated(error: OSError, message: str) -> SpoolError:
    """Return the `SpoolError` for an `OSError`; a `SpoolError` is returned unchanged."""
    if isinstance(error, SpoolError):
        return error
    return (SpoolFull if error.errno in FULL else SpoolError).of(error, message)


@contextmanager
def logged_errors(name: str) -> Iterator[None]:
    """Log an `OSError` instead of raising it, because the next recovery tries again. A missing file is ignored."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        _log.error("recovery of %s in the spool failed: %s", name, error)


def open_directory(path: str | os.PathLike[str], *, create: bool) -> int:
    """Open a spool directory and check that no other user can write to it.

    Raises:
        FeatureUnavailable: the operating system lacks flock() or the directory calls of POSIX.
        FileError: the directory does not exist, or the path is not a directory.
        SpoolUnsafe: another user owns the directory or may write to it, or the path is a symbolic link.
        SpoolError: a system call failed.
    """
    if sys.platform == "win32" or not hasattr(os, "O_NOFOLLOW"):
        raise FeatureUnavailable(
            "a spool directory needs flock() and the directory calls of POSIX", needs="a POSIX system"
        )
    # Without a trailing slash or `/.`, because lstat would follow a symbolic link then.
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
    """Check that a directory belongs to this user and that no other user may write to it.

    Raises:
        SpoolUnsafe: the check failed.
    """
    if status.st_uid != os.geteuid():
        raise SpoolUnsafe(f"the spool directory {where} belongs to another user ({status.st_uid})")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise SpoolUnsafe(
            f"other users may write to the spool directory {where}: its mode is {mode:o}, not 700"
        )


def _make_directory(where: str) -> None:
    """Create a directory unless it exists, and sync its parent.

    The parent of an existing directory is synced, too, because the process that created it may have died before that.
    """
    created = True
    try:
        os.mkdir(where, 0o700)
    except FileExistsError:
        created = False
    try:
        fd = os.open(Path(where).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _sync_directory(fd)
        finally:
            os.close(fd)
    except OSError:
        # This user may lack access to the parent of an existing directory if an administrator created it.
        if created:
            raise


class SystemCalls:
    """The system calls for one open spool directory.

    Args:
        root: file descriptor of the directory.
        durable: sync files and directories. Otherwise a power failure may lose recent changes, a crash of the process
            does not.
    """

    def __init__(self, root: int, *, durable: bool = True) -> None:
        self.root = root
        self.durable = durable
        self._fallocate = _fallocate()
        self._begin_sync = _sync_file_range()

    def call(self, step: str, function: Callable[..., T], /, *args: Any, **named: Any) -> T:
        """Make the system call `function` for the protocol step `step`."""
        return function(*args, **named)

    # --- clocks ----------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the wall clock time, in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the time of a clock that is never set, in seconds."""
        return time.monotonic()

    # --- files -----------------------------------------------------------------------------------------------

    def create(self, step: str, name: str) -> int:
        """Create a new file that only its owner can access."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | _FLAGS
        return self.call(step, os.open, name, flags, 0o600, dir_fd=self.root)

    def open(self, step: str, name: str, *, write: bool = False) -> int:
        """Open a file without following symbolic links and without blocking on a FIFO."""
        flags = (os.O_RDWR | os.O_APPEND if write else os.O_RDONLY) | _FLAGS
        return self.call(step, os.open, name, flags, dir_fd=self.root)

    def write(self, step: str, fd: int, data: bytes) -> None:
        """Write all of `data`, in several calls if write() is short."""
        written = self.call(step, os.write, fd, data)
        if written < len(data):
            view = memoryview(data)
            while written < len(data):
                written += self.call(step, os.write, fd, view[written:])

    def read(self, step: str, fd: int, size: int, offset: int) -> bytes:
        """Read `size` octets, or fewer at the end of the file."""
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
        """Allocate blocks behind the end of the file, so that later appends fit. The length stays the same."""
        if self._fallocate is not None:
            try:
                self.call(step, self._fallocate, fd, offset, size)
            except OSError as error:
                if error.errno not in _NO_RESERVE:
                    raise

    def sync(self, step: str, fd: int) -> None:
        """Wait until the file is on disk."""
        if self.durable:
            self.call(step, _sync, fd)

    def begin_sync(self, fd: int) -> None:
        """H1: start writing a file to disk before `sync` waits for it, so that several files are written in parallel.

        Does nothing if the system has no such call. A write error counts as an error of `sync`, because fsync may not
        report it again.
        """
        if self.durable and self._begin_sync is not None:
            try:
                self.call("H1", self._begin_sync, fd)
            except OSError as error:
                if error.errno not in _NO_HINT:
                    raise

    def close(self, step: str, fd: int) -> None:
        """Close a file. Some file systems report a failed write only now."""
        self.call(step, os.close, fd)

    def lock(self, step: str, fd: int) -> bool:
        """Lock a file; return False if another process or another open file has the lock."""
        try:
            self.call(step, fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait_lock(self, step: str, fd: int) -> None:
        """Lock a file, waiting until the lock is free."""
        self.call(step, fcntl.flock, fd, fcntl.LOCK_EX)

    def status(self, step: str, fd: int) -> os.stat_result:
        """Return the status of an open file."""
        return self.call(step, os.fstat, fd)

    def share(self, step: str, name: str) -> None:
        """Set the owner's execute bit of a file, which records that several `put` calls returned its id."""
        fd = self.open(step, name)
        try:
            self.call(step, os.fchmod, fd, 0o700)
        finally:
            os.close(fd)

    def is_shared(self, step: str, fd: int) -> bool:
        """Return whether `share` was called for an open file."""
        return bool(self.status(step, fd).st_mode & stat.S_IXUSR)

    def empty(self, step: str, fd: int) -> None:
        """Truncate a file to zero octets."""
        self.call(step, os.ftruncate, fd, 0)

    # --- names -----------------------------------------------------------------------------------------------

    def look(self, step: str, name: str) -> os.stat_result | None:
        """Return the status of a name, None if it does not exist. Symbolic links are not followed."""
        try:
            return self.call(step, os.stat, name, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_at(self, step: str, name: str, status: os.stat_result) -> bool:
        """Return whether the file with this status has this name."""
        found = self.look(step, name)
        return found is not None and (found.st_ino, found.st_dev) == (status.st_ino, status.st_dev)

    def link(self, step: str, old: str, new: str) -> None:
        """Create the hard link `new`; raise FileExistsError if the name exists."""
        self.call(step, os.link, old, new, src_dir_fd=self.root, dst_dir_fd=self.root, follow_symlinks=False)

    def rename(self, step: str, old: str, new: str) -> None:
        """Rename a file."""
        self.call(step, os.rename, old, new, src_dir_fd=self.root, dst_dir_fd=self.root)

    def unlink(self, step: str, name: str) -> None:
        """Remove a name."""
        self.call(step, os.unlink, name, dir_fd=self.root)

    def due_at(self, step: str, name: str, when: float) -> None:
        """Set the mtime of a file to the time when its job is due."""
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
        """Create a directory below the root unless it exists, sync the root, and check the directory's owner.

        The root is synced for an existing directory, too, because the process that created it may have died
        before that.
        """
        with suppress(FileExistsError):
            self.call(step, os.mkdir, name, 0o700, dir_fd=self.root)
        self.sync_directory(step, "")
        self.check_directory(step, name)

    def check_directory(self, step: str, name: str) -> None:
        """Check that a name below the root is a directory of this user that no other user may write to.

        Raises:
            SpoolUnsafe: the check failed.
        """
        try:
            fd = self.open_directory(step, name)
        except OSError as error:
            # The errno for a symbolic link depends on the operating system.
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise
            raise SpoolUnsafe(f"{name} in the spool directory is not a directory") from error
        try:
            check_owned(self.status(step, fd), name)
        finally:
            os.close(fd)

    def open_directory(self, step: str, name: str) -> int:
        """Open a directory below the root, or the root itself for `""`, as a new open file."""
        return self.call(step, os.open, name or ".", _DIRECTORY, dir_fd=self.root)

    def sync_directory(self, step: str, name: str) -> None:
        """Wait until the names in a directory are on disk."""
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
        """Set the mtime of a directory, so that other processes read the directory again."""
        self.call(step, os.utime, name or ".", dir_fd=self.root)

    def entries(self, step: str, name: str) -> Iterator[os.DirEntry[str]]:
        """Iterate over the entries of a directory, in no particular order."""
        fd = self.open_directory(step, name)
        try:
            with self.call(step, os.scandir, fd) as entries:
                yield from entries
        finally:
            os.close(fd)

    def free(self) -> int:
        """Return the number of octets available on the file system."""
        status = self.call("E0", os.fstatvfs, self.root)
        return status.f_bavail * status.f_frsize


def _sync(fd: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):
        # macOS: fsync leaves the data in the cache of the drive.
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def _sync_directory(fd: int) -> None:
    try:
        _sync(fd)
    except OSError as error:
        # Some network file systems do not support syncing a directory, and do not need it.
        if error.errno != errno.EINVAL:
            raise


def _fallocate() -> Callable[[int, int, int], None] | None:
    """Return fallocate(2) with KEEP_SIZE, None if the system lacks it. Python has only posix_fallocate."""
    function = _linux_call("fallocate", "int", "int64", "int64")
    if function is None:
        return None

    def fallocate(fd: int, offset: int, size: int) -> None:
        function(fd, _KEEP_SIZE, offset, size)

    return fallocate


def _sync_file_range() -> Callable[[int], None] | None:
    """Return sync_file_range(2) for a whole file, None if the system lacks it. The call does not wait."""
    function = _linux_call("sync_file_range", "int64", "int64", "uint")
    if function is None:
        return None

    def sync_file_range(fd: int) -> None:
        function(fd, 0, 0, _RANGE_WRITE)

    return sync_file_range


def _linux_call(name: str, *types: str) -> Callable[..., None] | None:
    """Return a Linux system call that Python lacks, None elsewhere.

    Args:
        name: the name in the C library.
        types: the ctypes types, without `c_`, of the arguments after the file descriptor.
    """
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
