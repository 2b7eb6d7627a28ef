"""The system's trusted certificates, read once per process.

Reading them takes tens of milliseconds, most of it in OpenSSL, and a context contains a copy of each certificate.
Therefore clients with the system's trust share one context, which is not changed once it is made. So do clients with
the same other options, while one of them exists. Python cannot copy the certificates of a context to another, so each
set of options reads them once.

A new context is made for the next client when the certificates have changed: another SSL_CERT_FILE or SSL_CERT_DIR, a
changed file (inode, size or modification time; a `ca_file` is such a file), a changed folder (a `ca_path` is one). A
client keeps the context that it began with. Changes of the stores of Windows are not noticed; a new process reads
them.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

__all__ = ["SharedContexts", "shared_contexts"]

_State: TypeAlias = tuple[object, ...]


class SharedContexts:
    """The contexts of this process: of each kind one that verifies in the handshake, and one that does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[bool, tuple[_State, ssl.SSLContext]] = {}
        #: The contexts of other options, while they are used.
        self._others: WeakValueDictionary[_State, ssl.SSLContext] = WeakValueDictionary()

    def get(
        self,
        make: Callable[[], ssl.SSLContext],
        *,
        verify: bool,
        options: Hashable = None,
        files: Sequence[str | os.PathLike[str]] = (),
    ) -> ssl.SSLContext:
        """Return the context for these certificates and options; call `make` if there is none or files have changed.

        Args:
            make: makes the context; called in this thread, one call at a time.
            verify: which of the two contexts, see `smtp_async.tls.make_context`.
            options: the other options of the context; None for the default.
            files: the files and folders that are read besides the system's, or in place of them.
        """
        # The lock is held while the certificates are read: other threads wait for them.
        with self._lock:
            state = (*_state(), *map(_stamp, files))
            if options is not None:
                place = (verify, options, state)
                context = self._others.get(place)
                if context is None:
                    context = self._others[place] = make()
                return context
            known = self._contexts.get(verify)
            if known is None or known[0] != state:
                known = self._contexts[verify] = (state, make())
            return known[1]

    def clear(self) -> None:
        """Forget all contexts, so that the next client reads the certificates again."""
        with self._lock:
            self._contexts.clear()
            self._others.clear()

    def replace_lock(self) -> None:
        """Make a new lock in a forked child, because another thread of the parent may have held the old one."""
        self._lock = threading.Lock()


#: The contexts that `make_context` shares.
shared_contexts: Final = SharedContexts()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared_contexts.replace_lock)


def _state() -> _State:
    """Return a value that changes if the system's certificates change, or the file for logged keys."""
    paths = ssl.get_default_verify_paths()
    return (
        paths.cafile,
        _stamp(paths.cafile),
        paths.capath,
        _stamp(paths.capath),
        os.environ.get("SSLKEYLOGFILE"),
    )


def _stamp(path: str | os.PathLike[str] | None) -> tuple[int, ...] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: the path contains NUL
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
