"""Each SASL mechanism that the servers offer, tried by clients that share no code with the package."""

import base64
import hashlib
import json
import re
import smtplib
import ssl
from collections.abc import Callable, Iterator

import pytest
import scramp
import spnego

from tests.servers import PASSWORD, USER
from tests.servers.cyrus import Cyrus
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.kdc import Kdc
from tests.servers.pki import CLIENT_NAME, Leaf, Pki
from tests.servers.postfix import SASL_MECHANISMS, Postfix

pytestmark = pytest.mark.server

#: Returns the response to a challenge; None stands for the one that a server has not sent, or a client does not send.
Step = Callable[[bytes | None], bytes | None]


def connect(port: int, pki: Pki, identity: Leaf | None = None) -> smtplib.SMTP:
    client = smtplib.SMTP("localhost", port, "client.test", timeout=10)
    client.starttls(context=pki.client_context(identity=identity))
    client.ehlo()
    return client


def mechanisms(client: smtplib.SMTP) -> set[str]:
    return set(client.esmtp_features["auth"].split())


def log_in(client: smtplib.SMTP, mechanism: str, step: Step) -> tuple[int, str]:
    """Leads the dialogue of RFC 4954; returns the reply that ends it."""
    initial = step(None)
    words = [mechanism] if initial is None else [mechanism, base64.b64encode(initial).decode() or "="]
    code, text = client.docmd("AUTH", " ".join(words))
    while code == 334:
        response = step(base64.b64decode(text))
        code, text = client.docmd(base64.b64encode(response or b"").decode())
    return code, text.decode()


def scram(mechanism: str, password: str, binding: tuple[str, bytes] | None = None) -> Step:
    client = scramp.ScramClient([mechanism], USER, password, channel_binding=binding)

    def step(challenge: bytes | None) -> bytes:
        if challenge is None:
            return client.get_client_first().encode()
        if challenge.startswith(b"r="):
            client.set_server_first(challenge.decode())
            return client.get_client_final().encode()
        client.set_server_final(challenge.decode())  # raises if the server does not know the password
        return b""

    return step


def digest(password: str) -> Step:
    """DIGEST-MD5, RFC 2831, with one realm and without a security layer."""

    def step(challenge: bytes | None) -> bytes | None:
        if challenge is None:
            return None
        asked = dict(re.findall(r'([\w-]+)="?([^",]*)"?', challenge.decode()))
        if "rspauth" in asked:
            return b""
        realm, nonce, uri = asked.get("realm", ""), asked["nonce"], "smtp/localhost"
        account = hashlib.md5(f"{USER}:{realm}:{password}".encode()).digest()
        first = hashlib.md5(account + f":{nonce}:client-nonce".encode()).hexdigest()
        second = hashlib.md5(f"AUTHENTICATE:{uri}".encode()).hexdigest()
        proof = hashlib.md5(f"{first}:{nonce}:00000001:client-nonce:auth:{second}".encode()).hexdigest()
        return (
            f'username="{USER}",realm="{realm}",nonce="{nonce}",cnonce="client-nonce",nc=00000001,qop=auth,'
            f'digest-uri="{uri}",response={proof},charset=utf-8'
        ).encode()

    return step


def ntlm(password: str) -> Step:
    context = spnego.client(USER, password, hostname="localhost", service="smtp", protocol="ntlm")
    return context.step


def gssapi_step() -> Step:
    """GSSAPI, RFC 4752, without a security layer."""
    import gssapi

    name = gssapi.Name("smtp@localhost", gssapi.NameType.hostbased_service)
    context = gssapi.SecurityContext(name=name, usage="initiate")

    def step(challenge: bytes | None) -> bytes:
        if not context.complete:
            return context.step(challenge) or b""
        assert challenge is not None
        assert context.unwrap(challenge).message[0] & 1  # the server can do without a layer
        return context.wrap(b"\x01\0\0\0", False).message

    return step


def answers(*responses: bytes | None) -> Step:
    left = iter(responses)
    return lambda challenge: next(left)


