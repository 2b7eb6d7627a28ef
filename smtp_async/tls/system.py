"""The system's trusted certificates, read once per process.

Reading them takes tens of milliseconds, most of it in OpenSSL, and a context made from them holds a copy of each.
Clients that trust what the system trusts therefore share one context: it is not changed once it is made.

It is made anew for the next client when the place of the certificates has changed: another SSL_CERT_FILE or
SSL_CERT_DIR, another file (inode, size or time of its last change), an entry more or less in the folder. A client keeps
the context that it began with. What Windows has in its own stores cannot be watched: a new process sees it.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["shared_context"]

_State: TypeAlias = tuple[object, ...]


class _Kept:
    """The contexts of this process: one that verifies in the handshake, one that does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[bool, tuple[_State, ssl.SSLContext]] = {}

    def get(self, verify: bool, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        # The lock is held while the certificates are read: who comes meanwhile waits for them, in its own thread.
        with self._lock:
            state = _state()
            kept = self._contexts.get(verify)
            if kept is None or kept[0] != state:
                kept = self._contexts[verify] = (state, make())
            return kept[1]

    def forked(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = threading.Lock()


_kept: Final = _Kept()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _kept.forked())


def shared_context(make: Callable[[], ssl.SSLContext], *, verify: bool) -> ssl.SSLContext:
    """Return the context of this process for the system's certificates, with `make` where there is none yet.

    Args:
        make: makes it; called in this thread, one at a time.
        verify: which of the two, see `smtp_async.tls.make_context`.
    """
    return _kept.get(verify, make)


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
