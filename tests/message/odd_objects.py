"""Objects of `email` that are odd: built by code as applications build them, with everything that may go wrong.

`OBJECTS` are some hundred, the same in every run: kinds of messages (`BASES`) times header fields (`FIELDS`), contents
times types times encodings (`PAYLOADS`), and shapes (`SHAPES`). Where it is plain what an object says and to whom it
goes, it is `clear`, and is held to it; of any other nothing is asked but that it is refused with an error of ours, or
leaves in the form that RFC 5322 has.
"""

from __future__ import annotations

import contextlib
import datetime
import email
import email.policy
from collections.abc import Callable, Iterator
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.message import Message as OldMessage
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any, NamedTuple

__all__ = ["ANN", "BASES", "BOB", "EVE", "FIELDS", "OBJECTS", "PAYLOADS", "Odd", "with_content", "with_field"]

ANN, BOB, CARL, EVE = "ann@example.com", "bob@example.org", "carl@example.net", "eve@evil.example"
#: More than any line may hold, and any address.
HUGE = 100_000


class Odd(NamedTuple):
    """An object.

    Attributes:
        name: what a failure calls it.
        make: makes a new one.
        clear: it is plain what it says.
        recipients: to whom it goes, None where that is not plain.
    """

    name: str
    make: Callable[[], OldMessage]
    clear: bool = False
    recipients: tuple[str, ...] | None = None


# --- kinds of messages ---------------------------------------------------------------------------------------


def _text() -> OldMessage:
    return MIMEText("Hello\n")


def _text_utf8() -> OldMessage:
    return MIMEText("Grüße\n.\nFrom me\n", "plain", "utf-8")


def _html_in_one_line() -> OldMessage:
    return MIMEText("<p>" + "x " * 600 + "</p>", "html", "us-ascii")


def _multipart() -> OldMessage:
    message = MIMEMultipart()
    message.attach(MIMEText("Grüße\n", "plain", "iso-8859-1"))
    message.attach(MIMEApplication(bytes(range(256)), name="ä.bin"))
    return message


def _old() -> OldMessage:
    message = OldMessage()
    message.set_payload("Hello\n")
    return message


def _modern(policy: Any = email.policy.default) -> EmailMessage:
    message = EmailMessage()
    # With its own policy: not every line length is one that the body can be encoded for.
    message.set_content("Grüße\n" + "long " * 50 + "\n")
    message.policy = policy
    return message


def _modern_with_file() -> OldMessage:
    message = _modern()
    message.add_alternative("<p>Grüße</p>\n", subtype="html")
    message.add_attachment(b"\0\1\2", maintype="application", subtype="x-odd", filename="日本.bin")
    return message


def _parsed(policy: Any) -> OldMessage:
    return email.message_from_bytes(
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n".encode(),
        policy=policy,
    )


BASES: dict[str, Callable[[], OldMessage]] = {
    "MIMEText": _text,
    "MIMEText in UTF-8": _text_utf8,
    "MIMEText in one line": _html_in_one_line,
    "MIMEMultipart": _multipart,
    "Message": _old,
    "EmailMessage": _modern,
    "EmailMessage with a file": _modern_with_file,
    "EmailMessage for SMTPUTF8": lambda: _modern(email.policy.SMTPUTF8),
    "EmailMessage in lines of 20": lambda: _modern(email.policy.default.clone(max_line_length=20)),
    "EmailMessage in lines without limit": lambda: _modern(email.policy.default.clone(max_line_length=0)),
    "parsed, compat32": lambda: _parsed(email.policy.compat32),
    "parsed, default": lambda: _parsed(email.policy.default),
}


# --- header fields -------------------------------------------------------------------------------------------


def put(message: OldMessage, name: Any, value: Any) -> None:
    """Add a field, also one that the policy would refuse."""
    try:
        message[name] = value
    except Exception:
        headers: Any = message._headers  # type: ignore[attr-defined]
        headers.append((name, value))


def with_field(base: str, name: Any, value: Any) -> OldMessage:
    """A message from Ann to Bob with a field, which takes the place of that one if it has it already."""
    message = BASES[base]()
    given = {"From": f"Ann <{ANN}>", "To": BOB, "Subject": "Grüße"}
    if name in given:
        given[name] = value
    else:
        given = {**given, name: value}
    for one, text in given.items():
        put(message, one, text)
    return message


LONG = f"{EVE}, " + "x" * 70
WORD = "=?utf-8?q?a=0D=0AX-Injected:_1=0D=0A=0D=0Ab?="

