"""Each option that changes a handshake, against Postfix and Exim, and against servers of old times."""

from __future__ import annotations

import contextlib
import ssl
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from smtp_async import (
    Certificate,
    CertificateStore,
    ConnectionInfo,
    Identity,
    PreSharedKey,
    Security,
    TLSOptions,
    TLSProfile,
    TrustOptions,
    legacy_context,
)
from smtp_async.errors import HandshakeFailed, ServerCertificateMissing, SMTPError
from smtp_async.events import ConnectionKind, ConnectionStatus, SSLStatus
from smtp_async.testing import ScriptedServer, cut
from tests.lab import client_of, every_loop, mail, tls_server, until
from tests.servers.pki import Pki

STARTTLS, IMPLICIT, OPPORTUNISTIC = Security.STARTTLS, Security.IMPLICIT, Security.OPPORTUNISTIC
V10, V11 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def options(pki: Pki, **changed: Any) -> TLSOptions:
    return TLSOptions(trust=TrustOptions(ca_file=pki.ca_file), **changed)


async def negotiated(
    server: Any, port: int, tls: TLSOptions, security: Security = STARTTLS
) -> ConnectionInfo:
    client = client_of(server, host="localhost", port=port, security=security, tls=tls)
    async with client, client.session() as session:
        await session.connect()
        info: ConnectionInfo = session.info
    return info


def _note(lines: list[str], event: SSLStatus) -> None:
    lines.append(event.message)


EFFECTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "newest": ({}, {"tls_version": "TLSv1.3", "forward_secrecy": True}),
    "minimum_version": ({"minimum_version": V13}, {"tls_version": "TLSv1.3"}),
    "maximum_version": ({"maximum_version": V12}, {"tls_version": "TLSv1.2"}),
    "OpenSSL's list": (
        {"maximum_version": V12, "ciphers": "ECDHE+CHACHA20"},
        {"cipher": "CHACHA20-POLY1305"},
    ),
    "a suite by IANA's name": (
        {"maximum_version": V12, "ciphers": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
        {"suite": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
    ),
    "a suite of TLS 1.3": (
        {"ciphers": "TLS_AES_256_GCM_SHA384"},
        {"tls_version": "TLSv1.3", "suite": "TLS_AES_256_GCM_SHA384"},
    ),
    "minimum_bits": ({"maximum_version": V12, "minimum_bits": 256}, {"bits": 256}),
    "one group": ({"groups": ["P-384"]}, {"group": "secp384r1"}),
    "one group in TLS 1.2": ({"groups": ["P-256"], "maximum_version": V12}, {"group": "secp256r1"}),
    "X25519": ({"groups": ["x25519"]}, {"group": "x25519"}),
    "signature_algorithms": (
        {"signature_algorithms": ["ecdsa_secp256r1_sha256"]},
        {"signature_algorithm": "ecdsa_secp256r1_sha256"},
    ),
    "ffdhe": ({"ffdhe": False}, {"key_exchange": "ECDHE"}),
    "COMPATIBLE": ({"profile": TLSProfile.COMPATIBLE}, {"tls_version": "TLSv1.3"}),
    "HIGHLY_SECURE": (
        {"profile": TLSProfile.HIGHLY_SECURE, "maximum_version": V12},
        {"aead": True, "key_exchange": "ECDHE"},
    ),
    "extended_master_secret": (
        {"extended_master_secret": False, "maximum_version": V12},
        {"tls_version": "TLSv1.2"},
    ),
}


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim"])
class TestServers:
    @pytest.mark.parametrize(("changed", "expected"), EFFECTS.values(), ids=list(EFFECTS))
    async def test_the_effect(
        self,
        name: str,
        changed: dict[str, Any],
        expected: dict[str, Any],
        pki: Pki,
        request: pytest.FixtureRequest,
    ) -> None:
        server = request.getfixturevalue(name)
        tls = options(pki, **changed)
        for port, security in ((server.auth_port, STARTTLS), (server.tls_port, IMPLICIT)):
            info = await negotiated(server, port, tls, security)
            assert {key: getattr(info, key) for key in expected} == expected
            assert info.verified

    async def test_a_group_holds_on_every_security(
        self, name: str, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        info = await negotiated(server, server.auth_port, options(pki, groups=["P-521"]), OPPORTUNISTIC)
        assert (info.group, info.verified) == ("secp521r1", True)

    @pytest.mark.parametrize("version", [V12, V13], ids=["TLS 1.2", "TLS 1.3"])
    async def test_another_signature_algorithm_is_refused(
        self, name: str, version: ssl.TLSVersion, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        tls = options(pki, signature_algorithms=["ed25519"], maximum_version=version)
        with pytest.raises(
            HandshakeFailed, match="not among signature_algorithms|no.*common|both sides"
        ) as caught:
            await negotiated(server, server.tls_port, tls, IMPLICIT)
        assert caught.value.code == 276

    async def test_a_client_certificate(self, name: str, pki: Pki, request: pytest.FixtureRequest) -> None:
        server = request.getfixturevalue(name)
        certificate = Certificate.load(pki.client.certificate.read_bytes())
        key: Any = load_pem_private_key(pki.client.key.read_bytes(), None)
        authority = Certificate.load(pki.ca_file.read_bytes())
        tls = options(pki, identity=Identity(certificate, key), extra_chain=[authority])
        for port, security in ((server.asks_port, STARTTLS), (server.demands_port, IMPLICIT)):
            info = await negotiated(server, port, tls, security)
            assert (info.client_auth_requested, info.client_authenticated) == (True, True)
        client = client_of(server, host="localhost", port=server.asks_port, security=STARTTLS, tls=tls)
        async with client:
            await client.send(mail(text="who am I", to="bob@lab.test"))
        await until(
            lambda: "user@lab.test" in server.log() or b"user@lab.test" in b"".join(server.messages())
        )

    async def test_the_chain_of_a_client_certificate_may_be_left_out(
        self, name: str, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        store = CertificateStore.load(pki.chained_client.combined)
        identity = store.identity_for(store.find("user@lab.test"))
        assert len(identity.chain) == 1
        for extra in (identity.chain, ()):
            whole = replace(identity, chain=() if extra else identity.chain)
            tls = options(pki, identity=whole, extra_chain=extra)
            info = await negotiated(server, server.demands_port, tls, IMPLICIT)
            assert info.client_authenticated
        # The server does not know the intermediate authority.
        with pytest.raises(SMTPError):
            await negotiated(
                server, server.demands_port, options(pki, identity=identity, include_chain=False), IMPLICIT
            )

    @pytest.mark.parametrize("version", [V12, V13], ids=["TLS 1.2", "TLS 1.3"])
    async def test_without_one(
        self, name: str, version: ssl.TLSVersion, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        tls = options(pki, maximum_version=version)
        info = await negotiated(server, server.asks_port, tls)
        assert (info.client_auth_requested, info.client_authenticated) == (True, False)
        with pytest.raises(SMTPError):
            await negotiated(server, server.demands_port, tls, IMPLICIT)

    async def test_keys_are_logged(
        self, name: str, pki: Pki, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        await negotiated(server, server.auth_port, options(pki, key_log=tmp_path / "keys"))
        assert "CLIENT_TRAFFIC_SECRET_0 " in (tmp_path / "keys").read_text()

    @pytest.mark.parametrize(
        ("version", "messages"),
        [
            (V12, {"ClientHello", "ServerHello", "ServerKeyExchange", "ClientKeyExchange", "Finished"}),
            (V13, {"ClientHello", "ServerHello", "EncryptedExtensions", "CertificateVerify", "Finished"}),
        ],
    )
    @every_loop
    async def test_messages_are_told(
        self, name: str, version: Any, messages: set[str], pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        told: dict[bool, list[str]] = {True: [], False: []}
        for wanted, lines in told.items():
            tls = options(pki, maximum_version=version, log_handshake=wanted)
            client = client_of(server, host="localhost", port=server.auth_port, security=STARTTLS, tls=tls)
            client.on(SSLStatus, partial(_note, lines))
            async with client, client.session() as session:
                await session.connect()
        names = {
            line.removesuffix(" bytes").split(" ")[2].rstrip(",") for line in told[True] if " bytes" in line
        }
        assert messages <= names
        assert not any(" bytes" in line for line in told[False])


def server_context(pki: Pki, **settings: Any) -> ssl.SSLContext:
    context = pki.server_context(pki.rsa)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers(settings.pop("ciphers", "DEFAULT:@SECLEVEL=0"))
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        for name, value in settings.items():
            setattr(context, name, value)
    return context


@contextlib.asynccontextmanager
async def old_server(pki: Pki, **settings: Any) -> Any:
    async with ScriptedServer(ssl_context=server_context(pki, **settings), implicit_tls=True) as server:
        yield server


class TestOldServers:
    @pytest.mark.parametrize(("version", "name"), [(V10, "TLSv1"), (V11, "TLSv1.1")])
    async def test_old_versions_are_spoken_when_asked_for_only(
        self, version: ssl.TLSVersion, name: str, pki: Pki
    ) -> None:
        async with old_server(pki, maximum_version=version) as server:
            with pytest.raises(HandshakeFailed):
                await negotiated(server, server.port, options(pki), IMPLICIT)
            with pytest.raises(HandshakeFailed):
                compatible = options(pki, profile=TLSProfile.COMPATIBLE)
                await negotiated(server, server.port, compatible, IMPLICIT)
            info = await negotiated(server, server.port, options(pki, minimum_version=version), IMPLICIT)
            assert (info.tls_version, info.verified) == (name, True)
            own = TLSOptions(context=legacy_context(TrustOptions(ca_file=pki.ca_file)))
            assert (await negotiated(server, server.port, own, IMPLICIT)).tls_version == name

    async def test_a_suite_without_forward_secrecy(self, pki: Pki) -> None:
        async with old_server(pki, ciphers="AES128-SHA", maximum_version=V12) as server:
            for profile in (TLSProfile.DEFAULT, TLSProfile.HIGHLY_SECURE):
                with pytest.raises(HandshakeFailed):
                    await negotiated(server, server.port, options(pki, profile=profile), IMPLICIT)
            compatible = options(pki, profile=TLSProfile.COMPATIBLE)
            assert (await negotiated(server, server.port, compatible, IMPLICIT)).forward_secrecy is False

    async def test_a_weaker_suite_of_tls13_is_refused(self, pki: Pki) -> None:
        # What the server prefers cannot be set in Python: it has to be refused by what it shows.
        async with old_server(pki) as server:
            refused = options(pki, ciphers="TLS_AES_128_GCM_SHA256")
            with pytest.raises(HandshakeFailed, match="not among ciphers") as caught:
                await negotiated(server, server.port, refused, IMPLICIT)
            assert caught.value.code == 276

    async def test_a_server_without_a_certificate_is_refused(self, pki: Pki) -> None:
        anonymous = "AECDH-AES256-SHA:@SECLEVEL=0"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(anonymous)
        context.maximum_version = V12
        async with ScriptedServer(ssl_context=context, implicit_tls=True) as server:
            tls = options(pki, ciphers=anonymous, maximum_version=V12)
            with pytest.raises(ServerCertificateMissing) as caught:
                await negotiated(server, server.port, tls, IMPLICIT)
            assert caught.value.code == 282

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="shared keys came with Python 3.13")
    @pytest.mark.parametrize("version", [V12, V13], ids=["TLS 1.2", "TLS 1.3"])
    async def test_a_shared_key(self, version: ssl.TLSVersion, pki: Pki) -> None:
        context: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("PSK")
        context.maximum_version = version
        context.set_psk_server_callback(lambda name: b"very secret" if name == "client" else b"")
        async with ScriptedServer(ssl_context=context, implicit_tls=True) as server:
            shared = PreSharedKey(identity="client", key=b"very secret")
            info = await negotiated(
                server, server.port, options(pki, psk=shared, maximum_version=version), IMPLICIT
            )
            assert info.encrypted and info.chain == ()
            wrong = PreSharedKey(identity="client", key=b"guessed")
            with pytest.raises(HandshakeFailed):
                await negotiated(server, server.port, options(pki, psk=wrong), IMPLICIT)


@pytest.mark.parametrize("expected", [True, False])
async def test_an_end_without_a_farewell_may_be_passed_over(expected: bool, pki: Pki) -> None:
    told: list[Any] = []
    tls = options(pki, expect_close_notify=expected)
    async with (
        tls_server(pki, implicit_tls=True) as server,
        client_of(server, host="localhost", security=IMPLICIT, tls=tls) as client,
        client.session() as session,
    ):
        client.on(ConnectionStatus, told.append)
        server.on("NOOP", cut(0))
        await session.connect()
        with pytest.raises(SMTPError):
            await session.noop()
        await until(lambda: told[-1].kind is ConnectionKind.DISCONNECTED)
    assert any(event.kind is ConnectionKind.TLS_BROKEN for event in told) == expected
