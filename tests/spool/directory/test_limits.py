"""limits.py: sizes that make no sense are refused; what each does is tested beside the code that reads it."""

import pytest

from smtp_async.errors import InvalidArgument
from smtp_async.spool.contract import MAX_KEYS
from smtp_async.spool.directory.limits import DirectoryLimits


@pytest.mark.parametrize(
    ("name", "value"),
    [("keys", 0), ("keys", -1), ("root_files", -1), ("jobs_in_memory", 0), ("jobs_in_memory", 1.5)],
)
def test_a_size_that_makes_no_sense_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be an integer"):
        DirectoryLimits(**{name: value})  # type: ignore[arg-type]


def test_the_smallest_sizes_are_accepted() -> None:
    assert DirectoryLimits(keys=1, root_files=0, jobs_in_memory=1).root_files == 0


def test_a_directory_remembers_as_many_keys_as_the_contract_says() -> None:
    assert DirectoryLimits().keys == MAX_KEYS
