"""Connections to servers with revoked certificates: OpenSSL's authority, its responder and its CRL, and dead ones."""

from __future__ import annotations

import contextlib
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from smtp_async import (
    Certificate,
    ChainProblem,
    ClientOptions,
    Message,
    Outcome,
    RevocationOptions,
    RevocationPolicy,
    Security,
    SMTPClient,
    TLSOptions,
    TrustOptions,
)
from smtp_async.connection.route import SharedResources
from smtp_async.errors import CertificateRejected, ChainInvalid, TLSError
from tests.servers.exim import Exim
from tests.servers.openssl_ca import OpenSSLAuthority, openssl_authority
from tests.servers.pki import Leaf, Pki
from tests.servers.postfix import Postfix
from tests.tls.revocation_lab import Entity, Site, dead, new_root, site
from tests.tls.smtp_server import SMTPServer, begin_session, connect, has_resumed, timeless
from tests.transport.lab import serving

P = ChainProblem
WAYS = ["implicit", "STARTTLS", "resumed"]


@pytest.fixture(scope="module")
def openssl() -> Iterator[OpenSSLAuthority]:
    with openssl_authority() as found:
        yield found


def read(authority: OpenSSLAuthority, name: str) -> Certificate:
    return Certificate.load((authority.directory / f"{name}.crt").read_bytes())


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def outcome(
    context: ssl.SSLContext, shown: Certificate, ca: Certificate, way: str, **revocation: Any
) -> tuple[bytes, Any]:
    """Connect on the given way; return what the server heard under TLS, and the error or what was negotiated."""
    security = Security.STARTTLS if way == "STARTTLS" else Security.IMPLICIT
    server, shared = SMTPServer(context, security), timeless()
    options = TLSOptions(
        trust=TrustOptions(ca=[ca], revocation=RevocationOptions(**revocation)), server_hostname="localhost"
    )
    found: Any
    async with serving(server) as listening:
        if way == "resumed":
            await begin_session(listening.port, shared, options, shown, security)
            server.seen.clear()
        try:
            found = (await connect(listening.port, shared, options, security)).info
        except TLSError as error:
            found = error
        await listening.quiet()
        assert way != "resumed" or await has_resumed(listening.port, shared, options)
    return bytes(server.seen), found


@pytest.mark.parametrize("way", WAYS)
class TestOpenSSL:
    @pytest.mark.parametrize("policy", [RevocationPolicy.OCSP, RevocationPolicy.CRL, RevocationPolicy.AUTO])
    async def test_revoked(self, openssl: OpenSSLAuthority, way: str, policy: RevocationPolicy) -> None:
        context = context_of(openssl.directory / "revoked.crt", openssl.directory / "revoked.key")
        heard, error = await outcome(
            context, read(openssl, "revoked"), read(openssl, "ca"), way, policy=policy, deadline=15
        )
        assert heard == b""
        assert type(error) is CertificateRejected and error.validation is not None
        assert error.validation.problems == P.REVOKED
        assert "shows a certificate that was revoked: CN=revoked was revoked on " in str(error)
        assert "(a compromised key)" in str(error)

    async def test_good(self, openssl: OpenSSLAuthority, way: str) -> None:
        context = context_of(openssl.directory / "server.crt", openssl.directory / "server.key")
        heard, info = await outcome(
            context, read(openssl, "server"), read(openssl, "ca"), way, hard_fail=True, deadline=15
        )
        assert heard.startswith(b"EHLO") and info.verified
        assert info.validation.revocation[0].text.startswith(
            "CN=server is not revoked, says http://127.0.0.1:"
        )

    async def test_a_list_that_the_application_has(self, openssl: OpenSSLAuthority, way: str) -> None:
        context = context_of(openssl.directory / "revoked.crt", openssl.directory / "revoked.key")
        crl = (openssl.directory / "ca.crl").read_bytes()
        heard, error = await outcome(
            context,
            read(openssl, "revoked"),
            read(openssl, "ca"),
            way,
            crls=[crl],
            policy=RevocationPolicy.CRL,
        )
        assert heard == b"" and "RevocationOptions.crls" in str(error)


# --- responders that do not answer -----------------------------------------------------------------------------


