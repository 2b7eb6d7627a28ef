"""An identity reaches OpenSSL, and its key nobody else."""

import os
import ssl
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from smtp_async.errors import ClientCertificateMissing, ClientIdentityError, FeatureUnavailable
from smtp_async.tls.certificate import Certificate
from smtp_async.tls.identity import Identity
from smtp_async.tls.keys import fits, public_der
from smtp_async.tls.stores import CertificateStore
from smtp_async.tls.tokens import TokenKey
from tests.tls.identities import ANN, BOB, KEYS, MIDDLE, ROOT, issue, key, key_pem, leaf, name, pems

ANN_KEY = key("ec", 0)


def identity(kind="ec", number=0):
    return Identity(leaf("ann", kind, number), key(kind, number), (MIDDLE,))


def contexts(client_identity):
    """Return two contexts that ask each other for certificates of the root."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    for context in (server, client):
        context.load_verify_locations(cadata=ROOT.pem)
        context.verify_mode = ssl.CERT_REQUIRED
    identity("ec", 2).load_into(server)
    if client_identity is not None:
        client_identity.load_into(client)
    return client, server


def handshake(client, server):
    """Return the certificate that the server sees, after a handshake in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_side=False)
    theirs = server.wrap_bio(up, down, server_side=True)
    done = set()
    for _ in range(10):
        for side in (ours, theirs):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert done == {ours, theirs}
    return theirs.getpeercert(binary_form=True)


class TestLogin:
    @pytest.mark.parametrize("kind", KEYS)
    def test_a_server_sees_who_we_are(self, kind):
        ours = identity(kind, 7)
        assert handshake(*contexts(ours)) == ours.certificate.der

    def test_without_an_identity_it_refuses(self):
        with pytest.raises(ssl.SSLError):
            handshake(*contexts(None))

    def test_without_its_chain_it_is_not_believed(self):
        with pytest.raises(ssl.SSLError):
            handshake(*contexts(Identity(ANN, ANN_KEY)))

    def test_a_store_gives_the_chain(self):
        store = CertificateStore.load(pems(ROOT, MIDDLE, ANN) + key_pem(ANN_KEY))
        assert handshake(*contexts(store.identity())) == ANN.der


class TestTheFile:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path

    class Watching(ssl.SSLContext):
        """Looks at the file that it is given."""

        seen: list[tuple[int, bytes, str]] = []
        failure: Exception | None = None

        def load_cert_chain(self, certfile, keyfile=None, password=None):
            self.seen.append((os.stat(certfile).st_mode, Path(certfile).read_bytes(), password))
            if self.failure:
                raise self.failure
            super().load_cert_chain(certfile, keyfile, password)

    @pytest.fixture
    def context(self):
        context = self.Watching(ssl.PROTOCOL_TLS_CLIENT)
        context.seen = []
        return context

    def test_nobody_else_may_read_it_and_it_is_gone(self, folder, context):
        identity().load_into(context)
        ((mode, content, _),) = context.seen
        assert stat.S_IMODE(mode) == 0o600
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
        assert list(folder.iterdir()) == []

    def test_it_has_a_password_of_its_own(self, folder, context):
        identity().load_into(context)
        identity().load_into(context)
        passwords = [password for _, _, password in context.seen]
        assert len({*passwords}) == 2
        assert all(len(password) == 64 for password in passwords)

    @pytest.mark.parametrize("failure", [ssl.SSLError("no"), OSError("no"), KeyboardInterrupt()])
    def test_it_is_gone_when_openssl_fails(self, folder, context, failure):
        context.failure = failure
        expected = ClientIdentityError if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            identity().load_into(context)
        assert context.seen
        assert list(folder.iterdir()) == []

    def test_it_is_gone_when_it_cannot_be_written(self, folder, context, monkeypatch):
        def full(descriptor, mode):
            os.close(descriptor)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("smtp_async.tls.identity.open", full, raising=False)
        with pytest.raises(ClientIdentityError, match="in a file: No space left"):
            identity().load_into(context)
        assert list(folder.iterdir()) == []

    def test_there_is_no_room_for_it(self, context, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
        with pytest.raises(ClientIdentityError, match="in a file: No such file") as caught:
            identity().load_into(context)
        assert caught.value.code == 273


class TestBadIdentities:
    def test_no_key_is_281(self):
        with pytest.raises(ClientCertificateMissing, match="has no private key") as caught:
            Identity(ANN, None)  # type: ignore[arg-type]  # what a program does by mistake
        assert caught.value.code == 281

    def test_the_key_of_somebody_else_is_273(self):
        with pytest.raises(ClientIdentityError, match="does not belong") as caught:
            Identity(BOB, ANN_KEY)
        assert caught.value.code == 273

    def test_unchecked_it_is_found_out_by_openssl(self):
        other = Identity(leaf("bob", "ec", 3), ANN_KEY, check_key=False)
        with pytest.raises(
            ClientIdentityError, match="OpenSSL does not accept .*KEY_VALUES_MISMATCH"
        ) as caught:
            other.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        assert caught.value.code == 273

    @pytest.mark.parametrize(
        "make", [lambda: dsa.generate_private_key(1024), x25519.X25519PrivateKey.generate]
    )
    def test_a_key_that_tls_does_not_sign_with(self, make):
        holder = make()
        certificate = issue(holder, name("ann"), name("middle"), key("ec", 101))
        with pytest.raises(ClientIdentityError, match="TLS does not sign"):
            Identity(certificate, holder)

    def test_a_key_that_does_not_fit_itself(self):
        holder = key("rsa", 7)
        numbers = holder.private_numbers()
        wrong = type(numbers)(
            numbers.p,
            numbers.q,
            numbers.d + 2,
            numbers.dmp1 + 2,
            numbers.dmq1,
            numbers.iqmp,
            numbers.public_numbers,
        )
        damaged = wrong.private_key(unsafe_skip_rsa_key_validation=True)
        with pytest.raises(ClientIdentityError, match="damaged"):
            Identity(leaf("ann", "rsa", 7), damaged)


class Rewritten:
    """A certificate whose key is written in another way."""

    def __init__(self, certificate, public_key_der):
        self.x509 = certificate.x509
        self.public_key_der = public_key_der


class TestKeys:
    def test_a_key_fits_its_certificate_however_it_is_written(self):
        assert fits(public_der(ANN_KEY), ANN)
        assert not fits(public_der(ANN_KEY), BOB)
        # In a certificate the curve may be written with its numbers, or the point with one coordinate.
        point = ANN_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        rewritten: Any = Rewritten(ANN, ANN.public_key_der[:-65] + point)
        assert fits(public_der(ANN_KEY), rewritten)

    def test_a_certificate_whose_key_nobody_can_read_has_none(self):
        oid = bytes.fromhex("06072a8648ce3d0201")
        strange = Certificate(ANN.der.replace(oid, oid[:-1] + b"\x63", 1))
        assert not fits(public_der(ANN_KEY), strange)

    def test_a_key_on_a_token_stays_there(self):
        token_key = TokenKey(ANN.public_key_der, "ann", b"\x01", None)  # type: ignore[arg-type]  # not asked
        ours = Identity(ANN, token_key)
        with pytest.raises(FeatureUnavailable, match="does not leave its token") as caught:
            ours.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        assert "provider" in caught.value.needs
        assert caught.value.code == 270

    def test_it_shows_no_key(self):
        assert "key" not in repr(identity()).lower()
        assert identity() == identity()
