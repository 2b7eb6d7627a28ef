"""The system calls of a spool, kept for the test that has them fail or wait."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from smtp_async.spool.directory.syscalls import SystemCalls

_C = TypeVar("_C", bound=SystemCalls)


class Made(Generic[_C]):
    """Makes the system calls of a spool, and keeps them for the test.

    Attributes:
        calls: those that were made last.
    """

    calls: _C

    def __init__(self, make: Callable[..., _C]) -> None:
        self._make = make

    def __call__(self, *args: Any, **options: Any) -> _C:
        self.calls = self._make(*args, **options)
        return self.calls
