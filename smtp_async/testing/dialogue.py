"""The strict server, without I/O: the reply that RFC 5321 and its extensions require to each command.

`Dialogue.judge` returns the right reply, and `Dialogue.apply` changes the state by the reply that was sent. The two are
separate because a script may send another reply: after a scripted 250 to MAIL a transaction is open, and after a
scripted 550 it is not, whatever `judge` would have returned.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from .grammar import Command, ServerReply, chunk_size, decode_base64, is_last, parse_path, size_limit
from .mechanisms import STANDARD, Exchange, Mechanism
from .records import ReceivedMessage

STANDARD_EXTENSIONS: Final = (
    "PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING",
)  # fmt: skip

# Parameter → the extension that defines it; an unknown parameter is looked up as an extension of its own name.
_MAIL_PARAMETERS: Final = {
    "SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "AUTH": "AUTH",
    "REQUIRETLS": "REQUIRETLS", "MT-PRIORITY": "MT-PRIORITY", "BY": "DELIVERBY", "MTRK": "MTRK",
    "HOLDFOR": "FUTURERELEASE", "HOLDUNTIL": "FUTURERELEASE", "TRANSID": "CHECKPOINT",
}  # fmt: skip
_RCPT_PARAMETERS: Final = {"NOTIFY": "DSN", "ORCPT": "DSN", "RRVS": "RRVS"}
_HELLOS: Final = frozenset({"EHLO", "HELO", "LHLO"})
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3} ")


_Answer = tuple[int, *tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The kind of server. `ScriptedServer` has arguments of the same names and explains them."""

    hostname: str = "test.invalid"
    lmtp: bool = False
    extensions: Sequence[str] = STANDARD_EXTENSIONS
    users: Mapping[str, str] = field(default_factory=dict)
    mechanisms: Mapping[str, Mechanism] = field(default_factory=lambda: STANDARD)
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    starttls: bool = False
    auth_in_clear: bool = False
    require_tls: bool = False
    require_auth: bool = False

    def limit(self, name: str) -> int | None:
        """Return a number of the LIMITS extension (RFC 9422), None if it is not announced."""
        words = next((e.split()[1:] for e in self.extensions if e.upper().startswith("LIMITS ")), [])
        found = [int(word.partition("=")[2]) for word in words if word.upper().startswith(f"{name}=")]
        return found[0] if found else None


@dataclass(eq=False, slots=True)
class Envelope:
    """An open transaction.

    Attributes:
        sender: Reverse path.
        parameters: The parameters of MAIL.
        recipients: The accepted recipients, with their parameters.
        data: Content so far, in a file because its bytes become those of the message without a copy.
        chunked: A BDAT was received.
        broken: A BDAT was refused; only RSET ends the transaction.
        answered_early: The script answered in the middle of the body.
        turn: Under LMTP, the number of the recipient whose reply after end-of-data is next.
        message: The recorded message, once it is accepted.
    """

    sender: str
    parameters: dict[str, str]
    recipients: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    data: BytesIO = field(default_factory=BytesIO)
    chunked: bool = False
    broken: bool = False
    answered_early: bool = False
    turn: int = 0
    message: ReceivedMessage | None = None


