"""Draw what the manual shows of the code: layers, stages of a connection, events, numbers of errors, mechanisms.

Also drawn are the tables of `docs/migrating/`, from `docs/parity.csv`, and the examples for frameworks.

    python docs/draw.py

writes the manual pages (`man_pages.py`), and rewrites the blocks between `<!-- drawn: name -->` and `<!-- end -->` in
place. `tests/test_docs.py` draws them again and compares, so that they are never older than the code.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from smtp_async import errors, events
from smtp_async.auth.select import RANKING
from smtp_async.protocol.states import ANSWERS, WRITES, Stage, Verb

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "smtp_async"
#: They may import anything: arrows from them would hide the others.
OUTSIDE = frozenset({"__init__", "__main__", "about", "cli", "testing", "web"})
BLOCK = re.compile(r"(<!-- drawn: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def states() -> str:
    """Return the diagram of `WRITES` and `ANSWERS`: plain arrows are commands, arrows with digits are answers."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Stage.GREETING.value}"]
    for stage, writes in WRITES.items():
        for target in Stage:
            verbs = [verb.value for verb, following in writes.items() if following is target]
            if verbs:
                lines.append(f"    {stage.value} --> {target.value}: {', '.join(verbs)}")
    for (stage, verb), answers in ANSWERS.items():
        for target in Stage:
            digits = [f"{digit}xx" for digit, following in answers.items() if following is target]
            if digits:
                what = "" if verb is Verb.GREETING else f" to {verb.value}"
                lines.append(f"    {stage.value} --> {target.value}: {' '.join(digits)}{what}")
    lines += [f"    {Stage.STARTTLS.value} --> {Stage.HELLO.value}: TLS is up", "```"]
    return "\n".join(lines) + "\n"


def layers() -> str:
    """Return the diagram of the rooms: an arrow where one imports another, unless a longer way says so."""
    imports = _imports_of_rooms()
    arrows = {
        room: {one for one in found if not _reached(imports, found - {one}, one)}
        for room, found in imports.items()
    }
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"    {room} --> {one}" for room in sorted(arrows) for one in sorted(arrows[room])]
    return "\n".join([*lines, "```"]) + "\n"


