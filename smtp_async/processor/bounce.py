"""Bounces and delay notices, RFC 3464: how they are written. `bounce_parser` reads them.

A report is a message in three parts: plain words for a person, fields for a program, and the header of the message it
is about, or the whole of it. Its return path is empty, and none is ever written about a message whose own return path
is empty: reports about reports would never end (RFC 5321 section 6.1).

Everything in the fields is ASCII: the text of replies is chosen by strangers, so whatever else is in it is escaped;
an address that is not ASCII is written as RFC 6533 section 3 has it.
"""

from __future__ import annotations

import binascii
import re
import textwrap
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ..message.dates import clock_date
from ..message.headers import address_field, message_id_text, parameter_field, text_field
from ..model.address import Address
from ..model.content import Content
from ..model.domain import domain_forms
from ..model.dsn import Notify
from ..model.envelope import Envelope, Recipient
from ..model.octets import MAX_LINE, base64_lines, longest_line_exceeds
from ..model.reply import EnhancedCode, Reply, printable
from .bounce_parser import Report, ReportedRecipient, parse_report
from .policy import UNKNOWN, Sentence

__all__ = [
    "EXPIRED",
    "Notice",
    "Report",
    "ReportOptions",
    "ReportedRecipient",
    "bounce",
    "delay_notice",
    "parse_report",
    "status_of",
]

#: Why a recipient failed whose message has waited too long; no reply says it.
EXPIRED: Final = "it could not be delivered in time"

#: Characters of a reply that are quoted.
_QUOTED: Final = 512
#: Octets of a header that are given back.
_HEADER: Final = 65536
_WIDTH: Final = 76
_WORD: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
# RFC 6533 section 3: printable ASCII stands for itself, but for these.
_XTEXT: Final = re.compile(r"[^!-~]|[\\+=]")


