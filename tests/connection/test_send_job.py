"""One message between its caller and a connection: prepared, moved on, settled."""

import asyncio
from typing import Any

import pytest

from smtp_async import Extensions, Message, Outcome, Receipt, SendOptions, Verdict
from smtp_async.connection.send_job import CallerStep, SendJob
from smtp_async.errors import (
    ConnectionLost,
    ExtensionMissing,
    MessageTooLarge,
    NotSent,
    OutcomeUnknown,
    SMTPError,
    Timeout,
)
from tests.lab import mail

ALL = Extensions({"PIPELINING": "", "8BITMIME": "", "SMTPUTF8": "", "SIZE": "100000"})
NONE = Extensions()


def job(message: Message | None = None, **options: Any) -> SendJob:
    return SendJob(7, message or mail(1, text="Grüße"), SendOptions(**options))


def prepared(offer: Extensions, message: Message | None = None, **options: Any) -> SendJob:
    one = job(message, **options)
    one.server_offer = offer
    one.prepare()
    return one


def test_a_job_waits_unplanned_until_the_offer_of_the_server_is_known() -> None:
    one = job()
    assert one.prepare() and one.transaction is None


def test_a_job_is_prepared_for_what_the_server_offers() -> None:
    modern, old = prepared(ALL).transaction, prepared(NONE).transaction
    assert modern is not None and old is not None
    assert b"BODY=8BITMIME" in modern.mail and b"SIZE=" in modern.mail
    assert old.mail == b"MAIL FROM:<ann@example.com>\r\n"
    assert old.payload is not None and old.payload.isascii()
    assert modern.owner is not None and modern.extensions is ALL


@pytest.mark.parametrize(
    ("message", "offer", "kind"),
    [
        (mail(1, text="x" * 100), Extensions({"SIZE": "10"}), MessageTooLarge),
        (mail(1, to="grüße@example.org"), NONE, ExtensionMissing),
    ],
)
def test_a_faulty_message_is_refused_at_preparation_with_a_receipt(
    message: Message, offer: Extensions, kind: type[SMTPError]
) -> None:
    with pytest.raises(kind) as caught:
        prepared(offer, message)
    assert caught.value.receipt is not None
    assert caught.value.receipt.outcome is Outcome.NOT_SENT
    assert isinstance(caught.value.receipt.error, kind)
    assert caught.value.receipt.error is not caught.value


def test_the_body_of_a_gated_message_waits_for_its_caller() -> None:
    async def gate() -> None: ...

    transaction = prepared(ALL, before_end_of_data=gate).transaction
    assert transaction is not None
    assert transaction.caller_paced
    assert transaction.payload is not None


def test_an_unsent_receipt_has_a_verdict_for_each_recipient() -> None:
    one = job(mail(1, to=["a@x.test", "b@x.test"]))
    error = NotSent("no")
    error.receipt = one.not_sent_receipt(NotSent("earlier"))
    receipt = one.not_sent_receipt(error)
    assert [verdict.outcome for verdict in receipt.verdicts] == [Outcome.NOT_SENT] * 2
    assert receipt.error is not error and receipt.error is not None
    assert receipt.error.receipt is None


async def test_a_step_reaches_a_caller_only_while_it_waits() -> None:
    one = prepared(ALL)
    one.advance(CallerStep.WRITE)
    one.waiter = asyncio.get_running_loop().create_future()
    one.advance(CallerStep.WRITE)
    one.advance(CallerStep.DONE)
    assert await one.waiter is CallerStep.WRITE
    one.waiter = asyncio.get_running_loop().create_future()
    receipt = Receipt((Verdict(one.envelope.recipients[0], Outcome.ACCEPTED),))
    one.settle(receipt)
    assert await one.waiter is CallerStep.DONE
    assert one.receipt is receipt and one.connection is None


async def test_a_step_for_a_cancelled_caller_is_dropped() -> None:
    one = prepared(ALL)
    one.waiter = asyncio.get_running_loop().create_future()
    one.waiter.cancel()
    one.advance(CallerStep.DONE)
    assert one.waiter.cancelled()


@pytest.mark.parametrize(
    ("unsent", "outcome", "kind"),
    [(True, Outcome.NOT_SENT, NotSent), (False, Outcome.UNKNOWN, OutcomeUnknown)],
)
async def test_a_caller_whose_time_is_over_gets_a_receipt(
    unsent: bool, outcome: Outcome, kind: type[SMTPError]
) -> None:
    one = prepared(ALL)
    one.waiter = asyncio.get_running_loop().create_future()
    one.time_out(unsent=unsent, reason=None)
    assert await one.waiter is CallerStep.DONE
    assert one.receipt is not None and one.receipt.outcome is outcome
    assert isinstance(one.receipt.error, kind)
    assert isinstance(one.receipt.error.__cause__, Timeout) and one.receipt.error.__cause__.stage == "queue"


def test_a_late_receipt_does_not_replace_the_answer_of_the_caller() -> None:
    one = prepared(ALL)
    one.time_out(unsent=True, reason=None)
    answer = one.receipt
    one.end(one.not_sent_receipt(ConnectionLost("the connection ended later")))
    assert one.receipt is answer


def test_the_outage_is_the_reason_where_no_connection_could_be_had() -> None:
    one, outage = job(), ConnectionLost("refused")
    one.time_out(unsent=True, reason=outage)
    assert one.receipt is not None and one.connect_error is outage
    assert isinstance(one.receipt.error, ConnectionLost)


def test_a_cancelled_caller_gets_the_receipt_that_there_is() -> None:
    one = prepared(ALL)
    assert one.cancelled_receipt(unsent=True).outcome is Outcome.NOT_SENT
    assert one.cancelled_receipt(unsent=False).outcome is Outcome.UNKNOWN
    receipt = Receipt((Verdict(one.envelope.recipients[0], Outcome.ACCEPTED),))
    one.settle(receipt)
    assert one.cancelled_receipt(unsent=False) is receipt
