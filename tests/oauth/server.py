"""An authorization server on loopback, over https: tests say what it answers, and read what it was asked."""

import json
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

from smtp_async.oauth import Endpoints
from tests.servers.pki import Pki

Form = dict[str, str]


class Reply(NamedTuple):
    """One answer.

    Attributes:
        status: of HTTP.
        body: JSON, or octets to send as they are.
        headers: besides the usual ones.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = {}


Handler = Callable[[Form], Reply]


def token(value: str = "access-1", **more: Any) -> Reply:
    """Issue a token."""
    return Reply(200, {"access_token": value, "token_type": "Bearer", "expires_in": 3600, **more})


def error(code: str, status: int = 400, **more: Any) -> Reply:
    """Refuse."""
    return Reply(status, {"error": code, **more})


class AuthorizationServer:
    """Runs in a thread of its own, with the certificate for this machine or that of `context`.

    Attributes:
        forms: what was asked, in order.
        handler: answers, unless `script` has an answer left.
        script: the next answers.
        open: while it is not set, answers are held back.
        url: the token endpoint.
        context: a client's context that trusts this server.
        asked: set by each request.
    """

    def __init__(
        self, pki: Pki, handler: Handler | None = None, *, context: ssl.SSLContext | None = None
    ) -> None:
        self.forms: list[Form] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[Reply] = []
        self.handler = handler or (lambda form: token())
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.context = pki.client_context()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler_class())
        self._server.daemon_threads = True
        # The handshake belongs to the thread of its connection.
        self._server.socket = (context or pki.server_context()).wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        self.base = f"https://localhost:{self.port}"
        self.url = f"{self.base}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def endpoints(self, **more: Any) -> Endpoints:
        """Return its endpoints."""
        return Endpoints(
            **{
                "name": "local",
                "token": self.url,
                "authorization": f"{self.base}/authorize",
                "device": f"{self.base}/device",
                "scope": "mail.send",
                "application_scope": "mail.app",
                **more,
            }
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, form: Form) -> Reply:
        self.forms.append(form)
        self.asked.set()
        self.open.wait(10)
        return self.script.pop(0) if self.script else self.handler(form)

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        there = self

        class RequestHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                there.paths.append(self.path)
                there.headers.append(dict(self.headers))
                body = self.rfile.read(int(self.headers["Content-Length"])).decode("ascii")
                reply = there.answer(dict(parse_qsl(body, strict_parsing=bool(body))))
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def handle(self) -> None:
                # A client that was cancelled leaves, or does not trust the certificate.
                try:
                    super().handle()
                except (OSError, ssl.SSLError):
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    pass

            def log_message(self, *args: Any) -> None:
                pass

        return RequestHandler
