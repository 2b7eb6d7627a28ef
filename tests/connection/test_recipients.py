"""recipients.py: groups of recipients, one transaction each, and one receipt about all of them."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import NOBODY, Extensions, Outcome, Receipt, Recipient, SendOptions
from smtp_async.connection.recipients import RecipientGroups, first_group_size
from smtp_async.errors import ConnectionLost, NotSent, RecipientsRefused, TooManyRecipients
from smtp_async.model.content import Content
from smtp_async.model.envelope import Envelope
from smtp_async.model.reply import Reply
from smtp_async.protocol.plan import plan
from smtp_async.protocol.transaction import Transaction

OK = Reply(250, (b"2.1.5 Ok",))
TOO_MANY = Reply(452, (b"4.5.3 too many recipients",))
REFUSED = Reply(550, (b"5.1.1 no such user",))
CONTENT = Content.of_bytes(b"Subject: x\r\n\r\nx\r\n")


def groups_of(count: int) -> RecipientGroups:
    return RecipientGroups(Envelope("ann@example.com", [f"user{n}@example.org" for n in range(count)]))


def present(groups: RecipientGroups) -> list[int]:
    """The numbers of the recipients in the present group."""
    return [int(str(one.address)[4:].split("@")[0]) for one in groups.present_envelope().recipients]


def ended(groups: RecipientGroups, *answers: Reply) -> tuple[Transaction, Receipt]:
    """The present group's transaction, with these answers to RCPT; accepted if any recipient was."""
    transaction = plan(groups.present_envelope(), CONTENT, Extensions(), SendOptions(must_accept=NOBODY))
    transaction.answers = list(answers)
    transaction.accepted = sum(answer.positive for answer in answers)
    transaction.bytes_sent = 100
    if transaction.accepted:
        transaction.final = [OK]
    transaction.conclude(per_recipient=False)
    assert transaction.receipt is not None
    return transaction, transaction.receipt


def outcomes(receipt: Receipt) -> list[Outcome]:
    return [verdict.outcome for verdict in receipt.verdicts]


class TestFirstGroup:
    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            ({}, 6),
            ({"RCPTMAX": 4}, 4),
            ({"RCPTMAX": 100}, 6),
            ({"RCPTDOMAINMAX": 1}, 2),
            ({"RCPTDOMAINMAX": 2}, 4),
            ({"RCPTDOMAINMAX": 3}, 6),
            ({"RCPTMAX": 3, "RCPTDOMAINMAX": 2}, 3),
            ({"RCPTMAX": 5, "RCPTDOMAINMAX": 2}, 4),
            ({"RCPTMAX": 1}, 1),
            ({"MAILMAX": 1}, 6),
        ],
    )
    def test_the_first_group_is_as_large_as_the_limits_allow(
        self, limits: dict[str, int], expected: int
    ) -> None:
        texts = ["a@one.test", "b@ONE.test", "a@two.test", "b@one.test", "a@three.test", "a@two.test"]
        assert first_group_size([Recipient(text) for text in texts], limits) == expected

    def test_the_first_group_is_never_empty(self) -> None:
        assert first_group_size([Recipient("a@one.test")], {"RCPTMAX": 0, "RCPTDOMAINMAX": 0}) == 1


class TestChoosing:
    def test_without_limits_the_first_group_is_all_recipients(self) -> None:
        groups = groups_of(3)
        assert groups.present_envelope() is groups.envelope
        groups.choose({}, split=True)
        assert groups.present_envelope() is groups.envelope and not groups.left

    def test_a_limit_leaves_the_others_for_later(self) -> None:
        groups = groups_of(5)
        groups.choose({"RCPTMAX": 2}, split=True)
        assert present(groups) == [0, 1]
        assert list(groups.left) == [2, 3, 4]

    def test_a_limit_that_may_not_split_the_message_is_an_error(self) -> None:
        groups = groups_of(5)
        with pytest.raises(TooManyRecipients, match="takes 2 recipients .* it has 5"):
            groups.choose({"RCPTMAX": 2}, split=False)
        groups.choose({"RCPTMAX": 5}, split=False)
        assert present(groups) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("limits", "expected"), [({}, [0, 1, 2, 3, 4]), ({"RCPTMAX": 3}, [0, 1, 2]), ({"RCPTMAX": 1}, [0])]
    )
    def test_another_server_has_the_group_chosen_anew(
        self, limits: Mapping[str, int], expected: list[int]
    ) -> None:
        groups = groups_of(5)
        groups.choose({"RCPTMAX": 2}, split=True)
        groups.choose(limits, split=True)
        assert present(groups) == expected


