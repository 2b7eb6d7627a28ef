"""Two readers of whole messages, and what may differ between what they read before and after.

`by_stdlib` asks the parser of the standard library (its oldest policy, which changes nothing). `by_rfc` is written from
RFC 2045–2047, 2231 and 5322 and shares no code with the package under test. Both return what a message says, as a
dictionary from a *facet* to a value, so that two readings are compared facet by facet (`differences`):

- `from`, `to`, … (`PEOPLE`): (display name, addr-spec) of each mailbox; a comment is neither;
- `field:<name>`: the other fields of that name in order, unfolded, encoded words decoded where text may hold them;
- `tree`: the shape of the parts;
- `leaf:<number>`: a part without parts: type, parameters, names, and its text or octets;
- `octets:<number>`: of a part that no writer may touch: what is signed or encrypted, and an attached message;
- `message:<number>/…`: the facets of an attached message.

What a writer may change, and why:

- line ends become CRLF and the last line gets one (RFC 5321 section 2.3.8): the source is normalised before it is read;
- Bcc and Resent-Bcc of the outermost header are removed (RFC 5322 section 3.6.3);
- Return-Path is removed (RFC 5321 section 4.4), and a field of mailboxes without any;
- the domain of an address may be written in A-labels (RFC 5890), a group as its members;
- Date, Message-ID, MIME-Version and Sender may be added, and Date may be written anew, but as the same moment;
- boundaries, transfer encodings and the charset of a text are the writer's choice, so are encoded words, RFC 2231 and
  folding: all these are read away;
- comments in fields of mailboxes and in MIME fields may go (RFC 5322 section 3.2.2); in the former one may become the
  name of a mailbox that has none;
- a multipart of one part may become that part; a part that is not a text may get a Content-Disposition;
- an identifier may get the angle brackets that it lacks;
- the last line ends of a text that is shown, and of an attached message, do not count; those of a file do.
"""

from __future__ import annotations

import codecs
import contextlib
import email
import email.errors
import hashlib
import inspect
import re
from datetime import UTC, datetime
from email.header import decode_header
from email.message import Message as OldMessage
from email.utils import collapse_rfc2231_value, getaddresses, parsedate_to_datetime
from typing import Any, NamedTuple

__all__ = [
    "HIDDEN",
    "PEOPLE",
    "by_object",
    "by_rfc",
    "by_stdlib",
    "differences",
    "mailboxes",
    "normal",
    "raw_fields",
    "whole",
]

Facets = dict[str, Any]

PEOPLE = frozenset(
    "from sender reply-to to cc resent-from resent-sender resent-to resent-cc disposition-notification-to "
    "return-receipt-to errors-to".split()
)
HIDDEN = frozenset(("bcc", "resent-bcc"))
#: Fields whose grammar has no room for encoded words (RFC 2047 section 5).
STRUCTURED = frozenset(
    "references in-reply-to message-id resent-message-id date resent-date received return-path list-unsubscribe "
    "list-unsubscribe-post list-help list-subscribe list-post list-owner list-archive dkim-signature "
    "arc-seal arc-message-signature arc-authentication-results authentication-results mime-version "
    "content-type content-transfer-encoding content-disposition content-id autocrypt received-spf".split()
)
#: Fields of MIME, which are read as what they say about a part.
MIME = frozenset("content-type content-transfer-encoding content-disposition content-id mime-version".split())
#: What a writer may add where it is not there.
ADDED = frozenset(("field:date", "field:message-id", "sender"))
#: What only the last server writes (RFC 5321 section 4.4).
REMOVED = frozenset(("field:return-path",))
#: Parameters that say what holds without them (RFC 3676 section 4).
DEFAULTS = frozenset((("format", "fixed"), ("delsp", "no")))
ENCODINGS = frozenset(("7bit", "8bit", "binary", "base64", "quoted-printable", ""))

_LENIENT: dict[str, Any] = {"strict": False} if "strict" in inspect.signature(getaddresses).parameters else {}


def normal(data: bytes) -> bytes:
    """Every line end as CRLF, the last one included."""
    data = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    return data if data.endswith(b"\r\n") or not data else data + b"\r\n"


def whole(data: bytes) -> bytes:
    """A whole message, normalised; empty lines before its first field are not there."""
    return re.sub(rb"\A(?:\xef\xbb\xbf)?(?:\r\n)+(?=[!-9;-~]+[ \t]*:)", b"", normal(data))


