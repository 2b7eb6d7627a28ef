"""shared_file.py: one file object for many readers."""

import gc
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from smtp_async.sources.shared_file import Claim
from tests.lab import PATIENCE


def test_a_file_has_one_claim_while_it_is_used():
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    a, b = Claim.of(file), Claim.of(file)
    assert a is b
    assert (a.first, a.length, a.users) == (4, 6, 2)
    file.seek(9)
    a.leave(close=False)
    assert file.tell() == 9
    b.leave(close=False)
    assert file.tell() == 4
    c = Claim.of(file)
    assert c is not a
    c.leave(close=False)


def test_the_last_reader_closes_the_file():
    file = io.BytesIO(b"x")
    claim = Claim.of(file)
    Claim.of(file)
    claim.leave(close=True)
    assert not file.closed
    claim.leave(close=False)
    assert file.closed


class Strange:
    """As little as a file object can have."""

    def read(self, size):
        return b""


class Lying(io.BytesIO):
    """Says that it can seek, and cannot."""

    def seek(self, *place):
        raise OSError("no")


@pytest.mark.parametrize("make", [Strange, Lying])
def test_what_cannot_go_back_has_no_first_place(make):
    claim = Claim.of(make())
    assert claim.first is None
    claim.leave(close=True)


def test_a_garbage_collected_reader_has_left():
    file = io.BytesIO(b"xy")
    Claim.of(file)
    gc.collect()
    claim = Claim.of(file)
    assert claim.users == 1
    claim.leave(close=False)


class Slow(io.BytesIO):
    """A file that takes its time when it goes to its end, or back."""

    def __init__(self, data=b"0123456789", *, whence=2):
        super().__init__(data)
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.whence = whence

    def seek(self, place, whence=0):
        if whence == self.whence:
            self.asked.set()
            assert self.go_on.wait(PATIENCE)
        return super().seek(place, whence)


def test_leaving_a_file_does_not_wait_for_another_that_is_measured():
    fast, slow = io.BytesIO(b"xy"), Slow()
    claim = Claim.of(fast)
    with ThreadPoolExecutor() as pool:
        measuring = pool.submit(Claim.of, slow)
        assert slow.asked.wait(PATIENCE)
        # In the thread of the event loop: it would hang here.
        left = pool.submit(claim.leave, close=False)
        assert left.result(PATIENCE) is None and not measuring.done()
        slow.go_on.set()
        assert measuring.result(PATIENCE).length == 10
    measuring.result().leave(close=False)


def test_two_readers_at_once_share_one_measured_claim():
    slow = Slow()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(Claim.of, slow)
        assert slow.asked.wait(PATIENCE)
        second = pool.submit(Claim.of, slow)
        slow.go_on.set()
        claims = {first.result(PATIENCE), second.result(PATIENCE)}
    (claim,) = claims
    assert (claim.users, claim.first, claim.length) == (2, 0, 10)
    claim.leave(close=False)
    claim.leave(close=False)


def test_a_reader_that_comes_while_a_file_is_restored_measures_it_afterwards():
    slow = Slow(whence=0)
    slow.go_on.set()
    claim = Claim.of(slow)
    slow.read()
    slow.asked.clear()
    slow.go_on.clear()
    with ThreadPoolExecutor() as pool:
        leaving = pool.submit(claim.leave, close=False)
        assert slow.asked.wait(PATIENCE)
        coming = pool.submit(Claim.of, slow)
        assert not coming.done()
        slow.go_on.set()
        leaving.result(PATIENCE)
        again = coming.result(PATIENCE)
    assert (again.users, again.first, again.length) == (1, 0, 10)
    again.leave(close=True)
    assert slow.closed
