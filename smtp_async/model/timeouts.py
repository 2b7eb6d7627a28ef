"""The time limits of all stages."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidArgument

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds for each stage; `None` sets no limit. Any other value raises `InvalidArgument`.

    The defaults are those of RFC 5321 section 4.5.3.2, where it has one. A reply must be complete within its
    stage's time, counted from the last byte of its command: single bytes do not restart the clock.
    """

    #: Name lookup, TCP connection and proxy dialogue together.
    connect: float | None = 30.0
    #: The TLS handshake.
    tls: float | None = 60.0
    #: The greeting of the server, RFC 5321 section 4.5.3.2.1.
    greeting: float | None = 300.0
    #: The reply to EHLO, LHLO or HELO.
    hello: float | None = 300.0
    #: Each reply of an AUTH dialogue.
    auth: float | None = 120.0
    #: The reply to MAIL (or to the RSET before it), RFC 5321 section 4.5.3.2.2.
    mail: float | None = 300.0
    #: The reply to the RSET that tests whether a server reads on behind an end of data, counted from the reply to the
    #: end of data; sent once, before the first envelope is written there. After this time, the messages are sent over
    #: another connection, and for ten minutes nothing is written behind an end of data.
    probe: float | None = 5.0
    #: The reply to each RCPT, RFC 5321 section 4.5.3.2.3.
    rcpt: float | None = 300.0
    #: The 354 to DATA, RFC 5321 section 4.5.3.2.4.
    data: float | None = 120.0
    #: Each block of a body; restarts when the transport has accepted the block.
    block: float | None = 180.0
    #: The reply to the end of data, RFC 5321 section 4.5.3.2.6.
    end_of_data: float | None = 600.0
    #: The reply to any other command.
    command: float | None = 300.0
    #: The reply to QUIT, and the end of TLS behind it (2 s at most); it does not change an outcome.
    quit: float | None = 5.0
    #: How long `close()` waits for running messages.
    close: float | None = 10.0
    #: A whole `client.send`, waiting in the queue included.
    send: float | None = 120.0
    #: Waiting in the queue for a connection.
    queue: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None:
                continue
            # `not >` refuses NaN too.
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise InvalidArgument(
                    f"timeout {name} must be a positive number of seconds or None, not {value!r}"
                )
