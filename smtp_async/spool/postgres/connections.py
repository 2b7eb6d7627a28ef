"""Connections to PostgreSQL: opened when needed, checked, and opened again when they were lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from ...errors import FeatureUnavailable, InvalidArgument, SMTPError, SpoolError, SpoolUnsafe
from .problems import is_conflict, is_lost, is_moved, translated
from .schema import demand_version

if TYPE_CHECKING:
    import asyncpg

__all__ = ["DatabaseConnections", "SerialConnection", "database_of"]

#: How often a statement is repeated that was undone because of others.
_CONFLICTS: Final = 20

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^][:/\s]*)(:[0-9]+)?")

_CHECK: Final = (
    "select current_setting('synchronous_commit') as commits, current_setting('fsync') as fsync, "
    "current_setting('transaction_read_only') as read_only"
)

Connection: TypeAlias = "asyncpg.Connection | Any"
T = TypeVar("T")


def database_of(url: str) -> str:
    """Return the host and the name of the database in a URL, which may be shown.

    Raises:
        InvalidArgument: it is not the URL of a database, or a password may be where a host or a database should be.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # Not as the context, because it may repeat a part of the URL.
        parts = None
    if parts is not None and parts.scheme not in ("postgresql", "postgres"):
        raise InvalidArgument("the URL of a database begins with postgresql://")
    user, _, hosts = ("", "", "[") if parts is None else parts.netloc.rpartition("@")
    if (
        parts is None
        or "#" in url
        or "@" in f"{user}{parts.path}{parts.query}"
        or not all([_HOST.fullmatch(host) for host in hosts.split(",")])
    ):
        raise InvalidArgument(
            "the URL of a database is postgresql://USER:PASSWORD@HOST:PORT/DATABASE: percent-encode the characters "
            "/ ? # @ [ ] in the user, the password and the options, such as / as %2F"
        )
    return f"{hosts}{parts.path}"


class DatabaseConnections:
    """Opens the connections of a spool.

    Args:
        source: the URL of the database, or a pool of asyncpg.
        schema: the schema of the spool.
        pooler: a pooler stands in between, which gives each transaction another connection.
        timeout: seconds for opening a connection or getting one of the pool, and for a statement.

    Attributes:
        name: the host and the name of the database, without user and password.

    Raises:
        FeatureUnavailable: asyncpg is not installed.
        InvalidArgument: the source is no such thing.
    """

    def __init__(self, source: Any, schema: str, *, pooler: bool, timeout: float) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise FeatureUnavailable(
                "a spool in PostgreSQL needs asyncpg", needs="smtp-async[postgres]"
            ) from error
        if isinstance(source, str):
            self.name = database_of(source)
        elif not (hasattr(source, "acquire") and hasattr(source, "release")):
            raise InvalidArgument(f"a URL or a pool of asyncpg is needed, not {type(source).__name__}")
        else:
            self.name = "a pool"
        self._asyncpg: Final = asyncpg
        self._source: Final = source
        self._schema: Final = schema
        self._timeout: Final = timeout
        self.pooler: Final = pooler

    @property
    def owned(self) -> bool:
        """Whether the spool opens its connections itself."""
        return isinstance(self._source, str)

    def is_in(self, host: str, port: int, database: str) -> bool:
        """Tell whether the URL names this database and no other; False for a pool, whose database is not known."""
        if not self.owned:
            return False
        parts = urlsplit(self._source)
        # What stands before the question mark counts first, as it does for the driver.
        options = dict(parse_qsl(parts.query))
        try:
            own_host, own_port = (
                parts.hostname or options.get("host", ""),
                parts.port or options.get("port", 5432),
            )
            own_name = unquote(parts.path[1:]) or options.get("dbname", "") or options.get("database", "")
            same_place = (_plain_host(unquote(own_host)), int(own_port)) == (_plain_host(host), port)
        except ValueError:
            # Several hosts.
            return False
        # Without a name the driver has a default of its own.
        return same_place and own_name == database != ""

    async def open(self, *, check: bool = True) -> Connection:
        """Open a connection, or take one of the pool.

        Args:
            check: refuse a database that is not as the spool needs it.

        Raises:
            SpoolUnsafe: the database refuses the user, or is not as the spool needs it.
            SpoolError: the database cannot be reached.
        """
        doing, unreadable = f"the spool in {self.name} cannot be opened", ""
        try:
            connection = await self._connect()
        except Exception as error:
            if not (self.owned and isinstance(error, ValueError)):
                raise translated(error, doing) from error
            unreadable = type(error).__name__
        if unreadable:
            # Without its text and as no cause, because it may repeat a part of the URL.
            raise SpoolUnsafe(
                f"{doing}: asyncpg refuses the URL ({unreadable}): check its port, its options, and the files they name"
            )
        if check:
            try:
                await self.do(self._check, connection)
            except BaseException as error:
                await self.close(connection, lost=True)
                if isinstance(error, Exception):
                    raise translated(error, f"the spool in {self.name} cannot be used") from error
                raise
        return connection

    async def _connect(self) -> Connection:
        if not self.owned:
            try:
                return await self._source.acquire(timeout=self._timeout)
            except TimeoutError as error:
                raise SpoolError(
                    f"the pool of the application had no connection within {self._timeout:g} s: all are in use, or the "
                    "database does not answer"
                ) from error
        return await self._asyncpg.connect(
            self._source,
            timeout=self._timeout,
            command_timeout=self._timeout,
            statement_cache_size=0 if self.pooler else 100,
            server_settings={} if "application_name=" in self._source else {"application_name": "smtp_async"},
        )

    async def _check(self, connection: Connection) -> None:
        found: Any = await connection.fetchrow(_CHECK)
        if found["read_only"] == "on":
            raise SpoolError(
                "the server is read-only, because it is a standby: name all servers in the URL, with "
                "target_session_attrs=read-write"
            )
        if found["commits"] == "off" or found["fsync"] == "off":
            name = "fsync" if found["fsync"] == "off" else "synchronous_commit"
            raise SpoolUnsafe(f"{name} is off, so that a crash loses mail: turn it on for this user")
        demand_version(await connection.fetchval(f"select version from {self._schema}.version"), self._schema)

    async def do(self, work: Callable[[Connection], Awaitable[T]], connection: Connection) -> T:
        """Await `work(connection)`.

        It keeps one connection of a pooler for all of its statements, because asyncpg prepares each of them.
        """
        if not self.pooler:
            return await work(connection)
        async with connection.transaction():
            return await work(connection)

    async def guarded(self, work: Awaitable[T], doing: str) -> T:
        """Await work on a connection of its own, and translate its errors."""
        try:
            return await work
        except Exception as error:
            raise translated(error, doing) from error

    async def close(self, connection: Connection, *, lost: bool = False) -> None:
        """Close a connection, or give it back to the pool; one that was lost is closed at once."""
        if not self.owned:
            if lost:
                connection.terminate()
            with suppress(Exception):
                await self._source.release(connection)
        elif lost:
            connection.terminate()
        else:
            try:
                await connection.close(timeout=self._timeout)
            except Exception:
                connection.terminate()


