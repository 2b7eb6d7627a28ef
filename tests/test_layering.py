"""The house rules of the package, read from its source: who may import whom, and what a room never holds.

A room is what stands directly in `smtp_async/`: a module or a package. Imports go down the ranks only, and never in a
circle; imports inside functions count, and those under `if TYPE_CHECKING:` do, too.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

PACKAGE = "smtp_async"
HOUSE = Path(__file__).parents[1] / PACKAGE
ANYTHING = frozenset({"*"})

VALUES = ("errors", "events", "model")
SANS_IO = ("protocol", "auth", "message")
BELOW_CONNECTION = {*VALUES, "protocol", "auth", "sources", "transport", "tls", "hooks"}
BELOW_CLIENT = {*BELOW_CONNECTION, "connection", "pool", "message", "mail"}

# Rank by rank, what each room may import besides itself.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset({"model"}),
    "model": frozenset({"errors"}),
    "events": frozenset({"errors", "model"}),
    **{room: frozenset(VALUES) for room in (*SANS_IO, "sources", "transport")},
    "tls": frozenset({*VALUES, "protocol", "auth", "sources", "transport"}),
    "mail": frozenset({*VALUES, "protocol", "message", "sources"}),
    "hooks": frozenset({*VALUES, "protocol", "auth", "sources", "transport"}),
    "oauth": frozenset({*VALUES, "auth", "sources"}),
    "templates": frozenset({*VALUES, "message"}),
    "connection": frozenset(BELOW_CONNECTION),
    "pool": frozenset({*BELOW_CONNECTION, "connection"}),
    "spool": frozenset({*VALUES, "sources", "mail"}),
    "client": frozenset(BELOW_CLIENT),
    "processor": frozenset({*VALUES, "message", "spool", "client", "hooks"}),
    "integrations": frozenset({*VALUES, "protocol", "mail", "tls", "client", "spool"}),
    "about": frozenset(),
    **dict.fromkeys(("__init__", "__main__", "cli", "testing", "web"), ANYTHING),
}
# Single modules that may import more than their room.
MODULE_MAY_IMPORT = {
    # `Message.render` and `as_bytes` return bytes to callers that do not send them, so that no room above
    # is there to read the sources. Inside those functions only.
    "message.builder": frozenset({"sources"}),
    "message.readback": frozenset({"sources"}),
}
# What everything stands on: nothing else of the package may be imported there.
GROUND = frozenset({"model.proxy_response", "model.reply", "model.secret"})

PURE = frozenset({*VALUES, *SANS_IO})
IMPURE_IMPORTS = frozenset(
    {"asyncio", "http", "select", "selectors", "socket", "ssl", "subprocess", "threading", "time"}
)
ASYNC_SYNTAX = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

# What runs for every message; `opening` and what ends connections may have time limits and tasks.
MESSAGE_PATH = frozenset(
    {
        *(
            f"connection.{name}"
            for name in ("session", "connection", "exclusive", "deliveries", "upload", "caller_work")
        ),
        *(f"connection.{name}" for name in ("channel", "clock", "transcript", "job", "recipients")),
        *("pool.pool", "pool.deadlines", "client.drive", "client.bulk"),
        *("protocol", "model.receipt", "model.reply"),
    }
)
TIMEOUTS = frozenset({"timeout", "timeout_at", "wait_for"})
TASK_MAKERS = frozenset({"create_task", "ensure_future", "TaskGroup"})
# In `client.bulk` it is the source of messages that has a task, not a message.
# In `connection.caller_work` it is a source that took no notice of the end of its message.
MAKES_TASKS = frozenset({"connection.connection", "pool.pool", "client.bulk", "connection.caller_work"})
TASK_FUNCTIONS = frozenset({"_open", "start", "connect", "_hand_over"})

FORBIDDEN_NAMES = frozenset({"utils", "helpers", "common", "base", "types"})
MOST_LINES = 500
MOST_LINES_OF_A_FUNCTION = 60
MEDIAN_LINES_OF_A_FUNCTION = 8
#: Floors of the house: rooms on the longest way down along imports, the front door and `cli/` included.
MOST_FLOORS = 11
# Longer only as a table: one flat list of exception classes.
TABLES = frozenset({"errors"})
# Heavy or optional: `import smtp_async` must not load them.
LAZY = (
    *("anyio", "idna", "cryptography", "aiodns", "python_socks", "email.message", "http", "httpx"),
    *("aiohttp", "asn1crypto", "asyncpg", "css_inline", "jinja2", "pyhanko_certvalidator"),
)


class Import(NamedTuple):
    """An import statement's one name.

    Attributes:
        name: Absolute, dotted: ``smtp_async.protocol.parser`` or ``asyncio``.
        line: Where it stands.
        lazy: Does it stand inside a function?
        thing: What is imported from there, empty for all of it.
    """

    name: str
    line: int
    lazy: bool
    thing: str = ""

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


class Module:
    """A source file of the package.

    Attributes:
        name: Dotted, without the package: ``protocol.parser``; a package's own file is ``protocol.__init__``.
        room: The first part of the name.
    """

    def __init__(self, path: Path, house: Path = HOUSE) -> None:
        parts = path.relative_to(house).with_suffix("").parts
        self.name = ".".join(parts)
        self.room = parts[0]
        self.parts = parts
        self.source = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.source)
        self.rooms = {entry.stem for entry in house.iterdir()}

    @functools.cached_property
    def nodes(self) -> list[tuple[ast.AST, tuple[str, ...]]]:
        """All nodes that exist at run time, each with the names of the functions around it."""
        return list(walk(self.tree))

    def imports(self) -> Iterator[Import]:
        """All imports that happen at run time."""
        for node, functions in self.nodes:
            yield from self._imports_of(node, lazy=bool(functions))

    def all_imports(self) -> Iterator[Import]:
        """Those that only type checkers see, too."""
        hints = (self._imports_of(node, lazy=True) for node in self._for_type_checkers())
        return chain(self.imports(), chain.from_iterable(hints))

    def _for_type_checkers(self) -> Iterator[ast.AST]:
        for node, _ in self.nodes:
            if isinstance(node, ast.If) and is_type_checking(node.test):
                for statement in node.body:
                    yield from ast.walk(statement)

    def _imports_of(self, node: ast.AST, *, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = self._absolute(node)
            # `from . import x` may name a module, `from .x import y` a thing in one.
            yield from (Import(source, node.lineno, lazy, alias.name) for alias in node.names)

    def modules_imported(self, known: frozenset[str]) -> set[str]:
        """The modules of the package, by their names in `known`, that this one imports, or imports something of."""
        found = set()
        for imported in self.all_imports():
            inner = imported.name.removeprefix(PACKAGE).removeprefix(".")
            for name in (f"{inner}.{imported.thing}", inner, f"{inner}.__init__"):
                if imported.top == PACKAGE and name.removeprefix(".") in known:
                    found.add(name.removeprefix("."))
                    break
        return found - {self.name}

    def rooms_imported(self) -> Iterator[tuple[str, int]]:
        """The other rooms that this module imports."""
        for imported in self.all_imports():
            if imported.top != PACKAGE:
                continue
            room = (imported.name.partition(".")[2] or imported.thing).partition(".")[0]
            room = room if room in self.rooms or room in MAY_IMPORT else "__init__"
            if room != self.room:
                yield room, imported.line

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = (PACKAGE, *self.parts[:-1])
        above = package[: len(package) - (node.level - 1)]
        return ".".join((*above, node.module) if node.module else above)


def walk(node: ast.AST, functions: tuple[str, ...] = ()) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """All nodes that exist at run time, each with the names of the functions around it."""
    yield node, functions
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        functions = (*functions, node.name)
    elif isinstance(node, ast.Lambda):
        functions = (*functions, "<lambda>")
    if isinstance(node, ast.If) and is_type_checking(node.test):
        children: Iterator[ast.AST] = iter(node.orelse)
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from walk(child, functions)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def mentioned(module: Module, names: frozenset[str]) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Where a module names asyncio's functions, however it came by them, and inside which functions."""
    imported = {
        alias.asname or alias.name: alias.name
        for node, _ in module.nodes
        if isinstance(node, ast.ImportFrom)
        and node.module in {"asyncio", "asyncio.timeouts", "asyncio.tasks"}
        for alias in node.names
    }
    for node, functions in module.nodes:
        if isinstance(node, ast.Attribute):
            # `timeout` may be the name of an attribute of this library, `loop.create_task` may not.
            ours = isinstance(node.value, ast.Name) and node.value.id == "asyncio"
            name = node.attr if ours or node.attr in TASK_MAKERS else ""
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            name = imported.get(node.id, "")
        else:
            continue
        if name in names:
            yield name, node.lineno, functions


