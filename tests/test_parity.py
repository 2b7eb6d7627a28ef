"""docs/parity.csv: every member of the components that the library replaces has one row, and each row is true.

The numbers below, and a hash, stand for the list of members. What the rows claim is held: names resolve, tests exist,
and nothing is missing.
"""

import ast
import csv
import dataclasses
import functools
import hashlib
import importlib
import inspect
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
#: SHA-256 of the list of members: a line for each, with its class, in the order of the alphabet.
LIST = "598f6997275166a21a031bd8d262c28edc9702fd0f28bf8c116b47baa9d99a17"

#: How many members each component has, by kind, in the order of the alphabet.
MEMBERS = {
    "ipworks": {
        "config": 74,
        "enum": 459,
        "error": 92,
        "event": 9,
        "field": 54,
        "method": 20,
        "property": 66,
    },
    "secureblackbox": {"config": 33, "enum": 3, "event": 9, "method": 7, "property": 145},
    "sockettools": {"event": 1, "field": 16, "method": 4, "option": 14, "property": 8},
}
CLASSES = {"required": 701, "needs-newer-python": 59, "platform": 160, "obsolete": 94}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


ROWS = table(ROOT / "docs" / "parity.csv")


# --- rows --------------------------------------------------------------------------


def test_every_member_has_one_row() -> None:
    ids = [row["id"] for row in ROWS]
    assert ids == sorted(set(ids))
    found = Counter(tuple(one.split(".")[:2]) for one in ids)
    assert found == {(system, kind): n for system, kinds in MEMBERS.items() for kind, n in kinds.items()}
    assert Counter(row["status_class"] for row in ROWS) == CLASSES


def test_the_rows_are_those_of_the_list() -> None:
    lines = sorted((row["id"], row["status_class"]) for row in ROWS)
    assert hashlib.sha256("\n".join(map(",".join, lines)).encode()).hexdigest() == LIST


def test_every_row_says_what_its_status_needs() -> None:
    bad = []
    for row in ROWS:
        name, test, reason = bool(row["python"]), bool(row["test"]), bool(row["reason"])
        ours = row["python"].startswith("smtp_async")
        fits = {
            "works": name and test,
            # What the standard library does is not ours to test.
            "replaced": name and reason and (test or not ours),
            "not here": reason and not test and not name,
        }
        if (
            set(row) != {"id", "status_class", "status", "python", "test", "reason"}
            or not fits[row["status"]]
        ):
            bad.append(row)
    assert bad == []


def test_what_is_required_is_there() -> None:
    """Only members of the other classes can have no place here."""
    assert [
        row["id"] for row in ROWS if (row["status_class"], row["status"]) == ("required", "not here")
    ] == []


# --- names ---------------------------------------------------------------------------------------------------


def resolve(name: str) -> None:
    """Raise LookupError unless `name` is a module, something in one, or a member of a class in one.

    A member may also be a field, an annotation, a slot, what the constructor sets, or a parameter of the constructor.
    """
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        break
    else:
        raise LookupError(f"{name}: there is no module {parts[0]}")
    for index, part in enumerate(parts[depth:], depth):
        last = index == len(parts) - 1
        if last and inspect.isclass(found) and part in members_of(found):
            return
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LookupError(f"{name}: there is no {part} in {found!r}") from None


def members_of(cls: type) -> set[str]:
    """What instances of `cls` have or are made with, whether or not the class shows it."""
    names = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    for base in cls.__mro__:
        names |= set(base.__dict__.get("__annotations__", ()))
        slots = base.__dict__.get("__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
        if inspect.isfunction(init := base.__dict__.get("__init__")) and not dataclasses.is_dataclass(base):
            names |= set_by(init)
    try:
        names |= set(inspect.signature(cls).parameters) - {"args", "kwargs"}
    except (TypeError, ValueError):
        # Some classes of the interpreter have no signature.
        pass
    return names


def set_by(init: Any) -> set[str]:
    """Return the attributes that a constructor gives to its object."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_every_name_resolves() -> None:
    for name in {row["python"] for row in ROWS if row["python"]}:
        resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "smtp_async",
        "smtp_async.Certificate.sha256",
        "smtp_async.Message.comments",
        "smtp_async.QueueProcessor.keep_sent",
        "smtp_async.Session.last_reply",
        "smtp_async.events.Direction.INFO",
        "smtp_async.TrustOptions.ca_file",
        "os.urandom",
    ],
)
def test_what_is_there_resolves(name: str) -> None:
    resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "no_such_package.x",
        "smtp_async.no_such_name",
        "smtp_async.Message.no_such_field",
        "smtp_async.Message.comments.further",
        "smtp_async.events.Direction.NOWHERE",
        "smtp_async.TrustOptions.kwargs",
    ],
)
def test_what_is_not_there_does_not_resolve(name: str) -> None:
    with pytest.raises(LookupError):
        resolve(name)


# --- tests ---------------------------------------------------------------------------------------------------


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Return the node ids of a file without its path: functions, and methods of classes that pytest collects."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            found |= {
                f"{node.name}::{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(one for one in found if one.rpartition("::")[2].startswith("test_"))


def test_every_test_is_collected() -> None:
    for node in {row["test"] for row in ROWS if row["test"]}:
        path, _, test = node.partition("::")
        assert path.startswith("tests/") and Path(path).name.startswith("test_"), node
        assert "[" not in node
        assert test in names_in(ROOT / path), node


@functools.cache
def parametrised_in(path: Path) -> frozenset[str]:
    """Return the node ids of a file that stand for several cases, by decorators or by a fixture with `params`."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    fixtures = {
        one.name
        for one in nodes
        if isinstance(one, ast.FunctionDef) and any("params=" in ast.unparse(by) for by in one.decorator_list)
    }

    def has_cases(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
        taken = set() if isinstance(node, ast.ClassDef) else {one.arg for one in node.args.args}
        return any("parametrize(" in ast.unparse(by) for by in node.decorator_list) or bool(taken & fixtures)

    found = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and has_cases(node):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}::{one.name}" for one in methods if has_cases(node) or has_cases(one)}
    return frozenset(found)


def test_a_test_of_several_rows_has_their_cases() -> None:
    """It is parametrised, or its rows are values of one enumeration, or names of one thing of ours."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in ROWS:
        rows.setdefault(row["test"], []).append(row)
    del rows[""]
    crowded = []
    for node, found in rows.items():
        path, _, test = node.partition("::")
        enumerations = {one["id"].rpartition(".")[0] if ".enum." in one["id"] else one["id"] for one in found}
        if (
            len(enumerations) > 1
            and len({one["python"] for one in found}) > 1
            and test not in parametrised_in(ROOT / path)
        ):
            crowded.append(node)
    assert crowded == []


def test_tests_are_found_in_functions_and_classes() -> None:
    own = names_in(Path(__file__))
    assert "test_every_member_has_one_row" in own
    assert "table" not in own
    assert "TestTLS::test_a_bad_certificate" in names_in(ROOT / "tests" / "test_faults.py")
