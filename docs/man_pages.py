"""Write the manual pages of the commands, `docs/man/*.1`, from their help texts.

    python docs/draw.py

does it, too. `tests/test_man_pages.py` makes the pages again and compares, so that they are never older than the code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from smtp_async.cli.app import app
from smtp_async.cli.exits import EXPLAINED

FOLDER = Path(__file__).parent / "man"
PROGRAM = "smtp-async"
#: The variables of the environment, with what they hold.
ENVIRONMENT = {
    "SMTP_ASYNC_CONFIG": "The configuration file.",
    "SMTP_ASYNC_SPOOL": "The directory or the database of the queue.",
    "SMTP_ASYNC_PASSWORD": "The password for the login.",
    "SMTP_ASYNC_PROXY_PASSWORD": "The password for the proxy.",
    "SMTP_ASYNC_KEY_PASSWORD": "The password of the key of a certificate.",
    "SMTP_ASYNC_CLIENT_SECRET": "The secret of the application that asks for a token.",
    "SMTP_ASYNC_DKIM_PASSWORD": "The password of a key for DKIM.",
    "SMTP_ASYNC_SMIME_PASSWORD": "The password of a key for S/MIME.",
}
FILES = {
    "~/.config/smtp-async/config.toml": "The configuration file of the user; XDG_CONFIG_HOME is respected.",
    "/etc/xdg/smtp-async/config.toml": "That of the machine, if the user has none.",
}


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    return {f"{name}.1": _page(name, command) for name, command in _commands(PROGRAM, _front())}


def _front() -> Any:
    return typer.main.get_command(app)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from _commands(f"{name}-{word}", inner)


def _page(name: str, command: Any) -> str:
    text = inspect.cleandoc(command.help or "")
    summary, _, rest = text.partition("\n\n")
    called = "sendmail" if name.endswith("-sendmail") else ""
    lines = [
        f'.TH "{_plain(name.upper())}" "1" "" "smtp_async" "User Commands"',
        ".SH NAME",
        f"{_plain(name)} \\- {_plain(' '.join(summary.split()).rstrip('.').replace('`', ''))}",
        ".SH SYNOPSIS",
        f"\\fB{_plain(_words(name, command))}\\fR {_usage(command)}".rstrip(),
    ]
    if called:
        lines += [".br", f"\\fB{_plain(name)}\\fR {_usage(command)}"]
    lines += [".SH DESCRIPTION", *_text(summary), *_text(rest)]
    if inner := getattr(command, "commands", None):
        lines += [".SH COMMANDS"]
        for word, one in inner.items():
            first = inspect.cleandoc(one.help or "").partition("\n\n")[0]
            lines += [".TP", f"\\fB{_plain(f'{name}-{word}')}\\fR(1)", _line(first)]
    for kind, heading in (("argument", "ARGUMENTS"), ("option", "OPTIONS")):
        found = [one for one in command.params if one.param_type_name == kind and not _hidden(one)]
        if found:
            lines += [f".SH {heading}"]
            for parameter in found:
                lines += _parameter(parameter)
    if not called:
        lines += [".SH EXIT STATUS", *_text(EXPLAINED.partition("\n\n")[2])]
    variables = {one: text for one, text in ENVIRONMENT.items() if not (called and one.endswith("SPOOL"))}
    lines += [".SH ENVIRONMENT", *_list(variables), ".SH FILES", *_list(FILES), *_see_also(name)]
    return "\n".join(lines) + "\n"


def _words(name: str, command: Any) -> str:
    """Return the command as it is typed: `smtp-async queue add` for `smtp-async-queue-add`."""
    rest = name.removeprefix(PROGRAM).removeprefix("-")
    words: list[str] = [PROGRAM]
    node = _front()
    while rest:
        word = max((one for one in node.commands if f"{rest}-".startswith(f"{one}-")), key=len)
        words.append(word)
        node, rest = node.commands[word], rest[len(word) + 1 :]
    return " ".join(words)


def _usage(command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    parts = ["[\\fIOPTION\\fR]..."] if any(one.param_type_name == "option" for one in command.params) else []
    if getattr(command, "commands", None):
        parts.append("\\fICOMMAND\\fR")
    for one in arguments:
        word = _metavar(one)
        parts.append(_plain(word if one.required or "[" in word else f"[{word}]"))
    return " ".join(parts)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _hidden(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _parameter(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        term = f"\\fI{_plain(_metavar(parameter))}\\fR"
    else:
        term = ", ".join(
            f"\\fB{_plain(one)}\\fR" for one in (*sorted(parameter.opts, key=len), *parameter.secondary_opts)
        )
        if not parameter.is_flag:
            term += f" \\fI{_plain(_value(parameter))}\\fR"
    help = parameter.help or ""
    if parameter.envvar:
        help += f" By default that of {parameter.envvar}."
    return [".TP", term, _line(help)]


def _value(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    choices = getattr(getattr(parameter, "type", None), "choices", None)
    choices = choices or getattr(getattr(parameter, "type_descriptor", None), "choices", None)
    if choices:
        return "|".join(str(getattr(one, "value", one)) for one in choices)
    return str(parameter.name.upper().replace("_", "-"))


def _text(text: str) -> list[str]:
    """Return paragraphs and lists."""
    lines: list[str] = []
    for paragraph in filter(None, text.strip().split("\n\n")):
        if paragraph.startswith("* "):
            for item in re.split(r"\n(?=\* )", paragraph):
                lines += [".IP \\(bu 2", _line(item[2:])]
        elif paragraph.startswith("Example: "):
            lines += [".PP", "Example:", ".PP", ".RS 4", ".nf", _plain(paragraph[9:]), ".fi", ".RE"]
        else:
            lines += [".PP", _line(paragraph)]
    return lines


def _list(entries: dict[str, str]) -> list[str]:
    return [line for name, text in entries.items() for line in (".TP", _plain(name), _line(text))]


def _see_also(name: str) -> list[str]:
    others = [one for one, _ in _commands(PROGRAM, _front()) if one != name]
    # The pages above and below this one.
    near = [one for one in others if name.startswith(f"{one}-") or one.startswith(f"{name}-")]
    named = ", ".join(f"\\fB{_plain(one)}\\fR(1)" for one in sorted(near))
    return [".SH SEE ALSO", named] if near else []


def _line(text: str) -> str:
    """Return a paragraph as one line; words in backquotes are bold."""
    parts = _plain(" ".join(text.split())).split("`")
    return "".join(f"\\fB{part}\\fR" if number % 2 else part for number, part in enumerate(parts))


def _plain(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    escaped = "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in escaped)
    return re.sub(r"^(?=[.'])", r"\\&", escaped, flags=re.MULTILINE)


def write_pages() -> None:
    """Write the pages that have changed, and remove those of commands that are gone."""
    made = pages()
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.1"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print("drawn", path.relative_to(FOLDER.parent))


if __name__ == "__main__":
    write_pages()
