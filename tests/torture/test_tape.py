"""tape.py: what a disk may hold after a loss of power."""

import random

from tests.torture.tape import Change, Inode, Moment, Octets


def test_octets_that_were_not_synced_are_there_or_cut_or_zeros_or_not_there() -> None:
    inode = Inode(Octets(b"old", 1), Octets(b"old, new", 1))
    held = {octets.data for octets in inode.variants()}
    assert {b"old", b"old, new", b"old, ne", b"old" + bytes(5)} <= held
    assert all(len(data) <= 8 and data.startswith(b"old") for data in held)


def test_a_synced_file_is_what_it_is() -> None:
    octets = Octets(b"all", 1)
    assert Inode(octets, octets).variants() == [octets]


def test_each_change_of_a_name_is_on_disk_or_not_by_itself() -> None:
    octets = Octets(b"", 0)
    changes = [Change("", "a", 1), Change("b", "c", 2), Change("d", "", 3)]
    moment = Moment({"b": 2, "d": 3}, changes, dict.fromkeys((1, 2, 3), Inode(octets, octets)), ())
    found = {frozenset(files) for files in moment.states(100, random.Random(1))}
    assert found == {
        frozenset([*first, second, *third]) for first in ("", "a") for second in "bc" for third in ("", "d")
    }


def test_a_rename_into_another_directory_may_leave_both_names() -> None:
    octets = Octets(b"", 0)
    moment = Moment({"keys": -1, "b": 2}, [Change("b", "keys/b", 2)], {2: Inode(octets, octets)}, ())
    found = {frozenset(files) for files in moment.states(100, random.Random(1))}
    assert found == {frozenset({"keys", *names}) for names in (("b",), ("keys/b",), ("b", "keys/b"))}


def test_a_file_of_a_directory_that_is_not_there_is_not_there() -> None:
    octets = Octets(b"", 0)
    moment = Moment({"keys/b": 2}, [Change("", "keys", -1)], {2: Inode(octets, octets)}, ())
    assert {frozenset(files) for files in moment.states(100, random.Random(1))} == {
        frozenset(),
        frozenset({"keys", "keys/b"}),
    }
