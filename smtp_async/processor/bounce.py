"""Writes delivery reports: bounces and delay notices, RFC 3464. `bounce_parser` reads them.

A report is a message in three parts: text for a person, fields for programs, and the header of the message that the
report is about, or the whole message. The return path of a report is empty, and no report is written about a message
whose own return path is empty, because reports about reports would never end (RFC 5321 section 6.1).

The fields are ASCII. Servers choose the text of their replies, so other characters in it are escaped; an address that
is not ASCII is written as RFC 6533 section 3 defines.
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
from .results import EXPIRED, UNKNOWN, RecipientResult

__all__ = [
    "Notice",
    "Report",
    "ReportOptions",
    "ReportedRecipient",
    "bounce",
    "delay_notice",
    "parse_report",
    "status_of",
]

#: Maximum of characters that are quoted from a reply.
_MAX_QUOTED: Final = 512
#: Maximum of octets of a header that are returned.
_MAX_HEADER: Final = 65536
_LINE_WIDTH: Final = 76
_MTA_NAME: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
# RFC 6533 section 3: the characters that have to be escaped; the rest of printable ASCII is literal.
_XTEXT: Final = re.compile(r"[^!-~]|[\\+=]")


class Notice:
    """A report that is ready to be sent, as an argument of `client.send` and `spool.put`.

    Attributes:
        recipient: the sender of the message that the report is about.
        source: the whole report.
        key: the idempotency key: the same for the same failure, so that a spool stores the report once.
    """

    __slots__ = ("key", "recipient", "source")

    def __init__(self, recipient: Address, source: bytes, key: str) -> None:
        self.recipient = recipient
        self.source = source
        self.key = key

    def envelope(self) -> Envelope:
        """Return the envelope: MAIL FROM:<>, RFC 3464 section 2."""
        return Envelope(None, (Recipient(self.recipient),))

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content, which is the same for every server."""
        return Content.of_bytes(self.source)

    def __repr__(self) -> str:
        return f"<Notice for {self.recipient}, {len(self.source)} octets>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Which failures are reported to senders, and how.

    Attributes:
        reporting: the name of this system, kept in A-labels; by default the name of the client.
        sender: the author of the reports; by default MAILER-DAEMON at this system.
        whole: return the whole message, not only its header.
        largest: octets of a message above which only its header is returned.
        delay_after: seconds after which a delay is reported to the sender, once; None: never.
        deliver: called with each report; None: reports are put into the spool.

    Raises:
        InvalidAddress: `reporting` is not a domain, or `sender` is not an address.
    """

    reporting: str | None = None
    sender: str | Address | None = None
    whole: bool = False
    largest: int = 50_000
    delay_after: float | None = None
    deliver: Callable[[Notice], Awaitable[object]] | None = None

    def __post_init__(self) -> None:
        if self.reporting is not None:
            # Programs read reports, so names are A-labels (RFC 3464 section 2.2.2).
            object.__setattr__(self, "reporting", domain_forms(self.reporting)[0])
        if self.sender is not None:
            Address.parse(self.sender)


def bounce(
    original: bytes,
    envelope: Envelope,
    results: Iterable[RecipientResult],
    *,
    key: str,
    now: float,
    options: ReportOptions | None = None,
    arrived: float | None = None,
    remote: str | None = None,
) -> Notice | None:
    """Write the report that a message could not be delivered to recipients.

    Args:
        original: the message that was sent.
        envelope: the envelope of the message.
        results: the recipients that failed.
        key: identifies the failure. Message-ID and boundaries are derived from the key, so the same failure has the
            same report.
        now: the wall clock, in seconds of the epoch.
        options: the options of reports.
        arrived: when the message was put into the spool, in seconds of the epoch.
        remote: the server that refused the message.

    Returns:
        The report; None if the return path is empty or NOTIFY (RFC 3461 section 4.1) forbids a report.
    """
    kind = _ReportKind("failed", Notify.FAILURE, _FAILED, None)
    return _notice(original, envelope, results, kind, key, now, options, arrived, remote)


def delay_notice(
    original: bytes,
    envelope: Envelope,
    results: Iterable[RecipientResult],
    *,
    key: str,
    now: float,
    until: float | None,
    options: ReportOptions | None = None,
    arrived: float | None = None,
    remote: str | None = None,
) -> Notice | None:
    """Write the report that a message is delayed for recipients; arguments as for `bounce`.

    Args:
        until: when the message will be given up, in seconds of the epoch; None for never.
    """
    kind = _ReportKind("delayed", Notify.DELAY, _DELAYED, until)
    return _notice(original, envelope, results, kind, key, now, options, arrived, remote)


def status_of(result: RecipientResult, action: str = "failed") -> EnhancedCode:
    """Return the status code of a recipient, RFC 3463, from the reply if it has one."""
    reply = result.reply
    if reply is not None:
        return reply.enhanced or EnhancedCode(reply.code // 100, 0, 0)
    if action == "delayed" or result.reason == UNKNOWN:
        return EnhancedCode(4, 4, 0)
    # RFC 3463 section 3.5, X.4.7: delivery time expired.
    return EnhancedCode(4, 4, 7) if result.reason.startswith(EXPIRED) else EnhancedCode(5, 0, 0)


# --- assembling the report -----------------------------------------------------------------------------------

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


class _ReportKind:
    """What distinguishes a bounce from a delay notice."""

    __slots__ = ("action", "ending", "notify", "opening", "subject", "until")

    def __init__(self, action: str, notify: Notify, words: tuple[str, str, str], until: float | None) -> None:
        self.action = action
        self.notify = notify
        self.subject, self.opening, self.ending = words
        self.until = until


def _notice(
    original: bytes,
    envelope: Envelope,
    results: Iterable[RecipientResult],
    kind: _ReportKind,
    key: str,
    now: float,
    options: ReportOptions | None,
    arrived: float | None,
    remote: str | None,
) -> Notice | None:
    options = options or ReportOptions()
    reported = [one for one in results if _notify_allows(one.recipient, kind.notify)]
    if envelope.sender is None or not reported:
        return None
    reporting = options.reporting or "localhost"
    text = _text(reported, kind, reporting)
    fields = _status_fields(reported, kind, reporting, now, arrived, remote)
    parts = [
        _part("text/plain; charset=utf-8", text.encode()),
        _part("message/delivery-status", fields.encode(), encode=False),
        _returned(original, options),
    ]
    head = _head(envelope.sender, kind, options, reporting, key, now, original)
    return Notice(envelope.sender, _assembled(head, parts, key), f"{kind.action}-{key}")


def _notify_allows(recipient: Recipient, what: Notify) -> bool:
    """Return whether NOTIFY of this recipient allows this kind of report (RFC 3461 section 4.1).

    Without NOTIFY, failures and delays are reported.
    """
    notify = None if recipient.dsn is None else recipient.dsn.notify
    return notify is None or bool(notify & what)


def _head(
    to: Address,
    kind: _ReportKind,
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
        # RFC 3834 section 5: keeps automatic responders from replying.
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
    """Return `key` in the characters that a Message-ID and a boundary may have."""
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
    """Return a body part, in base64 if its lines cannot be sent as they are."""
    if encode is None:
        encode = not data.isascii() or b"\0" in data or longest_line_exceeds(data, MAX_LINE)
    head = f"Content-Type: {kind}\r\n"
    if encode:
        return f"{head}Content-Transfer-Encoding: base64\r\n\r\n".encode() + base64_lines(data)
    return head.encode() + b"\r\n" + data


def _returned(original: bytes, options: ReportOptions) -> bytes:
    """Return the part with the original message, or only its header if the message needs more than seven bits."""
    plain = original.isascii() and b"\0" not in original
    if options.whole and plain and len(original) <= options.largest:
        if not longest_line_exceeds(original, MAX_LINE):
            return _part("message/rfc822", original, encode=False)
    header = _header_of(original)
    return _part("text/rfc822-headers" if header.isascii() else "message/global-headers", header)


def _header_of(original: bytes) -> bytes:
    end = original.find(b"\r\n\r\n", 0, _MAX_HEADER)
    if end < 0:
        end = max(original.rfind(b"\r\n", 0, _MAX_HEADER), 0)
    return original[:end] + b"\r\n"


# --- text for a person ---------------------------------------------------------------------------------------


def _text(reported: list[RecipientResult], kind: _ReportKind, reporting: str) -> str:
    lines = [f"This is the mail system at {reporting}.", "", kind.opening, ""]
    for one in reported:
        lines.append(f"  {printable(one.recipient.address.addr_spec, 400)}")
        said = (
            f"The server said: {printable(str(one.reply), _MAX_QUOTED)}"
            if one.reply is not None
            else one.reason
        )
        if said and said != UNKNOWN:
            lines += textwrap.wrap(
                printable(said, 2 * _MAX_QUOTED), _LINE_WIDTH, initial_indent="    ", subsequent_indent="    "
            )
        lines.append("")
    if kind.until is not None:
        lines.append(f"It will be tried until {clock_date(kind.until)}.")
    lines += [kind.ending, "", "Details for programs and your message follow.", ""]
    return "\r\n".join(lines)


# --- fields for programs -------------------------------------------------------------------------------------


def _status_fields(
    reported: list[RecipientResult],
    kind: _ReportKind,
    reporting: str,
    now: float,
    arrived: float | None,
    remote: str | None,
) -> str:
    lines = [f"Reporting-MTA: dns; {reporting}"]
    if arrived is not None:
        lines.append(f"Arrival-Date: {clock_date(arrived)}")
    for one in reported:
        lines += ["", *_recipient_fields(one, kind, now, remote)]
    return "\r\n".join([*lines, ""])


def _recipient_fields(one: RecipientResult, kind: _ReportKind, now: float, remote: str | None) -> list[str]:
    lines = []
    original = None if one.recipient.dsn is None else one.recipient.dsn.orcpt
    if original is not None:
        typed = original if isinstance(original, str) else typed_address(original)
        lines.append(_field("Original-Recipient", typed))
    lines.append(_field("Final-Recipient", typed_address(one.recipient.address)))
    lines.append(f"Action: {kind.action}")
    lines.append(f"Status: {status_of(one, kind.action)}")
    if one.reply is not None:
        if remote is not None and _MTA_NAME.fullmatch(remote):
            lines.append(f"Remote-MTA: dns; {remote}")
        lines.append(_field("Diagnostic-Code", f"smtp; {_diagnostic(one.reply)}"))
    lines.append(f"Last-Attempt-Date: {clock_date(now)}")
    if kind.until is not None:
        lines.append(f"Will-Retry-Until: {clock_date(kind.until)}")
    return lines


def typed_address(address: Address) -> str:
    """Return an address with its type (RFC 3464 section 2.3.2, RFC 6533 section 3)."""
    if not address.needs_utf8:
        return f"rfc822; {address.wire(utf8=False).decode()}"
    escaped = _XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", address.addr_spec)
    return f"utf-8; {escaped}"


def _diagnostic(reply: Reply) -> str:
    return (
        printable(f"{reply.code} {' '.join(reply.lines)}", _MAX_QUOTED)
        .encode("ascii", "backslashreplace")
        .decode()
    )


def _field(name: str, value: str) -> str:
    """Return a folded field of RFC 3464; characters that would begin another field are escaped."""
    value = printable(value, 4 * _MAX_QUOTED).encode("ascii", "backslashreplace").decode()
    lines = textwrap.wrap(
        f"{name}: {value}", _LINE_WIDTH, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False
    )
    return "\r\n".join(lines)