#: Values that are clear in a field of text.
TEXTS: dict[str, Any] = {
    "non-ASCII": "Grüße, 日本 😀",
    "long": "word " * 60 + "end",
    "long non-ASCII": "Grüße " * 60 + "Ende",
    "one long token": "x" * 500,
    "empty": "",
    "old Header": Header("Grüße", "iso-8859-1"),
    "old Header, two charsets": Header("Grüße ", "utf-8"),
    "looks like an address": f'"x, {EVE}" <{EVE}>',
}
#: Values that no field can hold, or that hide something.
ODDITIES: dict[str, Any] = {
    "list": [BOB, CARL],
    "tuple": (BOB, CARL),
    "None": None,
    "int": 5,
    "float": 0.5,
    "bytes": b"bob@example.org",
    "dict": {"a": 1},
    "object": object(),
    "date": datetime.date(2024, 1, 1),
    "datetime": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "surrogate of an octet": "a\udcfcb",
    "half of a pair": "a\ud800b",
    "NUL": "a\0b",
    "CR LF": "a\r\nX-Injected: 1",
    "LF": "a\nX-Injected: 1",
    "CR": "a\rX-Injected: 1",
    "LF, empty line": "a\n\nX-Injected: 1",
    "line separator": "a\u2028X-Injected: 1",
    "next line": "a\x85X-Injected: 1",
    "form feed": "a\x0cX-Injected: 1",
    "ends in LF": "a\n",
    "ends in CR LF and a blank": "a\r\n ",
    "fold": "a\r\n b",
    "fold of a blank": "a\r\n \r\n b",
    "hidden line end": WORD,
    "long hidden line end": "word " * 30 + WORD,
    "100 kB": "y" * HUGE,
    "100 kB of words": "word " * (HUGE // 5),
    "old Header with a line end": Header("a\nX-Injected: 1"),
    "old Header, unknown charset": Header("abc", "us-ascii", header_name="X-Odd"),
}


def _address(name: str, spec: str = BOB) -> Address:
    return Address(name, addr_spec=spec)


#: Values of To that are clear, and whom they name.
PEOPLE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "plain": (BOB, (BOB,)),
    "name": (f"Bob <{BOB}>", (BOB,)),
    "name non-ASCII": (f"Jörg <{BOB}>", (BOB,)),
    "long quoted name with an address": (f'"{LONG}" <{BOB}>', (BOB,)),
    "long honest name with a comma": (f'"{"Länge " * 14}, GmbH" <{BOB}>', (BOB,)),
    "long name with quotes": ('"' + 'the \\"boss\\" ' * 12 + f'" <{BOB}>', (BOB,)),
    "name that is an address": (f'"{EVE}" <{BOB}>', (BOB,)),
    "name that is a group": (f'"x: {EVE};" <{BOB}>', (BOB,)),
    "comment": (f"{BOB} (not {EVE}, really)", (BOB,)),
    "folded": (f"{BOB},\r\n {CARL}", (BOB, CARL)),
    "two": (f"Bob <{BOB}>, {CARL}", (BOB, CARL)),
    "encoded": (f"=?utf-8?q?J=C3=B6rg?= <{BOB}>", (BOB,)),
    "encoded with a comma": (f"=?utf-8?b?TcO8bGxlciwgSsO2cmc=?= <{BOB}>", (BOB,)),
    "group": (f"Friends: {BOB}, Carl <{CARL}>;", (BOB, CARL)),
    "Address": (_address(LONG), (BOB,)),
    "Address with quotes": (_address('the "boss" \\ , '), (BOB,)),
    "Addresses": ((_address("Länge " * 14), _address("C, D", CARL)), (BOB, CARL)),
    "international domain": ("bob@bücher.example", ("bob@xn--bcher-kva.example",)),
    "a thousand": (
        ", ".join([f'"N, {n}" <u{n}@example.org>' for n in range(1000)]),
        tuple([f"u{n}@example.org" for n in range(1000)]),
    ),
    "old Header": (Header(BOB), (BOB,)),
}
#: Values of To that name nobody for certain.
NOBODY: dict[str, Any] = {
    "empty": "",
    "null": "<>",
    "without domain": "root",
    "group of groups": f"A: B: {BOB};;",
    "quote not closed": f'"Bob <{BOB}>',
    "hidden line end": f"{WORD} <{BOB}>",
    "hidden address": f"=?utf-8?q?x=2C?= {EVE}",
    "name of 100 kB": f'"{"y" * HUGE}" <{BOB}>',
    "brackets of 100 kB": "<" * HUGE,
    "comments of 100 kB": "(" * HUGE + BOB,
    "quotes of 100 kB": '"' * (HUGE + 1) + BOB,
    "local part of 100 kB": "y" * HUGE + "@example.org",
    "old Header, encoded": Header(f"Jörg <{BOB}>", "utf-8"),
    "Group": None,
}
NAMES: list[Any] = [
    "",
    " ",
    "X Odd",
    "X:Odd",
    "X-Odd:",
    "X-Odd\r\nX-Injected: 1\r\nY",
    "X-Odd\nX-Injected",
    "X-\0",
    "Ünïcode",
    "\ud800",
    "\udcfc",
    "x" * 1000,
    "From ",
    ">From",
    "X-\x7f",
    "Bcc ",
    " Bcc",
    "\ufeffBcc",
    None,
    5,
    b"X-Odd",
]

