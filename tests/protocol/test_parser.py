"""parser.py: the grammar of a reply, its limits, and that the way of arrival never matters."""

import time
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import ProtocolViolation, ReplyTooLong
from smtp_async.model.reply import Reply
from smtp_async.protocol.parser import MAX_LINE, MAX_LINES, MAX_REPLY, ReplyParser

MALFORMED = [
    *(
        b"",
        b" ",
        b"2",
        b"25",
        b"+25 ok",
        b" 250 ok",
        b"\t250 ok",
        b"2_5 ok",
        b"25O ok",
        b"2 50 ok",
        b"-250 ok",
    ),
    *(b"250_ok", b"250\tok", b"250:ok", b"250.ok", b"250=ok", b"250,ok", b"250+ok", b"250/ok", b"250ok"),
    *(b"2500 ok", b"0250 ok", b"000 ok", b"099 ok", b"100 ok", b"150-ok", b"199 ok", b"600 ok", b"999 ok"),
    *(
        b"abc",
        b"OK",
        b"+OK POP3 ready",
        b"* OK IMAP4 ready",
        b"HTTP/1.1 400 Bad Request",
        b"SSH-2.0-OpenSSH_9",
    ),
    *(
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\xff\xfb\x01250 ok",
        b"\xef\xbb\xbf250 ok",
        b"250\xa0ok",
        b"25\xa00 ok",
    ),
    *(
        "٢٥٠ ok".encode(),
        "²50 ok".encode(),
        "２５０ ok".encode(),
        b"0xFA ok",
        b"2e2 ok",
        b"2.5 ok",
        b"-50 ok",
    ),
    *(b"\0", b"\x00250 ok", b"2\x0050 ok", b"250\0", b"250 a\0b", b"250 \0", b"250-a\0b\r\n250 b"),
    *(b"\r250 ok", b"250\rok", b"250\r", b"2\r50 ok", b"DATA", b"MAIL FROM:<a@example.com>", b"<html>"),
    *(
        b"250-a\r\n251 b",
        b"250-a\r\n550 b",
        b"250-a\r\n550-b",
        b"250-a\r\nok",
        b"250-a\r\n",
        b"250-a\r\n 250 b",
    ),
    *(b"250-a\r\n25", b"250-a\r\n-b", b"250-a\r\n2500 b"),
]


def outcome(pieces: Iterable[bytes], parser: ReplyParser | None = None) -> tuple[list[Reply], str]:
    """The replies in `pieces`, and how it ended."""
    parser = parser or ReplyParser()
    replies: list[Reply] = []
    try:
        for piece in pieces:
            replies += parser.take(piece)
        if parser.failed:
            parser.take(b"")
    except ProtocolViolation as error:
        return replies, f"{type(error).__name__}: {error}"
    return replies, "empty" if parser.empty else "waiting"


def octets(data: bytes) -> list[bytes]:
    return [bytes((octet,)) for octet in data]


def manners(data: bytes) -> list[list[bytes]]:
    return [[data], data.splitlines(keepends=True), octets(data)]


@pytest.mark.parametrize("line", MALFORMED, ids=repr)
def test_what_is_no_reply_is_a_violation(line):
    for pieces in manners(line + b"\r\n"):
        replies, end = outcome(pieces)
        assert replies == []
        assert end.startswith("ProtocolViolation")


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"250 ok\r\n", Reply(250, (b"ok",))),
        (b"250\r\n", Reply(250)),
        (b"250 \r\n", Reply(250)),
        (b"599 x\r\n", Reply(599, (b"x",))),
        (b"200 x\r\n", Reply(200, (b"x",))),
        (b"250-a\r\n250 b\r\n", Reply(250, (b"a", b"b"))),
        (b"250-\r\n250\r\n", Reply(250, (b"", b""))),
        (b"250-a\r\n250-\r\n250-c\r\n250 d\r\n", Reply(250, (b"a", b"", b"c", b"d"))),
        (b"250 a\xff\xe4\x7f\x1b[2J\r\n", Reply(250, (b"a\xff\xe4\x7f\x1b[2J",))),
    ],
)
def test_a_reply_is_read_in_any_manner(data, reply):
    for pieces in manners(data):
        assert outcome(pieces) == ([reply], "empty")


def test_a_line_may_end_with_lf_alone():
    for pieces in manners(b"250-a\n250 b\n354\n"):
        assert outcome(pieces) == ([Reply(250, (b"a", b"b")), Reply(354)], "empty")


