"""What hooks are told of a body on its way: the slices of the message, and those of each of its attachments.

Strategy. A body leaves in order, so its parts are told apart by counting: a content says where in its segments a
named part stands, and what is read while it is sent is named by its source. Nothing of this is made unless somebody
listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from .content import Content, Named, Source
from .events import EndTransfer, Event, StartTransfer, Transfer

__all__ = ["TRANSFERS", "Transfers"]

#: Those who want one of these listen to a body.
TRANSFERS: Final = (StartTransfer, Transfer, EndTransfer)

#: What the whole is called.
_MESSAGE: Final = "message"


class _Span(NamedTuple):
    """A stretch of content; what has no name is told of as a part of the message only."""

    name: str
    #: Octets, None if nobody knows.
    size: int | None
    source: Source | None


class Transfers:
    """The events of one body, in order.

    Args:
        content: what is sent.
        session, job: the numbers that the events bear.
        wants: would anybody be told of such an event? Others are not made.
        parts: tell of attachments, too; not for somebody who begins to listen in the middle.
    """

    __slots__ = ("_begun", "_job", "_sent", "_session", "_size", "_span", "_spans", "_wants")

    def __init__(
        self,
        content: Content,
        session: int,
        job: int | None,
        *,
        wants: Callable[[type[Event]], bool] = lambda event: True,
        parts: bool = True,
    ) -> None:
        self._session = session
        self._job = job
        self._wants = wants
        self._size = content.size
        self._spans: Iterator[_Span] = _spans(content) if parts else iter(())
        self._span = next(self._spans, None)
        # Of the span: octets so far, and whether its beginning was told.
        self._sent = 0
        self._begun = False

    def start(self) -> Iterator[Event]:
        """The message begins."""
        return self._edge(StartTransfer, _MESSAGE)

    def passed(self, data: bytes, source: Source | None, sent: int) -> Iterator[Event]:
        """Octets have left.

        Args:
            data: the slice.
            source: where it came from, None if it was in memory.
            sent: how many have left of the whole message.
        """
        yield from self._slice(_MESSAGE, sent, self._size, data)
        count = len(data)
        while count and self._span is not None:
            if self._span.source is source:
                here = count if source is not None else min(count, (self._span.size or 0) - self._sent)
                yield from self._advance(here)
                count -= here
            else:
                # Nothing comes from there any more, or nothing ever came.
                yield from self._leave()

    def end(self) -> Iterator[Event]:
        """Everything has left; the end of the message itself is told where its last octet is written."""
        while self._span is not None:
            yield from self._leave()

    def _advance(self, count: int) -> Iterator[Event]:
        span = self._span
        assert span is not None
        yield from self._begin()
        self._sent += count
        if span.name and count:
            yield from self._slice(span.name, self._sent, span.size, b"")
        if self._sent == span.size:
            yield from self._leave()

    def _begin(self) -> Iterator[Event]:
        if not self._begun and self._span is not None and self._span.name:
            yield from self._edge(StartTransfer, self._span.name)
        self._begun = True

    def _leave(self) -> Iterator[Event]:
        yield from self._begin()
        if self._span is not None and self._span.name:
            yield from self._edge(EndTransfer, self._span.name)
        self._span, self._sent, self._begun = next(self._spans, None), 0, False

    def _edge(self, event: type[StartTransfer | EndTransfer], part: str) -> Iterator[Event]:
        if self._wants(event):
            yield event(session=self._session, job=self._job, part=part)

    def _slice(self, part: str, sent: int, total: int | None, data: bytes) -> Iterator[Event]:
        if self._wants(Transfer):
            yield Transfer(
                session=self._session,
                job=self._job,
                part=part,
                sent=sent,
                total=total,
                percent=-1 if not total else min(100, sent * 100 // total),
                data=data,
            )


def _spans(content: Content) -> Iterator[_Span]:
    """Return the content in stretches that belong together."""
    for place, segment in enumerate(content.segments):
        if isinstance(segment, bytes):
            named = [one for one in content.named if one.segment == place]
            yield from _in_memory(len(segment), named)
        else:
            yield _Span(segment.name, segment.size, segment)


def _in_memory(size: int, named: list[Named]) -> Iterator[_Span]:
    at = 0
    for one in named:
        if one.start > at:
            yield _Span("", one.start - at, None)
        yield _Span(one.name, one.end - one.start, None)
        at = one.end
    if size > at:
        yield _Span("", size - at, None)
