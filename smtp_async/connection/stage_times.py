"""How long each stage of an opening took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["STAGES", "StageTimes"]

#: The stages, in their order with STARTTLS; with implicit TLS, TLS comes before the greeting. The second EHLO, and the
#: third after a login, count with the first.
STAGES: Final = ("DNS", "TCP", "proxy", "greeting", "EHLO", "TLS", "AUTH")


class StageTimes:
    """The seconds that each stage has taken.

    Args:
        clock: returns seconds.

    Attributes:
        seconds: by stage, in the order in which the stages were first passed.
    """

    __slots__ = ("_clock", "_since", "seconds")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self.seconds: dict[str, float] = {}

    def passed(self, stage: str) -> None:
        """Count the time since the last call for `stage`; an empty one counts for none."""
        now = self._clock()
        if stage:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now
