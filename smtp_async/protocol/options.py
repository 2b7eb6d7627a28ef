"""The options of one message: how it is sent, and what is asked of the servers on its way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, get_args

from ..errors import InvalidArgument
from ..model.address import Address
from ..model.dsn import Return
from ..model.envelope import EVERYONE, Kind
from ..model.signing import MessageSigner, signers_of
from . import parameters
from .commands import SendVerb

__all__ = ["SMALL_BODY", "DeliverBy", "SendOptions", "Wish"]

#: A body up to this size is written at once by the connection; a larger one by its caller's task.
SMALL_BODY: Final = 65536

#: The keyword that a server must offer, and the parameter of MAIL that is written if it does.
Wish = tuple[str, bytes]

_FLAGS: Final = (
    "split",
    "require_to",
    "remove_bcc",
    "exact",
    "close_source",
    "dsn_required",
    "require_tls",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverBy:
    """The time by which a message must have been delivered, RFC 2852.

    Attributes:
        seconds: counted from MAIL; whole seconds are sent, fractions are cut off.
        notify: when the time is over, report that to the sender and keep trying (by-mode N; the time may then be zero
            or negative). If False the message is returned instead (by-mode R).
        trace: have each relay on the way that does not offer DELIVERBY reported.

    Raises:
        InvalidArgument: more than nine digits, or less than a second for a message that is to be returned.
    """

    seconds: float
    notify: bool = False
    trace: bool = False

    def __post_init__(self) -> None:
        parameters.by(self.seconds, notify=self.notify, trace=self.trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How one message is sent.

    What needs an extension that the server does not offer is refused with `ExtensionMissing` before MAIL.

    Attributes:
        must_accept: the kinds of recipients that must all be accepted: one refusal among them refuses the message for
            all recipients. `EVERYONE` and `NOBODY` are the extremes; if every recipient is refused, nothing is sent in
            any case.
        split: spread the recipients over several transactions where the server takes fewer at once (RFC 9422
            LIMITS, or 452 to a RCPT). `must_accept` holds for the first of them; later refusals are PARTIAL.
        before_end_of_data: awaited before the end of data may leave; if it raises, the message is not sent.
        require_to: refuse a message that has Cc or Bcc recipients only (`MissingRecipient`).
        remove_bcc: remove the fields Bcc and Resent-Bcc from what `send_raw` sends. From other messages they are always
            removed.
        exact: leave the line ends of what `send_raw` sends, and of `Message.raw`, as they are. Bare CR and LF then need
            the server's BINARYMIME.
        chunking: `"auto"` writes bodies with BDAT (RFC 3030) where that saves waiting or the content needs it,
            `"always"` wherever the server offers CHUNKING, `"never"` nowhere.
        chunk_size: octets, before dots are doubled, of the pieces in which a body is written: of one chunk with BDAT.
            A body of up to 64 KiB that fits is written in one piece.
        close_source: close streams after the transfer, even if it failed: the source given to `send_raw`, and `text`,
            `html` and `raw` of a `Message`. An attachment has an option of its own.
        progress: called with the octets sent so far and their total (None if unknown), plain or async. If it returns
            False the connection is dropped and the message is not sent.
        ret: what a report of failure returns of the message (RFC 3461); None leaves the choice to the server.
        envid: a name for this envelope, repeated in reports (RFC 3461). Printable ASCII, 100 octets as xtext.
        dsn_required: if False, a server without DSN gets the message without `ret`, `envid` and the `dsn` of the
            recipients.
        deliver_by: the time by which it must have been delivered (RFC 2852).
        hold_for: seconds after which the server releases it (RFC 4865); fractions are rounded up.
        hold_until: when the server releases it (RFC 4865), with a time zone. Not together with `hold_for`.
        mt_priority: -9 (lowest) to 9 (RFC 6710).
        require_tls: the message may travel over verified TLS only, all the way (RFC 8689). Servers offer it within
            TLS only.
        auth: the original submitter of the message (RFC 4954 section 5), in ASCII; `"<>"` if it is not known.
        verb: the command that begins the transaction (RFC 821 section 3.4): `"MAIL"` delivers to mailboxes, `"SEND"` to
            the terminals of users who are logged in, `"SOML"` to a terminal or else the mailbox, `"SAML"` to both. All
            but MAIL need the extension of the same name, which few servers of today offer.
        sign: how the message is signed, one way or several, in this order; None takes the client's, an empty sequence
            none. A signed message is rendered for a server without extensions, and the same for every server.
        wishes: derived from the others: the parameters of MAIL, each with the extension that it needs.
        ordinary: derived: nothing is asked for that changes the lines of the envelope, or how a small body is written.

    Raises:
        InvalidArgument: a value that is not allowed, or two that contradict each other.
        InvalidAddress: `auth` is not one mailbox.
    """

    must_accept: frozenset[Kind] = EVERYONE - {Kind.BCC}
    split: bool = True
    before_end_of_data: Callable[[], Awaitable[None]] | None = None
    require_to: bool = False
    remove_bcc: bool = True
    exact: bool = False
    chunking: Literal["auto", "never", "always"] = "auto"
    chunk_size: int = 131072
    close_source: bool = False
    progress: Callable[[int, int | None], bool | None | Awaitable[bool | None]] | None = None
    ret: Return | None = None
    envid: str | None = None
    dsn_required: bool = True
    deliver_by: DeliverBy | None = None
    hold_for: float | None = None
    hold_until: datetime | None = None
    mt_priority: int | None = None
    require_tls: bool = False
    auth: str | Address | None = None
    verb: SendVerb = "MAIL"
    sign: MessageSigner | Sequence[MessageSigner] | None = None
    wishes: tuple[Wish, ...] = field(init=False, repr=False, compare=False)
    ordinary: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgument(f"{name} is True or False, not {getattr(self, name)!r}")
        if not isinstance(self.must_accept, frozenset) or not self.must_accept <= EVERYONE:
            raise InvalidArgument("must_accept is a frozenset of kinds of recipients")
        self._check_transfer()
        if isinstance(self.auth, str) and self.auth != "<>":
            object.__setattr__(self, "auth", Address.parse(self.auth))
        if self.sign is not None:
            object.__setattr__(self, "sign", signers_of(self.sign))
        object.__setattr__(self, "wishes", tuple(self._wishes()))
        object.__setattr__(
            self,
            "ordinary",
            not self.wishes
            and self.before_end_of_data is None
            and self.progress is None
            and self.verb == "MAIL"
            and self.chunk_size >= SMALL_BODY,
        )

    def signed_by(self, sign: MessageSigner | Sequence[MessageSigner]) -> SendOptions:
        """Return the same options with another `sign`, or these if there is nothing to sign with."""
        return replace(self, sign=sign) if sign else self

    def _check_transfer(self) -> None:
        if self.chunking not in ("auto", "never", "always"):
            raise InvalidArgument(f'chunking is "auto", "never" or "always", not {self.chunking!r}')
        if self.verb not in get_args(SendVerb):
            raise InvalidArgument(f'verb is "MAIL", "SEND", "SOML" or "SAML", not {self.verb!r}')
        size = self.chunk_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidArgument(f"chunk_size is a positive number of octets, not {size!r}")
        for name in ("before_end_of_data", "progress"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise InvalidArgument(f"{name} is a callable, not {getattr(self, name)!r}")

    def _wishes(self) -> list[Wish]:
        """Return the parameters, always in the same order, so that two sendings of one message are equal."""
        found: list[Wish] = []
        if self.ret is not None:
            found.append(("DSN", parameters.ret(self.ret)))
        if self.envid is not None:
            found.append(("DSN", parameters.envid(self.envid)))
        if self.auth is not None:
            found.append(("AUTH", parameters.auth(None if self.auth == "<>" else Address.parse(self.auth))))
        if self.deliver_by is not None:
            found.append(("DELIVERBY", self._by(self.deliver_by)))
        if self.hold_for is not None and self.hold_until is not None:
            raise InvalidArgument("hold_for and hold_until exclude each other: give one of them")
        if self.hold_for is not None:
            found.append(("FUTURERELEASE", parameters.hold_for(self.hold_for)))
        if self.hold_until is not None:
            found.append(("FUTURERELEASE", parameters.hold_until(self.hold_until)))
        if self.mt_priority is not None:
            found.append(("MT-PRIORITY", parameters.mt_priority(self.mt_priority)))
        if self.require_tls:
            found.append(("REQUIRETLS", b"REQUIRETLS"))
        return found

    @staticmethod
    def _by(wish: DeliverBy) -> bytes:
        if not isinstance(wish, DeliverBy):
            raise InvalidArgument(f"deliver_by is a DeliverBy, not {wish!r}")
        return parameters.by(wish.seconds, notify=wish.notify, trace=wish.trace)