@pytest.mark.parametrize("text", [b"a\rb", b"\ra", b"a\r", b"\r", b"a\r\rb"])
def test_a_bare_cr_is_data(text):
    for pieces in manners(b"250 " + text + b"\r\n250-x\r\n250 " + text + b"\r\n"):
        assert outcome(pieces) == ([Reply(250, (text,)), Reply(250, (b"x", text))], "empty")


def test_what_came_before_garbage_is_taken_first():
    parser = ReplyParser()
    assert parser.take(b"250 a\r\n250 b\r\ngarbage\r\n250 c\r\n") == [
        Reply(250, (b"a",)),
        Reply(250, (b"b",)),
    ]
    assert parser.failed and not parser.empty
    for more in (b"", b"250 d\r\n"):
        with pytest.raises(ProtocolViolation, match="garbage"):
            parser.take(more)


def test_an_unfinished_reply_is_not_nothing():
    parser = ReplyParser()
    assert parser.empty
    for piece in (b"2", b"50-a\r\n", b"250"):
        assert parser.take(piece) == []
        assert not parser.empty
    assert parser.take(b" b\r\n") == [Reply(250, (b"a", b"b"))]
    assert parser.empty


def test_the_same_line_gives_the_same_reply_but_never_inside_another():
    parser = ReplyParser()
    first, second, third, fourth = parser.take(b"250 ok\r\n250 ok\r\n250-x\r\n250 ok\r\n250 ok\r\n")
    assert second is first
    assert third == Reply(250, (b"x", b"ok"))
    assert fourth is first
    assert parser.take(b"250 ok\r\n250 ok\r\n") == [first, first]
    assert parser.take(b"250-ok\r\n") == []
    assert parser.take(b"250 ok\r\n250 ok\r\n") == [Reply(250, (b"ok", b"ok")), first]


def test_only_so_many_short_lines_are_remembered():
    numbers = [b"250 %d\r\n" % number for number in range(100)]
    few = [*numbers[:20], b"250 " + b"x" * 200 + b"\r\n"]
    replies, end = outcome([b"".join([*few * 2, *numbers, *few])])
    assert end == "empty"
    assert replies[:21] == replies[21:42] == replies[-21:]
    assert replies[0] is replies[21] and replies[20] is not replies[41]
    assert replies[0] is not replies[-21]


OFFER = b"250-mx.example.org\r\n250-SIZE 1000\r\n250 DSN\r\n"


def test_connections_share_what_they_have_read():
    known: dict[bytes, Reply] = {}
    first, second = ReplyParser(known=known), ReplyParser(known=known)
    for data in (b"220 mx.example.org\r\n", OFFER):
        assert second.take(data)[0] is first.take(data)[0]
    # Only a whole reply: not with another in the same piece, and not in pieces.
    assert first.take(OFFER + b"250 DSN\r\n") == [*second.take(OFFER), Reply(250, (b"DSN",))]
    assert [*first.take(OFFER[:30]), *first.take(OFFER[30:])] == second.take(OFFER)
    long = b"".join(b"250-%d\r\n" % number for number in range(200)) + b"250 end\r\n"
    assert first.take(long) == second.take(long)
    assert first.take(long)[0] is not second.take(long)[0]


def test_what_is_read_behind_a_secret_is_not_shared():
    known: dict[bytes, Reply] = {}
    first, second = ReplyParser(known=known), ReplyParser(known=known)
    secret = b"250-mx hunter2\r\n250 hunter2\r\n"
    first.take(b"220 hunter2\r\n" + secret)
    first.conceal(b"aHVudGVyMg==", [b"hunter2"])
    for data in (b"220 hunter2\r\n", b"221 hunter2\r\n", secret):
        assert b"hunter2" not in b"".join(first.take(data)[0].raw)
        assert b"hunter2" in b"".join(second.take(data)[0].raw)
    assert b"221 hunter2\r" in known


def test_so_many_shared_replies_are_remembered():
    known: dict[bytes, Reply] = {}
    parser = ReplyParser(known=known)
    parser.take(b"".join(b"250 %d\r\n" % number for number in range(5000)))
    assert 0 < len(known) <= 256


# --- limits ---


def test_a_line_may_be_as_long_as_its_limit():
    longest = b"250 " + b"x" * (MAX_LINE - 6) + b"\r\n"
    for pieces in manners(longest):
        assert outcome(pieces) == ([Reply(250, (longest[4:-2],))], "empty")
    for line in (longest[:-2] + b"x\r\n", longest[:-2] + b"xx\n", longest[:-2] + b"xx"):
        for pieces in manners(b"250 first\r\n" + line):
            assert outcome(pieces) == (
                [Reply(250, (b"first",))],
                "ReplyTooLong: a reply line is longer than 8192 bytes",
            )


