"""S/MIME, sent: from what a caller hands in to what OpenSSL finds in a reader's mailbox; or nothing is sent."""

import asyncio
import gc
import io
import tracemalloc
from collections.abc import Callable
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from smtp_async import (
    DKIM,
    NOBODY,
    CertificateStore,
    DirectorySpool,
    ExternalSigner,
    Message,
    Raw,
    SendOptions,
    SMIMEEncryption,
    SMIMESignature,
    SMTPClient,
    dkim_record,
)
from smtp_async.errors import InvalidArgument, SignerUnavailable, SigningError
from smtp_async.mail.coerce import PendingMail, to_mail
from smtp_async.mail.rendered import RenderedMail
from smtp_async.mail.signing import signed
from smtp_async.message.cms_signature import certificate_attribute, signed_attributes, signed_data
from smtp_async.message.mail_certificate import MailCertificate
from smtp_async.message.sign import KeySigner
from smtp_async.model.content import Content, Mail, Source
from smtp_async.model.signing import MessageSigner, SignRequest, ToSign
from smtp_async.sources import read_all
from smtp_async.testing import CancelManner, CancelMoment, MemorySpool, cancellations
from tests.lab import Lateness, client_of, longest_work, speaking
from tests.message.smime_lab import NOW, decrypted, inner_of, openssl, person, verified
from tests.servers.softhsm import PIN, SoftHSM
from tests.sources.conftest import loops_have_run, no_open_files
from tests.sources.origins import EVERY, async_generated, cut, path_of, random_octets

__all__ = ["loops_have_run", "no_open_files"]

#: Nothing that was opened for the test is left open; a server would have been, too.
closes_files = pytest.mark.usefixtures("no_open_files")

ANN = person("p256")
SIGNED = SMIMESignature(ANN.certificate, ANN.key)
OPAQUE = SMIMESignature(ANN.certificate, ANN.key, detached=False)
ENCRYPTED = SMIMEEncryption([ANN.certificate, person("rsa").certificate])
WAYS: dict[str, list[MessageSigner]] = {
    "detached": [SIGNED],
    "opaque": [OPAQUE],
    "encrypted": [ENCRYPTED],
    "both": [SIGNED, ENCRYPTED],
}
EACH = pytest.mark.parametrize("way", WAYS)
KEY = ed25519.Ed25519PrivateKey.generate()
BY_DOMAIN = DKIM("example.com", "e", KEY)
HEAD = (
    b"From: Ann <ann@example.com>\r\nTo: user@lab.test\r\nSubject: Hello\r\nContent-Type: text/plain\r\n\r\n"
)


def message(**fields: Any) -> Message:
    return Message(
        **{"sender": "ann@example.com", "to": "user@lab.test", "text": "Hello  there \n\n", **fields}
    )


def opened(way: str, data: bytes, directory: Path) -> bytes:
    """The content as OpenSSL finds it."""
    if way in ("encrypted", "both"):
        data = decrypted(directory, data, person("rsa"))
    return data if way == "encrypted" else verified(directory, data)


async def taken(thing: Any, sign: Any, **options: Any) -> Mail:
    """Take a thing the way in which a client takes it."""
    temp_dir = options.pop("temp_dir", None)
    pending = to_mail(thing, SendOptions(sign=sign, **options))
    assert isinstance(pending, PendingMail)
    return await pending.read(temp_dir)


async def octets(mail: Mail) -> bytes:
    content = mail.content()
    data = await read_all(content, close_streams=True)
    assert content.size in (None, len(data))
    return data


# --- what a caller hands in ----------------------------------------------------------------------------------------


@EACH
async def test_a_message(way: str, tmp_path: Path) -> None:
    one = message(text="größer\n")
    content = (await taken(one, WAYS[way])).content()
    assert not content.eightbit and not content.utf8
    assert content.message_id == one.content().message_id
    assert opened(way, content.join(), tmp_path) == inner_of(one.content().join())


@EACH
async def test_one_that_is_large_in_memory(way: str, tmp_path: Path) -> None:
    one = message(text="a line of text\n" * 20_000)
    one.attach(random_octets(300_000), filename="a.bin")
    assert opened(way, await octets(await taken(one, WAYS[way])), tmp_path) == inner_of(one.content().join())


@closes_files
@EACH
@pytest.mark.parametrize("name", EVERY)
async def test_attachments_from_anywhere(way: str, name: str, tmp_path: Path) -> None:
    data = random_octets(200_000)
    one = message()
    (tmp_path / "copies").mkdir()
    origin = EVERY[name](data, tmp_path)
    one.attach(origin, filename="a.bin", content_type="image/png", close=True)
    mail = await taken(one, WAYS[way], temp_dir=tmp_path / "copies")
    found = opened(way, await octets(mail), tmp_path)
    (attached,) = message_from_bytes(found, policy=policy.default).iter_attachments()
    assert attached.get_content() == data
    assert getattr(origin, "closed", True)
    assert not list((tmp_path / "copies").iterdir())


