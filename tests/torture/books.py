"""The books of what a client was told and what a server accepted, and the check that they agree.

A message has a name of its own; its sender, its recipients and its content follow from the name, so that an accepted
message tells which one it is. What the server accepted is kept as (MAIL, RCPTs, digest of the content).
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from smtp_async import Outcome, Raw, Receipt, SMTPClient, SMTPError
from smtp_async.connection.connection import Connection
from smtp_async.connection.send_job import SendJob
from smtp_async.pool.pool import Pool
from smtp_async.testing import RecordingSink
from smtp_async.transport.stream import Stream
from tests.connection.test_login import demand_no_canary, told
from tests.lab import other_tasks, until

#: Where the addresses are: real servers deliver mail for this domain.
DOMAIN = "lab.test"
#: Octets of the body of a message that is too large to be kept in memory.
LARGE = 100_000

_numbers = itertools.count(1)


class Accepted(NamedTuple):
    """One message as a server accepted it."""

    sender: str
    recipients: tuple[str, ...]
    digest: str

    @property
    def name(self) -> str:
        """The name of the message."""
        return self.sender.partition("@")[0]


class Letter(NamedTuple):
    """A message of the tests.

    Attributes:
        name: what its addresses and its content follow from.
        content: header and body, every line with CRLF.
        recipients: the addresses of the envelope.
    """

    name: str
    content: bytes
    recipients: tuple[str, ...]

    @property
    def sender(self) -> str:
        """The sender of the envelope."""
        return f"{self.name}@{DOMAIN}"

    @property
    def digest(self) -> str:
        """The digest of the content, as it must arrive."""
        return hashlib.sha256(self.content).hexdigest()

    def raw(self, *, streamed: bool = False) -> Raw:
        """Return it as something to send: bytes, or a stream."""
        return Raw(io.BytesIO(self.content) if streamed else self.content, self.sender, self.recipients)


def letter(*, recipients: int = 1, large: bool = False) -> Letter:
    """Return a new message, with lines that begin with a dot."""
    name = f"m{os.getpid()}x{next(_numbers)}"
    lines = [b"Hello", b".", b"..", b"." + name.encode()] * (LARGE // 20 if large else 1)
    head = (
        f"X-Case: {name}\r\nFrom: {name}@{DOMAIN}\r\nTo: all@{DOMAIN}\r\nSubject: {name}\r\n"
        f"Date: Mon, 30 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{name}@{DOMAIN}>\r\n\r\n"
    )
    return Letter(
        name,
        head.encode() + b"\r\n".join(lines) + b"\r\n",
        tuple(f"{name}.{place}@{DOMAIN}" for place in range(recipients)),
    )


class Told(NamedTuple):
    """What a caller was told of a message: the outcome of each recipient, None if nothing was told."""

    outcomes: dict[str, Outcome] | None
    seconds: float


class Books:
    """What the callers of one run were told.

    Args:
        unwrap: takes from a content what the client was asked to add, a signature for example.

    Attributes:
        letters: the messages by name.
        told: what the callers were told, by name.
        flagged: for a spool, how many attempts were announced as a possible second copy, by name.
        unknown: the number of recipients whose outcome was unknown.
        slowest: the longest time in which a caller was told, in seconds.
    """

    def __init__(self, unwrap: Callable[[bytes], bytes] = lambda content: content) -> None:
        self._unwrap = unwrap
        self.letters: dict[str, Letter] = {}
        self.told: dict[str, Told] = {}
        self.flagged: Counter[str] = Counter()
        self.queued: set[str] = set()
        self.unknown = 0
        self.errors: list[SMTPError] = []

    @property
    def slowest(self) -> float:
        return max((one.seconds for one in self.told.values()), default=0.0)

    def new(self, **options: Any) -> Letter:
        """Return a new message, and note that it is about to be sent."""
        made = letter(**options)
        self.letters[made.name] = made
        self.told[made.name] = Told(None, 0.0)
        return made

    def tell(self, made: Letter, receipt: Receipt | None, seconds: float = 0.0) -> None:
        """Note what a caller was told of a message."""
        outcomes = None
        if receipt is not None and receipt.verdicts:
            outcomes = {str(one.recipient.address): one.outcome for one in receipt.verdicts}
            assert set(outcomes) == set(made.recipients), (made.name, outcomes)
        elif receipt is not None:
            # It failed before it had a verdict for each recipient, so nothing left.
            outcomes = dict.fromkeys(made.recipients, Outcome.NOT_SENT)
        self.told[made.name] = Told(outcomes, seconds)

    async def send(self, client: SMTPClient, made: Letter, **options: Any) -> None:
        """Send a message and note what became of it; an error is noted, a cancellation is raised again."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        raw = made.raw(streamed=options.pop("streamed", False))
        sending: Awaitable[Receipt] = client.send_raw(
            raw.source, sender=raw.sender, recipients=raw.recipients, **options
        )
        try:
            receipt: Receipt | None = await sending
        except asyncio.CancelledError as error:
            self.tell(made, vars(error).get("receipt"), loop.time() - before)
            raise
        except SMTPError as error:
            self.errors.append(error)
            receipt = Receipt.of(error)
            assert receipt is not None, repr(error)
        self.tell(made, receipt, loop.time() - before)

    async def send_all(self, client: SMTPClient, made: Sequence[Letter], **options: Any) -> None:
        """The same for many messages by `send_all`."""
        names = {one.sender: one for one in made}
        try:
            async for message, receipt in client.send_all([one.raw() for one in made], **options):
                # The time is not noted, because it is not known when the message was taken from the list.
                self.tell(names[str(message.sender)], receipt)
        except SMTPError as error:
            self.errors.append(error)
            for one in made:
                if self.told[one.name].outcomes is None:
                    self.tell(one, Receipt(()))

    def demand_accepted(self) -> None:
        """Raise if a caller was told anything but that every recipient was accepted."""
        outcomes = [one.outcomes for name, one in self.told.items() if name not in self.queued]
        wrong = [one for one in outcomes if one is None or set(one.values()) != {Outcome.ACCEPTED}]
        assert not wrong, (wrong, self.errors)

    def check(self, accepted: Sequence[Accepted]) -> None:
        """Compare the books with what the server accepted.

        Args:
            accepted: what the server accepted in this run, and nothing else.

        Raises:
            AssertionError: they do not agree.
        """
        copies: Counter[tuple[str, str]] = Counter()
        for one in accepted:
            name, made = one.name, self.letters.get(one.name)
            assert made is not None, f"the server accepted {one}, which nobody sent"
            assert one.digest == made.digest, f"{name} arrived changed"
            assert set(one.recipients) <= set(made.recipients), f"{name} went to {one.recipients}"
            assert len(set(one.recipients)) == len(one.recipients), f"{name} went to {one.recipients}"
            copies.update((name, recipient) for recipient in one.recipients)
        for name, made in self.letters.items():
            for recipient in made.recipients:
                self._check_recipient(name, recipient, copies[name, recipient])

    def _check_recipient(self, name: str, recipient: str, copies: int) -> None:
        if name in self.queued:
            assert copies >= 1, f"{recipient} was acknowledged, and is lost"
            assert copies <= 1 + self.flagged[name], f"{recipient} got {copies} copies, unannounced"
            return
        outcomes = self.told[name].outcomes
        outcome = Outcome.UNKNOWN if outcomes is None else outcomes[recipient]
        self.unknown += outcome is Outcome.UNKNOWN
        if outcome is Outcome.UNKNOWN:
            assert copies <= 1 + self.flagged[name], f"{recipient} got {copies} copies"
        else:
            assert copies == (outcome is Outcome.ACCEPTED), f"{recipient}: {outcome}, and {copies} copies"

    def accepted_by(self, server: RecordingSink) -> list[Accepted]:
        """Return what a server accepted, without what the client was asked to add."""
        return [
            Accepted(one.mail_from, tuple(one.rcpt_tos), hashlib.sha256(self._unwrap(one.data)).hexdigest())
            for one in server.messages
        ]


