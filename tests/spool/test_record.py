"""record.py: files are read as they were written, and any other contents are refused."""

import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp_async.errors import RecordInvalid, RecordNewer
from smtp_async.model.address import Address
from smtp_async.model.dsn import DSN, Notify
from smtp_async.model.envelope import Envelope, Kind, Recipient
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply
from smtp_async.spool.entry import State, results_after
from smtp_async.spool.record import (
    Job,
    encode_header,
    journal_record,
    parse,
    read_header,
    replay,
    result_record,
)
from smtp_async.spool.submission import BodyNeeds, Submission

BODY = b"From: ann@example.com\r\n\r\nHello\r\n"
ENVELOPE = Envelope("ann@example.com", ["bob@example.org", "carl@example.org"])


def job(envelope: Envelope = ENVELOPE, body: bytes = BODY, **changes) -> Submission:
    plain = Submission(envelope, body, BodyNeeds(), "<1@example.com>", created=1.5, not_before=2.5)
    return plain._replace(**changes)


def stored(journal: bytes = b"", **changes) -> bytes:
    what = job(**changes)
    return encode_header(what, "id-1") + what.body + journal


def with_header(change) -> bytes:
    """Return a file whose header was changed by valid JSON."""
    data = stored()
    fields = json.loads(data.partition(b"\n")[2].partition(b"\n")[0])
    change(fields)
    text = json.dumps(fields).encode()
    return b"SPOOL1 %d\n%b\n" % (len(text), text) + BODY


texts = st.text(max_size=40)
locals_ = st.from_regex(r"[A-Za-zé0-9!#$%&'*+/=?^_`{|}~-]{1,20}", fullmatch=True)
domains = st.sampled_from(("a.example", "bücher.example", "[192.0.2.1]"))
addresses = st.builds(Address, locals_, domains)
wishes = st.none() | st.builds(
    DSN,
    notify=st.none() | st.sampled_from([Notify.NEVER, Notify.SUCCESS, Notify.FAILURE | Notify.DELAY]),
    orcpt=st.none() | addresses | st.just("x400;a b"),
)
recipients = st.lists(
    st.builds(Recipient, addresses, st.sampled_from(Kind), dsn=wishes), min_size=1, max_size=5
)
times = st.floats(0, 2**35)
submissions = st.builds(
    Submission,
    st.builds(Envelope, st.none() | addresses, recipients),
    st.binary(max_size=300),
    st.builds(BodyNeeds, st.booleans(), st.booleans(), st.booleans()),
    st.none() | texts,
    times,
    times,
    st.none() | times,
    st.none() | texts.filter(bool),
    st.none() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
    st.none() | st.from_regex(r"[!-~]{1,64}", fullmatch=True),
    st.none(),
)


@given(submissions, st.sampled_from(State))
def test_a_header_is_read_as_it_was_written(what: Submission, state: State) -> None:
    found = parse(encode_header(what, "id-1") + what.body, state)
    assert found.entry == replace(what.entry("id-1"), state=state)
    assert found.header.needs == what.needs
    assert (found.token, found.ended) == (1, None)


@pytest.mark.parametrize(
    "text",
    ["a..b@docomo.example", ".a@x.org", "ops@mail_host.example", '"a..b"@docomo.example', '"a..b"@mail_host'],
)
def test_addresses_that_no_rfc_allows_are_read_as_they_were_put(text: str) -> None:
    address = Address.parse(text, lenient=True)
    envelope = Envelope(address, [Recipient(address, Kind.CC), Recipient("bob@x", dsn=DSN(orcpt=address))])
    found = parse(stored(envelope=envelope)).entry.envelope
    assert found == envelope
    assert repr(found) == repr(envelope)
    assert found.sender is not None
    assert found.sender.wire(utf8=False) == found.recipients[0].address.wire(utf8=False) == text.encode()


@pytest.mark.parametrize("text", ["a b@x", "a..b@x y", "a@x>", "a..\u200bb@x", "@x_y", "..@x"])
def test_addresses_that_no_command_can_carry_are_refused(text: str) -> None:
    with pytest.raises(RecordInvalid):
        read_header(with_header(lambda fields: fields.update(sender=text)))


