"""Attachment: a file that is sent with a message, and where its octets come from.

Nothing is opened here. Octets that are not in memory are a `content.Source`, which is read when the mail is sent.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, BinaryIO, Final, cast

from ..errors import InvalidArgument, InvalidHeader, UsageError
from ..model.content import Origin
from ..model.reply import printable
from .headers import check_value, message_id_text

__all__ = ["Attachment", "taken"]

OCTETS: Final = "application/octet-stream"

# Types that Python's own table lacks or has only in newer versions.
_TYPES: Final = {
    ".7z": "application/x-7z-compressed",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".eml": "message/rfc822",
    ".gz": "application/gzip",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`{|}~\-]++"
# The longest name that RFC 6838 section 4.2 allows; it fits into a line.
_NAME = _TOKEN.replace("++", "{1,127}+")
_PARAMETERS = rf"((?:[ ]*+;[ ]*+{_NAME}=(?:{_TOKEN}|\"(?:[^\"\\]|\\.)*+\"))*+)[ ]*+;?"
_TYPE: Final = re.compile(rf"({_NAME}/{_NAME}){_PARAMETERS}")
_DISPOSED: Final = re.compile(rf"(inline|attachment){_PARAMETERS}", re.I)
_PARAMETER: Final = re.compile(rf"({_TOKEN})=(?:({_TOKEN})|\"((?:[^\"\\]|\\.)*+)\")")
_ESCAPED: Final = re.compile(r"\\(.)")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")


class Attachment:
    """A file that is sent with a message. Immutable.

    Args:
        source: the octets: bytes, a path (`os.PathLike`, never a text), a binary file object, an iterable of bytes or
            an async iterable of bytes. Only bytes are read now; the others are read while the message is sent, a
            file object from its position at that time.
        filename: the name that the mail reader shows; by default the name of the path.
        content_type: `type/subtype`, parameters may follow; by default guessed from the file name.
        cid: a name for `cid:` links in the HTML text, which makes the part an inline one.
        close: close a file object after the transfer, also when it failed.
        disposition: `inline` or `attachment`, parameters may follow (RFC 2183); by default inline with a cid. With a
            cid and `attachment` the part is one of the files, not a part of the HTML text.
        description: the text of Content-Description, one line.
        name_parameter: write the file name as `name=` of the content type, too, for readers that do not know
            RFC 2231; a name that is not ASCII is written in encoded words.

    Raises:
        InvalidHeader: a control character in one of the names.
        InvalidArgument: not a source, not a content type or disposition, or a multipart content type, which only this
            library writes.
    """

    __slots__ = (
        "_cid",
        "_close",
        "_content_type",
        "_description",
        "_disposition",
        "_disposition_parameters",
        "_filename",
        "_name_parameter",
        "_parameters",
        "_source",
    )

    def __init__(
        self,
        source: bytes | Origin,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        cid: str | None = None,
        close: bool = False,
        disposition: str | None = None,
        description: str | None = None,
        name_parameter: bool = False,
    ) -> None:
        self._source = taken(source, "an attachment")
        if filename is None and isinstance(source, os.PathLike):
            filename = os.path.basename(os.fspath(source))
        texts = (filename, content_type, cid, disposition, description)
        names = ("a file name", "a content type", "a cid", "a disposition", "a description")
        for what, value in zip(names, texts, strict=True):
            if value is not None:
                check_value(what, value)
                if _CONTROL.search(value):
                    raise InvalidHeader(f"{what} holds a control character")
        self._filename = filename
        self._cid = None if cid is None else message_id_text(cid)[1:-1]
        self._content_type, self._parameters = _content_type(content_type or _guessed(filename))
        self._close = close
        self._disposition, self._disposition_parameters = _disposition(disposition, inline=cid is not None)
        self._description = description
        self._name_parameter = name_parameter

    @property
    def source(self) -> bytes | Origin:
        """Where the octets are; bytes, if they are in memory."""
        return self._source

    @property
    def data(self) -> bytes:
        """The octets, if they are in memory.

        Raises:
            UsageError: the octets are not in memory.
        """
        if not isinstance(self._source, bytes):
            raise UsageError("the attachment is read while it is sent, so it is not in memory as bytes")
        return self._source

    @property
    def filename(self) -> str | None:
        """The name that the mail reader shows."""
        return self._filename

    @property
    def content_type(self) -> str:
        """`type/subtype` in lower case."""
        return self._content_type

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """The parameters of the content type, for example `("charset", "utf-8")`."""
        return self._parameters

    @property
    def cid(self) -> str | None:
        """The name for `cid:` links, without angle brackets; `None` for an attached file."""
        return self._cid

    @property
    def disposition(self) -> str:
        """`inline` or `attachment`."""
        return self._disposition

    @property
    def disposition_parameters(self) -> tuple[tuple[str, str], ...]:
        """The parameters of the disposition without the file name, for example `("size", "1024")`."""
        return self._disposition_parameters

    @property
    def description(self) -> str | None:
        """The text of Content-Description."""
        return self._description

    @property
    def name_parameter(self) -> bool:
        """The file name is written as a parameter of the content type, too."""
        return self._name_parameter

    @property
    def close(self) -> bool:
        """A file object is closed after the transfer."""
        return self._close

    def __repr__(self) -> str:
        source = self._source
        what = f"{len(source)} bytes" if isinstance(source, bytes) else f"from {type(source).__name__}"
        return f"<Attachment {self._filename!r} {self._content_type} {what}>"


def taken(source: Any, what: str) -> bytes | Origin:
    """Return octets in memory as bytes, and any other source of octets unchanged.

    A text is refused: if it were read as a path, a value from a template or a mapping could name any file.

    Raises:
        InvalidArgument: `source` is not a source of octets.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, os.PathLike):
        return cast("os.PathLike[str]", source)
    # Check for the method: an uploaded file of a web framework is often not a class of `io`.
    if hasattr(source, "read") and not isinstance(source, io.TextIOBase):
        return cast(BinaryIO, source)
    if not isinstance(source, str | io.TextIOBase | Mapping):
        if hasattr(source, "__aiter__"):
            return cast("AsyncIterable[bytes]", source)
        if hasattr(source, "__iter__"):
            return cast("Iterable[bytes]", source)
    how = ": pathlib.Path(…) makes a path of it, encode() bytes" if isinstance(source, str) else ""
    raise InvalidArgument(
        f"{what} is made of bytes, a path, a binary file or an iterator of bytes, not of {type(source).__name__}{how}"
    )


