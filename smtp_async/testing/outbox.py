"""`Outbox`: the messages that an application has sent, for the assertions of its tests.

async def test_welcome_mail(client, outbox):
    await register("ann@example.org", client)
    message = outbox.one(to="ann@example.org", subject="Welcome")
    assert "Hello Ann" in message.text
    assert message.links == ["https://example.com/confirm/1"]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..model.address import Address
from .records import ReceivedMessage

__all__ = ["Outbox"]

#: The most messages that an error lists.
_LISTED: Final = 20


class Outbox:
    """The messages that a server has accepted, in order.

    Args:
        messages: where the server records them.
    """

    def __init__(self, messages: list[ReceivedMessage]) -> None:
        self._messages = messages

    def one(
        self,
        *,
        to: str | Address | None = None,
        subject: str | re.Pattern[str] | None = None,
        sender: str | Address | None = None,
    ) -> ReceivedMessage:
        """Return the only message that meets all conditions; without one, the only message.

        Args:
            to: one of the recipients of the envelope, in upper or lower case.
            subject: the whole subject, or a pattern that is found in it.
            sender: the sender of the envelope.

        Raises:
            AssertionError: there is none, or more than one; the text lists the messages that are there.
        """
        found = self.all(to=to, subject=subject, sender=sender)
        if len(found) == 1:
            return found[0]
        wanted = [
            f"to {to}" if to is not None else "",
            f"from {sender}" if sender is not None else "",
            f"with the subject {_shown(subject)}" if subject is not None else "",
        ]
        what = " ".join([f"{len(found) or 'no'} message{'s' * (len(found) > 1)}", *filter(None, wanted)])
        raise AssertionError(f"{what}{' in place of one' if found else ''}; {self!r}")

    def all(
        self,
        *,
        to: str | Address | None = None,
        subject: str | re.Pattern[str] | None = None,
        sender: str | Address | None = None,
    ) -> list[ReceivedMessage]:
        """Return all messages that meet the conditions, which are those of `one`."""
        return [
            one
            for one in self._messages
            if (to is None or str(to).lower() in map(str.lower, one.rcpt_tos))
            and (sender is None or str(sender).lower() == one.mail_from.lower())
            and (subject is None or _is_subject(one.subject, subject))
        ]

    def clear(self) -> None:
        """Forget all messages."""
        self._messages.clear()

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[ReceivedMessage]:
        return iter([*self._messages])

    def __getitem__(self, number: int) -> ReceivedMessage:
        return self._messages[number]

    def __repr__(self) -> str:
        messages = [*self._messages]
        if not messages:
            return "the outbox is empty"
        lines = [f"  to {', '.join(one.rcpt_tos)}: {one.subject!r}" for one in messages[:_LISTED]]
        more = [f"  and {len(messages) - _LISTED} more"] if len(messages) > _LISTED else []
        count = f"{len(messages)} message{'s' * (len(messages) > 1)}"
        return "\n".join([f"the outbox has {count}:", *lines, *more])


def _is_subject(subject: str, wanted: str | re.Pattern[str]) -> bool:
    return subject == wanted if isinstance(wanted, str) else wanted.search(subject) is not None


def _shown(subject: str | re.Pattern[str]) -> str:
    return repr(subject if isinstance(subject, str) else subject.pattern)