# --- the rules: each yields what is wrong, in words ---


def unknown_rooms(module: Module) -> Iterator[str]:
    if module.room not in MAY_IMPORT:
        yield f"{module.room} is not in the table of rooms"


def imports_upwards(module: Module) -> Iterator[str]:
    allowed = MAY_IMPORT.get(module.room, ANYTHING) | MODULE_MAY_IMPORT.get(module.name, frozenset())
    if allowed & ANYTHING:
        return
    for room, line in module.rooms_imported():
        if room not in allowed:
            yield f"line {line}: {module.room} may not import {room}"


def what_everything_stands_on(module: Module) -> Iterator[str]:
    """`model.proxy_response`, `model.reply` and `model.secret` import nothing, `errors` only those three."""
    if module.name in GROUND or module.name == "errors":
        for imported in module.all_imports():
            name = imported.name.removeprefix(f"{PACKAGE}.")
            if imported.top == PACKAGE and not (module.name == "errors" and name in GROUND):
                yield f"line {imported.line}: {module.name} may not import {name}"


def awaits(module: Module) -> Iterator[str]:
    if module.room in PURE:
        for node, _ in module.nodes:
            if isinstance(node, ASYNC_SYNTAX) or (isinstance(node, ast.comprehension) and node.is_async):
                yield f"line {getattr(node, 'lineno', '?')}: {module.room} never awaits"


