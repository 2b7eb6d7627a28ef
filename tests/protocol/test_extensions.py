"""extensions.py: what a server offers, exactly, and nothing that only looks like it."""

import copy
import pickle
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.model.reply import Reply
from smtp_async.protocol.extensions import NO_EXTENSIONS, Extensions, FutureRelease

FLAGS = {
    "PIPELINING": "pipelining",
    "CHUNKING": "chunking",
    "8BITMIME": "eightbitmime",
    "SMTPUTF8": "smtputf8",
    "DSN": "dsn",
    "STARTTLS": "starttls",
    "ENHANCEDSTATUSCODES": "enhancedstatuscodes",
    "REQUIRETLS": "requiretls",
}


def offer(*lines):
    return Extensions.parse(Reply(250, (b"mx.example.org hello", *(line.encode() for line in lines))))


def flags(extensions):
    return {name for name in (*FLAGS.values(), "binarymime") if getattr(extensions, name)}


@pytest.mark.parametrize("keyword", FLAGS)
def test_a_keyword_sets_its_own_flag_only(keyword):
    for line in (keyword, keyword.lower(), keyword.title(), keyword + " x", keyword + "\tx", keyword + "  "):
        assert flags(offer(line)) == {FLAGS[keyword]}
        assert keyword in offer(line)
        assert keyword.lower() in offer(line)


VALUED = ["SIZE", "AUTH", "LIMITS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY"]


@pytest.mark.parametrize("keyword", [*FLAGS, *VALUED, "BINARYMIME"])
@pytest.mark.parametrize(
    "shape",
    [
        "NO{}",
        "X{}",
        "X {}",
        "X-{}",
        "{}X",
        "{}-X",
        "{}=1",
        "{}:",
        "{}.",
        "-{}",
        "({})",
        "ä{}",
        "{}ä",
    ],
)
def test_what_only_looks_like_a_keyword_offers_nothing(keyword, shape):
    found = offer(shape.format(keyword) + " PLAIN 12", "CHUNKING" if keyword == "BINARYMIME" else "HELP")
    assert flags(found) <= {"chunking"} - ({"chunking"} if keyword == "CHUNKING" else set())
    assert found.size is None
    assert found.auth == () or (keyword, shape) == ("AUTH", "{}=1")
    assert found.limits == {}
    assert found.deliverby is found.futurerelease is found.mt_priority is None
    assert keyword not in found or (keyword, shape) == ("AUTH", "{}=1")


@pytest.mark.parametrize(
    "line", ["NOSTARTTLS", "XAUTH PLAIN", "X AUTH PLAIN", "foo AUTH PLAIN", "XAUTH=PLAIN LOGIN", "SIZE=5"]
)
def test_spoofed_lines_give_no_capability(line):
    found = offer(line)
    assert (flags(found), found.auth) == (set(), ())


def test_the_first_line_is_no_keyword():
    found = Extensions.parse(Reply(250, (b"STARTTLS AUTH PLAIN", b"DSN")))
    assert (found.domain, flags(found), found.auth) == ("STARTTLS", {"dsn"}, ())
    assert Extensions.parse(Reply(250, (b"",))) == NO_EXTENSIONS


def test_binarymime_counts_with_chunking_only():
    assert not offer("BINARYMIME").binarymime
    assert offer("BINARYMIME", "CHUNKING").binarymime
    assert not offer("BINARYMIME", "CHUNKING").without("chunking").binarymime


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("SIZE", 0),
        ("SIZE 0", 0),
        ("SIZE 1", 1),
        ("size 52428800", 52428800),
        ("SIZE  10 ", 10),
        ("SIZE 00010", 10),
        ("SIZE " + "9" * 20, int("9" * 20)),
        ("SIZE " + "9" * 21, 0),
        ("SIZE " + "9" * 2000, 0),
        ("SIZE -1", 0),
        ("SIZE +1", 0),
        ("SIZE 1_0", 0),
        ("SIZE 1 2", 0),
        ("SIZE 10MB", 0),
        ("SIZE ١٢", 0),
        ("SIZE ²", 0),
        ("DSN", None),
    ],
)
def test_size(line, size):
    assert offer(line).size == size


