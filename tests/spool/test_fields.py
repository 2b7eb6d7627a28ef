"""fields.py: the JSON values of a job."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import RecordInvalid
from smtp_async.model.envelope import Envelope
from smtp_async.model.receipt import Outcome
from smtp_async.spool.entry import Entry, Result
from smtp_async.spool.fields import count, of, read_results, results_text, time_of


def entry(recipients: int = 2) -> Entry:
    there = [f"user{n}@example.org" for n in range(recipients)]
    return Entry(id="1", envelope=Envelope("ann@example.com", there), created=1.0, size=1)


RESULTS = st.builds(
    Result,
    st.sampled_from(Outcome),
    st.booleans(),
    st.floats(0, 2.0**39),
    st.none() | st.integers(200, 599),
    st.none() | st.text(max_size=9),
    st.text(max_size=20),
    st.none() | st.text(max_size=9),
)


@given(st.lists(st.none() | RESULTS, min_size=1, max_size=4))
def test_results_are_read_as_they_were_written(results: list[Result | None]) -> None:
    text = results_text(results)
    assert text.isascii()
    assert read_results(text, entry(len(results))) == tuple(results)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert len(read_results(text, entry())) == 2
    except RecordInvalid:
        pass


def test_results_of_another_number_of_recipients_are_refused() -> None:
    with pytest.raises(RecordInvalid, match="1 results, and 2 recipients"):
        read_results("[null]", entry())


def test_values_have_their_type_and_range() -> None:
    assert (of("a", str), count(7), time_of(3)) == ("a", 7, 3.0)
    for call in (
        lambda: of(True, int),
        lambda: count(-1),
        lambda: count(2**53),
        lambda: time_of(float("nan")),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