def test_a_reply_may_have_as_many_lines_as_its_limit():
    most = b"250-\r\n" * (MAX_LINES - 1)
    assert outcome([most + b"250 \r\n"]) == ([Reply(250, (b"",) * MAX_LINES)], "empty")
    for tail in (b"250 \r\n", b"250-\r\n"):
        for pieces in manners(b"250-\r\n" + most + tail):
            assert outcome(pieces) == ([], "ReplyTooLong: a reply has more than 1024 lines")


def test_a_reply_may_be_as_long_as_its_limit():
    line = b"250-" + b"x" * 1018 + b"\r\n"
    last = b"250 " + b"x" * 1018 + b"\r\n"
    assert len(line) * 64 == MAX_REPLY
    replies, end = outcome([line * 63 + last])
    assert (len(replies), end) == (1, "empty")
    assert outcome([line * 64 + b"250 \r\n"]) == ([], "ReplyTooLong: a reply is longer than 65536 bytes")


def test_limits_begin_anew_with_every_reply():
    reply = b"250-" + b"x" * 1000 + b"\r\n"
    replies, end = outcome([(reply * 60 + b"250 \r\n") * 20])
    assert (len(replies), end) == (20, "empty")


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("a line without end", b"250 " + b"A" * 65532),
        ("octets without end", b"A" * 65536),
        ("continuations without end", b"250-AAAA\r\n" * 6553),
        ("a million empty lines", b"250-\r\n" * 10922),
        ("long lines without end", (b"250-" + b"A" * 2000 + b"\r\n") * 32),
    ],
)
def test_an_endless_reply_ends_soon_and_costs_little(name, chunk):
    parser = ReplyParser()
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ReplyTooLong):
        for _ in range(1600):
            parser.take(chunk)
    took = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 1, name
    assert peak < 5 * 2**20, name


def test_an_endless_reply_in_single_octets_ends_too():
    replies, end = outcome(octets(b"250-x\r\n" * 1_100))
    assert (replies, end) == ([], "ReplyTooLong: a reply has more than 1024 lines")


