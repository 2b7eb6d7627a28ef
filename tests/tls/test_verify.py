"""Is this the right server? Against real handshakes, on both ways to TLS, and word for word."""

import asyncio
import contextlib
import datetime
import pickle
import re
import ssl
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import (
    CertificateRejected,
    ChainInvalid,
    ChainNotFound,
    ConnectionLost,
    HandshakeFailed,
    PlaintextInjected,
    Timeout,
    TLSError,
    WrongTLSMode,
)
from smtp_async.tls import (
    Certificate,
    Security,
    TLSOptions,
    TrustOptions,
    explain,
    hint_for_silence,
    make_context,
    secure,
)
from smtp_async.transport import dial
from tests.tls.certificates import DAY, NOW, der, self_signed
from tests.transport.lab import (
    CA,
    MANNERS,
    cancelled_everywhere,
    echo,
    encrypt,
    implicit,
    server_context,
    serving,
    sink,
    starttls,
    turns,
    until,
)

IMPLICIT, STARTTLS = Security.IMPLICIT, Security.STARTTLS
ANCHORS = (ssl.PEM_cert_to_DER_cert(CA.cert_pem.bytes().decode()),)


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def options(ca_file):
    return TLSOptions(trust=TrustOptions(ca_file=ca_file))


def buffered(stream: Any) -> bool:
    """Has anything arrived that was not read?"""
    return bool(stream._receiver.buffered)


def last_moment(der: bytes) -> datetime.datetime:
    """Return until when a certificate is valid."""
    return Certificate(der).not_after


async def attempt(security, handler, options, *, host="localhost", verify=True, deadline=None):
    """Dial a server, go to TLS and return the info; check that a failure leaves nothing open."""
    context = make_context(options, verify=verify)
    async with serving(handler) as server:
        stream = await dial("127.0.0.1", server.port, tls_first=security is IMPLICIT)
        if security is not IMPLICIT:
            await stream.read(8)
            stream.write(b"STARTTLS\r\n")
            await stream.read(8)
        try:
            return await secure(
                stream,
                context,
                host=host,
                port=server.port,
                security=security,
                options=options,
                deadline=deadline,
            )
        except TLSError as error:
            pickle.loads(pickle.dumps(error))
            assert error.remote
            assert not error.connection_usable
            raise
        finally:
            stream.abort()
            await server.quiet()


def way(security):
    return implicit if security is IMPLICIT else starttls