@pytest.mark.parametrize(
    ("lines", "mechanisms"),
    [
        (["AUTH"], ()),
        (["AUTH PLAIN"], ("PLAIN",)),
        (["AUTH  plain   Login "], ("PLAIN", "LOGIN")),
        (["AUTH SCRAM-SHA-256-PLUS PLAIN"], ("SCRAM-SHA-256-PLUS", "PLAIN")),
        (["AUTH PLAIN", "AUTH LOGIN PLAIN"], ("PLAIN", "LOGIN")),
        (["AUTH LOGIN", "AUTH=PLAIN"], ("LOGIN",)),
        (["AUTH=PLAIN LOGIN"], ("PLAIN", "LOGIN")),
        (["auth=login", " AUTH=PLAIN LOGIN"], ("LOGIN", "PLAIN")),
        ([" AUTH PLAIN"], ("PLAIN",)),
        (["\tAUTH PLAIN", "AUTH=LOGIN"], ("PLAIN",)),
        (["AUTH="], ()),
        (["X-EXPS GSSAPI NTLM LOGIN"], ("GSSAPI", "NTLM", "LOGIN")),
        (["X-EXPS=LOGIN", "x-exps ntlm"], ("NTLM", "LOGIN")),
        (["X-EXPS NTLM", "AUTH PLAIN"], ("PLAIN",)),
        (["AUTH=PLAIN", "X-EXPS NTLM"], ("PLAIN",)),
        (["X-EXPS NTLM", "AUTH"], ()),
        (["X-EXPSX NTLM"], ()),
    ],
)
def test_mechanisms_come_in_the_servers_order_once_and_in_capitals(lines, mechanisms):
    assert offer(*lines).auth == mechanisms


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("LIMITS", {}),
        ("LIMITS RCPTMAX=100", {"RCPTMAX": 100}),
        (
            "LIMITS MAILMAX=20 RCPTMAX=100 RCPTDOMAINMAX=1",
            {"MAILMAX": 20, "RCPTMAX": 100, "RCPTDOMAINMAX": 1},
        ),
        ("limits rcptmax=5", {"RCPTMAX": 5}),
        ("LIMITS RCPTMAX=999999", {"RCPTMAX": 999999}),
        ("LIMITS RCPTMAX=1000000", {}),
        ("LIMITS RCPTMAX=0", {}),
        ("LIMITS RCPTMAX=010", {}),
        ("LIMITS RCPTMAX=-1", {}),
        ("LIMITS RCPTMAX= 1", {}),
        ("LIMITS RCPTMAX", {}),
        ("LIMITS RCPTMAX=10;x", {}),
        ("LIMITS RCPTMAX=10x MAILMAX=2", {"MAILMAX": 2}),
        ("LIMITS X.RCPTMAX=10", {}),
        ("LIMITS X=RCPTMAX=10", {}),
        ("LIMITS NEW-LIMIT=10", {"NEW-LIMIT": 10}),
        ("LIMITS RCPTMAX=١", {}),
        ("RCPTMAX=10", {}),
    ],
)
def test_limits(line, limits):
    assert offer(line).limits == limits


@pytest.mark.parametrize(
    ("line", "shortest"),
    [
        ("DELIVERBY", 0),
        ("DELIVERBY 60", 60),
        ("deliverby 999999999", 999_999_999),
        ("DELIVERBY 1000000000", 0),
        ("DELIVERBY -60", 0),
        ("DELIVERBY 60;R", 0),
        ("DELIVERBY ١٢", 0),
        ("DSN", None),
    ],
)
def test_the_shortest_time_of_delivery(line, shortest):
    assert offer(line).deliverby == shortest


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("FUTURERELEASE 86400 2030-01-01T12:00:00Z", FutureRelease(86400, NOON)),
        ("futurerelease 999999999  2030-01-01t12:00:00z", FutureRelease(999_999_999, NOON)),
        ("FUTURERELEASE 1 2030-01-01T13:00:00+01:00", FutureRelease(1, NOON)),
        ("FUTURERELEASE 1 2030-01-01T12:00:00.000Z", FutureRelease(1, NOON)),
        ("FUTURERELEASE", FutureRelease()),
        ("FUTURERELEASE 0 2030-01-01T12:00:00Z", FutureRelease(None, NOON)),
        ("FUTURERELEASE 1000000000 2030-01-01T12:00:00Z", FutureRelease(None, NOON)),
        ("FUTURERELEASE 60", FutureRelease(60, None)),
        ("FUTURERELEASE 60 tomorrow", FutureRelease(60, None)),
        ("FUTURERELEASE 60 2030-02-31T12:00:00Z", FutureRelease(60, None)),
        ("FUTURERELEASE 60 2030-01-01T12:00:00", FutureRelease(60, None)),
        ("FUTURERELEASE 60 2030-W01-1T12:00:00Z", FutureRelease(60, None)),
        ("FUTURERELEASE 60 9999-12-31T23:59:59-01:00", FutureRelease(60, None)),
        ("FUTURERELEASE 60 2030-01-01T12:00:00+99:99", FutureRelease(60, None)),
        ("FUTURERELEASE 60 ٢٠٣٠-01-01T12:00:00Z", FutureRelease(60, None)),
        ("DSN", None),
    ],
)
def test_how_long_messages_are_kept_back(line, wanted):
    assert offer(line).futurerelease == wanted