class Shown:
    """A server's certificate that names a site which never answers, or one that must be stapled."""

    def __init__(self, here: Site, folder: Path, extensions: Sequence[x509.ExtensionType] = ()) -> None:
        here.wild["/ocsp"] = dead
        self.root: Entity = new_root()
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        self.leaf = self.root.issue("leaf", ocsp_urls=[here.url("/ocsp")], extensions=[names, *extensions])
        key = self.leaf.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = folder / "leaf.pem"
        path.write_bytes(key + self.leaf.certificate.pem.encode())
        self.context = context_of(path, path)

    async def outcome(self, way: str, **revocation: Any) -> tuple[bytes, Any]:
        return await outcome(
            self.context, self.leaf.certificate, self.root.certificate, way, deadline=0.3, **revocation
        )


@contextlib.asynccontextmanager
async def down(folder: Path, *extensions: x509.ExtensionType) -> AsyncIterator[Shown]:
    async with site() as here:
        yield Shown(here, folder, extensions)


@pytest.mark.parametrize("way", WAYS)
class TestResponderDown:
    async def test_soft(self, tmp_path: Path, way: str) -> None:
        async with down(tmp_path) as shown:
            began = time.monotonic()
            heard, info = await shown.outcome(way)
            assert time.monotonic() - began < 10
        assert heard.startswith(b"EHLO") and info.verified
        assert info.validation.revocation[0].text.startswith("whether CN=leaf was revoked is not known: ")

    async def test_hard(self, tmp_path: Path, way: str) -> None:
        async with down(tmp_path) as shown:
            heard, error = await shown.outcome(way, hard_fail=True)
        assert heard == b""
        assert type(error) is ChainInvalid and error.validation is not None
        assert error.validation.problems == P.UNKNOWN_REVOCATION
        assert "is not trusted, because whether CN=leaf was revoked is not known: " in str(error)

    async def test_must_staple(self, tmp_path: Path, way: str) -> None:
        feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
        async with down(tmp_path, feature) as shown:
            heard, error = await shown.outcome(way)
        assert heard == b"" and type(error) is ChainInvalid
        assert error.validation is not None and error.validation.problems == P.UNKNOWN_REVOCATION


async def test_a_dead_responder_is_asked_once(tmp_path: Path) -> None:
    """A client's first connection waits for it; the ones after it do not."""
    async with site() as here:
        shown = Shown(here, tmp_path)
        server = SMTPServer(shown.context, Security.IMPLICIT)
        options = TLSOptions(
            trust=TrustOptions(ca=[shown.root.certificate], revocation=RevocationOptions(deadline=0.3)),
            server_hostname="localhost",
        )
        shared = SharedResources()
        async with serving(server) as listening:
            for _ in range(4):
                await connect(listening.port, shared, options, Security.IMPLICIT)
        assert here.paths() == ["/ocsp"]


# --- real mail servers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def revoked(openssl: OpenSSLAuthority, tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Return an authority for servers whose certificate was revoked by OpenSSL's."""
    folder = tmp_path_factory.mktemp("revoked")
    pki = Pki(folder)
    key, certificate = ((openssl.directory / f"revoked.{kind}").read_bytes() for kind in ("key", "crt"))
    for name, content in (("r.key", key), ("r.crt", certificate), ("r.pem", key + certificate)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    pki.server = Leaf(folder / "r.crt", folder / "r.key", folder / "r.pem")
    return pki


@pytest.mark.server
@pytest.mark.parametrize("kind", [Postfix, Exim])
async def test_real_servers(
    openssl: OpenSSLAuthority, revoked: Pki, kind: type[Postfix] | type[Exim]
) -> None:
    server = kind.start(revoked)
    try:
        for port, security in ((server.tls_port, Security.IMPLICIT), (server.auth_port, Security.STARTTLS)):
            for asks in (True, False):
                tag = f"tag-{uuid.uuid4().hex}"
                revocation = RevocationOptions(deadline=15) if asks else None
                trust = TrustOptions(ca=[read(openssl, "ca")], revocation=revocation)
                options = ClientOptions(tls=TLSOptions(trust=trust))
                message = Message(sender="ann@lab.test", to="bob@lab.test", subject=tag, text="Hi")
                async with SMTPClient("localhost", port, security=security, options=options) as client:
                    if asks:
                        with pytest.raises(CertificateRejected, match="was revoked on"):
                            await client.send(message)
                    else:
                        assert (await client.send(message)).outcome is Outcome.ACCEPTED
    finally:
        server.stop()
