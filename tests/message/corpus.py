"""Letters to be sent and read back: what a reader must find is computed from what was asked for, not from the bytes.

`HARD` was made by hand, `generated` comes from hypothesis with a fixed seed, so that every run has the same.
`Seen` is what a reader finds; `expected` says it for a letter, `by_stdlib` asks the parser of the standard library.
Other parsers fill the same `Seen` (`tests.servers.dovecot_reader`).
"""

from __future__ import annotations

import email
import email.policy
import email.utils
import hashlib
from collections.abc import Iterable
from email.header import decode_header, make_header
from email.message import EmailMessage
from functools import cache
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from smtp_async.message import Attachment, Message
from smtp_async.model.address import Address

__all__ = [
    "HARD",
    "LETTERS",
    "PEOPLE",
    "File",
    "Letter",
    "Seen",
    "by_stdlib",
    "expected",
    "generated",
    "seen_file",
]


class File(NamedTuple):
    """An attachment, or an inline part where there is a cid."""

    data: bytes
    filename: str | None = None
    content_type: str | None = None
    cid: str | None = None


class Letter(NamedTuple):
    """What to send.

    Attributes:
        name: what a failure calls it.
        fields: arguments of `Message`.
        files: what is attached, in order.
    """

    name: str
    fields: dict[str, Any]
    files: tuple[File, ...] = ()

    def message(self) -> Message:
        """A new message."""
        attachments = [
            Attachment(one.data, filename=one.filename, content_type=one.content_type, cid=one.cid)
            for one in self.files
        ]
        return Message(**self.fields, attachments=attachments)


Mailboxes = tuple[tuple[str, str], ...]


#: Fields with addresses, and the arguments of `Message` they come from.
PEOPLE = {"From": "sender", "To": "to", "Cc": "cc", "Reply-To": "reply_to"}
#: All other fields, and the arguments of `Message` they come from.
OTHERS = {
    "In-Reply-To": "in_reply_to",
    "References": "references",
    "Keywords": "keywords",
    "Comments": "comments",
    "X-Mailer": "mailer",
    "Importance": "importance",
    "Priority": "priority",
    "X-Priority": "x_priority",
    "Sensitivity": "sensitivity",
    "Disposition-Notification-To": "read_receipt_to",
    "Return-Receipt-To": "delivery_notification_to",
    "List-Id": "list_id",
    "List-Help": "list_help",
    "List-Unsubscribe": "list_unsubscribe",
    "List-Unsubscribe-Post": "list_unsubscribe_post",
    "List-Subscribe": "list_subscribe",
    "List-Post": "list_post",
    "List-Owner": "list_owner",
    "List-Archive": "list_archive",
    "X-One": "headers",
    "X-Two": "headers",
}


class Seen(NamedTuple):
    """What a reader finds.

    Attributes:
        subject: decoded; empty if there is none.
        people: (display name, address) as they stand in the fields of `PEOPLE`.
        others: what stands in the fields of `OTHERS`, unfolded and decoded; empty for those that are not there.
        texts: (subtype, text with LF line ends) of the parts that are no files.
        files: what `seen_file` makes of each file.
    """

    subject: str
    people: dict[str, Mailboxes]
    others: dict[str, str]
    texts: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str, str, int, str], ...]


def seen_file(
    filename: str | None, content_type: str, cid: str | None, data: bytes
) -> tuple[str, str, str, int, str]:
    """Name, type, cid, size and digest: short enough to be shown when two of them differ."""
    return filename or "", content_type, cid or "", len(data), hashlib.sha256(data).hexdigest()[:16]


# --- what must be found -------------------------------------------------------------------------------------


def expected(letter: Letter) -> Seen:
    """What every reader must find."""
    fields = letter.fields
    texts = [(kind, _text(fields[key])) for key, kind in _TEXTS if fields.get(key) is not None]
    if not texts and not letter.files:
        texts = [("plain", "")]
    # Inline parts stand beside the HTML text, before the files.
    related = "html" in fields
    files = sorted(letter.files, key=lambda one: not (related and one.cid is not None))
    return Seen(
        (fields.get("subject") or "").strip(" \t"),
        {
            name: _mailboxes(fields.get("authors" if key == "sender" and "authors" in fields else key, ()))
            for name, key in PEOPLE.items()
        },
        {name: _other(name, fields.get(key)) for name, key in OTHERS.items()},
        tuple(texts),
        tuple([seen_file(one.filename, _type(one), one.cid, one.data) for one in files]),
    )