@given(submissions)
def test_a_header_is_what_the_json_module_would_write(what: Submission) -> None:
    text = encode_header(what, "id-1").split(b"\n")[1]
    assert text == json.dumps(json.loads(text), separators=(",", ":"), allow_nan=False).encode()


@given(submissions)
def test_a_header_is_one_line_of_ascii(what: Submission) -> None:
    head = encode_header(what, "id-1")
    assert head.isascii()
    assert head.count(b"\n") == 2
    assert b"\r" not in head


def test_a_key_is_not_in_the_file() -> None:
    data = stored(key="order of Mr. Smith")
    assert b"Smith" not in data


@pytest.mark.parametrize("tag", ["", "two words", "é", 7, ["a"]])
def test_a_tag_that_was_not_put_is_refused(tag: object) -> None:
    with pytest.raises(RecordInvalid):
        read_header(with_header(lambda fields: fields.update(tag=tag)))


@given(texts, texts, st.integers(400, 599))
def test_no_text_can_forge_a_record(reason: str, answer: str, code: int) -> None:
    """Neither a newline in a reason or in a server's reply, nor any other character."""
    reply = Reply(code, tuple(answer.encode("utf-8", "backslashreplace").split(b"\n")))
    entry = parse(stored()).entry
    verdicts = tuple(Verdict(one, Outcome.REFUSED, reply) for one in ENVELOPE.recipients)
    results = results_after(entry, Receipt(verdicts), None, 5.0)
    text = result_record(1, 5.0, State.QUEUED, entry, results, reason=reason, not_before=9.0)
    assert text.count(b"\n") == 2
    found = parse(stored(text)).entry
    assert (found.results, found.reason, found.not_before) == (results, reason, 9.0)
    assert (found.attempts, found.recoveries, found.held) == (1, 0, False)


# --- the journal ---


def told(*records: bytes) -> Job:
    return parse(stored(b"".join(records)))


def result(n: int, state: str = "queued", **fields) -> bytes:
    plain: dict = {"not_before": None, "reason": "", "results": {}}
    return journal_record(r="result", n=n, at=1.0, state=state, **{**plain, **fields})


def eod(n: int) -> bytes:
    return journal_record(r="eod", n=n, at=1.0, rcpts=[0])


def test_a_mark_without_a_result_flags_the_job() -> None:
    assert told(eod(1)).entry.flagged
    assert told(eod(1)).token == 2
    assert not told(eod(1), result(1)).entry.flagged
    assert told(eod(1), result(1), eod(2)).entry.flagged


def marked(*records: bytes) -> Job:
    """Return the job of these records, whose first attempt was marked by the store."""
    return replay(read_header(stored()), b"".join(records), State.SENDING, marked=True)


def test_a_mark_of_the_store_flags_the_job_until_the_first_attempt_has_a_result() -> None:
    for record in (b"", journal_record(r="hold", held=True, at=1.0), b"\ntorn"):
        job = marked(record)
        assert job.entry.flagged and job.mark_unrecorded and (job.token, job.ended) == (2, None)
    for record in (b"", journal_record(r="recovered", n=2, at=1.0)):
        job = marked(eod(1), record)
        assert job.entry.flagged and not job.mark_unrecorded
    job = marked(result(1))
    assert not job.entry.flagged and not job.mark_unrecorded and job.ended is State.QUEUED


def test_a_mark_of_the_store_is_later_than_a_requeue_before_it() -> None:
    again = journal_record(r="requeue", not_before=1.0, expires=None, at=1.0)
    entry = marked(again).entry
    assert (entry.flagged, entry.confirmed) == (True, False)


def test_a_record_of_recovery_alone_does_not_stand_for_the_mark() -> None:
    """A power failure may keep the second of two records that were written at once, and lose the first."""
    job = marked(journal_record(r="recovered", n=2, at=1.0))
    assert job.entry.flagged and job.mark_unrecorded


