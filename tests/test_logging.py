"""The configuration of the manual's page on logging, executed: each setting of it does what it says."""

import asyncio
import logging
import logging.config
import logging.handlers
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async import ClientOptions
from smtp_async.testing import reply
from tests.lab import client_of, close_handlers, gathered, logging_restored, mail, speaking

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "logging.md"
LOGGER = "smtp_async.wire"


class Configured:
    """The example, in a directory of its own.

    Attributes:
        settings: what it hands to `dictConfig`, to be changed by a test before `apply`.
        options: of the client that it makes.
    """

    def __init__(self) -> None:
        (source,) = (
            block
            for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
            if "dictConfig" in block
        )
        made: dict[str, Any] = {}
        exec(source, made)
        self.settings: dict[str, Any] = made["LOGGING"]
        self.options: ClientOptions = made["options"]

    def apply(self) -> None:
        close_handlers(LOGGER)
        logging.config.dictConfig(self.settings)

    async def converse(self, messages: int = 1, *, refused: bool = False) -> None:
        async with speaking() as server, client_of(server, wire_log=self.options.wire_log) as client:
            if refused:
                server.on("RCPT", reply(550, "5.1.1 no such user"))
            await gathered(*(client.send(mail(n)) for n in range(messages)))

    def flush(self) -> str:
        for handler in logging.getLogger(LOGGER).handlers:
            handler.flush()
        return text()


def text() -> str:
    return "".join(file.read_text() for file in sorted(Path().glob("smtp.log*")))


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    monkeypatch.chdir(tmp_path)
    with logging_restored(LOGGER):
        yield Configured()


def test_file_and_destination(configured: Configured) -> None:
    asyncio.run(configured.converse())
    assert "> DATA" in configured.flush()
    assert [file.name for file in Path().glob("*")] == ["smtp.log"]
    # Another destination: nowhere.
    configured.settings["handlers"]["file"] = {"class": "logging.NullHandler"}
    configured.apply()
    before = text()
    asyncio.run(configured.converse())
    assert configured.flush() == before


def test_details(configured: Configured) -> None:
    asyncio.run(configured.converse())
    lines = configured.flush().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d (DEBUG|INFO|WARNING) 1/(None|1) [<>=!] ", line) for line in lines)
    assert any(" DEBUG 1/1 > DATA" in line for line in lines)


def test_filters(configured: Configured) -> None:
    asyncio.run(configured.converse())
    assert "PIPELINING" not in configured.flush()
    configured.settings["handlers"]["file"]["filters"] = []
    configured.apply()
    asyncio.run(configured.converse())
    assert "< 250-PIPELINING" in configured.flush()


def test_level(configured: Configured) -> None:
    configured.settings["loggers"][LOGGER]["level"] = "INFO"
    configured.apply()
    asyncio.run(configured.converse())
    lines = configured.flush().splitlines()
    assert lines and all(" INFO " in line for line in lines)


def test_records_are_held_until_one_is_severe(configured: Configured) -> None:
    asyncio.run(configured.converse())
    assert text() == ""
    asyncio.run(configured.converse(refused=True))
    assert "! user0@example.org: 550" in text() and "> QUIT" in text()


def test_records_are_held_up_to_a_number(configured: Configured) -> None:
    configured.settings["handlers"]["buffer"]["capacity"] = 50
    configured.apply()
    asyncio.run(configured.converse())
    assert text() == ""
    asyncio.run(configured.converse(messages=8))
    assert len(text().splitlines()) >= 50


def test_rotation(configured: Configured) -> None:
    configured.settings["handlers"]["file"]["maxBytes"] = 400
    configured.apply()
    for _ in range(3):
        asyncio.run(configured.converse())
        configured.flush()
    names = sorted(file.name for file in Path().glob("*"))
    assert names == ["smtp.log", "smtp.log.1", "smtp.log.2", "smtp.log.3"]