class Notice:
    """A report that is ready to be sent: what `client.send` and `spool.put` take.

    Attributes:
        recipient: who is told.
        source: the whole message.
        key: the same for the same fact, so that a spool takes it once.
    """

    __slots__ = ("key", "recipient", "source")

    def __init__(self, recipient: Address, source: bytes, key: str) -> None:
        self.recipient = recipient
        self.source = source
        self.key = key

    def envelope(self) -> Envelope:
        """MAIL FROM:<>, RFC 3464 section 2."""
        return Envelope(None, (Recipient(self.recipient),))

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """The message; what the server offers changes nothing."""
        return Content.of_bytes(self.source)

    def __repr__(self) -> str:
        return f"<Notice for {self.recipient}, {len(self.source)} octets>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Who is told of failures, and how.

    Attributes:
        reporting: the name of this system, kept in A-labels; None takes the client's.
        sender: who the reports are from; None is MAILER-DAEMON at this system.
        whole: give the whole message back, not only its header.
        largest: octets of a message beyond which only its header is given back.
        delay_after: seconds after which the sender is told, once, that a message still waits; None never.
        deliver: what is to be done with a report; None puts it into the spool.
    """

    reporting: str | None = None
    sender: str | Address | None = None
    whole: bool = False
    largest: int = 50_000
    delay_after: float | None = None
    deliver: Callable[[Notice], Awaitable[object]] | None = None

    def __post_init__(self) -> None:
        if self.reporting is not None:
            # A report is read by programs: its names are A-labels (RFC 3464 section 2.2.2).
            object.__setattr__(self, "reporting", domain_forms(self.reporting)[0])
        if self.sender is not None:
            Address.parse(self.sender)


def bounce(
    original: bytes,
    envelope: Envelope,
    sentences: Iterable[Sentence],
    *,
    key: str,
    now: float,
    options: ReportOptions | None = None,
    arrived: float | None = None,
    remote: str | None = None,
) -> Notice | None:
    """Write what tells the sender that recipients never get the message.

    Args:
        original: the message as it was sent.
        envelope: its own; one without a sender is not reported.
        sentences: the recipients that failed.
        key: names the fact; Message-ID and boundaries come from it, so the same fact makes the same report.
        now: the wall clock, in seconds of the epoch.
        options: how.
        arrived: when the message was put into the spool, likewise.
        remote: the server that said no.

    Returns:
        The report, None if nobody wants it: the return path is empty, or NOTIFY (RFC 3461 section 4.1) forbids it.
    """
    kind = _Kind("failed", Notify.FAILURE, _FAILED, None)
    return _notice(original, envelope, sentences, kind, key, now, options, arrived, remote)


def delay_notice(
    original: bytes,
    envelope: Envelope,
    sentences: Iterable[Sentence],
    *,
    key: str,
    now: float,
    until: float | None,
    options: ReportOptions | None = None,
    arrived: float | None = None,
    remote: str | None = None,
) -> Notice | None:
    """Write what tells the sender that the message still waits for recipients; arguments as for `bounce`.

    Args:
        until: when it will be given up, None for never.
    """
    kind = _Kind("delayed", Notify.DELAY, _DELAYED, until)
    return _notice(original, envelope, sentences, kind, key, now, options, arrived, remote)


def status_of(sentence: Sentence, action: str = "failed") -> EnhancedCode:
    """Return the status of a recipient, RFC 3463: the server's own where it gave one."""
    reply = sentence.reply
    if reply is not None:
        return reply.enhanced or EnhancedCode(reply.code // 100, 0, 0)
    if action == "delayed" or sentence.reason == UNKNOWN:
        return EnhancedCode(4, 4, 0)
    # RFC 3463 section 3.5, X.4.7: delivery time expired.
    return EnhancedCode(4, 4, 7) if sentence.reason.startswith(EXPIRED) else EnhancedCode(5, 0, 0)


# --- putting it together -------------------------------------------------------------------------------------

_FAILED = (
    "Undeliverable: your message did not arrive",
    "Your message could not be delivered to:",
    "It will not be tried again.",
)
_DELAYED = (
    "Delayed: your message is still waiting",
    "Your message has not been delivered yet to:",
    "You need not send it again.",
)


class _Kind:
    """What sets a bounce and a delay notice apart."""

    __slots__ = ("action", "ending", "notify", "opening", "subject", "until")

    def __init__(self, action: str, notify: Notify, words: tuple[str, str, str], until: float | None) -> None:
        self.action = action
        self.notify = notify
        self.subject, self.opening, self.ending = words
        self.until = until


def _notice(
    original: bytes,
    envelope: Envelope,
    sentences: Iterable[Sentence],
    kind: _Kind,
    key: str,
    now: float,
    options: ReportOptions | None,
    arrived: float | None,
    remote: str | None,
) -> Notice | None:
    options = options or ReportOptions()
    told = [one for one in sentences if _wanted(one.recipient, kind.notify)]
    if envelope.sender is None or not told:
        return None
    reporting = options.reporting or "localhost"
    text = _text(told, kind, reporting)
    fields = _status_fields(told, kind, reporting, now, arrived, remote)
    parts = [
        _part("text/plain; charset=utf-8", text.encode()),
        _part("message/delivery-status", fields.encode(), encode=False),
        _returned(original, options),
    ]
    head = _head(envelope.sender, kind, options, reporting, key, now, original)
    return Notice(envelope.sender, _assembled(head, parts, key), f"{kind.action}-{key}")


def _wanted(recipient: Recipient, what: Notify) -> bool:
    """Does the sender want to be told `what` of this recipient? RFC 3461 section 4.1; silence means both."""
    notify = None if recipient.dsn is None else recipient.dsn.notify
    return notify is None or bool(notify & what)


def _head(
    to: Address,
    kind: _Kind,
    options: ReportOptions,
    reporting: str,
    key: str,
    now: float,
    original: bytes,
) -> str:
    sender, host = options.sender, reporting.strip("[]")
    if sender is None:
        sender = Address("MAILER-DAEMON", reporting, "Mail delivery")
    about = _message_id(original)
    author = Address.parse(sender)
    lines = [
        f"Date: {clock_date(now)}",
        address_field("From", [author], utf8=author.needs_utf8),
        address_field("To", [to.with_name("")], utf8=to.needs_utf8),
        text_field("Subject", kind.subject),
        f"Message-ID: {message_id_text(f'{_token(key)}.{kind.action}@{host}')}",
        *([f"In-Reply-To: {about}", f"References: {about}"] if about else []),
        # RFC 3834 section 5: so that no answering machine answers.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
    ]
    return "\r\n".join(lines)


def _message_id(original: bytes) -> str | None:
    found = Content.of_bytes(_header_of(original)).message_id
    return (
        found if found is not None and found.isascii() and len(found) < 250 and found.isprintable() else None
    )


def _token(key: str) -> str:
    """`key` as what may stand in a Message-ID and a boundary."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda found: f"_{ord(found[0]):x}", key)[:60] or "report"


def _assembled(head: str, parts: list[bytes], key: str) -> bytes:
    boundary = f"=_{binascii.crc32(key.encode('utf-8', 'surrogatepass')):08x}"
    while any(b"--" + boundary.encode() in part for part in parts):
        boundary += "_"
    parameters = [("report-type", "delivery-status"), ("boundary", boundary)]
    field = parameter_field("Content-Type", "multipart/report", parameters)
    mark = f"--{boundary}".encode()
    body = b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts)
    return f"{head}\r\n{field}\r\n\r\n".encode() + body + mark + b"--\r\n"


def _part(kind: str, data: bytes, *, encode: bool | None = None) -> bytes:
    """A part, in base64 where its lines could not travel as they are."""
    if encode is None:
        encode = not data.isascii() or b"\0" in data or longest_line_exceeds(data, MAX_LINE)
    head = f"Content-Type: {kind}\r\n"
    if encode:
        return f"{head}Content-Transfer-Encoding: base64\r\n\r\n".encode() + base64_lines(data)
    return head.encode() + b"\r\n" + data


def _returned(original: bytes, options: ReportOptions) -> bytes:
    """The message it is about. One that needs more than seven bits is given back as its header alone."""
    plain = original.isascii() and b"\0" not in original
    if options.whole and plain and len(original) <= options.largest:
        if not longest_line_exceeds(original, MAX_LINE):
            return _part("message/rfc822", original, encode=False)
    header = _header_of(original)
    return _part("text/rfc822-headers" if header.isascii() else "message/global-headers", header)


def _header_of(original: bytes) -> bytes:
    end = original.find(b"\r\n\r\n", 0, _HEADER)
    if end < 0:
        end = max(original.rfind(b"\r\n", 0, _HEADER), 0)
    return original[:end] + b"\r\n"


# --- for a person --------------------------------------------------------------------------------------------


def _text(told: list[Sentence], kind: _Kind, reporting: str) -> str:
    lines = [f"This is the mail system at {reporting}.", "", kind.opening, ""]
    for one in told:
        lines.append(f"  {printable(one.recipient.address.addr_spec, 400)}")
        said = (
            f"The server said: {printable(str(one.reply), _QUOTED)}" if one.reply is not None else one.reason
        )
        if said and said != UNKNOWN:
            lines += textwrap.wrap(
                printable(said, 2 * _QUOTED), _WIDTH, initial_indent="    ", subsequent_indent="    "
            )
        lines.append("")
    if kind.until is not None:
        lines.append(f"It will be tried until {clock_date(kind.until)}.")
    lines += [kind.ending, "", "Details for programs and your message follow.", ""]
    return "\r\n".join(lines)


# --- for a program -------------------------------------------------------------------------------------------


def _status_fields(
    told: list[Sentence],
    kind: _Kind,
    reporting: str,
    now: float,
    arrived: float | None,
    remote: str | None,
) -> str:
    lines = [f"Reporting-MTA: dns; {reporting}"]
    if arrived is not None:
        lines.append(f"Arrival-Date: {clock_date(arrived)}")
    for one in told:
        lines += ["", *_recipient_fields(one, kind, now, remote)]
    return "\r\n".join([*lines, ""])


def _recipient_fields(one: Sentence, kind: _Kind, now: float, remote: str | None) -> list[str]:
    lines = []
    original = None if one.recipient.dsn is None else one.recipient.dsn.orcpt
    if original is not None:
        typed = original if isinstance(original, str) else typed_address(original)
        lines.append(_field("Original-Recipient", typed))
    lines.append(_field("Final-Recipient", typed_address(one.recipient.address)))
    lines.append(f"Action: {kind.action}")
    lines.append(f"Status: {status_of(one, kind.action)}")
    if one.reply is not None:
        if remote is not None and _WORD.fullmatch(remote):
            lines.append(f"Remote-MTA: dns; {remote}")
        lines.append(_field("Diagnostic-Code", f"smtp; {_told(one.reply)}"))
    lines.append(f"Last-Attempt-Date: {clock_date(now)}")
    if kind.until is not None:
        lines.append(f"Will-Retry-Until: {clock_date(kind.until)}")
    return lines


def typed_address(address: Address) -> str:
    """Return an address with its type, RFC 3464 section 2.3.2 and RFC 6533 section 3."""
    if not address.needs_utf8:
        return f"rfc822; {address.wire(utf8=False).decode()}"
    escaped = _XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", address.addr_spec)
    return f"utf-8; {escaped}"


def _told(reply: Reply) -> str:
    return (
        printable(f"{reply.code} {' '.join(reply.lines)}", _QUOTED)
        .encode("ascii", "backslashreplace")
        .decode()
    )


def _field(name: str, value: str) -> str:
    """A field of RFC 3464, folded; whatever would be a second one is escaped."""
    value = printable(value, 4 * _QUOTED).encode("ascii", "backslashreplace").decode()
    lines = textwrap.wrap(
        f"{name}: {value}", _WIDTH, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False
    )
    return "\r\n".join(lines)