def impure_imports(module: Module) -> Iterator[str]:
    if module.room in PURE:
        for imported in module.imports():
            # A message has a date: the clock is the default of an argument there, and converts time zones.
            if imported.top in IMPURE_IMPORTS and (module.room, imported.top) != ("message", "time"):
                yield f"line {imported.line}: {module.room} may not import {imported.top}"


def third_party_imports(module: Module) -> Iterator[str]:
    if module.room in PURE:
        for imported in module.imports():
            known = imported.top == PACKAGE or imported.top in sys.stdlib_module_names
            if not known and not imported.lazy:
                yield f"line {imported.line}: {imported.top} may be imported inside functions only"


def sockets_in_the_processor(module: Module) -> Iterator[str]:
    if module.room == "processor":
        for imported in module.imports():
            if imported.top in {"socket", "ssl"}:
                yield f"line {imported.line}: the processor leaves {imported.top} to the client"


def timeouts_on_the_path(module: Module) -> Iterator[str]:
    if MESSAGE_PATH.intersection((module.name, module.room)):
        for name, line, _ in mentioned(module, TIMEOUTS):
            yield f"line {line}: asyncio.{name} on the path of a message; a session has one deadline timer"


def tasks_on_the_path(module: Module) -> Iterator[str]:
    if MESSAGE_PATH.intersection((module.name, module.room)):
        for name, line, functions in mentioned(module, TASK_MAKERS):
            connecting = module.name in MAKES_TASKS and TASK_FUNCTIONS.intersection(functions)
            if not connecting:
                yield f"line {line}: {name} on the path of a message"


def frozen_values_on_the_path(module: Module) -> Iterator[str]:
    """Options are frozen and keyword-only; what is made per message is a tuple or a plain slotted class."""
    if MESSAGE_PATH.intersection((module.name, module.room)):
        for node, _ in module.nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "dataclass",
                "dataclasses.dataclass",
            }:
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if given.get("frozen") == "True" and given.get("kw_only") != "True":
                    yield f"line {node.lineno}: a frozen dataclass costs three times a tuple to make"


def vague_names(module: Module) -> Iterator[str]:
    for part in module.parts:
        if part.strip("_") in FORBIDDEN_NAMES:
            yield f"{part} says nothing about what is in it"


def long_files(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    if lines > MOST_LINES and module.name not in TABLES:
        yield f"{lines} lines, of {MOST_LINES} at most"


RULES = (
    unknown_rooms,
    imports_upwards,
    what_everything_stands_on,
    awaits,
    impure_imports,
    third_party_imports,
    sockets_in_the_processor,
    timeouts_on_the_path,
    tasks_on_the_path,
    frozen_values_on_the_path,
    vague_names,
    long_files,
)


@functools.cache
def house() -> tuple[Module, ...]:
    """Return the modules of the package, which take some seconds to parse."""
    return tuple(Module(path) for path in sorted(HOUSE.rglob("*.py")))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule) -> None:
    assert [f"{module.name}: {wrong}" for module in house() for wrong in rule(module)] == []


