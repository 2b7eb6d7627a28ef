"""The mutants of a module: one place of its syntax tree does something else.

- A comparison says the opposite, or moves its boundary: `<` becomes `<=`.
- A condition is negated, `and` becomes `or`, and `True` becomes `False`.
- A number is one more, or one less.
- A statement is left out: a call, an assignment to an attribute, `raise`, `break`, `continue`.
- A function returns None in place of its value.
- A call lacks its last argument, if it has a named one or several.

Left alone is what no caller is promised: annotations, `__all__`, log lines, the text of an error, `__repr__`, and
`assert`, which tells a type checker what is known.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Mutant", "mutants"]

_OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
}
_BOUNDARIES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}


class Mutant(NamedTuple):
    """A mutant of a module.

    Attributes:
        line: the line of the place that was changed.
        operator: what kind of change it is.
        before, after: the source text of the place, on one line each.
        tree: the module.
        node, changed: the place, and what takes it.
    """

    line: int
    operator: str
    before: str
    after: str
    tree: ast.Module
    node: ast.AST
    changed: ast.AST

    def source(self) -> str:
        """Return the source text of the whole module after the change, without its comments."""
        # A copy is made, because the other mutants share the tree.
        replaced = copy.deepcopy(self.tree, {id(self.node): self.changed})
        return ast.unparse(ast.fix_missing_locations(replaced)) + "\n"


def mutants(source: str) -> Iterator[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    for node in sorted(_places(tree), key=lambda node: (node.lineno, node.col_offset)):
        for operator, changed in _changes(node):
            before, after = ast.unparse(node), ast.unparse(changed)
            if before != after:
                yield Mutant(node.lineno, operator, _short(before), _short(after), tree, node, changed)


def _short(text: str) -> str:
    return " ".join(text.split())[:160]


# --- where ---------------------------------------------------------------------------------------------------


def _places(node: ast.AST) -> Iterator[ast.stmt | ast.expr]:
    """Return the statements and expressions below a node that may be changed."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_left_alone(child):
                continue
            if isinstance(child, (ast.stmt, ast.expr)):
                yield child
            if not isinstance(child, ast.Raise):
                yield from _places(child)


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.FunctionDef(name=name):
            return name == "__repr__"
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in ("__all__", "__slots__") or _calls(node.value) == "TypeVar"
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name == "_log"
    return False


def _calls(node: ast.expr) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


# --- what ----------------------------------------------------------------------------------------------------


def _changes(node: ast.stmt | ast.expr) -> Iterator[tuple[str, ast.AST]]:
    """Return the changes of one node, each with the name of its operator."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=comparators):
            yield "comparison", ast.Compare(left, [_OPPOSITES[type(op)]()], comparators)
            if type(op) in _BOUNDARIES:
                yield "boundary", ast.Compare(left, [_BOUNDARIES[type(op)]()], comparators)
        case ast.BoolOp(op=op, values=values):
            yield "and/or", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "negation", operand
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call() as test, body=body, orelse=orelse):
            yield "negation", ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Constant(value=bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case ast.Call():
            yield from _without_argument(node)
        case ast.stmt():
            yield from _changed_statement(node)


def _without_argument(call: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    if call.keywords and call.keywords[-1].arg is not None:
        yield "argument", ast.Call(call.func, call.args, call.keywords[:-1])
    elif len(call.args) > 1 and not call.keywords and not isinstance(call.args[-1], ast.Starred):
        yield "argument", ast.Call(call.func, call.args[:-1], [])


def _changed_statement(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise():
            yield "statement", ast.Pass()
        case ast.Break() | ast.Continue() | ast.Delete():
            yield "statement", ast.Pass()
        # Without a local variable the next line fails at once, which tells nothing about the tests.
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield "statement", ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return", ast.Return(ast.Constant(None))