def alerting(security, context):
    """Refuse the handshake with an alert, as servers do; asyncio would close without a word."""

    async def handler(reader, writer):
        if security is not IMPLICIT:
            writer.write(b"220 hi\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        try:
            while data := await reader.read(65536):
                incoming.write(data)
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                writer.write(outgoing.read())
        except ssl.SSLError:
            writer.write(outgoing.read())
            await sink(reader, writer)

    return handler


@pytest.mark.parametrize("security", [IMPLICIT, STARTTLS])
class TestServers:
    def test_the_right_one(self, run, options, security):
        info = run(attempt(security, way(security)(server_context(), sink), options))
        assert info.encrypted
        assert info.verified is True
        assert info.validation.status == "OK" and info.validation.reason is None
        assert info.validation.log == ("OpenSSL verified the chain and the name within the handshake",)
        assert [one.der for one in info.validation.path] == [info.chain[0], *ANCHORS]
        assert info.facts.names == ("localhost", "127.0.0.1")

    def test_by_address(self, run, options, security):
        info = run(attempt(security, way(security)(server_context(), sink), options, host="127.0.0.1"))
        assert info.verified is True

    def test_wrong_name(self, run, options, security):
        context = server_context(CA.issue_cert("mail.example.com", "*.example.org"))
        with pytest.raises(CertificateRejected) as caught:
            run(attempt(security, way(security)(context, sink), options))
        assert caught.value.code == 280
        assert "is for mail.example.com, *.example.org, not for localhost" in str(caught.value)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)

    def test_wrong_address(self, run, options, security):
        context = server_context(CA.issue_cert("localhost"))
        with pytest.raises(CertificateRejected, match=r"is for localhost, not for 127\.0\.0\.1"):
            run(attempt(security, way(security)(context, sink), options, host="127.0.0.1"))

    def test_the_name_that_was_asked_for(self, run, ca_file, security):
        options = TLSOptions(trust=TrustOptions(ca_file=ca_file), server_hostname="mail.example.com")
        context = server_context(CA.issue_cert("mail.example.com"))
        assert run(attempt(security, way(security)(context, sink), options)).verified
        with pytest.raises(CertificateRejected, match=r"not for mail\.example\.com"):
            run(attempt(security, way(security)(server_context(), sink), options))

    def test_subject_does_not_count(self, run, options, security):
        # A common name that is right, in a certificate without alternative names.
        leaf = CA.issue_cert("other.example", common_name="localhost")
        with pytest.raises(CertificateRejected, match="is for other.example"):
            run(attempt(security, way(security)(server_context(leaf), sink), options))

    @pytest.mark.parametrize("name", ["*.example.com", "a*.b.example.com"])
    def test_wildcards_are_whole_labels_and_one_deep(self, run, ca_file, security, name):
        options = TLSOptions(trust=TrustOptions(ca_file=ca_file), server_hostname="ax.b.example.com")
        leaf = CA.issue_cert(name) if name[0] == "*" else certificate_for(name)
        with pytest.raises(CertificateRejected):
            run(attempt(security, way(security)(server_context(leaf), sink), options))

    def test_expired(self, run, options, security):
        leaf = CA.issue_cert("localhost", not_before=NOW - 9 * DAY, not_after=NOW - 3 * DAY)
        with pytest.raises(
            CertificateRejected, match=r"expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC, 3 days ago"
        ):
            run(attempt(security, way(security)(server_context(leaf), sink), options))

    def test_not_yet_valid(self, run, options, security):
        leaf = CA.issue_cert("localhost", not_before=NOW + DAY, not_after=NOW + 9 * DAY)
        with pytest.raises(CertificateRejected, match="not valid before .* the clock of this machine"):
            run(attempt(security, way(security)(server_context(leaf), sink), options))

    def test_self_signed(self, run, options, security, tmp_path):
        context, path = self_signed(tmp_path)
        with pytest.raises(ChainNotFound, match=r"self-signed \(CN=localhost\).*ca_file") as caught:
            run(attempt(security, way(security)(context, sink), options))
        assert caught.value.code == 274
        # What the error advises helps.
        trusting = TLSOptions(trust=TrustOptions(ca_file=path))
        assert run(attempt(security, way(security)(context, sink), trusting)).verified
        with pytest.raises(CertificateRejected):
            run(attempt(security, way(security)(context, sink), trusting, host="127.0.0.1"))

    def test_unknown_authority(self, run, options, security):
        stranger = trustme.CA(organization_name="Stranger")
        context = server_context(stranger.issue_cert("localhost"))
        with pytest.raises(ChainNotFound, match="issuer .*O=Stranger.* is not known"):
            run(attempt(security, way(security)(context, sink), options))

    def test_unknown_authority_that_shows_itself(self, run, options, security, tmp_path):
        stranger = trustme.CA(organization_name="Stranger")
        leaf = stranger.issue_cert("localhost")
        path = tmp_path / "all.pem"
        path.write_bytes(leaf.private_key_and_cert_chain_pem.bytes() + stranger.cert_pem.bytes())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        with pytest.raises(ChainNotFound, match="ends with .*O=Stranger.*not trusted"):
            run(attempt(security, way(security)(context, sink), options))

    def test_missing_intermediate(self, run, options, security):
        leaf = CA.create_child_ca().issue_cert("localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with leaf.private_key_pem.tempfile() as key, leaf.cert_chain_pems[0].tempfile() as certificate:
            context.load_cert_chain(certificate, key)
        with pytest.raises(ChainNotFound, match="left out an intermediate certificate"):
            run(attempt(security, way(security)(context, sink), options))

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
    def test_old_tls(self, run, options, security):
        context = server_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.raises(HandshakeFailed, match=r"1\.2 or newer is required") as caught:
            run(attempt(security, alerting(security, context), options))
        assert caught.value.code == 276

    def test_no_common_cipher(self, run, options, security):
        context = server_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES128-GCM-SHA256")
        with pytest.raises(HandshakeFailed, match="cipher suite") as caught:
            run(attempt(security, alerting(security, context), options))
        assert not caught.value.temporary

    def test_closed_in_the_handshake(self, run, options, security):
        async def leave(reader, writer):
            if security is not IMPLICIT:
                writer.write(b"220 hi\r\n")
                await reader.readline()
                writer.write(b"220 go\r\n")
            await reader.read(1)

        with pytest.raises(HandshakeFailed, match="closed the connection during the TLS handshake") as caught:
            run(attempt(security, leave, options))
        # A server that is being restarted does this: nothing says that it wants another setting.
        assert "STARTTLS" not in str(caught.value)
        assert caught.value.temporary and caught.value.cut_off
        assert pickle.loads(pickle.dumps(caught.value)).temporary

    def test_deadline(self, run, options, security):
        async def scenario():
            async def mute(reader, writer):
                if security is not IMPLICIT:
                    writer.write(b"220 hi\r\n")
                    await reader.readline()
                    writer.write(b"220 go\r\n")
                await sink(reader, writer)

            deadline = asyncio.get_running_loop().time() + 0.1
            await attempt(security, mute, options, deadline=deadline)

        with pytest.raises(Timeout) as caught:
            run(scenario())
        assert caught.value.stage == "tls"

    @pytest.mark.parametrize("verifies", [True, False])
    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_cancelled_anywhere(self, run, options, security, manner, moment, verifies):
        async def scenario():
            context = make_context(options, verify=verifies)
            streams = []
            async with serving(implicit(server_context(), sink)) as server:

                async def prepare():
                    streams.append(await dial("127.0.0.1", server.port, tls_first=security is IMPLICIT))

                async def upgrade():
                    await secure(
                        streams[-1],
                        context,
                        host="localhost",
                        port=server.port,
                        security=security,
                        options=options,
                    )

                async for step in cancelled_everywhere(upgrade, manner, moment, prepare=prepare):
                    if not step.injected:
                        streams[-1].abort()
                    assert streams[-1].is_closing()
                    await server.quiet()
                    await streams[-1].close()

        run(scenario())


def certificate_for(name, *, purpose=None, issuer=None):
    """Return a certificate that trustme would not write: partial wildcard, odd purpose, false authority."""
    leaf = CA.issue_cert("placeholder.example")
    key: Any = CA._private_key
    authority: Any = x509.load_pem_x509_certificate(CA.cert_pem.bytes())
    if issuer is not None:
        key = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
        authority = x509.load_pem_x509_certificate(issuer.cert_chain_pems[0].bytes())
    old = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.subject)
        .public_key(old.public_key())
        .serial_number(8)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    return trustme.LeafCert(leaf.private_key_pem.bytes(), signed.public_bytes(serialization.Encoding.PEM), [])