class Dialogue:
    """The state of one conversation."""

    def __init__(self, settings: Settings, number: int, deliver: Callable[[ReceivedMessage], None]) -> None:
        """Start before the greeting.

        Args:
            settings: The kind of server.
            number: Number of the connection.
            deliver: Called with each message when it is accepted.
        """
        self.settings = settings
        self.number = number
        self.envelope: Envelope | None = None
        self.exchange: Exchange | None = None
        self.user: str | None = None
        self.tls = False
        self.greeted = False
        self.esmtp = False
        self.in_data = False
        self.in_auth = False
        self.upgrade = False
        self.over = False
        self.transactions = 0
        self._deliver = deliver
        self._next_user: str | None = None
        self._keywords: frozenset[str] = frozenset(e.split()[0].upper() for e in settings.extensions)
        self._max_size = size_limit(settings.extensions)
        self._enhanced = "ENHANCEDSTATUSCODES" in self._keywords

    # Extensions offered

    def offers(self, keyword: str) -> bool:
        """Return whether EHLO lists a keyword in the present state."""
        if keyword == "STARTTLS":
            return self.settings.starttls and not self.tls
        if keyword == "AUTH":
            exposed = self.settings.starttls and not (self.tls or self.settings.auth_in_clear)
            return self._auth_possible() and not exposed
        return keyword in self._keywords

    def _auth_possible(self) -> bool:
        return bool(self.settings.users) or self.settings.mechanisms is not STANDARD

    def greeting(self) -> ServerReply:
        """Return the 220."""
        protocol = "LMTP" if self.settings.lmtp else "ESMTP"
        return ServerReply(220, (f"{self.settings.hostname} {protocol} ready",))

    def secured(self) -> None:
        """Forget everything learnt before TLS (RFC 3207 §4.2)."""
        self.tls, self.upgrade = True, False
        self.greeted = self.esmtp = False
        self.envelope = self.user = None

    # Replies

    def judge(self, command: Command) -> ServerReply:
        """Return the reply of a strict server.

        Args:
            command: What the client sent.
        """
        if command.verb == "GREETING":
            return self.greeting()
        if command.verb in _HELLOS:
            return self._judge_hello(command)
        judge = _JUDGES.get(command.verb)
        code, *lines = judge(self, command) if judge else (500, "5.5.1 Command not recognised")
        if not self._enhanced:
            lines = [_ENHANCED.sub("", line) for line in lines]
        return ServerReply(code, tuple(lines))

    def _judge_hello(self, command: Command) -> ServerReply:
        if (command.verb == "LHLO") != self.settings.lmtp:
            return ServerReply(500, (f"This is {'LMTP' if self.settings.lmtp else 'SMTP'}",))
        if not command.argument.strip():
            return ServerReply(501, ("Who are you?",))
        if command.verb == "HELO":
            return ServerReply(250, (self.settings.hostname,))
        extra = ["STARTTLS"] if self.offers("STARTTLS") else []
        extra += [" ".join(("AUTH", *self.settings.mechanisms))] if self.offers("AUTH") else []
        return ServerReply(250, (self.settings.hostname, *self.settings.extensions, *extra))

    def _judge_mail(self, command: Command) -> _Answer:
        if not self.greeted:
            return 503, "5.5.1 Say hello first"
        if self.envelope is not None:
            return 503, "5.5.1 Nested MAIL"
        if self.settings.require_tls and not self.tls:
            return 530, "5.7.0 Must issue a STARTTLS command first"
        if self.settings.require_auth and self.user is None:
            return 530, "5.7.0 Authentication required"
        limit = self.settings.limit("MAILMAX")
        if limit is not None and self.transactions >= limit:
            return 452, "4.5.3 Too many messages on this connection"
        parsed = parse_path(command.argument, "FROM:")
        if parsed is None:
            return 501, "5.5.4 Syntax: MAIL FROM:<address>"
        return self._judge_mail_parameters(*parsed) or (250, "2.1.0 Sender ok")

    def _judge_terminal(self, command: Command) -> _Answer:
        """Answer SEND, SOML or SAML (RFC 821 §3.4), which are MAIL where they are offered."""
        return self._judge_mail(command) if self.offers(command.verb) else (502, "5.5.1 Not implemented")

    def _judge_mail_parameters(self, sender: str, parameters: dict[str, str]) -> _Answer | None:
        if refusal := self._unknown_parameter(parameters, _MAIL_PARAMETERS):
            return refusal
        if not sender.isascii() and "SMTPUTF8" not in parameters:
            return 553, "5.6.7 Address needs SMTPUTF8"
        body = parameters.get("BODY", "7BIT").upper()
        if body not in ("7BIT", "8BITMIME") and not (body == "BINARYMIME" and self.offers("BINARYMIME")):
            return 501, "5.5.4 Unknown BODY"
        size = parameters.get("SIZE", "0")
        if not size.isascii() or not size.isdigit():
            return 501, "5.5.4 Bad SIZE"
        if self._max_size and int(size) > self._max_size:
            return 552, "5.3.4 Message too big"
        return None

    def _unknown_parameter(self, parameters: Mapping[str, str], known: Mapping[str, str]) -> _Answer | None:
        for keyword in parameters:
            if not (self.esmtp and self.offers(known.get(keyword, keyword))):
                return 555, f"5.5.4 Parameter {keyword} not recognised"
        return None

    def _judge_rcpt(self, command: Command) -> _Answer:
        if self.envelope is None:
            return 503, "5.5.1 Need MAIL first"
        if self.envelope.chunked:
            return 503, "5.5.1 RCPT after BDAT"
        parsed = parse_path(command.argument, "TO:")
        if parsed is None or not parsed[0]:
            return 501, "5.5.4 Syntax: RCPT TO:<address>"
        if not parsed[0].isascii() and "SMTPUTF8" not in self.envelope.parameters:
            return 553, "5.6.7 Address needs SMTPUTF8"
        limit = self.settings.limit("RCPTMAX")
        if limit is not None and len(self.envelope.recipients) >= limit:
            return 452, "4.5.3 Too many recipients"
        return self._unknown_parameter(parsed[1], _RCPT_PARAMETERS) or (250, "2.1.5 Recipient ok")

    def _judge_data(self, command: Command) -> _Answer:
        if command.argument:
            return 501, "5.5.4 DATA takes no argument"
        if self.envelope is None:
            return 503, "5.5.1 Need MAIL first"
        if self.envelope.chunked or self.envelope.parameters.get("BODY", "").upper() == "BINARYMIME":
            return 503, "5.5.1 Use BDAT"
        if not self.envelope.recipients:
            return 554, "5.5.1 No valid recipients"
        return 354, "End data with <CR><LF>.<CR><LF>"

    def _judge_bdat(self, command: Command) -> _Answer:
        if chunk_size(command.argument) is None:
            return 501, "5.5.4 Syntax: BDAT size [LAST]"
        if not self.offers("CHUNKING"):
            return 500, "5.5.1 Command not recognised"
        if self.envelope is None or self.envelope.broken:
            return 503, "5.5.1 Need MAIL first"
        if not self.envelope.recipients:
            return 554, "5.5.1 No valid recipients"
        return self._judge_size() or (250, f"2.0.0 Ok: {self.envelope.data.tell()} octets so far")

    def _judge_end(self, command: Command) -> _Answer:
        if self.envelope is not None and not self.envelope.recipients:
            return 554, "5.5.1 No valid recipients"
        return self._judge_size() or (250, "2.0.0 Ok: queued")

    def _judge_size(self) -> _Answer | None:
        too_big = self.envelope and self._max_size and self.envelope.data.tell() > self._max_size
        return (552, "5.3.4 Message too big") if too_big else None

    def _judge_bare(self, command: Command) -> _Answer:
        if command.argument:
            return 501, f"5.5.4 {command.verb} takes no argument"
        return (221, "2.0.0 Bye") if command.verb == "QUIT" else (250, "2.0.0 Ok")

    def _judge_starttls(self, command: Command) -> _Answer:
        if command.argument:
            return 501, "5.5.4 STARTTLS takes no argument"
        if self.tls:
            return 503, "5.5.1 TLS is on already"
        return (220, "2.0.0 Ready to start TLS") if self.offers("STARTTLS") else (502, "5.5.1 No TLS here")

    def _judge_expn(self, command: Command) -> _Answer:
        if not command.argument:
            return 501, f"5.5.4 Syntax: {command.verb} name"
        if command.verb == "VRFY":
            return 252, "2.0.0 Cannot verify, will try"
        members = self.settings.lists.get(command.argument)
        if not members:
            return 550, "5.1.1 No such list"
        # RFC 5321 section 3.5.1: each line has an address in angle brackets, a name before it or not.
        return 250, *(f"2.1.5 {one if '<' in one else f'<{one}>'}" for one in members)

    # AUTH

    def _judge_auth(self, command: Command) -> _Answer:
        if not self._auth_possible():
            return 502, "5.5.1 No AUTH here"
        if not self.offers("AUTH"):
            return 538, "5.7.11 Encryption required"
        if not self.esmtp or self.user is not None or self.envelope is not None:
            return 503, "5.5.1 Not now"
        name, _, initial = command.argument.partition(" ")
        mechanism = self.settings.mechanisms.get(name.upper())
        if mechanism is None:
            return 504, "5.5.4 Unknown mechanism"
        first = decode_base64(initial) if initial else None
        if initial and first is None:
            return 501, "5.5.2 Not base64"
        self.exchange = mechanism(self.settings.users, first)
        return self._advance(None)

    def _judge_response(self, command: Command) -> _Answer:
        if command.line == b"*":
            return 501, "5.7.0 Cancelled"
        response = decode_base64(command.line.decode("ascii", "replace"))
        return (501, "5.5.2 Not base64") if response is None else self._advance(response)

    def _advance(self, response: bytes | None) -> _Answer:
        if self.exchange is None:
            return 535, "5.7.8 No exchange"
        try:
            challenge = next(self.exchange) if response is None else self.exchange.send(response)
        except StopIteration as done:
            self._next_user = done.value
            return (235, "2.7.0 Welcome") if done.value is not None else (535, "5.7.8 Credentials refused")
        return 334, base64.b64encode(challenge).decode()

    # State changes

    def apply(self, command: Command, code: int) -> None:
        """Change the state as a client understands the reply.

        Args:
            command: The command that was answered.
            code: The code that was sent.
        """
        effect = _EFFECTS.get(command.verb)
        if effect is not None:
            effect(self, command, code)

    def _apply_hello(self, command: Command, code: int) -> None:
        if code // 100 == 2:
            self.greeted, self.esmtp, self.envelope = True, command.verb != "HELO", None

    def _apply_mail(self, command: Command, code: int) -> None:
        if code // 100 == 2:
            sender, parameters = parse_path(command.argument, "FROM:") or (command.argument, {})
            self.envelope = Envelope(sender, parameters)
            self.transactions += 1

    def _apply_rcpt(self, command: Command, code: int) -> None:
        if code // 100 == 2 and self.envelope is not None:
            self.envelope.recipients.append(parse_path(command.argument, "TO:") or (command.argument, {}))

    def _apply_data(self, command: Command, code: int) -> None:
        self.in_data = code // 100 == 3

    def _apply_end(self, command: Command, code: int) -> None:
        if code // 100 == 2 and self.envelope is not None and self.envelope.recipients:
            self._accept(self.envelope)

    def _apply_bdat(self, command: Command, code: int) -> None:
        if self.envelope is None:
            return
        if code // 100 == 2 and is_last(command.argument) and not self.envelope.broken:
            self._accept(self.envelope)
        elif code // 100 != 2 and not is_last(command.argument):
            self.envelope.broken = self.envelope.chunked

    def _apply_body(self, command: Command, code: int) -> None:
        if self.envelope is not None:
            self.envelope.answered_early = self.envelope.broken = True

    def _apply_reset(self, command: Command, code: int) -> None:
        if code // 100 == 2:
            self.envelope = None

    def _apply_starttls(self, command: Command, code: int) -> None:
        self.upgrade = code // 100 == 2

    def _apply_auth(self, command: Command, code: int) -> None:
        self.in_auth = code // 100 == 3
        if code // 100 == 2:
            self.user = self._next_user if self._next_user is not None else "(scripted)"
        if not self.in_auth:
            self.exchange = self._next_user = None

    def _apply_quit(self, command: Command, code: int) -> None:
        self.over = code // 100 == 2

    def _accept(self, envelope: Envelope) -> None:
        """Record the message; under LMTP add the recipient whose reply is positive."""
        accepted = [envelope.recipients[envelope.turn]] if self.settings.lmtp else envelope.recipients
        if envelope.message is None:
            envelope.message = ReceivedMessage(
                envelope.sender, [], envelope.data.getvalue(), envelope.parameters,
                connection=self.number, tls=self.tls, user=self.user, chunked=envelope.chunked,
            )  # fmt: skip
            self._deliver(envelope.message)
        envelope.message.rcpt_tos.extend(r[0] for r in accepted)
        envelope.message.rcpt_parameters.extend(r[1] for r in accepted)