# --- what both readers do ------------------------------------------------------------------------------------


def _text(octets: bytes) -> str:
    """Octets of a header field: each run above 127 is UTF-8 if it can be, else Windows-1252, which holds Latin-1."""
    return "".join([_run(run) for run in re.findall(rb"[\x80-\xff]+|[\x00-\x7f]+", octets)])


def _run(octets: bytes) -> str:
    for codec in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return octets.decode(codec)
    return octets.decode("latin-1")


def _tidy(text: str) -> str:
    """One blank for all blanks and controls."""
    return re.sub("[\x00-\x20\x7f]+", " ", text).strip(" ")


def _without_comments(text: str) -> str:
    """A structured value with a blank for each comment, RFC 5322 section 3.2.2; all of it if one is not closed."""
    kept, depth, quoted, position = [], 0, False, 0
    while position < len(text):
        sign = text[position]
        step = 2 if sign == "\\" and (quoted or depth) else 1
        if sign == '"' and not depth:
            quoted = not quoted
        elif sign == "(" and not quoted:
            depth += 1
        if not depth:
            kept.append(text[position : position + step])
        elif sign == ")":
            depth -= 1
            kept.append("" if depth else " ")
        position += step
    return text if depth or quoted else "".join(kept)


def _octets(data: bytes) -> tuple[str, int]:
    return hashlib.sha256(data).hexdigest()[:16], len(data)


def _moment(text: str) -> datetime | str:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return _tidy(text)


def _field(name: str, text: str) -> Any:
    """What a field says; `text` is unfolded and decoded as far as that may be."""
    if name in ("date", "resent-date"):
        return str(_moment(_without_comments(text)))
    if name == "message-id":
        return re.sub(r"[ \t]+", "", text).strip("<>")
    if name in STRUCTURED or name.startswith("list-"):
        return re.sub(r"[ \t]+", "", text) if name != "received" else _tidy(text)
    if name == "keywords":  # a phrase in quotes says what it says without them
        text = text.replace('"', "")
    return _tidy(text)


class _Part(NamedTuple):
    """What is known about a part before its content is read."""

    kind: str
    parameters: dict[str, str]
    disposition: str
    disposition_parameters: dict[str, str]
    encoding: str
    cid: str
    others: tuple[tuple[str, str], ...]


def _leaf(part: _Part, data: bytes) -> dict[str, Any]:
    """The facet of a leaf."""
    parameters = {
        name: text
        for name, text in part.parameters.items()
        if name not in ("name", "boundary") and (name, text.lower()) not in DEFAULTS
    }
    filed = {name: text for name, text in part.disposition_parameters.items() if name != "filename"}
    filename = part.disposition_parameters.get("filename", part.parameters.get("name"))
    content: Any = _octets(data)
    if part.kind.startswith("text/"):
        charset = parameters.pop("charset", "us-ascii").lower()
        shown = part.disposition != "attachment"
        try:
            text = data.decode("utf-8" if charset in ("us-ascii", "ascii") else charset)
        except (LookupError, ValueError):
            # Read as the octets they are, under the name that was given.
            text, parameters["charset"] = data.decode("latin-1"), charset
        if shown:
            text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
        content = text
    elif part.kind.startswith(("message/", "multipart/")):
        content = _octets(data.rstrip(b"\r\n"))
    return {
        "kind": part.kind,
        "parameters": tuple(sorted((name, _tidy(text)) for name, text in parameters.items())),
        "disposition": part.disposition,
        "disposition parameters": tuple(sorted((name, _tidy(text)) for name, text in filed.items())),
        "file name": None if filename is None else _tidy(filename),
        "id": part.cid,
        "encoding": "" if part.encoding in ENCODINGS else part.encoding,
        "others": part.others,
        "content": content,
    }


def _shape(part: _Part, shapes: list[str]) -> str:
    """The facet of a multipart."""
    said = sorted(
        f";{name}={_tidy(text)}"
        for name, text in part.parameters.items()
        if name not in ("boundary", "type", "charset")
    )
    whole = part.kind in ("multipart/signed", "multipart/encrypted", "multipart/report")
    return shapes[0] if len(shapes) == 1 and not whole else f"{part.kind}{''.join(said)}({', '.join(shapes)})"


