"""Authorities that revoke, and a web site on loopback that answers for them, or misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from smtp_async.tls.certificate import Certificate

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DER = serialization.Encoding.DER
KEY_COMPROMISE = x509.ReasonFlags.key_compromise


class Entity:
    """A certificate and its key; what it issues is good until it revokes it.

    Attributes:
        certificate: as the package reads it.
        revoked: serial numbers, each with the time and the reason.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = Certificate(certificate.public_bytes(DER))
        self.key = key
        self.revoked: dict[int, tuple[datetime, x509.ReasonFlags]] = {}

    def issue(
        self,
        name: str,
        *,
        ocsp_urls: Sequence[str] = (),
        crl_urls: Sequence[str] = (),
        authority: bool = False,
        extensions: Sequence[x509.ExtensionType] = (),
        valid: tuple[datetime, datetime] = (NOW - 30 * DAY, NOW + 30 * DAY),
        serial: int | None = None,
    ) -> Entity:
        """Return a new certificate that this one signs."""
        key = ec.generate_private_key(ec.SECP256R1())
        found: list[x509.ExtensionType] = [
            x509.BasicConstraints(ca=authority, path_length=None),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            *extensions,
        ]
        if ocsp_urls:
            found.append(
                x509.AuthorityInformationAccess(
                    [
                        x509.AccessDescription(
                            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
                        )
                        for url in ocsp_urls
                    ]
                )
            )
        if crl_urls:
            found.append(
                x509.CRLDistributionPoints(
                    [
                        x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
                        for url in crl_urls
                    ]
                )
            )
        return _signed(name, key, self.certificate.x509.subject, self.key, found, valid, serial)

    def revoke(
        self, whom: Entity, *, since: datetime = NOW - DAY, reason: x509.ReasonFlags = KEY_COMPROMISE
    ) -> None:
        self.revoked[whom.certificate.serial_number] = since, reason

    def crl(
        self,
        *,
        since: datetime = NOW - HOUR,
        until: datetime = NOW + DAY,
        extensions: Sequence[x509.ExtensionType] = (),
        plain_extensions: Sequence[x509.ExtensionType] = (),
        signed_by: Entity | None = None,
        padding: int = 0,
    ) -> bytes:
        """Return the list of what is revoked, in DER.

        Args:
            since, until: its time.
            extensions: more of them, critical.
            plain_extensions: more of them, not critical.
            signed_by: another key than the issuer's own.
            padding: so many entries of strangers besides.
        """
        builder = x509.CertificateRevocationListBuilder(self.certificate.x509.subject, since, until)
        entries = [
            x509.RevokedCertificateBuilder(serial, when).add_extension(x509.CRLReason(reason), False).build()
            for serial, (when, reason) in self.revoked.items()
        ]
        entries += [x509.RevokedCertificateBuilder(n + 10, since).build() for n in range(padding)]
        builder._revoked_certificates = entries  # one by one takes the square of their number
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        for extension in plain_extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign((signed_by or self).key, hashes.SHA256()).public_bytes(DER)

    def response(
        self,
        serial: int,
        *,
        since: datetime = NOW - HOUR,
        until: datetime | None = NOW + DAY,
        known: bool = True,
        hash_algorithm: hashes.HashAlgorithm | None = None,
        responder: Entity | None = None,
        signature: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """Return the OCSP response about a serial number, in DER."""
        responder = responder or self
        status, when, reason = ocsp.OCSPCertStatus.GOOD, None, None
        if serial in self.revoked:
            status = ocsp.OCSPCertStatus.REVOKED
            when, reason = self.revoked[serial]
        if not known:
            status = ocsp.OCSPCertStatus.UNKNOWN
        algorithm = hash_algorithm or hashes.SHA1()
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            _digest(algorithm, self.certificate.x509.subject.public_bytes()),
            _digest(algorithm, _key_bits(self.key)),
            serial,
            algorithm,
            status,
            since,
            until,
            when,
            reason,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate.x509)
        builder = builder.certificates([responder.certificate.x509])
        return builder.sign(responder.key, signature or hashes.SHA256()).public_bytes(DER)

    def responder(self, name: str = "responder", *, allowed: bool = True, **options: Any) -> Entity:
        """Return a delegated OCSP responder (RFC 6960 section 4.2.2.2)."""
        usage = ExtendedKeyUsageOID.OCSP_SIGNING if allowed else ExtendedKeyUsageOID.SERVER_AUTH
        extensions = [x509.ExtendedKeyUsage([usage]), x509.OCSPNoCheck()]
        return self.issue(name, extensions=extensions, **options)

    def answer(self, request: SiteRequest) -> bytes:
        """Answer a posted OCSP request: a page of `Site`."""
        asked = ocsp.load_der_ocsp_request(request.body)
        return self.response(asked.serial_number, hash_algorithm=asked.hash_algorithm)


def new_root(name: str = "Root") -> Entity:
    """Return an authority that signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    extensions = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
    ]
    return _signed(name, key, subject, key, extensions, (NOW - 365 * DAY, NOW + 365 * DAY))


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: Sequence[x509.ExtensionType],
    valid: tuple[datetime, datetime],
    serial: int | None = None,
) -> Entity:
    builder = x509.CertificateBuilder(
        issuer,
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        key.public_key(),
        serial or x509.random_serial_number(),
        *valid,
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return Entity(builder.sign(issuer_key, hashes.SHA256()), key)


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _key_bits(key: ec.EllipticCurvePrivateKey) -> bytes:
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


# --- a web site ----------------------------------------------------------------------------------------------


class SiteRequest(NamedTuple):
    """What a client asked for; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Page(NamedTuple):
    """An answer that is more than a body."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


#: What is at a path: octets, a page, a function that makes them, or one that writes the answer itself.
Content = bytes | Page | Callable[[SiteRequest], bytes | Page]
Writes = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Site:
    """An HTTP server on loopback.

    Attributes:
        pages: by path.
        wild: by path, functions that write whatever they like.
        requests: those that came.
        connections: those that are open.
    """

    def __init__(self, scheme: str = "http") -> None:
        self.pages: dict[str, Content] = {}
        self.wild: dict[str, Writes] = {}
        self.requests: list[SiteRequest] = []
        self.port = 0
        self._scheme = scheme
        self.connections: set[asyncio.StreamWriter] = set()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [one.path for one in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await _request(reader)
            self.requests.append(request)
            if request.path in self.wild:
                await self.wild[request.path](reader, writer)
            else:
                content = self.pages.get(request.path, Page(b"there is no such page", 404))
                found = content(request) if callable(content) else content
                page = Page(found) if isinstance(found, bytes) else found
                headers = {"Content-Length": str(len(page.body)), "Connection": "close", **page.headers}
                head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {page.status} Whatever\r\n{head}\r\n".encode() + page.body)
                await writer.drain()
        writer.close()
        self.connections.discard(writer)

    def abort(self) -> None:
        for writer in self.connections:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def site(context: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    """Run a web site."""
    found = Site("https" if context else "http")
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        found.abort()
        await server.wait_closed()


async def dead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send octets without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Promise a thousand octets and send some of them."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
    await reader.read()


async def _request(reader: asyncio.StreamReader) -> SiteRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return SiteRequest(method, path, headers, body)
