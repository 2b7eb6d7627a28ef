"""dkim_record.py: records as they are written and read, and keys that do not fit them."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import SigningError
from smtp_async.message.dkim_record import DKIMRecord, dkim_record
from smtp_async.message.sign import KeySigner

RSA = rsa.generate_private_key(65537, 2048)
# Fixed, because it is part of the names of tests, which must be the same in every process.
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P_RSA = base64.b64encode(
    RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()
P_ED25519 = base64.b64encode(ED25519.public_key().public_bytes_raw()).decode()


@pytest.mark.parametrize("key", [RSA, RSA.public_key(), KeySigner(RSA)], ids=["private", "public", "signer"])
def test_a_record_is_written(key: Any) -> None:
    assert dkim_record(key) == f"v=DKIM1; k=rsa; p={P_RSA}"


def test_a_record_of_ed25519() -> None:
    assert dkim_record(ED25519) == f"v=DKIM1; k=ed25519; p={P_ED25519}"
    # RFC 8463 appendix A.2.
    example = ed25519.Ed25519PrivateKey.from_private_bytes(
        base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    )
    assert dkim_record(example).endswith("p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")


async def elsewhere(request: Any) -> bytes:
    return b""


def test_a_key_without_a_record() -> None:
    with pytest.raises(SigningError, match="not known"):
        dkim_record(elsewhere)
    with pytest.raises(SigningError, match="RSA and Ed25519"):
        dkim_record(ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize(
    "text",
    [
        f"v=DKIM1; k=rsa; p={P_RSA}",
        f"p={P_RSA}",
        f" v = DKIM1 ;p={P_RSA[:100]} {P_RSA[100:]};; ",
        f"v=DKIM1; h=sha1:sha256; s=*; n=a note; x=unknown; p={P_RSA};",
        base64.b64encode(b"x").decode().join(["v=DKIM1; n=", f"; p={P_RSA}"]),
    ],
)
def test_a_record_is_read(text: str) -> None:
    record = DKIMRecord.parse(text)
    assert record.public_key == RSA.public_key() and record.key_algorithm == "rsa"
    record.demand_fit(RSA.public_key())
    record.demand_fit(None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not one of a DKIM key"),
        ("v=spf1 -all", "not one of a DKIM key"),
        ("v=DKIM2; p=", "not one of a DKIM key"),
        ("hello", "not a list of tags"),
        ("p=a; p=b", "not a list of tags"),
        ("=x; p=", "not a list of tags"),
        ("p=???", "not one of kind rsa"),
        (f"p={P_ED25519}", "not one of kind rsa"),
        (f"k=ed25519; p={P_RSA}", "not one of kind ed25519"),
        (f"k=dsa; p={P_RSA}", "not one of kind dsa"),
        ("p=" + "a" * 9000, "longer than"),
    ],
)
def test_what_is_no_record(text: str, complaint: str) -> None:
    with pytest.raises(SigningError, match=complaint):
        DKIMRecord.parse(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("v=DKIM1; p=", "revoked"),
        (f"k=ed25519; p={P_ED25519}", "another key"),
        (f"h=sha1; p={P_RSA}", "only the hashes sha1"),
        (f"s=web; p={P_RSA}", "not for mail"),
        (f"t=y:s; p={P_RSA}", "no identity below"),
    ],
)
def test_a_key_that_does_not_fit(text: str, complaint: str) -> None:
    with pytest.raises(SigningError, match=complaint):
        DKIMRecord.parse(text).demand_fit(RSA.public_key(), subdomain_identity=True)


@given(st.text("v=DKIM1;kprsa \t\r\n:h25" + P_ED25519[:8], max_size=80) | st.text(max_size=80))
def test_no_text_is_too_odd(text: str) -> None:
    try:
        record = DKIMRecord.parse(text)
    except SigningError:
        return
    assert record.key_algorithm in ("rsa", "ed25519") or record.public_key is None
