"""The mistakes of beginners, each as a program that makes it; the manual shows what the library says to each.

`python -m tests.mistakes` writes the table of docs/reference/mistakes.md anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smtp_async import (
    ClientOptions,
    Message,
    Security,
    SMTPClient,
    Timeouts,
    TLSOptions,
    TrustOptions,
    send_blocking,
)
from smtp_async.testing import ScriptedServer, raw, stall

HOST: Final = "smtp.example.com"
DATE: Final = datetime(2026, 1, 2, tzinfo=UTC)
PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "mistakes.md"
HEAD: Final = "| mistake | error | what it says |\n|---|---|---|\n"
#: By what was done, in the order of the table.
MISTAKES: dict[str, Callable[[Lab], Coroutine[Any, Any, None]]] = {}


def letter(**fields: Any) -> Message:
    return Message(
        **{
            "sender": "ann@example.com",
            "to": "bob@example.org",
            "subject": "Hi",
            "text": "Hi",
            "date": DATE,
            **fields,
        }
    )


class Lab:
    """Servers that are called smtp.example.com."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA(organization_name="Example Ltd", organization_unit_name="CA")
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(HOST).configure_cert(self.context)
        self.trust = TLSOptions(trust=TrustOptions(ca_file=folder / "ca.pem"))

    @contextlib.asynccontextmanager
    async def client(
        self, port: int = 587, *, server: dict[str, Any] | None = None, **arguments: Any
    ) -> AsyncIterator[SMTPClient]:
        """Give a client whose server listens elsewhere: as a usual one, or with other options, a `script` included."""
        options = {"ssl_context": self.context, "users": {"ann": "secret"}, **(server or {})}
        script = options.pop("script", {})
        async with ScriptedServer(**options) as there:
            for point, actions in script.items():
                there.on(point, *actions, optional=True)

            async def dial(host: str, port: int) -> socket.socket:
                sock = socket.socket()
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, (there.host, there.port))
                return sock

            given = arguments.pop("options", ClientOptions(tls=self.trust))
            async with SMTPClient(
                HOST, port, options=replace(given, dialer=dial, hello="client.test"), **arguments
            ) as client:
                yield client


def mistake(
    title: str,
) -> Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], Callable[[Lab], Coroutine[Any, Any, None]]]:
    def keep(
        function: Callable[[Lab], Coroutine[Any, Any, None]],
    ) -> Callable[[Lab], Coroutine[Any, Any, None]]:
        MISTAKES[title] = function
        return function

    return keep


@mistake("The port is that of another service")
async def wrong_port(lab: Lab) -> None:
    async with lab.client(
        993,
        security=Security.IMPLICIT,
        server={"implicit_tls": True, "script": {"GREETING": (raw(b"* OK IMAP ready\r\n"),)}},
    ) as client:
        await client.send(letter())


@mistake("The port expects TLS later: `Security.IMPLICIT` on port 587")
async def wrong_tls_mode(lab: Lab) -> None:
    async with lab.client(587, security=Security.IMPLICIT) as client:
        await client.send(letter())


@mistake("The password is wrong")
async def wrong_password(lab: Lab) -> None:
    async with lab.client(username="ann", password="seceret") as client:
        await client.send(letter())


@mistake("`await` is missing before `client.send(…)`")
async def missing_await(lab: Lab) -> None:
    async with lab.client() as client:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shown: list[Any] = []
            # Python warns when the coroutine is collected, and nobody could catch an error there.
            before, sys.unraisablehook = sys.unraisablehook, shown.append
            try:
                client.send(letter())  # type: ignore[unused-coroutine]  # this is the mistake
                gc.collect()
            finally:
                sys.unraisablehook = before
        raise shown[0].exc_value


@mistake("The company's own authority (CA) is not trusted")
async def missing_authority(lab: Lab) -> None:
    # Not those of the machine, some of which cryptography warns of.
    file = lab.folder / "public.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    async with lab.client(options=ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=file)))) as client:
        await client.send(letter())


@mistake("The message has no recipient")
async def no_recipients(lab: Lab) -> None:
    async with lab.client() as client:
        await client.send(letter(to=[]))


@mistake("An address has a typing error")
async def typing_error(lab: Lab) -> None:
    letter(to="bob@example..org")


@mistake("A header field has a line end")
async def line_end(lab: Lab) -> None:
    async with lab.client() as client:
        await client.send(letter(subject="Hi\r\nBcc: eve@example.net"))


