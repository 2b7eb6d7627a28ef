"""Opens the spool that a command line names: a directory, or a database by its URL."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..model.reply import printable
from ..model.signing import MessageSigner
from ..spool.contract import Spool
from ..spool.directory.spool import DirectorySpool
from ..spool.postgres.connections import database_of
from ..spool.postgres.spool import PostgresSpool

__all__ = ["is_url", "name_of", "open_database", "open_spool"]

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMA: Final = "smtp_async"
_YES: Final = ("1", "true", "yes", "on")


def is_url(place: str) -> bool:
    """Tell whether a place is a URL, and not a path."""
    return _URL.match(place) is not None


def open_spool(place: str, *, create: bool = False, sign: Sequence[MessageSigner] = ()) -> Spool:
    """Open a spool.

    Args:
        place: the path of a directory, or the URL of a database, which may name a schema and a pooler:
            `postgresql://user@host/database?schema=mail&pooler=1`.
        create: create the directory if it does not exist; of a database, `queue init` makes the tables.
        sign: how messages are signed when they are put.

    Raises:
        InvalidArgument: the URL is not that of a database.
        FeatureUnavailable: asyncpg is not installed.
        FileError, SpoolUnsafe, SpoolError: the directory cannot be used.
    """
    return open_database(place, sign) if is_url(place) else DirectorySpool(place, create=create, sign=sign)


def open_database(place: str, sign: Sequence[MessageSigner] = ()) -> PostgresSpool:
    """Open a spool in a database; see `open_spool`."""
    url, options = _parts(place)
    pooler = options.get("pooler", "").lower() in _YES
    return PostgresSpool(url, schema=options.get("schema", _SCHEMA), pooler=pooler, sign=sign)


def name_of(place: str) -> str:
    """Return a name of a spool that is the same however its place is written, without user and password."""
    if not is_url(place):
        return printable(os.path.realpath(place), 300)
    url, options = _parts(place)
    return printable(f"{database_of(url)}/{options.get('schema', _SCHEMA)}", 300)


def _parts(place: str) -> tuple[str, dict[str, str]]:
    """Return the URL for the driver, and the options for the spool; nothing of the URL goes into an error."""
    database_of(place)
    parts = urlsplit(place)
    query = parse_qsl(parts.query, keep_blank_values=True)
    options = {name: value for name, value in query if name in ("schema", "pooler")}
    rest = urlencode([(name, value) for name, value in query if name not in options])
    return urlunsplit(parts._replace(query=rest)), options