_TEXTS = (("text", "plain"), ("html", "html"), ("calendar", "calendar"))
_STEPS = {1: "1 (Highest)", 2: "2 (High)", 3: "3 (Normal)", 4: "4 (Low)", 5: "5 (Lowest)"}


def _other(name: str, value: Any) -> str:
    """The letters give lists as lists, and words that need no quotes."""
    if not value:
        return ""
    if name in ("X-One", "X-Two"):
        return dict(value).get(name, "").strip(" \t")
    if name == "X-Priority":
        return _STEPS[value]
    if name == "List-Unsubscribe-Post":
        return "List-Unsubscribe=One-Click"
    if name in ("Keywords", "In-Reply-To", "References"):
        return (", " if name == "Keywords" else " ").join(value)
    if isinstance(value, list):
        return ", ".join([f"<{url}>" for url in value])
    if isinstance(value, Address):
        return f"{value.name} <{value}>"
    text: str = value
    return text.strip(" \t")


def _text(text: str) -> str:
    """Line ends are LF, and the last line has one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") or not text else text + "\n"


def _mailboxes(value: Address | Iterable[Address]) -> Mailboxes:
    addresses = (value,) if isinstance(value, Address) else value
    return tuple([(one.name, one.wire(utf8=True).decode()) for one in addresses])


def _type(file: File) -> str:
    """The content type without parameters; where none was given, the letters only use names with a known one."""
    if file.content_type is not None:
        return file.content_type.partition(";")[0].strip().lower()
    return _KNOWN[(file.filename or "").rpartition(".")[2].lower()]


_KNOWN = {
    "bin": "application/octet-stream",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "": "application/octet-stream",
}


# --- the standard library's reader --------------------------------------------------------------------------


def by_stdlib(data: bytes) -> Seen:
    """Read a message with `email`."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    texts: list[tuple[str, str]] = []
    files = []
    for part in _leaves(message):
        if part.get_content_disposition() is None:
            texts.append((part.get_content_subtype(), part.get_content().replace("\r\n", "\n")))
        else:
            cid = part["Content-ID"]
            files.append(
                seen_file(part.get_filename(), part.get_content_type(), cid and str(cid)[1:-1], _octets(part))
            )
    return Seen(
        str(message["Subject"] or ""),
        {name: _named_in(message, name) for name in PEOPLE},
        {name: _text_of(message, name) for name in OTHERS},
        tuple(texts),
        tuple(files),
    )


def _leaves(part: EmailMessage) -> Iterable[EmailMessage]:
    if part.get_content_maintype() != "multipart":
        yield part
        return
    for child in part.iter_parts():
        assert isinstance(child, EmailMessage)
        yield from _leaves(child)


def _octets(part: EmailMessage) -> bytes:
    if part.get_content_maintype() == "message":
        inner = part.get_content()
        return bytes(inner.as_bytes(policy=email.policy.SMTP))
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return data


#: Where there is a strict way of reading addresses, it is the default and refuses all domain literals.
_LENIENT: Any = {"strict": False} if hasattr(email.utils, "supports_strict_parsing") else {}


def _named_in(message: EmailMessage, name: str) -> Mailboxes:
    # Not `message[name].addresses`: that puts a blank between two encoded words of one display name, where RFC 2047
    # section 6.2 wants none. The older functions of the same library know better.
    written = [value.replace("\r\n", "") for key, value in message.raw_items() if key == name]
    found = email.utils.getaddresses(written, **_LENIENT)
    return tuple([(str(make_header(decode_header(person))), spec) for person, spec in found if spec])


def _text_of(message: EmailMessage, name: str) -> str:
    found = [str(value) for key, value in message.items() if key == name]
    assert len(found) < 2, found
    return found[0] if found else ""


# --- made by hand -------------------------------------------------------------------------------------------

ANN = Address("ann", "example.com", "Ann Smith")
BOB = Address("bob", "example.org")

