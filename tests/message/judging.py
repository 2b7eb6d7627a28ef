"""Every way by which mail that others made comes in, and the judge of what leaves."""

from __future__ import annotations

import email
import email.policy
import functools
import re
from collections.abc import Callable
from email.message import Message as OldMessage
from typing import Any, NamedTuple

from smtp_async.errors import SMTPError
from smtp_async.mail.coerce import PendingMail, Raw, to_mail
from smtp_async.message import Message
from smtp_async.message.foreign_mail import mail_of_email_object
from smtp_async.model.address import Address
from smtp_async.model.content import Content, Mail

from . import readers

__all__ = ["ABLE", "ENTRIES", "PATHS", "Able", "Judged", "check_wire", "envelope_of", "judge"]


class Able(NamedTuple):
    """What a server offers."""

    eightbit: bool
    utf8: bool


ABLE = {"nothing": Able(False, False), "8bit": Able(True, False), "utf8": Able(True, True)}


def as_mail(message: object) -> Mail:
    mail = to_mail(message)
    assert not isinstance(mail, PendingMail)
    return mail


def _compat32(data: bytes) -> OldMessage:
    return email.message_from_bytes(data, policy=email.policy.compat32)


def _default(data: bytes) -> OldMessage:
    return email.message_from_bytes(data, policy=email.policy.default)


#: From the octets of a message to what can be sent.
PATHS: dict[str, Callable[[bytes], Mail]] = {
    "send_raw": lambda data: as_mail(Raw(data)),
    "from_bytes": lambda data: as_mail(Message.from_bytes(data)),
    "compat32": lambda data: as_mail(_compat32(data)),
    "default": lambda data: as_mail(_default(data)),
    "from_compat32": lambda data: as_mail(Message.from_email_message(_compat32(data))),
    "from_default": lambda data: as_mail(Message.from_email_message(_default(data))),
}
#: The same for an object.
ENTRIES: dict[str, Callable[[OldMessage], Mail]] = {
    # Whatever its size: for large objects a thread does the same.
    "mail_of_email_object": mail_of_email_object,
    "from_email_message": lambda message: as_mail(Message.from_email_message(message)),
}


class Judged(NamedTuple):
    """What became of a message: it was refused, or it would leave as these octets."""

    error: SMTPError | None
    content: Content | None
    untouched: bool

    @property
    def needs(self) -> frozenset[str]:
        """The extensions that MAIL would ask for."""
        names = ("eightbit", "utf8", "binary")
        return frozenset(name for name in names if getattr(self.content, name, False))


def judge(make: Callable[[], Mail], able: Able, *, untouched: bool) -> Judged:
    """Make the content for a server; nothing but an `SMTPError` may be raised.

    Args:
        make: what makes the mail.
        untouched: its octets are those of the source; so are those of a `Message` that keeps them as `raw`.
    """
    try:
        mail = make()
        untouched = untouched or getattr(mail, "raw", None) is not None
        content = mail.content(eightbit=able.eightbit, utf8=able.utf8)
        content.join()
    except SMTPError as error:
        return Judged(error, None, untouched)
    return Judged(None, content, untouched)


FIELD = re.compile(rb"[!-9;-~]+:")
BCC = re.compile(rb"(?:\xef\xbb\xbf)?(?:resent-)?bcc[ \t]*:", re.I)


def check_wire(judged: Judged, able: Able) -> bytes:
    """Hold the octets against RFC 5321 and 5322 and against what the content says about itself; return them."""
    content = judged.content
    assert content is not None
    data = content.join()
    assert content.size == len(data)
    rest = data.replace(b"\r\n", b"")
    assert b"\r" not in rest, "a bare CR"
    assert b"\n" not in rest, "a bare LF"
    assert not data or data.endswith(b"\r\n"), "no line end at the end"
    lines = data.split(b"\r\n")
    header = lines[: lines.index(b"")] if b"" in lines else lines
    assert not any(BCC.match(line) for line in header), "Bcc in the header"
    long = max(map(len, lines)) > 998 or b"\0" in data
    assert content.binary or not long, "a line over 998 octets, or NUL"
    assert content.eightbit or data.isascii(), "8-bit octets and no word of them"
    assert content.utf8 or b"".join(header).isascii(), "8-bit octets in the header and no word of them"
    if not judged.untouched:
        assert not content.binary
        assert able.eightbit or not content.eightbit
        assert able.utf8 or not content.utf8
        for line in header:
            assert FIELD.match(line) or line[:1] in (b" ", b"\t"), f"not a field: {line!r}"
            assert line.strip(b" \t"), "a blank line within the header"
    return data


Envelope = tuple[str | None, list[str]]


def envelope_of(mail: Mail) -> Envelope:
    """Where bounces go and who gets it, as texts."""
    envelope = mail.envelope()
    return (
        None if envelope.sender is None else str(envelope.sender),
        [_named_by_ascii(one.address) for one in envelope.recipients],
    )


def _named_by_ascii(address: Address) -> str:
    """With the domain in A-labels, which are the same name, wherever it may travel so."""
    return str(address) if address.needs_utf8 else address.wire(utf8=False).decode()


@functools.lru_cache(maxsize=100)
def said(data: bytes) -> dict[str, dict[str, Any]]:
    """What each reader reads; many ways in lead to the same octets."""
    return {"rfc": readers.by_rfc(data), "stdlib": readers.by_stdlib(data)}


def told_apart(before: dict[str, dict[str, Any]]) -> frozenset[str]:
    """Facets that the readers do not agree about; of attached messages the octets are read by one only."""
    one, other = before["rfc"], before["stdlib"]
    return frozenset(
        facet
        for facet in {**one, **other}
        if "octets:" not in facet and "file:" not in facet and one.get(facet) != other.get(facet)
    )
