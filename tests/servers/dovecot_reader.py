"""Dovecot as a reader: what its parsers, which share nothing with Python's, find in the mail it delivered.

`doveadm fetch` shows what IMAP would: ENVELOPE and BODYSTRUCTURE (RFC 9051 section 7.5.2), the header decoded, and
each part with or without its transfer encoding. Only what IMAP leaves to its clients is done here: the list syntax,
encoded words in ENVELOPE and percent signs in file names.
"""

import base64
import binascii
import itertools
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from tests.servers import machine
from tests.servers.dovecot import Dovecot

HEAD = "uid hdr.message-id hdr.subject.utf8 hdr.reply-to imap.envelope imap.bodystructure"


class Part(NamedTuple):
    """A leaf of BODYSTRUCTURE.

    Attributes:
        content_type, encoding: as Dovecot says, in lower case.
        charset: of a text.
        disposition, filename, cid: None where there is none.
        data: decoded.
    """

    content_type: str
    encoding: str
    charset: str | None
    disposition: str | None
    filename: str | None
    cid: str | None
    data: bytes


class Mail(NamedTuple):
    """A message as Dovecot read it.

    Attributes:
        message_id: with its angle brackets.
        subject: decoded by Dovecot.
        people: From, To, Cc and Reply-To: (display name, address) each.
        others: the fields that were asked for, decoded by Dovecot.
        parts: the leaves in order.
    """

    message_id: str
    subject: str
    people: dict[str, tuple[tuple[str, str], ...]]
    others: dict[str, str]
    parts: tuple[Part, ...]


def read(dovecot: Dovecot, user: str, others: Iterable[str] = ()) -> list[Mail]:
    """Everything in a user's mailbox; `others` are names of more header fields to be read."""
    asked = {name: f"hdr.{name.lower()}.utf8" for name in others}
    heads = _fetch(dovecot, user, " ".join([HEAD, *asked.values()]), ["all"])
    leaves = {head["uid"]: list(_leaves(_parsed(head["imap.bodystructure"]))) for head in heads}
    # One look for all messages that are of one shape.
    shapes: dict[tuple[str, ...], list[str]] = {}
    for uid, parts in leaves.items():
        shapes.setdefault(tuple([_field(*part) for part in parts]), []).append(uid)
    bodies: dict[str, list[bytes]] = {}
    for fields, uids in shapes.items():
        for record in _fetch(dovecot, user, " ".join(["uid", *fields]), ["uid", ",".join(uids)]):
            bodies[record["uid"]] = [_whole(dovecot, user, record, field) for field in fields]
    return [
        _mail(
            head,
            {name: head[field] for name, field in asked.items()},
            leaves[head["uid"]],
            bodies[head["uid"]],
        )
        for head in heads
    ]


def overview(dovecot: Dovecot, user: str) -> list[tuple[str, tuple[str, ...]]]:
    """Subject and types of the leaves of everything in a user's mailbox, however odd it is."""
    heads = _fetch(dovecot, user, "hdr.subject.utf8 imap.bodystructure", ["all"])
    return [
        (
            head["hdr.subject.utf8"],
            tuple([_type(leaf) for _, leaf in _leaves(_parsed(head["imap.bodystructure"]))]),
        )
        for head in heads
    ]


def _field(section: str, leaf: list[Any]) -> str:
    """Texts are decoded by Dovecot; files are taken as they travelled, for JSON does not hold every octet."""
    return f"{'body' if _disposition(leaf) else 'binary'}.{section}"


def _doveadm(dovecot: Dovecot, user: str, form: str, fields: str, query: Sequence[str]) -> bytes:
    command: list[str | Path] = [
        machine.program("doveadm"),
        "-f",
        form,
        "-c",
        dovecot.directory / "dovecot.conf",
        "fetch",
    ]
    asked = [*command, "-u", user, fields, "mailbox", "INBOX", *query]
    return subprocess.run(asked, capture_output=True, check=True, timeout=15).stdout


def _whole(dovecot: Dovecot, user: str, record: dict[str, str], field: str) -> bytes:
    """The value of a field. In JSON all is UTF-8, and of a large one doveadm may have cut a character in two."""
    value = record[field]
    if "\ufffd" not in value:
        return value.encode()
    exact = _doveadm(dovecot, user, "flow", field, ["uid", record["uid"]])
    return exact.removeprefix(field.encode() + b"=")[:-1]


