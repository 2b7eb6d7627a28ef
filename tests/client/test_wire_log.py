"""wire_log.py: every line is written with its sign, secrets masked and bodies as their size."""

import gc
import io
import logging
import logging.handlers
import os
import re
from pathlib import Path
from typing import Any

import pytest

from smtp_async import (
    NOBODY,
    Attachment,
    ClientOptions,
    Credentials,
    Security,
    SendOptions,
    SMTPClient,
    SMTPError,
)
from smtp_async.errors import FileError, InvalidArgument
from smtp_async.events import PITrail
from smtp_async.testing import close, raw, reply
from tests.lab import client_of, gathered, mail, speaking, trusting
from tests.servers import PASSWORD, USER
from tests.servers.exim import Exim
from tests.servers.machine import needs_proc
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = Credentials(username="ann", password="s3cret", mechanisms=("PLAIN",), allow_cleartext=True)


def lines_of(text: str) -> list[str]:
    """The lines without the time, which they all begin with."""
    lines = text.splitlines()
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line), line
    return [line.split(" ", 2)[2] for line in lines]


def open_files() -> set[str]:
    return {os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()}


def contents(directory: Path) -> list[str]:
    return [file.read_text() for file in directory.iterdir()]


async def test_a_whole_dialogue() -> None:
    log = io.StringIO()
    async with speaking(users={"ann": "s3cret"}, extensions=["PIPELINING", "SIZE 1000000"]) as server:
        async with client_of(server, wire_log=log, credentials=KEY) as client:
            receipt = await client.send(mail(text="Dear Bob"))
    size = len(server.messages[0].data)
    assert receipt.message_id is not None
    assert "Dear Bob" not in log.getvalue() and "s3cret" not in log.getvalue()
    # What the library itself adds, from "connecting to" to the end, stands between the lines.
    said = [line for line in lines_of(log.getvalue()) if not line.startswith("1 = ")]
    assert len(said) < len(log.getvalue().splitlines())
    assert [line for line in said if line.startswith("1 > ")] == [
        "1 > EHLO client.test",
        "1 > AUTH PLAIN ***",
        "1 > EHLO client.test",
        f"1 > MAIL FROM:<ann@example.com> SIZE={size}",
        "1 > RCPT TO:<user1@example.org>",
        "1 > DATA",
        f"1 > [{size} octets]",
        "1 > .",
        "1 > QUIT",
    ]
    assert [line[:8] for line in said if line.startswith("1 < ")][:2] == ["1 < 220 ", "1 < 250-"]
    assert not log.closed


async def test_streamed_bodies_and_chunks() -> None:
    log = io.StringIO()
    big = Attachment(io.BytesIO(b"x" * 200_000), filename="big.bin")
    async with speaking() as server, client_of(server, wire_log=log) as client:
        await client.send(mail(attachments=[big]))
        await client.send(mail(2), options=SendOptions(chunking="always"))
    sizes = [len(one.data) for one in server.messages]
    assert sizes[0] > 200_000
    # BDAT tells its size itself.
    found = [line for line in lines_of(log.getvalue()) if "octets]" in line or "> BDAT" in line]
    assert found == [f"1 > [{sizes[0]} octets]", f"1 > BDAT {sizes[1]} LAST"]


async def test_a_lone_dot_ends_an_empty_body() -> None:
    log = io.StringIO()
    async with speaking() as server, client_of(server, wire_log=log) as client:
        server.on("RCPT", reply(550, "5.1.1 no such user"))
        server.on("DATA", reply(354, "go on"))
        (error,) = await gathered(client.send(mail(), options=SendOptions(must_accept=NOBODY)))
    assert isinstance(error, SMTPError)
    lines = lines_of(log.getvalue())
    assert "1 > [0 octets]" in lines
    assert "1 ! user1@example.org: 550 5.1.1 no such user" in lines


@pytest.mark.parametrize("answer", [raw(b"garbage\r\n"), raw(b"550 \x1b[2J\xe2\x80\xaeno\r\n"), close()])
async def test_what_fails_is_marked_and_nothing_forges_a_line(answer: Any) -> None:
    log = io.StringIO()
    async with speaking() as server, client_of(server, wire_log=log) as client:
        server.on("MAIL", answer)
        server.on("MAIL", answer, nth=2, optional=True)
        server.on("MAIL", answer, nth=3, optional=True)
        await gathered(client.send(mail()))
    assert (
        any(line.startswith("1 ! ") for line in lines_of(log.getvalue())) or b"550" in repr(answer).encode()
    )
    assert log.getvalue().replace("\n", "").isprintable()


