"""smtp-sink, Postfix's server that takes everything as fast as it comes, and smtp-source, its opposite."""

from pathlib import Path

from tests.servers import machine
from tests.servers.daemon import Daemon, new_directory
from tests.servers.machine import listening

HOSTNAME = "sink.lab.test"


def smtp_source() -> Path:
    """Where smtp-source is; skips the calling test without it."""
    return machine.program("smtp-source")


class Sink:
    """A running smtp-sink: PIPELINING, 8BITMIME, DSN, AUTH that believes everyone; no TLS, SIZE or CHUNKING.

    Its reply to EHLO ends with an empty line (``250`` and a space), as no other server's does.

    Attributes:
        host: Where it listens.
        port: Its port.
    """

    host = machine.HOST
    hostname = HOSTNAME

    def __init__(self, daemon: Daemon, port: int) -> None:
        self._daemon = daemon
        self.port = port

    @classmethod
    def start(cls, *options: str) -> "Sink":
        """Starts one with options of smtp-sink(1); skips the calling test where that cannot be.

        Among them ``-L`` LMTP, ``-e`` HELO only, ``-p`` no PIPELINING, ``-r RCPT`` 450 and ``-f RCPT`` 500
        to a command (``.`` is the end of data), ``-q RCPT`` disconnect, ``-W .:1:1`` delay of a reply.
        """
        sink = machine.program("smtp-sink")
        machine.require_root("smtp-sink -u nobody")
        directory = new_directory("sink")
        with machine.reserved_ports(1) as (port,):
            command: list[str | Path] = [
                sink,
                "-u",
                "nobody",
                "-h",
                HOSTNAME,
                *options,
                f"{cls.host}:{port}",
                "1000",
            ]
            daemon = Daemon(directory, command)
            daemon.wait_ready(lambda: listening(port))
        return cls(daemon, port)

    def stop(self) -> None:
        """Ends it."""
        self._daemon.stop()