class TestWrongDialect:
    def greet(self, *, wait):
        async def plain(reader, writer):
            if wait:
                await reader.read(1)
            writer.write(b"220 mail.example ESMTP \x1b[2J\r\n")
            await sink(reader, writer)

        return plain

    @pytest.mark.parametrize("wait", [False, True])
    def test_plaintext_server_on_implicit_tls(self, run, options, wait):
        with pytest.raises(WrongTLSMode) as caught:
            run(attempt(IMPLICIT, self.greet(wait=wait), options))
        assert caught.value.code == 20022
        assert '"220 mail.example ESMTP \\x1b[2J"' in str(caught.value)
        assert "security=Security.STARTTLS" in str(caught.value)

    def test_greeting_that_came_before_the_handshake(self, run, options):
        async def scenario():
            async with serving(self.greet(wait=False)) as server:
                stream = await dial("127.0.0.1", server.port)
                await until(lambda: buffered(stream))
                with pytest.raises(WrongTLSMode, match="220 mail.example ESMTP"):
                    await secure(
                        stream,
                        make_context(options),
                        host="localhost",
                        port=server.port,
                        security=IMPLICIT,
                        options=options,
                    )
                assert stream.is_closing()
                await server.quiet()

        run(scenario())

    def test_injected_byte(self, run, options):
        handler = starttls(server_context(), sink, reply=b"220 go\r\nX")
        with pytest.raises(PlaintextInjected) as caught:
            run(attempt(STARTTLS, handler, options))
        assert caught.value.code == 20012

    def test_late_byte(self, run, options):
        async def late(reader, writer):
            writer.write(b"220 hi\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
            await reader.read(1)
            writer.write(b"250-AUTH PLAIN\r\n")
            await encrypt(writer, server_context())

        with pytest.raises(HandshakeFailed, match="250-AUTH PLAIN.*injects bytes"):
            run(attempt(STARTTLS, late, options))

    def test_connection_lost_before(self, run, options):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.abort()
                with pytest.raises(ConnectionLost):
                    await secure(
                        stream,
                        make_context(options),
                        host="localhost",
                        port=server.port,
                        security=IMPLICIT,
                        options=options,
                    )

        run(scenario())

    def test_aborted_meanwhile(self, run, options):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                upgrade = asyncio.ensure_future(
                    secure(
                        stream,
                        make_context(options),
                        host="localhost",
                        port=server.port,
                        security=IMPLICIT,
                        options=options,
                    )
                )
                await turns()
                stream.abort()
                with pytest.raises(HandshakeFailed):
                    await upgrade

        run(scenario())


class TestOpportunistic:
    def test_good(self, run, options):
        handler = starttls(server_context(), echo)
        info = run(attempt(Security.OPPORTUNISTIC, handler, options, verify=False))
        assert (info.encrypted, info.verified, info.validation.reason) == (True, True, None)

    @pytest.mark.parametrize(
        ("leaf", "words"),
        [
            (lambda: CA.issue_cert("other.example"), "is for other.example, not for localhost"),
            (lambda: trustme.CA().issue_cert("localhost"), "the issuer .* is not known"),
            (
                lambda: CA.issue_cert("localhost", not_before=NOW - 9 * DAY, not_after=NOW - DAY),
                "expired on",
            ),
        ],
    )
    def test_bad(self, run, options, leaf, words):
        handler = starttls(server_context(leaf()), echo)
        info = run(attempt(Security.OPPORTUNISTIC, handler, options, verify=False))
        assert info.encrypted
        assert info.verified is False
        assert info.facts is not None
        assert re.search(words, info.validation.reason)

    def test_self_signed(self, run, options, tmp_path):
        context, _ = self_signed(tmp_path)
        info = run(attempt(Security.OPPORTUNISTIC, starttls(context, echo), options, verify=False))
        assert info.verified is False
        assert "is self-signed (CN=localhost)" in info.validation.reason

    def test_the_applications_context_gives_its_anchors(self, run, ca_file):
        options = TLSOptions(context=ssl.create_default_context(cafile=str(ca_file)))
        info = run(attempt(Security.OPPORTUNISTIC, starttls(server_context(), echo), options, verify=False))
        assert info.verified is True


LOCALHOST = CA.issue_cert("localhost")


def refusal(code, message="what OpenSSL says"):
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code = code
    error.verify_message = message
    return error


def reason(text):
    error = ssl.SSLError(1, text)
    error.reason = text
    return error


def explained(error, *, security=STARTTLS, **kwargs):
    found = explain(error, host="mail.example", port=25, security=security, **kwargs)
    assert found.__cause__ is error
    return found


class TestExplain:
    @pytest.mark.parametrize("code", [2, 9, 10, 18, 19, 20, 21, 23, 26, 28, 62, 64, 7, 24])
    @pytest.mark.parametrize("chain", [(), (b"garbage",), der(LOCALHOST)])
    def test_every_refusal_has_words(self, code, chain):
        error = explained(refusal(code), chain=chain)
        assert "mail.example:25" in str(error)
        wanted = (
            ChainNotFound
            if code in (2, 18, 19, 20, 21)
            else ChainInvalid
            if code in (7, 24)
            else CertificateRejected
        )
        assert type(error) is wanted

    def test_which_certificate_is_out_of_date(self):
        child = CA.create_child_ca()
        chain = der(child.issue_cert("localhost", not_after=NOW + 5 * 365 * DAY * 1000))
        later = last_moment(chain[1]) + DAY
        fresh = der(CA.issue_cert("localhost", not_after=later + 9 * DAY))
        error = explained(refusal(10), chain=(fresh[0], chain[1]), now=later)
        assert "the issuer certificate" in str(error)
        assert "1 day ago" in str(error)

    def test_less_than_a_day(self):
        moment = last_moment(der(LOCALHOST)[0]) + datetime.timedelta(hours=1)
        assert "less than a day ago" in str(explained(refusal(10), chain=der(LOCALHOST), now=moment))

    def test_many_names(self):
        chain = der(CA.issue_cert(*(f"n{i}.example" for i in range(20))))
        error = explained(refusal(62), chain=chain, name="other.example")
        assert "n7.example and 12 more, not for other.example" in str(error)

    def test_no_names(self):
        error = explained(refusal(62), chain=ANCHORS)
        assert "names no host" in str(error)
        assert "does not count" in str(error)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("UNSUPPORTED_PROTOCOL", "1.2 or newer is required"),
            ("TLSV1_ALERT_PROTOCOL_VERSION", "1.2 or newer is required"),
            ("SSLV3_ALERT_HANDSHAKE_FAILURE", "no TLS version and cipher suite that both sides know"),
            ("TLSV1_ALERT_INSUFFICIENT_SECURITY", "too weak"),
            ("TLSV1_UNRECOGNIZED_NAME", "does not know the name"),
            ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "client certificate"),
            ("DH_KEY_TOO_SMALL", "Diffie-Hellman key"),
            ("UNSAFE_LEGACY_RENEGOTIATION_DISABLED", "unsafe renegotiation"),
        ],
    )
    def test_reasons_of_openssl_are_explained(self, text, words):
        error = explained(reason(text))
        assert type(error) is HandshakeFailed
        assert words in str(error)

    @pytest.mark.parametrize(
        "text",
        [
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
            "UNKNOWN_PROTOCOL",
            "RECORD_LAYER_FAILURE",
            "PACKET_LENGTH_TOO_LONG",
        ],
    )
    def test_no_tls(self, text):
        assert type(explained(reason(text))) is HandshakeFailed
        assert type(explained(reason(text), security=IMPLICIT)) is WrongTLSMode

    def test_first_bytes(self):
        error = explained(OSError("x"), first_bytes=b"HTTP/1.1 400\r\nmore", security=IMPLICIT)
        assert '"HTTP/1.1 400"' in str(error)

    @pytest.mark.parametrize("error", [ValueError("odd"), OSError(5, "odd"), ssl.SSLError(1, "odd")])
    def test_anything_else(self, error):
        assert str(explained(error)).startswith("the TLS handshake with mail.example:25 failed: ")

    @pytest.mark.parametrize(
        "error", [ConnectionResetError(), ssl.SSLEOFError(8, "x"), ssl.SSLZeroReturnError(6, "x")]
    )
    def test_closed(self, error):
        assert "closed the connection" in str(explained(error))

    @pytest.mark.parametrize(
        ("host", "port", "shown"),
        [("::1", 25, "[::1]:25"), ("[::1]", 25, "[::1]:25"), ("/run/lmtp", None, "/run/lmtp closed")],
    )
    def test_where(self, host, port, shown):
        error = explain(ConnectionResetError(), host=host, port=port, security=STARTTLS)
        assert shown in str(error)

    @given(st.binary(max_size=600), st.sampled_from([IMPLICIT, STARTTLS]))
    def test_what_a_stranger_says_stays_on_one_line(self, said, security):
        text = str(explained(OSError("x"), first_bytes=said, security=security))
        assert text.isprintable()
        assert len(text) < 500


def test_silence():
    assert hint_for_silence(465, IMPLICIT) == ""
    assert "Security.IMPLICIT" in hint_for_silence(465, STARTTLS)
    assert "Security.IMPLICIT" in hint_for_silence(587, STARTTLS)
    assert "Security.IMPLICIT" in hint_for_silence(None, Security.PLAINTEXT)
    for security in (IMPLICIT, STARTTLS):
        assert "port 443 is usually that of a web server" in hint_for_silence(443, security)


def test_another_service_is_named():
    text = str(explained(OSError("x"), first_bytes=b"* OK IMAP4 ready\r\n", security=IMPLICIT))
    assert "speaks IMAP, not SMTP" in text and "* OK IMAP4 ready" in text
