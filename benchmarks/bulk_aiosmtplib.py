"""The rival of `bulk.py`: `EmailMessage` for each reader, sent by `send_message` on one client per connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from typing import Any

# Run as a script in the rival's own environment, which has neither this project nor its tools.
from personal import SENDER, Personal, letters  # type: ignore[import-not-found]
from rival_aiosmtplib import Rival  # type: ignore[import-not-found]
from sender import serve  # type: ignore[import-not-found]


class Bulk(Rival):  # type: ignore[misc]
    """Builds and sends; every client takes the next letter when it is free."""

    async def send(self, count: int) -> dict[str, Any]:
        """Send all, whoever is free takes the next."""
        source = letters(count)
        await asyncio.gather(*[self._some(client, source) for client in self._clients])
        size = len(_message(next(letters(1))).as_bytes(policy=SMTP))
        return {"octets": size}

    async def _some(self, client: Any, source: Iterator[Personal]) -> None:
        for letter in source:
            await client.send_message(_message(letter))


def _message(letter: Personal) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, letter.to, letter.subject
    message["Date"] = format_datetime(localtime())
    # With a domain: without one it asks the resolver for the machine's name.
    message["Message-ID"] = make_msgid(domain="example.com")
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    return message


if __name__ == "__main__":
    serve(Bulk)
