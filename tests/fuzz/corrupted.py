"""Corrupted input for everything that reads what others wrote, many thousand examples a second.

The seeds are files in `corpus`, a folder for each target. An example is a seed, or a few of them, with octets changed,
cut out, repeated and put in. A target may raise an `SMTPError`, and takes time in proportion to the length; an example
that shows anything else is printed as a literal, and belongs in the corpus then.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from smtp_async import Address, Message, ProxyOptions, ProxyType, SMTPError
from smtp_async.auth.mechanism import decode_challenge
from smtp_async.model.reply import Reply
from smtp_async.processor.bounce_parser import parse_report
from smtp_async.protocol.extensions import Extensions
from smtp_async.protocol.parser import ReplyParser
from smtp_async.spool.record import parse
from smtp_async.tls.certificate import Certificate
from smtp_async.transport.proxy.challenges import parse_challenges
from smtp_async.transport.proxy.http_reply import parse_head
from smtp_async.transport.proxy.socks import connect_socks

__all__ = ["TARGETS", "Target", "corrupted", "exercise", "seeds"]

CORPUS = Path(__file__).with_name("corpus")
#: How often an example is tried again that took longer than it may.
AGAIN = 5
_PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b"-", b" ", b"250", b"250-", b"334 ", b"421", b"5.1.1", b"999999999999", b"\xff",
    b"\x80", b"<", b">", b"\"", b"\\", b"@", b"(", b")", b":", b";", b",", b"=", b"==", b"=?utf-8?q?", b"?=", b"--",
    b"%00", b"{", b"}", b"[", b"]", b"null", b"-1", b"1e400", b"\xe2\x80\xae", b"\xed\xa0\x80",
    b"\x30\x84\xff\xff\xff\xff",
)  # fmt: skip


class Target(NamedTuple):
    """Something that reads octets.

    Attributes:
        name: the name of its folder in the corpus.
        read: reads one example.
        examples: how many `make fuzz` tries at least.
        pace: milliseconds of processor time that it may take for each kB.
    """

    name: str
    read: Callable[[bytes], object]
    examples: int = 20_000
    pace: float = 1.0


# --- targets -----------------------------------------------------------------------------------------------------


def _replies(data: bytes) -> None:
    parser = ReplyParser()
    # In two pieces, as a network may deliver it.
    half = len(data) // 2
    for piece in (data[:half], data[half:]):
        for reply in parser.take(piece):
            assert 200 <= reply.code <= 599, reply


def _ehlo(data: bytes) -> None:
    extensions = Extensions.parse(Reply(250, tuple(data.split(b"\n"))))
    repr(extensions)


def _address(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for lenient in (False, True):
        address = Address.parse(text, lenient=lenient)
        assert not {"\r", "\n", "\0"} & set(address.addr_spec), address


def _message(data: bytes) -> None:
    Message.from_bytes(data)
    parse_report(data)


def _challenge(data: bytes) -> None:
    decode_challenge(data)


def _proxy(data: bytes) -> None:
    response = parse_head(data)
    parse_challenges([value for name, value in response.headers if name.lower() == "proxy-authenticate"])


class _Answers:
    """A stream whose other end says this and ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def write(self, data: bytes) -> None:
        """Take what is written."""

    async def drain(self) -> None:
        """Return at once."""

    async def read(self, size: int) -> bytes:
        """Return the next octets."""
        found, self._data = self._data[:size], self._data[size:]
        return found


def _socks(data: bytes) -> None:
    kind = ProxyType.SOCKS5 if len(data) % 2 else ProxyType.SOCKS4
    host = "mail.example" if kind is ProxyType.SOCKS5 else "192.0.2.1"
    stream: Any = _Answers(data)
    options = ProxyOptions(type=kind, host="127.0.0.1", username="u", password="p" * (len(data) % 2))
    asyncio.run(connect_socks(stream, options, host, 25))


def _certificate(data: bytes) -> None:
    found = Certificate.of(data)
    if found is not None:
        repr(found)


def _record(data: bytes) -> None:
    parse(data)


TARGETS = (
    Target("replies", _replies, 1_000_000),
    Target("ehlo", _ehlo, 50_000),
    # Each of hundreds of words of a display name is read by itself.
    Target("addresses", _address, 50_000, pace=10.0),
    # A field of a message is an object with a good reason or an error of its own, which costs more than a line.
    Target("messages", _message, pace=10.0),
    Target("challenges", _challenge, 50_000),
    Target("proxy", _proxy, 50_000),
    # Each example has an event loop of its own.
    Target("socks", _socks, 5_000, pace=10.0),
    Target("certificates", _certificate),
    Target("records", _record, 50_000),
)


# --- examples ----------------------------------------------------------------------------------------------------


def seeds(target: Target) -> list[bytes]:
    """Return the seeds of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target.name).iterdir())]


def corrupted(chance: random.Random, found: list[bytes]) -> bytes:
    """Return an example."""
    data = bytearray(chance.choice(found))
    for _ in range(chance.randint(0, 4)):
        at, length = chance.randint(0, len(data)), chance.choice((1, 1, 2, 4, 16, 64))
        match chance.randint(0, 6):
            case 0 if data:
                data[at % len(data)] = chance.randrange(256)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = chance.choice(_PIECES)
            case 3:
                data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                other = chance.choice(found)
                data[at:] = other[chance.randint(0, len(other)) :]
            case 5:
                data[at:at] = chance.choice(_PIECES) * chance.choice((2, 10, 300))
            case _:
                data[at:at] = chance.randbytes(length)
    return bytes(data)


def exercise(target: Target, chance: random.Random, *, examples: int, seconds: float = 0.0) -> int:
    """Try the seeds, and then so many corrupted ones, or more until the time is over; return how many that were.

    Raises:
        AssertionError: an example raised something else, or took too long.
    """
    found = seeds(target)
    cases, end = 0, time.monotonic() + seconds
    for data in found:
        _try(target, data)
    while cases < examples or time.monotonic() < end:
        for _ in range(100):
            _try(target, corrupted(chance, found))
        cases += 100
    return cases + len(found)


def _try(target: Target, data: bytes) -> None:
    limit = target.pace / 1000 * max(1.0, len(data) / 1000)
    taken = 0.0
    for _ in range(AGAIN):
        began = time.thread_time()
        try:
            target.read(data)
        except SMTPError as error:
            assert str(error)
        except Exception as error:
            raise AssertionError(f"{target.name}: {type(error).__name__} for {data!r}") from error
        taken = time.thread_time() - began
        if taken <= limit:
            return
    raise AssertionError(f"{target.name}: {taken * 1000:.1f} ms for {len(data)} octets: {data[:2000]!r}")
