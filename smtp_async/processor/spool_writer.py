"""Changes to the spool that must be made: repeated until they succeed.

After a message may have been sent, only this process ends its lease. While the spool fails, the message is not sent
again, and every other message waits.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..errors import LeaseLost, SpoolError
from .breakers import Breakers
from .control import RunControl
from .schedule import RetryPolicy, pause_length

__all__ = ["SpoolWriter"]

_log = logging.getLogger("smtp_async")


class SpoolWriter:
    """Makes changes to the spool, and repeats them if they fail.

    Args:
        breakers: receive whether the spool can be written.
        control: ends the repetition with its grace.
        retry: the pauses between two attempts.
        chance: draws a random number from 0 to 1.
    """

    def __init__(
        self, breakers: Breakers, control: RunControl, retry: RetryPolicy, chance: Callable[[], float]
    ) -> None:
        self._breakers: Final = breakers
        self._control: Final = control
        self._retry: Final = retry
        self._chance: Final = chance

    async def persist(self, change: Callable[[], Awaitable[None]], *, proves: bool = True) -> bool:
        """Make a change, and repeat it until it succeeds or the grace is over.

        Args:
            change: makes the change.
            proves: whether success shows that the spool can be written.

        Returns:
            Whether the change was made: False if another worker has the job, and after the grace, when the job is left
            to the next recovery.
        """
        failures = 0
        while True:
            try:
                await change()
            except LeaseLost as error:
                _log.warning("%s", error)
                self._breakers.spool.allow_next_probe()
                return False
            except SpoolError as error:
                failures += 1
                await self._breakers.spool_failed(error)
                await self._control.wait_for_grace(pause_length(self._retry, failures, self._chance()))
                if self._control.grace_over:
                    _log.error("the end of a job could not be written to the spool: %s", error)
                    return False
            else:
                if proves and not self._breakers.spool.closed:
                    await self._breakers.spool_recovered()
                return True