@mistake("Bytes are given for a subject")
async def octets(lab: Lab) -> None:
    async with lab.client() as client:
        await client.send(letter(subject=b"Hi"))


@mistake("The client is closed already")
async def closed(lab: Lab) -> None:
    async with lab.client() as client:
        pass
    await client.send(letter())


@mistake("A client is used in two event loops")
async def two_loops(lab: Lab) -> None:
    async with lab.client() as client:
        await client.send(letter())
        await asyncio.to_thread(lambda: asyncio.run(client.send(letter())))


@mistake("`send_blocking` is called in a coroutine")
async def blocking_call(lab: Lab) -> None:
    send_blocking(letter(), url=f"smtp://{HOST}")


@mistake("Two tasks use one session")
async def shared_session(lab: Lab) -> None:
    async with lab.client() as client, client.session() as session:
        await session.connect()
        await asyncio.gather(session.send(letter()), session.send(letter()))


@mistake("The path of a file is given as a text")
async def path_as_text(lab: Lab) -> None:
    letter().attach("report.pdf")  # type: ignore[arg-type]  # this is the mistake


@mistake("The file of an attachment does not exist")
async def missing_file(lab: Lab) -> None:
    message = letter()
    message.attach(Path("/srv/reports/report.pdf"))
    async with lab.client() as client:
        await client.send(message)


@mistake("The subject is None")
async def no_subject(lab: Lab) -> None:
    async with lab.client() as client:
        receipt = await client.send(letter(subject=None))
        assert receipt.accepted


@mistake("The sender is None")
async def no_sender(lab: Lab) -> None:
    async with lab.client() as client:
        await client.send(letter(sender=None))


@mistake("The message is larger than the server allows")
async def too_large(lab: Lab) -> None:
    async with lab.client(server={"extensions": ("SIZE 1000",)}) as client:
        await client.send(letter(text="much text\n" * 500))


@mistake("The server is not running")
async def server_down(lab: Lab) -> None:
    async def refused(host: str, port: int) -> socket.socket:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "")

    async with SMTPClient(HOST, options=ClientOptions(dialer=refused)) as client:
        await client.send(letter())


@mistake("The name of the server has a typing error")
async def no_such_host(lab: Lab) -> None:
    async with SMTPClient("smpt.example.invalid") as client:
        await client.send(letter())


@mistake("The server does not answer in time")
async def no_answer(lab: Lab) -> None:
    times = Timeouts(greeting=0.1)
    async with lab.client(
        options=ClientOptions(tls=lab.trust, timeouts=times), server={"script": {"GREETING": (stall(),)}}
    ) as client:
        await client.send(letter())


@mistake("The server's certificate is self-signed")
async def self_signed(lab: Lab) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = lab.folder / "self-signed.pem"
    private = key.private_bytes(pem, form, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    async with lab.client(server={"ssl_context": context}) as client:
        await client.send(letter())


@mistake("A password would be sent in clear")
async def password_in_clear(lab: Lab) -> None:
    async with lab.client(
        25, username="ann", password="secret", security=Security.PLAINTEXT, server={"ssl_context": None}
    ) as client:
        await client.send(letter())


@mistake("The server does not know addresses with umlauts")
async def unicode_address(lab: Lab) -> None:
    async with lab.client(server={"extensions": ("8BITMIME",)}) as client:
        await client.send(letter(to="jürgen@example.org"))


@mistake("An option is misspelt, or one of another library")
async def unknown_option(lab: Lab) -> None:
    Message(sender="ann@example.com", to="bob@example.org", body="Hi")  # type: ignore[call-arg]  # this is the mistake


@mistake("A provider is misspelt")
async def wrong_preset(lab: Lab) -> None:
    SMTPClient.for_provider("gmial", username="ann@gmail.com", password="secret")


def said(title: str) -> str:
    """Make a mistake in a loop of its own; return the row of the table with the error."""
    error: Exception | None = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(MISTAKES[title](Lab(Path(folder))))
        except Exception as caught:
            error = caught
    if error is None:
        return f"| {title} | none | the message is sent without this field |"
    return f"| {title} | `{type(error).__name__}` | {error} |"


if __name__ == "__main__":
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(HEAD)
    PAGE.write_text(before + HEAD + "\n".join(map(said, MISTAKES)) + "\n", encoding="utf-8")
