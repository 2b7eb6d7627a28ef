"""An envelope and its content → every line of a transaction, made and checked for what one server offers.

Strategy: `plan` runs in the caller's task, before the message is queued, so that a connection gets bytes that cannot
fail. Most messages have one recipient and no parameters but SIZE, so everything else is behind two tests:
`options.ordinary` and the `dsn` of a recipient.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ..errors import ExtensionMissing, InvalidArgument, MessageTooLarge, MissingRecipient
from ..model.content import Content
from ..model.dsn import DSN
from ..model.envelope import Envelope, Kind, Recipient
from . import commands, parameters
from .extensions import Extensions
from .framing import chunk_framed, dot_stuffed
from .options import SMALL_BODY, SendOptions
from .transaction import Transaction

__all__ = ["demand_to", "plan"]

#: The advice for a message that is too large.
_HOW: Final = ": send a link in place of large attachments"
#: The verb, its parameters, the largest body that is written at once, and whether its caller lets it go.
_MAIL_ALONE: Final[tuple[commands.SendVerb, tuple[bytes, ...], int, bool]] = ("MAIL", (), SMALL_BODY, False)
_SEVEN_BIT: Final = b""
_EIGHT_BIT: Final = b"BODY=8BITMIME"
_BINARY: Final = b"BODY=BINARYMIME"


def plan(
    envelope: Envelope,
    content: Content,
    extensions: Extensions,
    options: SendOptions,
    *,
    chunking: bool = False,
) -> Transaction:
    """Make every line of a transaction, for what the server offers.

    Args:
        envelope: sender and recipients.
        content: the message.
        extensions: the server's offer.
        options: how the caller wants it sent.
        chunking: write the body with BDAT (RFC 3030) instead of DATA, where `options.chunking` leaves it open; needs
            the server's CHUNKING.

    Raises:
        ExtensionMissing: the message or an option needs an extension that the server does not offer.
        MessageTooLarge: larger than the server's SIZE limit, RFC 1870 section 6.1.
        InvalidAddress: an address that cannot be written on a command line.
        InvalidArgument: a parameter that is too long.
    """
    utf8 = content.utf8 or envelope.needs_utf8
    body = _SEVEN_BIT
    if utf8 or content.eightbit or content.binary:
        body = _body(content, extensions, options, utf8)
    size, limit = content.size, extensions.size
    if limit and size is not None and size > limit:
        raise MessageTooLarge(f"the message has {size} bytes, the server takes {limit}{_HOW}", stage="MAIL")
    sender, recipients = envelope.sender, envelope.recipients
    path = b"" if sender is None else sender.wire(utf8=utf8)
    verb, wishes, small, gated = _MAIL_ALONE
    if not options.ordinary:
        verb, wishes = _verb(extensions, options), _of_wishes(extensions, options)
        # A small body is written in one piece, unless the caller wants smaller ones.
        small = min(small, options.chunk_size)
        # `before_end_of_data` and `progress` run in the caller's task, which then lets the body go.
        gated = options.before_end_of_data is not None or options.progress is not None
    mail = _mail(path, None if limit is None else size, body, utf8, wishes, verb)
    if len(recipients) == 1 and recipients[0].dsn is None:
        rcpts: tuple[bytes, ...] = (commands.rcpt(recipients[0].address.wire(utf8=utf8)),)
    else:
        rcpts = tuple([_rcpt(one, extensions, options, utf8) for one in recipients])
    transaction = Transaction(mail, rcpts, recipients, content, extensions, options)
    # RFC 3030 section 3: BINARYMIME cannot be sent with DATA.
    wanted = "always" if content.binary else options.chunking
    chunked = chunking if wanted == "auto" else wanted == "always" and extensions.chunking
    transaction.chunked = chunked
    transaction.exact = chunked and content.exact
    if size is not None and size <= small and not content.sources:
        framed = chunk_framed(content, exact=transaction.exact) if chunked else dot_stuffed(content)
        transaction.set_payload(framed, gated=gated)
    elif chunked and not extensions.pipelining:
        # The caller writes chunk after chunk and does not wait for replies in between.
        if content.binary:
            raise ExtensionMissing("a large binary body needs PIPELINING, which the server does not offer")
        transaction.chunked = False
    return transaction


def demand_to(envelope: Envelope) -> None:
    """Raise unless there is a To recipient.

    Call it with whole envelopes: a part of one, for a server that takes few recipients at once, may have Cc only.

    Raises:
        MissingRecipient: there are only Cc and Bcc recipients.
    """
    for recipient in envelope.recipients:
        if recipient.kind is Kind.TO:
            return
    raise MissingRecipient("the message has no To recipient, and SendOptions(require_to=True) asks for one")


def _body(content: Content, extensions: Extensions, options: SendOptions, utf8: bool) -> bytes:
    """Return the BODY parameter; empty for content that any server takes."""
    if utf8 and not extensions.smtputf8:
        raise ExtensionMissing("an address or header needs SMTPUTF8, which the server does not offer")
    if content.binary:
        if options.chunking == "never":
            raise ExtensionMissing(
                "the message needs BINARYMIME, which SendOptions(chunking='never') rules out"
            )
        if not extensions.binarymime:
            raise ExtensionMissing(
                "the message has bare CR or LF, NUL or overlong lines and needs BINARYMIME"
            )
        return _BINARY
    if content.eightbit or utf8:
        if not extensions.eightbitmime:
            raise ExtensionMissing("the message has 8-bit content and the server does not offer 8BITMIME")
        return _EIGHT_BIT
    return _SEVEN_BIT


# Much mail comes from few addresses and has few sizes: a remembered line saves 1.5 of 15 µs (`benchmarks/core.py`).
# Besides this cache only that of plain addresses in `model/address` holds addresses.
@lru_cache(maxsize=4096)
def _mail(
    path: bytes, size: int | None, body: bytes, utf8: bool, wishes: tuple[bytes, ...], verb: commands.SendVerb
) -> bytes:
    given = [] if size is None else [parameters.size(size)]
    if body:
        given.append(body)
    if utf8:
        given.append(b"SMTPUTF8")
    return commands.mail(path, (*given, *wishes), verb=verb)


def _verb(extensions: Extensions, options: SendOptions) -> commands.SendVerb:
    """Return the verb that begins the transaction."""
    verb = options.verb
    if verb != "MAIL" and verb not in extensions:
        raise ExtensionMissing(f"verb={verb!r} needs {verb}, which the server does not offer")
    return verb


def _of_wishes(extensions: Extensions, options: SendOptions) -> tuple[bytes, ...]:
    given = []
    for keyword, parameter in options.wishes:
        if keyword in extensions:
            given.append(parameter)
        elif keyword != "DSN" or options.dsn_required:
            name = parameter.partition(b"=")[0].decode("ascii")
            raise ExtensionMissing(f"{name} needs {keyword}, which the server does not offer")
    _check_times(extensions, options)
    return tuple(given)


def _check_times(extensions: Extensions, options: SendOptions) -> None:
    """Raise if the times exceed the limits in the server's offer, because MAIL would be refused."""
    by, shortest = options.deliver_by, extensions.deliverby
    # RFC 2852 section 3: the minimum holds for by-mode R only.
    if by is not None and shortest and not by.notify and by.seconds < shortest:
        raise ExtensionMissing(f"the server needs {shortest} seconds to deliver by (DELIVERBY)")
    if extensions.futurerelease is None:
        return
    longest, latest = extensions.futurerelease
    if options.hold_for is not None and longest is not None and options.hold_for > longest:
        raise ExtensionMissing(
            f"the server keeps messages back for {longest} seconds at most (FUTURERELEASE)"
        )
    if options.hold_until is not None and latest is not None and options.hold_until > latest:
        raise ExtensionMissing(f"the server keeps messages back until {latest.isoformat()} (FUTURERELEASE)")


def _rcpt(recipient: Recipient, extensions: Extensions, options: SendOptions, utf8: bool) -> bytes:
    dsn = recipient.dsn
    if dsn is None:
        return commands.rcpt(recipient.address.wire(utf8=utf8))
    given: tuple[bytes, ...] = ()
    if extensions.dsn:
        given = _of_dsn(dsn)
    elif options.dsn_required:
        raise ExtensionMissing("a recipient's dsn needs DSN, which the server does not offer")
    return commands.rcpt(recipient.address.wire(utf8=utf8), given)


def _of_dsn(dsn: DSN) -> tuple[bytes, ...]:
    if not isinstance(dsn, DSN):
        raise InvalidArgument(f"a recipient's dsn is a DSN, not {dsn!r}")
    given = [] if dsn.notify is None else [parameters.notify(dsn.notify)]
    if dsn.orcpt is not None:
        given.append(parameters.orcpt(dsn.orcpt))
    return tuple(given)
