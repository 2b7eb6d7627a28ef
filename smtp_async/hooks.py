"""Hooks: registered observers, how events reach them, and what keeps a hook from doing harm.

Hooks observe and never steer. They run inline and in order, in the session's own task, so a slow hook slows its
session. A hook that raises is logged and breaks nothing. A hook that calls the client that it observes would wait for
itself: a context variable shows that the call comes from a hook, and the call raises `Busy`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeVar, overload

from .errors import Busy
from .events import Direction, EndTransfer, Event, PITrail, StartTransfer, Transfer
from .model.content import Content
from .model.reply import Reply, printable
from .protocol.line_recorder import RecordedLine
from .protocol.states import Verb
from .protocol.transaction import Transaction

__all__ = ["Hook", "Hooks", "Observed", "attached_events", "trail_events"]

#: A hook: async or plain, called with the event.
Hook = Callable[[Any], Awaitable[None] | None]
_E = TypeVar("_E", bound=Event)
_R = TypeVar("_R", bound=Awaitable[None] | None)

_log = logging.getLogger("smtp_async")

#: The hooks that run in this context, and the task that runs them. The task counts, because a task that a hook starts
#: inherits the context but may use the client.
_dispatching: ContextVar[tuple[Hooks, asyncio.Task[object] | None] | None] = ContextVar(
    "smtp_async_dispatching", default=None
)


class Hooks:
    """The hooks of one client."""

    __slots__ = ("_by_event", "active")

    def __init__(self) -> None:
        self._by_event: dict[type[Event], list[Hook]] = {}
        #: Whether any hook is registered; without hooks, an event costs this one test.
        self.active = False

    def add(self, event: type[Event], hook: Hook) -> None:
        """Call `hook` for every `event`; `Event` itself stands for all events."""
        if not (isinstance(event, type) and issubclass(event, Event)):
            raise TypeError(f"not an event class: {event!r}")
        self._by_event.setdefault(event, []).append(hook)
        self.active = True

    def remove(self, event: type[Event], hook: Hook) -> None:
        """Remove a hook.

        Raises:
            ValueError: the hook is not registered for this event.
        """
        hooks = self._by_event.get(event, [])
        hooks.remove(hook)
        if not hooks:
            del self._by_event[event]
        self.active = bool(self._by_event)

    def wants(self, event: type[Event]) -> bool:
        """Return whether a hook is registered for `event`."""
        return self.active and (event in self._by_event or Event in self._by_event)

    async def tell(self, events: Iterable[Event]) -> None:
        """Call the hooks of each event, one after the other."""
        token = _dispatching.set((self, asyncio.current_task()))
        try:
            for event in events:
                for hook in (*self._by_event.get(type(event), ()), *self._by_event.get(Event, ())):
                    await _call(hook, event)
        finally:
            _dispatching.reset(token)

    def refuse_reentry(self) -> None:
        """Raise if one of these hooks is calling.

        Raises:
            Busy: a hook called the client that it observes.
        """
        if self.active and _dispatching.get() == (self, asyncio.current_task()):
            raise Busy(
                "a hook cannot use the client that it observes: start a task of its own, or another client"
            )


class Observed:
    """An object that publishes events to hooks: a client or a queue processor."""

    def __init__(self) -> None:
        self._hooks: Final = Hooks()

    @overload
    def on(self, event: type[_E]) -> Callable[[Callable[[_E], _R]], Callable[[_E], _R]]: ...

    @overload
    def on(self, event: type[_E], hook: Callable[[_E], _R]) -> Callable[[_E], _R]: ...

    def on(self, event: type[Event], hook: Hook | None = None) -> Any:
        """Call `hook` for every `event`; without a hook, return a decorator. `Event` stands for all events.

        Hooks may be async or plain. They run inline: a slow hook slows the session, or the job, of its event. A hook
        that raises is logged. A hook cannot use the client that it observes.
        """
        if hook is not None:
            self._hooks.add(event, hook)
            return hook

        def register(hook: Hook) -> Hook:
            self._hooks.add(event, hook)
            return hook

        return register

    def off(self, event: type[Event], hook: Hook) -> None:
        """Remove `hook` from `event`.

        Raises:
            ValueError: the hook is not registered for this event.
        """
        self._hooks.remove(event, hook)


async def _call(hook: Hook, event: Event) -> None:
    try:
        result = hook(event)
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # This task was not cancelled: what the hook waited for was.
        _log.exception("a hook for %s raised", type(event).__name__)
    except Exception:
        # Only the class of the event is logged, because its fields may be long.
        _log.exception("a hook for %s raised", type(event).__name__)


def trail_events(line: RecordedLine, session: int) -> Iterator[Event]:
    """Return the events of one line of the dialogue: a command, an end of data or a reply."""
    transaction = line.transaction
    job = getattr(transaction.owner, "number", None) if transaction is not None else None
    if line.reply is not None:
        yield from _reply_events(line, line.reply, session, job)
        return
    if line.verb in (Verb.END_OF_DATA, Verb.BDAT_LAST) and transaction is not None:
        yield from _body_events(transaction, session, job)
    text = line.line.decode("utf-8", "backslashreplace")
    yield PITrail(
        session=session,
        job=job,
        direction=Direction.CLIENT,
        message=text,
        command=line.verb.value,
        size=_body_size(line.verb, transaction),
    )


def _body_size(verb: Verb, transaction: Transaction | None) -> int | None:
    if verb is not Verb.END_OF_DATA or transaction is None:
        return None
    if not transaction.accepted:
        # A lone dot behind a 354 that came although every recipient was refused.
        return 0
    return transaction.streamed if transaction.payload is None else transaction.content.size


def _reply_events(line: RecordedLine, reply: Reply, session: int, job: int | None) -> Iterator[Event]:
    last = len(reply.lines) - 1
    for index, text in enumerate(reply.lines):
        yield PITrail(
            session=session,
            job=job,
            direction=Direction.SERVER,
            message=printable(f"{reply.code}{'-' if index < last else ' '}{text}"),
            command=line.verb.value,
            reply=reply if index == last else None,
        )


def _body_events(transaction: Transaction, session: int, job: int | None) -> Iterator[Event]:
    """Return the events of a whole body. The upload of a large body has published its slices before.

    A message that is a header without a text has no events.
    """
    if transaction.payload is not None:
        data = transaction.content.join()
        if data.find(b"\r\n\r\n") + 4 == len(data):
            return
        yield StartTransfer(session=session, job=job)
        yield Transfer(session=session, job=job, sent=len(data), total=len(data), percent=100, data=data)
        yield from attached_events(transaction.content, 0, len(data), session, job)
    yield EndTransfer(session=session, job=job)


def attached_events(
    content: Content, start: int, end: int, session: int, job: int | None
) -> Iterator[StartTransfer | Transfer | EndTransfer]:
    """Return the events of attachments in memory for the octets `start` to `end` of the message, which have left."""
    for name, first, last in content.attached:
        # An attachment is always followed by a boundary, so an empty attachment begins within a slice, too.
        begins = start <= first < end
        if begins:
            yield StartTransfer(session=session, job=job, part=name)
        sent, total = min(end, last) - first, last - first
        if max(start, first) < min(end, last):
            yield Transfer(
                session=session, job=job, part=name, sent=sent, total=total, percent=sent * 100 // total
            )
        if (start < last <= end) if last > first else begins:
            yield EndTransfer(session=session, job=job, part=name)