def _plain_host(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "::1") else host.lower().rstrip(".")


class _Lost(Exception):
    """The connection was lost during work, which may or may not have been done."""

    def __init__(self, error: SMTPError) -> None:
        super().__init__(error)
        self.error = error


class SerialConnection:
    """One connection to the database, which is used by one call at a time.

    Args:
        connections: opens the connection.
    """

    def __init__(self, connections: DatabaseConnections) -> None:
        self._connections = connections
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    async def run(
        self,
        work: Callable[[Connection], Awaitable[T]],
        *,
        doing: str,
        again: bool = False,
        after_loss: Callable[[Connection], Awaitable[T]] | None = None,
        unclear: str = "",
    ) -> T:
        """Call `work` with the connection.

        Work that was undone because of others is repeated.

        Args:
            work: makes statements. It must not be cancelled.
            doing: what cannot be done, if it fails.
            again: repeat the work once if the connection was lost. Otherwise it may or may not have been done.
            after_loss: is called once instead of `work` if the connection was lost.
            unclear: what an error says if the work fails after such a loss, because the first try may have succeeded.

        Raises:
            SpoolError: the database failed.
        """
        if again and after_loss is None:
            after_loss = work
        async with self._lock:
            try:
                return await self._try(work, doing)
            except _Lost as lost:
                if after_loss is None:
                    raise lost.error from lost.error.__cause__
            try:
                return await self._try(after_loss, doing)
            except _Lost as lost:
                error: SMTPError = lost.error
            except SMTPError as found:
                error = found
        if unclear:
            raise SpoolError(f"{unclear} ({error})") from error
        raise error

    async def _try(self, work: Callable[[Connection], Awaitable[T]], doing: str) -> T:
        """Call `work`, and again if it was undone because of others.

        Raises:
            _Lost: the connection was lost meanwhile.
            SpoolError: the database failed, or no connection can be opened.
        """
        conflicts = 0
        while True:
            connection = await self._open()
            try:
                return await self._connections.do(work, connection)
            except Exception as error:
                if is_conflict(error) and conflicts < _CONFLICTS:
                    conflicts += 1
                    continue
                lost = is_lost(error)
                if lost or is_moved(error):
                    self._forget()
                if lost:
                    raise _Lost(translated(error, doing)) from error
                raise translated(error, doing) from error
            finally:
                if not self._connections.owned:
                    await self._give_back()

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._connections.close(connection)

    async def _open(self) -> Connection:
        connection = self._connection
        if connection is None or connection.is_closed():
            self._forget()
            connection = self._connection = await self._connections.open()
        return connection

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._connections.close(connection)

    def _forget(self) -> None:
        """Drop a connection that was lost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