def test_a_released_job_is_as_it_was() -> None:
    untouched = journal_record(r="untouched", n=1, at=1.0)
    assert not told(eod(1), eod(1), untouched).entry.flagged
    dead = journal_record(r="recovered", n=1, at=1.0)
    again = journal_record(r="untouched", n=2, at=1.0)
    assert told(eod(1), dead, eod(2), again).entry.flagged
    # The mark of the second attempt was never written.
    assert told(
        eod(1),
        untouched,
        eod(2),
        journal_record(r="recovered", n=2, at=1.0),
        journal_record(r="untouched", n=3),
    ).entry.flagged


def test_a_flag_stays_whatever_the_result_of_the_next_attempt() -> None:
    unknown = result(1, results={"0": ["unknown", False, 1.0, None, None, "", None]})
    later = result(2, results={"0": ["refused", False, 2.0, 451, None, "later", None]})
    again = journal_record(r="requeue", not_before=1.0, expires=None, at=1.0)
    for records in (
        (unknown,),
        (unknown, eod(2), later),
        (eod(1), journal_record(r="recovered", n=1, at=1.0), eod(2), later),
    ):
        entry = told(*records).entry
        assert (entry.flagged, entry.confirmed) == (True, False)
        entry = told(*records, again).entry
        assert (entry.flagged, entry.confirmed) == (True, True)
        entry = told(*records, again, eod(3), result(3)).entry
        assert (entry.flagged, entry.confirmed) == (True, False)


def test_a_wait_computed_by_a_clock_that_was_ahead_is_over() -> None:
    entry = told(result(1, not_before=61.0)).entry
    assert (entry.due(0.0), entry.due(1e6)) == (61.0, 61.0)
    ahead = journal_record(
        r="result", n=1, at=1e6, state="queued", not_before=1e6 + 60, reason="", results={}
    )
    assert told(ahead).entry.due(1000.0) < 1000.0 and told(ahead).entry.due(1e6) == 1e6 + 60
    named = journal_record(r="requeue", not_before=1e6, expires=None, at=2e6)
    assert told(named).entry.due(1000.0) == 1e6
    now = journal_record(r="requeue", not_before=2e6, expires=None, at=2e6)
    assert told(now).entry.due(1000.0) < 1000.0


def test_a_record_that_was_written_twice_counts_once() -> None:
    assert told(result(1), result(1)).entry.attempts == 1
    assert told(result(1), result(2)).entry.attempts == 2


def test_the_third_death_fails_the_job() -> None:
    deaths = [journal_record(r="recovered", n=n, at=1.0) for n in (1, 2, 3)]
    assert told(*deaths[:2]).ended is State.QUEUED
    poisoned = told(*deaths)
    assert (poisoned.ended, poisoned.entry.reason, poisoned.entry.attempts) == (State.FAILED, "poison", 3)


def test_requeueing_resets_the_attempts_but_not_the_token() -> None:
    refused = {
        "0": ["refused", True, 1.0, 550, "5.1.1", "no", None],
        "1": ["accepted", True, 1.0, 250, None, "", "Q1"],
    }
    failed = result(1, "failed", results=refused)
    assert told(failed).ended is State.FAILED
    assert told(failed).entry.pending == ()
    requeue = journal_record(r="requeue", not_before=7.0, expires=None, at=1.0)
    job = told(failed, requeue)
    assert (job.entry.attempts, job.entry.not_before, job.ended, job.token) == (0, 7.0, State.QUEUED, 2)
    assert [str(one.address) for one in job.entry.pending] == ["bob@example.org"]


def test_record_types_of_a_later_version_are_ignored() -> None:
    assert told(journal_record(r="weather", at=1.0), result(1)).entry.attempts == 1


@given(st.data())
def test_a_torn_record_damages_no_other(data) -> None:
    first, second, third = result(1), journal_record(r="hold", held=True, at=1.0), result(2)
    torn = second[: data.draw(st.integers(0, len(second) - 1))]
    entry = told(first, torn, third).entry
    assert (entry.attempts, entry.held) == (2, len(torn) == len(second) - 1)


