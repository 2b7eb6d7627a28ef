"""The aliases of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import ResolveError
from smtp_async.transport.records import Record, canonical, follow

names = st.sampled_from(["a", "b", "c", "d", "A.", "b."])
records = st.lists(
    st.builds(Record, names, st.just("CNAME"), names)
    | st.builds(Record, names, st.sampled_from(["A", "MX"]), names)
)


def chain(length):
    return [Record(f"n{i}", "CNAME", f"n{i + 1}") for i in range(length)]


def test_records_of_the_name_itself():
    answer = [Record("Mail.Example.", "A", "192.0.2.1"), Record("other", "A", "192.0.2.2")]
    assert follow(answer, "mail.example", "A", []) == ("mail.example", ["192.0.2.1"])


def test_records_behind_aliases_in_any_order():
    answer = [Record("n3", "A", "192.0.2.1"), *reversed(chain(3))]
    assert follow(answer, "n0", "A", []) == ("n3", ["192.0.2.1"])


def test_an_alias_whose_records_are_missing():
    assert follow(chain(2), "n0", "A", []) == ("n2", [])
    assert follow([], "n0", "A", []) == ("n0", [])


def test_too_many_aliases():
    assert follow(chain(8), "n0", "A", [])[0] == "n8"
    with pytest.raises(ResolveError, match="cannot resolve n0: its aliases are more than 8") as caught:
        follow(chain(9), "n0", "A", [])
    assert caught.value.code == 11003
    seen: list[str] = []
    for start in (0, 4):
        follow(chain(start + 4)[start:], f"n{start}", "A", seen)
    with pytest.raises(ResolveError, match="n0: its aliases are more than 8"):
        follow([Record("n8", "CNAME", "n9")], "n8", "A", seen)


@pytest.mark.parametrize("answer", [[Record("n0", "CNAME", "N0.")], [*chain(2), Record("n2", "CNAME", "n0")]])
def test_circles(answer):
    with pytest.raises(ResolveError, match="go in a circle"):
        follow(answer, "n0", "A", [])


def test_a_circle_over_several_answers():
    seen: list[str] = []
    follow([Record("a", "CNAME", "b")], "a", "A", seen)
    with pytest.raises(ResolveError, match="go in a circle"):
        follow([Record("b", "CNAME", "a")], "b", "A", seen)


@given(records, names)
def test_any_answer_ends(answer, name):
    seen: list[str] = []
    try:
        end, found = follow(answer, name, "A", seen)
    except ResolveError as error:
        assert error.code == 11003
        return
    assert found == [r.value for r in answer if r.kind == "A" and canonical(r.name) == end]
    assert len(seen) == len(set(seen)) <= 8