# --- the reader after the RFCs -------------------------------------------------------------------------------


def raw_fields(data: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """(name in lower case, value with its folds undone) of each field, and the body; `data` is normalised.

    A header ends at the first empty line. A line that is neither a field nor a fold is passed over with its folds.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    fields: list[tuple[str, bytes]] = []
    position, known = 0, False
    while position < len(data):
        end = data.find(b"\r\n", position)
        end = len(data) if end < 0 else end
        line, position = data[position:end], end + 2
        if not line:
            break
        if line[:1] in b" \t":
            if known:
                fields[-1] = (fields[-1][0], fields[-1][1] + line)
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        known = bool(colon) and re.fullmatch(rb"[!-9;-~]+", name) is not None and name[:1] != b">"
        if known:
            fields.append((name.decode().lower(), value))
    return fields, data[position:]


_WORD = re.compile(r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([QqBb])\?([^?\s]*)\?=")


def decoded(text: str) -> str:
    """Encoded words decoded, RFC 2047; blanks between two of them are not there; unknown charsets stay."""
    text = re.sub(r"(=\?[^?\s]+\?[QqBb]\?[^?\s]*\?=)\s+(?==\?[^?\s]+\?[QqBb]\?)", r"\1", text)
    found, position, pending, charset = [], 0, b"", ""

    def flush() -> None:
        nonlocal pending
        if pending:
            found.append(_decoded_word(pending, charset))
            pending = b""

    for match in _WORD.finditer(text):
        label, how, inner = match[1].lower(), match[2].lower(), match[3]
        try:
            label = _codec(label)
            octets = _from_q(inner) if how == "q" else _from_base64(inner.encode("ascii"))
        except (LookupError, ValueError):
            continue
        if position != match.start() or label != charset:
            flush()
            found.append(text[position : match.start()])
            charset = label
        pending += octets
        position = match.end()
    flush()
    return "".join([*found, text[position:]])


def _codec(label: str) -> str:
    """The name of the codec of a charset; the Hebrew ones differ in their direction only (RFC 1556)."""
    label = re.sub(r"^iso-8859-([68])-[ei]$", r"iso-8859-\1", label.lower())
    b"".decode(label)
    return codecs.lookup(label).name


def _decoded_word(octets: bytes, codec: str) -> str:
    return _text(octets) if codec == "ascii" else octets.decode(codec, "replace")


def _from_q(text: str) -> bytes:
    data = text.replace("_", " ").encode("utf-8")
    return re.sub(rb"=([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), data)


def _from_base64(data: bytes) -> bytes:
    """What is not of the alphabet is passed over (RFC 2045 section 6.8), so is a last character that stands alone."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    values = {sign: value for value, sign in enumerate(alphabet)}
    out, bits, count = bytearray(), 0, 0
    for sign in data:
        if sign == 0x3D and count % 4 in (2, 3):
            bits, count = 0, 0
        if sign not in values:
            continue
        bits, count = bits << 6 | values[sign], count + 1
        if count % 4 == 2:
            out.append(bits >> 4 & 255)
        elif count % 4 == 3:
            out.append(bits >> 2 & 255)
        elif count % 4 == 0:
            out.append(bits & 255)
            bits = 0
    return bytes(out)


def _from_quoted_printable(data: bytes) -> bytes:
    data = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", data)
    data = re.sub(rb"=\r\n|=\Z", b"", data)
    return re.sub(rb"=([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), data)


_TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|(\[[^\]]*\])|([<>@,;:.])|([^\s"<>@,;:.\[]+))', re.S)


def mailboxes(text: str) -> list[tuple[str, str]]:
    """RFC 5322 section 3.4 with the obsolete forms of section 4.4; what cannot be read is `("?", text)`."""
    tokens, position = [], 0
    text = _without_comments(text).strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return [("?", _tidy(text))]
        position = match.end()
        tokens.append(match)
    found: list[tuple[str, str]] = []
    element: list[re.Match[str]] = []
    angled = False
    for token in tokens:
        sign = token[3]
        angled = sign == "<" or (angled and sign != ">")
        if sign == ":" and not angled:
            element = []
        elif sign in (",", ";") and not angled:
            found += _mailbox(element)
            element = []
        else:
            element.append(token)
    return found + _mailbox(element)


def _mailbox(element: list[re.Match[str]]) -> list[tuple[str, str]]:
    signs = [token[3] for token in element]
    if not element:
        return []
    name, spec = "", element
    if "<" in signs:
        first = signs.index("<")
        last = signs.index(">") if ">" in signs else len(signs)
        name = "".join([" " * token[0][:1].isspace() + _plain(token) for token in element[:first]])
        spec = element[first + 1 : last]
        if any(token[3] == ":" for token in spec):  # a source route
            spec = spec[[token[3] for token in spec].index(":") + 1 :]
    written = "".join([_as_written(token) for token in spec])
    return [(_tidy(decoded(name)), written)] if name or written else []


def _plain(token: re.Match[str]) -> str:
    return re.sub(r"\\(.)", r"\1", token[1]) if token[1] is not None else token[0].strip()


def _as_written(token: re.Match[str]) -> str:
    """A word of an addr-spec; quotes that are not needed are not there."""
    if token[1] is None:
        return token[0].strip()
    plain = _plain(token)
    atom = re.fullmatch(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*", plain)
    return plain if atom else '"' + re.sub(r'(["\\])', r"\\\1", plain) + '"'


_PARAMETER = re.compile(r';\s*([^\s=;"]+?)\s*=\s*(?:"((?:[^"\\]|\\.)*+)"?|([^;]*))', re.S)


def parameters(text: str) -> tuple[str, dict[str, str]]:
    """The value and the parameters of a MIME field, RFC 2045 section 5.1 and RFC 2231."""
    text = _without_comments(text)
    value = re.split(r"[;\s]", text.strip(), maxsplit=1)[0].lower()
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[bool, str]]] = {}
    for match in _PARAMETER.finditer(text):
        given = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3].strip()
        name = match[1].lower()
        parts = re.fullmatch(r"([^*]+)(?:\*(\d+))?(\*)?", name)
        if parts is None or (parts[2] is None and parts[3] is None):
            plain.setdefault(name, decoded(given))
        else:
            pieces.setdefault(parts[1], {})[int(parts[2] or 0)] = (parts[3] is not None, given)
    for name, numbered in pieces.items():
        octets, charset, number = b"", "utf-8", 0
        while number in numbered:
            extended, given = numbered[number]
            if extended and number == 0 and given.count("'") >= 2:
                charset, _, given = given.split("'", 2)
            octets += (
                re.sub(
                    rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), given.encode("utf-8")
                )
                if extended
                else given.encode("utf-8")
            )
            number += 1
        if number:
            try:
                plain[name] = octets.decode(charset or "utf-8")
            except (LookupError, ValueError):
                plain[name] = octets.decode("latin-1")
    return value, plain