def _imports_of_rooms() -> dict[str, set[str]]:
    """Return what each room imports, other rooms only; `errors` and `model` stand together at the bottom."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        room = _room(parts[0])
        if room in OUTSIDE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                above = parts[: len(parts) - node.level]
                names = [node.module.split(".")[0]] if node.module else [one.name for one in node.names]
                found.setdefault(room, set()).update(_room((*above, name)[0]) for name in names)
    return {room: others - {room} - OUTSIDE for room, others in found.items()}


def _room(name: str) -> str:
    return "model" if name == "errors" else name


def _reached(imports: dict[str, set[str]], start: set[str], target: str) -> bool:
    """Is there a way from one of `start` to `target`?"""
    seen, pending = set[str](), [*start]
    while pending:
        room = pending.pop()
        if room == target:
            return True
        if room not in seen:
            seen.add(room)
            pending += imports.get(room, ())
    return False


def event_list() -> str:
    """Return a table of the events with their fields."""
    rows = ["| event | fields | when |", "|---|---|---|"]
    for name in events.__all__:
        cls = getattr(events, name)
        if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls is not events.Event:
            own = [field.name for field in dataclasses.fields(cls) if field.name not in ("session", "job")]
            rows.append(f"| `{name}` | {', '.join(f'`{one}`' for one in own)} | {_first_line(cls)} |")
    return "\n".join(rows) + "\n"


def numbers() -> str:
    """Return a table of the exceptions by number."""
    rows = ["| code | class | meaning |", "|---|---|---|"]
    classes = [getattr(errors, name) for name in errors.__all__]
    for cls in sorted(classes, key=lambda one: (one.code, one.__name__)):
        rows.append(f"| {_codes(cls)} | `{cls.__name__}` | {_first_line(cls)} |")
    return "\n".join(rows) + "\n"


def _codes(cls: type[errors.SMTPError]) -> str:
    """Return the number of a class, or the range where it takes one of several."""
    shared = sorted(number for number, one in errors.BY_NUMBER.items() if one is cls)
    if cls is errors.SettingInUse:
        return ", ".join(map(str, shared))
    if len(shared) > 1:
        return f"{shared[0]}–{shared[-1]}"
    return str(cls.code)


def mechanisms() -> str:
    """Return a table of the mechanisms in the order of their choice."""
    rows = ["| mechanism | needs | protects | used | why it stands here |", "|---|---|---|---|---|"]
    for place in RANKING:
        one = place.mechanism
        used = f"when named: {place.only_by_name}" if place.only_by_name else "by itself"
        rows.append(
            f"| `{place.name}` | {one.needs.value} | `{one.strength.name}` | {used} | {place.reason} |"
        )
    return "\n".join(rows) + "\n"


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0].replace("|", "\\|")


def members(system: str, *kinds: str) -> str:
    """Return a table of the members of a component: what does their work here."""
    rows = ["| member | here | remark |", "|---|---|---|"]
    with (DOCS / "parity.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            its_system, kind, member = row["id"].split(".", 2)
            if its_system == system and kind in kinds:
                rows.append(f"| `{member}` | {_place(row)} | {_remark(row)} |")
    return "\n".join(rows) + "\n"


def values(system: str) -> str:
    """Return a table of the enumerations of a component; values of which the same is said share a line."""
    found: dict[tuple[str, str, str], list[str]] = {}
    with (DOCS / "parity.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            its_system, kind, member = row["id"].split(".", 2)
            if its_system == system and kind == "enum":
                # The identifiers of macOS have a number before their name.
                member = re.sub(r"\.Mac\.(\w+)\.(\w+)$", r" of macOS.\2 (\1)", member)
                name, _, value = member.rpartition(".")
                if name == "SSLEnabledProtocols.TLS1":
                    name, value = "SSLEnabledProtocols", f"TLS1.{value}"
                found.setdefault((name, _place(row), _remark(row)), []).append(f"`{value}`")
    rows = ["| property or setting | values | here | remark |", "|---|---|---|---|"]
    rows += [
        f"| `{name}` | {', '.join(them)} | {place} | {remark} |"
        for (name, place, remark), them in sorted(found.items(), key=lambda one: one[0][0])
    ]
    return "\n".join(rows) + "\n"


def _place(row: dict[str, str]) -> str:
    python = row["python"].removeprefix("builtins.").removeprefix("smtp_async.")
    return f"`{python}`" if python else "—"


def _remark(row: dict[str, str]) -> str:
    return row["reason"].replace("|", "\\|").replace("<", "&lt;")


def framework(name: str) -> str:
    """Return an example for a framework without its first text, which the page around it says."""
    source = (DOCS.parent / "examples" / "frameworks" / f"{name}.py").read_text(encoding="utf-8")
    return "```python\n" + source.split('"""', 2)[2].lstrip() + "```\n"


FRAMEWORKS = (
    *("fastapi_app", "litestar_app", "aiohttp_app", "quart_app"),
    *("celery_tasks", "taskiq_tasks", "arq_tasks", "django_site"),
)

DRAWINGS: dict[str, Callable[[], str]] = {
    "layers": layers,
    "states": states,
    "events": event_list,
    "numbers": numbers,
    "mechanisms": mechanisms,
    "ipworks_properties": partial(members, "ipworks", "property"),
    "ipworks_settings": partial(members, "ipworks", "config"),
    "ipworks_methods": partial(members, "ipworks", "method"),
    "ipworks_events": partial(members, "ipworks", "event", "field"),
    "ipworks_errors": partial(members, "ipworks", "error"),
    "ipworks_values": partial(values, "ipworks"),
    "secureblackbox_properties": partial(members, "secureblackbox", "property"),
    "secureblackbox_settings": partial(members, "secureblackbox", "config"),
    "secureblackbox_methods": partial(members, "secureblackbox", "method", "event"),
    "secureblackbox_values": partial(values, "secureblackbox"),
    **{name: partial(framework, name) for name in FRAMEWORKS},
    "sockettools_flags": partial(members, "sockettools", "option"),
    "sockettools_members": partial(members, "sockettools", "property", "method", "event", "field"),
}


def drawn(text: str) -> str:
    """Return a page with its blocks drawn anew."""
    return BLOCK.sub(lambda found: found[1] + DRAWINGS[found[2]]() + found[3], text)


if __name__ == "__main__":
    for page in DOCS.rglob("*.md"):
        old = page.read_text(encoding="utf-8")
        if (new := drawn(old)) != old:
            page.write_text(new, encoding="utf-8")
            print("drawn", page.relative_to(DOCS))
    from man_pages import write_pages

    write_pages()
