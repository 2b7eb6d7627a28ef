"""How revocation is checked, as an application says it."""

import importlib.util
import pickle
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from smtp_async.errors import FeatureUnavailable, InvalidArgument
from smtp_async.tls.revocation_options import (
    RevocationOptions,
    RevocationPolicy,
    RevocationState,
    RevocationStatus,
)
from tests.tls.revocation_lab import NOW, new_root


def test_defaults() -> None:
    options = RevocationOptions()
    assert options.policy is RevocationPolicy.AUTO
    assert not options.hard_fail
    assert (options.deadline, options.max_size) == (5.0, 10 * 1024 * 1024)
    assert (options.crls, options.responses, options.ocsp_hash) == ((), (), "sha1")


def test_known_evidence_is_read_at_once_and_not_shown() -> None:
    root = new_root()
    der = root.crl()
    pem = x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
    response = root.response(7)
    options = RevocationOptions(crls=[der, bytearray(pem)], responses=iter([response]))  # type: ignore[list-item,arg-type]
    assert options.crls == (der, der)
    assert options.responses == (response,)
    assert repr(der[:8])[2:-1] not in repr(options)
    assert hash(options) == hash(pickle.loads(pickle.dumps(options)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deadline": 0}, "more than 0"),
        ({"deadline": float("nan")}, "more than 0"),
        ({"max_size": 0}, "more than 0"),
        ({"crls": b"octets"}, "crls is a sequence"),
        ({"responses": None}, "responses is a sequence"),
        ({"crls": [b"garbage"]}, r"crls\[0\] cannot be read"),
        ({"crls": [None]}, r"crls\[0\] cannot be read"),
        ({"crls": [b"-----BEGIN X509 CRL-----"]}, r"crls\[0\] cannot be read"),
        ({"responses": [b""]}, r"responses\[0\] cannot be read"),
        ({"ocsp_hash": "md5"}, "neither sha1 nor sha256"),
        ({"user_agent": ""}, "printable ASCII"),
        ({"user_agent": "mine\r\nHost: other"}, "printable ASCII"),
        ({"user_agent": "größer"}, "printable ASCII"),
    ],
)
def test_what_is_wrong_is_said_at_once(options, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        RevocationOptions(**options)


@pytest.mark.parametrize(("given", "name"), [("SHA-256", "sha256"), ("SHA1", "sha1"), ("sha_256", "sha256")])
def test_names_of_hashes(given: str, name: str) -> None:
    assert RevocationOptions(ocsp_hash=given).ocsp_hash == name


@pytest.mark.parametrize("missing", ["pyhanko_certvalidator", "asn1crypto", "aiohttp"])
def test_the_extra_is_named(monkeypatch, missing: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(FeatureUnavailable) as caught:
        RevocationOptions()
    assert caught.value.needs == "smtp-async[revocation]"
    assert RevocationOptions(policy=RevocationPolicy.NONE).policy is RevocationPolicy.NONE


def test_options_and_checker_load_no_extra() -> None:
    program = (
        "import sys; from smtp_async.tls.revocation import RevocationChecker;"
        "from smtp_async.tls.revocation_options import RevocationOptions; RevocationChecker(RevocationOptions());"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"aiohttp", "pyhanko_certvalidator", "asn1crypto", "cryptography"} & set(done.stdout.split())


def test_a_status_travels() -> None:
    status = RevocationStatus(state=RevocationState.REVOKED, text="it was", revoked_at=NOW)
    assert pickle.loads(pickle.dumps(status)) == status