#: The word "attachment", or what comes near, in many scripts.
SCRIPTS = (
    "anhang-größe-ß", "pièce jointe œuvre", "załącznik-źdźbło", "příloha-žluťoučký", "csatolmány-őű",
    "вложение", "прикріплення-їґ", "прилог-ђћ", "συνημμένο-ἀρχή", "կցորդ", "დანართი", "קובץ מצורף", "مرفق",
    "پیوست-گچپژ", "منسلکہ", "संलग्नक-क्षत्रिय", "সংযুক্তি", "ਅਟੈਚਮੈਂਟ", "જોડાણ", "இணைப்பு", "జోడింపు", "ಲಗತ್ತು",
    "അറ്റാച്ച്മെന്റ്", "ඇමුණුම", "ไฟล์แนบ", "ຄັດຕິດ", "ပူးတွဲ", "ឯកសារភ្ជាប់", "ཟུར་སྦྱར", "ተያያዥ", "ᠬᠠᠪᠰᠤᠷᠭᠠᠯᠲᠠ",
    "附件", "附加檔案", "添付ファイル-ゲェー", "첨부파일", "ᏗᎦᏃᏣᎵ", "𐌰𐍄𐍄𐌰", "𠜎𠜱", "📎🎉",
    "👩‍👩‍👧‍👦🏳️‍🌈", "e\u0301 decomposed", "\u202egpj.exe", "a\u00a0b\u3000c",
)  # fmt: skip

_QUOTES = (
    'Smith, "Ann" \\ (the, one)', "O'Hara; <boss> @ work: yes", '"', "\\", '""', ",,,", "a,b@c.example",
    "=?utf-8?q?not_encoded?=", "Ünïcödé, \"quoted\" \\ back", "team:members;", "(comment)", "a.b.c", "-", "日本, 太郎",
)  # fmt: skip

_TEXTS_HARD = {
    "dots": ".\n..\n.\n\n.a\n. \n",
    "only-a-dot": ".",
    "only-line-ends": "\n\n\n",
    "no-end": "no line end",
    "bare-cr-and-lf": "a\rb\nc\r\nd\n\re\r\r\n\n",
    "from-lines": "From here\n>From there\nFrom: x@example.com\n\nFrom\n",
    "fields": "Subject: not a field\nBcc: nobody\n\nbody",
    "blanks-at-the-ends": "  lead\t\ntrail \t \n \n\t\nend ",
    "long-line": "x" * 5000 + "\nshort\n" + "é" * 3000,
    "998": "x" * 998 + "\n" + "y" * 999 + "\n",
    "equals": "a=b=\n==\n=3D=\n=?utf-8?q?x?=\n",
    "nul-and-controls": "nul\0here\x01\x07\x08\x0b\x0c\x1b[0m\x7f\n",
    "c1-and-separators": "next\x85line\u2028sep\u2029par\xa0\xad\ufeff\n",
    "rtl": "שלום עולם, مرحبا\u202e gnol\u202c \u200f\u061c\n",
    "emoji": "😀👩‍👩‍👧‍👦🏳️‍🌈\U0010ffff \ue000 🇩🇪👍🏽\n" * 50,
    "delimiters": "--=_boundary\n--\n--=_boundary--\n-- \nsignature\n",
    "end-of-data": "a\r\n.\r\nMAIL FROM:<x@example.com>\r\nRCPT TO:<y@example.com>\r\nDATA\r\n",
    "smuggled": "a\n.\r\nMAIL FROM:<x@example.com>\r\n\r.\rQUIT\r\n.\n",
    "latin": "naïve café déjà vu, Grüße aus Köln\n" * 20,
    "chinese": "中文測試，這是一封信。\n" * 200,
    "large": "0123456789 abcdefghij äöü\n" * 8000,
}


def _letter(name: str, *files: File, **fields: Any) -> Letter:
    return Letter(name, {"sender": ANN, "to": (BOB,), **fields}, files)


def _names(name: str, *texts: str) -> Letter:
    people = [Address(f"user{n}", "example.org", text) for n, text in enumerate(texts)]
    return _letter(
        name,
        sender=Address("ann", "example.com", texts[0]),
        to=tuple(people),
        cc=tuple(people[:2]),
        reply_to=tuple(people[-2:]),
        subject=f"{texts[0]} and {texts[-1]}",
        text="names",
    )


