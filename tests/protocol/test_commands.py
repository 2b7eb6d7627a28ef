"""commands.py: what leaves is one line, whatever came in."""

import inspect
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidAddress, InvalidArgument, UsageError
from smtp_async.protocol import commands

# Every function, with the text put into each of its arguments.
DOORS = {
    "ehlo": lambda text: commands.ehlo(text),
    "helo": lambda text: commands.helo(text),
    "lhlo": lambda text: commands.lhlo(text),
    "mail": lambda text: commands.mail(octets(text)),
    "mail to a terminal": lambda text: commands.mail(octets(text), verb="SAML"),
    "mail parameter": lambda text: commands.mail(b"a@example.com", [octets(text)]),
    "mail parameter value": lambda text: commands.mail(b"a@example.com", [b"ENVID=" + octets(text)]),
    "rcpt": lambda text: commands.rcpt(octets(text)),
    "rcpt parameter": lambda text: commands.rcpt(b"a@example.com", [octets(text)]),
    "rcpt parameter value": lambda text: commands.rcpt(b"a@example.com", [b"ORCPT=rfc822;" + octets(text)]),
    "auth": lambda text: commands.auth(text),
    "auth initial": lambda text: commands.auth("PLAIN", octets(text)),
    "auth_response": lambda text: commands.auth_response(octets(text)),
    "vrfy": lambda text: commands.vrfy(text),
    "vrfy utf8": lambda text: commands.vrfy(text, utf8=True),
    "expn": lambda text: commands.expn(text),
    "expn utf8": lambda text: commands.expn(text, utf8=True),
    "free": lambda text: commands.free(text)[1],
    "free argument": lambda text: commands.free("NOOP " + text)[1],
}
# What they take is encoded, so nothing can be wrong with it.
ENCODED = {"auth initial", "auth_response"}

CONTROLS = [*map(chr, range(0x20)), "\x7f"]
ANY_TEXT = st.one_of(
    st.text(),
    st.text(st.characters(codec=None)),
    st.text(st.sampled_from('a.@<>" \\=\r\n\0\t\x7f[]:\udc0dä嘍嘊')),
)


def octets(text):
    return text.encode("utf-8", "surrogatepass")


def written(door, text):
    """The line that leaves, or None if it was refused."""
    try:
        line = DOORS[door](text)
    except InvalidArgument:
        return None
    assert line.endswith(b"\r\n")
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert not any(octet < 0x20 or octet == 0x7F for octet in line[:-2])
    return line


@pytest.mark.parametrize("verb", ["", "mail", "RCPT", "MAIL FROM:<a@b>\r\nQUIT", "SAML\r\n"])
def test_a_transaction_begins_with_one_of_four_verbs(verb):
    with pytest.raises(InvalidArgument):
        commands.mail(b"a@example.com", verb=verb)


def test_every_function_is_among_the_doors():
    functions = {name for name in commands.__all__ if inspect.isfunction(getattr(commands, name))}
    assert functions - {door.split()[0] for door in DOORS} == {"bdat"}


def test_constants_are_one_line_each():
    constants = [getattr(commands, name) for name in commands.__all__ if name.isupper()]
    assert len(constants) == 6
    for line in (*constants, commands.AUTH_CANCEL):
        assert line.endswith(b"\r\n")
        assert line.count(b"\r") == line.count(b"\n") == 1


@given(st.sampled_from(sorted(DOORS)), ANY_TEXT)
def test_any_argument_makes_one_line_or_none(door, text):
    written(door, text)


@pytest.mark.parametrize("door", sorted(set(DOORS) - ENCODED))
def test_a_control_in_any_argument_is_refused(door):
    good = (
        "PLAIN"
        if door == "auth"
        else "a@example.com"
        if "@" in door or door in {"mail", "rcpt"}
        else "example"
    )
    assert written(door, good) is not None
    for control in CONTROLS:
        for text in (control, good + control, control + good, good[:3] + control + good[3:]):
            assert written(door, text) is None, text


