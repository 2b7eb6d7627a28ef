"""receipt.py: what became of a message and of each recipient, derived and never contradictory."""

import copy
import itertools
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import ConnectionLost, MessageRefused, NotSent, OutcomeUnknown, SMTPError
from smtp_async.model.envelope import Recipient
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply

SINGLE = [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT, Outcome.UNKNOWN]
ANN = Recipient("ann@example.org")


def verdict(outcome, code=None, text="x"):
    return Verdict(ANN, outcome, None if code is None else Reply(code, (text.encode(),)))


def receipt(*outcomes, **details):
    return Receipt(tuple(verdict(outcome) for outcome in outcomes), **details)


def rule(outcomes):
    """The rule in words: unknown wins; then accepted, for all or for some; then refused; else not sent."""
    if Outcome.UNKNOWN in outcomes:
        return Outcome.UNKNOWN
    if outcomes and all(one is Outcome.ACCEPTED for one in outcomes):
        return Outcome.ACCEPTED
    if Outcome.ACCEPTED in outcomes:
        return Outcome.PARTIAL
    return Outcome.REFUSED if Outcome.REFUSED in outcomes else Outcome.NOT_SENT


@pytest.mark.parametrize("count", range(5))
def test_the_outcome_follows_from_the_verdicts(count):
    for outcomes in itertools.product(SINGLE, repeat=count):
        whole = receipt(*outcomes)
        assert whole.outcome is rule(outcomes)
        groups = [whole.accepted, whole.refused, whole.unknown, whole.not_sent]
        expected = [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN, Outcome.NOT_SENT]
        for group, outcome in zip(groups, expected, strict=True):
            assert group == tuple(one for one in whole.verdicts if one.outcome is outcome)
        assert sum(map(len, groups)) == count


@pytest.mark.parametrize(
    ("one", "accepted", "temporary"),
    [
        (verdict(Outcome.ACCEPTED, 250), True, False),
        (verdict(Outcome.REFUSED, 450), False, True),
        (verdict(Outcome.REFUSED, 550), False, False),
        (verdict(Outcome.REFUSED), False, False),
        (verdict(Outcome.NOT_SENT), False, True),
        (verdict(Outcome.NOT_SENT, 250), False, True),
        (verdict(Outcome.UNKNOWN), False, False),
        (verdict(Outcome.UNKNOWN, 250), False, False),
    ],
)
def test_a_verdict_tells_whether_to_try_again(one, accepted, temporary):
    assert (one.accepted, one.temporary) == (accepted, temporary)


@pytest.mark.parametrize(
    ("verdicts", "temporary"),
    [
        ([], False),
        ([verdict(Outcome.REFUSED, 550)], False),
        ([verdict(Outcome.REFUSED, 550), verdict(Outcome.REFUSED, 450)], True),
        ([verdict(Outcome.NOT_SENT)], True),
        ([verdict(Outcome.ACCEPTED, 250), verdict(Outcome.REFUSED, 450)], False),
        ([verdict(Outcome.UNKNOWN), verdict(Outcome.REFUSED, 450)], False),
    ],
)
def test_a_receipt_is_temporary_if_all_of_it_may_be_sent_again(verdicts, temporary):
    assert Receipt(tuple(verdicts)).temporary is temporary


# --- queue ids ---

WORD = st.text("ABCDEFabcdef0123456789", min_size=6, max_size=14)


def queue_id(text, outcome=Outcome.ACCEPTED, code=250):
    return verdict(outcome, code, text).queue_id


@given(WORD)
def test_postfix_names_its_queue_file(name):
    assert queue_id(f"2.0.0 Ok: queued as {name}") == name
    assert queue_id(f"2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as {name}") == name
    assert queue_id(f"2.0.0 {name} Message accepted for delivery, queued as {name}.") == name


@given(WORD, WORD, st.integers(0, 99))
def test_exim_names_its_message(first, second, number):
    assert queue_id(f"OK id={first}-{second}-{number:02}") == f"{first}-{second}-{number:02}"


@given(st.integers(1, 2**31), st.integers(1, 99999))
def test_qmail_names_its_process(now, process):
    assert queue_id(f"ok {now} qp {process}") == str(process)


@given(st.integers(1, 2**31), WORD, st.integers(1, 10**9))
def test_gmail_names_its_session(now, name, number):
    token = f"{name}-{number}.12"
    assert queue_id(f"2.0.0 OK  {now} {token} - gsmtp") == token


@given(WORD)
def test_exchange_names_the_message(name):
    place = "[InternalId=17596481560629, Hostname=AM6PR05MB5159.eurprd05.prod.outlook.com]"
    text = f"2.6.0 <{name}@example.com> {place} 9283 bytes in 0.130, 69.544 KB/sec Queued mail for delivery"
    assert queue_id(text) == f"{name}@example.com"