@pytest.mark.parametrize(
    ("line", "profile"),
    [("MT-PRIORITY", ""), ("mt-priority mixer", "MIXER"), ("MT-PRIORITYX", None), ("DSN", None)],
)
def test_priorities(line, profile):
    assert offer(line).mt_priority == profile


def test_any_keyword_can_be_asked_for():
    found = offer("XCLIENT NAME ADDR", "HELP", "XCLIENT PORT")
    assert found["xclient"] == "NAME ADDR PORT"
    assert found["HELP"] == ""
    assert list(found) == ["XCLIENT", "HELP"]
    assert len(found) == 2
    assert "NAME" not in found
    assert 5 not in found
    with pytest.raises(KeyError):
        found["NAME"]


def test_lines_that_are_no_keyword_are_passed_over():
    assert list(offer("", " ", "-", "=x", "DSN", "ok?")) == ["DSN"]
    assert list(Extensions.parse(Reply(250, (b"\xff", b"\xff", b"DSN\xff", b"DSN \xff")))) == ["DSN"]


def test_equal_offers_are_equal():
    one, same = offer("DSN", "SIZE 10"), offer("size 10", "dsn")
    assert one == same
    assert hash(one) == hash(same)
    assert one == one
    assert one != offer("DSN", "SIZE 11")
    # Another host of the same farm: what was planned for one suits the other.
    assert one == Extensions({"DSN": "", "SIZE": "10"}, domain="other.example")
    assert one != {"DSN": "", "SIZE": "10"}


def test_an_option_can_switch_an_extension_off():
    found = offer("DSN", "SIZE 10", "PIPELINING")
    assert found.without("pipelining", "size") == offer("DSN")
    assert found.without("CHUNKING") is found
    assert found.without() is found


def test_repr_tells_the_offer():
    assert repr(offer("DSN", "SIZE 10")) == "<Extensions of mx.example.org: DSN, SIZE 10>"
    assert repr(NO_EXTENSIONS) == "<Extensions of ?: none>"


KEYWORDS = st.text("ABCXYZ019-", min_size=1, max_size=8).filter(lambda word: word[0] != "-")


@given(st.dictionaries(KEYWORDS, st.text(max_size=10)), st.text(max_size=10))
def test_an_offer_pickles_and_copies(keywords, domain):
    found = Extensions(keywords, domain=domain)
    for twin in (pickle.loads(pickle.dumps(found)), copy.copy(found), copy.deepcopy(found)):
        assert twin == found
        assert repr(twin) == repr(found)


@given(
    st.lists(
        st.binary(max_size=30)
        | st.builds(
            lambda word, rest: word.encode() + b" " + rest,
            st.sampled_from(VALUED),
            st.binary(max_size=20) | st.from_regex(rb"[0-9 T:Z+.-]{0,30}"),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_reply_can_be_read(texts):
    found = Extensions.parse(Reply(250, tuple(texts)))
    assert len(found) < len(texts)


@pytest.mark.parametrize(
    "line",
    [
        *("X" * 60, "AUTH " + "A " * 30, "LIMITS " + "A=1 " * 15, "LIMITS " + "A" * 55),
        *("DELIVERBY " + "1" * 50, "FUTURERELEASE " + "1 " * 20, "FUTURERELEASE 1 " + "2030-" * 10),
    ],
)
def test_the_longest_reply_is_read_in_no_time(line):
    reply = Reply(250, (b"mx",) + (line.encode(),) * 1023)
    began = time.process_time()
    Extensions.parse(reply)
    assert time.process_time() - began < 0.5
