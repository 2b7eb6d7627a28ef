"""Postfix knows who we are, whatever kind of file our certificate came from."""

import ssl
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from smtp_async import ClientOptions, Message, Outcome, Security, SMTPClient, TLSOptions
from smtp_async.errors import SMTPError
from smtp_async.tls.certificate import Certificate
from smtp_async.tls.stores import CertificateStore
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix
from tests.tls.identities import PASSWORD, jks, key_pem, p7b, pems, pfx

pytestmark = pytest.mark.server

Load = Callable[[Any, Certificate], CertificateStore]

STORES: dict[str, Load] = {
    "pfx": lambda key, leaf: CertificateStore.load(pfx(key, leaf), PASSWORD),
    "pem": lambda key, leaf: CertificateStore.load(pems(leaf) + key_pem(key, PASSWORD), PASSWORD),
    "pkcs7 and key": lambda key, leaf: CertificateStore.load(p7b(leaf)).union(
        CertificateStore.load(key_pem(key))
    ),
    "jks": lambda key, leaf: CertificateStore.load(jks(key, leaf), PASSWORD),
}


def context_of(pki: Pki, load: Load | None) -> ssl.SSLContext:
    context = pki.client_context()
    if load is not None:
        key = load_pem_private_key(pki.client.key.read_bytes(), None)
        load(key, Certificate.load(pki.client.certificate.read_bytes())).identity().load_into(context)
    return context


def client_of(port: int, security: Security, context: ssl.SSLContext) -> SMTPClient:
    options = ClientOptions(tls=TLSOptions(context=context))
    return SMTPClient("localhost", port, security=security, options=options)


@pytest.mark.parametrize("kind", STORES)
async def test_a_server_that_asks_knows_the_client(kind: str, postfix: Postfix, pki: Pki) -> None:
    tag = f"tag-{uuid.uuid4().hex}"
    async with client_of(postfix.asks_port, Security.STARTTLS, context_of(pki, STORES[kind])) as client:
        receipt = await client.send(
            Message(sender="ann@lab.test", to="bob@lab.test", subject=tag, text="hello")
        )
    assert receipt.outcome is Outcome.ACCEPTED
    (message,) = postfix.wait_for_message(tag)
    assert b'Client CN "user@lab.test"' in message
    assert b"(verified OK)" in message


@pytest.mark.parametrize("kind", STORES)
async def test_a_server_that_demands_it_lets_the_client_in(kind: str, postfix: Postfix, pki: Pki) -> None:
    async with client_of(postfix.demands_port, Security.IMPLICIT, context_of(pki, STORES[kind])) as client:
        assert (await client.check()).error is None


async def test_without_a_certificate_it_does_not(postfix: Postfix, pki: Pki) -> None:
    async with client_of(postfix.demands_port, Security.IMPLICIT, context_of(pki, None)) as client:
        with pytest.raises(SMTPError):
            await client.send(Message(sender="ann@lab.test", to="bob@lab.test", text="hello"))
