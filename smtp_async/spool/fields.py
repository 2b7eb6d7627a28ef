"""The JSON values of a job: written as ASCII, and checked one by one when they are read. Nothing here does I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from ..errors import RecordInvalid
from ..model.receipt import Outcome
from .entry import Entry, Result

__all__ = [
    "changed_results",
    "count",
    "encode",
    "of",
    "read_results",
    "result_values",
    "results_text",
    "time_of",
]

_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}

# ASCII only, so that no octet of the JSON text is a line ending and every editor shows the file.
encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

_T = TypeVar("_T")


def results_text(results: Iterable[Result | None]) -> str:
    """Return the JSON text of all results of a job, for a store without a journal."""
    return encode([None if result is None else result_values(result) for result in results])


def result_values(result: Result) -> list[Any]:
    """Return a result as JSON values."""
    outcome, final, at, code, enhanced, text, queue_id = result
    return [outcome.value, final, at, code, enhanced, text, queue_id]


def read_results(text: str, entry: Entry) -> tuple[Result | None, ...]:
    """Parse the JSON text of all results of a job.

    Raises:
        RecordInvalid: the text is not that of the results of `entry`.
    """
    try:
        values = of(json.loads(text), list)
        if len(values) != len(entry.results):
            raise ValueError(f"{len(values)} results, and {len(entry.results)} recipients")
        return changed_results(
            entry.results, {str(n): one for n, one in enumerate(values) if one is not None}
        )
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise RecordInvalid(f"not a job: {type(error).__name__} in its results: {error}") from error


def changed_results(old: tuple[Result | None, ...], changed: dict[str, Any]) -> tuple[Result | None, ...]:
    """Return `old` with the results that `changed` has by place.

    Raises:
        LookupError, TypeError, ValueError: a value is invalid.
    """
    results = [*old]
    for place, values in changed.items():
        outcome, final, at, code, enhanced, text, queue_id = of(values, list)
        results[count(int(place))] = Result(
            _OUTCOMES[of(outcome, str)],
            of(final, bool),
            time_of(at),
            None if code is None else count(code),
            None if enhanced is None else of(enhanced, str),
            of(text, str),
            None if queue_id is None else of(queue_id, str),
        )
    return tuple(results)


def of(value: Any, kind: type[_T]) -> _T:
    """Return `value`; raise TypeError unless it is a `kind`."""
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
    return value


def count(value: Any) -> int:
    """Return a count; raise TypeError or ValueError if `value` is none."""
    if not 0 <= of(value, int) < 2**53:
        raise ValueError("a count is out of range")
    return int(value)


def time_of(value: Any) -> float:
    """Return seconds since the epoch; raise TypeError or ValueError if `value` is none."""
    if type(value) is not float and type(value) is not int or not 0 <= value < 2**40:
        raise ValueError("a time is out of range")
    return float(value)
