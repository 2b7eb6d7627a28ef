"""JSON Web Keys, XML and SSH public keys."""

import base64
import builtins
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import CertificateStoreError, FeatureUnavailable, SMTPError
from smtp_async.tls import keyfiles
from smtp_async.tls.stores import CertificateStore
from tests.tls.identities import ANN, BOB, FILES, KEYS, MIDDLE, ROOT, key, leaf, public_der

ANN_KEY, BOB_KEY = key("ec", 0), key("rsa", 1)


def url64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def number64(value):
    return url64(value.to_bytes((value.bit_length() + 7) // 8))


def rsa_jwk(holder):
    numbers = holder.private_numbers()
    parts = {"n": numbers.public_numbers.n, "e": numbers.public_numbers.e, "d": numbers.d}
    return {"kty": "RSA"} | {one: number64(value) for one, value in parts.items()}


def ec_jwk(holder):
    numbers = holder.private_numbers()
    parts = {"x": numbers.public_numbers.x, "y": numbers.public_numbers.y, "d": numbers.private_value}
    return {"kty": "EC", "crv": "P-256"} | {one: url64(value.to_bytes(32)) for one, value in parts.items()}


def edwards_jwk(holder, curve):
    x = holder.public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": curve, "x": url64(x), "d": url64(holder.private_bytes_raw())}


JWKS = {
    "rsa": rsa_jwk(key("rsa", 1)),
    "ec": ec_jwk(key("ec", 1)),
    "ed25519": edwards_jwk(key("ed25519", 1), "Ed25519"),
    "ed448": edwards_jwk(key("ed448", 1), "Ed448"),
}


def loaded(data, password=None):
    if isinstance(data, dict | list):
        data = json.dumps(data)
    return CertificateStore.load(data, password)


def refused(data, words):
    with pytest.raises(CertificateStoreError, match=words) as caught:
        loaded(data)
    assert caught.value.code == 271


class TestJWK:
    @pytest.fixture(autouse=True)
    def extra(self):
        pytest.importorskip("joserfc")

    @pytest.mark.parametrize("kind", KEYS)
    def test_a_private_key(self, kind):
        certificate = leaf("ann", kind, 1)
        assert loaded(JWKS[kind]).identity_for(certificate).certificate == certificate

    @pytest.mark.parametrize("kind", KEYS)
    def test_a_public_key(self, kind):
        public = {name: value for name, value in JWKS[kind].items() if name != "d"}
        store = loaded(public)
        assert store.public_keys == (public_der(key(kind, 1)),)
        assert store.certificates == ()

    def test_a_file(self, tmp_path):
        (tmp_path / "key.jwk").write_text("\n" + json.dumps(JWKS["rsa"]))
        assert CertificateStore.load(tmp_path / "key.jwk").identity_for(BOB).certificate == BOB

    def test_certificates_come_with_it(self):
        chain = [base64.b64encode(one.der).decode() for one in (BOB, MIDDLE, ROOT)]
        identity = loaded(JWKS["rsa"] | {"x5c": chain}).identity()
        assert (identity.certificate, identity.chain) == (BOB, (MIDDLE,))

    def test_sets_and_lists(self):
        for several in ({"keys": [*JWKS.values()]}, [*JWKS.values()]):
            assert len(loaded(several).public_keys) == 4

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ("{", "no JSON"),
            ("{" + '"a":[' * 10_000, "no JSON"),
            ("[" * 100_000, "no JSON"),
            ("{}", "neither a JSON Web Key"),
            ('{"keys": 3}', "neither a JSON Web Key"),
            ('{"keys": [3]}', "neither a JSON Web Key"),
            ("[]\n", "neither a certificate nor a key"),
            ('{"kty": "oct", "k": "AAAA"}', "symmetric"),
            ('{"kty": "XYZ"}', "damaged"),
            ('{"kty": 3}', "damaged"),
            ('{"kty": "RSA", "n": "AAAA", "e": "AQAB"}', "damaged"),
            ('{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}', "damaged"),
            ('{"kty": "EC", "x5c": ["AAAA"]}', "no certificate"),
            ('{"kty": "EC", "x5c": 3}', "damaged"),
        ],
    )
    def test_a_bad_one(self, data, words):
        refused(data, words)

    def test_a_text_that_no_file_can_hold(self):
        refused('{"kty": "\ud800"}', "JSON|damaged")

    json_like = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )

    @given(
        st.dictionaries(
            st.sampled_from(["kty", "crv", "x", "y", "d", "n", "e", "x5c", "keys", "use", "alg"]), json_like
        )
    )
    def test_anything(self, document):
        never_anything_else(json.dumps(document))

    @given(st.sampled_from([*JWKS.values()]), st.data())
    def test_damage(self, member, data):
        text = json.dumps(member)
        at = data.draw(st.integers(0, len(text) - 1))
        never_anything_else(text[:at] + data.draw(st.characters()) + text[at + 1 :])


def test_a_json_web_key_names_its_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] == "joserfc":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FeatureUnavailable) as caught:
        loaded(JWKS["ec"])
    assert (caught.value.needs, caught.value.code) == ("smtp-async[keys]", 270)


def never_anything_else(data):
    """Load it; only errors of ours may come."""
    try:
        loaded(data)
    except SMTPError as error:
        assert error.code == 271


