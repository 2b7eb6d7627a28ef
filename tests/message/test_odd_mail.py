"""Mail that is odd in one way, by every way in: what leaves says what came in, and goes to whom it named.

The files under `odd/` were made by hand after RFC 2045–2049, 2231, 5322 and 6532; their names say what is odd. Each
comes in by every path, for servers with and without 8BITMIME and SMTPUTF8. It is refused as `MAY_BE_REFUSED` allows, or
what leaves is right on the wire and reads the same to two readers (`readers`, where the differences that are allowed
are listed). The envelope is that of `ENVELOPES`, never one mailbox more.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import PoolLimits
from smtp_async.errors import (
    ExtensionMissing,
    InvalidAddress,
    InvalidArgument,
    InvalidHeader,
    MissingRecipient,
    MissingSender,
    SMTPError,
)
from smtp_async.message import Message
from smtp_async.model.domain import domain_forms
from tests.lab import case, client_of, gathered, speaking
from tests.servers import dovecot_reader
from tests.servers.dovecot import Dovecot

from . import readers
from .judging import (
    ABLE,
    PATHS,
    Judged,
    _compat32,
    _default,
    check_wire,
    envelope_of,
    judge,
    said,
    told_apart,
)

ODD = {path.stem: path for path in sorted(Path(__file__).with_name("odd").glob("*.eml"))}
#: By the first word of their names.
KINDS = {kind: list(names) for kind, names in itertools.groupby(ODD, key=lambda name: name.partition("-")[0])}
OBJECTS = frozenset(("compat32", "default", "from_compat32", "from_default"))
MESSAGES = frozenset(("from_bytes", "from_compat32", "from_default"))
WRITTEN = OBJECTS | MESSAGES

ANN, BOB, CARL, DORA = "ann@example.com", "bob@example.org", "carl@example.net", "dora@example.net"

#: Who sends and who gets it, where that is not Ann and Bob.
ENVELOPES: dict[str, tuple[str, list[str]]] = {
    "address-long-quoted-name-in-sender": ("sec@example.com", [BOB]),
    "address-long-quoted-name-in-cc": (ANN, [BOB, CARL]),
    "address-name-utf-8-in-from-and-latin-1-in-cc": (ANN, [BOB, CARL]),
    "address-comment-behind": ("MAILER-DAEMON@mx.example.com", [BOB]),
    "address-comment-with-quote": (ANN, [BOB, CARL]),
    "address-tabs-and-folds": (ANN, [BOB, CARL]),
    "address-empty-elements": (ANN, [BOB, CARL]),
    "address-quoted-local-part": (ANN, ['"bob b"@example.org']),
    "address-quoted-local-part-with-at": (ANN, ['"bob@home"@example.org']),
    "address-domain-literal": (ANN, ["bob@[192.0.2.1]"]),
    "address-domain-literal-ipv6": (ANN, ["bob@[IPv6:2001:db8::1]"]),
    "address-upper-case-domain": (ANN, ["Bob@EXAMPLE.org"]),
    "address-a-label": (ANN, ["bob@xn--bcher-kva.example"]),
    "address-u-label": (ANN, ["bob@xn--bcher-kva.example"]),
    "address-utf-8-local-part": (ANN, ["jörg@example.org"]),
    "address-semicolons-between": (ANN, [BOB, CARL]),
    "address-group": (ANN, [BOB, CARL]),
    "address-group-empty": (ANN, [CARL]),
    "address-group-empty-and-bcc": (ANN, [CARL]),
    "address-group-among-others": (ANN, [BOB, CARL, DORA]),
    "address-same-recipient-twice": (ANN, [BOB, BOB]),
    "address-many": (ANN, [f"user{number}@example.org" for number in range(60)]),
    "address-two-to-fields": (ANN, [BOB, CARL]),
    "address-two-authors": (CARL, [BOB]),
    "address-cc-only": (ANN, [CARL]),
    "address-bcc-only": (ANN, [CARL]),
    "address-to-empty": (ANN, [CARL]),
    "subject-blank-before-colon": (ANN, [BOB, CARL]),
    "to-tab-before-colon": (ANN, [BOB, CARL]),
    "bcc-blank-before-colon": (ANN, [BOB, CARL]),
    "bcc-folded": (ANN, [BOB, CARL, DORA, "ef@example.net"]),
    "bcc-folded-at-once": (ANN, [BOB, CARL]),
    "bcc-fold-of-blanks-only": (ANN, [BOB, CARL, DORA]),
    "bcc-last-field": (ANN, [BOB, CARL]),
    "bcc-first-field": (ANN, [BOB, CARL]),
    "bcc-twice": (ANN, [BOB, CARL, DORA]),
    "bcc-behind-unindented-continuation": (ANN, [BOB, CARL]),
    "bcc-behind-mbox-escaped-from": (ANN, [BOB, CARL]),
    "bcc-behind-line-without-colon": (ANN, [BOB, CARL]),
    "bcc-behind-name-with-blank": (ANN, [BOB, CARL]),
    "bcc-behind-name-with-8-bit": (ANN, [BOB, CARL]),
    "bcc-behind-line-with-colon-first": (ANN, [BOB, CARL]),
    "bcc-8-bit-name": (ANN, [BOB, CARL]),
    "bom-before-bcc": (ANN, [BOB, CARL]),
    "line-ends-lf-and-bcc-folded": (ANN, [BOB, CARL, DORA]),
}

#: Files that name no sender or no recipient, or none that could be sent to: there is no envelope.
NO_ENVELOPE: dict[str, str] = {
    "address-comment-not-closed": "the address may be part of the comment, or not",
    "address-two-dots": "only an explicit recipient may break the grammar",
    "address-underscore-in-domain": "the same",
    "address-zero-width-space": "an invisible character is pasted, never meant",
    "address-without-domain": "there is no such mailbox",
    "address-quote-not-closed": "where the name ends is unknown",
    "address-bracket-not-closed": "where the address ends is unknown",
    "address-no-from": "no sender",
    "address-from-empty": "no sender",
    "address-from-null": "no author is called <>",
    "address-no-recipient": "no recipient",
    "empty": "nothing at all",
    "empty-line-only": "nothing at all",
    "body-only": "no header",
    "no-header-but-text": "no header",
}

#: Files whose envelope is clear to some and not to others; what is read must still be that of `ENVELOPES`.
MAY_HAVE_NO_ENVELOPE: dict[str, str] = {
    "address-source-route": "obsolete, and refused by many (RFC 5321 appendix F.2)",
    "address-semicolons-between": "some clients write it, no RFC allows it",
    "address-group-not-closed": "the group may go on in what was lost",
    "bcc-resent": "it was resent, so its header says nothing certain (RFC 5322 section 3.6.6)",
}
#: `Message` takes the sender from Return-Path where there is one, as its attribute of that name.
RETURN_PATHS: dict[str, str | None] = {"return-path": "bounces+1@example.com", "return-path-null": None}

_SIGNED = "what is signed or encrypted is sent by its octets only"
_CUT = "the standard library took fields for the body; with the bytes they are read"
_UTF8 = "what is not ASCII in a structured field needs SMTPUTF8 (RFC 6532), encoded words do not belong there"
_NOBODY = "a message without an author cannot be written anew"

#: What may be refused: by these paths, with this error, and why. What is not here is sent.
MAY_BE_REFUSED: dict[str, tuple[frozenset[str], type[SMTPError], str]] = {
    **dict.fromkeys(
        (
            "multipart-signed-pgp",
            "multipart-signed-smime",
            "multipart-signed-within-mixed",
            "multipart-encrypted",
            "pkcs7-mime",
        ),
        (OBJECTS, InvalidArgument, _SIGNED),
    ),
    **dict.fromkeys(
        (
            "subject-blank-before-colon",
            "to-tab-before-colon",
            "bcc-blank-before-colon",
            "bcc-behind-unindented-continuation",
            "bcc-behind-mbox-escaped-from",
            "bcc-behind-line-without-colon",
            "bcc-behind-name-with-blank",
            "bcc-behind-name-with-8-bit",
            "field-name-folded-before-colon",
            "bom-before-first-field",
            "bom-before-bcc",
        ),
        (OBJECTS, InvalidHeader, _CUT),
    ),
    **dict.fromkeys(
        (
            "address-no-from",
            "address-from-empty",
            "address-from-null",
            "empty",
            "empty-line-only",
            "body-only",
        ),
        (MESSAGES, MissingSender, _NOBODY),
    ),
    **dict.fromkeys(
        ("address-utf-8-local-part", "message-id-8-bit", "in-reply-to-8-bit"),
        (WRITTEN, ExtensionMissing, _UTF8),
    ),
    "no-header-but-text": (WRITTEN, InvalidArgument, "no fields, hence no author; and what is its text?"),
    "address-zero-width-space": (OBJECTS, SMTPError, "the address cannot be written in ASCII, nor read"),
    "address-encoded-name-hides-line-end": (OBJECTS, InvalidArgument, "a line end in a name"),
    "encoded-word-with-line-end-in-part": (OBJECTS, InvalidHeader, "a line end in a field"),
    "encoded-word-in-x-field-hides-bcc": (OBJECTS, InvalidHeader, "a line end in a field"),
    **dict.fromkeys(
        ("subject-nul", "attached-message-nul-in-subject", "attached-message-nul-in-signature"),
        (OBJECTS, InvalidHeader, "NUL in a field"),
    ),
    "references-token-over-998": (WRITTEN, InvalidHeader, "it can neither be folded nor be encoded"),
}
#: Objects in which the parser of the standard library has lost fields of a part; only it can judge what is left.
LOST = frozenset(("attached-message-with-odd-header", "part-header-blank-before-colon"))

#: Where the two readers do not read the same, and why; the facets concerned are then judged by the first alone.
READ_DIFFERENTLY: dict[str, str] = {
    "address-comment-not-closed": "where the comment ends is a guess",
    "address-name-is-the-address-without-quotes": "the standard library reads two mailboxes",
    "address-quote-not-closed": "where the name ends is a guess",
    "address-source-route": "the standard library reads the route as a mailbox",
    "attached-message-base64": "the standard library does not decode attached messages",
    "attached-message-elsewhere": "the standard library reads any message/* as a message",
    "attached-message-fragment": "the same",
    "attached-message-utf-8-global": "the same",
    "attached-message-with-odd-header": "the standard library ends the header at an odd line",
    "base64-encoding-upper-case-and-comment": "the standard library knows no comment there",
    "base64-part-padding-in-the-middle": "the standard library stops at the padding",
    "base64-part-short-of-one-character": "the standard library does not decode it at all",
    "base64-part-text-behind": "the standard library stops at the padding",
    "base64-short-of-one-character": "the standard library does not decode it at all",
    "bcc-behind-line-without-colon": "the standard library ends the header there",
    "bcc-behind-mbox-escaped-from": "the same",
    "bcc-behind-name-with-8-bit": "the same",
    "bcc-behind-name-with-blank": "the same",
    "bcc-behind-unindented-continuation": "the same",
    "bcc-blank-before-colon": "the same",
    "bom-before-bcc": "the same",
    "bom-before-first-field": "the same",
    "no-header-but-text": "the same",
    "part-header-blank-before-colon": "the same",
    "subject-blank-before-colon": "the same",
    "to-tab-before-colon": "the same",
    "charset-rfc2231": "the standard library knows no charset in this form",
    "encoded-word-language": "the standard library knows no language in an encoded word",
    "encoded-word-with-blank-within": "RFC 2047 section 2 has no blanks in it, readers have",
    "encoding-quoted-printable-on-attached-message": "the standard library does not decode attached messages",
    "encoding-uuencode": "no encoding of MIME, but the standard library decodes it",
    "line-ends-lf-multipart": "the standard library reads a delivery status as fields",
    "no-parts-at-all": "one reader keeps the octets",
    "parameter-2231-beside-plain": "which of two counts is a choice (RFC 6266 chose the extended one)",
    "parameter-2231-gap": "what stands behind a gap is lost, or not",
    "parameter-2231-without-charset": "no charset: UTF-8 or Latin-1",
    "quoted-printable-blanks-at-end": "RFC 2045 section 6.7 (3) has them removed",
    "quoted-printable-blanks-before-soft-break": "the same",
    "quoted-printable-two-signs": "the standard library takes two for one",
    "disposition-notification-unreadable": "where the name ends is a guess",
    "field-name-folded-before-colon": "the standard library ends the header there",
    "related-start-parameter": "the standard library drops the angle brackets",
    "report-of-a-bounce": "the standard library reads a delivery status as fields",
    "report-of-a-reading": "the same",
    "type-comment": "the standard library knows no comment there",
}

#: Files whose octets Dovecot does not read as RFC 2047 and 5322 say, so that what we write reads better.
DOVECOT_READS_OTHERWISE: dict[str, str] = {
    "encoded-word-split-character": "each encoded word is decoded for itself",
    "encoded-word-iso-8859-8-i": "the charset is not known",
    "subject-controls": "controls are shown as they are",
    "boundary-like-line-in-text": "a line that begins as the delimiter does is one",
}

#: Files that the RFCs let be read in more than one way: what leaves says what one of the readers read.
GUESSES = frozenset(
    (
        "address-comment-not-closed",
        "address-quote-not-closed",
        "base64-part-padding-in-the-middle",
        "base64-part-text-behind",
        "encoded-word-with-blank-within",
        "parameter-2231-beside-plain",
        "parameter-2231-gap",
        "parameter-2231-without-charset",
        "quoted-printable-blanks-at-end",
        "quoted-printable-blanks-before-soft-break",
        "quoted-printable-two-signs",
        "disposition-notification-unreadable",
    )
)


@functools.cache
def source(name: str) -> bytes:
    return ODD[name].read_bytes()


@functools.cache
def before(name: str) -> dict[str, dict[str, Any]]:
    return said(source(name))


def check_refusal(name: str, path: str, error: SMTPError) -> None:
    paths, expected, _ = MAY_BE_REFUSED.get(name, (frozenset(), SMTPError, ""))
    assert path in paths, f"refused: {error!r}"
    assert isinstance(error, expected), f"refused by {error!r}"


def check_needs(name: str, judged: Judged) -> None:
    """Octets that nobody changed need what they are made of."""
    data = readers.normal(source(name))
    lines = data.split(b"\r\n")
    allowed = {"eightbit", "utf8"} if not data.isascii() else set()
    if max(map(len, lines)) > 998 or b"\0" in data:
        allowed.add("binary")
    assert judged.needs <= allowed


def check_said(name: str, path: str, data: bytes, *, eightbit: bool = True) -> None:
    old, new = before(name), said(data)
    # Of an attached message fields and parts are written anew where their octets cannot travel.
    touched = path in OBJECTS or (
        name.startswith("attached-message-") and not travels(source(name), eightbit=eightbit)
    )
    found = {reader: readers.differences(old[reader], new[reader], touched=touched) for reader in old}
    if name in LOST and path in OBJECTS:
        assert found["stdlib"] == {}
    elif name in GUESSES:
        assert {} in found.values(), found
    else:
        apart = told_apart(old)
        found["stdlib"] = {facet: two for facet, two in found["stdlib"].items() if facet not in apart}
        assert found == {"rfc": {}, "stdlib": {}}, found


# --- the corpus itself ---------------------------------------------------------------------------------------


def test_there_are_enough_and_the_tables_name_what_exists() -> None:
    assert len(ODD) >= 160
    assert max(path.stat().st_size for path in ODD.values()) < 4096
    tables: tuple[dict[str, Any], ...] = (
        ENVELOPES,
        NO_ENVELOPE,
        MAY_HAVE_NO_ENVELOPE,
        RETURN_PATHS,
        MAY_BE_REFUSED,
        READ_DIFFERENTLY,
    )
    assert {name for table in tables for name in table} | LOST <= set(ODD)


def test_each_says_something_else() -> None:
    assert len({path.read_bytes() for path in ODD.values()}) == len(ODD)


def test_two_readers_agree() -> None:
    for name in ODD.keys() - READ_DIFFERENTLY.keys():
        one, other = before(name)["rfc"], before(name)["stdlib"]
        apart = {facet: (one.get(facet), other.get(facet)) for facet in told_apart(before(name))}
        assert (name, apart) == (name, {})


# --- before and after ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_says_what_came_in(kind: str, path: str) -> None:
    for name, (label, able) in itertools.product(KINDS[kind], ABLE.items()):
        with case(name, label):
            judged = judge(functools.partial(PATHS[path], source(name)), able, untouched=path == "send_raw")
            if judged.error is not None:
                check_refusal(name, path, judged.error)
                continue
            data = check_wire(judged, able)
            if judged.untouched:
                check_needs(name, judged)
            check_said(name, path, data, eightbit=able.eightbit)


@pytest.mark.parametrize("path", PATHS)
def test_it_goes_to_whom_it_names(path: str) -> None:
    for name in ODD:
        with case(name):
            check_goes_to(name, path)


def check_goes_to(name: str, path: str) -> None:
    try:
        mail = PATHS[path](source(name))
    except SMTPError as error:
        check_refusal(name, path, error)
        return
    sender, recipients = ENVELOPES.get(name, (ANN, [BOB]))
    try:
        found = envelope_of(mail)
    except SMTPError as error:
        assert isinstance(error, InvalidArgument)
        # Objects may be looked at when they are sent only.
        assert name in NO_ENVELOPE or name in MAY_HAVE_NO_ENVELOPE or name in MAY_BE_REFUSED, repr(error)
        return
    assert name not in NO_ENVELOPE, found
    if path in MESSAGES:
        # They are named in the order of the fields, and bounces go where Return-Path says.
        assert sorted(found[1]) == sorted(recipients)
        assert found[0] in (sender, RETURN_PATHS.get(name, sender))
    else:
        assert found == (sender, recipients)


@pytest.mark.parametrize("path", PATHS)
def test_each_way_in_is_the_same_every_time(path: str) -> None:
    for name in ("nested-40-deep", "filename-utf-8", "line-ends-lf", "address-group"):
        mail = PATHS[path](source(name))
        assert mail.content().join() == mail.content().join()


# --- over the wire -------------------------------------------------------------------------------------------


def handed_in(path: str, name: str) -> Any:
    """What a caller has: bytes, a `Message` or an object."""
    if path == "send_raw":
        return source(name)
    if path == "from_bytes":
        return Message.from_bytes(source(name))
    parsed = (_compat32 if path.endswith("compat32") else _default)(source(name))
    return Message.from_email_message(parsed) if path.startswith("from_") else parsed


@pytest.mark.parametrize("path", PATHS)
async def test_all_are_sent_over_one_connection(path: str) -> None:
    wrong: list[tuple[str, Any]] = []
    async with speaking() as server:
        async with client_of(server, pool=PoolLimits(max_connections=1)) as client:
            for name in ODD:
                count = len(server.messages)
                try:
                    message = handed_in(path, name)
                    async with asyncio.timeout(5):
                        await (client.send_raw if path == "send_raw" else client.send)(message)
                except SMTPError as error:
                    if name not in {**MAY_BE_REFUSED, **NO_ENVELOPE, **MAY_HAVE_NO_ENVELOPE}:
                        if not (isinstance(error, ExtensionMissing) and is_odd_to_servers(name)):
                            wrong.append((name, repr(error)))
                    continue
                (received,) = server.messages[count:]
                sender, recipients = ENVELOPES.get(name, (ANN, [BOB]))
                if name not in RETURN_PATHS and received.mail_from != sender:
                    wrong.append((name, received.mail_from))
                if sorted(received.rcpt_tos) != sorted(map(domain_wired, recipients)):
                    wrong.append((name, received.rcpt_tos))
                try:
                    check_said(name, path, received.data)
                except AssertionError as error:
                    wrong.append((name, repr(error)))
        assert server.connections.opened == 1
    assert wrong == []


def domain_wired(address: str) -> str:
    """As RCPT names it: the domain in A-labels where the local part is ASCII."""
    local, _, domain = address.rpartition("@")
    return (
        f"{local}@{domain.encode('idna').decode()}" if local.isascii() and not domain.isascii() else address
    )


def is_unreadable(said: dict[str, Any], facet: str) -> bool:
    found = said.get(facet)
    return facet.rpartition("/")[2] in readers.PEOPLE and any(
        re.fullmatch(r"[^@\s]+@[\w.\[\]:-]+", spec) is None for _, spec in found or ()
    )


def is_structured(facet: str) -> bool:
    name = facet.rpartition("/")[2].removeprefix("field:")
    return name in readers.STRUCTURED or name.startswith("list-")


def is_odd_to_servers(name: str) -> bool:
    """Only BINARYMIME could carry it as it is."""
    data = readers.normal(source(name))
    return b"\0" in data or max(map(len, data.split(b"\r\n"))) > 998


@pytest.mark.server
async def test_dovecot_reads_all_that_can_be_sent(dovecot: Dovecot) -> None:
    """A third reader, behind a real server: it finds the same subject and the same parts by each way in."""
    dovecot.clear()
    sent: dict[str, set[str]] = {}
    async with client_of(
        dovecot, port=dovecot.lmtp_port, lmtp=True, pool=PoolLimits(max_connections=2)
    ) as client:

        async def send(name: str, path: str) -> None:
            recipients = ["user@lab.test" if path == "send_raw" else "user2@lab.test"]
            message = handed_in(path, name)
            sending = client.send_raw if path == "send_raw" else client.send
            receipt = await sending(message, sender=ANN, recipients=recipients)
            sent.setdefault(path, set()).add(name)
            assert receipt.accepted

        chosen = [
            name
            for name in ODD
            if name not in {**MAY_BE_REFUSED, **READ_DIFFERENTLY, **DOVECOT_READS_OTHERWISE}
            and not is_odd_to_servers(name)
            and not PATHS["send_raw"](source(name)).content(eightbit=True, utf8=True).utf8
        ]
        outcomes = await gathered(
            *[send(name, path) for name in chosen for path in ("send_raw", "from_bytes")]
        )
        assert [one for one in outcomes if one is not None] == []
    raw, made = (dovecot_reader.overview(dovecot, user) for user in ("user", "user2"))
    dovecot.clear()
    assert len(raw) == len(made) == len(chosen)
    one, other = Counter(map(tidied, raw)), Counter(map(tidied, made))
    assert (one - other, other - one) == (Counter(), Counter())


def tidied(found: tuple[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """With one blank for all blanks: folds are not looked at."""
    return " ".join(found[0].split()), found[1]


# --- drawn ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(sorted(ODD))
LINE_ENDS = st.sampled_from((b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n"))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of the corpus, damaged: octets deleted, doubled or drawn, line ends swapped, two files spliced."""
    data = source(draw(NAMES))
    for _ in range(draw(st.integers(1, 3))):
        size = len(data)
        start = draw(st.integers(0, size))
        end = draw(st.integers(start, min(size, start + 60)))
        match draw(st.integers(0, 5)):
            case 0:
                data = data[:start] + data[end:]
            case 1:
                data = data[:end] + data[start:]
            case 2:
                data = data[:start] + draw(st.binary(max_size=6)) + data[end:]
            case 3:
                data = data[:start] + data[start:end].replace(b"\r\n", draw(LINE_ENDS)) + data[end:]
            case 4:
                data = data[:start] + source(draw(NAMES))[start:]
            case _:
                data = data.replace(b"\r\n", draw(LINE_ENDS))
    # Whether a line end that is missing belongs to the last part of a multipart without its end is a guess.
    return data if data.endswith((b"\r", b"\n")) else data + b"\r\n"