def circle(modules: Iterable[Module]) -> list[str]:
    """Return modules that import each other, each the one before it; empty if there are none."""
    by_name = {module.name: module for module in modules}
    known = frozenset(by_name)
    graph = TopologicalSorter({name: module.modules_imported(known) for name, module in by_name.items()})
    try:
        graph.prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_imports_go_in_a_circle() -> None:
    assert circle(house()) == []


def floors(modules: Iterable[Module]) -> dict[str, int]:
    """Return the floor of each room: one more than that of the highest room which it imports."""
    imports: dict[str, set[str]] = {}
    for module in modules:
        # Exceptions are values as those of `model` are; the two rooms share a floor.
        room, *below = [
            "model" if one == "errors" else one
            for one in (module.room, *[name for name, _ in module.rooms_imported()])
        ]
        imports.setdefault(room, set()).update({*below} - {room})
    found: dict[str, int] = {}
    for room in TopologicalSorter(imports).static_order():
        found[room] = 1 + max((found[one] for one in imports.get(room, ())), default=0)
    return found


def test_the_house_has_few_floors() -> None:
    # `__main__` and the front door are two doors of one floor; the test kit is beside the house.
    heights = floors(module for module in house() if module.room not in ("__main__", "testing"))
    assert max(heights.values()) <= MOST_FLOORS, heights


