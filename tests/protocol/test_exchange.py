"""exchange.py: the FIFO of owed replies."""

import pytest

from smtp_async.protocol.exchange import LIMITS, Exchange, OwedReplies
from smtp_async.protocol.states import Verb
from tests.protocol.talk import Talk


def owing(*verbs: Verb) -> OwedReplies:
    owed = OwedReplies()
    owed.entries.extend((verb, Exchange(verb)) for verb in verbs)
    owed.answerable = len(verbs)
    return owed


def test_nothing_is_expected_while_no_reply_is_owed() -> None:
    owed = owing()
    assert (owed.expected, owed.body_open, owed.answerable) == (None, False, 0)


def test_replies_answer_commands_in_their_order() -> None:
    owed = owing(Verb.NOOP, Verb.RSET)
    assert [owed.take()[0], owed.take()[0]] == [Verb.NOOP, Verb.RSET]
    assert owed.answerable == 0


@pytest.mark.parametrize("verb", list(Verb))
def test_every_reply_has_a_time_limit(verb: Verb) -> None:
    assert owing(verb).expected in LIMITS


def test_an_entry_that_is_kept_is_owed_one_more_reply() -> None:
    transaction = Talk.ready().plan()
    owed = OwedReplies()
    owed.entries.append((Verb.END_OF_DATA, transaction))
    owed.answerable = 1
    owed.put_back(*owed.take())  # type: ignore[arg-type]  # it is a transaction's
    assert (list(owed.entries), owed.answerable) == ([(Verb.END_OF_DATA, transaction)], 1)


def test_a_body_is_open_until_its_end_is_written() -> None:
    transaction = Talk.ready().plan()
    owed = OwedReplies()
    owed.entries.append((Verb.END_OF_DATA, transaction))
    assert (owed.body_open, owed.expected) == (True, "block")
    transaction.ended = True
    assert (owed.body_open, owed.expected) == (False, "end_of_data")


def test_forgetting_returns_the_transactions_in_order() -> None:
    talk = Talk.ready()
    first, second = talk.plan(), talk.plan()
    owed = owing(Verb.NOOP)
    owed.entries.extend([(Verb.MAIL, first), (Verb.RCPT, first), (Verb.MAIL, second)])
    assert owed.forget() == [first, first, second]
    assert (len(owed.entries), owed.answerable) == (0, 0)
