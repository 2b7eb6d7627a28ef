"""Sends a caught message on to a real server."""

from __future__ import annotations

from typing import Any

from ...client.client import SMTPClient
from ...errors import SMTPError
from ...model.envelope import NOBODY
from ...model.receipt import Receipt
from ...model.reply import printable
from ...protocol.options import SendOptions
from .app import Relay
from .mailbox import Caught

__all__ = ["relay_to"]


def relay_to(client: SMTPClient) -> Relay:
    """Return what sends messages on through a client."""

    async def relay(message: Caught, people: list[str]) -> list[dict[str, Any]]:
        received = message.received
        recipients = people or received.rcpt_tos
        try:
            receipt = await client.send_raw(
                received.data,
                sender=received.mail_from,
                recipients=recipients,
                options=SendOptions(must_accept=NOBODY),
            )
        except SMTPError as error:
            found = Receipt.of(error)
            if found is None or not found.verdicts:
                raise
            receipt = found
        return [
            {
                "address": printable(str(verdict.recipient.address), 400),
                "outcome": verdict.outcome.value,
                "reply": printable(str(verdict.reply or receipt.error or "")),
            }
            for verdict in receipt.verdicts
        ]

    return relay
