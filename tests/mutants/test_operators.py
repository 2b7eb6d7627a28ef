"""operators.py: the mutants of a module, and what is left alone."""

import ast

import pytest

from tests.mutants.operators import mutants


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = a < b", {"x = a >= b", "x = a <= b"}),
        ("x = a == b", {"x = a != b"}),
        ("x = a is b", {"x = a is not b"}),
        ("x = a and b", {"x = a or b"}),
        ("x = not a", {"x = a"}),
        ("if a:\n    x = b", {"if not a:\n    x = b"}),
        ("x = 3", {"x = 4", "x = 2"}),
        ("x = True", {"x = False"}),
        ("f(a)", {"pass"}),
        ("x.y = a", {"pass"}),
        ("raise a", {"pass"}),
        ("x = f(a, b)", {"x = f(a)"}),
        ("x = f(a, b=c)", {"x = f(a)"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
    ],
)
def test_each_operator(source: str, found: set[str]) -> None:
    assert {one.source().strip() for one in mutants(source)} == found


@pytest.mark.parametrize(
    "source",
    [
        '"""A text."""',
        "import a",
        "assert a < 3",
        "def f(a: Final[3]):\n    pass",
        "def __repr__():\n    return 3",
        "__all__ = [f(1, 2)]",
        "_log.error('%s', a < 3)",
        "if TYPE_CHECKING:\n    x = 3",
    ],
)
def test_what_no_caller_is_promised_is_left_alone(source: str) -> None:
    assert [one.after for one in mutants(source)] == []


def test_a_mutant_changes_one_place_and_not_the_others() -> None:
    source = "x = 1\ny = 2\n"
    trees = [ast.unparse(ast.parse(one.source())) for one in mutants(source)]
    assert trees == ["x = 2\ny = 2", "x = 0\ny = 2", "x = 1\ny = 3", "x = 1\ny = 1"]
    assert [(one.line, one.before, one.after) for one in mutants(source)][0] == (1, "1", "2")
