"""Parses delivery reports, RFC 3464, of this library and of other mail systems.

The parser is linear and bounded: it reads each octet a fixed number of times, and refuses a message that is too large.
Anyone can send a report, so its content is not trusted: addresses are plain text, invalid fields are left out, and
the only error is that the message is not a report.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..errors import InvalidArgument
from ..model.reply import EnhancedCode

__all__ = ["Report", "ReportedRecipient", "parse_report"]

_Fields = dict[str, str]

_NAME: Final = re.compile(r"([!-9;-~]{1,76})[ \t]*+:(.*)", re.DOTALL)
_TYPE: Final = re.compile(r"[ \t]*+([\w.+-]{1,99}/[\w.+-]{1,99})")
_PARAMETER: Final = re.compile(r';\s*+([\w.*-]{1,99})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]++))')
_STATUS: Final = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_CODE: Final = re.compile(r"([2-5][0-9]{2})(?![0-9])")
_ESCAPE: Final = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*+:[ \t]*+(?:\n[ \t]++)?(<[^<>\n]*+>)", re.I | re.M)

_STATUS_TYPES: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_ORIGINAL_TYPES: Final = frozenset(
    {"message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"}
)


class ReportedRecipient(NamedTuple):
    """The part of a report about one recipient.

    Attributes:
        address: the address of the recipient (Final-Recipient).
        action: `failed`, `delayed`, `delivered`, `relayed` or `expanded`, as in the report, in lower case.
        status: the enhanced status code.
        diagnostic: the reply of the other server, without its type; empty if there is none.
        remote: the server that sent the reply.
        original: the address that the sender specified (Original-Recipient).
        last_attempt, retry_until: dates, as in the report.
    """

    address: str
    action: str
    status: EnhancedCode | None = None
    diagnostic: str = ""
    remote: str | None = None
    original: str | None = None
    last_attempt: str | None = None
    retry_until: str | None = None

    @property
    def failed(self) -> bool:
        """The message was not delivered to the recipient and will not be."""
        return self.action == "failed"

    @property
    def code(self) -> int | None:
        """The reply code, if the diagnostic begins with one."""
        found = _CODE.match(self.diagnostic)
        return int(found[1]) if found else None


class Report(NamedTuple):
    """A delivery report.

    Attributes:
        reporting: the system that wrote the report.
        recipients: the parts about recipients.
        text: the explanation for a person.
        original: the header of the original message, or the whole message; lines end with LF.
        envelope_id: ENVID of the original message (RFC 3461 section 4.4).
        arrival: when the original message arrived, as in the report.
    """

    reporting: str
    recipients: tuple[ReportedRecipient, ...]
    text: str = ""
    original: bytes = b""
    envelope_id: str | None = None
    arrival: str | None = None

    @property
    def message_id(self) -> str | None:
        """The Message-ID of the original message, with its angle brackets."""
        end = self.original.find(b"\n\n")
        found = _MESSAGE_ID.search(self.original if end < 0 else self.original[: end + 1])
        return found[1].decode("utf-8", "backslashreplace") if found else None


def parse_report(data: bytes, *, limit: int = 10 * 1024 * 1024) -> Report:
    """Parse a delivery report.

    Args:
        data: the whole message; lines may end with CRLF or LF.
        limit: maximum of octets that are parsed.

    Raises:
        InvalidArgument: the message is not a delivery report, or too large.
    """
    if len(data) > limit:
        raise InvalidArgument(f"a report of {len(data)} octets is not parsed, because the limit is {limit}")
    head, body = _split(bytes(data).replace(b"\r\n", b"\n"))
    kind, parameters = _content_type(_fields(head))
    boundary = parameters.get("boundary", "")
    if kind != "multipart/report" or not 0 < len(boundary) <= 200:
        raise InvalidArgument("not a delivery report: its content type is not multipart/report")
    text, original = "", b""
    groups: list[_Fields] = []
    for part in _parts(body, boundary):
        part_head, content = _split(part)
        fields = _fields(part_head)
        kind, parameters = _content_type(fields)
        content = _decoded(content, fields)
        if kind in _STATUS_TYPES and not groups:
            groups = [_fields(group) for group in content.split(b"\n\n")]
        elif kind in _ORIGINAL_TYPES and not original:
            original = content
        elif kind.startswith("text/") and not text:
            text = _text(content, parameters.get("charset", "utf-8"))
    return _report([group for group in groups if group], text, original)


def _report(groups: list[_Fields], text: str, original: bytes) -> Report:
    if not groups:
        raise InvalidArgument("not a delivery report: it has no delivery status")
    whole: _Fields = {}
    # The first group of fields is about the message; some systems leave it out.
    if "final-recipient" not in groups[0]:
        whole, *groups = groups
    recipients = tuple(_recipients(groups))
    reporting = _untyped(whole.get("reporting-mta", ""))
    return Report(
        reporting, recipients, text, original, whole.get("original-envelope-id"), whole.get("arrival-date")
    )


def _recipients(groups: list[_Fields]) -> Iterator[ReportedRecipient]:
    for group in groups:
        if "final-recipient" not in group:
            continue
        status = _STATUS.search(group.get("status", ""))
        yield ReportedRecipient(
            address=_address(group["final-recipient"]),
            action=(group.get("action", "").split() or [""])[0].lower(),
            status=EnhancedCode(int(status[1]), int(status[2]), int(status[3])) if status else None,
            diagnostic=_untyped(group.get("diagnostic-code", "")),
            remote=_untyped(group["remote-mta"]) if "remote-mta" in group else None,
            original=_address(group["original-recipient"]) if "original-recipient" in group else None,
            last_attempt=group.get("last-attempt-date"),
            retry_until=group.get("will-retry-until"),
        )


# --- grammar -------------------------------------------------------------------------------------------------


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return header and body of a message or part."""
    if data.startswith(b"\n"):
        return b"", data[1:]
    head, _, body = data.partition(b"\n\n")
    return head, body