def test_functions_are_short() -> None:
    lengths = {
        f"{module.name}.{node.name}, line {node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in house()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name: lines for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FUNCTION}
    assert not long
    assert median(lengths.values()) <= MEDIAN_LINES_OF_A_FUNCTION


@pytest.mark.skipif(not (HOUSE / "__init__.py").exists(), reason="the front door is not built yet")
def test_importing_the_package_is_light() -> None:
    program = (
        "import sys; before = set(sys.modules); import smtp_async;"
        "print(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    heavy = [name for name in loaded for lazy in LAZY if name == lazy or name.startswith(f"{lazy}.")]
    assert heavy == []


# --- the rules themselves, against sources that break them ---


def complaints(house: Path, name: str, source: str) -> list[str]:
    path = house / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return [wrong for rule in RULES for wrong in rule(Module(path, house))]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("surprise/thing.py", ""),
        ("surprise.py", ""),
        ("model/reply.py", "from .receipt import Receipt"),
        ("model/reply.py", "from ..errors import SMTPError"),
        ("errors.py", "from .model.address import Address"),
        ("model/receipt.py", "from ..events import Event"),
        ("model/address.py", "from .. import events"),
        ("model/address.py", "import smtp_async.events"),
        ("model/address.py", "from smtp_async import events"),
        ("model/address.py", "from smtp_async import Receipt"),
        ("model/address.py", "def late():\n    from ..events import Event"),
        ("model/address.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from ..events import Event"),
        ("model/address.py", "if TYPE_CHECKING:\n    from ..events import Event"),
        ("errors.py", "if TYPE_CHECKING:\n    from .model.receipt import Receipt"),
        ("protocol/parser.py", "from ..auth import plain"),
        ("protocol/parser.py", "from ..auth.plain import Plain"),
        ("auth/plain.py", "from ..message import headers"),
        ("sources/body.py", "from ..transport.stream import Stream"),
        ("transport/dial.py", "from ..tls.context import Security"),
        ("tls/context.py", "from ..message import headers"),
        ("mail/coerce.py", "from ..pool.pool import Pool"),
        ("hooks.py", "from .connection.session import Session"),
        ("connection/session.py", "from ..pool.pool import Pool"),
        ("connection/session.py", "from ..spool import record"),
        ("connection/session.py", "from ..message import Message"),
        ("connection/session.py", "from ..mail.coerce import as_mail"),
        ("pool/pool.py", "from ..client.client import SMTPClient"),
        ("pool/pool.py", "from ..message import Message"),
        ("spool/submission.py", "from ..protocol.plan import plan"),
        ("templates/templates.py", "from ..client.client import SMTPClient"),
        ("spool/directory/spool.py", "from ...client.client import SMTPClient"),
        ("client/client.py", "from ..spool import Spool"),
        ("client/client.py", "from ..cli import main"),
        ("processor/schedule.py", "from ..connection.session import Session"),
        ("processor/schedule.py", "import socket"),
        ("model/reply.py", "async def late(): ..."),
        ("protocol/machine.py", "def gather(): return [x async for x in y]"),
        ("protocol/machine.py", "import asyncio"),
        ("protocol/states.py", "from time import time"),
        ("auth/ntlm.py", "import spnego"),
        ("connection/session.py", "async def send():\n    async with asyncio.timeout(5): ..."),
        (
            "connection/session.py",
            "from asyncio import timeout as limit\nasync def send():\n    async with limit(5): ...",
        ),
        ("pool/pool.py", "async def send():\n    await asyncio.wait_for(job, 5)"),
        ("pool/pool.py", "def send(self):\n    self.loop.create_task(job)"),
        ("pool/pool.py", "from asyncio import create_task\ndef send():\n    create_task(job)"),
        ("client/bulk.py", "def begin(self):\n    self.loop.create_task(job)"),
        ("model/receipt.py", "@dataclass(frozen=True, slots=True)\nclass Verdict: ..."),
        ("protocol/utils.py", ""),
        ("message/_types.py", ""),
        ("client/client.py", "\n" * (MOST_LINES + 1)),
    ],
)
def test_a_rule_catches(tmp_path: Path, name: str, source: str) -> None:
    assert complaints(tmp_path, name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("model/receipt.py", "from .reply import Reply\nfrom ..errors import SMTPError"),
        ("errors.py", "from .model.reply import Reply"),
        ("model/reply.py", "if TYPE_CHECKING:\n    import asyncio"),
        ("model/domain.py", "def idna(name):\n    import idna\n    return idna.encode(name)"),
        (
            "protocol/machine.py",
            "from . import commands\nfrom .parser import Parser\nfrom ..model.reply import Reply",
        ),
        ("message/headers.py", "from datetime import datetime"),
        ("tls/revocation.py", "from ..transport import dial"),
        (
            "mail/raw.py",
            "from ..message.foreign_mail import mail_of_email_object\nfrom ..sources import Body",
        ),
        (
            "connection/session.py",
            "from ..hooks import Hooks\nfrom ..protocol.machine import ClientProtocol",
        ),
        ("connection/opening.py", "async def open():\n    async with asyncio.timeout(5): ..."),
        (
            "connection/connection.py",
            "def start(self):\n    self.task = self.loop.create_task(self.pump())",
        ),
        ("client/bulk.py", "def start(self):\n    self.task = self.loop.create_task(self.pull())"),
        ("pool/pool.py", "@dataclass(frozen=True, kw_only=True)\nclass Limits: ..."),
        ("pool/pool.py", "def rearm(self):\n    return self.timeout(5)"),
        (
            "client/client.py",
            "from ..message import Message\nasync def send():\n    async with asyncio.timeout(5): ...",
        ),
        ("__init__.py", "from .client.client import SMTPClient"),
        ("cli/demo.py", "from ..testing.server import Server"),
    ],
)
def test_a_rule_lets_pass(tmp_path: Path, name: str, source: str) -> None:
    assert complaints(tmp_path, name, source) == []


@pytest.mark.parametrize(
    ("back", "closed"),
    [
        ("from .job import Job", True),
        ("from . import job", True),
        ("from ..connection import job", True),
        ("import smtp_async.connection.job", True),
        ("def late():\n    from .job import Job", True),
        ("if TYPE_CHECKING:\n    from .job import Job", True),
        ("from . import Session", True),
        ("from .clock import Clock", False),
        ("from ..model.reply import Reply", False),
    ],
)
def test_a_circle_is_found(tmp_path: Path, back: str, closed: bool) -> None:
    sources = {"__init__": "from .job import Job", "job": "from .upload import Upload", "upload": back}
    sources["clock"] = ""
    (tmp_path / "connection").mkdir()
    for name, source in sources.items():
        (tmp_path / "connection" / f"{name}.py").write_text(source)
    assert bool(circle(Module(path, tmp_path) for path in tmp_path.rglob("*.py"))) is closed
