"""`email.message.Message` → Entity: every field and every body in octets that this library writes.

Strategy. Only values are taken from the standard library, not text that it wrote, because its folding has dropped
quotes, put encoded words into addresses and message ids, and let line endings through. A field that it parsed is
copied as the source text, which it keeps. A field that a caller set through the modern API is written by `headers`
from the parsed values; any other text stays as it was set until `render_entity` decides what has to be rewritten.

The object is read once and copied, so that the caller may change it afterwards.

Nothing here imports `email`: a caller that has an object of this package has imported it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidAddress, InvalidArgument, InvalidHeader, TextNotEncodable
from ..model.address import Address
from ..model.octets import SLICE, base64_lines, crlf, find
from ..model.reply import printable
from .charsets import UTF_8, charset_of, crlf_text, octets_of
from .entity import MOST_LEVELS, MOST_PARTS, UNTOUCHABLE, Entity, is_cut_by
from .header_parser import Field, unfolded
from .header_repair import checked_tokens, cleaned, rewritten
from .headers import check_name, group_field, is_structured, parameter_field, structured_field, text_field
from .transfer_encoding import fits_unencoded

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = ["entity_of_email_object", "free_boundary"]

# A line ending inside a value that is not a fold, or NUL.
_BREAK: Final = re.compile("\r\n(?![ \t])|\r(?!\n)|(?<!\r)\n(?![ \t])|\0")
_FOLD: Final = re.compile("\r\n|\r|\n")
# Code points that parsing never yields, because it escapes octets as U+DC80 to U+DCFF: the caller set them.
_SET: Final = re.compile("[\x80-\ud7ff\ue000-\U0010ffff]")
_LONE: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_NAME: Final = re.compile(r"[!-9;-~]{1,900}")
#: Defects of a local part with which it is still kept.
_HARMLESS: Final = ("local-part ", "invalid repeated '.'", "quoted-string ", "encoded word inside")
_BOUNDARY: Final = re.compile(r"[ -~]*[!-~]")


def entity_of_email_object(message: EmailMessage) -> Entity:
    """Copy a message of the standard library.

    Raises:
        InvalidHeader: a field name or value that would change the structure of the message, or is not a text; a header
            that was cut short because one of its lines is not a field.
        InvalidArgument: a signed or encrypted part, which must not be rewritten; too many parts or levels; a body
            that cannot be sent.
        TextNotEncodable: a text that its charset cannot express.
    """
    if _header_is_cut(message):
        raise InvalidHeader(
            "a line in the header is not a field, so the email package read the lines that follow as the body; "
            "send the source bytes with send_raw"
        )
    return _Copy().entity(message, "the message", 0)


def _header_is_cut(message: EmailMessage) -> bool:
    defects = getattr(message, "defects", None) or ()
    return any([type(defect).__name__ == "MissingHeaderBodySeparatorDefect" for defect in defects])


class _Copy:
    """One pass over an object, which counts its parts."""

    def __init__(self) -> None:
        self._parts = 0

    def entity(self, part: Any, where: str, level: int, *, attached: bool = False) -> Entity:
        """Copy one entity.

        Args:
            part: an object of the standard library.
            where: the name of the part in errors.
            level: how many multiparts and messages contain the part.
            attached: the part belongs to an attached message, so what has to be rewritten is rewritten now.
        """
        if not hasattr(part, "raw_items") or not hasattr(part, "get_payload"):
            raise InvalidArgument(f"{where} is {type(part).__name__}, not a message of the email package")
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidArgument(f"the message has more than {MOST_PARTS} parts")
        if level > MOST_LEVELS:
            raise InvalidArgument(f"the message has more than {MOST_LEVELS} levels of parts")
        fields = [
            _field(name, value, where, strict=level == 0, now=attached) for name, value in part.raw_items()
        ]
        default = "message/rfc822" if getattr(part, "_default_type", "") == "message/rfc822" else "text/plain"
        entity = Entity(fields, parts=[], joined=level > 0 and _header_is_cut(part), default=default)
        kind = entity.content_type.value
        if kind in UNTOUCHABLE:
            mend = "attach its source bytes as message/rfc822, or " if attached else ""
            raise InvalidArgument(
                f"{where} is {kind}, and rewriting it would break it: {mend}send the source bytes with send_raw"
            )
        # The only access to the parsed octets, because `get_payload` decodes them in the declared charset.
        payload = getattr(part, "_payload", None)
        if not isinstance(payload, list):
            entity.body = _leaf(payload, entity, where)
        elif kind.startswith("multipart/"):
            parts = [
                self.entity(one, name, level + 1, attached=attached)
                for name, one in _numbered(payload, where)
            ]
            return _multipart(entity, parts, part)
        elif not kind.startswith("message/"):
            raise InvalidArgument(
                f"{where} holds parts, but its Content-Type is {kind}: set multipart/mixed or another multipart"
            )
        else:
            found = [
                self.entity(one, name, level + 1, attached=True) for name, one in _numbered(payload, where)
            ]
            entity.body = _messages(kind, found, where)
        return entity


def _numbered(payload: list[Any], where: str) -> Iterator[tuple[str, Any]]:
    before = "part " if where == "the message" else where.partition(" (")[0] + "."
    for number, one in enumerate(payload, 1):
        yield f"{before}{number}", one


# --- fields -------------------------------------------------------------------------------------------------


def _field(name: Any, value: Any, where: str, *, strict: bool, now: bool) -> Field:
    """Copy a field.

    Args:
        name, value: the field in the object.
        where: the name of the part in errors.
        strict: the name must be a valid one; an old message that is attached may have others.
        now: a value that is not ASCII and was set, not parsed, is encoded now.
    """
    if strict:
        check_name(name)
    elif not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidHeader(f"“{printable(str(name), 80)}” in {where} is not the name of a header field")
    if hasattr(value, "fold") and isinstance(value, str):
        return _line(name, _modern(name, value))
    text = _plain(name, value, where)
    field = _line(name, f"{name}: {text}" if text else f"{name}:")
    # The encoded words of an old Header are as long as its chunks.
    anew = not isinstance(value, str) or (now and _SET.search(text))
    return rewritten(field, utf8=True) if anew else field


def _line(name: str, line: str) -> Field:
    return Field(name.lower(), line.encode("utf-8", "surrogateescape") + b"\r\n")


def _plain(name: str, value: Any, where: str) -> str:
    """Return a value that is a text, or an old `email.header.Header`, with its folds."""
    if isinstance(value, str):
        text = value
        if _BREAK.search(text):
            raise InvalidHeader(f"the value of {printable(name, 80)} in {where} holds a line ending or NUL")
        if _LONE.search(text):
            raise InvalidHeader(
                f"the value of {printable(name, 80)} in {where} holds half of a surrogate pair"
            )
        return _FOLD.sub("\r\n", text)
    if hasattr(value, "encode") and hasattr(value, "append"):
        # Each chunk is encoded separately, so that a comma in an encoded name is not a separator.
        try:
            return unfolded(str(value.encode(maxlinelen=0)))
        except Exception as error:  # an object of another package may raise anything
            raise InvalidHeader(
                f"the value of {printable(name, 80)} in {where} cannot be written: {error}"
            ) from error
    raise InvalidHeader(
        f"the value of {printable(name, 80)} in {where} is {type(value).__name__}, not a text"
        + ("; join the addresses with commas" if isinstance(value, list | tuple) else "")
    )


def _modern(name: str, value: Any) -> str:
    """Write a field from the values that the modern API parsed."""
    if hasattr(value, "groups"):
        _check_salvage(name, value)
        try:
            groups = [
                (group.display_name, [_address(one) for one in group.addresses]) for group in value.groups
            ]
            return group_field(name, groups, utf8=True)
        except InvalidAddress:
            pass  # `envelope` raises it when it is called
        except (AttributeError, TypeError) as error:
            raise InvalidHeader(
                f"the value of {printable(name, 80)} holds an item that is no address"
            ) from error
    elif hasattr(value, "params"):
        kind = getattr(value, "content_type", None) or getattr(value, "content_disposition", None) or ""
        pairs = [(key, cleaned(text)) for key, text in value.params.items()]
        return parameter_field(name, kind, pairs)
    text = unfolded(str(value))
    if hasattr(value, "groups"):
        return f"{name}: {cleaned(text)}"
    if is_structured(name.lower()):
        text = checked_tokens(name, text)
        return structured_field(name, text) if text.isascii() else f"{name}: {text}"
    return text_field(name, cleaned(text))


def _check_salvage(name: str, value: Any) -> None:
    """Refuse a list of addresses from which the email package has dropped what it could not parse."""
    for defect in getattr(value, "defects", ()):
        about = str(defect)
        if type(defect).__name__ == "InvalidHeaderDefect" and not about.startswith(_HARMLESS):
            raise InvalidHeader(
                f"{printable(name, 80)} is not a list of mailboxes: {about}; separate them with commas"
            )


def _address(one: Any) -> Address:
    """Read an address of the modern API."""
    address = Address.parse(one.addr_spec)
    return Address(address.local, address.domain, cleaned(one.display_name)) if one.display_name else address


# --- bodies -------------------------------------------------------------------------------------------------


def _leaf(payload: Any, entity: Entity, where: str) -> bytes:
    """Return the body of a leaf, CRLF-delimited; a binary body is encoded in base64 at once."""
    kind = entity.content_type.value
    if payload is None:
        return b""
    if isinstance(payload, str):
        octets, lined = _text_octets(payload, entity, where)
    elif isinstance(payload, bytes | bytearray):
        octets, lined = bytes(payload), True
    else:
        raise InvalidArgument(f"the body of {where} is {type(payload).__name__}, not a text")
    binary = entity.encoding == "binary" or (
        not isinstance(payload, str) and entity.encoding in ("7bit", "8bit")
    )
    if not lined or (binary and not kind.startswith(("text/", "message/", "multipart/"))):
        entity.set(Field("content-transfer-encoding", b"Content-Transfer-Encoding: base64\r\n"))
        return base64_lines(octets)
    return crlf(octets)


def _text_octets(text: str, entity: Entity, where: str) -> tuple[bytes, bool]:
    """Return a text in octets, and whether its lines end with the octets CR LF."""
    if text.isascii() or not _is_set(text):
        try:
            return octets_of(text, "ascii", "surrogateescape"), True
        except UnicodeEncodeError as error:
            raise TextNotEncodable(f"the body of {where} holds half of a surrogate pair") from error
    # The caller set the text, and nothing has encoded it yet.
    label = entity.content_type.get("charset")
    charset = UTF_8 if label is None or label.lower() in ("us-ascii", "ascii") else charset_of(label)
    if charset is UTF_8:
        _declare_utf8(entity)
    if not charset.plain:
        text = crlf_text(text)
    try:
        return octets_of(text, charset.codec, "surrogateescape"), charset.plain
    except UnicodeError as error:
        raise TextNotEncodable(
            f"the body of {where} cannot be expressed in {charset.label}: {error}"
        ) from error


def _is_set(text: str) -> bool:
    """Tell whether the caller set this text: parsed text contains only ASCII and escaped octets."""
    return any(_SET.search(text, start, start + SLICE) for start in range(0, len(text), SLICE))


def _declare_utf8(entity: Entity) -> None:
    found = entity.content_type
    pairs = [(name, value) for name, value in found.parameters if name != "charset"]
    field = parameter_field("Content-Type", found.value, [("charset", "utf-8"), *pairs])
    entity.set(Field("content-type", field.encode() + b"\r\n"))


def _multipart(entity: Entity, parts: list[Entity], source: Any) -> Entity:
    """Return a multipart; a boundary is made if it has none, or one that occurs as a delimiter in a part."""
    whole = Entity(entity.fields, parts=parts, joined=entity.joined)
    if not parts:
        return whole
    boundary = entity.boundary
    bodies = [leaf.body for part in parts for leaf in _leaves(part)]
    if _BOUNDARY.fullmatch(boundary) is None or any([is_cut_by(boundary, body) for body in bodies]):
        boundary = free_boundary(bodies)
        found = entity.content_type
        pairs = [(name, value) for name, value in found.parameters if name != "boundary"]
        field = parameter_field("Content-Type", found.value, [*pairs, ("boundary", boundary)])
        whole.set(Field("content-type", field.encode() + b"\r\n"))
    whole.preamble = _outer_text(getattr(source, "preamble", None))
    if whole.preamble and not whole.preamble.endswith(b"\r\n"):
        whole.preamble += b"\r\n"
    whole.epilogue = _outer_text(getattr(source, "epilogue", None))
    if is_cut_by(whole.boundary, whole.preamble) or is_cut_by(whole.boundary, whole.epilogue):
        whole.preamble = whole.epilogue = b""
    return whole


def _leaves(entity: Entity) -> Iterator[Entity]:
    if not entity.parts:
        yield entity
    for part in entity.parts:
        yield from _leaves(part)


def free_boundary(bodies: list[bytes], token: Callable[[int], str] = secrets.token_hex) -> str:
    """Return a boundary that occurs in no body; `=_` does not occur in an encoded body."""
    while True:
        boundary = "=_" + token(12)
        if not any([find(body, boundary.encode()) >= 0 for body in bodies]):
            return boundary


def _outer_text(text: Any) -> bytes:
    """Return a preamble or epilogue, which no reader shows; empty if it cannot be sent unencoded."""
    if not isinstance(text, str) or not text.isascii():
        return b""
    octets = crlf(text.encode())
    return octets if fits_unencoded(octets) else b""


def _messages(kind: str, found: list[Entity], where: str) -> bytes:
    """Return the octets of the message in a message/… part, or of the blocks of a delivery report."""
    if kind == "message/delivery-status":
        # RFC 3464 section 2.1: groups of fields, each followed by an empty line.
        return b"".join(
            [one.octets().rstrip(b"\r\n") + b"\r\n\r\n" for one in found if one.fields or one.body]
        )
    if len(found) != 1:
        raise InvalidArgument(f"{where} is {kind} and holds {len(found)} messages, not one")
    return found[0].octets()
