"""signing.py: a message of any kind is signed, wherever the key is; what cannot be signed is not sent."""

import asyncio
import base64
import hashlib
import io
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from smtp_async import DKIM, ExternalSigner, Message, Raw, SendOptions, SignAnswer, SignRequest, dkim_record
from smtp_async.errors import (
    ExtensionMissing,
    FileError,
    InvalidArgument,
    InvalidHeader,
    MissingRecipient,
    SignerUnavailable,
    SigningError,
)
from smtp_async.mail.coerce import PendingMail, to_mail
from smtp_async.mail.rendered import RenderedMail
from smtp_async.mail.signing import signed
from smtp_async.message.foreign_mail import mail_of_bytes
from smtp_async.model.content import Content, Mail
from smtp_async.model.signing import Rewritten, Signing, ToSign
from smtp_async.sources import read_all
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from tests.sources.conftest import loops_have_run, no_open_files
from tests.sources.origins import AWAITED, EVERY, ONCE, Again, async_generated, cut, path_of, random_octets

__all__ = ["loops_have_run", "no_open_files"]

pytestmark = pytest.mark.usefixtures("no_open_files")

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
BY_RSA = DKIM("example.com", "r", RSA)
BY_ED25519 = DKIM("example.com", "e", ED25519)
RECORDS = {
    b"r._domainkey.example.com.": dkim_record(RSA).encode(),
    b"e._domainkey.example.com.": dkim_record(ED25519).encode(),
}
HEAD = b"From: Ann <ann@example.com>\r\nTo: bob@example.org\r\nSubject: Hello\r\n\r\n"


def message(**fields: Any) -> Message:
    return Message(
        **{"sender": "ann@example.com", "to": "bob@example.org", "text": "Hello  there \n\n\n", **fields}
    )


async def octets(mail: Mail) -> bytes:
    """What is sent, which stays the same however often it is asked for."""
    content = mail.content(eightbit=True, utf8=True, binary=True)
    assert content is mail.content()
    data = await read_all(content)
    assert await read_all(content, close_streams=True) == data
    assert content.size in (None, len(data))
    return data


def demand_verified(data: bytes, signatures: int = 1) -> None:
    assert len(re.findall(rb"(?m)^DKIM-Signature:", data)) == signatures
    for index in range(signatures):
        assert dkim.DKIM(data).verify(idx=index, dnsfunc=lambda name, timeout=5: RECORDS.get(name))


async def read(thing: Any, sign: Any = BY_ED25519, **options: Any) -> Mail:
    """Take a thing the way in which a client takes it."""
    temp_dir = options.pop("temp_dir", None)
    pending = to_mail(thing, SendOptions(sign=sign, **options))
    assert isinstance(pending, PendingMail)
    return await pending.read(temp_dir)


# --- messages ----------------------------------------------------------------------------------------------------


