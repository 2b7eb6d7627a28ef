"""Revocation against authorities of others: OpenSSL's, with its responder, and certomancer's."""

import importlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smtp_async.tls.certificate import Certificate
from smtp_async.tls.revocation import RevocationChecker
from smtp_async.tls.revocation_options import RevocationOptions, RevocationPolicy, RevocationState
from tests.servers.machine import HOST, reserved_ports, unavailable
from tests.servers.openssl_ca import OpenSSLAuthority, openssl_authority

pytestmark = pytest.mark.usefixtures("no_leaks")

GOOD, REVOKED, UNKNOWN = RevocationState
ASKING = [one for one in RevocationPolicy if one is not RevocationPolicy.NONE]


async def states(path: list[Certificate], **options: Any) -> list[RevocationState]:
    checker = RevocationChecker(RevocationOptions(**options))
    found = await checker.check(path, peer_address=(HOST, 25), now=datetime.now(UTC))
    return [one.state for one in found]


# --- OpenSSL -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openssl() -> Iterator[OpenSSLAuthority]:
    with openssl_authority() as authority:
        yield authority


def read(openssl: OpenSSLAuthority, *names: str) -> list[Certificate]:
    return [Certificate.load((openssl.directory / name).read_bytes()) for name in names]


@pytest.mark.server
@pytest.mark.parametrize("ocsp_hash", ["sha1", "sha256"])
@pytest.mark.parametrize("policy", ASKING)
async def test_openssl(openssl: OpenSSLAuthority, policy: RevocationPolicy, ocsp_hash: str) -> None:
    for name, state in (("server.crt", GOOD), ("revoked.crt", REVOKED)):
        path = read(openssl, name, "ca.crt")
        assert await states(path, policy=policy, ocsp_hash=ocsp_hash) == [state]


@pytest.mark.server
async def test_openssl_says_why_and_when(openssl: OpenSSLAuthority) -> None:
    checker = RevocationChecker(RevocationOptions())
    now = datetime.now(UTC)
    (found,) = await checker.check(read(openssl, "revoked.crt", "ca.crt"), peer_address=(HOST, 25), now=now)
    assert found.reason == "a compromised key"
    assert found.revoked_at is not None and 0 <= (now - found.revoked_at).total_seconds() < 3600
    assert found.valid_until is not None and found.valid_until > now


@pytest.mark.server
async def test_openssl_known_crl(openssl: OpenSSLAuthority) -> None:
    crl = (openssl.directory / "ca.pem").read_bytes()
    checker = RevocationChecker(RevocationOptions(crls=[crl], policy=RevocationPolicy.CRL))
    # Not reachable from there: what the application has must do.
    (found,) = await checker.check(
        read(openssl, "revoked.crt", "ca.crt"), peer_address=None, now=datetime.now(UTC)
    )
    assert (found.state, found.source) == (REVOKED, "RevocationOptions.crls")


# --- certomancer ---------------------------------------------------------------------------------------------

CERTOMANCER = """\
external-url-prefix: "http://127.0.0.1:{port}"
keysets:
  lab:
    path-prefix: {directory}
    keys:
      root: {{path: root.pem}}
      ca: {{path: ca.pem}}
      ocsp: {{path: ocsp.pem}}
      leaf: {{path: leaf.pem}}
pki-architectures:
  lab:
    keyset: lab
    entity-defaults: {{organization-name: Lab, country-name: BE}}
    entities:
      root: {{common-name: Lab Root}}
      ca: {{common-name: Lab Intermediate}}
      ocsp: {{common-name: Lab OCSP}}
      leaf: {{common-name: localhost}}
    certs:
      root:
        subject: root
        issuer: root
        validity: &validity {{valid-from: "2026-01-01T00:00:00+0000", valid-to: "2046-01-01T00:00:00+0000"}}
        profiles: [{{id: simple-ca, params: {{crl-repo: root}}}}]
      ca:
        issuer: root
        subject: ca
        validity: *validity
        profiles: [{{id: simple-ca, params: {{crl-repo: root, max-path-len: 0}}}}]
      ocsp:
        issuer: ca
        subject: ocsp
        validity: *validity
        profiles: [ocsp-responder]
      good:
        issuer: ca
        subject: leaf
        subject-key: leaf
        validity: *validity
        extensions: &leaf
          - id: authority_information_access
            smart-value: {{schema: aia-urls, params: {{ocsp-responder-names: [ca]}}}}
          - id: crl_distribution_points
            smart-value: {{schema: crl-dist-url, params: {{crl-repo-names: [ca]}}}}
      revoked:
        issuer: ca
        subject: leaf
        subject-key: leaf
        validity: *validity
        revocation: {{revoked-since: "2026-02-01T00:00:00+0000", reason: affiliation_changed}}
        extensions: *leaf
    services:
      ocsp:
        ca: {{for-issuer: ca, responder-cert: ocsp, signing-key: ocsp}}
      crl-repo:
        root: {{for-issuer: root, signing-key: root, simulated-update-schedule: P90D}}
        ca: {{for-issuer: ca, signing-key: ca, simulated-update-schedule: P30D}}
"""


@pytest_asyncio.fixture
async def certomancer(tmp_path: Path) -> AsyncIterator[dict[str, list[Certificate]]]:
    """Run certomancer's services; the paths of a good certificate and of a revoked one."""
    try:
        registry = importlib.import_module("certomancer.registry")
    except ImportError:
        unavailable("certomancer is not installed")
    web = importlib.import_module("aiohttp.web")
    animator = importlib.import_module("certomancer.integrations.aiohttp_animator")
    for name in ("root", "ca", "ocsp", "leaf"):
        (tmp_path / f"{name}.pem").write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    with reserved_ports(1) as (port,):
        (tmp_path / "lab.yml").write_text(CERTOMANCER.format(port=port, directory=tmp_path))
        config = registry.CertomancerConfig.from_file(str(tmp_path / "lab.yml"))
        # Its responder writes fractions of a second, which RFC 5280 section 4.1.2.5.2 forbids, if its clock has them.
        at_time = datetime.now(UTC).replace(microsecond=0)
        app = animator.build_animator_app(config.pki_archs, at_time=at_time, with_web_ui=False)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, HOST, port, reuse_address=True).start()
    lab = config.get_pki_arch(registry.ArchLabel("lab"))

    def certificate(name: str) -> Certificate:
        return Certificate(lab.get_cert(registry.CertLabel(name)).dump())

    authorities = [certificate("ca"), certificate("root")]
    try:
        yield {name: [certificate(name), *authorities] for name in ("good", "revoked")}
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("policy", [one for one in ASKING if one is not RevocationPolicy.OCSP])
async def test_certomancer(certomancer: dict[str, list[Certificate]], policy: RevocationPolicy) -> None:
    assert await states(certomancer["good"], policy=policy) == [GOOD, GOOD]
    assert await states(certomancer["revoked"], policy=policy) == [REVOKED, GOOD]


async def test_certomancer_names_no_responder_for_an_intermediate_authority(
    certomancer: dict[str, list[Certificate]],
) -> None:
    assert await states(certomancer["revoked"], policy=RevocationPolicy.OCSP) == [REVOKED, UNKNOWN]
