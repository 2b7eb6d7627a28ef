"""The commands and their options; the modules beside this one carry them out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..about import build_info
from ..client.options import ClientOptions
from ..errors import InvalidArgument
from ..model.timeouts import Timeouts
from .accounts import AccountOptions, accounts
from .catch import catch
from .check import check
from .completion import completion
from .demo import demo
from .discover import show_discovery
from .dkim import SigningOptions, dkim_key
from .exits import EXPLAINED
from .message_options import MessageOptions
from .option_groups import grouped
from .options import SETTINGS, Access, Network, Server, Verbose
from .output import Output
from .process import process
from .providers import providers
from .queue import queue
from .send import send
from .sendmail import RawCommand, sendmail
from .server import client_for, client_for_domain, with_access, with_network
from .smime import SMIMEOptions
from .token import token

__all__ = ["app"]


class _Commands(TyperGroup):
    """The commands, whose errors about a value say what is wrong with it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _of_value(error.message)
            raise


def _of_value(problem: str) -> str:
    """Return what is wrong with a value, without the words that typer takes over from its validator."""
    problem = problem.removeprefix("Value error, ").partition(", unable to parse")[0]
    should = problem.removeprefix("Input should be ")
    return problem if should == problem else f"it should be {should}"


app = typer.Typer(
    cls=_Commands,
    help="Send mail, queue it, catch it, check a mail server, get a token for it, or watch a demonstration.",
    epilog=EXPLAINED,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # Tracebacks with local variables could show a password.
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)
app.add_typer(queue, name="queue")
app.command("process", epilog=EXPLAINED)(process)
app.command("catch", epilog=EXPLAINED)(catch)
app.command("token", epilog=EXPLAINED)(token)
app.command("providers", epilog=EXPLAINED)(providers)
app.command("accounts", epilog=EXPLAINED)(accounts)
app.command("completion", epilog=EXPLAINED)(completion)
app.command("sendmail", cls=RawCommand)(sendmail)
app.command("dkim-key", epilog=EXPLAINED)(dkim_key)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Show the versions of the library and of what it runs on.")
    ] = False,
) -> None:
    if version:
        output = Output()
        for name, text in build_info().items():
            output.line(f"{name} {text}")
        raise typer.Exit


@app.command("send", epilog=EXPLAINED)
@grouped
def _send(
    server: Server,
    message: MessageOptions,
    chosen: AccountOptions,
    access: Access,
    signing: SigningOptions,
    smime: SMIMEOptions,
    eml: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A complete message to send unchanged; - is standard input. Without --from and --to, the envelope is "
            "read from its header.",
        ),
    ] = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="Send to the recipients that the server accepts, even if it refuses others. Without it, a refused To "
            "or Cc refuses the message for all.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Seconds for the whole command.")
    ] = 120.0,
    verbose: Verbose = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing unless something is wrong.")
    ] = False,
) -> None:
    """Send one message, and show what became of each recipient.

    Example: echo Hi | smtp-async send --server mail.example.com --user ann --from ann@example.com --to bob@example.org
    """
    output = Output()
    # A TLS port that is spoken to in clear stays silent; the error that says so has to come before the end of all.
    greeting = min(30.0, timeout * 0.5)
    with output.errors_as_sentences():
        account = chosen.chosen()
        if eml is None and account is not None:
            message = message.by(account.sender)
        # A signature by DKIM covers what is sent, so it comes last.
        sign = (*smime.ways(), *signing.signatures(message.sender))
        options = ClientOptions(timeouts=Timeouts(greeting=greeting), sign=sign)
        client = client_for(server, access, options, account)
        code = asyncio.run(
            send(output, client, message, eml, each=each, deadline=timeout, verbose=verbose, quiet=quiet)
        )
    raise typer.Exit(code)


@app.command("check", epilog=EXPLAINED)
@grouped
def _check(
    chosen: AccountOptions,
    access: Access,
    network: Network,
    server: Annotated[
        str | None, typer.Argument(metavar="HOST", help="HOST, HOST:PORT or a URL, as for send.")
    ] = None,
    mx: Annotated[
        str | None,
        typer.Option(metavar="DOMAIN", help="Check the first mail exchanger of DOMAIN that can be reached."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--discover",
            metavar="ADDRESS",
            help="Find the server through which the owner of ADDRESS sends mail. No password is sent.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Seconds for each step.")] = 30.0,
    verbose: Verbose = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Connect to a server and say what it is, what it offers, and what is wrong with it. No mail is sent."""
    limits = Timeouts(
        connect=timeout, tls=timeout, greeting=timeout, hello=timeout, auth=timeout, command=timeout
    )
    output = Output()
    with output.errors_as_sentences():
        if [server, mx, address].count(None) != 2:
            raise InvalidArgument("name a server, or a domain with --mx, or an address with --discover")
        options = with_network(ClientOptions(timeouts=limits), network)
        if address is not None:
            code = asyncio.run(show_discovery(output, address, with_access(options, access), as_json=as_json))
        else:
            client = (
                client_for_domain(mx, access, options)
                if mx
                else client_for(server or "", access, options, chosen.chosen())
            )
            code = asyncio.run(check(output, client, verbose=verbose, as_json=as_json))
    raise typer.Exit(code)


@app.command("demo", epilog=EXPLAINED)
def _demo(
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many messages.")] = 500,
    connections: Annotated[int, typer.Option(min=1, max=100, help="How many connections at most.")] = 10,
) -> None:
    """Send a few hundred real messages to a server inside this process, and show what the server received."""
    output = Output()
    with output.errors_as_sentences():
        code = asyncio.run(demo(output, count=count, connections=connections))
    raise typer.Exit(code)
