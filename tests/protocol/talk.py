"""A scripted conversation with the machine: what it writes is compared, what the server says is delivered."""

from collections.abc import Callable, Iterable
from typing import Any

from smtp_async.model.content import Content
from smtp_async.model.envelope import Envelope, Kind, Recipient
from smtp_async.model.receipt import Receipt
from smtp_async.protocol.machine import ClientProtocol, Exchange
from smtp_async.protocol.options import SendOptions
from smtp_async.protocol.pipelining_history import PipeliningHistory
from smtp_async.protocol.plan import plan
from smtp_async.protocol.states import Stage
from smtp_async.protocol.transaction import Transaction

Deliver = Callable[[ClientProtocol, bytes], None]

BODY = b"Subject: x\r\n\r\nHi\r\n"
DOT = b".\r\n"


def whole(machine: ClientProtocol, data: bytes) -> None:
    machine.receive_data(data)


def by_line(machine: ClientProtocol, data: bytes) -> None:
    for line in data.splitlines(keepends=True):
        machine.receive_data(line)


def by_octet(machine: ClientProtocol, data: bytes) -> None:
    for octet in data:
        machine.receive_data(bytes((octet,)))


MANNERS: dict[str, Deliver] = {"whole": whole, "by line": by_line, "by octet": by_octet}


def lines(*texts: str) -> bytes:
    return b"".join(text.encode() + b"\r\n" for text in texts)


class Talk:
    """One connection; `says` is the server, `writes` what the client must have written since the last time.

    Unless said otherwise the server is known to read on behind an end of data.
    """

    def __init__(self, deliver: Deliver = whole, *, proven: bool = True, **options: Any) -> None:
        self.history = options.setdefault("pipelining_history", PipeliningHistory())
        self.history.proven = proven
        self.machine = ClientProtocol(**options)
        self._deliver = deliver

    @classmethod
    def ready(
        cls, deliver: Deliver = whole, offer: Iterable[str] = ("PIPELINING",), **options: Any
    ) -> "Talk":
        """A conversation after its EHLO, with nothing recorded yet."""
        talk = cls(deliver, **options)
        talk.says("220 mx.example.org")
        talk.machine.hello("me.example")
        verb = "LHLO" if talk.machine.lmtp else "EHLO"
        talk.writes(f"{verb} me.example")
        words = ["mx.example.org", *offer]
        talk.says(*(f"250{'-' if word is not words[-1] else ' '}{word}" for word in words))
        talk.machine.take_settled()
        return talk

    def says(self, *texts: str) -> None:
        self._deliver(self.machine, lines(*texts))

    def writes(self, *texts: str | bytes) -> None:
        """Texts are lines, bytes stand for themselves."""
        expected = b"".join(lines(text) if isinstance(text, str) else text for text in texts)
        assert self.machine.data_to_send() == expected

    def plan(
        self,
        *recipients: Recipient,
        body: bytes = BODY,
        options: SendOptions | None = None,
        chunking: bool = False,
    ) -> Transaction:
        envelope = Envelope("ann@example.com", recipients or [bob()])
        content = Content.of_bytes(body)
        return plan(envelope, content, self.machine.extensions, options or SendOptions(), chunking=chunking)

    def begin(
        self,
        *recipients: Recipient,
        body: bytes = BODY,
        options: SendOptions | None = None,
        chunking: bool = False,
        hold: bool = False,
        streamed: bool = False,
    ) -> Transaction:
        transaction = self.plan(*recipients, body=body, options=options, chunking=chunking)
        if streamed:
            transaction.set_payload(None)
        self.machine.pipeline.begin(transaction, hold=hold)
        return transaction

    def stands(self, stage: Stage) -> None:
        assert self.machine.stage is stage

    def settled(self) -> list[Exchange | Transaction]:
        return self.machine.take_settled()


def bob(name: str = "bob", kind: Kind = Kind.TO) -> Recipient:
    return Recipient(f"{name}@example.org", kind)


def receipt_of(transaction: Transaction) -> Receipt:
    assert transaction.receipt is not None
    return transaction.receipt