#: (name of the case, name of the field, its value, is it clear, recipients)
FIELDS: list[tuple[str, Any, Any, bool, tuple[str, ...] | None]] = [
    *[(f"Subject: {case}", "Subject", value, True, (BOB,)) for case, value in TEXTS.items()],
    *[(f"X-Odd: {case}", "X-Odd", value, True, (BOB,)) for case, value in TEXTS.items()],
    *[(f"To: {case}", "To", value, True, people) for case, (value, people) in PEOPLE.items()],
    *[(f"Bcc: {case}", "Bcc", value, True, (BOB, *people)) for case, (value, people) in PEOPLE.items()],
    *[(f"Reply-To: {case}", "Reply-To", value, True, (BOB,)) for case, (value, _) in PEOPLE.items()],
    *[
        (f"{name}: {case}", name, value, False, None)
        for name in (
            "Subject",
            "X-Odd",
            "To",
            "From",
            "Cc",
            "Content-Type",
            "Content-Disposition",
            "References",
        )
        for case, value in ODDITIES.items()
    ],
    *[(f"To: {case}", "To", value, False, None) for case, value in NOBODY.items()],
    *[(f"name {name!r:.40}", name, "odd", False, None) for name in NAMES],
    ("From: two", "From", f"{ANN}, {CARL}", True, (BOB,)),
    ("From: null", "From", "<>", False, None),
    ("Sender: long", "Sender", f'"{LONG}" <{ANN}>', True, (BOB,)),
    ("Resent-To", "Resent-To", CARL, False, None),
    (
        "References: long",
        "References",
        " ".join([f"<{'r' * 80}{n}@mail.example>" for n in range(9)]),
        True,
        (BOB,),
    ),
    ("References: over 998", "References", f"<{'r' * 1200}@mail.example>", False, None),
    ("List-Unsubscribe: long", "List-Unsubscribe", f"<https://example.com/{'t' * 200}>", True, (BOB,)),
    ("DKIM-Signature", "DKIM-Signature", f"v=1; a=rsa-sha256; d=example.com; b={'k' * 344}", True, (BOB,)),
    ("Message-ID: long", "Message-ID", f"<{'m' * 200}@example.com>", True, (BOB,)),
    ("Date: nonsense", "Date", "next Tuesday", False, (BOB,)),
    ("MIME-Version: 2.0", "MIME-Version", "2.0", False, (BOB,)),
    ("Transfer encoding: unknown", "Content-Transfer-Encoding", "x-odd", False, None),
]


# --- contents ------------------------------------------------------------------------------------------------


def _cycle() -> Any:
    message = MIMEMultipart()
    inner = MIMEMultipart()
    message.attach(inner)
    inner.attach(message)
    return [message]


#: Makes what `set_payload` is given.
PAYLOADS: dict[str, Callable[[], Any]] = {
    "text": lambda: "Hello\n",
    "non-ASCII": lambda: "Grüße\n",
    "surrogate of an octet": lambda: "a\udcfc\n",
    "half of a pair": lambda: "a\ud800\n",
    "bytes": lambda: b"Hello\n",
    "octets": lambda: b"\x80\xff\0",
    "None": lambda: None,
    "int": lambda: 5,
    "dict": lambda: {"a": 1},
    "no parts": list,
    "one part": lambda: [MIMEText("Hello\n")],
    "a text as a part": lambda: ["not a message"],
    "None as a part": lambda: [None],
    "a tuple of parts": lambda: (MIMEText("Hello\n"),),
    "a message": lambda: MIMEText("Hello\n"),
    "a cycle": _cycle,
    "100 kB in a line": lambda: "z" * HUGE,
    "NUL": lambda: "a\0b\n",
    "line ends": lambda: "a\rb\nc\r\nd\n\r.\r\n",
    "dots": lambda: "\n.\n..\n",
    "broken base64": lambda: "AAEC*\nA",
    "long words in a line": lambda: "Grüße " * 500,
}
TYPES: list[str | None] = [
    None,
    "text/plain",
    "text/plain; charset=utf-8",
    "text/plain; charset=x-no-such",
    "text/plain; charset=utf-16",
    "text/html; charset=unknown-8bit",
    "multipart/mixed",
    "multipart/mixed; boundary=b",
    'multipart/mixed; boundary="\ud800"',
    "multipart/signed; protocol=x",
    "message/rfc822",
    "message/partial",
    "application/octet-stream; name=\ud800",
    "application/pdf",
    "text",
    "; /;",
]
ENCODINGS: list[Any] = [None, "7bit", "8bit", "base64", "quoted-printable", "x-uuencode", "x-odd", "\ud800"]


