"""`sendmail -bs`: SMTP on standard input and output, for programs that speak it over a pipe.

The dialogue is that of the test kit's strict server. Each message is delivered before its reply is written, and the
reply says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final

from ..errors import InvalidAddress
from ..model.reply import printable
from ..testing.dialogue import Dialogue, Settings
from ..testing.grammar import Command, ServerReply, parse_command, parse_path
from .sysexits import SysExit

__all__ = ["Accept", "SubmissionServer", "reply_of"]

#: Octets of a command, and of a message.
_MAX_COMMAND: Final = 4096
_MAX_MESSAGE: Final = 100 << 20
_EXTENSIONS: Final = (
    "PIPELINING", f"SIZE {_MAX_MESSAGE}", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES",
)  # fmt: skip

_QUOTES: Final = str.maketrans("“”", '""')

#: Takes a message with its envelope, and returns the reply.
Accept = Callable[[bytes, str, dict[str, str], list[tuple[str, dict[str, str]]]], ServerReply]


class SubmissionServer:
    """One conversation.

    Args:
        hostname: the name in the greeting.
        check: raises InvalidAddress for a recipient that cannot be one.
        accept: delivers a message.
    """

    def __init__(self, hostname: str, check: Callable[[str], object], accept: Accept) -> None:
        settings = Settings(hostname=hostname, extensions=_EXTENSIONS)
        self._dialogue = Dialogue(settings, 1, lambda message: None)
        self._check = check
        self._accept = accept

    def serve(self, incoming: BinaryIO, outgoing: BinaryIO) -> SysExit:
        """Converse until QUIT or the end of input.

        Returns:
            0; or a temporary failure if the input ends inside a transaction.
        """
        dialogue = self._dialogue
        self._say(outgoing, dialogue.greeting())
        while not dialogue.over:
            line = incoming.readline(_MAX_COMMAND + 1)
            if not line:
                return SysExit.OK if dialogue.envelope is None else SysExit.TEMPFAIL
            if len(line) > _MAX_COMMAND:
                while line and not line.endswith(b"\n"):
                    line = incoming.readline(_MAX_COMMAND)
                self._say(outgoing, ServerReply(500, ("5.5.2 Line too long",)))
                continue
            command = parse_command(line.rstrip(b"\r\n"))
            reply = self._judge(command)
            dialogue.apply(command, reply.code)
            self._say(outgoing, reply)
            if dialogue.in_data and not self._data(incoming, outgoing, end=_end_of_line(line)):
                return SysExit.TEMPFAIL
        return SysExit.OK

    def _judge(self, command: Command) -> ServerReply:
        reply = self._dialogue.judge(command)
        if command.verb == "RCPT" and reply.code == 250:
            parsed = parse_path(command.argument, "TO:")
            try:
                self._check(parsed[0] if parsed else "")
            except InvalidAddress as error:
                return reply_of(553, "5.1.3", str(error))
        return reply

    def _data(self, incoming: BinaryIO, outgoing: BinaryIO, *, end: bytes) -> bool:
        """Read a message, deliver it and answer; return False if the input ends before it.

        A dot ends the message only between line endings like that of DATA: a program that writes CRLF may have text
        with bare LF in which it does not double lone dots. Others double dots behind bare LF, too, as smtplib does.
        """
        dialogue = self._dialogue
        content = dialogue.envelope.data if dialogue.envelope is not None else None
        before = end
        for line in incoming:
            if line == b"." + end and before.endswith(end):
                self._end(outgoing)
                return True
            before = line
            if line.startswith(b".") and line.rstrip(b"\r\n") != b".":
                line = line[1:]
            # What is too large is read to its end, and then refused.
            if content is not None and content.tell() <= _MAX_MESSAGE:
                content.write(line)
        return False

    def _end(self, outgoing: BinaryIO) -> None:
        dialogue, end = self._dialogue, Command(".")
        envelope = dialogue.envelope
        reply = dialogue.judge(end)
        if reply.code == 250 and envelope is not None:
            data = envelope.data.getvalue()
            reply = self._accept(data, envelope.sender, envelope.parameters, envelope.recipients)
        dialogue.apply(end, reply.code)
        dialogue.in_data, dialogue.envelope = False, None
        self._say(outgoing, reply)

    def _say(self, outgoing: BinaryIO, reply: ServerReply) -> None:
        outgoing.write(reply.encode())
        outgoing.flush()


def reply_of(code: int, enhanced: str, text: str) -> ServerReply:
    """Return a reply with a text of the library, in ASCII."""
    plain = printable(text.translate(_QUOTES), 400)
    return ServerReply(code, (f"{enhanced} {plain.encode('ascii', 'replace').decode()}",))


def _end_of_line(line: bytes) -> bytes:
    return b"\r\n" if line.endswith(b"\r\n") else b"\n"
