"""The caught messages: the newest first, searched by words, and kept in a folder where that is wanted."""

from __future__ import annotations

import re
import shlex
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any, Final, NamedTuple

from ...errors import InvalidArgument
from ...model.reply import printable
from ...testing.records import ReceivedMessage
from .parts import ReadMessage
from .server import DialogueLine

__all__ = ["Caught", "Keeper", "Mailbox"]

#: Characters of the texts of a message in which words are found.
MOST_SEARCHED: Final = 100_000
_PREVIEW: Final = 160
_TAGS: Final = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)


class Caught:
    """A caught message, and what a list shows of it.

    Args:
        id: its name.
        at: when it came, in seconds of the epoch.
        received: the message.
        dialogue: how it came.

    Attributes:
        subject, sender, to: header fields.
        preview: the beginning of its text.
        attachments: how many files it has besides those inside the HTML.
    """

    __slots__ = (
        "_searched", "at", "attachments", "dialogue", "id", "preview", "received", "sender", "subject", "to",
    )  # fmt: skip

    def __init__(self, id: str, at: float, received: ReceivedMessage, dialogue: list[DialogueLine]) -> None:
        self.id = id
        self.at = at
        self.received = received
        self.dialogue = dialogue
        read = ReadMessage(received.data)
        self.subject = read.field("Subject")
        self.sender = read.field("From") or printable(received.mail_from)
        self.to = read.field("To") or printable(", ".join(received.rcpt_tos))
        self.attachments = sum(not part.inline for part in read.files)
        text = read.text or unescape(_TAGS.sub(" ", read.html or ""))
        self.preview = printable(" ".join(text[: 8 * _PREVIEW].split()), _PREVIEW)
        names = " ".join(part.filename for part in read.files)
        people = f"{self.to} {read.field('Cc')} {' '.join(received.rcpt_tos)}"
        self._searched = {
            "from": f"{self.sender} {received.mail_from}".lower(),
            "to": people.lower(),
            "subject": self.subject.lower(),
            "": f"{names} {text[:MOST_SEARCHED]}".lower(),
        }

    def matches(self, field: str, word: str) -> bool:
        """Return whether a word, in lower case, is found in a field; in any if the field is empty."""
        if field == "has":
            return word == "attachment" and self.attachments > 0
        if field:
            return word in self._searched[field]
        return any(word in text for text in self._searched.values())

    def summary(self) -> dict[str, Any]:
        """Return what a list shows, for JSON."""
        return {
            "id": self.id,
            "at": round(self.at, 3),
            "from": self.sender,
            "to": self.to,
            "recipients": [printable(one, 320) for one in self.received.rcpt_tos],
            "subject": self.subject,
            "preview": self.preview,
            "size": len(self.received.data),
            "attachments": self.attachments,
        }


class Keeper(NamedTuple):
    """What keeps messages beyond the run.

    Attributes:
        save: called with each message before it is accepted.
        forget: called with the id of each message that is deleted.
    """

    save: Callable[[Caught], None]
    forget: Callable[[str], None]


class Mailbox:
    """The caught messages.

    Args:
        most: how many are held; the oldest are deleted for new ones.
        keeper: keeps them beyond the run; None if nothing does.
        changed: called after each change.
    """

    def __init__(
        self, *, most: int, keeper: Keeper | None = None, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._most: Final = most
        self._keeper = keeper
        self._changed = changed
        self._messages: OrderedDict[str, Caught] = OrderedDict()
        self._last = 0

    def __len__(self) -> int:
        return len(self._messages)

    def restore(self, messages: Iterator[Caught]) -> None:
        """Take messages of earlier runs, the oldest first."""
        for message in messages:
            self._messages[message.id] = message
            self._last = max(self._last, int(message.id, 16))
        self._drop_oldest()

    def deliver(self, received: ReceivedMessage, dialogue: list[DialogueLine]) -> None:
        """Take a message that is being accepted."""
        # Ids are times, and therefore in order, also those of a later run.
        self._last = max(self._last + 1, time.time_ns() // 1000)
        message = Caught(f"{self._last:014x}", time.time(), received, dialogue)
        if self._keeper is not None:
            self._keeper.save(message)
        self._messages[message.id] = message
        self._drop_oldest()
        self._changed()

    def _drop_oldest(self) -> None:
        while len(self._messages) > self._most:
            self._forget(next(iter(self._messages)))

    def _forget(self, id: str) -> None:
        del self._messages[id]
        if self._keeper is not None:
            self._keeper.forget(id)

    def get(self, id: str) -> Caught | None:
        """Return a message, the newest for `latest`; None if there is none of this id."""
        if id == "latest":
            return next(reversed(self._messages.values()), None)
        return self._messages.get(id)

    def search(self, query: str) -> list[Caught]:
        """Return the messages in which each word of a query is found, the newest first.

        Args:
            query: words, or several in quotes; `from:`, `to:` and `subject:` before a word look there only, and
                `has:attachment` finds messages with files.

        Raises:
            InvalidArgument: a quote is not closed.
        """
        words = _words(query)
        newest_first = reversed(self._messages.values())
        return [one for one in newest_first if all(one.matches(field, word) for field, word in words)]

    def remove(self, ids: list[str]) -> int:
        """Delete messages; return how many there were."""
        found = [id for id in ids if id in self._messages]
        for id in found:
            self._forget(id)
        if found:
            self._changed()
        return len(found)


def _words(query: str) -> list[tuple[str, str]]:
    try:
        # An apostrophe is part of a word.
        lexer = shlex.shlex(query.lower(), posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.quotes, lexer.escape, lexer.commenters = True, '"', "", ""
        words = [*lexer]
    except ValueError:
        raise InvalidArgument("a quotation mark of the search is not closed") from None
    found = []
    for word in words:
        field, colon, rest = word.partition(":")
        known = colon and rest and field in ("from", "to", "subject", "has")
        found.append((field, rest) if known else ("", word))
    return found
