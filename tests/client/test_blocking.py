"""blocking.py: one message from a script."""

import pytest

from smtp_async import ClientOptions, Outcome, SMTPError, send_blocking
from smtp_async.errors import UsageError
from smtp_async.testing import RecordingSink, ServerThread
from tests.lab import mail


def test_a_script_sends_one_message() -> None:
    with ServerThread(RecordingSink()) as sink:
        receipt = send_blocking(mail(), url=sink.url, options=ClientOptions(hello="script.test"))
        assert receipt.outcome is Outcome.ACCEPTED
        assert [m.subject for m in sink.messages] == ["message 1"]
        assert sink.commands[-1].verb == "QUIT"


async def test_send_blocking_refuses_inside_a_running_loop() -> None:
    with pytest.raises(UsageError, match="await smtp_async.send"):
        send_blocking(mail(), url="smtp+plain://localhost")


def test_send_blocking_raises_what_a_client_raises() -> None:
    with pytest.raises(SMTPError) as caught:
        send_blocking(mail(), url="smtp+plain://127.0.0.1:1")
    assert caught.value.__context__ is None
    assert caught.value.receipt is not None
    assert caught.value.receipt.outcome is Outcome.NOT_SENT