@pytest.mark.parametrize(
    "text",
    [
        "2.0.0 Ok",
        "",
        "queued",
        "queued as ",
        "valid=yes",
        "InternalId=5",
        "ok 1 qp x",
        "<a> accepted",
        "- gsmtp",
    ],
)
def test_other_texts_name_nothing(text):
    assert queue_id(text) is None


def test_only_an_accepted_message_has_a_queue_id():
    text = "Ok: queued as 4ABC"
    assert queue_id(text) == "4ABC"
    assert queue_id(text, Outcome.REFUSED, 550) is None
    assert queue_id(text, Outcome.UNKNOWN) is None
    assert verdict(Outcome.ACCEPTED).queue_id is None


@given(st.text(max_size=200))
def test_any_text_may_be_asked(text):
    found = queue_id(text.replace("\udc00", ""))
    assert found is None or (found and found in text)


@pytest.mark.parametrize("unit", ["a", "a.", "<", "<a", "<a>", "id=", "queued as ", "a - gsm ", "-", "qp 1"])
def test_the_search_is_linear(unit):
    line = (unit * 2040)[:2040].encode()
    hostile = Verdict(ANN, Outcome.ACCEPTED, Reply(250, (line,) * 31))
    began = time.process_time()
    assert hostile.queue_id is None or unit in {"id=", "queued as ", "qp 1"}
    assert time.process_time() - began < 1.5


# --- raising ---


@pytest.mark.parametrize("outcomes", [[Outcome.ACCEPTED], [Outcome.ACCEPTED, Outcome.REFUSED]])
def test_what_was_accepted_for_anybody_raises_nothing(outcomes):
    accepted = receipt(*outcomes)
    accepted.raise_for_outcome()
    assert accepted.outcome in (Outcome.ACCEPTED, Outcome.PARTIAL) and accepted.error is None


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome.REFUSED, MessageRefused("refused", reply=Reply(550))),
        (Outcome.NOT_SENT, ConnectionLost("lost")),
        (Outcome.UNKNOWN, OutcomeUnknown("unknown")),
    ],
)
def test_the_error_is_raised_with_the_receipt(outcome, error):
    whole = receipt(outcome, error=error)
    with pytest.raises(type(error)) as caught:
        whole.raise_for_outcome()
    assert caught.value is not error
    assert caught.value.receipt is whole
    assert (error.receipt, error.__traceback__) == (None, None)
    assert str(caught.value) == str(error)


def test_two_receipts_of_one_failure_raise_their_own():
    error = ConnectionLost("lost")
    receipts = [receipt(Outcome.NOT_SENT, error=error, message_id=name) for name in "ab"]
    for whole in receipts:
        with pytest.raises(ConnectionLost) as caught:
            whole.raise_for_outcome()
        assert caught.value.receipt is whole


def test_without_an_error_it_was_not_sent():
    with pytest.raises(NotSent) as caught:
        receipt(Outcome.NOT_SENT).raise_for_outcome()
    assert caught.value.receipt is not None


def test_the_receipt_of_an_error_is_found():
    receipt = Receipt((Verdict(Recipient("a@b"), Outcome.NOT_SENT),))
    assert Receipt.of(NotSent("late", receipt=receipt)) is receipt
    assert Receipt.of(NotSent("late")) is None


def test_a_raised_error_pickles_with_its_receipt():
    whole = receipt(Outcome.UNKNOWN, error=OutcomeUnknown("unknown"), message_id="<1@example.com>")
    with pytest.raises(SMTPError) as caught:
        whole.raise_for_outcome()
    twin = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(twin, OutcomeUnknown)
    assert twin.receipt is not None
    assert twin.receipt.message_id == "<1@example.com>"
    assert twin.receipt.outcome is Outcome.UNKNOWN


@given(st.lists(st.sampled_from(SINGLE), max_size=4), st.integers(0, 10**9))
def test_receipts_pickle_and_copy(outcomes, octets):
    whole = receipt(*outcomes, reply=Reply(250, (b"\xff",)), message_id="<1@example.com>", bytes_sent=octets)
    for twin in (pickle.loads(pickle.dumps(whole)), copy.copy(whole), copy.deepcopy(whole)):
        assert twin == whole
        assert twin.outcome is whole.outcome


def test_a_receipt_pickles_with_its_error():
    whole = receipt(Outcome.REFUSED, error=MessageRefused("no", reply=Reply(550, (b"no",)), stage="DATA"))
    twin = pickle.loads(pickle.dumps(whole))
    assert twin.verdicts == whole.verdicts
    assert (type(twin.error), twin.error.reply, twin.error.stage) == (
        MessageRefused,
        Reply(550, (b"no",)),
        "DATA",
    )