class TestConcluding:
    def test_nothing_follows_a_transaction_with_all_recipients(self) -> None:
        groups = groups_of(2)
        transaction, receipt = ended(groups, OK, REFUSED)
        assert not groups.conclude(transaction, receipt)
        assert groups.merged(receipt) is receipt
        assert groups.concluded is None

    def test_recipients_that_were_too_many_are_sent_to_later(self) -> None:
        groups = groups_of(4)
        transaction, receipt = ended(groups, OK, TOO_MANY, REFUSED, TOO_MANY)
        assert groups.conclude(transaction, receipt)
        groups.choose({}, split=True)
        assert present(groups) == [1, 3]
        last, receipt = ended(groups, OK, OK)
        assert not groups.conclude(last, receipt)
        merged = groups.merged(receipt)
        assert outcomes(merged) == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.REFUSED, Outcome.ACCEPTED]
        assert merged.reply == REFUSED and merged.error is None
        assert merged.bytes_sent == 200

    def test_nothing_follows_where_no_recipient_was_accepted(self) -> None:
        groups = groups_of(4)
        groups.choose({"RCPTMAX": 2}, split=True)
        transaction, receipt = ended(groups, REFUSED, REFUSED)
        assert not groups.conclude(transaction, receipt)
        merged = groups.merged(receipt)
        assert outcomes(merged) == [Outcome.REFUSED] * 2 + [Outcome.NOT_SENT] * 2
        assert isinstance(merged.error, RecipientsRefused)

    def test_recipients_whose_transaction_cannot_be_planned_are_not_sent_and_octets_count_once(self) -> None:
        for chosen in (False, True):
            groups = groups_of(3)
            transaction, receipt = ended(groups, OK, TOO_MANY, TOO_MANY)
            assert groups.conclude(transaction, receipt)
            if chosen:
                groups.choose({"RCPTMAX": 1}, split=True)
                groups.postpone()
            merged = groups.merged(receipt)
            assert outcomes(merged) == [Outcome.ACCEPTED, Outcome.NOT_SENT, Outcome.NOT_SENT]
            assert merged.error is None and merged.bytes_sent == 100

    def test_a_group_without_a_receipt_of_its_own_has_one_outcome(self) -> None:
        groups = groups_of(4)
        groups.choose({"RCPTMAX": 2}, split=True)
        assert groups.conclude(*ended(groups, OK, OK))
        groups.choose({"RCPTMAX": 1}, split=True)
        lost = groups.receipt(Outcome.UNKNOWN, ConnectionLost("lost"), None)
        assert outcomes(lost) == [Outcome.ACCEPTED] * 2 + [Outcome.UNKNOWN, Outcome.NOT_SENT]
        assert isinstance(lost.error, ConnectionLost), "with an unknown outcome the reason is told"
        unsent = groups.receipt(Outcome.NOT_SENT, NotSent("no"), None)
        assert outcomes(unsent) == [Outcome.ACCEPTED] * 2 + [Outcome.NOT_SENT] * 2
        assert unsent.error is None, "accepted for some recipients"


LIMITS: list[dict[str, int]] = [{}, {"RCPTMAX": 1}, {"RCPTMAX": 3}, {"RCPTDOMAINMAX": 1}]


@given(count=st.integers(1, 8), data=st.data())
def test_every_recipient_has_one_verdict_and_is_accepted_at_most_once(
    count: int, data: st.DataObject
) -> None:
    groups = groups_of(count)
    accepted: list[int] = []
    following = True
    while following:
        groups.choose(data.draw(st.sampled_from(LIMITS)), split=True)
        numbers = present(groups)
        answers = [data.draw(st.sampled_from([OK, TOO_MANY, REFUSED])) for _ in numbers]
        accepted += [n for n, answer in zip(numbers, answers, strict=True) if answer.positive]
        transaction, receipt = ended(groups, *answers)
        # Each transaction that is followed by another has accepted a recipient: the loop ends.
        following = groups.conclude(transaction, receipt)
    merged = groups.merged(receipt)
    assert [verdict.recipient for verdict in merged.verdicts] == list(groups.envelope.recipients)
    assert len(accepted) == len(set(accepted))
    told = [at for at, verdict in enumerate(merged.verdicts) if verdict.outcome is Outcome.ACCEPTED]
    assert told == sorted(accepted)
