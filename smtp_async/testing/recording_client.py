"""`RecordingClient`: an `SMTPClient` for unit tests, without a network.

    client = RecordingClient()
    client.refuse("bob@example.org")
    await client.send(message)
    assert client.outbox.one(to="ann@example.org").subject == "Welcome"

Strategy. Only the server is replaced: the client is the real one, and speaks over a pair of sockets with a
`ScriptedServer` in the same event loop. So arguments are checked, messages rendered, and receipts and errors made by
the code that an application runs in production, and a rule of a test is a reply of the server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple, Self

from ..auth.credentials import Credentials, TokenProvider
from ..client.client import SMTPClient
from ..client.options import ClientOptions, as_secret, demand_domain
from ..connection.route import Login
from ..errors import InvalidArgument
from ..model.address import Address
from ..model.secret import Secret
from ..tls.context import Security
from .grammar import parse_path
from .outbox import Outbox
from .records import ReceivedMessage
from .script import Step
from .server import ScriptedServer

__all__ = ["RecordingClient"]

#: What a rule is about: a recipient, with `*` for any characters, or whether a message is meant.
What = str | Address | Callable[[ReceivedMessage], object]

#: Without PIPELINING, so that a connection that ends with one message has no other one under way.
_EXTENSIONS: Final = ("SIZE 104857600", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
_OPTIONS: Final = ClientOptions()


class _Rule(NamedTuple):
    """What becomes of some recipients or messages."""

    kind: Literal["reply", "unknown"]
    what: What
    code: int
    text: str

    def meets_recipient(self, recipient: str) -> bool:
        return not callable(self.what) and fnmatchcase(recipient.lower(), str(self.what).lower())

    def meets_message(self, message: ReceivedMessage) -> bool:
        """Tell whether the rule is about a message as a whole."""
        if callable(self.what):
            return bool(self.what(message))
        return self.kind == "unknown" and any(map(self.meets_recipient, message.rcpt_tos))


class RecordingClient(SMTPClient):
    """A client that sends nothing, and keeps what it would have sent in `outbox`.

    It is made like an `SMTPClient`, also by `from_url` and `for_provider`, and checks the same arguments. It accepts
    every message until a rule says otherwise; the newest rule that meets a recipient or message is used. TLS and logins
    are not simulated, names are not looked up.

    Attributes:
        outbox: the messages that were accepted, those of unknown outcome included.
    """

    def __init__(
        self,
        host: str = "recording.invalid",
        port: int | None = None,
        *,
        username: str | None = None,
        password: str | Secret | None = None,
        token: str | Secret | TokenProvider | None = None,
        credentials: Credentials | None = None,
        security: Security = Security.AUTO,
        options: ClientOptions = _OPTIONS,
    ) -> None:
        """Make a client; all arguments are those of `SMTPClient`, and nothing is connected to.

        Raises:
            MissingHost, InvalidPort, InvalidArgument, FileError: as `SMTPClient`.
        """
        password, token = as_secret(password), as_secret(token)
        super().__init__(
            host,
            port,
            username=username,
            password=password,
            token=token,
            credentials=credentials,
            security=security,
            options=options,
        )
        self._route = replace(
            self._route,
            security=Security.PLAINTEXT,
            credentials=None,
            login=Login.MANUAL,
            hello=self._route.hello or "recording.invalid",
            proxies=(),
            dialer=self._dial,
        )
        self._server = ScriptedServer(lmtp=self._route.lmtp, extensions=_EXTENSIONS, keep_raw=False)
        self._server.on("RCPT", self._answer_recipient, optional=True)
        self._server.on(".", self._answer_message, optional=True)
        self._rules: list[_Rule] = []
        self.outbox = Outbox(self._server.messages)

    @classmethod
    def for_domain(
        cls,
        domain: str,
        *,
        security: Security = Security.AUTO,
        port: int = 25,
        options: ClientOptions = _OPTIONS,
    ) -> Self:
        """Make a client as `SMTPClient.for_domain`; no mail exchanger is looked up."""
        demand_domain(domain, options)
        return cls(domain, port, security=security, options=options)

    # --- rules -----------------------------------------------------------------------------------------------

    def refuse(self, what: What = "*", *, code: int = 550, text: str = "5.7.1 refused by the test") -> None:
        """Refuse recipients or messages for good.

        Args:
            what: a recipient, with `*` for any characters; or a function of the message, which is then refused as a
                whole.
            code, text: of the server's reply.

        Raises:
            InvalidArgument: the code is not one of a refusal for good.
        """
        _demand_class(code, 5)
        self._rules.append(_Rule("reply", what, code, text))

    def defer(self, what: What = "*", *, code: int = 451, text: str = "4.7.1 not now, says the test") -> None:
        """Refuse recipients or messages for now.

        Args:
            what, code, text: as for `refuse`.

        Raises:
            InvalidArgument: the code is not one of a refusal for now.
        """
        _demand_class(code, 4)
        self._rules.append(_Rule("reply", what, code, text))

    def unknown(self, what: What = "*") -> None:
        """Accept messages, but let the client not hear of it: `OutcomeUnknown`.

        Args:
            what: a recipient, with `*` for any characters, or a function of the message.
        """
        self._rules.append(_Rule("unknown", what, 0, ""))

    def accept(self) -> None:
        """Drop all rules: accept every message."""
        self._rules.clear()

    # --- the server ------------------------------------------------------------------------------------------

    async def _dial(self, host: str, port: int) -> socket.socket:
        """Connect to the server in this process."""
        ours, theirs = socket.socketpair()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._server.connection, theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return ours

    async def _answer_recipient(self, step: Step) -> None:
        path = parse_path(step.command.argument, "TO:")
        recipient = "" if path is None else path[0]
        rule = next((one for one in reversed(self._rules) if one.meets_recipient(recipient)), None)
        if rule is not None and rule.kind == "reply":
            step.reply(rule.code, rule.text)
        else:
            step.default()

    async def _answer_message(self, step: Step) -> None:
        envelope = step.connection.dialogue.envelope
        assert envelope is not None
        recipients = [recipient for recipient, _ in envelope.recipients]
        message = ReceivedMessage(envelope.sender, recipients, envelope.data.getvalue(), envelope.parameters)
        rule = next((one for one in reversed(self._rules) if one.meets_message(message)), None)
        if rule is None:
            step.default()
        elif rule.kind == "reply":
            step.reply(rule.code, rule.text)
        else:
            step.default(silent=True)
            await step.connection.close()

    async def close(self) -> None:
        """Close the client, and end the connections of the server in this process."""
        await super().close()
        loop = asyncio.get_running_loop()
        # Those of an event loop that was closed have ended with it.
        live = [one for one in self._server.live if one.gone.get_loop() is loop]
        for connection in live:
            connection.transport.abort()
        tasks = [task for task in self._server.tasks if task.get_loop() is loop]
        await asyncio.gather(*tasks, *[one.gone for one in live])
        if self._server.failures:
            # A function of the test raised it.
            raise self._server.failures[0]


def _demand_class(code: int, digit: int) -> None:
    if not isinstance(code, int) or code // 100 != digit:
        raise InvalidArgument(f"the code of this reply is between {digit}00 and {digit}99, not {code}")