class TestFiles:
    @needs_proc
    async def test_a_file_is_appended_to_and_closed_with_the_client(self, tmp_path: Path) -> None:
        path = tmp_path / "wire.log"
        for _ in range(2):
            async with speaking() as server, client_of(server, wire_log=path) as client:
                await client.send(mail())
        text = path.read_text()
        assert [line for line in lines_of(text) if "EHLO" in line and ">" in line] == [
            "1 > EHLO client.test"
        ] * 2
        assert str(path) not in open_files()

    async def test_a_file_that_was_renamed_is_opened_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "wire.log"
        async with speaking() as server, client_of(server, wire_log=str(path)) as client:
            await client.send(mail())
            path.rename(tmp_path / "wire.log.1")
            await client.send(mail(2))
        assert "EHLO" in (tmp_path / "wire.log.1").read_text()
        assert "QUIT" in path.read_text() and "EHLO" not in path.read_text()

    async def test_a_client_that_was_never_used_holds_no_file(self, tmp_path: Path) -> None:
        client = SMTPClient("mx.test", options=ClientOptions(wire_log=tmp_path / "wire.log"))
        files = [one for one in gc.get_objects() if isinstance(one, io.IOBase)]
        assert str(tmp_path / "wire.log") not in [getattr(one, "name", "") for one in files]
        await client.close()
        await client.close()

    def test_a_path_that_cannot_be_opened_shows_at_once(self, tmp_path: Path) -> None:
        for path in (tmp_path / "no" / "wire.log", tmp_path, "a\0b"):
            with pytest.raises(FileError, match="wire log"):
                SMTPClient("mx.test", options=ClientOptions(wire_log=path))

    @pytest.mark.parametrize("target", [io.BytesIO(), 7, b"path", object(), logging.INFO])
    def test_what_is_no_target_shows_at_once(self, target: Any) -> None:
        with pytest.raises(InvalidArgument, match="wire_log"):
            SMTPClient("mx.test", options=ClientOptions(wire_log=target))


class TestLoggers:
    async def test_records_have_fields_and_levels(self, caplog: pytest.LogCaptureFixture) -> None:
        logger = logging.getLogger("smtp_async.wire")
        caplog.set_level(logging.DEBUG, "smtp_async.wire")
        async with speaking() as server, client_of(server, wire_log=logger) as client:
            server.on("MAIL", reply(550, "5.7.1 no"), nth=2)
            await client.send(mail())
            await gathered(client.send(mail(2)))
        found: dict[str, Any] = {record.getMessage(): record for record in reversed(caplog.records)}
        assert {record.getMessage()[0]: record.levelno for record in caplog.records} == {
            ">": logging.DEBUG,
            "<": logging.DEBUG,
            "=": logging.INFO,
            "!": logging.WARNING,
        }
        data = found["> DATA"]
        assert (data.session, data.job, data.command, data.name) == (1, 1, "DATA", "smtp_async.wire")
        refused = next(one for one in caplog.records if one.getMessage().startswith("! "))
        assert (vars(refused)["job"], vars(refused)["command"]) == (2, None)

    async def test_the_level_of_the_logger_holds(self, caplog: pytest.LogCaptureFixture) -> None:
        logger = logging.getLogger("smtp_async.wire")
        caplog.set_level(logging.INFO, "smtp_async.wire")
        async with speaking() as server, client_of(server, wire_log=logger) as client:
            await client.send(mail())
        assert {record.getMessage()[0] for record in caplog.records} == {"="}

    async def test_the_standard_handlers_rotate(self, tmp_path: Path) -> None:
        logger = logging.Logger("application.smtp", logging.DEBUG)
        path = tmp_path / "wire.log"
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=500, backupCount=99)
        logger.addHandler(handler)
        async with speaking() as server, client_of(server, wire_log=logger) as client:
            for n in range(8):
                await client.send(mail(n))
        handler.close()
        texts = contents(tmp_path)
        assert len(texts) > 2
        assert "".join(texts).count("> DATA") == 8


async def test_hooks_of_the_application_are_not_disturbed() -> None:
    log, heard = io.StringIO(), list[PITrail]()
    async with speaking() as server, client_of(server, wire_log=log) as client:
        client.on(PITrail, heard.append)
        await client.send(mail())
        client.off(PITrail, heard.append)
        await client.send(mail(2))
    assert log.getvalue().count("> DATA") == 2
    assert sum(event.message == "DATA" for event in heard) == 1
    assert [event.size for event in heard if event.size is not None] == [len(server.messages[0].data)]


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_real_servers(name: str, request: pytest.FixtureRequest, pki: Pki) -> None:
    server: Postfix | Exim = request.getfixturevalue(name)
    log = io.StringIO()
    options = ClientOptions(tls=trusting(pki), wire_log=log)
    async with SMTPClient(
        "localhost",
        server.ports.tls,
        username=USER,
        password=PASSWORD,
        security=Security.IMPLICIT,
        options=options,
    ) as client:
        await client.send(mail(), recipients=["bob@lab.test"])
    lines = lines_of(log.getvalue())
    assert any(line.startswith("1 > AUTH ") and line.endswith("***") for line in lines)
    assert PASSWORD not in log.getvalue()
    assert sum(bool(re.fullmatch(r"1 > \[\d+ octets\]", line)) for line in lines) == 1