class TestSSH:
    @pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
    def test_a_line(self, kind):
        holder = key(kind, 1)
        line = holder.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        for text in (line, line + b" ann@example.com\n", b"\n" + line + b"\r\n# a comment\n"):
            store = loaded(text)
            assert store.public_keys == (public_der(holder),)
            assert store.certificates == ()

    def test_several_lines(self):
        lines = [(FILES / f"{name}.pub").read_bytes() for name in ("rsa-2", "ecdsa-3", "ed25519-3")]
        assert len(loaded(b"".join(lines)).public_keys) == 3

    def test_a_framed_one(self):
        framed = loaded(FILES / "rsa-2.ssh2")
        assert framed.public_keys == loaded(FILES / "rsa-2.pub").public_keys
        text = (FILES / "rsa-2.ssh2").read_text()
        folded = text.replace("Comment: ", "Subject: ann\nX-long: a\\\nb c\\\nd\nComment: ").replace(
            "\n", "\r\n"
        )
        assert loaded(folded * 2).public_keys == framed.public_keys

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ("ssh-rsa\n", "damaged"),
            ("ssh-rsa AAAA\n", "damaged"),
            ("ssh-rsa !!!!\n", "damaged"),
            ("ssh-unknown AAAA\n", "needs what is missing here: Unsupported key type"),
            ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", "does not end"),
            ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n", "damaged"),
        ],
    )
    def test_a_bad_one(self, data, words):
        refused(data, words)

    @given(
        st.binary(max_size=100), st.sampled_from([b"ssh-", b"ssh-rsa ", b"---- BEGIN SSH2 PUBLIC KEY ----\n"])
    )
    def test_anything(self, data, start):
        never_anything_else(start + data)


def xml_number(name, value):
    return f"<{name}>{base64.b64encode(value.to_bytes((value.bit_length() + 7) // 8)).decode()}</{name}>"


def rsa_xml(holder, *, private):
    numbers = holder.private_numbers()
    parts = {"Modulus": numbers.public_numbers.n, "Exponent": numbers.public_numbers.e}
    if private:
        parts |= {"P": numbers.p, "Q": numbers.q, "DP": numbers.dmp1, "DQ": numbers.dmq1}
        parts |= {"InverseQ": numbers.iqmp, "D": numbers.d}
    return "<RSAKeyValue>\n" + "\n".join(xml_number(*one) for one in parts.items()) + "\n</RSAKeyValue>"


SIGNATURE = '<?xml version="1.0"?><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#">{}</KeyInfo>'


class TestXML:
    def test_a_private_key(self):
        assert loaded(rsa_xml(BOB_KEY, private=True)).identity_for(BOB).certificate == BOB

    def test_a_file(self, tmp_path):
        (tmp_path / "key.xml").write_text(rsa_xml(BOB_KEY, private=True))
        assert CertificateStore.load(tmp_path / "key.xml").identity_for(BOB).certificate == BOB

    def test_a_public_key(self):
        store = loaded(SIGNATURE.format(f"<KeyValue>{rsa_xml(BOB_KEY, private=False)}</KeyValue>"))
        assert store.public_keys == (public_der(BOB_KEY),)

    @pytest.mark.parametrize(
        ("curve", "oid"), [(ec.SECP256R1(), "1.2.840.10045.3.1.7"), (ec.SECP384R1(), "1.3.132.0.34")]
    )
    def test_an_elliptic_key(self, curve, oid):
        public = ec.generate_private_key(curve).public_key()
        point = base64.b64encode(public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)).decode()
        store = loaded(
            f'<dsig11:ECKeyValue xmlns:dsig11="http://www.w3.org/2009/xmldsig11#"><dsig11:NamedCurve '
            f'URI="urn:oid:{oid}"/><dsig11:PublicKey>{point}</dsig11:PublicKey></dsig11:ECKeyValue>'
        )
        assert store.public_keys == (public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),)

    def test_certificates(self):
        data = "".join(
            f"<X509Data><X509Certificate>\n{base64.encodebytes(one.der).decode()}</X509Certificate></X509Data>"
            for one in (BOB, MIDDLE)
        )
        store = loaded(SIGNATURE.format(data + rsa_xml(BOB_KEY, private=True)))
        assert store.certificates == (BOB, MIDDLE)
        assert store.identity().chain == (MIDDLE,)

    def test_a_byte_order_mark(self):
        assert loaded(b"\xef\xbb\xbf" + rsa_xml(BOB_KEY, private=False).encode()).public_keys

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ("<a>\n", "XML, but is damaged"),
            ("<a/>\n", "neither a certificate nor a key"),
            ("<a>" * 100_000, "damaged"),
            ("<RSAKeyValue/>\n", "damaged"),
            ("<RSAKeyValue><Modulus>!</Modulus></RSAKeyValue>", "damaged"),
            ("<ECKeyValue><NamedCurve/></ECKeyValue>", "damaged"),
            (
                '<ECKeyValue><NamedCurve URI="urn:oid:1.2.3"/><PublicKey>AAAA</PublicKey></ECKeyValue>',
                "damaged",
            ),
            ("<X509Certificate>AAAA</X509Certificate>", "no certificate"),
            ("<X509Certificate/>\n", "no certificate"),
            ('<!DOCTYPE a [<!ENTITY b "cc">]><a>&b;</a>', "document type"),
            ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
        ],
    )
    def test_a_bad_one(self, data, words):
        refused(data if "\n" in data else data + "\n", words)

    @given(st.text(max_size=60), st.sampled_from(["<", "<RSAKeyValue><Modulus>", "<X509Certificate>"]))
    def test_anything(self, text, start):
        never_anything_else((start + text).encode("utf-8", "replace"))

    @given(st.data())
    def test_damage(self, data):
        text = rsa_xml(BOB_KEY, private=True)
        at = data.draw(st.integers(0, len(text) - 1))
        never_anything_else(
            (text[:at] + data.draw(st.characters(max_codepoint=127)) + text[at + 1 :]).encode()
        )


def test_the_first_bytes_tell_the_kind():
    assert keyfiles.reader(b"") is None
    assert keyfiles.reader(ANN.der) is None
    assert ANN_KEY is not BOB_KEY