_JUDGES: Final[Mapping[str, Callable[[Dialogue, Command], _Answer]]] = {
    "MAIL": Dialogue._judge_mail, "RCPT": Dialogue._judge_rcpt, "DATA": Dialogue._judge_data,
    "BDAT": Dialogue._judge_bdat, ".": Dialogue._judge_end, "RSET": Dialogue._judge_bare,
    "QUIT": Dialogue._judge_bare, "NOOP": lambda *_: (250, "2.0.0 Ok"), "VRFY": Dialogue._judge_expn,
    "SEND": Dialogue._judge_terminal, "SOML": Dialogue._judge_terminal, "SAML": Dialogue._judge_terminal,
    "EXPN": Dialogue._judge_expn, "HELP": lambda *_: (214, "2.0.0 See RFC 5321"),
    "STARTTLS": Dialogue._judge_starttls, "AUTH": Dialogue._judge_auth, "RESPONSE": Dialogue._judge_response,
}  # fmt: skip
_EFFECTS: Final[Mapping[str, Callable[[Dialogue, Command, int], None]]] = {
    "EHLO": Dialogue._apply_hello, "HELO": Dialogue._apply_hello, "LHLO": Dialogue._apply_hello,
    "MAIL": Dialogue._apply_mail, "RCPT": Dialogue._apply_rcpt, "DATA": Dialogue._apply_data,
    "BDAT": Dialogue._apply_bdat, ".": Dialogue._apply_end, "BODY": Dialogue._apply_body,
    "SEND": Dialogue._apply_mail, "SOML": Dialogue._apply_mail, "SAML": Dialogue._apply_mail,
    "RSET": Dialogue._apply_reset, "QUIT": Dialogue._apply_quit, "STARTTLS": Dialogue._apply_starttls,
    "AUTH": Dialogue._apply_auth, "RESPONSE": Dialogue._apply_auth,
}  # fmt: skip