_CALENDAR = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\nSUMMARY:Größe\\, ok\r\nEND:VCALENDAR\r\n"
_CHARSETS = (
    ("iso-8859-1", "Grüße aus Köln\n.\nnaïve café"),
    ("windows-1252", "„Grüße“ – 20 €"),
    ("koi8-r", "Привет, мир"),
    ("shift_jis", "日本語の件名、表示ソ能"),
    ("iso-2022-jp", "日本語の件名"),
    ("euc-kr", "안녕하세요"),
    ("big5", "中文測試許功蓋"),
    ("gb18030", "中文测试😀"),
    ("utf-16", "Grüße 😀"),
    ("us-ascii", "plain"),
)


def _person(text: str) -> Address:
    return Address("ann", "example.com", text.partition("\n")[0])


#: Hard ones, each for a reason.
HARD = (
    _letter("nothing-but-sender"),
    _letter("empty-text", text="", subject=""),
    _letter("empty-html", html=""),
    _letter("empty-both", text="", html=""),
    _letter("empty-text-with-file", File(b"x", "x.bin"), text=""),
    *[_letter(f"text-{name}", text=text, subject=name) for name, text in _TEXTS_HARD.items()],
    *[_letter(f"html-{name}", text="t", html=f"<p>{text}") for name, text in _TEXTS_HARD.items()],
    _names("names-quotes-and-commas", *_QUOTES),
    _names("names-in-all-scripts", *SCRIPTS),
    _names("names-rtl", "שלום, עולם", "محمد \u202eabc\u202c", "\u200fابن\u200f"),
    _names("names-emoji", "😀", "👩‍👩‍👧‍👦, family", '🏳️‍🌈 "quoted"'),
    _names("names-long", "N" * 400, "name " * 100 + "end", "ü" * 300, "名" * 200),
    _letter("subject-10000-words", subject="word " * 1999 + "last5", text="t"),
    _letter("subject-10000-no-blank", subject="x" * 10_000, text="t"),
    _letter("subject-10000-cjk", subject="件" * 10_000, text="t"),
    _letter("subject-10000-emoji", subject="😀é " * 3333 + "z", text="t"),
    _letter("subject-blanks", subject="a  b   c    d \t e", text="t"),
    _letter("subject-many-blanks", subject="a" + " " * 500 + "b", text="t"),
    _letter("subject-encoded-lookalike", subject="=?utf-8?q?x?= =?x?= ?= =?", text="t"),
    _letter("subject-rtl", subject="שלום עולם — مرحبا بالعالم \u202eabc\u202c", text="t"),
    _letter("subject-edge-75", subject="é" + "x" * 60 + "é" * 3, text="t"),
    *[_letter(f"subject-fold-{n}", subject="x" * n + " y" * 40, text="t") for n in range(60, 72)],
    *[_letter(f"subject-cut-{n}", subject="x" * n + "日本語😀" * 9, text="t") for n in range(4)],
    _letter(
        "500-recipients",
        to=tuple([Address(f"user{n}", f"host{n % 7}.example", f"Näme {n}, jr.") for n in range(300)]),
        cc=tuple([Address(f"user{n}", "example.org", "" if n % 2 else f"Name {n}") for n in range(200)]),
        text="to all of you",
    ),
    _letter(
        "addresses",
        to=(
            Address("a b", "example.org"),
            Address('qu"ote\\', "example.org", "quoted"),
            Address("x@y", "example.org"),
            Address("postmaster", "[192.0.2.1]"),
            Address("v6", "[IPv6:2001:db8::1]", "literal"),
            Address("o'hara+tag", "faß.de", "Faß"),
            Address("user", "bücher.example"),
            Address("a" * 64, ".".join(["x" * 60] * 3), "long"),
        ),
        text="t",
    ),
    _letter(
        "nested",
        File(b"%PDF-1", "report.pdf"),
        File(b"\x89PNG\r\n\x1a\n", "logo.png", cid="logo@example.com"),
        File(b"second", "b.txt"),
        File(b"GIF89a", None, "image/gif", cid="2"),
        text="text ä",
        html='<img src="cid:logo@example.com">',
    ),
    _letter("inline-without-html", File(b"png", "a.png", cid="a"), text="t"),
    _letter("inline-only", File(b"png", "a.png", cid="a"), html="<img src=cid:a>"),
    _letter("file-only", File(b"alone", "alone.bin")),
    _letter("files-of-one-name", *[File(b"%d" % n, "same.txt") for n in range(3)], text="t"),
    _letter("100-files", *[File(bytes([n]) * n, f"file-{n}.bin") for n in range(100)], text="t"),
    _letter(
        "files-in-all-scripts",
        *[File(name.encode(), f"{name}.txt") for name in SCRIPTS],
        text="every script",
    ),
    _letter(
        "file-names",
        *[
            File(b"x", name, "application/x-test")
            for name in (
                "a b.txt",
                'quo"te\\.txt',
                "semi;colon=1.txt",
                "per%41cent'.txt",
                "(c),<d>@[e]:?/.txt",
                "../../etc/passwd",
                "C:\\dir\\file",
                "x" * 300,
                "ü" * 200,
                ".hidden",
                "trailing.",
                "*0*=utf-8''x",
                "=?utf-8?q?a?=.txt",
                "utf-8''a",
                "a" * 60,
                "a" * 61,
                "a" * 62,
                "a" * 63,
                "a" * 64,
                "a" * 65,
            )
        ],
        text="t",
    ),  # fmt: skip
    _letter(
        "file-types",
        File(b"\0\1\2", None),
        File(b"", "empty.bin"),
        File(b"caf\xe9", "latin.txt", "text/plain; charset=iso-8859-1"),
        File(b"a,b\r\nc,d\n", "t.csv", 'text/csv; header="present; x=\\"y\\""'),
        File(b"x", "x.docx"),
        File(b"{}", "x", "application/vnd.api+json"),
        text="t",
    ),
    _letter(
        "file-of-every-octet",
        File(bytes(range(256)) * 300, "octets.bin"),
        *[File(bytes(range(n)), f"{n}.bin") for n in (1, 2, 3, 55, 56, 57, 58, 113, 114, 115)],
        text="t",
    ),
    _letter("file-1-mb", File(hashlib.shake_256(b"1").digest(1_000_003), "large.bin"), text="t"),
    _letter("file-at-slices", *[File(b"s" * n, f"{n}.bin") for n in (58367, 58368, 58369)], text="t"),
    _letter(
        "all-fields",
        authors=(ANN, Address("carl", "example.com", "Çarl, jr.")),
        in_reply_to=["<1@example.com>"],
        references=[f"<{number}.{'x' * 40}@example.com>" for number in range(30)],
        keywords=["one", "zwei", "três", "четыре", "五"],
        comments='Ünusual, "quoted" (commented) ' * 12,
        mailer="test 1.0 (ümlaut)",
        importance="high",
        priority="non-urgent",
        x_priority=1,
        sensitivity="Company-Confidential",
        read_receipt_to=ANN,
        delivery_notification_to=Address("carl", "example.com", "Carl"),
        list_id="A list <list.example.com>",
        list_help=["mailto:help@example.com?subject=help"],
        list_unsubscribe=["https://example.com/u?id=1&x=" + "y" * 300, "mailto:u@example.com"],
        list_unsubscribe_post=True,
        list_subscribe=["https://example.com/s"],
        list_post=["mailto:list@example.com"],
        list_owner=["mailto:owner@example.com", "https://example.com/owner"],
        list_archive=["https://example.com/archive"],
        headers=[("X-One", "größe " * 40), ("X-Two", "z" * 500)],
        text="t",
    ),
    _letter("calendar", text="Come!", html="<p>Come!", calendar=_CALENDAR),
    _letter("calendar-alone", calendar=_CALENDAR),
    _letter("calendar-with-file", File(b"x", "x.bin"), text="Come!", calendar=_CALENDAR),
    *[
        _letter(
            f"charset-{charset}",
            charset=charset,
            subject=text.partition("\n")[0],
            text=text,
            html=text,
            sender=_person(text),
        )
        for charset, text in _CHARSETS
    ],
    *[
        _letter(
            f"header-charset-{charset}",
            header_charset=charset,
            subject=text.partition("\n")[0] * 9,
            text=text,
            sender=_person(text),
        )
        for charset, text in _CHARSETS
        if charset != "utf-16"
    ],
    *[
        _letter(
            f"header-length-{width}",
            max_header_length=width,
            subject="größe und länge " * 20,
            to=tuple([Address(f"user{n}", "example.org", f"Näme {n}") for n in range(20)]),
            references=[f"<{n}@example.com>" for n in range(40)],
            text="t",
        )
        for width in (40, 60, 200, 998)
    ],
    _letter(
        "message-in-message",
        File(b"From: x@example.com\r\nSubject: inner\r\n\r\nbody\r\n", "inner.eml", "message/rfc822"),
        text="outer",
    ),
)