def test_a_record_with_a_flipped_bit_is_ignored() -> None:
    record = bytearray(journal_record(r="hold", held=True, at=1.0))
    record[15] ^= 1
    assert not told(bytes(record)).entry.held


# --- invalid files ---


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SPOOL1",
        b"SPOOL1 \n",
        b"SPOOL1 5\n",
        b"SPOOL1 999999999999\n",
        b"SPOOL1 99999999\n" + b"x" * 100,
        b"SPOOL1 2\n{}\n",
        b"SPOOL1 2\n[]\n",
        b"SPOOL1 4\nnull\n",
        b"SPOOL1 2\n{}",
        b"SPOOL1 5\n{}\n{}\n",
        b"From: ann@example.com\r\n\r\n",
        b"\x80\x04\x95pickle",
        b"SPOOL1 100000\n" + b"[" * 100000 + b"\n",
        b"SPOOL1 10002\n1" + b"0" * 10000 + b"1\n",
        stored()[:-1],
        stored()[:-3] + b"x\r\n",
        stored(body=b"\xff" * 10).replace(b"\xff", b"\xfe"),
    ],
)
def test_files_that_are_not_jobs_are_refused(data: bytes) -> None:
    with pytest.raises(RecordInvalid) as caught:
        parse(data)
    assert caught.type is RecordInvalid, (
        "not for a later version of this library, which leaves the file alone"
    )


def test_a_header_with_something_behind_its_object_is_refused() -> None:
    first, header, rest = stored().split(b"\n", 2)
    assert first == b"SPOOL1 %d" % len(header)
    read_header(b"SPOOL1 %d\n%b\n%b" % (len(header), header, rest))
    with pytest.raises(RecordInvalid, match="JSON"):
        read_header(b"SPOOL1 %d\n%b {}\n%b" % (len(header) + 3, header, rest))


@pytest.mark.parametrize("text", ["jörg@example.com", "bob@example.com"])
def test_a_local_part_outside_ascii_is_known_whatever_the_header_needs(text: str) -> None:
    found = parse(stored(envelope=Envelope("ann@example.com", [text]))).entry
    assert found.needs_utf8 is (not text.isascii())


def test_an_unknown_version_is_named() -> None:
    with pytest.raises(RecordNewer, match="version is 2"):
        parse(stored().replace(b"SPOOL1", b"SPOOL2"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "../x"),
        ("id", "a/b"),
        ("id", ".hidden"),
        ("id", ""),
        ("id", "x" * 129),
        ("id", "a\n"),
        ("id", 1),
        ("created", -1),
        ("created", "now"),
        ("created", True),
        ("created", float("nan")),
        ("created", float("inf")),
        ("not_before", 1e300),
        ("sender", "ann@example.com>\r\nRCPT TO:<x@example.org"),
        ("sender", ["ann@example.com"]),
        ("recipients", []),
        ("recipients", ["bob@example.org"]),
        ("recipients", [["bob@example.org", "To", None, None]]),
        ("recipients", [["bob@example.org\r\nDATA", "To"]]),
        ("recipients", [["bob@example.org", "Everyone"]]),
        ("recipients", [["bob@example.org", "To", {"notify": ["NEVER", "DELAY"], "orcpt": None}]]),
        ("recipients", [["bob@example.org", "To", {"notify": ["X"], "orcpt": None}]]),
        ("recipients", [["bob@example.org", "To", {}]]),
        ("recipients", {"a": 1}),
        ("needs", None),
        ("body_len", -1),
        ("body_len", 1.0),
        ("body_len", 2**60),
        ("body_len", True),
        ("sha256", None),
        ("sha256", "0" * 64),
        ("message_id", 7),
    ],
)
def test_an_invalid_header_is_refused(name: str, value) -> None:
    with pytest.raises(RecordInvalid):
        parse(with_header(lambda fields: fields.update({name: value})))