def with_content(payload: str, kind: str | None, encoding: Any, *, modern: bool = False) -> OldMessage:
    """A message from Ann to Bob of one part with this content, type and transfer encoding."""
    message: Any = EmailMessage() if modern else OldMessage()
    put(message, "From", ANN)
    put(message, "To", BOB)
    if kind is not None:
        put(message, "Content-Type", kind)
    if encoding is not None:
        put(message, "Content-Transfer-Encoding", encoding)
    message._payload = PAYLOADS[payload]()
    made: OldMessage = message
    return made


def _contents() -> Iterator[Odd]:
    """Each payload with each type and with each encoding, not all three with each other."""
    for i, payload in enumerate(PAYLOADS):
        for j, kind in enumerate(TYPES):
            encoding = ENCODINGS[(i + j) % len(ENCODINGS)]
            clear = (
                payload in ("text", "non-ASCII", "dots")
                and kind in (None, "text/plain", "text/plain; charset=utf-8")
                and encoding in (None, "8bit")
            )
            yield Odd(
                f"{payload}, {kind!a}, {encoding!a}",
                lambda payload=payload, kind=kind, encoding=encoding, modern=bool((i + j) % 2): with_content(  # type: ignore[misc]
                    payload, kind, encoding, modern=modern
                ),
                clear,
                (BOB,) if clear else None,
            )


# --- shapes --------------------------------------------------------------------------------------------------


def _addressed(message: OldMessage) -> OldMessage:
    put(message, "From", ANN)
    put(message, "To", BOB)
    return message


def _nested(depth: int, wrap: Callable[[OldMessage], OldMessage]) -> Callable[[], OldMessage]:
    def make() -> OldMessage:
        message: OldMessage = MIMEText("inmost\n")
        for _ in range(depth):
            message = wrap(message)
        return _addressed(message)

    return make


def _in_multipart(inner: OldMessage) -> OldMessage:
    message = MIMEMultipart()
    message.attach(inner)
    return message


def _of(*parts: OldMessage, subtype: str = "mixed", **parameters: Any) -> OldMessage:
    message: Any = MIMEMultipart(subtype, **parameters)
    for part in parts:
        message.attach(part)
    return _addressed(message)


def _shared() -> OldMessage:
    part = MIMEText("twice\n")
    return _of(part, part)


def _part_with(name: Any, value: Any) -> Callable[[], OldMessage]:
    def make() -> OldMessage:
        part = MIMEApplication(b"\0\1")
        put(part, name, value)
        return _of(MIMEText("hi\n"), part)

    return make


def _forwarded(policy: Any) -> OldMessage:
    inner = email.message_from_bytes(
        "From: Jörg <c@example.net>\r\nSubject: Grüße\r\nX-Empty:\r\n\r\nGrüße\r\n".encode(), policy=policy
    )
    return _of(MIMEText("see below\n"), MIMEMessage(inner))


def _with_defects() -> OldMessage:
    return email.message_from_bytes(
        b"From: ann@example.com\nTo: bob@example.org\nno field\nBcc: x@example.net\n\nhi\n"
    )


def _with_same_boundary() -> OldMessage:
    text = MIMEText("hi\n--b\nbye\n--b--\n")
    message = _of(text)
    message.set_boundary("b")
    return message


def _without_policy_of_children() -> OldMessage:
    return _of(_modern(), _old(), _parsed(email.policy.SMTPUTF8))


def _duplicates() -> OldMessage:
    message = _addressed(MIMEText("hi\n"))
    for name, value in (("From", CARL), ("To", CARL), ("Subject", "one"), ("Subject", "two")):
        put(message, name, value)
    return message