class TestMessages:
    @pytest.mark.parametrize("sign", [BY_RSA, BY_ED25519], ids=["rsa", "ed25519"])
    async def test_a_message(self, sign: DKIM) -> None:
        one = message()
        plain = one.content().join()
        data = await octets(await read(one, sign))
        assert data.endswith(plain)
        demand_verified(data)

    async def test_one_signature_after_the_other(self) -> None:
        data = await octets(await read(message(), [BY_RSA, BY_ED25519]))
        assert [found.decode() for found in re.findall(rb"a=(\S+);", data)] == [
            "rsa-sha256",
            "ed25519-sha256",
        ]
        demand_verified(data, 2)

    async def test_it_is_the_same_for_every_server(self) -> None:
        """Octets above 127 are encoded, because the next server may not take them."""
        content = (await read(message(text="größer\n"))).content(eightbit=True)
        assert not content.eightbit and not content.utf8
        demand_verified(content.join())

    async def test_a_header_that_needs_smtputf8(self) -> None:
        content = (await read(message(to="jörg@example.org"))).content()
        assert content.utf8
        demand_verified(content.join())

    async def test_one_that_is_large_in_memory(self) -> None:
        one = message(text="a line of text\n" * 100_000)
        one.attach(random_octets(300_000), filename="a.bin")
        mail = await read(one)
        content = mail.content()
        data = content.join()
        (attached,) = content.attached
        assert base64.b64decode(data[attached.start : attached.end]) == random_octets(300_000)
        demand_verified(data)

    async def test_an_object_of_the_standard_library(self) -> None:
        from email.message import EmailMessage

        one = EmailMessage()
        one["From"], one["To"] = "ann@example.com", "bob@example.org"
        one.set_content("Hello\n")
        demand_verified(await octets(await read(one)))

    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    async def test_octets(self, end: bytes) -> None:
        given = (HEAD + b"Hello \r\n\r\n").replace(b"\r\n", end)
        demand_verified(await octets(await read(Raw(given))))

    async def test_octets_without_a_body(self) -> None:
        demand_verified(await octets(await read(Raw(HEAD[:-2]))))

    async def test_a_content_that_is_not_normalised(self) -> None:
        class Loose:
            def envelope(self) -> Any:
                return message().envelope()

            def content(self, **offer: bool) -> Content:
                return Content(
                    (HEAD.replace(b"\r\n", b"\n") + b"a \nb", b"\rc\r\n" * 20_000, b"end"), canonical=False
                )

        mail = await signed(Loose(), (BY_ED25519,))
        content = mail.content()
        assert not content.canonical
        demand_verified(mail_of_bytes(content.join()).content().join())

    async def test_another_envelope(self) -> None:
        pending = to_mail(message(), SendOptions(sign=BY_RSA), recipients=["cy@example.net"])
        assert isinstance(pending, PendingMail)
        mail = await pending.read()
        assert [str(one.address) for one in mail.envelope().recipients] == ["cy@example.net"]

    async def test_what_stays_exact_has_no_bare_line_end(self) -> None:
        demand_verified(await octets(await read(Raw(HEAD + b"Hello\r\n"), exact=True)))
        with pytest.raises(InvalidArgument, match="bare CR or LF cannot be signed"):
            await read(Raw(HEAD + b"Hello\nyou\r\n"), exact=True)


# --- sources -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY.values(), ids=EVERY)
class TestSources:
    async def test_an_attachment(self, kind: Any, tmp_path: Path) -> None:
        data = random_octets(400_000)
        one = message()
        one.attach(kind(data, tmp_path), filename="a.bin", content_type="application/x-any", close=True)
        demand_verified(await octets(await read(one, [BY_RSA, BY_ED25519], temp_dir=tmp_path)), 2)

    @pytest.mark.parametrize(
        "body", [b"a line  of text \r\n" * 20_000, "größer\r\n".encode() * 20_000], ids=["7", "8"]
    )
    async def test_a_whole_message(self, kind: Any, body: bytes, tmp_path: Path) -> None:
        mail = await read(Raw(kind(HEAD + body, tmp_path), close=True), temp_dir=tmp_path)
        assert mail.content().eightbit is not body.isascii()
        data = await octets(mail)
        assert data.endswith(body)
        demand_verified(data)


async def test_only_what_can_be_read_once_is_kept(tmp_path: Path) -> None:
    places = tmp_path / "kept"
    places.mkdir()
    once, again = tmp_path / "again.bin", b"x" * 100_000
    once.write_bytes(again)
    one = message()
    one.attach(iter([again]), filename="once.bin")
    one.attach(once, filename="again.bin")
    mail = await read(one, temp_dir=places)
    first, second = mail.content().sources
    assert (first.name, first.encoding, first.close) == ("once.bin", "identity", True)
    assert second.origin is once
    # Copies have no name.
    assert list(places.iterdir()) == []
    demand_verified(await octets(mail))


