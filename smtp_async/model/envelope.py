"""Recipients, and the envelope: the sender and the recipients in MAIL and RCPT."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from ..errors import InvalidAddress, MissingRecipient
from .address import Address
from .dsn import DSN

__all__ = ["EVERYONE", "NOBODY", "Envelope", "Kind", "Recipient"]


class Kind(Enum):
    """The kind of a recipient; the value is the name of the header field."""

    TO = "To"
    CC = "Cc"
    BCC = "Bcc"


#: All kinds of recipients, and none.
EVERYONE: Final[frozenset[Kind]] = frozenset(Kind)
NOBODY: Final[frozenset[Kind]] = frozenset()


class Recipient:
    """One recipient of a message. Immutable.

    Args:
        address: of the recipient; a text is parsed.
        kind: To, Cc or Bcc.
        name: a display name in place of the one that `address` has.
        dsn: reports to request about this recipient (RFC 3461); the server must offer DSN.
        lenient: as for `Address.parse`: send to `a..b@example.com` or `ops@mail_host`, which RFC 5321 does not allow.

    Raises:
        InvalidAddress: the text is not one mailbox, or the name is not a valid display name.
    """

    __slots__ = ("_address", "_dsn", "_kind")

    def __init__(
        self,
        address: str | Address,
        kind: Kind = Kind.TO,
        *,
        name: str | None = None,
        dsn: DSN | None = None,
        lenient: bool = False,
    ) -> None:
        # Checked here, too, because most are addresses already: this saves a call for each recipient.
        self._address = address if isinstance(address, Address) else Address.parse(address, lenient=lenient)
        self._kind = kind
        self._dsn = dsn
        if name is not None:
            self._address = self._address.with_name(name)

    @classmethod
    def of(cls, value: str | Address | Recipient, kind: Kind = Kind.TO) -> Recipient:
        """Return `value` if it is a recipient, else a recipient of this kind.

        Raises:
            InvalidAddress: the text is not one mailbox.
        """
        return value if isinstance(value, Recipient) else cls(value, kind)

    @property
    def address(self) -> Address:
        """The mailbox."""
        return self._address

    @property
    def kind(self) -> Kind:
        """To, Cc or Bcc."""
        return self._kind

    @property
    def name(self) -> str:
        """The display name of the mailbox, empty if there is none."""
        return self._address.name

    @property
    def dsn(self) -> DSN | None:
        """The requested reports about this recipient, None if there is no request."""
        return self._dsn

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipient):
            return NotImplemented
        return (self._address, self._kind, self._dsn) == (other._address, other._kind, other._dsn)

    def __hash__(self) -> int:
        return hash((self._address, self._kind))

    def __repr__(self) -> str:
        dsn = f", dsn={self._dsn!r}" if self._dsn is not None else ""
        return f"Recipient({self._address!r}, {self._kind}{dsn})"


class Envelope:
    """The address for bounces and the recipients, as in MAIL and RCPT. Immutable.

    Args:
        sender: the return path; `None` or `"<>"` is the null return path, to which no bounce is sent.
        recipients: at least one; texts and addresses count as To.

    Raises:
        MissingRecipient: there is no recipient.
        InvalidAddress: a text is not one mailbox.
    """

    __slots__ = ("_recipients", "_sender")

    def __init__(self, sender: str | Address | None, recipients: Iterable[str | Address | Recipient]) -> None:
        if isinstance(recipients, str):
            raise InvalidAddress(
                "recipients are a list, not one text; parse_list() parses a text into a list"
            )
        if isinstance(sender, Address):
            self._sender: Address | None = sender
        else:
            self._sender = None if sender is None or sender == "<>" else Address.parse(sender)
        self._recipients = tuple([r if isinstance(r, Recipient) else Recipient(r) for r in recipients])
        if not self._recipients:
            raise MissingRecipient("the message has no recipient: give one as to=…, cc=… or bcc=…")

    @property
    def sender(self) -> Address | None:
        """The return path, `None` for the null one."""
        return self._sender

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """All recipients, in the order of RCPT."""
        return self._recipients

    @property
    def needs_utf8(self) -> bool:
        """A local part is not ASCII, so the transaction needs SMTPUTF8."""
        if self._sender is not None and self._sender.needs_utf8:
            return True
        for recipient in self._recipients:
            if recipient._address._needs_utf8:
                return True
        return False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Envelope):
            return NotImplemented
        return self._sender == other._sender and self._recipients == other._recipients

    def __hash__(self) -> int:
        return hash((self._sender, self._recipients))

    def __repr__(self) -> str:
        return f"Envelope({self._sender!r}, {list(self._recipients)!r})"
