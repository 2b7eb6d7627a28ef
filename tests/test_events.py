"""events.py: values that name their session and their message."""

import dataclasses
import pickle

import pytest

from smtp_async import events
from smtp_async.errors import SMTPError
from smtp_async.events import (
    Abandoned,
    BeforeAuth,
    ConnectionKind,
    ConnectionStatus,
    Direction,
    EndTransfer,
    Error,
    Event,
    Expand,
    JobDeferred,
    JobFailed,
    JobQueued,
    JobSent,
    JobStarted,
    JobUnreadable,
    Notification,
    PITrail,
    QueuePaused,
    QueueResumed,
    SSLStatus,
    StartTransfer,
    Transfer,
)
from smtp_async.model.address import Address
from smtp_async.model.envelope import Recipient
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply

RECEIPT = Receipt((Verdict(Recipient("b@example.org"), Outcome.ACCEPTED, Reply(250)),))
EVENTS = [
    ConnectionStatus(session=1, kind=ConnectionKind.CONNECTED),
    PITrail(session=1, job=2, direction=Direction.CLIENT, message="NOOP", command="NOOP"),
    SSLStatus(session=1, message="handshake"),
    StartTransfer(session=1, job=2),
    Transfer(session=1, job=2, sent=5, total=10, percent=50, data=b"s3cret"),
    EndTransfer(session=1, job=2),
    BeforeAuth(session=1, host="mx.test", mechanism="PLAIN", username="ann", offered=("PLAIN", "LOGIN")),
    Error(session=1, job=2, code=161, description="550 no", recipient=Recipient("b@example.org")),
    Notification(session=1, name="step"),
    Expand(session=1, address=Address("ann", "example.com")),
    Abandoned(session=1, job=2, receipt=RECEIPT),
    JobQueued(id="a"),
    JobStarted(id="a", attempt=1, recipients=(Recipient("b@example.org"),)),
    JobSent(id="a", receipt=RECEIPT),
    JobDeferred(id="a", receipt=RECEIPT, not_before=1.0, reason="450 later"),
    JobFailed(id="a", receipt=None, reason="unknown"),
    JobUnreadable(id="a", reason="its version is 2", kept=True),
    QueuePaused(error=SMTPError("cannot connect"), until=5.0),
    QueueResumed(),
]


def test_every_public_event_is_tried_here():
    classes = {getattr(events, name) for name in events.__all__}
    assert {cls for cls in classes if issubclass(cls, Event)} == {Event, *map(type, EVENTS)}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_a_value(event):
    assert pickle.loads(pickle.dumps(event)) == event
    assert dataclasses.replace(event) == event
    assert dataclasses.replace(event, session=9) != event
    assert not hasattr(event, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.session = 9


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_made_by_names_only(event):
    with pytest.raises(TypeError):
        type(event)(1)


def test_an_event_belongs_to_no_session_by_default():
    event = Notification(name="step")
    assert (event.session, event.job, event.parameter) == (0, None, "")


def test_the_bytes_of_a_transfer_are_not_shown():
    assert "s3cret" not in repr(EVENTS[4])
    event = Transfer(sent=0)
    assert (event.total, event.percent, event.data, event.direction) == (None, -1, b"", Direction.CLIENT)


def test_numbers_are_those_of_the_components():
    kinds = ["PROXY_UP", "TLS_UP", "CONNECTED", "DISCONNECTED", "TLS_BROKEN", "PROXY_DOWN"]
    assert [(kind.name, kind.value) for kind in ConnectionKind] == [(name, n) for n, name in enumerate(kinds)]
    assert [(one.name, one.value) for one in Direction] == [("CLIENT", 0), ("SERVER", 1), ("INFO", 2)]
