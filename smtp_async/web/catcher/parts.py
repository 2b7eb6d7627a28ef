"""Reads a message for a reader: header fields, texts and files, whatever is wrong with the message.

`email` with its old policy parses everything without raising; what it leaves undecoded is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message as OldMessage
from functools import cached_property
from typing import Final, NamedTuple

from ...model.encoded_words import codec_of, decoded_words
from ...model.reply import printable

__all__ = ["Part", "ReadMessage"]

_LONGEST: Final = 4000


class Part(NamedTuple):
    """A file of a message.

    Attributes:
        number: its place among the files, from 0.
        filename: its name, or one made of its type.
        content_type: as the message says.
        content_id: without angle brackets; empty if it has none.
        inline: the HTML may refer to it.
        data: decoded.
    """

    number: int
    filename: str
    content_type: str
    content_id: str
    inline: bool
    data: bytes


class ReadMessage:
    """A message as a reader sees it.

    Args:
        data: the octets as received.
    """

    def __init__(self, data: bytes) -> None:
        self._root: OldMessage = message_from_bytes(data)

    def field(self, name: str) -> str:
        """Return the text of the first header field with a name; empty if there is none."""
        value = self._root.get(name)
        return "" if value is None else _text_of(value)

    @cached_property
    def fields(self) -> list[tuple[str, str]]:
        """All header fields, decoded, in order."""
        return [(printable(name, 200), _text_of(value)) for name, value in self._root.items()]

    @cached_property
    def text(self) -> str | None:
        """The plain text; None if there is none."""
        return self._body("text/plain")

    @cached_property
    def html(self) -> str | None:
        """The HTML; None if there is none."""
        return self._body("text/html")

    def _body(self, kind: str) -> str | None:
        found = [_characters(one) for one in self._leaves() if one.get_content_type() == kind and _shown(one)]
        return "\n".join(found) if found else None

    @cached_property
    def files(self) -> tuple[Part, ...]:
        """The parts that are not shown as text: attachments, and files to which the HTML refers."""
        leaves = [
            one
            for one in self._leaves()
            if not (_shown(one) and one.get_content_type() in ("text/plain", "text/html"))
        ]
        html = self.html or ""
        return tuple([_file(number, one, html) for number, one in enumerate(leaves)])

    def _leaves(self) -> Iterator[OldMessage]:
        waiting = [self._root]
        while waiting:
            part = waiting.pop()
            if part.get_content_maintype() == "multipart" and part.is_multipart():
                waiting += reversed(_children(part))
            else:
                yield part


def _children(part: OldMessage) -> list[OldMessage]:
    return [one for one in part.get_payload() if isinstance(one, OldMessage)]


def _shown(part: OldMessage) -> bool:
    return part.get_content_disposition() != "attachment" and not part.get_filename()


def _characters(part: OldMessage) -> str:
    data = _octets(part)
    codec = codec_of(str(part.get_param("charset", "utf-8")).strip("'\"")) or "utf-8"
    return data.decode(codec, "replace").replace("\r\n", "\n")


def _octets(part: OldMessage) -> bytes:
    if part.is_multipart():
        # A whole message as an attachment.
        return b"\r\n".join([one.as_bytes() for one in _children(part)])
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _file(number: int, part: OldMessage, html: str) -> Part:
    kind = part.get_content_type()
    name = part.get_filename() or ""
    ending = {"message/rfc822": "eml", "text/calendar": "ics"}.get(kind, kind.rpartition("/")[2])
    shown = _text_of(name).replace("/", "_").replace("\\", "_").strip(". ")
    content_id = _text_of(part.get("Content-ID", "")).strip("<> ")
    # Some programs call a picture an attachment although the HTML shows it.
    shown_in_html = part.get_content_disposition() != "attachment" or f"cid:{content_id}" in html
    return Part(
        number,
        shown or f"part-{number + 1}.{ending}",
        printable(kind, 100),
        content_id,
        bool(content_id) and shown_in_html,
        _octets(part),
    )


def _text_of(value: object) -> str:
    """Return the value of a field: unfolded, octets that are not ASCII read as UTF-8, encoded words decoded."""
    raw = str(value).replace("\r", "").replace("\n", "")
    octets = raw.encode("utf-8", "surrogateescape")
    return printable(decoded_words(octets.decode("utf-8", "replace")), _LONGEST)
