"""books.py: the books detect what they are made for, because a check that cannot fail proves nothing."""

import logging

import pytest

from smtp_async import Outcome, Receipt, Recipient
from smtp_async.errors import AuthenticationFailed
from smtp_async.model.address import Address
from smtp_async.model.receipt import Verdict
from tests.connection.test_login import CANARY
from tests.torture.books import Accepted, Books, Letter, shown


def said(made: Letter, outcome: Outcome) -> Receipt:
    return Receipt(tuple(Verdict(Recipient(Address.parse(one)), outcome) for one in made.recipients))


def taken(made: Letter, *recipients: str, digest: str = "") -> Accepted:
    return Accepted(made.sender, recipients or made.recipients, digest or made.digest)


def books(outcome: Outcome | None, **options: int) -> tuple[Books, Letter]:
    kept = Books()
    made = kept.new(**options)
    kept.tell(made, None if outcome is None else said(made, outcome))
    return kept, made


@pytest.mark.parametrize(
    ("outcome", "copies"),
    [
        (Outcome.ACCEPTED, 1),
        (Outcome.NOT_SENT, 0),
        (Outcome.REFUSED, 0),
        (Outcome.UNKNOWN, 0),
        (Outcome.UNKNOWN, 1),
        (None, 0),
        (None, 1),
    ],
)
def test_right_books_agree(outcome: Outcome | None, copies: int) -> None:
    kept, made = books(outcome, recipients=2)
    kept.check([taken(made)] * copies)


@pytest.mark.parametrize(
    ("outcome", "copies"),
    [
        (Outcome.ACCEPTED, 0),
        (Outcome.ACCEPTED, 2),
        (Outcome.NOT_SENT, 1),
        (Outcome.REFUSED, 1),
        (Outcome.UNKNOWN, 2),
        (None, 2),
    ],
)
def test_a_wrong_outcome_is_found(outcome: Outcome | None, copies: int) -> None:
    kept, made = books(outcome)
    with pytest.raises(AssertionError, match="copies"):
        kept.check([taken(made)] * copies)


def test_a_changed_content_is_found() -> None:
    kept, made = books(Outcome.ACCEPTED)
    with pytest.raises(AssertionError, match="changed"):
        kept.check([taken(made, digest="0" * 64)])


def test_a_recipient_that_is_not_of_the_envelope_is_found() -> None:
    kept, made = books(Outcome.ACCEPTED)
    with pytest.raises(AssertionError, match="went to"):
        kept.check([taken(made, *made.recipients, "evil@lab.test")])


def test_a_message_of_which_one_recipient_is_missing_is_found() -> None:
    kept, made = books(Outcome.ACCEPTED, recipients=2)
    with pytest.raises(AssertionError, match="0 copies"):
        kept.check([taken(made, made.recipients[0])])


def test_a_message_that_no_caller_sent_is_found() -> None:
    kept, made = books(Outcome.ACCEPTED)
    with pytest.raises(AssertionError, match="nobody sent"):
        kept.check([taken(made), Accepted("x@lab.test", ("y@lab.test",), made.digest)])


class TestSpool:
    def test_an_acknowledged_message_that_is_lost_is_found(self) -> None:
        kept, made = books(None)
        kept.queued.add(made.name)
        with pytest.raises(AssertionError, match="lost"):
            kept.check([])

    def test_a_second_copy_has_to_be_announced(self) -> None:
        kept, made = books(None)
        kept.queued.add(made.name)
        with pytest.raises(AssertionError, match="unannounced"):
            kept.check([taken(made)] * 2)
        kept.flagged[made.name] += 1
        kept.check([taken(made)] * 2)


def test_a_secret_in_an_error_is_found() -> None:
    kept, _ = books(None)
    kept.errors.append(AuthenticationFailed(f"the password {CANARY} is wrong", stage="AUTH"))
    with shown(set()) as log, pytest.raises(AssertionError):
        log.check(kept)


def test_a_secret_in_a_log_is_found() -> None:
    kept, _ = books(None)
    with shown(set()) as log:
        logging.getLogger("smtp_async.connection").debug("password %s", CANARY)
        with pytest.raises(AssertionError):
            log.check(kept)
