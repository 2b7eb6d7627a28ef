"""Requests for delivery status notifications, RFC 3461.

Values only. `protocol/parameters` writes them as parameters of MAIL and RCPT, only if the server offers DSN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Final, Self

from ..errors import InvalidArgument
from .address import Address

__all__ = ["DSN", "Notify", "Return"]

# RFC 3461 section 4.2: addr-type ";" xtext, here not yet encoded. A mailbox cannot begin like this.
_TYPED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,39};[ -~]+")
# The parameters as users write them; older components had a blank in place of "=".
_WRITTEN: Final = re.compile(r"(NOTIFY|ORCPT)[ =] ?([!-~]+)(?: +|\Z)", re.IGNORECASE)


class Notify(Flag):
    """When to report to the sender, RFC 3461 section 4.1; `NEVER` cannot be combined."""

    NEVER = auto()
    SUCCESS = auto()
    FAILURE = auto()
    DELAY = auto()


class Return(Enum):
    """How much of the message a report of failure contains, RFC 3461 section 4.3."""

    FULL = "FULL"
    HDRS = "HDRS"


@dataclass(frozen=True, slots=True, kw_only=True)
class DSN:
    """The reports to request for a recipient. Immutable, so that many recipients may share an object.

    Attributes:
        notify: when to report; None: the servers decide, which report failures and perhaps delays.
        orcpt: the original recipient, for the report. A text is parsed as an address; a text `type;address` is a
            recipient of another kind, for example `x400;…`.

    Raises:
        InvalidArgument: `NEVER` combined with others, or a value of another type.
        InvalidAddress: `orcpt` is not one mailbox.
    """

    notify: Notify | None = None
    orcpt: str | Address | None = None

    def __post_init__(self) -> None:
        if self.notify is not None:
            _check_notify(self.notify)
        if isinstance(self.orcpt, str) and _TYPED.fullmatch(self.orcpt):
            return
        if self.orcpt is not None:
            # Nothing is sent to this address, so the lenient syntax is accepted.
            object.__setattr__(self, "orcpt", Address.parse(self.orcpt, lenient=True))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `NOTIFY=SUCCESS,FAILURE ORCPT=ann@example.com`, in any order; a blank may replace the `=`.

        The value of `ORCPT` is not encoded.

        Raises:
            InvalidArgument: the text has another form.
        """
        found: dict[str, str] = {}
        position = 0
        while position < len(text):
            match = _WRITTEN.match(text, position)
            if match is None or match[1].lower() in found:
                raise InvalidArgument("a recipient can have NOTIFY=… and ORCPT=…, each once")
            found[match[1].lower()] = match[2]
            position = match.end()
        notify = _read_notify(found["notify"]) if "notify" in found else None
        return cls(notify=notify, orcpt=found.get("orcpt"))


def _check_notify(notify: Notify) -> None:
    if not isinstance(notify, Notify) or not notify:
        raise InvalidArgument(f"notify is a combination of Notify members, not {notify!r}")
    if notify & Notify.NEVER and notify is not Notify.NEVER:
        raise InvalidArgument("Notify.NEVER cannot be combined with others (RFC 3461 section 4.1)")


def _read_notify(text: str) -> Notify:
    result = Notify(0)
    for word in text.upper().split(","):
        if word not in Notify.__members__:
            raise InvalidArgument(f"not NEVER, SUCCESS, FAILURE or DELAY: {word[:20]!r}")
        result |= Notify[word]
    return result