def seconds(pieces: list[bytes]) -> float:
    def once() -> float:
        began = time.process_time()
        outcome(pieces)
        return time.process_time() - began

    return min(once() for _ in range(3))


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize(
    "unit", [b"250 2.1.0 Ok\r\n", (b"250-x\r\n" * 500 + b"250 \r\n"), b"250 " + b"x" * 2000 + b"\r\n"]
)
def test_time_is_linear_in_what_arrives(size, unit):
    few = unit * (20_000 // len(unit))
    many = few * 8

    def cut(data: bytes) -> list[bytes]:
        return [data[start : start + size] for start in range(0, len(data), size)]

    # Quadratic would be 64 times.
    assert seconds(cut(many)) < 30 * max(seconds(cut(few)), 1e-4)


# --- any bytes at all ---

WORDS = st.sampled_from(
    [
        b"250",
        b"354",
        b"421",
        b"550",
        b"-",
        b" ",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"ok",
        b"2",
        b"\xff",
        b"x" * 20,
        b"99",
    ]
)
HOSTILE = st.one_of(st.binary(max_size=80), st.lists(WORDS, max_size=40).map(b"".join))


def small() -> ReplyParser:
    return ReplyParser(max_line=24, max_lines=4, max_reply=60)


@given(HOSTILE, st.lists(st.integers(0, 80), max_size=8))
def test_any_bytes_give_the_same_however_they_are_cut(data, cuts):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
    expected = outcome([data], small())
    for cut in (pieces, data.splitlines(keepends=True), octets(data)):
        assert outcome(cut, small()) == expected


@given(HOSTILE)
def test_any_bytes_give_replies_or_a_violation(data):
    parser = small()
    taken = 0
    try:
        for reply in parser.take(data):
            taken += 1
            assert 200 <= reply.code <= 599
            assert 1 <= len(reply.raw) <= 4
            assert not any(b"\0" in text or b"\n" in text for text in reply.raw)
    except ProtocolViolation:
        pass
    assert taken <= data.count(b"\n")


@given(st.lists(HOSTILE | st.just(OFFER), max_size=4), st.booleans())
def test_what_others_have_read_changes_nothing(pieces, masked):
    known: dict[bytes, Reply] = {}
    for one in pieces:
        outcome([one], ReplyParser(known=known))
    expected = None
    for parser in (ReplyParser(), ReplyParser(known=known)):
        if masked:
            parser.conceal(b"eA==", [b"x"])
        found = outcome(pieces, parser)
        assert expected in (None, found)
        expected = found


@given(
    st.lists(
        st.tuples(st.integers(200, 599), st.lists(st.binary(max_size=12), min_size=1, max_size=4)), max_size=6
    )
)
def test_replies_written_by_the_rules_are_read_back(replies):
    cleaned = [
        (code, tuple(text.replace(b"\0", b"").replace(b"\n", b"").rstrip(b"\r") for text in texts))
        for code, texts in replies
    ]
    data = b"".join(
        b"".join(b"%d-%b\r\n" % (code, text) for text in texts[:-1]) + b"%d %b\r\n" % (code, texts[-1])
        for code, texts in cleaned
    )
    for pieces in manners(data):
        assert outcome(pieces) == ([Reply(code, texts) for code, texts in cleaned], "empty")


@given(
    st.integers(200, 599),
    st.sampled_from([b"", b"5.7.8", b"2.1.0 ", b"4.7.12 no", b"2.0.0x"]),
    st.text("258.710 ox", max_size=8).map(str.encode),
    st.text("258.710 ox", min_size=1, max_size=8).map(str.encode),
)
def test_no_secret_changes_the_codes_of_a_reply(code, head, rest, secret):
    plain, masking = ReplyParser(), ReplyParser()
    masking.conceal(b"AGFubgBzM2NyZXQ=", [secret])
    line = b"%d %b\r\n" % (code, head + rest)
    [before], [behind] = plain.take(line), masking.take(line)
    assert (behind.code, behind.enhanced) == (before.code, before.enhanced)


# --- challenges ------------------------------------------------------------------------------------------------


class TestChallenges:
    def expecting(self) -> ReplyParser:
        parser = ReplyParser()
        parser.expect_challenge()
        return parser

    def test_its_text_is_kept_and_not_shown(self):
        parser = self.expecting()
        assert parser.take(b"334 c2VjcmV0\r\n") == [Reply(334, (b"***",))]
        assert parser.challenge == b"c2VjcmV0"
        parser.expect_challenge()
        assert parser.take(b"334 \r\n") == [Reply(334, (b"",))]
        assert parser.challenge == b""

    def test_a_challenge_that_holds_what_was_sent_is_not_changed(self):
        """By accident, as "Bearer" in a token's message and in the server's explanation; or on purpose."""
        parser = self.expecting()
        parser.conceal(b"YXV0aD1CZWFyZXIg", [b"auth=Bearer "])
        parser.take(b"334 YXV0aD1CZWFyZXIg\r\n")
        assert parser.challenge == b"YXV0aD1CZWFyZXIg"

    @pytest.mark.parametrize("size", [8192, 12_288])
    def test_it_may_be_as_long_as_rfc_4954_says(self, size):
        for pieces in ([b"334 " + b"A" * size + b"\r\n"], [b"334 ", b"A" * size, b"\r\n"]):
            parser = self.expecting()
            assert [reply for piece in pieces for reply in parser.take(piece)] == [Reply(334, (b"***",))]
            assert parser.challenge == b"A" * size

    @pytest.mark.parametrize("line", [b"334 " + b"A" * 12_300, b"535 " + b"A" * 9000, b"334-" + b"A" * 9000])
    def test_nothing_longer_and_nothing_else(self, line):
        with pytest.raises(ReplyTooLong):
            self.expecting().take(line)

    def test_none_outside_of_an_exchange(self):
        parser = self.expecting()
        parser.take(b"235 2.7.0 welcome\r\n")
        assert parser.take(b"334 who?\r\n") == [Reply(334, (b"who?",))]
        assert parser.challenge is None
        with pytest.raises(ReplyTooLong):
            parser.take(b"334 " + b"A" * 9000)

    def test_not_in_a_reply_of_several_lines(self):
        assert self.expecting().take(b"334-a\r\n334 b\r\n") == [Reply(334, (b"a", b"b"))]

    def test_lines_that_were_seen_before_count_too(self):
        parser = ReplyParser()
        parser.take(b"334 abcd\r\n250 x\r\n")
        for _ in range(2):
            parser.expect_challenge()
            parser.take(b"334 abcd\r\n")
            assert parser.challenge == b"abcd"
        parser.take(b"250 x\r\n")
        assert parser.challenge is None
