"""The system's trusted certificates, read once per process.

Reading them takes tens of milliseconds, most of it in OpenSSL, and a context made from them holds a copy of each.
Clients that trust what the system trusts therefore share one context: it is not changed once it is made.

A new context is made for the next client when the certificates have changed: another SSL_CERT_FILE or SSL_CERT_DIR, a
changed file (inode, size or modification time), a changed folder. A client keeps the context that it began with.
Changes of the stores of Windows are not noticed; a new process reads them.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["SharedContexts", "shared_contexts"]

_State: TypeAlias = tuple[object, ...]


class SharedContexts:
    """The contexts of this process: one that verifies in the handshake, one that does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[bool, tuple[_State, ssl.SSLContext]] = {}

    def get(self, make: Callable[[], ssl.SSLContext], *, verify: bool) -> ssl.SSLContext:
        """Return the context for the system's certificates; call `make` if there is none or they have changed.

        Args:
            make: makes it; called in this thread, one at a time.
            verify: which of the two, see `smtp_async.tls.make_context`.
        """
        # The lock is held while the certificates are read: other threads wait for them.
        with self._lock:
            state = _state()
            known = self._contexts.get(verify)
            if known is None or known[0] != state:
                known = self._contexts[verify] = (state, make())
            return known[1]

    def clear(self) -> None:
        """Forget both: the next client reads the certificates again."""
        with self._lock:
            self._contexts.clear()

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


def _stamp(path: str | None) -> tuple[int, ...] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
