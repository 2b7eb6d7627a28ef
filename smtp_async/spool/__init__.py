"""Stored mail: `contract` defines a spool, `directory` keeps jobs in files, `postgres` in a database."""

from __future__ import annotations

from .contract import Lease, Spool
from .directory.limits import DirectoryLimits
from .directory.serialize import serialize
from .directory.spool import DirectorySpool
from .entry import Entry, LeaseHolder, SpoolStatistics, State
from .postgres.spool import PostgresSpool

__all__ = [
    "DirectoryLimits",
    "DirectorySpool",
    "Entry",
    "Lease",
    "LeaseHolder",
    "PostgresSpool",
    "Spool",
    "SpoolStatistics",
    "State",
    "serialize",
]
