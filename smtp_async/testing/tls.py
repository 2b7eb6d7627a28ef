"""TLS for the test server, on memory buffers.

Used instead of `loop.start_tls`, because it is the same code on every event loop, the wire bytes stay visible, and a
script can write plaintext between the records.
"""

from __future__ import annotations

import contextlib
import ssl


class TLSLayer:
    """The server's end of one TLS connection: decrypts and encrypts bytes, without a socket.

    Attributes:
        object: Python's TLS object.
        ready: The handshake is complete.
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
        """Decrypt bytes from the socket.

        Returns:
            The clear bytes, b"" during the handshake.

        Raises:
            ssl.SSLError: The handshake failed or a record is invalid.
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
        """Return bytes as records, behind the records that are pending."""
        self.object.write(clear)
        return self.pending()

    def pending(self) -> bytes:
        """Return handshake messages and alerts that have to be sent."""
        return self._outgoing.read()

    def end(self) -> bytes:
        """Return the close_notify to send."""
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        return self.pending()