def by_rfc(data: bytes) -> Facets:
    """What a message says, read after the RFCs."""
    said: Facets = {}
    _read_message(normal(data), said, "", outer=True)
    return said


def _read_message(data: bytes, said: Facets, prefix: str, *, outer: bool) -> None:
    fields, body = raw_fields(data)
    for name, value in fields:
        if name in MIME or (outer and name in HIDDEN):
            continue
        text = _text(value)
        if name in PEOPLE or name in HIDDEN:
            said.setdefault(prefix + name, []).extend(mailboxes(text))
        else:
            given = text if name in STRUCTURED or name.startswith("list-") else decoded(text)
            if not name.startswith("content-"):
                said.setdefault(f"{prefix}field:{name}", []).append(_field(name, given))
    leaves = [0]
    said[prefix + "tree"] = _read_part(fields, body, said, prefix, leaves, default="text/plain")


def _described(fields: list[tuple[str, bytes]], default: str) -> _Part:
    given: dict[str, str] = {}
    others = []
    for name, value in fields:
        if name in MIME:
            given.setdefault(name, _text(value))
        elif name.startswith("content-"):
            others.append((name, _tidy(decoded(_text(value)))))
    kind, said = parameters(given["content-type"]) if "content-type" in given else (default, {})
    if re.fullmatch(r"[!-.0-~]+/[!-.0-~]+", kind) is None:
        kind = "text/plain"
    disposition, filed = parameters(given.get("content-disposition", ""))
    encoding, _ = parameters(given.get("content-transfer-encoding", ""))
    cid = re.sub(r"[\s<>]", "", _without_comments(given.get("content-id", "")))
    return _Part(kind, said, disposition, filed, encoding, cid, tuple(sorted(others)))


