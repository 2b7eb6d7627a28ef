"""Files of other users, for tests that are not run by root."""

import os
from collections.abc import Callable


def owned_by(user: int) -> Callable[[int], os.stat_result]:
    """Return an `os.fstat` for which every file belongs to `user`."""
    fstat = os.fstat

    def changed(descriptor: int) -> os.stat_result:
        values = list(fstat(descriptor))
        values[4] = user
        return os.stat_result(values)

    return changed