# --- made by hypothesis -------------------------------------------------------------------------------------

_CHAR = st.characters(codec="utf-8", exclude_categories=["Cs"])
# What a header field can hold; the separators are for a test of their own, the standard library cuts lines there.
_ONE_LINE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
_WORDS = st.lists(
    st.one_of(
        st.text(_ONE_LINE, min_size=1, max_size=30),
        st.sampled_from(("word", "ä", "日本", "=?", "?=", "x" * 80, ",", '"', "\\", "😀")),
    ),
    max_size=12,
).map(" ".join)
_BODY = st.lists(
    st.one_of(
        st.text(_CHAR, max_size=40),
        st.sampled_from(
            ("\n", "\r\n", "\r", "\n.\n", "\r\n.\r\n", ".", "From ", " \n", "--=_", "=", "x" * 1000)
        ),
    ),
    max_size=25,
).map("".join)
# Blanks at the ends of a name are not the sender's: readers drop them.
_NAME = _WORDS.map(lambda text: text.strip())
_MAILBOX = st.builds(
    Address,
    st.text('abcdefghijklmnopqrstuvwxyz0123456789.+-_ "@', min_size=1, max_size=30),
    st.sampled_from(("example.org", "bücher.example", "faß.de", "[192.0.2.7]", "a.b.c.d.example")),
    _NAME,
)
_FILE = st.builds(
    File,
    st.binary(max_size=300),
    st.text(_ONE_LINE, max_size=40).map(lambda text: text.strip() + "a"),
    st.sampled_from(("application/x-test", "image/png", "text/plain; charset=utf-8", 'a/b; c="d e"')),
    st.none() | st.text("abcxyz0123456789.@_-", min_size=1, max_size=30),
)


