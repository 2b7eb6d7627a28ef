"""What the library says to the mistakes of beginners is what the manual shows."""

import pytest

from tests.mistakes import HEAD, MISTAKES, PAGE, said

ROWS = PAGE.read_text(encoding="utf-8").partition(HEAD)[2].splitlines()


def test_every_mistake_has_its_row() -> None:
    assert [row.split(" | ")[0].removeprefix("| ") for row in ROWS] == [*MISTAKES]


@pytest.mark.parametrize("title", MISTAKES)
def test_the_manual_shows_what_the_library_says(title: str) -> None:
    assert said(title) in ROWS, "python -m tests.mistakes writes the table anew"
