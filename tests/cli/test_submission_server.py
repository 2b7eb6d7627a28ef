"""`sendmail -bs`: SMTP over a pipe."""

import io

import pytest

from smtp_async.cli.submission_server import SubmissionServer, reply_of
from smtp_async.cli.sysexits import SysExit
from smtp_async.errors import InvalidAddress
from smtp_async.testing.grammar import ServerReply

OPENING = b"EHLO me\r\nMAIL FROM:<a@b.org>\r\nRCPT TO:<c@d.org>\r\nDATA\r\n"


def converse(said, reply=(250, "2.0.0 Ok")):
    """What is taken, what is answered, and the exit code."""
    taken = []

    def accept(data, sender, parameters, recipients):
        taken.append((data, sender, parameters, recipients))
        return ServerReply(reply[0], (reply[1],))

    def check(address):
        if address == "bad":
            raise InvalidAddress("“bad” is no address")

    outgoing = io.BytesIO()
    code = SubmissionServer("host.test", check, accept).serve(io.BytesIO(said), outgoing)
    return taken, outgoing.getvalue().decode("ascii").splitlines(), code


def codes(lines):
    return [int(line[:3]) for line in lines if line[3] == " "]


def test_a_message():
    taken, lines, code = converse(OPENING + b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n")
    assert taken == [(b"Subject: x\r\n\r\n.dot\r\n", "a@b.org", {}, [("c@d.org", {})])]
    assert codes(lines) == [220, 250, 250, 250, 354, 250, 221]
    assert lines[0] == "220 host.test ESMTP ready" and code is SysExit.OK


def test_several_messages_and_parameters():
    again = b"MAIL FROM:<> RET=HDRS ENVID=7\r\nRCPT TO:<root> NOTIFY=NEVER\r\nDATA\r\nx\r\n.\r\n"
    taken, _, _ = converse(OPENING + b"x\r\n.\r\n" + again + b"QUIT\r\n")
    assert [one[1:] for one in taken] == [
        ("a@b.org", {}, [("c@d.org", {})]),
        ("", {"RET": "HDRS", "ENVID": "7"}, [("root", {"NOTIFY": "NEVER"})]),
    ]


def test_a_program_that_writes_LF():
    taken, lines, _ = converse(OPENING.replace(b"\r", b"") + b"x\n..\n.\nQUIT\n")
    assert [one[0] for one in taken] == [b"x\n.\n"] and codes(lines)[-1] == 221


def test_a_dot_between_bare_LF_ends_no_message_of_CRLF():
    text = b"x\n.\nMAIL FROM:<eve@b.org>\n"
    taken, lines, _ = converse(OPENING + text + b"\r\n.\r\nQUIT\r\n")
    assert [one[0] for one in taken] == [text + b"\r\n"]


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_dots_that_were_doubled(end):
    taken, _, _ = converse(OPENING + b"..a" + end + b".." + end + b"\r\n.\r\n")
    assert [one[0] for one in taken] == [b".a" + end + b"." + end + b"\r\n"]


@pytest.mark.parametrize("reply", [(451, "4.3.0 later"), (554, "5.0.0 no")])
def test_a_message_that_is_not_delivered(reply):
    _, lines, code = converse(OPENING + b"x\r\n.\r\nQUIT\r\n", reply)
    assert lines[-2] == f"{reply[0]} {reply[1]}" and code is SysExit.OK


def test_a_recipient_that_is_none():
    _, lines, _ = converse(b"EHLO me\r\nMAIL FROM:<a@b.org>\r\nRCPT TO:<bad>\r\nDATA\r\nQUIT\r\n")
    assert codes(lines) == [220, 250, 250, 553, 554, 221]
    assert '"bad" is no address' in "".join(lines)


@pytest.mark.parametrize(
    ("said", "code"),
    [(b"", SysExit.OK), (b"EHLO me\r\n", SysExit.OK), (OPENING + b"x\r\n", SysExit.TEMPFAIL)],
)
def test_the_end_of_input(said, code):
    taken, _, found = converse(said)
    assert taken == [] and found is code


def test_a_line_without_an_end():
    _, lines, _ = converse(b"NOOP " + b"x" * 20_000 + b"\r\nNOOP\r\nQUIT\r\n")
    assert codes(lines) == [220, 500, 250, 221]


def test_a_message_that_is_too_large():
    def said():
        yield OPENING
        line = b"a" * (1 << 20) + b"\r\n"
        yield from [line] * 101
        yield b".\r\nQUIT\r\n"

    taken, lines, _ = converse(b"".join(said()))
    assert taken == [] and codes(lines)[-2:] == [552, 221]


def test_replies_are_ASCII():
    assert reply_of(550, "5.0.0", "“Ü”\r\nx").encode().isascii()
    assert reply_of(550, "5.0.0", "a\r\nb").encode().count(b"\r\n") == 1
