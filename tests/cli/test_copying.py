"""`smtp-async queue copy`: what it prints, what stays, and what it refuses."""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from smtp_async import DirectorySpool, PostgresSpool
from smtp_async.cli.exits import Exit
from smtp_async.spool.contract import Spool
from smtp_async.testing.lease_contract import NEVER, TEXT, receipt_for
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import new_schema, new_spool

SECRET = "top-secret"


def inside(spool: Spool, use: Any) -> Any:
    async def do() -> Any:
        async with spool:
            return await use(spool)

    return asyncio.run(do())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A spool with two jobs that wait and one that failed."""

    async def fill(spool: Spool) -> None:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.fail(receipt_for(lease, NEVER))
        for _ in range(2):
            await spool.put(TEXT)

    inside(DirectorySpool(tmp_path / "old", create=True), fill)
    return tmp_path / "old"


def ids_of(spool: Spool) -> list[str]:
    async def look(spool: Spool) -> list[str]:
        return [entry.id async for entry in spool.list()]

    return sorted(inside(spool, look))


def test_jobs_move_between_directories(shell: Any, old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert shell(f"queue init {new}").stdout == "OK The spool is ready\n"
    done = shell(f"queue copy {old} {new}")
    assert done.exit_code == 0 and done.stderr == "1 failed stay in the old spool.\n"
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [word for word, _ in lines] == ["moved", "moved"]
    assert sorted(id for _, id in lines) == ids_of(DirectorySpool(new))
    assert shell(f"queue copy {old} {new}").stdout == ""


def test_jobs_move_to_a_database_and_are_sent_from_there(
    shell: Any, old: Path, postgres: Postgres, serve: Any
) -> None:
    schema = new_schema()
    url = f"{postgres.url()}?schema={schema}"
    missing = shell(f"queue ls --spool {url}")
    assert missing.exit_code == Exit.SETUP and "smtp-async queue init" in missing.stderr
    assert missing.stderr.count("\n") == 1
    assert shell(f"queue init {url}").stdout == "OK The spool is ready: its tables went from version 0 to 1\n"
    assert "have version 1 already" in shell(f"queue init {url}").stdout
    assert shell(f"queue copy {old} {url}").stdout.count("moved") == 2
    added = shell(f"queue add --from ann@example.com --to bob@example.org --text Hi --tag news --spool {url}")
    assert len(ids_of(PostgresSpool(postgres.url(), schema=schema))) == 3
    assert "\nTag: news\n" in shell(f"queue show {added.stdout.strip()} --spool {url}").stdout
    assert "queued\t3\n" in shell(f"queue stats --spool {url}").stdout
    server = serve()
    done = shell(f"process --once --security plaintext --server {server.host}:{server.port} --spool {url}")
    assert done.exit_code == 0 and "total\t-\t-\t3 sent, 0 deferred, 0 failed" in done.stdout
    assert len(server.messages) == 3


def test_the_statistics_of_a_database_tell_who_holds_leases(shell: Any, postgres: Postgres) -> None:
    schema = new_schema()

    async def while_one_is_sent() -> Any:
        async with await new_spool(postgres, schema=schema) as spool:
            await spool.put(TEXT)
            assert len(await spool.claim()) == 1
            line = f"queue stats --json --rates 0.1 --spool {postgres.url()}?schema={schema}"
            return await asyncio.to_thread(shell, line)

    found = json.loads(asyncio.run(while_one_is_sent()).stdout)
    [holder] = found["holders"]
    assert holder["name"].startswith(f"{socket.gethostname()}:{os.getpid()}:") and holder["leases"] == 1
    assert 0 < holder["left"] <= 900
    assert (found["sending"], found["rates"]["sending"]) == (1, 0.0)


def test_a_spool_is_not_moved_to_itself(shell: Any, old: Path) -> None:
    done = shell(f"queue copy {old} {old.parent}/../{old.parent.name}/old")
    assert (done.exit_code, done.stderr) == (Exit.USAGE, "smtp-async: FROM and TO are the same spool.\n")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{SECRET}@127.0.0.1:1/app",
        f"postgresql://ann:{SECRET}@127.0.0.1:port/app",
        f"mysql://ann:{SECRET}@127.0.0.1/app",
    ],
)
@pytest.mark.parametrize("line", ["ls --spool", "stats --spool", "init", "copy {old}"])
def test_no_password_of_a_url_is_shown(shell: Any, old: Path, url: str, line: str) -> None:
    done = shell(f"queue {line.format(old=old)} {url}")
    assert done.exit_code in (Exit.USAGE, Exit.SETUP, Exit.NOT_SENT)
    assert done.stderr.count("\n") == 1 and SECRET not in done.output
