"""TLS for the test server, on memory buffers.

Our own layer instead of `loop.start_tls`: the same code on every event loop, the wire bytes stay visible,
and a script can write in clear in the middle of it.
"""

from __future__ import annotations

import contextlib
import ssl


class TLSLayer:
    """The server's end of one TLS connection: wire bytes in, clear bytes out, and back.

    Attributes:
        object: Python's TLS object.
        ready: The handshake is done.
        ended: The client sent close_notify.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        """Prepare for a ClientHello."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ready = False
        self.ended = False

    def receive(self, wire: bytes) -> bytes:
        """Take bytes from the socket.

        Returns:
            What they decrypt to, b"" during the handshake.

        Raises:
            ssl.SSLError: The handshake failed or a record is broken.
        """
        self._incoming.write(wire)
        clear = bytearray()
        try:
            if not self.ready:
                self.object.do_handshake()
                self.ready = True
            while piece := self.object.read(65536):
                clear += piece
            # Python returns b"" for the client's close_notify as long as the server has not sent its own.
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return bytes(clear)

    def encrypt(self, clear: bytes) -> bytes:
        """Turn bytes into records, with whatever else was waiting to go out."""
        self.object.write(clear)
        return self.pending()

    def pending(self) -> bytes:
        """Handshake messages and alerts that have to be sent."""
        return self._outgoing.read()

    def end(self) -> bytes:
        """The close_notify to send."""
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        return self.pending()
