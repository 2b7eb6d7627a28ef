"""key_records.py: a key is looked up in the DNS before it signs; the DNS server is made with dnspython."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from smtp_async.errors import SignerUnavailable, SigningError
from smtp_async.mail.key_records import require_record, texts_of
from smtp_async.message.dkim import DKIM
from smtp_async.message.dkim_record import dkim_record

RSA = rsa.generate_private_key(65537, 2048)
NAME = "s._domainkey.example.com"


class Records:
    """A look-up that counts."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.names: list[str] = []

    async def __call__(self, name: str) -> Sequence[str]:
        self.names.append(name)
        return self.texts


def signer(lookup: Any, **options: Any) -> DKIM:
    return DKIM("example.com", "s", options.pop("key", RSA), check_record=lookup, **options)


async def elsewhere(request: Any) -> bytes:
    return b""


async def test_a_record_that_fits_is_asked_for_once_an_hour() -> None:
    records = Records("v=spf1 -all", dkim_record(RSA))
    dkim = signer(records)
    times = [0.0, 3599.0]
    for _ in range(2):
        assert await require_record(dkim, clock=lambda: times.pop(0)) == RSA.public_key()
    assert records.names == [NAME]
    await require_record(dkim, clock=lambda: 3600.0)
    assert len(records.names) == 2


async def test_of_a_key_elsewhere_the_record_tells_the_public_half() -> None:
    dkim = signer(Records(dkim_record(RSA)), key=elsewhere)
    assert await require_record(dkim) == RSA.public_key()
    assert dkim.record is not None and dkim.record[1] == RSA.public_key()


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ((), f"no DKIM record at {NAME}"),
        (("v=spf1 -all",), "no DKIM record"),
        ((dkim_record(RSA), dkim_record(RSA)), "2 DKIM records"),
        (
            (dkim_record(rsa.generate_private_key(65537, 2048)),),
            f"does not fit the DNS record at {NAME}: .*another",
        ),
        ((dkim_record(ed25519.Ed25519PrivateKey.generate()),), "does not fit"),
        (("v=DKIM1; p=",), "revoked"),
        (("v=DKIM1; p=rubbish",), "does not fit"),
    ],
)
@pytest.mark.parametrize("key", [RSA, elsewhere], ids=["here", "elsewhere"])
async def test_a_key_that_verifiers_would_not_find(texts: Any, complaint: str, key: Any) -> None:
    if key is elsewhere and "another" in complaint:
        pytest.skip("nothing is known of the key")
    records = Records(*texts)
    dkim = signer(records, key=key)
    for _ in range(2):
        with pytest.raises(SigningError, match=complaint):
            await require_record(dkim)
    # What does not fit is not remembered, because it may be put right at any moment.
    assert len(records.names) == 2


async def test_an_identity_below_the_domain_needs_leave() -> None:
    text = dkim_record(RSA).replace("k=rsa", "k=rsa; t=s")
    assert await require_record(signer(Records(text), identity="@example.com"))
    with pytest.raises(SigningError, match="no identity below"):
        await require_record(signer(Records(text), identity="@news.example.com"))


# --- the DNS -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def name_server(
    *texts: str, rcode: int = dns.rcode.NOERROR, silent: bool = False
) -> AsyncIterator[str]:
    """A name server that has these TXT records; the address is for `texts_of`."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            if silent:
                return
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.RA
            answer.set_rcode(dns.rcode.Rcode(rcode))
            if texts:
                quoted = [
                    " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255)) for text in texts
                ]
                answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", *quoted))
            self.transport.sendto(answer.to_wire(), address)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        Server, local_addr=("127.0.0.1", 0), family=socket.AF_INET
    )
    try:
        yield "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


async def test_a_long_record_is_put_together() -> None:
    text = dkim_record(RSA)
    assert len(text) > 255
    async with name_server(text, "v=spf1 -all") as server:
        assert sorted(await texts_of(NAME, servers=[server])) == sorted([text, "v=spf1 -all"])


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
async def test_a_record_that_is_not_there(rcode: int) -> None:
    async with name_server(rcode=rcode) as server:
        assert await texts_of(NAME, servers=[server]) == []


async def test_a_server_that_fails() -> None:
    async with name_server(rcode=dns.rcode.SERVFAIL) as server:
        with pytest.raises(SignerUnavailable, match=f"record at {NAME} cannot be looked up") as caught:
            await texts_of(NAME, servers=[server])
    assert caught.value.temporary


async def test_a_look_up_is_cancelled() -> None:
    async with name_server(silent=True) as server:
        task = asyncio.create_task(texts_of(NAME, servers=[server]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