def _subclass() -> OldMessage:
    class Own(MIMEText):
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

        def items(self) -> Any:
            raise KeyError("items")

    return _addressed(Own("hi\n"))


SHAPES: list[Odd] = [
    Odd("nested in 30 multiparts", _nested(30, _in_multipart), True, (BOB,)),
    Odd("nested in 300 multiparts", _nested(300, _in_multipart)),
    Odd("nested in 2000 multiparts", _nested(2000, _in_multipart)),
    Odd("nested in 20 messages", _nested(20, MIMEMessage), True, (BOB,)),
    Odd("nested in 300 messages", _nested(300, MIMEMessage)),
    Odd("nested in 2000 messages", _nested(2000, MIMEMessage)),
    Odd("a cycle", lambda: _addressed(_cycle()[0])),
    Odd("a part twice", _shared, True, (BOB,)),
    Odd("a multipart without parts", _of),
    Odd("an alternative without parts", lambda: _of(subtype="alternative")),
    Odd("a thousand parts", lambda: _of(*[MIMEText(f"{n}\n") for n in range(1000)])),
    Odd("parts of other policies", _without_policy_of_children, True, (BOB,)),
    Odd("a boundary that stands in a part", _with_same_boundary),
    Odd("a boundary of 100 characters", lambda: _of(MIMEText("hi\n"), boundary="b" * 100)),
    Odd("a boundary with a line end", lambda: _of(MIMEText("hi\n"), boundary="b\r\nX-Injected: 1")),
    Odd("an empty boundary", lambda: _of(MIMEText("hi\n"), boundary="")),
    Odd("a signed one", lambda: _of(MIMEText("hi\n"), MIMEText("sig"), subtype="signed", protocol="x/y")),
    Odd(
        "an encrypted one", lambda: _of(MIMEText("hi\n"), MIMEText("c"), subtype="encrypted", protocol="x/y")
    ),
    Odd("forwarded, compat32", lambda: _forwarded(email.policy.compat32), True, (BOB,)),
    Odd("forwarded, default", lambda: _forwarded(email.policy.default), True, (BOB,)),
    Odd("a header cut short", _with_defects),
    Odd("duplicate fields", _duplicates, True, (BOB, CARL)),
    Odd("a subclass that answers nothing", _subclass),
    Odd("empty", OldMessage),
    Odd("empty, modern", EmailMessage),
    Odd("without content", lambda: _addressed(OldMessage())),
    *[
        Odd(f"a part with {name!a}: {case}", _part_with(name, value))
        for name in ("Content-Description", "Content-Disposition", "Content-ID", "X-Odd")
        for case, value in ODDITIES.items()
    ],
    *[
        Odd(
            f"a part with a file name: {case}",
            _part_with("Content-Disposition", value),
            clear,
            (BOB,) if clear else None,
        )
        for case, value, clear in (
            ("three parts", ("utf-8", "", "ä.bin"), False),
            ("quotes", 'attachment; filename="a\\"b;c.bin"', True),
            ("encoded word", 'attachment; filename="=?utf-8?q?M=C3=A4.bin?="', True),
            ("hidden line end", f'attachment; filename="{WORD}"', False),
            ("long", f'attachment; filename="{"long " * 60}.bin"', True),
            ("RFC 2231", "attachment; filename*=utf-8''M%C3%A4.bin", True),
        )
    ],
    *[Odd(f"a part with a field {name!a:.40}", _part_with(name, "odd")) for name in NAMES],
]


def _fields() -> Iterator[Odd]:
    """Each field with two kinds of messages, each kind in its turn; huge ones with one."""
    bases = list(BASES)
    for number, (case, name, value, clear, recipients) in enumerate(FIELDS):
        for step in range(1 if "100 kB" in case or "thousand" in case else 2):
            base = bases[(number * 2 + step) % len(bases)]
            # Objects of one generation in a message of the other are no values that it can hold.
            modern = base.startswith("EmailMessage") or base.endswith("default")
            strange = isinstance(value, Header if modern else Address | tuple)
            yield Odd(
                f"{base}, {case}",
                lambda base=base, name=name, value=value: with_field(base, name, value),  # type: ignore[misc]
                clear and not strange,
                None if strange else recipients,
            )


def _buildable(odds: Iterator[Odd]) -> Iterator[Odd]:
    """What this version of Python lets be built."""
    for odd in odds:
        with contextlib.suppress(Exception):
            odd.make()
            yield odd


OBJECTS: list[Odd] = list(_buildable(iter([*_fields(), *_contents(), *SHAPES])))
