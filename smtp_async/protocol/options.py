"""How one message is sent: the caller's wishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..address import EVERYONE, Kind

__all__ = ["SendOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How one message is sent.

    Attributes:
        must_accept: kinds of recipients of whom a single refusal refuses the message for all. `EVERYONE` and
            `NOBODY` are the extremes; when every recipient is refused nothing is sent in any case.
        split: spread the recipients over several transactions where the server takes fewer at once (RFC 9422
            LIMITS, or 452 to a RCPT). `must_accept` holds for the first of them; later refusals are PARTIAL.
        before_end_of_data: awaited before the end of data may leave; if it raises, the message is not sent.
    """

    must_accept: frozenset[Kind] = EVERYONE - {Kind.BCC}
    split: bool = True
    before_end_of_data: Callable[[], Awaitable[None]] | None = None
