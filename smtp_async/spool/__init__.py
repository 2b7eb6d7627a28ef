"""Mail at rest: `spool` is the contract, `directory` keeps it on files, `record` is their form."""

from __future__ import annotations

from .directory import DirectorySpool
from .entry import Entry, SpoolStatistics, State
from .spool import Lease, Spool
from .textual import serialize

__all__ = ["DirectorySpool", "Entry", "Lease", "Spool", "SpoolStatistics", "State", "serialize"]
