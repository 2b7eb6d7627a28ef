"""Mail at rest: `contract` says what every spool does, `directory` keeps it on files, `record` is their form."""

from __future__ import annotations

from .contract import Lease, Spool
from .directory.serialize import serialize
from .directory.spool import DirectorySpool
from .entry import Entry, SpoolStatistics, State

__all__ = ["DirectorySpool", "Entry", "Lease", "Spool", "SpoolStatistics", "State", "serialize"]
