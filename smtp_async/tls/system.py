"""The system's trusted certificates, read once per process.

Reading them takes tens of milliseconds, most of it in OpenSSL, and a context made from them holds a copy of each.
Clients that trust what the system trusts therefore share one context: it is not changed once it is made. So do clients
whose options differ from the default in the same way, for as long as one of them lives. Python cannot give the
certificates of one context to another, so each other set of options reads them once.

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
        #: Those of other options, while they are used.
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
            make: makes it; called in this thread, one at a time.
            verify: which of the two, see `smtp_async.tls.make_context`.
            options: what else it is made from; None is the default.
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
        """Forget all: the next client reads the certificates again."""
        with self._lock:
            self._contexts.clear()
            self._others.clear()

    def replace_lock(self) -> None:
        """Make a new lock in a forked child, because another thread of the parent may have held the old one."""
        self._lock = threading.Lock()


#: What `make_context` takes from here.
shared_contexts: Final = SharedContexts()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared_contexts.replace_lock)


def _state() -> _State:
    """Return what changes when the system's certificates do, or the file that keys are logged to."""
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
    except (OSError, ValueError):  # ValueError: there is a NUL in it
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
