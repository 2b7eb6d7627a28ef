"""problems.py: each error of the database is one clear line."""

import asyncpg
import pytest

from smtp_async.errors import LeaseLost, SpoolError, SpoolFull, SpoolUnsafe
from smtp_async.spool.postgres.problems import is_blocked, is_conflict, is_lost, is_moved, translated
from tests.servers.postgres import Postgres


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (asyncpg.InvalidPasswordError("no"), SpoolUnsafe, "password"),
        (asyncpg.InvalidAuthorizationSpecificationError("no"), SpoolUnsafe, "pg_hba.conf"),
        (asyncpg.InvalidCatalogNameError("no"), SpoolUnsafe, "no such database"),
        (asyncpg.InvalidSchemaNameError("no"), SpoolUnsafe, "queue init"),
        (asyncpg.UndefinedTableError("no"), SpoolUnsafe, "queue init"),
        (asyncpg.InsufficientPrivilegeError("no"), SpoolUnsafe, "privilege"),
        (asyncpg.DiskFullError("no"), SpoolFull, "disk"),
        (asyncpg.ReadOnlySQLTransactionError("no"), SpoolError, "target_session_attrs"),
        (asyncpg.TooManyConnectionsError("no"), SpoolError, "max_connections"),
        (asyncpg.QueryCanceledError("no"), SpoolError, "statement_timeout"),
        (asyncpg.CannotConnectNowError("no"), SpoolError, "cannot be reached"),
        (ConnectionResetError(104, "reset"), SpoolError, "cannot be reached"),
        (TimeoutError(), SpoolError, "cannot be reached"),
        (ValueError("odd"), SpoolError, "odd"),
    ],
    ids=lambda value: getattr(
        value, "__name__", type(value).__name__ if not isinstance(value, str) else None
    ),
)
def test_an_error_says_what_to_do(error: Exception, kind: type[SpoolError], says: str) -> None:
    found = translated(error, "the message cannot be stored")
    assert type(found) is kind
    assert str(found).startswith("the message cannot be stored: ") and says in str(found)
    assert "\n" not in str(found)
    assert found.__cause__ is error
    assert found.temporary is (kind is not SpoolUnsafe)


def test_the_number_of_the_system_is_kept() -> None:
    found = translated(ConnectionResetError(104, "reset"), "it failed")
    assert isinstance(found, SpoolError) and found.errno == 104


def test_an_error_of_this_library_stays_as_it_is() -> None:
    error = LeaseLost("gone")
    assert translated(error, "it failed") is error


def test_what_may_be_repeated() -> None:
    assert is_conflict(asyncpg.SerializationError("no")) and is_conflict(asyncpg.DeadlockDetectedError("no"))
    assert not is_conflict(asyncpg.UniqueViolationError("no"))
    assert is_blocked(asyncpg.LockNotAvailableError("no")) and not is_blocked(TimeoutError())
    assert is_moved(asyncpg.ReadOnlySQLTransactionError("no"))
    lost = (asyncpg.AdminShutdownError("no"), asyncpg.InterfaceError("no"), TimeoutError(), OSError())
    assert all([is_lost(error) for error in lost])
    assert not is_lost(asyncpg.DiskFullError("no")) and not is_lost(ValueError())
    assert not is_lost(asyncpg.exceptions.ClientConfigurationError("no"))


@pytest.mark.server
async def test_a_value_that_the_driver_refuses_is_no_loss_of_the_connection(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url())
    try:
        with pytest.raises(asyncpg.DataError) as caught:
            await connection.fetch("select $1::bigint", "no number")
    finally:
        await connection.close()
    assert not is_lost(caught.value)
    assert "reached" not in str(translated(caught.value, "it failed"))