def _fetch(dovecot: Dovecot, user: str, fields: str, query: Sequence[str]) -> list[dict[str, str]]:
    records: list[dict[str, str]] = json.loads(_doveadm(dovecot, user, "json", fields, query))
    return records


def _mail(
    head: dict[str, str], others: dict[str, str], leaves: list[tuple[str, list[Any]]], bodies: list[bytes]
) -> Mail:
    envelope = _parsed(head["imap.envelope"])
    people = {"From": envelope[2], "To": envelope[5], "Cc": envelope[6], "Reply-To": envelope[4]}
    if not head["hdr.reply-to"]:  # ENVELOPE then says From again
        people["Reply-To"] = None
    return Mail(
        head["hdr.message-id"],
        head["hdr.subject.utf8"],
        {name: tuple([_person(*one) for one in group or ()]) for name, group in people.items()},
        others,
        tuple([_part(leaf, body) for (_, leaf), body in zip(leaves, bodies, strict=True)]),
    )


def _person(name: bytes | None, _: Any, local: bytes, host: bytes) -> tuple[str, str]:
    text = local.decode()
    if not re.fullmatch(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*", text):
        text = '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
    return _words((name or b"").decode()), f"{text}@{host.decode()}"


_WORD = re.compile(r"=\?([\w-]+)\?([qb])\?([^? ]*)\?=[ \t]*")


def _words(text: str) -> str:
    """Encoded words as text, RFC 2047; a display name is made of nothing else or has none."""
    if not _WORD.match(text):
        return text
    assert not _WORD.sub("", text), text
    # Each on its own: an encoded word holds whole characters.
    return "".join(
        [
            (base64.b64decode(word) if how == "b" else binascii.a2b_qp(word, header=True)).decode(charset)
            for charset, how, word in _WORD.findall(text)
        ]
    )


# --- BODYSTRUCTURE ------------------------------------------------------------------------------------------


def _leaves(node: list[Any], section: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Each leaf with its section number."""
    if not isinstance(node[0], list):
        yield section or "1", node
        return
    # The parts stand before the subtype.
    for number, child in enumerate(itertools.takewhile(lambda one: isinstance(one, list), node), 1):
        yield from _leaves(child, f"{section}.{number}".lstrip("."))


def _type(leaf: list[Any]) -> str:
    return f"{leaf[0].decode()}/{leaf[1].decode()}".lower()


def _disposition(leaf: list[Any]) -> list[Any] | None:
    """`[disposition, parameters]`, None if there is none; where it stands depends on what a kind has before it."""
    kind = _type(leaf)
    found: list[Any] | None = leaf[11 if kind == "message/rfc822" else 9 if kind.startswith("text/") else 8]
    return found


def _part(leaf: list[Any], body: bytes) -> Part:
    encoding = leaf[5].decode().lower()
    disposition, parameters = _disposition(leaf) or (None, None)
    return Part(
        _type(leaf),
        encoding,
        _parameters(leaf[2]).get("charset"),
        disposition and disposition.decode(),
        _filename(parameters),
        leaf[3] and leaf[3].decode(),
        base64.b64decode(body) if disposition and encoding == "base64" else body,
    )


def _filename(parameters: list[bytes] | None) -> str | None:
    given = _parameters(parameters)
    if "filename*" in given:
        charset, language, text = given["filename*"].split("'", 2)
        assert (charset, language) == ("utf-8", "")
        return unquote(text, errors="strict")
    return given.get("filename")


def _parameters(pairs: list[bytes] | None) -> dict[str, str]:
    words = [word.decode() for word in pairs or []]
    return dict(zip(words[::2], words[1::2], strict=True))


_TOKEN = re.compile(rb'[ ]*(?:([()])|"((?:[^"\\]|\\.)*)"|\{(\d+)\}\r\n|([^ ()"{]+))', re.S)


def _parsed(text: str) -> list[Any]:
    """IMAP's lists: strings as bytes, NIL as None, numbers as they are written."""
    data, position = text.encode(), 0
    stack: list[list[Any]] = [[]]
    while position < len(data):
        match = _TOKEN.match(data, position)
        assert match, data[position : position + 40]
        position = match.end()
        bracket, quoted, length, atom = match.groups()
        if bracket == b"(":
            stack.append([])
        elif bracket:
            done = stack.pop()
            stack[-1].append(done)
        elif quoted is not None:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", quoted, flags=re.S))
        elif length is not None:
            stack[-1].append(data[position : position + int(length)])
            position += int(length)
        else:
            stack[-1].append(None if atom == b"NIL" else atom)
    (whole,) = stack
    return whole