def delivered_by(mta: Any, unwrap: Callable[[bytes], bytes]) -> list[Accepted]:
    """Return what a real server has delivered of the messages of these tests, each recipient by itself."""
    found = []
    for one in mta.messages():
        content = getattr(one, "content", one)
        begin = content.find(b"X-Case: ")
        to = re.search(rb"(?im)^(?:Delivered-To|Envelope-To): <?([^\s>]+)", content[: max(begin, 0)])
        sender = re.search(rb"(?im)^Return-Path: <([^>]*)>", content[: max(begin, 0)])
        if to is not None and sender is not None:
            wire = content[begin:].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            digest = hashlib.sha256(unwrap(wire)).hexdigest()
            found.append(Accepted(sender[1].decode(), (to[1].decode(),), digest))
    return found


# --- nothing is left, nothing secret shows -----------------------------------------------------------------------


def held() -> tuple[set[asyncio.Task[Any]], int]:
    """Return the tasks and the number of open files."""
    return other_tasks(), len(os.listdir("/proc/self/fd"))


async def demand_back(before: tuple[set[asyncio.Task[Any]], int]) -> None:
    """Wait until tasks and files are those of before.

    Raises:
        TimeoutError: they are not.
    """
    tasks, files = before
    await until(lambda: not other_tasks() - tasks and len(os.listdir("/proc/self/fd")) <= files)


def living() -> Counter[str]:
    """Count the clients, pools, connections, streams and jobs that are still in memory."""
    gc.collect()
    kinds = (SMTPClient, Pool, Connection, Stream, SendJob)
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds))


class Shown:
    """What the library shows: its log records, the wire log of the clients, and errors."""

    def __init__(self, seen: set[tuple[str, ...]]) -> None:
        self.text = io.StringIO()
        self._seen = seen

    def check(self, books: Books) -> None:
        """Look for the secret in everything that was shown since the last check.

        Raises:
            AssertionError: it is there.
        """
        demand_no_canary(self.text.getvalue())
        self.text.seek(0)
        self.text.truncate()
        for error in books.errors:
            demand_no_canary(error)
            # A whole traceback costs a hundred times as much, so each kind of error is looked at once.
            kind = type(error).__name__, type(error.__cause__).__name__, str(error.stage)
            if kind not in self._seen:
                self._seen.add(kind)
                demand_no_canary(told(error))


@contextmanager
def shown(seen: set[tuple[str, ...]]) -> Iterator[Shown]:
    """Collect what the library shows, every log record included.

    Args:
        seen: the kinds of errors that were looked at; new ones are added.
    """
    logger, found = logging.getLogger("smtp_async"), Shown(seen)
    handler = logging.StreamHandler(found.text)
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
