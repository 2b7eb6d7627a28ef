"""ledger.py: the checks detect what they are made for, because a harness that cannot fail proves nothing."""

import os
from pathlib import Path

import pytest

from tests.torture import letters
from tests.torture.children import Child, Spec, produce
from tests.torture.ledger import Account, Log, settled
from tests.torture.recorder import Recorder

DEAD, ALIVE = 4711, 4712


class Books:
    """A spool in which message 0 is queued, and what may be logged about it."""

    def __init__(self, path: Path) -> None:
        self.spool = path / "spool"
        self.log = path / "log"
        self.recorder = Recorder()

    def note(self, line: str) -> None:
        with self.log.open("a") as file:
            file.write(line + "\n")

    def accept(self, number: int) -> None:
        self.recorder.accept([(number, 0)], letters.body(number))

    def account(self) -> Account:
        return settled(self.spool, Log(self.log, {DEAD}), self.recorder, deaths=1)


@pytest.fixture
async def books(tmp_path: Path) -> Books:
    books = Books(tmp_path)
    books.spool.mkdir(mode=0o700)
    child = Child(Spec("produce", str(books.spool), str(books.log), numbers=(0,)))
    await produce(child)
    os.close(child.log)
    return books


def take_away(books: Books) -> None:
    for path in books.spool.glob("*.queued"):
        path.unlink()


def test_right_books_are_right(books: Books) -> None:
    take_away(books)
    books.accept(0)
    account = books.account()
    account.demand()
    assert (account.acknowledged, account.delivered, account.lost) == (1, 1, 0)


def test_what_is_left_is_found(books: Books) -> None:
    books.accept(0)
    assert books.account().wrong == ["0 was left queued"]


def test_a_loss_is_found(books: Books) -> None:
    take_away(books)
    assert books.account().lost == 1


def test_a_copy_that_nobody_announced_is_found(books: Books) -> None:
    take_away(books)
    books.accept(0)
    books.accept(0)
    books.note(f"start x 0 0 {DEAD}")
    account = books.account()
    assert (account.duplicates, account.outside) == (1, 1)
    with pytest.raises(AssertionError):
        account.demand()


def test_a_copy_that_was_announced_is_none_of_those(books: Books) -> None:
    take_away(books)
    books.accept(0)
    books.accept(0)
    books.note(f"start x 0 0 {DEAD}")
    books.note(f"start x 0 1 {ALIVE}")
    account = books.account()
    account.demand()
    assert (account.duplicates, account.outside, account.flagged) == (1, 0, 1)


def test_a_flag_is_found_though_nobody_died(books: Books) -> None:
    take_away(books)
    books.accept(0)
    books.note(f"start x 0 0 {ALIVE}")
    books.note(f"start x 0 1 {ALIVE}")
    assert books.account().wrong == ["x was flagged, and nobody had died with it"]


def test_a_changed_message_is_found(books: Books) -> None:
    take_away(books)
    books.recorder.accept([(0, 0)], b"something else\r\n")
    assert books.account().wrong == ["0 arrived changed"]


def test_what_lies_about_is_found(books: Books) -> None:
    (queued,) = books.spool.glob("*.queued")
    os.link(queued, books.spool / "tmp" / "twin")
    take_away(books)
    books.accept(0)
    os.link(books.spool / "tmp" / "twin", books.spool / "tmp" / "other")
    assert len(books.account().wrong) == 2