@closes_files
@pytest.mark.parametrize("way", ["detached", "encrypted"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not-ended"])
@pytest.mark.parametrize("size", [30, 200_000])
@pytest.mark.parametrize("kind", ["bytes", "path", "once", "awaited"])
async def test_whole_messages(way: str, end: bytes, last: bool, size: int, kind: str, tmp_path: Path) -> None:
    """What is signed is what is sent, also where line ends are corrected on the way."""
    body = (b"a line of text\r\n" * (size // 16 + 1)) + b"the last" + (b"\r\n" if last else b"")
    given = (HEAD + body).replace(b"\r\n", end)
    pieces = cut(given, [20_000] * (len(given) // 20_000 + 1))
    sources: dict[str, Callable[[], Any]] = {
        "bytes": lambda: given,
        "path": lambda: path_of(given, tmp_path),
        "once": lambda: iter(pieces),
        "awaited": lambda: async_generated(pieces),
    }
    mail = await taken(Raw(sources[kind]()), WAYS[way], temp_dir=tmp_path)
    async with speaking() as server, client_of(server) as client:
        await client.send(mail)
    (sent,) = [one.data for one in server.messages]
    expected = b"Content-Type: text/plain\r\n\r\n" + body + (b"" if last else b"\r\n")
    assert opened(way, sent, tmp_path) == expected


class Loose:
    """A mail of another library, with any line ends."""

    def __init__(self, *segments: bytes | Source) -> None:
        self.segments = segments

    def envelope(self) -> Any:
        return message().envelope()

    def content(self, **offer: bool) -> Content:
        return Content(self.segments, canonical=False)


@EACH
async def test_a_content_that_is_not_normalised(way: str, tmp_path: Path) -> None:
    mail = await signed(
        Loose(HEAD.replace(b"\r\n", b"\n") + b"a \nb", b"\rc\r\n" * 20_000, b"end"), WAYS[way]
    )
    async with speaking() as server, client_of(server) as client:
        await client.send(mail)
    found = opened(way, server.messages[0].data, tmp_path)
    assert found == b"Content-Type: text/plain\r\n\r\na \r\nb" + b"\r\nc\r\n" * 20_000 + b"end\r\n"


async def test_one_that_is_partly_not_in_memory() -> None:
    mail = Loose(HEAD, Source(io.BytesIO(b"a\nb\n" * 50_000), encoding="identity"))
    with pytest.raises(SigningError, match="line ends of the message are not known"):
        await signed(mail, [SIGNED])


async def test_octets_that_have_to_stay(tmp_path: Path) -> None:
    given = HEAD + b"Hello\r\nno line end"
    mail = await taken(Raw(given), [SIGNED], exact=True)
    assert verified(tmp_path, mail.content().join()) == inner_of(given)
    with pytest.raises(InvalidArgument, match="bare CR or LF"):
        await taken(Raw(HEAD + b"bare\nLF\r\n"), [SIGNED], exact=True)


async def test_a_detached_signature_takes_no_memory(tmp_path: Path) -> None:
    """16 MiB are signed, and read once more, within one."""
    one = message()
    one.attach(path_of(bytes(1 << 24), tmp_path), filename="a.bin")
    await taken(message(), [SIGNED])
    gc.collect()
    tracemalloc.start()
    try:
        content = (await taken(one, [SIGNED])).content()
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    assert content.size is not None and content.size > 1 << 24


@closes_files
@pytest.mark.parametrize("way", ["opaque", "encrypted"])
async def test_the_others_have_a_limit(way: str, tmp_path: Path) -> None:
    one = message()
    one.attach(path_of(bytes(1 << 18), tmp_path), filename="a.bin", close=True)
    limited = {
        "opaque": SMIMESignature(ANN.certificate, ANN.key, detached=False, max_size=1 << 18),
        "encrypted": SMIMEEncryption([ANN.certificate], max_size=1 << 18),
    }
    with pytest.raises(SigningError, match="more than 262144 octets"):
        await taken(one, [limited[way]])


@pytest.mark.parametrize("way", [OPAQUE, ENCRYPTED], ids=["opaque", "encrypted"])
async def test_the_loop_is_not_held(way: Any, tmp_path: Path) -> None:
    """A container of 16 MiB is made in a thread: on the loop it would take a tenth of a second."""
    one = message()
    one.attach(path_of(bytes(12 << 20), tmp_path), filename="a.bin")

    async def measured() -> Lateness:
        async with Lateness() as lateness:
            await taken(one, [way])
        return lateness

    assert await longest_work(measured) < 0.06


# --- together with DKIM --------------------------------------------------------------------------------------------


@closes_files
@EACH
async def test_dkim_signs_what_is_sent(way: str, tmp_path: Path) -> None:
    one = message()
    one.attach(path_of(random_octets(200_000), tmp_path), filename="a.bin", content_type="image/png")
    plain = inner_of(await read_all(one.content()))
    data = await octets(await taken(one, [*WAYS[way], BY_DOMAIN]))
    record = dkim_record(KEY).encode()
    assert dkim.DKIM(data).verify(dnsfunc=lambda name, timeout=5: record)
    assert opened(way, data, tmp_path) == plain


# --- ways of sending -----------------------------------------------------------------------------------------------


async def test_every_way_of_sending_encrypts(tmp_path: Path) -> None:
    """Nothing leaves in clear where the client is told to encrypt."""
    one, whole = message(), HEAD + b"Hello  there\r\n"
    async with speaking() as server, client_of(server, sign=ENCRYPTED) as client:
        await client.send(one)
        await client.send(one, options=SendOptions(must_accept=NOBODY))
        await client.send_raw(whole)
        await client.send_raw(io.BytesIO(whole))
        await client.send_raw(iter([whole + b"x\r\n" * 50_000]))
        async for _ in client.send_all([one, Raw(whole)]):
            pass
        async with client.session() as session:
            await session.connect()
            await session.send(one)
            await session.send(Raw(whole))
    assert len(server.messages) == 9
    for sent in server.messages:
        assert b"\r\nContent-Type: application/pkcs7-mime; smime-type=authEnveloped-data;" in sent.data
        assert b"Hello  there" not in sent.data
        assert b"Hello  there" in decrypted(tmp_path, sent.data, person("rsa"))


# --- signers -------------------------------------------------------------------------------------------------------


async def by_service(request: SignRequest) -> bytes:
    """A service that has Ann's RSA key."""
    await asyncio.sleep(0)
    key = person("rsa").key
    if request.data is not None:
        return bytes(key.sign(request.data, padding.PKCS1v15(), SHA256()))
    return bytes(key.sign(request.hash, padding.PKCS1v15(), Prehashed(SHA256())))


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("detached", [False, True])
async def test_a_key_that_is_somewhere_else(outside: bool, detached: bool, tmp_path: Path) -> None:
    key = ExternalSigner(ask=by_service, hash_outside=outside)
    way = SMIMESignature(person("rsa").certificate, key, detached=detached)
    one = message()
    data = await octets(await taken(one, way))
    assert verified(tmp_path, data) == inner_of(one.content().join())


@pytest.mark.parametrize("detached", [False, True])
async def test_a_service_that_makes_the_container(detached: bool, tmp_path: Path) -> None:
    """One that is not this library: OpenSSL."""
    ann = person("rsa")
    (tmp_path / "ann.pem").write_bytes(ann.pem)
    (tmp_path / "ann.key").write_bytes(ann.key_pem)

    async def ask(request: SignRequest) -> bytes:
        assert request.method == "pkcs7" and request.data is not None
        (tmp_path / "data").write_bytes(request.data)
        words = "-sign -binary -outform DER -in data -signer ann.pem -inkey ann.key -out answer"
        await asyncio.to_thread(openssl, tmp_path, words)
        return (tmp_path / "answer").read_bytes()

    way = SMIMESignature(None, ExternalSigner(ask=ask, method="pkcs7", hash_outside=True), detached=detached)
    one = message(text="a line of text\n" * 20_000)
    data = await octets(await taken(one, way))
    assert verified(tmp_path, data) == inner_of(one.content().join())


@pytest.mark.server
async def test_a_key_on_a_token(softhsm: SoftHSM, tmp_path: Path) -> None:
    ann = person("rsa")
    softhsm.add_token("smime")
    pem = ann.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    softhsm.add_key("smime", pem, label="ann", key_id=b"\1")
    der = ann.certificate.public_bytes(Encoding.DER)
    softhsm.add_certificate("smime", der, label="ann", key_id=b"\1")
    store = await asyncio.to_thread(CertificateStore.load, softhsm.uri("token=smime"), PIN)
    identity = store.identity()
    way = SMIMESignature(identity.certificate, identity.key, chain=identity.chain)
    one = message()
    data = await octets(await taken(one, way))
    assert verified(tmp_path, data) == inner_of(one.content().join())


async def raises(request: SignRequest) -> bytes:
    raise ConnectionError("secret details")


async def hangs(request: SignRequest) -> bytes:
    return await asyncio.get_running_loop().create_future()


async def rubbish(request: SignRequest) -> bytes:
    return b"rubbish"


@pytest.mark.parametrize(
    ("ask", "method", "error", "complaint"),
    [
        (raises, "pkcs1", SignerUnavailable, "the signer raised ConnectionError"),
        (hangs, "pkcs1", SignerUnavailable, "did not answer within 0.05 s"),
        (rubbish, "pkcs1", SigningError, "does not verify with the certificate"),
        (rubbish, "pkcs7", SigningError, "no SignedData that can be read"),
    ],
)
async def test_nothing_is_sent_unsigned(ask: Any, method: Any, error: Any, complaint: str) -> None:
    key = ExternalSigner(ask=ask, method=method, timeout=0.05)
    options = SendOptions(sign=SMIMESignature(person("rsa").certificate, key))
    async with speaking() as server, client_of(server) as client:
        with pytest.raises(error, match=complaint) as caught:
            await client.send(message(), options=options)
    assert server.messages == [] and "secret" not in str(caught.value)


@pytest.mark.parametrize("way", [SIGNED, SMIMESignature(ANN.certificate, ANN.key, detached=False)])
async def test_for_another_author_nothing_is_sent(way: Any) -> None:
    async with speaking() as server, client_of(server, sign=way) as client:
        with pytest.raises(SigningError, match="the certificate is for ann@example.com"):
            await client.send(message(sender="eve@example.com"))
    assert server.messages == []


@closes_files
@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_it_may_be_cancelled_at_every_await(manner: Any, moment: Any, tmp_path: Path) -> None:
    """Nothing is left open, and no copy is left behind."""

    async def scenario() -> None:
        one = message()
        one.attach(async_generated([b"x" * 70_000] * 2), filename="a.bin")
        way = SMIMESignature(person("rsa").certificate, by_service)
        mail = await taken(one, [way, ENCRYPTED], temp_dir=tmp_path)
        await RenderedMail(mail.envelope(), mail.content()).aclose()

    runs = 0
    async for run in cancellations(scenario, manner=manner, moment=moment):
        runs += 1
        if not run.injected:
            assert run.error is None
    assert runs > 5


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_a_large_request_may_be_cancelled_at_every_await(
    manner: Any, moment: Any, tmp_path: Path
) -> None:
    """Its hash is made in a thread."""
    by, key = MailCertificate(ANN.certificate), KeySigner(ANN.key)

    async def ask(request: SignRequest) -> bytes:
        assert request.data is None and request.hash is not None
        await asyncio.sleep(0)
        attributes = signed_attributes(request.hash, NOW, certificate_attribute(by, "sha256"))
        return signed_data(attributes, key.sign(ToSign(key, attributes)), "ec", "sha256", [by], None)

    way = SMIMESignature(None, ExternalSigner(ask=ask, method="pkcs7"))
    one = message(text="a line of text\n" * 10_000)

    async def scenario() -> bytes:
        return (await taken(one, way)).content().join()

    runs = 0
    async for run in cancellations(scenario, manner=manner, moment=moment):
        runs += 1
        if not run.injected:
            assert run.error is None
    assert runs > 3
    assert verified(tmp_path, await scenario()) == inner_of(one.content().join())


# --- the way ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mta(name: str, request: pytest.FixtureRequest) -> Any:
    server = request.getfixturevalue(name)
    server.clear()
    return server


def client_for(mta: Any, **options: Any) -> SMTPClient:
    lmtp = hasattr(mta, "lmtp_port")
    return client_of(mta, port=mta.lmtp_port if lmtp else mta.plain_port, lmtp=lmtp, **options)


@pytest.mark.server
@EACH
@pytest.mark.parametrize("name", ["postfix", "exim", "dovecot"])
@pytest.mark.parametrize("chunking", [False, True], ids=["data", "bdat"])
async def test_servers_carry_it(mta: Any, way: str, chunking: bool, tmp_path: Path) -> None:
    one = message(text="größer\n.\nFrom here\n", html="<p>größer</p>", to="user@lab.test")
    one.attach(path_of(random_octets(200_000), tmp_path), filename="a.bin")
    plain = inner_of(await read_all(one.content()))
    async with client_for(mta, chunking=chunking, sign=WAYS[way]) as client:
        await client.send(one)
    (found,) = await asyncio.to_thread(mta.messages)
    assert opened(way, found.replace(b"\n", b"\r\n"), tmp_path) == plain


@EACH
@pytest.mark.parametrize("kind", ["directory", "memory"])
async def test_a_spool_signs_when_a_message_is_put(
    way: str, kind: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = message()
    if kind == "memory":
        spool: Any = MemorySpool(sign=WAYS[way])
    else:
        spool = DirectorySpool(tmp_path, sign=WAYS[way])
    async with spool:
        await spool.put(one)
        (lease,) = await spool.claim(1)
        data = await read_all(lease.mail().content())
        assert opened(way, data, tmp_path_factory.mktemp("reader")) == inner_of(one.content().join())
        await lease.settle(None)
