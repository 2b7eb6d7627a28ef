"""Where spools are made that are to be fast."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = "/dev/shm"


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A new directory in memory, where there is such a thing: a process that dies takes nothing from the kernel."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="smtp-async-torture-", dir=where) as path:
        yield Path(path)
