"""Closing the sources of a mail that is not sent."""

from __future__ import annotations

from ..model.content import Content, Mail, Source
from .body import Body

__all__ = ["UnsentSources"]


class UnsentSources:
    """The sources to close of a mail that is not sent and whose sources were not opened.

    Args:
        mail: attachments with `close` name the streams to close; a mail that keeps a stream in another way has `close`
            and `aclose`. None if there is only content.
        content: the rendered content, if there is any.
    """

    def __init__(self, mail: Mail | None, content: Content | None = None) -> None:
        self._mail = mail if content is None else None
        self._body = Body(Content(_closable(mail), size=0) if content is None else content)

    def close(self) -> None:
        """Close all sources that can be closed without waiting."""
        close = getattr(self._mail, "close", None)
        if close is not None:
            close()
        self._body.close()

    async def aclose(self) -> None:
        """Close all sources, also those that have to be awaited."""
        aclose = getattr(self._mail, "aclose", None)
        if aclose is not None:
            await aclose()
        await self._body.aclose()


def _closable(mail: Mail | None) -> list[Source]:
    return [
        Source(one.source, close=True)
        for one in getattr(mail, "attachments", ())
        if getattr(one, "close", None) is True and not isinstance(one.source, bytes)
    ]
