"""How often this process has forked: a client of the parent is of no use in the child."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["fork_count"]


class ForkCount:
    """How often this process has forked, counted in the child.

    Each call compares the count with that of the client's first call, because asking for the process's number would
    be a system call.
    """

    def __init__(self) -> None:
        self.count = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


fork_count: Final = ForkCount()