@pytest.mark.parametrize("door", sorted(DOORS))
def test_no_code_point_is_cut_down_to_a_line_end(door):
    ends = {0x00, 0x0A, 0x0D, 0x2E}
    for point in range(0x110000):
        if point & 0xFF in ends:
            line = written(door, "a" + chr(point) + "b")
            assert line is None or door in ENCODED or point >= 0x80 or point == 0x2E


@pytest.mark.parametrize(
    ("door", "text"),
    [
        ("ehlo", "me.example XCLIENT ADDR=1.2.3.4"),
        ("ehlo", "me.example\r\nMAIL FROM:<a@example.com>"),
        ("ehlo", ""),
        ("ehlo", "-a"),
        ("ehlo", "a b"),
        ("ehlo", "bücher.example"),
        ("ehlo", "[1.2.3.4"),
        ("ehlo", "[]"),
        ("ehlo", "[1.2.3.4] x"),
        ("ehlo", "[<>]"),
        ("ehlo", "a" * 256),
        ("mail", "user@example.com> AUTH=<a@example.com"),
        ("mail", "a@example.com SIZE=1"),
        ("mail", "<a@example.com>"),
        ("mail", '"a@example.com'),
        ("mail", 'a"@example.com'),
        ("mail", '"a\\"@example.com'),
        ("mail", '"a\r\nb"@example.com'),
        ("mail", '"a\\\nb"@example.com'),
        ("rcpt", ""),
        ("rcpt", "user@example.com> NOTIFY=<NEVER"),
        ("rcpt", "a@example.com,b@example.com c"),
        ("mail parameter", ""),
        ("mail parameter", "SIZE=1 BODY=8BITMIME"),
        ("mail parameter", "SIZE="),
        ("mail parameter", "-X=1"),
        ("mail parameter", "=1"),
        ("mail parameter", "ENVID=a=b"),
        ("mail parameter", "ENVID=ä"),
        ("rcpt parameter", "ORCPT=rfc822;a@b\n"),
        ("rcpt parameter", "NOTIFY=NEVER\r\nDATA"),
        ("auth", ""),
        ("auth", "plain"),
        ("auth", "PLAIN AGEAYg=="),
        ("auth", "X" * 21),
        ("vrfy", ""),
        ("vrfy", "bücher"),
        ("vrfy", "a\r\nQUIT"),
        ("vrfy utf8", "\udcff"),
        ("free", ""),
        ("free", " NOOP"),
        ("free", "-NOOP"),
        ("free", "ÄNOOP"),
        ("free", "1NOOP"),
        ("free", "NOOP\r\nDATA"),
    ],
)
def test_what_would_become_something_else_is_refused(door, text):
    assert written(door, text) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (commands.ehlo("me.example"), b"EHLO me.example\r\n"),
        (commands.ehlo("_host.under_score"), b"EHLO _host.under_score\r\n"),
        (commands.ehlo("[192.0.2.1]"), b"EHLO [192.0.2.1]\r\n"),
        (commands.helo("[IPv6:2001:db8::1]"), b"HELO [IPv6:2001:db8::1]\r\n"),
        (commands.lhlo("a" * 255), b"LHLO " + b"a" * 255 + b"\r\n"),
        (commands.mail(b""), b"MAIL FROM:<>\r\n"),
        (commands.mail(b"", [b"SIZE=12", b"BODY=8BITMIME"]), b"MAIL FROM:<> SIZE=12 BODY=8BITMIME\r\n"),
        (commands.mail(b'"a> <b"@example.com'), b'MAIL FROM:<"a> <b"@example.com>\r\n'),
        (commands.mail(b'"a\\"b\\\\"@example.com'), b'MAIL FROM:<"a\\"b\\\\"@example.com>\r\n'),
        (
            commands.mail("ü@bücher.example".encode(), [b"SMTPUTF8"]),
            "MAIL FROM:<ü@bücher.example> SMTPUTF8\r\n".encode(),
        ),
        (commands.rcpt(b"a@[192.0.2.1]"), b"RCPT TO:<a@[192.0.2.1]>\r\n"),
        (
            commands.rcpt(b"a@b.example", [b"NOTIFY=SUCCESS,FAILURE"]),
            b"RCPT TO:<a@b.example> NOTIFY=SUCCESS,FAILURE\r\n",
        ),
        (commands.bdat(0, last=True), b"BDAT 0 LAST\r\n"),
        (commands.bdat(86, last=False), b"BDAT 86\r\n"),
        (commands.auth("LOGIN"), b"AUTH LOGIN\r\n"),
        (commands.auth("SCRAM-SHA-256-PLUS", b""), b"AUTH SCRAM-SHA-256-PLUS =\r\n"),
        (commands.auth("PLAIN", b"\0a\0b"), b"AUTH PLAIN AGEAYg==\r\n"),
        (commands.auth_response(b""), b"\r\n"),
        (commands.auth_response(b"\r\n"), b"DQo=\r\n"),
        (commands.vrfy("bob"), b"VRFY bob\r\n"),
        (commands.vrfy("bob", utf8=True), b"VRFY bob\r\n"),
        (commands.vrfy("böb", utf8=True), "VRFY böb SMTPUTF8\r\n".encode()),
        (commands.expn("all <staff>"), b"EXPN all <staff>\r\n"),
        (commands.free("help me"), ("HELP", b"help me\r\n")),
        (commands.free("X-STUFF 1"), ("X", b"X-STUFF 1\r\n")),
        (commands.free("etrn @example.com"), ("ETRN", b"etrn @example.com\r\n")),
    ],
)
def test_a_command_is_written(line, expected):
    assert line == expected