def password_step(mechanism: str, password: str) -> Step:
    """A login by a mechanism that knows a user name and a password."""
    user, secret = USER.encode(), password.encode()
    if mechanism.startswith("SCRAM-"):
        return scram(mechanism, password)
    if mechanism == "CRAM-MD5":
        client = smtplib.SMTP()
        client.user, client.password = USER, password
        return lambda challenge: None if challenge is None else client.auth_cram_md5(challenge).encode()
    return {
        "PLAIN": lambda: answers(b"\0" + user + b"\0" + secret),
        "LOGIN": lambda: answers(None, user, secret),
        "DIGEST-MD5": lambda: digest(password),
        "NTLM": lambda: ntlm(password),
    }[mechanism]()


def bearer(mechanism: str, token: str) -> bytes:
    if mechanism == "XOAUTH2":
        return f"user={USER}\1auth=Bearer {token}\1\1".encode()
    return f"n,a={USER},\1host=localhost\1port=587\1auth=Bearer {token}\1\1".encode()


WITH_PASSWORD = SASL_MECHANISMS[:-2]


class TestPostfix:
    @pytest.fixture
    def client(self, postfix: Postfix, pki: Pki) -> Iterator[smtplib.SMTP]:
        with connect(postfix.sasl_port, pki) as client:
            yield client

    def test_offers_all(self, client: smtplib.SMTP) -> None:
        assert mechanisms(client) == set(SASL_MECHANISMS)

    @pytest.mark.parametrize("mechanism", WITH_PASSWORD)
    def test_password(self, client: smtplib.SMTP, mechanism: str) -> None:
        assert log_in(client, mechanism, password_step(mechanism, PASSWORD))[0] == 235

    @pytest.mark.parametrize("mechanism", WITH_PASSWORD)
    def test_wrong_password(self, client: smtplib.SMTP, mechanism: str) -> None:
        assert log_in(client, mechanism, password_step(mechanism, "wrong"))[0] == 535

    def test_anonymous(self, client: smtplib.SMTP) -> None:
        assert log_in(client, "ANONYMOUS", answers(b"ann@sender.test"))[0] == 235

    @pytest.mark.usefixtures("ticket")
    def test_gssapi(self, client: smtplib.SMTP, kdc: Kdc) -> None:
        assert log_in(client, "GSSAPI", gssapi_step())[0] == 235
        assert "smtp/localhost@LAB.TEST" in kdc.log()

    def test_in_clear(self, postfix: Postfix) -> None:
        with smtplib.SMTP("localhost", postfix.sasl_port, "client.test", timeout=10) as client:
            client.ehlo()
            assert mechanisms(client) == set(SASL_MECHANISMS)
            assert log_in(client, "SCRAM-SHA-256", scram("SCRAM-SHA-256", PASSWORD))[0] == 235


class TestDovecot:
    MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")

    @pytest.fixture
    def client(self, dovecot: Dovecot, pki: Pki) -> Iterator[smtplib.SMTP]:
        with connect(dovecot.submission_port, pki) as client:
            yield client

    def test_offers_all(self, client: smtplib.SMTP) -> None:
        assert mechanisms(client) == {*self.MECHANISMS, "OAUTHBEARER", "XOAUTH2", "EXTERNAL"}

    @pytest.mark.parametrize("mechanism", MECHANISMS)
    def test_password(self, client: smtplib.SMTP, mechanism: str) -> None:
        assert log_in(client, mechanism, password_step(mechanism, PASSWORD))[0] == 235

    def test_wrong_password(self, client: smtplib.SMTP) -> None:
        assert log_in(client, "DIGEST-MD5", digest("wrong"))[0] == 535

    @pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
    def test_token(self, client: smtplib.SMTP, dovecot: Dovecot, mechanism: str) -> None:
        assert log_in(client, mechanism, answers(bearer(mechanism, dovecot.token())))[0] == 235

    @pytest.mark.parametrize(
        ("mechanism", "claims", "status"),
        [
            ("OAUTHBEARER", {"exp": 1}, "invalid_token"),
            ("OAUTHBEARER", {"sub": "user2"}, "invalid_token"),
            ("OAUTHBEARER", {"scope": "imap"}, "invalid_token"),
            ("XOAUTH2", {"exp": 1}, "401"),
        ],
    )
    def test_refused_token(
        self, client: smtplib.SMTP, dovecot: Dovecot, mechanism: str, claims: dict[str, object], status: str
    ) -> None:
        reasons = []

        def step(challenge: bytes | None) -> bytes:
            if challenge is None:
                return bearer(mechanism, dovecot.token(**claims))
            reasons.append(json.loads(challenge)["status"])
            return b"" if mechanism == "XOAUTH2" else b"\1"

        assert log_in(client, mechanism, step)[0] == 535
        assert reasons == [status]

    def test_external(self, dovecot: Dovecot, pki: Pki) -> None:
        with connect(dovecot.submission_port, pki, pki.client) as client:
            assert log_in(client, "EXTERNAL", answers(b""))[0] == 235

    def test_external_without_certificate(self, client: smtplib.SMTP) -> None:
        assert log_in(client, "EXTERNAL", answers(b""))[0] == 535


