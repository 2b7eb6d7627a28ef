"""The command line of `sendmail`, as cron, PHP, git and mail programs write it.

Strategy. Options end at the first argument that is none, so that a recipient can never become one. The value of an
option may be attached or be the next argument. What only makes sense for the queue, log or daemon of another program is
accepted and ignored, as the programs that take the place of sendmail do; what asks for something that is not done here
is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from ..errors import InvalidArgument
from ..model.dsn import DSN, Return
from ..model.reply import printable

__all__ = ["Mode", "SendmailOptions", "parse_sendmail"]


class Mode(Enum):
    """What `sendmail` does."""

    MESSAGE = "m"
    SMTP = "s"
    QUEUE = "p"
    NOTHING = "i"
    HELP = "help"
    VERSION = "version"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendmailOptions:
    """What a command line says.

    Attributes:
        mode: what to do.
        recipients: the arguments, each an address or a list of addresses.
        header: read recipients from To, Cc and Bcc, too (`-t`).
        dots: a line with only a dot does not end the message (`-i`).
        sender: the envelope sender (`-f`); `<>` for none.
        name: the full name of the author (`-F`), for a message without From.
        dsn: which reports about the recipients to request (`-N`).
        ret, envid: what reports return, and a name for the envelope (`-R`, `-V`).
        account, config, spool: as for the other commands.
    """

    mode: Mode = Mode.MESSAGE
    recipients: tuple[str, ...] = ()
    header: bool = False
    dots: bool = False
    sender: str | None = None
    name: str | None = None
    dsn: DSN | None = None
    ret: Return | None = None
    envid: str | None = None
    account: str | None = None
    config: Path | None = None
    spool: str | None = None


_Change = Callable[[SendmailOptions, str], SendmailOptions]

#: Names under which the program is called without options.
_NAMES: Final = {"mailq": Mode.QUEUE, "newaliases": Mode.NOTHING}
#: Options without a value, and with one, that are ignored.
_IGNORED: Final = frozenset("EGImnUcvwx")
_IGNORED_WITH_VALUE: Final = frozenset("ABDLMOPXehlpT")
#: Options whose value is only ever attached.
_ATTACHED: Final = frozenset("do")


def _mode(options: SendmailOptions, value: str) -> SendmailOptions:
    if value not in ("m", "s", "p", "i"):
        raise InvalidArgument(f"-b{printable(value)} is not supported: -bm, -bs, -bp and -bi are")
    return replace(options, mode=Mode(value))


def _notify(options: SendmailOptions, value: str) -> SendmailOptions:
    return replace(options, dsn=DSN.parse(f"NOTIFY={value}"))


def _ret(options: SendmailOptions, value: str) -> SendmailOptions:
    try:
        return replace(options, ret=Return(value.upper()))
    except ValueError:
        raise InvalidArgument(f"-R is full or hdrs, not {printable(value)}") from None


def _old(options: SendmailOptions, value: str) -> SendmailOptions:
    return replace(options, dots=True) if value == "i" else options


_FLAGS: Final[dict[str, _Change]] = {
    "t": lambda options, _: replace(options, header=True),
    "i": lambda options, _: replace(options, dots=True),
}
_VALUES: Final[dict[str, _Change]] = {
    "b": _mode,
    "f": lambda options, value: replace(options, sender=value),
    "r": lambda options, value: replace(options, sender=value),
    "F": lambda options, value: replace(options, name=value),
    "C": lambda options, value: replace(options, config=Path(value)),
    "N": _notify,
    "R": _ret,
    "V": lambda options, value: replace(options, envid=value),
    "o": _old,
}
_LONG: Final[dict[str, _Change]] = {
    "account": lambda options, value: replace(options, account=value),
    "config": lambda options, value: replace(options, config=Path(value)),
    "spool": lambda options, value: replace(options, spool=value),
}


def parse_sendmail(arguments: Sequence[str], program: str = "sendmail") -> SendmailOptions:
    """Return what a command line says.

    Args:
        arguments: without the name of the program.
        program: that name, or its path: `mailq` and `newaliases` are `-bp` and `-bi`.

    Raises:
        InvalidArgument: an option is unknown or not supported, or its value is missing or wrong.
    """
    options = SendmailOptions(mode=_NAMES.get(os.path.basename(program), Mode.MESSAGE))
    rest = [*arguments]
    while rest and rest[0].startswith("-") and rest[0] != "-":
        argument = rest.pop(0)
        if argument == "--":
            break
        if argument.startswith("--"):
            options = _long(options, argument[2:], rest)
        else:
            options = _cluster(options, argument[1:], rest)
    return replace(options, recipients=(*rest,))


def _long(options: SendmailOptions, text: str, rest: list[str]) -> SendmailOptions:
    name, equals, value = text.partition("=")
    if name in ("help", "version"):
        return replace(options, mode=Mode(name))
    change = _LONG.get(name)
    if change is None:
        raise InvalidArgument(f"there is no option --{printable(name)}")
    if not equals:
        value = _next(f"--{name}", rest)
    return change(options, value)


def _cluster(options: SendmailOptions, letters: str, rest: list[str]) -> SendmailOptions:
    """Read the options of one argument: flags, and perhaps an option with a value at the end."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter == "q":
            raise InvalidArgument("-q is not supported: smtp-async process sends the mail of a queue")
        if (flag := _FLAGS.get(letter)) is not None:
            options = flag(options, "")
        elif letter not in _IGNORED:
            change = _VALUES.get(letter)
            if change is None and letter not in _IGNORED_WITH_VALUE | _ATTACHED:
                raise InvalidArgument(f"there is no option -{printable(letter)}")
            value = letters if letters or letter in _ATTACHED else _next(f"-{letter}", rest)
            return options if change is None else change(options, value)
    return options


def _next(option: str, rest: list[str]) -> str:
    if not rest:
        raise InvalidArgument(f"{option} needs a value")
    return rest.pop(0)