def test_a_path_that_is_refused_is_an_invalid_address():
    for door in (commands.mail, commands.rcpt):
        with pytest.raises(InvalidAddress, match="b c"):
            door(b"b c@example.com")


@pytest.mark.parametrize("size", [-1, -(10**30)])
def test_a_chunk_has_no_negative_size(size):
    with pytest.raises(InvalidArgument):
        commands.bdat(size, last=False)


@pytest.mark.parametrize("size", ["1\r\nQUIT", b"1", None, [1]])
def test_a_chunk_size_is_a_number(size):
    with pytest.raises(TypeError):
        commands.bdat(size, last=False)


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda n: commands.mail(b"a" * n), commands.MAX_LINE),
        (lambda n: commands.rcpt(b"a@b", [b"ORCPT=" + b"x" * n]), commands.MAX_LINE),
        (lambda n: commands.vrfy("x" * n), commands.MAX_LINE),
        (lambda n: commands.vrfy("ä" * n, utf8=True), commands.MAX_LINE),
        (lambda n: commands.free("NOOP " + "x" * n)[1], commands.MAX_LINE),
        (lambda n: commands.auth("PLAIN", b"x" * n), commands.MAX_AUTH_LINE),
        (lambda n: commands.auth_response(b"x" * n), commands.MAX_AUTH_LINE),
    ],
)
def test_a_line_is_bounded(make, limit):
    lengths = []
    for size in range(1, limit + 1):
        try:
            lengths.append(len(make(size)))
        except InvalidArgument:
            break
    # Two octets for a letter, four for three in base64.
    step = max(later - before for before, later in itertools.pairwise(lengths))
    assert limit - step < lengths[-1] <= limit
    with pytest.raises(InvalidArgument, match=f"longer than {limit}"):
        make(limit)


@pytest.mark.parametrize("refuse", [commands.free, commands.vrfy, commands.expn])
def test_the_text_of_a_refused_line_is_not_told(refuse):
    for text in ("AUTH PLAIN s3cret\r\n", "AUTH PLAIN s3cret\udcff", "-s3cret" * 500, " s3cret\n"):
        with pytest.raises(UsageError) as caught:
            refuse(text)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("door", sorted(DOORS))
def test_hostile_text_takes_linear_time(door):
    size = 200_000
    hostile = [
        '"' * size,
        "\\" * size,
        '"' + '\\"' * (size // 2),
        '"' + "\\" * size,
        '""' * (size // 2) + " ",
        "a" * size + " ",
        "a" * size + "\n",
        "[" + ":" * size,
        "a=" * (size // 2),
        "a-" * (size // 2) + "=",
    ]
    began = time.process_time()
    for text in hostile:
        assert written(door, text) is None
    assert time.process_time() - began < 1
