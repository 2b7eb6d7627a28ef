"""The sizes at which a spool directory changes its operation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from ...errors import InvalidArgument
from ..contract import MAX_KEYS

__all__ = ["DEFAULT_LIMITS", "DirectoryLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryLimits:
    """The sizes at which a spool directory changes its operation. The defaults suit spools of any size.

    Attributes:
        keys: maximum number of keys that are remembered after their job is gone; the oldest are forgotten first.
        root_files: number of files in the directory above which new jobs go to its subdirectories.
        jobs_in_memory: number of queued jobs whose due time is kept in memory, about 300 octets each; the others are
            read from the directory again.

    Raises:
        InvalidArgument: a number is below 1; `root_files` may be 0.
    """

    keys: int = MAX_KEYS
    root_files: int = 10_000
    jobs_in_memory: int = 50_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "root_files" else 1
            if not isinstance(value, int) or value < least:
                raise InvalidArgument(f"{field.name} must be an integer of at least {least}, not {value!r}")


DEFAULT_LIMITS: Final = DirectoryLimits()