@pytest.mark.parametrize("name", json.loads(encode_header(job(), "x").split(b"\n")[1]))
def test_every_field_of_a_header_is_required(name: str) -> None:
    parse(with_header(lambda fields: fields.update({"of a later day": 1})))
    with pytest.raises(RecordInvalid):
        parse(with_header(lambda fields: fields.pop(name)))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"r": 1},
        {"r": "eod"},
        {"r": "eod", "n": -1},
        {"r": "eod", "n": "1"},
        {"r": "result", "n": 1},
        {"r": "result", "n": 1, "state": "lost", "not_before": None, "reason": "", "results": {}},
        {"r": "result", "n": 1, "state": "sent", "not_before": "x", "reason": "", "results": {}},
        {"r": "result", "n": 1, "state": "sent", "not_before": None, "reason": 1, "results": {}},
        {"r": "result", "n": 1, "state": "sent", "not_before": None, "reason": "", "results": []},
        {"r": "result", "n": 1, "state": "sent", "not_before": None, "reason": "", "results": {"x": []}},
        {"r": "result", "n": 1, "state": "sent", "not_before": None, "reason": "", "results": {"0": []}},
        {
            "r": "result",
            "n": 1,
            "state": "sent",
            "not_before": None,
            "reason": "",
            "results": {"9": ["accepted", True, 1.0, None, None, "", None]},
        },
        {
            "r": "result",
            "n": 1,
            "state": "sent",
            "not_before": None,
            "reason": "",
            "results": {"-1": ["accepted", True, 1.0, None, None, "", None]},
        },
        {"r": "hold", "held": "yes"},
        {"r": "requeue", "not_before": None, "expires": None},
    ],
)
def test_a_complete_record_with_invalid_fields_is_refused(fields) -> None:
    with pytest.raises(RecordInvalid):
        told(journal_record(**fields))


@given(st.binary(max_size=400))
@example(b"SPOOL1 1\n1\n")
def test_any_bytes_are_a_job_or_refused(data: bytes) -> None:
    try:
        found = parse(data)
    except RecordInvalid:
        return
    assert data.startswith(b"SPOOL") and found.entry.envelope.recipients


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8), st.booleans())
def test_any_damage_is_detected_or_harmless(place: int, damage: bytes, insert: bool) -> None:
    data = stored(eod(1) + result(1))
    place %= len(data)
    damaged = data[:place] + damage + data[place + (0 if insert else len(damage)) :]
    try:
        found = parse(damaged)
    except RecordInvalid:
        return
    assert damaged[found.header.body_at : found.header.journal_at] == BODY


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(
    ["r", "n", "at", "state", "not_before", "reason", "results", "held", "expires", "rcpts", "counts"]
)
kinds = st.sampled_from(["eod", "result", "recovered", "untouched", "hold", "requeue"])


@given(kinds, st.dictionaries(names, json_values, max_size=8), st.booleans())
def test_any_journal_is_read_or_refused(kind: str, fields: dict, marked: bool) -> None:
    text = json.dumps({**fields, "r": kind}).encode()
    journal = b"\n%08x %b\n" % (zlib.crc32(text), text)
    try:
        replay(read_header(stored()), journal, State.QUEUED, marked=marked)
    except RecordInvalid:
        pass


@given(
    st.dictionaries(st.sampled_from(list(json.loads(encode_header(job(), "x").split(b"\n")[1]))), json_values)
)
def test_any_header_is_read_or_refused(changes: dict) -> None:
    try:
        parse(with_header(lambda fields: fields.update(changes)))
    except RecordInvalid:
        pass


# --- traces --------------------------------------------------------------------------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_span_that_put_a_job_is_kept() -> None:
    assert parse(stored(trace=TRACE)).entry.trace == TRACE
    # Without telemetry a file is what it was before there was any.
    assert b"trace" not in stored() and parse(stored()).entry.trace is None


@pytest.mark.parametrize("trace", [None, 7, "", "00-x", TRACE.upper(), TRACE + "\n", "x" * 5000, [TRACE]])
def test_a_trace_that_is_none_does_not_keep_a_job_from_being_sent(trace: Any) -> None:
    job = parse(with_header(lambda fields: fields.update(trace=trace)))
    assert job.entry.trace is None and job.entry.id == "id-1"
