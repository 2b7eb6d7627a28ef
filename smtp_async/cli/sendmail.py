"""`smtp-async sendmail`, or `smtp-async-sendmail` in place of `/usr/sbin/sendmail`: mail from programs.

Strategy. The message is put into a spool, if there is one, or else delivered at once by an account. The exit code is
one of `sysexits.h`, and what went wrong is a line on standard error, because the callers are programs that keep both.
The program must not be setuid: it obeys variables and files of the user who calls it.

Programs start it for each message, so what a call does not need is not imported: the client without an account that
delivers, the server without `-bs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, NamedTuple

import typer
from typer.core import TyperCommand

from ..about import build_info
from ..errors import InvalidArgument, SMTPError, UsageError
from ..model.address import Address
from ..model.dsn import DSN, Return
from ..model.envelope import NOBODY
from ..model.receipt import Outcome, Receipt
from ..protocol.options import SendOptions
from .configuration import Account, Configuration, find_configuration, read_configuration
from .local_mail import Letter, Origin, complete, read_message
from .output import Output, sentence
from .sendmail_options import Mode, SendmailOptions, parse_sendmail
from .spools import open_spool
from .sysexits import SysExit, sysexit_for_error, sysexit_for_receipt

if TYPE_CHECKING:
    from ..client.client import SMTPClient
    from ..model.signing import MessageSigner
    from ..testing.grammar import ServerReply

__all__ = ["RawCommand", "run_sendmail", "sendmail"]

#: Seconds for the delivery of a message without a spool.
_DEADLINE: Final = 120.0
_RETURNS: Final = {one.value: one for one in Return}

#: What a client of `-bs` is told.
_REPLIES: Final = {
    SysExit.OK: (250, "2.0.0"),
    SysExit.TEMPFAIL: (451, "4.3.0"),
    SysExit.NOUSER: (550, "5.1.1"),
    SysExit.DATAERR: (554, "5.6.0"),
}


class _Result(NamedTuple):
    """What became of a message: the exit code, and a text for each recipient who did not get it."""

    code: SysExit = SysExit.OK
    problems: tuple[str, ...] = ()


_Deliver = Callable[[Letter, SendOptions], Awaitable[_Result]]


class RawCommand(TyperCommand):
    """A command that reads its arguments itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Leave everything but `--help` alone."""
        return super().parse_args(ctx, args if args == ["--help"] else ["--", *args])


def sendmail(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION]... [RECIPIENT]...", help="As sendmail takes them.")
    ] = None,
) -> None:
    """Take a message from a program of this machine, as sendmail does: from standard input.

    The message goes into the spool of the configuration, or is delivered at once by the account.

    * -t: add the recipients in To, Cc and Bcc
    * -i, -oi: a line with only a dot does not end the message
    * -f ADDRESS: where bounces go; -F NAME: the full name of the author
    * -bs: speak SMTP on standard input and output; -bp: list the spool
    * -N never|success,failure,delay, -R full|hdrs, -V ID: reports of delivery
    * --spool PATH|URL, --account NAME, -C FILE or --config FILE: in place of the configuration

    Other options of sendmail are ignored. Exit codes are those of sysexits.h: 75 is a temporary failure.

    Example: smtp-async sendmail -t -i < message.eml
    """
    raise typer.Exit(run_sendmail(arguments or ()))


def run_sendmail(arguments: Sequence[str], program: str = "sendmail") -> int:
    """Do what a command line says, and return the exit code.

    Args:
        arguments: without the name of the program.
        program: that name; `mailq` and `newaliases` say what to do.
    """
    try:
        options = parse_sendmail(arguments, program)
    except UsageError as error:
        return _failed(str(error), SysExit.USAGE)
    try:
        return _run(options)
    except SMTPError as error:
        return _failed(str(error), sysexit_for_error(error))
    except KeyboardInterrupt:
        return _failed("interrupted", SysExit.TEMPFAIL)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        fault = f"{type(error).__name__}: {error}"
        return _failed(f"this is a bug in smtp-async (python -X dev shows where): {fault}", SysExit.SOFTWARE)


def _failed(text: str, code: SysExit) -> SysExit:
    print(f"sendmail: {sentence(text)}", file=sys.stderr)
    return code


def _run(options: SendmailOptions) -> SysExit:
    if options.mode is Mode.NOTHING:
        return SysExit.OK
    if options.mode is Mode.HELP:
        print(sendmail.__doc__)
        return SysExit.OK
    if options.mode is Mode.VERSION:
        print(f"smtp-async {build_info()['smtp_async']}")
        return SysExit.OK
    found = read_configuration(find_configuration(options.config))
    service = _Service.of(options, found)
    with asyncio.Runner() as runner:
        if options.mode is Mode.QUEUE:
            return runner.run(_list(service))
        if options.mode is Mode.SMTP:
            return _converse(runner, service, sys.stdin.buffer, sys.stdout.buffer)
        letter = complete(
            read_message(sys.stdin.buffer, dots=options.dots),
            service.origin,
            recipients=[
                one for text in options.recipients for one in service.origin.recipients(text, dsn=options.dsn)
            ],
            header=options.header,
            sender=options.sender,
            name=options.name,
            dsn=options.dsn,
        )
        result = runner.run(_deliver_one(service, letter, _wishes(options.ret, options.envid)))
        for problem in result.problems:
            _failed(problem, result.code)
        return result.code


class _Service(NamedTuple):
    """Where mail goes: into a spool, or through an account."""

    account: Account | None
    spool: str | None
    origin: Origin

    @classmethod
    def of(cls, options: SendmailOptions, found: Configuration) -> _Service:
        """Return what the options, or else the configuration, say.

        Raises:
            InvalidArgument: they name neither an account nor a spool.
        """
        settings = found.sendmail
        account = found.account(options.account or settings.account)
        # An account that is named delivers, unless a spool is named, too.
        spool = options.spool or (None if options.account else settings.spool)
        if account is None and spool is None:
            where = (
                "there is no configuration file that" if found.path is None else f"{found.path} names neither"
            )
            either = "names an account or" if found.path is None else "a default account nor"
            raise InvalidArgument(f"{where} {either} a spool for sendmail: use --spool or --account")
        address = None if account is None or account.sender is None else Address.parse(account.sender)
        origin = Origin(domain_name=settings.domain, address=address, aliases=settings.aliases)
        return cls(account, spool, origin)

    @contextlib.asynccontextmanager
    async def delivering(self) -> AsyncIterator[_Deliver]:
        """Return a function that delivers letters inside the context."""
        if self.spool is not None:
            async with open_spool(self.spool, sign=self._signatures()) as spool:

                async def put(letter: Letter, wishes: SendOptions) -> _Result:
                    await spool.put(letter.message, sender=letter.sender, recipients=letter.recipients)
                    return _Result()

                yield put
        elif self.account is not None:
            from ..client.options import ClientOptions
            from ..model.timeouts import Timeouts
            from .server import client_for

            options = ClientOptions(timeouts=Timeouts(greeting=30.0), sign=self._signatures())
            access = self.account.access()
            async with client_for(self.account.server, access, options, self.account) as client:
                yield lambda letter, wishes: _send(client, letter, wishes)

    def _signatures(self) -> tuple[MessageSigner, ...]:
        if self.account is None or "dkim_key" not in self.account.defaults:
            return ()
        from .dkim import signing_of

        return signing_of(self.account).signatures(str(self.origin.author))


async def _send(client: SMTPClient, letter: Letter, wishes: SendOptions) -> _Result:
    message, sender, recipients = letter
    try:
        if isinstance(message, bytes):
            receipt = await client.send_raw(
                message, sender=sender, recipients=recipients, options=wishes, deadline=_DEADLINE
            )
        else:
            receipt = await client.send(
                message, sender=sender, recipients=recipients, options=wishes, deadline=_DEADLINE
            )
    except SMTPError as error:
        if (refused := Receipt.of(error)) is None or not refused.refused:
            raise
        receipt = refused
    problems = [
        f"{one.recipient.address}: {one.outcome.value}" + ("" if one.reply is None else f": {one.reply}")
        for one in receipt.verdicts
        if one.outcome is not Outcome.ACCEPTED
    ]
    return _Result(sysexit_for_receipt(receipt), (*problems,))


def _wishes(ret: Return | None, envid: str | None) -> SendOptions:
    # The caller learns of refused recipients; the others get the message, as with other programs.
    return SendOptions(must_accept=NOBODY, dsn_required=False, ret=ret, envid=envid)


async def _deliver_one(service: _Service, letter: Letter, wishes: SendOptions) -> _Result:
    async with service.delivering() as deliver:
        return await deliver(letter, wishes)


async def _list(service: _Service) -> SysExit:
    from .entries import show_all

    if service.spool is None:
        raise InvalidArgument("there is no spool whose mail could be listed: use --spool")
    async with open_spool(service.spool) as spool:
        await show_all(Output(), spool.list(), limit=None, as_json=False)
    return SysExit.OK


# --- SMTP ------------------------------------------------------------------------------------------------------


def _reports(parameters: dict[str, str]) -> DSN | None:
    wanted = parameters.get("NOTIFY")
    return None if wanted is None else DSN.parse(f"NOTIFY={wanted}")


async def _awaited(result: Awaitable[_Result]) -> _Result:
    return await result


def _reply(result: _Result) -> ServerReply:
    from .submission_server import reply_of

    code, enhanced = _REPLIES.get(result.code, (554, "5.0.0"))
    text = "; ".join(result.problems) or ("Ok" if code == 250 else "not sent")
    return reply_of(code, enhanced, text)


def _converse(runner: asyncio.Runner, service: _Service, incoming: BinaryIO, outgoing: BinaryIO) -> SysExit:
    from .submission_server import SubmissionServer

    stack = contextlib.AsyncExitStack()
    deliver = runner.run(stack.enter_async_context(service.delivering()))

    def accept(
        data: bytes, sender: str, parameters: dict[str, str], recipients: list[tuple[str, dict[str, str]]]
    ) -> ServerReply:
        try:
            to = [
                one
                for address, wanted in recipients
                for one in service.origin.recipients(address, dsn=_reports(wanted))
            ]
            letter = complete(data, service.origin, recipients=to, sender=sender)
            wishes = _wishes(_RETURNS.get(parameters.get("RET", "").upper()), parameters.get("ENVID"))
            result = runner.run(_awaited(deliver(letter, wishes)))
        except SMTPError as error:
            result = _Result(sysexit_for_error(error), (str(error),))
        return _reply(result)

    server = SubmissionServer(service.origin.domain, service.origin.recipients, accept)
    try:
        return server.serve(incoming, outgoing)
    finally:
        runner.run(stack.aclose())