def _read_part(
    fields: list[tuple[str, bytes]], body: bytes, said: Facets, prefix: str, leaves: list[int], default: str
) -> str:
    part = _described(fields, default)
    if part.kind.startswith("multipart/") and "boundary" in part.parameters:
        children = _split(body, part.parameters["boundary"])
        if children == []:  # nothing but what is before and behind the parts
            body = b""
        if children:
            if part.kind in ("multipart/signed", "multipart/encrypted"):
                said[f"{prefix}octets:{leaves[0]}"] = _octets(b"".join(children))
            inner = "message/rfc822" if part.kind == "multipart/digest" else "text/plain"
            return _shape(
                part, [_read_part(*raw_fields(child), said, prefix, leaves, inner) for child in children]
            )
    leaves[0] += 1
    here = f"{prefix}leaf:{leaves[0]}"
    if part.encoding == "base64":
        body = _from_base64(body)
    elif part.encoding == "quoted-printable":
        body = _from_quoted_printable(body)
    if part.kind == "message/rfc822":
        said[here] = _leaf(part, b"")
        said[f"{prefix}octets:{leaves[0]}"] = _octets(normal(body).rstrip(b"\r\n"))
        _read_message(normal(body), said, f"{prefix}message:{leaves[0]}/", outer=False)
    else:
        said[here] = _leaf(part, body)
    if part.kind.startswith(("message/", "application/octet-stream")):
        said[f"{prefix}file:{leaves[0]}"] = _octets(normal(body).rstrip(b"\r\n"))
    return part.kind


def _split(body: bytes, boundary: str) -> list[bytes] | None:
    """The parts of a multipart, RFC 2046 section 5.1.1: the line end before a delimiter belongs to it.

    None if there is no delimiter at all.
    """
    line = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary.encode("utf-8")) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    parts, start = [], -1
    if line.search(body) is None:
        return None
    for match in line.finditer(body):
        if start >= 0:
            parts.append(body[start : max(start, match.start())])
        if match[1]:
            return parts
        # The line end of the delimiter may be the one before the next.
        start = min(match.end() + 2, len(body))
        if body[match.end() : match.end() + 4] == b"\r\n--":
            start = match.end()
    if start >= 0:
        parts.append(body[start:])
    return [part.removeprefix(b"\r\n") if part == b"\r\n" else part for part in parts]


# --- the reader of the standard library -----------------------------------------------------------------------


def by_stdlib(data: bytes) -> Facets:
    """What a message says, read by the standard library."""
    said: Facets = {}
    with contextlib.suppress(TypeError):  # pieces of a boundary with and without a number
        _walk_message(email.message_from_bytes(normal(data)), said, "", outer=True)
    return said


def by_object(message: OldMessage) -> Facets:
    """What an object says, by its values: nothing is written and nothing is parsed but them."""
    said: Facets = {}
    _walk_message(message, said, "", outer=True)
    return said


def _str(value: Any) -> str:
    """A header value as text: octets in no known charset are UTF-8 or Latin-1."""
    # Octets in no known charset came as surrogates, and `str` would lose them.
    unknown = any(charset == "unknown-8bit" for _, charset in getattr(value, "_chunks", ()))
    text = "".join([piece for piece, _ in value._chunks]) if unknown else str(value)
    return _text(re.sub("\r\n|\r|\n", "", text).encode("utf-8", "surrogateescape"))


def _words(text: str) -> str:
    if "=?" not in text:
        return text
    try:
        pieces: list[tuple[Any, str | None]] = decode_header(text)
        return "".join(
            [piece if isinstance(piece, str) else _piece(piece, charset) for piece, charset in pieces]
        )
    except (LookupError, ValueError, email.errors.HeaderParseError):
        return text


def _piece(piece: bytes, charset: str | None) -> str:
    if charset is None:
        return piece.decode("raw-unicode-escape")
    return _decoded_word(piece, _codec(charset))


