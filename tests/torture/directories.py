"""The directories of fast spools."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = "/dev/shm"


@contextmanager
def quick_directory() -> Iterator[Path]:
    """Create a temporary directory in memory if possible, because the death of a process loses nothing of it."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="smtp-async-torture-", dir=where) as path:
        yield Path(path)