def _first(pair: tuple[str, str]) -> str:
    return pair[0]


_ID = st.text("abcxyz0123456789.-", min_size=1, max_size=60).map(lambda text: f"<{text}@example.com>")
_URL = st.text("abcxyz0123456789/?&%.-", max_size=120).map(lambda text: f"https://example.com/{text}")
_FIELDS = st.fixed_dictionaries(
    {"sender": _MAILBOX, "to": st.lists(_MAILBOX, min_size=1, max_size=5).map(tuple)},
    optional={
        "cc": st.lists(_MAILBOX, max_size=3).map(tuple),
        "reply_to": st.lists(_MAILBOX, max_size=2).map(tuple),
        "subject": _WORDS,
        "text": _BODY,
        "html": _BODY,
        "in_reply_to": st.lists(_ID, max_size=2),
        "references": st.lists(_ID, max_size=20),
        "keywords": st.lists(st.text("abcxyzäé日", min_size=1, max_size=30), max_size=8),
        "comments": _WORDS,
        "mailer": _WORDS,
        "importance": st.sampled_from(("low", "normal", "high")),
        "x_priority": st.integers(1, 5),
        "list_unsubscribe": st.lists(_URL, max_size=3),
        "list_archive": st.lists(_URL, max_size=2),
        "headers": st.lists(
            st.tuples(st.sampled_from(("X-One", "X-Two")), _WORDS), max_size=2, unique_by=_first
        ),
        "max_header_length": st.integers(40, 998),
    },
)


#: Letters for tests of their own.
LETTERS = st.builds(Letter, st.just("drawn"), _FIELDS, st.lists(_FILE, max_size=4).map(tuple))


@cache
def generated(number: int) -> Letter:
    """Letter `number` from hypothesis, the same one every time.

    Each has a seed of its own: in one run hypothesis varies what it made before, and the letters would be alike.
    """
    drawn: list[Letter] = []

    @seed(number)
    @settings(
        # The first one is always the simplest there is.
        max_examples=2,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(LETTERS)
    def collect(letter: Letter) -> None:
        drawn.append(letter._replace(name=f"generated-{number}"))

    collect()
    return drawn[-1]