def _walk_message(message: OldMessage, said: Facets, prefix: str, *, outer: bool) -> None:
    for given, value in message.raw_items():
        name = given.strip(" \t").lower()
        if name in MIME or name.startswith("content-") or (outer and name in HIDDEN):
            continue
        text = _str(value)
        if (name in PEOPLE or name in HIDDEN) and hasattr(value, "addresses"):
            said.setdefault(prefix + name, []).extend(
                [
                    (_tidy(_words(one.display_name)), _without_needless_quotes(one.addr_spec))
                    for one in value.addresses
                ]
            )
        elif name in PEOPLE or name in HIDDEN:
            said.setdefault(prefix + name, []).extend(
                [
                    (_tidy(_words(person)), _without_needless_quotes(spec))
                    for person, spec in getaddresses([_without_comments(text)], **_LENIENT)
                    if person or spec
                ]
            )
        else:
            given = text if name in STRUCTURED or name.startswith("list-") else _words(text)
            said.setdefault(f"{prefix}field:{name}", []).append(_field(name, given))
    leaves = [0]
    said[prefix + "tree"] = _walk_part(message, said, prefix, leaves)


def _without_needless_quotes(spec: str) -> str:
    found = re.fullmatch(r'"([\w!#$%&\'*+/=?^`{|}~-]+(?:\.[\w!#$%&\'*+/=?^`{|}~-]+)*)"(@.*)', spec)
    return found[1] + found[2] if found else spec


def _raw(part: OldMessage, header: str) -> Any:
    """The first value of a field, as it was set or parsed; None if there is none."""
    return next((value for name, value in part.raw_items() if name.lower() == header), None)


def _pairs(part: OldMessage, header: str) -> dict[str, str]:
    given = _raw(part, header)
    if given is None:
        return {}
    holder = OldMessage()
    # A surrogate in a parameter is an octet above 127. A hyphen in the name of one in RFC 2231 is not read.
    names = {name: name.replace("-", "_") for name in re.findall(r"([\w-]+)\*", _str(given))}
    text = _without_comments(_str(given))
    for name, readable in names.items():
        text = text.replace(name + "*", readable + "*")
    holder[header] = text
    try:
        pairs: Any = holder.get_params([], header)
    except TypeError:  # pieces with and without a number
        return {}
    found: dict[str, str] = {}
    for given_name, value in pairs[1:]:
        name = next((name for name, readable in names.items() if readable == given_name), given_name)
        text = collapse_rfc2231_value(value)
        found.setdefault(
            name.lower(), _words(_text(text.encode("utf-8", "surrogateescape")) if name else text)
        )
    found.pop("", None)
    return found


def _walk_part(part: OldMessage, said: Facets, prefix: str, leaves: list[int]) -> str:
    kind = part.get_content_type()
    payload: Any = part.get_payload() if part.is_multipart() else ()
    others = sorted(
        (name.lower(), _tidy(_words(_str(value))))
        for name, value in part.raw_items()
        if name.lower().startswith("content-") and name.lower() not in MIME
    )
    known = _Part(
        kind,
        _pairs(part, "content-type"),
        (_without_comments(_str(_raw(part, "content-disposition") or "")).partition(";")[0]).strip().lower(),
        _pairs(part, "content-disposition"),
        _without_comments(_str(_raw(part, "content-transfer-encoding") or "")).strip().lower(),
        re.sub(r"[\s<>]", "", _without_comments(_str(_raw(part, "content-id") or ""))),
        tuple(others),
    )
    if part.is_multipart() and not kind.startswith("message/"):
        return _shape(known, [_walk_part(child, said, prefix, leaves) for child in payload])
    leaves[0] += 1
    here = f"{prefix}leaf:{leaves[0]}"
    if part.is_multipart() and kind == "message/rfc822":
        said[here] = _leaf(known, b"")
        _walk_message(payload[0], said, f"{prefix}message:{leaves[0]}/", outer=False)
    elif part.is_multipart():
        # message/delivery-status is read as groups of fields, message/partial and others as a message.
        text = [[(name.lower(), _tidy(_str(value))) for name, value in one.raw_items()] for one in payload]
        said[here] = {**_leaf(known, b""), "content": text}
    else:
        said[here] = _leaf(known, _payload(part))
    return kind


def _payload(part: OldMessage) -> bytes:
    """The octets of a leaf; a text that was set and never encoded is UTF-8."""
    given: Any = part._payload  # type: ignore[attr-defined]  # get_payload() cannot read some declared charsets
    if isinstance(given, str) and not given.isascii() and not re.search("[\ud800-\udfff]", given):
        return given.encode()
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