@given(files(), st.sampled_from(sorted(PATHS)), st.sampled_from(sorted(ABLE)))
def test_a_damaged_file_is_refused_or_sent_right(data: bytes, path: str, able: str) -> None:
    if not is_parsed(data, path):
        return
    judged = judge(lambda: PATHS[path](data), ABLE[able], untouched=path == "send_raw")
    if judged.error is not None:
        return
    written = check_wire(judged, ABLE[able])
    old, new = {"rfc": readers.by_rfc(readers.whole(data)), "stdlib": readers.by_stdlib(data)}, said(written)
    if path in OBJECTS:
        # An object says what the standard library read; what it lost cannot be brought back.
        if not told_apart(old):
            found = readers.differences(old["stdlib"], new["stdlib"], touched=True)
            # Octets above 127 where tokens are asked for become encoded words, which no reader takes for anything.
            wrong = {facet for facet in found if data.isascii() or not is_structured(facet)}
            # So does what stands where a mailbox should be and is none; and an encoded word there may have hidden NUL.
            harmless = not data.isascii() or b"=?" in data
            assert [one for one in wrong if not (harmless and is_unreadable(old["stdlib"], one))] == []
    else:
        assert (
            readers.differences(
                old["rfc"], new["rfc"], touched=not travels(data, eightbit=ABLE[able].eightbit)
            )
            == {}
        )