@pytest.mark.parametrize("kind", (ONCE | AWAITED).values(), ids=ONCE | AWAITED)
async def test_a_message_that_is_not_sent_leaves_nothing_open(kind: Any, tmp_path: Path) -> None:
    mail = await read(Raw(kind(HEAD + b"x\r\n" * 100_000, tmp_path), close=True), temp_dir=tmp_path)
    assert isinstance(mail, RenderedMail)
    mail.close()
    await mail.aclose()


async def test_a_source_that_fails_is_closed() -> None:
    class Broken(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            if self.tell() > 200_000:
                raise OSError("gone")
            return super().read1(size)

    source = Broken(HEAD + b"x\r\n" * 200_000)
    with pytest.raises(FileError, match="gone"):
        await read(Raw(source, close=True))
    assert source.closed


async def test_a_stream_that_needs_binarymime() -> None:
    with pytest.raises(ExtensionMissing, match="NUL"):
        await read(Raw(iter(cut(HEAD + b"x\r\n" * 100_000 + b"\0\r\n", [50_000]))))


async def test_a_header_without_an_end() -> None:
    class Endless:
        def envelope(self) -> Any:
            return message().envelope()

        def content(self, **offer: bool) -> Content:
            return Content((b"X: y\r\n" * 300_000,), canonical=True)

    with pytest.raises(InvalidHeader, match="no empty line"):
        await signed(Endless(), (BY_ED25519,))


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_it_may_be_cancelled_at_every_await(manner: Any, moment: Any, tmp_path: Path) -> None:
    """Nothing is left open, and no copy is left behind."""

    async def ask(request: SignRequest) -> bytes:
        await asyncio.sleep(0)
        return RSA.sign(request.hash or b"", padding.PKCS1v15(), Prehashed(SHA256()))

    async def scenario() -> None:
        one = message()
        one.attach(async_generated([b"x" * 70_000] * 2), filename="a.bin")
        sign = [BY_RSA, BY_ED25519, DKIM("example.com", "r", ask)]
        mail = await read(one, sign, temp_dir=tmp_path)
        await RenderedMail(mail.envelope(), mail.content()).aclose()

    runs = 0
    async for run in cancellations(scenario, manner=manner, moment=moment):
        runs += 1
        if not run.injected:
            assert run.error is None
    assert runs > 5


# --- signers elsewhere -------------------------------------------------------------------------------------------


class Service:
    """A signing service: it has the keys, and records the requests."""

    def __init__(self, key: Any = RSA) -> None:
        self.key = key
        self.requests: list[SignRequest] = []

    async def __call__(self, request: SignRequest) -> bytes | SignAnswer:
        await asyncio.sleep(0)
        self.requests.append(request)
        if self.key is ED25519:
            hashed = hashlib.sha256(request.data).digest() if request.data is not None else request.hash
            signature: bytes = self.key.sign(hashed or b"")
        elif request.data is None:
            signature = self.key.sign(request.hash, padding.PKCS1v15(), Prehashed(SHA256()))
        else:
            signature = self.key.sign(request.data, padding.PKCS1v15(), SHA256())
        return SignAnswer(signature, request.echo) if request.echo else signature


class TestSignersElsewhere:
    async def test_a_callable(self) -> None:
        service = Service()
        demand_verified(await octets(await read(message(), DKIM("example.com", "r", service))))
        (request,) = service.requests
        assert request.data is None and request.hash is not None and len(request.hash) == 32

    @pytest.mark.parametrize("outside", [False, True], ids=["hashed-here", "hashed-there"])
    @pytest.mark.parametrize(("selector", "key", "kind"), [("r", RSA, "rsa"), ("e", ED25519, "ed25519")])
    async def test_with_everything_it_may_be_told(
        self, outside: bool, selector: str, key: Any, kind: Any
    ) -> None:
        service = Service(key)
        signer = ExternalSigner(
            ask=service,
            key_algorithm=kind,
            hash_outside=outside,
            key_id="key 7",
            key_secret="shared",
            params="tenant=3",
            echo="request 12",
            public_key=key.public_key(),
        )
        demand_verified(await octets(await read(message(), DKIM("example.com", selector, signer))))
        (request,) = service.requests
        assert (request.data is not None) is outside
        assert request[2:8] == ("sha256", kind, "pkcs1", "key 7", "tenant=3", "request 12")
        assert request.is_authentic("shared")

    async def test_one_that_raises(self) -> None:
        async def ask(request: SignRequest) -> bytes:
            raise RuntimeError("the HSM is on fire: PIN 1234")

        with pytest.raises(SignerUnavailable, match=r"the signer raised RuntimeError\Z") as caught:
            await read(message(), DKIM("example.com", "r", ask))
        assert caught.value.temporary
        assert isinstance(caught.value.__cause__, RuntimeError)

    async def test_one_that_hangs(self) -> None:
        async def ask(request: SignRequest) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        with pytest.raises(SignerUnavailable, match="did not answer within 0.05 s"):
            await read(message(), DKIM("example.com", "r", ExternalSigner(ask=ask, timeout=0.05)))

    @pytest.mark.parametrize("answer", [None, "text", b"", 7, SignAnswer(b"", "")])
    async def test_one_that_returns_rubbish(self, answer: Any) -> None:
        async def ask(request: SignRequest) -> Any:
            return answer

        with pytest.raises(SigningError, match="the signer returned"):
            await read(message(), DKIM("example.com", "r", ask))

    async def test_one_that_is_not_async(self) -> None:
        def ask(request: SignRequest) -> Any:
            return RSA.sign(request.hash or b"", padding.PKCS1v15(), Prehashed(SHA256()))

        demand_verified(await octets(await read(message(), DKIM("example.com", "r", ask))))

    async def test_one_with_another_key_is_found_out_by_the_record(self) -> None:
        async def lookup(name: str) -> Sequence[str]:
            return [RECORDS[f"{name}.".encode()].decode()]

        other = rsa.generate_private_key(65537, 2048)
        with pytest.raises(SigningError, match="does not verify with the key of the DNS record"):
            await read(message(), DKIM("example.com", "r", Service(other), check_record=lookup))
        with pytest.raises(SigningError, match="does not fit the DNS record"):
            await read(message(), DKIM("example.com", "r", other, check_record=lookup))
        demand_verified(
            await octets(await read(message(), DKIM("example.com", "r", Service(), check_record=lookup)))
        )


class TestKeysHere:
    async def test_rsa_signs_in_a_thread_and_ed25519_at_once(self) -> None:
        threads: dict[str, str] = {}

        def noting(key: Any) -> Any:
            class Noting:
                key_algorithm = "rsa" if key is RSA else "ed25519"
                quick = key is ED25519

                def sign(self, wanted: ToSign) -> bytes:
                    threads[self.key_algorithm] = threading.current_thread().name
                    return b"x"

            return Noting()

        for key in (RSA, ED25519):
            await read(message(), DKIM("example.com", "s", noting(key)))
        assert threads["ed25519"] == "MainThread" != threads["rsa"]
        # What has to be awaited beside it changes nothing.
        threads.clear()
        await read(message(), [DKIM("example.com", "r", Service()), DKIM("example.com", "s", noting(RSA))])
        assert threads["rsa"] != "MainThread"

    async def test_a_key_that_fails(self) -> None:
        class Damaged:
            key_algorithm = "rsa"
            quick = True

            def sign(self, wanted: ToSign) -> bytes:
                raise ArithmeticError("p is not prime")

        with pytest.raises(SigningError, match="the key does not sign: ArithmeticError"):
            await read(message(), DKIM("example.com", "s", Damaged()))


# --- what is signed, and what is not -----------------------------------------------------------------------------


class TestChoice:
    async def test_a_selector_per_domain(self) -> None:
        sign = [
            DKIM("example.com", "r", RSA, only_for=["example.com"]),
            DKIM("example.org", "s", RSA, only_for=["example.org"]),
        ]
        for domain, selector in (("example.com", "r"), ("news.example.org", "s")):
            data = await octets(await read(message(sender=f"ann@{domain}"), sign))
            assert re.findall(rb"; s=(\w);", data.replace(b"\r\n\t", b" ")) == [selector.encode()]

    async def test_nothing_leaves_unsigned(self) -> None:
        with pytest.raises(SigningError, match="would leave unsigned"):
            await read(message(), DKIM("example.org", "s", RSA, only_for=["example.org"]))

    async def test_a_message_without_recipients_is_not_signed(self) -> None:
        service = Service()
        with pytest.raises(MissingRecipient):
            await read(message(to=()), DKIM("example.com", "r", service))
        assert service.requests == []

    async def test_no_way_of_signing(self) -> None:
        for wrong in ("DKIM", 7, [BY_RSA, "DKIM"]):
            with pytest.raises(InvalidArgument, match="sign takes"):
                SendOptions(sign=wrong)  # type: ignore[arg-type]
        assert not isinstance(to_mail(message(), SendOptions(sign=())), PendingMail)


class Wrapping:
    """A way of signing that makes another message: what S/MIME does."""

    prepends = False
    unless_signed = False

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep

    def begin(self, header: bytes, now: float) -> Signing:
        return _Wrapped(header, keep=self.keep)


class _Wrapped:
    def __init__(self, header: bytes, *, keep: bool) -> None:
        self.header, self.keep = header, keep
        self.body = b""

    def feed(self, data: bytes) -> None:
        self.body += data

    def end(self) -> list[ToSign]:
        return []

    def finish(self, signatures: Sequence[bytes]) -> Rewritten:
        before, after = b"X-Wrapped: yes\r\n" + self.header + b"--b\r\n", b"--b--\r\n"
        if self.keep:
            return Rewritten(before, len(self.header), after)
        return Rewritten(before + self.body + after, None)


@pytest.mark.parametrize("keep", [True, False])
async def test_the_next_one_signs_what_the_one_before_has_made(keep: bool, tmp_path: Path) -> None:
    one = message()
    path = path_of(random_octets(200_000), tmp_path)
    one.attach(path, filename="a.bin")
    plain = await read_all(one.content())
    header, _, body = plain.partition(b"\r\n\r\n")
    data = await octets(await read(one, [Wrapping(keep=keep), BY_RSA, BY_ED25519]))
    demand_verified(data, 2)
    assert data.endswith(b"X-Wrapped: yes\r\n" + header + b"\r\n\r\n--b\r\n" + body + b"--b--\r\n")


class TestChanges:
    """What was signed is what is sent, or nothing is."""

    async def test_of_a_file(self, tmp_path: Path) -> None:
        path = path_of(b"x" * 200_000, tmp_path)
        one = message()
        one.attach(path, filename="a.bin")
        mail = await read(one)
        path.write_bytes(b"y" * 200_000)
        os.utime(path, (1, 1))
        with pytest.raises(FileError, match="a.bin.* was changed since the message was signed"):
            await octets(mail)

    async def test_of_an_open_file(self) -> None:
        file = io.BytesIO(b"x" * 200_000)
        one = message()
        one.attach(file, filename="a.bin")
        mail = await read(one)
        file.truncate(100_000)
        with pytest.raises(FileError, match="was changed since the message was signed"):
            await octets(mail)

    async def test_of_an_iterable(self) -> None:
        again = Again([b"x" * 50_000] * 3)
        one = message()
        one.attach(again, filename="a.bin")
        mail = await read(one)
        again.chunks = [b"x" * 50_000] * 2
        with pytest.raises(FileError, match="shrank"):
            await octets(mail)
