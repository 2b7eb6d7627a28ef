"""Faults by click: what the server does wrong on purpose, so that a program's handling of errors can be tried."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from ...errors import InvalidArgument
from ...model.reply import printable
from ...testing.script import Action, Rule, close, default, delay, reply
from ...testing.server import ScriptedServer

__all__ = ["STAGES", "Fault", "FaultKind", "Faults"]


class FaultKind(Enum):
    """What goes wrong."""

    REFUSE = "refuse"
    DEFER = "defer"
    DELAY = "delay"
    DROP = "drop"


#: Stage → the point of the script, and the default replies that refuse and that defer there.
STAGES: Final[dict[str, tuple[str, tuple[int, str], tuple[int, str]]]] = {
    "connect": ("GREETING", (554, "5.3.2 No service for you"), (421, "4.3.2 Too busy, try again later")),
    "auth": ("AUTH", (535, "5.7.8 Credentials refused"), (454, "4.7.0 Temporary authentication failure")),
    "sender": ("MAIL", (550, "5.7.1 Sender refused"), (451, "4.7.1 Sender deferred, try again later")),
    "recipient": ("RCPT", (550, "5.1.1 No such user"), (450, "4.2.1 Mailbox busy, try again later")),
    "data": ("DATA", (554, "5.6.0 No message wanted"), (451, "4.3.0 Try again later")),
    "message": (".", (554, "5.7.1 Message refused as spam"), (452, "4.3.1 Out of storage")),
}
_MOST_SECONDS: Final = 3600.0
_TEXT: Final = re.compile(r"[\x20-\x7e]{1,400}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: what goes wrong.
        stage: where: a key of `STAGES`.
        match: only where this text stands in the command, in upper or lower case; empty for each.
        times: only so many times; None until it is removed.
        code: the code of the reply; None for the usual one. For refuse and defer.
        text: the text of the reply; empty for the usual one. For refuse and defer.
        seconds: how long the reply takes. For delay.

    Raises:
        InvalidArgument: a value is none of these.
    """

    kind: FaultKind
    stage: str
    match: str = ""
    times: int | None = None
    code: int | None = None
    text: str = ""
    seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise InvalidArgument(f"stage is one of {', '.join(STAGES)}, not {self.stage!r}")
        if self.times is not None and not 1 <= self.times <= 1_000_000:
            raise InvalidArgument("times is a number from 1 on, or null")
        hundred = {FaultKind.REFUSE: 5, FaultKind.DEFER: 4}.get(self.kind)
        if hundred and self.code is not None and self.code // 100 != hundred:
            raise InvalidArgument(f"the code of {self.kind.value} is from {hundred}00 to {hundred}99")
        if self.text and not _TEXT.fullmatch(self.text):
            raise InvalidArgument("text is one line of ASCII, 400 characters at most")
        if not 0 <= self.seconds <= _MOST_SECONDS:
            raise InvalidArgument(f"seconds is a number from 0 to {_MOST_SECONDS:.0f}")
        if len(self.match) > 200:
            raise InvalidArgument("match has 200 characters at most")

    @classmethod
    def from_json(cls, given: Any) -> Fault:
        """Return the fault that a JSON object describes.

        Raises:
            InvalidArgument: the object describes none.
        """
        kinds: dict[str, tuple[type, ...]] = {
            "kind": (str,), "stage": (str,), "match": (str,), "times": (int, type(None)),
            "code": (int, type(None)), "text": (str,), "seconds": (int, float),
        }  # fmt: skip
        if not isinstance(given, dict) or not {"kind", "stage"} <= set(given) <= set(kinds):
            raise InvalidArgument(
                f"a fault is an object with kind, stage and perhaps {', '.join([*kinds][2:])}"
            )
        for name, value in given.items():
            if not isinstance(value, kinds[name]) or isinstance(value, bool):
                raise InvalidArgument(f"{name} is not {printable(repr(value), 40)}")
        try:
            kind = FaultKind(given["kind"])
        except ValueError:
            names = ", ".join(one.value for one in FaultKind)
            raise InvalidArgument(f"kind is one of {names}, not {given['kind']!r}") from None
        return cls(**{**given, "kind": kind})

    @property
    def reply(self) -> tuple[int, str]:
        """The reply that refuses or defers."""
        _, refuses, defers = STAGES[self.stage]
        code, text = refuses if self.kind is FaultKind.REFUSE else defers
        return self.code or code, self.text or text

    def actions(self) -> tuple[Action, ...]:
        """Return what the server does."""
        if self.kind is FaultKind.DROP:
            return (close(),)
        if self.kind is FaultKind.DELAY:
            return (delay(self.seconds), default())
        # After a greeting that refuses, or a 421, a server hangs up.
        over = self.stage == "connect" or self.reply[0] == 421
        return (reply(*self.reply), close()) if over else (reply(*self.reply),)


class Faults:
    """The faults of a server, by number.

    Args:
        server: has the script.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._rules: dict[int, tuple[Fault, Rule]] = {}

    def add(self, fault: Fault) -> int:
        """Let something go wrong from now on, before all that was added earlier; return its number."""
        rule = self._server.on(
            STAGES[fault.stage][0],
            *fault.actions(),
            match=re.escape(fault.match) if fault.match else None,
            nth=None if fault.times is None else range(1, fault.times + 1),
            optional=True,
        )
        number = next(self._numbers)
        self._rules[number] = (fault, rule)
        return number

    def remove(self, number: int) -> None:
        """Let it go right again.

        Raises:
            InvalidArgument: there is no such fault.
        """
        if number not in self._rules:
            raise InvalidArgument(f"there is no fault {number}")
        self._server.off(self._rules.pop(number)[1])

    def clear(self) -> None:
        """Let everything go right again."""
        for number in [*self._rules]:
            self.remove(number)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the faults, the newest first, and how often each has happened."""
        return [_as_json(number, *self._rules[number]) for number in reversed(self._rules)]


def _as_json(number: int, fault: Fault, rule: Rule) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": number,
        "kind": fault.kind.value,
        "stage": fault.stage,
        "match": fault.match,
        "times": fault.times,
        "happened": rule.fired,
    }
    if fault.kind in (FaultKind.REFUSE, FaultKind.DEFER):
        code, text = fault.reply
        found |= {"code": code, "text": text}
    elif fault.kind is FaultKind.DELAY:
        found["seconds"] = fault.seconds
    return found