# --- before and after ----------------------------------------------------------------------------------------


def differences(before: Facets, after: Facets, *, touched: bool) -> dict[str, tuple[Any, Any]]:
    """What was said before and after where that is not the same, and is not allowed to differ.

    Args:
        touched: fields of attached messages may have been written anew, as from an object that has lost their octets;
            what is signed is never touched.
    """
    before, after = _as_files(before, after), dict(after)
    found: dict[str, tuple[Any, Any]] = {}
    for facet in {**before, **after}:
        if "file:" in facet:
            continue
        old, new = before.get(facet), after.get(facet)
        if old == new or (old is None and facet in ADDED) or (new is None and facet in REMOVED):
            continue
        if facet.rpartition("/")[2] in PEOPLE and _same_people(_wired(old), _wired(new)):
            continue
        if facet.rpartition("/")[2].startswith("octets:") and touched and not _is_signed(facet, before):
            continue
        if facet.rpartition("/")[2].startswith("leaf:") and old is not None and new is not None:
            keys = [key for key in old if {**old, **_allowed(old, new)}[key] != new[key]]
            if not keys:
                continue
            old, new = ({key: one[key] for key in keys} for one in (old, new))
        if facet in ("field:date", "field:message-id") and old == [""]:
            continue
        if facet.rpartition("/")[2].startswith("field:") and old and new and _decode_alike(old, new):
            continue  # words that are not ASCII, and so were no tokens, in encoded words; or one that hid a control
        found[facet] = (old, new)
    return found


def _decode_alike(old: list[str], new: list[str]) -> bool:
    return [_tidy(decoded(text)) for text in new] == [_tidy(decoded(text)) for text in old]


def _as_files(before: Facets, after: Facets) -> Facets:
    """The facets of attached messages that cannot travel (NUL, signed) as those of files of the same octets."""
    found = dict(before)
    for facet, old in before.items():
        new = after.get(facet)
        number = facet.rpartition(":")[2]
        prefix = facet.rpartition("leaf:")[0]
        if (
            facet != f"{prefix}leaf:{number}"
            or new is None
            or not old["kind"].startswith("message/")
            or new["kind"] != "application/octet-stream"
            or before.get(f"{prefix}file:{number}") != after.get(f"{prefix}file:{number}")
        ):
            continue
        inner = (f"{prefix}message:{number}/", f"{prefix}octets:{number}")
        found = {one: value for one, value in found.items() if not one.startswith(inner)}
        found[facet] = {**old, **{key: new[key] for key in ("kind", "content", "parameters")}}
        kinds = re.compile(r"message/[\w.+-]+|application/octet-stream")
        if kinds.sub("", found[prefix + "tree"]) == kinds.sub("", after[prefix + "tree"]):
            found[prefix + "tree"] = after[prefix + "tree"]
    return found


def _wired(people: list[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """Mailboxes with their domains as A-labels, which are the same names; a field without any is as good as none."""
    found = []
    for name, spec in people or ():
        local, sign, domain = spec.rpartition("@")
        with contextlib.suppress(UnicodeError):
            domain = domain.encode("idna").decode().lower()
        found.append((name, local + sign + domain))
    return found


def _same_people(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> bool:
    return [spec for _, spec in old] == [spec for _, spec in new] and all(
        # Encoded words in quotes are none (RFC 2047 section 5), but many readers decode them.
        before in ("", after, _tidy(decoded(after)))
        for (before, _), (after, _) in zip(old, new, strict=True)
    )


def _is_signed(facet: str, said: Facets) -> bool:
    """The octets are those of a signed or encrypted multipart: an attached message has facets of its own."""
    return f"{facet.replace('octets:', 'message:')}/tree" not in said


def _allowed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What of `new` may stand in place of `old` in a leaf."""
    changed = {}
    for key in ("encoding", "id"):
        # No token, so it may be in encoded words; their letters are those of base64.
        if not old[key].isascii() or "=?" in old[key]:
            changed[key] = new[key]
    if not old["disposition"] and not old["kind"].startswith("text/"):
        changed["disposition"] = new["disposition"]
    elif old["disposition"] not in ("", "inline") and new["disposition"] == "attachment":
        # RFC 2183 section 2.8: what is not known is an attachment.
        changed["disposition"] = "attachment"
    return changed
