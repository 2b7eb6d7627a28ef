"""Mail at rest: `spool` is the contract, `directory` keeps it on files, `record` is their form."""

from __future__ import annotations

from .directory import DirectorySpool
from .entry import Entry, SpoolStatistics, State
from .serialize import serialize
from .spool import Lease, Spool

__all__ = ["DirectorySpool", "Entry", "Lease", "Spool", "SpoolStatistics", "State", "serialize"]
