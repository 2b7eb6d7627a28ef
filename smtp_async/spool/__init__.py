"""Stored mail: `contract` defines a spool, `directory` keeps jobs in files, `record` is the file format."""

from __future__ import annotations

from .contract import Lease, Spool
from .directory.limits import DirectoryLimits
from .directory.serialize import serialize
from .directory.spool import DirectorySpool
from .entry import Entry, SpoolStatistics, State

__all__ = [
    "DirectoryLimits",
    "DirectorySpool",
    "Entry",
    "Lease",
    "Spool",
    "SpoolStatistics",
    "State",
    "serialize",
]