def _guessed(filename: str | None) -> str:
    """Return the content type that goes with a file name."""
    if filename is None:
        return OCTETS
    import mimetypes  # imported here because only attachments need the module

    # Use the table, because guess_type() would read files of the system.
    extension = "." + filename.rpartition(".")[2].lower()
    return _TYPES.get(extension) or mimetypes.types_map.get(extension, OCTETS)


def _content_type(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Read a content type, RFC 2045 section 5.1."""
    match = _TYPE.fullmatch(text.strip(" "))
    if match is None:
        raise InvalidArgument(f"“{printable(text, 80)}” is not a content type")
    if match[1].lower().startswith("multipart/"):
        raise InvalidArgument("a multipart is made of parts: attach each part")
    return match[1].lower(), _parameters(match[2])


def _disposition(text: str | None, *, inline: bool) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Read a disposition, RFC 2183 section 2."""
    if text is None:
        return "inline" if inline else "attachment", ()
    match = _DISPOSED.fullmatch(text.strip(" "))
    if match is None:
        raise InvalidArgument(
            f"“{printable(text, 80)}” is not inline or attachment with parameters (RFC 2183)"
        )
    parameters = _parameters(match[2])
    if any([name.lower() == "filename" for name, _ in parameters]):
        raise InvalidArgument("the file name of an attachment is set by filename=")
    return match[1].lower(), parameters


def _parameters(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        [(name, plain or _ESCAPED.sub(r"\1", quoted)) for name, plain, quoted in _PARAMETER.findall(text)]
    )