def _fields(block: bytes) -> _Fields:
    """Return the unfolded fields of a header by name, in lower case; only the first field of a name is kept."""
    unfolded = re.sub(r"\n[ \t]++", " ", block.decode("utf-8", "backslashreplace"))
    fields: _Fields = {}
    for line in unfolded.split("\n"):
        found = _NAME.fullmatch(line)
        if found:
            fields.setdefault(found[1].lower(), found[2].strip())
    return fields


def _content_type(fields: _Fields) -> tuple[str, dict[str, str]]:
    value = fields.get("content-type", "text/plain")
    found = _TYPE.match(value)
    if found is None:
        return "", {}
    parameters: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(value, found.end()):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else token)
    return found[1].lower(), parameters


def _parts(body: bytes, boundary: str) -> Iterator[bytes]:
    """Iterate over the parts between the boundary lines; without a closing one, the last part ends with the message."""
    mark = re.compile(rb"^--" + re.escape(boundary.encode()) + rb"(--)?+[ \t]*+(?:\n|\Z)", re.MULTILINE)
    start: int | None = None
    for found in mark.finditer(body):
        if start is not None:
            # The line ending before a boundary belongs to it (RFC 2046 section 5.1.1).
            yield body[start : max(start, found.start() - 1)]
        if found[1]:
            return
        start = found.end()
    if start is not None:
        yield body[start:]


def _decoded(content: bytes, fields: _Fields) -> bytes:
    encoding = fields.get("content-transfer-encoding", "").strip().lower()
    try:
        if encoding == "base64":
            content = binascii.a2b_base64(content)
        elif encoding == "quoted-printable":
            content = binascii.a2b_qp(content)
    except binascii.Error:
        # The undecoded text is better than no text.
        return content
    return content.replace(b"\r\n", b"\n")


def _text(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset, "replace")
    except (LookupError, ValueError):
        return content.decode("utf-8", "replace")


def _untyped(value: str) -> str:
    """Return `dns; mx.example.org` without its type."""
    kind, separator, rest = value.partition(";")
    return rest.strip() if separator else kind.strip()


def _address(value: str) -> str:
    kind, separator, rest = value.partition(";")
    text = rest.strip() if separator else kind.strip()
    if separator and kind.strip().lower() == "utf-8":
        text = _ESCAPE.sub(_unescaped, text)
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    return text


def _unescaped(found: re.Match[str]) -> str:
    point = int(found[1], 16)
    return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else found[0]
