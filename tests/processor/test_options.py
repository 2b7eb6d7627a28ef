"""The options of a processor are checked when they are constructed."""

from typing import Any

import pytest

from smtp_async.errors import InvalidArgument
from smtp_async.processor import ProcessorOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_unknown": "drop"},
        {"marking": "never"},
        {"poll": -1},
        {"grace": float("nan")},
        {"heartbeat": "60"},
        {"heartbeat": True},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        ProcessorOptions(**wrong)