class TestExim:
    @pytest.mark.parametrize("identity", ["", CLIENT_NAME])
    def test_external(self, exim: Exim, pki: Pki, identity: str) -> None:
        with connect(exim.asks_port, pki, pki.client) as client:
            assert "EXTERNAL" in mechanisms(client)
            assert log_in(client, "EXTERNAL", answers(identity.encode()))[0] == 235

    def test_external_as_another(self, exim: Exim, pki: Pki) -> None:
        with connect(exim.asks_port, pki, pki.client) as client:
            assert log_in(client, "EXTERNAL", answers(b"other@lab.test"))[0] == 535

    def test_external_without_certificate(self, exim: Exim, pki: Pki) -> None:
        with connect(exim.asks_port, pki) as client:
            assert "EXTERNAL" not in mechanisms(client)


class TestCyrus:
    SCRAM = ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512")

    @staticmethod
    def connect(cyrus: Cyrus, pki: Pki, version: ssl.TLSVersion) -> smtplib.LMTP:
        client = smtplib.LMTP("localhost", cyrus.lmtp_port, "client.test")
        client.ehlo()
        context = pki.client_context()
        context.minimum_version = context.maximum_version = version
        # Not `starttls`, which asks EHLO of an LMTP server.
        assert client.docmd("STARTTLS")[0] == 220
        assert client.sock is not None
        client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
        client.file = None
        client.ehlo()
        return client

    @pytest.fixture
    def client(self, cyrus: Cyrus, pki: Pki) -> Iterator[smtplib.LMTP]:
        with self.connect(cyrus, pki, ssl.TLSVersion.TLSv1_2) as client:
            yield client

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_offers_plus_in_every_version(self, cyrus: Cyrus, pki: Pki, version: ssl.TLSVersion) -> None:
        with self.connect(cyrus, pki, version) as client:
            assert mechanisms(client) == {"PLAIN", *self.SCRAM, *(f"{name}-PLUS" for name in self.SCRAM)}

    @pytest.mark.parametrize("mechanism", SCRAM)
    def test_scram(self, client: smtplib.LMTP, mechanism: str) -> None:
        assert log_in(client, mechanism, scram(mechanism, PASSWORD))[0] == 235

    @pytest.mark.parametrize("mechanism", SCRAM)
    def test_scram_plus(self, client: smtplib.LMTP, mechanism: str) -> None:
        step = scram(f"{mechanism}-PLUS", PASSWORD, ("tls-unique", self.tls_unique(client)))
        assert log_in(client, f"{mechanism}-PLUS", step)[0] == 235

    def test_refuses_a_wrong_binding(self, client: smtplib.LMTP) -> None:
        step = scram("SCRAM-SHA-256-PLUS", PASSWORD, ("tls-unique", bytes(12)))
        assert log_in(client, "SCRAM-SHA-256-PLUS", step)[0] == 501

    def test_knows_no_other_binding(self, client: smtplib.LMTP, pki: Pki) -> None:
        der = ssl.PEM_cert_to_DER_cert(pki.server.certificate.read_text())
        binding = ("tls-server-end-point", hashlib.sha256(der).digest())
        step = scram("SCRAM-SHA-256-PLUS", PASSWORD, binding)
        assert log_in(client, "SCRAM-SHA-256-PLUS", step)[0] == 501

    def test_refuses_the_flag_of_a_stripped_offer(self, client: smtplib.LMTP) -> None:
        # A client that could bind, and has not seen -PLUS, says so by "y".
        step = scram("SCRAM-SHA-256", PASSWORD, ("tls-unique", self.tls_unique(client)))
        assert log_in(client, "SCRAM-SHA-256", step)[0] == 501

    @staticmethod
    def tls_unique(client: smtplib.LMTP) -> bytes:
        assert isinstance(client.sock, ssl.SSLSocket)
        return client.sock.get_channel_binding() or b""