def is_parsed(data: bytes, path: str) -> bool:
    """The standard library raises for some files, and its newer policies read other boundaries than the oldest."""
    if path not in OBJECTS:
        return True
    try:
        parsed = (_default if path.endswith("default") else _compat32)(data)
        return bool(readers.by_object(parsed)["tree"] == readers.by_stdlib(data)["tree"])
    except (IndexError, TypeError, KeyError):
        return False


def travels(data: bytes, *, eightbit: bool) -> bool:
    """An attached message need not be written anew for the server."""
    longest = max(map(len, readers.normal(data).split(b"\r\n")))
    return b"\0" not in data and longest <= 998 and (data.isascii() or eightbit)


@given(files(), st.sampled_from(sorted(PATHS)))
def test_a_damaged_file_goes_to_those_it_names(data: bytes, path: str) -> None:
    """No recipient that a plain reader of addresses would not find."""
    if not is_parsed(data, path):
        return
    try:
        sender, recipients = envelope_of(PATHS[path](data))
    except SMTPError:
        return
    fields, _ = readers.raw_fields(readers.whole(data))
    named = {
        spec
        for name, value in fields
        if name in ("from", "sender", "to", "cc", "bcc", "return-path")
        for _, spec in readers.mailboxes(value.decode("utf-8", "replace"))
    }
    assert {*recipients, sender} <= {*named, *map(in_a_labels, named), None}


def in_a_labels(spec: str) -> str:
    """An address as the envelope has it, where its domain is international."""
    local, _, domain = spec.rpartition("@")
    try:
        return f"{local}@{domain_forms(domain)[0]}"
    except InvalidAddress:
        return spec


def test_errors_of_no_envelope_are_of_two_kinds() -> None:
    for name in ("address-no-from", "address-from-empty"):
        with pytest.raises(MissingSender):
            PATHS["send_raw"](source(name)).envelope()
    with pytest.raises(MissingRecipient):
        PATHS["send_raw"](source("address-no-recipient")).envelope()
