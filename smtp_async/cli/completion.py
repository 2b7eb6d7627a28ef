"""`smtp-async completion`: the program with which a shell completes command lines.

The shell calls `smtp-async` for what it shows, so that values that are not known before (accounts) are completed, too.
The command stands in place of typer's two options, which would be in every `--help`.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer
from typer._completion_classes import completion_init
from typer._completion_shared import get_completion_script

__all__ = ["completion"]

# Without typer's options, nothing else does it; it makes the shells' calls understood.
completion_init()


class Shell(Enum):
    """The shells whose command lines are completed."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that will run what is printed.")],
) -> None:
    """Print a program with which a shell completes the command lines of smtp-async.

    * bash: smtp-async completion bash > ~/.local/share/bash-completion/completions/smtp-async
    * zsh, in ~/.zshrc behind compinit: source <(smtp-async completion zsh)
    * fish: smtp-async completion fish > ~/.config/fish/completions/smtp-async.fish
    """
    print(
        get_completion_script(prog_name="smtp-async", complete_var="_SMTP_ASYNC_COMPLETE", shell=shell.value)
    )
