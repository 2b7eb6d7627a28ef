"""claim.py: one file object for many readers."""

import gc
import io

import pytest

from smtp_async.bodies.claim import Claim


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


def test_it_is_closed_by_the_last_who_leaves():
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


def test_who_is_forgotten_has_left():
    file = io.BytesIO(b"xy")
    Claim.of(file)
    gc.collect()
    claim = Claim.of(file)
    assert claim.users == 1
    claim.leave(close=False)
