"""Signed mail: dkimpy and OpenDKIM verify the whole corpus, as it was made and as servers have delivered it."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from smtp_async import (
    DKIM,
    NOBODY,
    CertificateStore,
    DirectorySpool,
    ExternalSigner,
    NotSent,
    Outcome,
    PoolLimits,
    QueueProcessor,
    Raw,
    SendOptions,
    SignRequest,
    SMTPError,
    dkim_record,
    serialize,
)
from smtp_async.errors import InvalidArgument, SignerUnavailable, SigningError
from smtp_async.mail.coerce import PendingMail, to_mail
from smtp_async.testing import MemorySpool, ScriptedServer
from tests.lab import SENDER, client_of, every_loop, gathered, mail, sampled, speaking
from tests.message.corpus import HARD, Letter, generated
from tests.servers.opendkim import OpenDKIM
from tests.servers.softhsm import PIN, SoftHSM

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
SIMPLE = DKIM("example.com", "r", RSA, header="simple", body="simple")
RELAXED = DKIM("example.com", "e", ED25519)
BOTH = (RELAXED, DKIM("example.com", "r", RSA))
RECORDS = {one.record_name: dkim_record(one.key) for one in BOTH}
ODD = sorted((Path(__file__).parent / "message" / "odd").glob("*.eml"))
USER, BOB = "user@lab.test", "bob@example.org"


def letters() -> list[Letter]:
    return [*HARD, *[generated(number) for number in range(320)]]


@pytest.fixture(scope="module")
def opendkim(tmp_path_factory: pytest.TempPathFactory) -> OpenDKIM:
    return OpenDKIM(tmp_path_factory.mktemp("opendkim"), RECORDS)


def by_dkimpy(message: bytes, records: Mapping[str, str] = RECORDS) -> list[bool]:
    """Ask dkimpy of every signature."""
    count = len(re.findall(rb"(?mi)^DKIM-Signature:", re.split(rb"\r?\n\r?\n", message, maxsplit=1)[0]))
    lookup = {f"{name}.".encode(): text.encode() for name, text in records.items()}

    def verified(index: int) -> bool:
        try:
            return bool(
                dkim.DKIM(message).verify(idx=index, dnsfunc=lambda name, timeout=5: lookup.get(name))
            )
        except dkim.ValidationError:
            return False

    return [verified(index) for index in range(count)]


async def made(thing: Any, sign: Any) -> bytes:
    pending = to_mail(thing, SendOptions(sign=sign))
    assert isinstance(pending, PendingMail)
    return (await pending.read()).content().join()


# --- the corpus ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [BOTH, (SIMPLE, RELAXED)], ids=["relaxed", "simple"])
@pytest.mark.timeout(120)
async def test_dkimpy_verifies_the_corpus(sign: Any) -> None:
    """It computes in Python; OpenDKIM verifies all of it."""
    wrong = []
    for letter in sampled(letters(), 3):
        if by_dkimpy(await made(letter.message(), sign)) != [True, True]:
            wrong.append(letter.name)
    assert wrong == []


@pytest.mark.server
@pytest.mark.timeout(120)
async def test_opendkim_verifies_the_corpus(opendkim: OpenDKIM) -> None:
    messages = [await made(letter.message(), BOTH) for letter in letters()]
    found = await asyncio.to_thread(opendkim.verdicts, messages)
    assert [one for one in found if one != ["pass", "pass"]] == []


@pytest.mark.server
@pytest.mark.timeout(120)
async def test_opendkim_verifies_simple_signatures(opendkim: OpenDKIM) -> None:
    """A milter never sees a fold behind a colon, so "simple" fails for such fields."""
    messages = [await made(letter.message(), (SIMPLE, RELAXED)) for letter in letters()]
    unfolded = [one for one in messages if b":\r\n " not in one.partition(b"\r\n\r\n")[0]]
    found = await asyncio.to_thread(opendkim.verdicts, unfolded)
    assert len(unfolded) > 150 and [one for one in found if one != ["pass", "pass"]] == []


#: What neither of them takes for a message.
NO_MAIL = {
    "bcc-behind-line-without-colon",
    "bcc-behind-name-with-8-bit",
    "field-name-folded-before-colon",
    "to-tab-before-colon",
}


@pytest.mark.server
@pytest.mark.timeout(120)
async def test_odd_mail_is_verified_by_one_of_them(opendkim: OpenDKIM) -> None:
    """A reader may refuse what is no mail, but no signature is false for both."""
    messages = {}
    for path in ODD:
        try:
            messages[path.stem] = await made(Raw(path.read_bytes(), "ann@example.com", [BOB]), BOTH)
        except SMTPError:
            continue
    found = await asyncio.to_thread(opendkim.verdicts, list(messages.values()))
    wrong = set()
    for (name, message), verdicts in zip(messages.items(), found, strict=True):
        try:
            fine = by_dkimpy(message)[:2] == [True, True]
        except dkim.MessageFormatError:
            fine = False
        if not fine and verdicts[:2] != ["pass", "pass"]:
            wrong.add(name)
    assert len(messages) > 300 and wrong == NO_MAIL


# --- through servers -----------------------------------------------------------------------------------------------


@pytest.fixture
def mta(name: str, request: pytest.FixtureRequest) -> Any:
    """A server with nothing delivered yet."""
    server = request.getfixturevalue(name)
    server.clear()
    return server


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim", "dovecot"])
@pytest.mark.timeout(120)
async def test_both_verify_what_a_server_has_delivered(mta: Any, opendkim: OpenDKIM) -> None:
    """Signatures by RSA and Ed25519, the whole corpus, over a few connections."""
    lmtp = hasattr(mta, "lmtp_port")
    corpus = letters()
    port = mta.lmtp_port if lmtp else mta.plain_port
    pool = PoolLimits(max_connections=4)
    async with client_of(mta, port=port, lmtp=lmtp, sign=BOTH, pool=pool) as client:
        sending = [client.send(one.message(), sender=SENDER, recipients=[USER]) for one in corpus]
        async with asyncio.timeout(100):
            receipts = await asyncio.gather(*sending, return_exceptions=True)
    assert [one for one in receipts if getattr(one, "outcome", None) is not Outcome.ACCEPTED] == []
    delivered = [re.sub(rb"\r?\n", b"\r\n", one) for one in await asyncio.to_thread(mta.messages)]
    assert len(delivered) == len(corpus)
    found = await asyncio.to_thread(opendkim.verdicts, delivered)
    assert [one for one in found if one != ["pass", "pass"]] == []
    assert [one for one in delivered if by_dkimpy(one) != [True, True]] == []


@pytest.mark.server
async def test_opendkim_finds_what_was_changed(opendkim: OpenDKIM) -> None:
    message = await made(HARD[0].message(), BOTH)
    changed = [
        message + b"more\r\n",
        b"Subject: another\r\n" + message,
        message.replace(b"example.org", b"example.net", 1),
    ]
    for verdicts in await asyncio.to_thread(opendkim.verdicts, changed):
        assert verdicts[:2] == ["fail", "fail"]


# --- through a client ----------------------------------------------------------------------------------------------


def failing(what: str) -> DKIM:
    """A signature that cannot be made."""

    async def ask(request: SignRequest) -> Any:
        if what == "raises":
            raise RuntimeError("the HSM is gone")
        if what == "hangs":
            await asyncio.Event().wait()
        return "rubbish"

    async def another(name: str) -> list[str]:
        return [dkim_record(ED25519)]

    if what == "another key":
        return DKIM("example.com", "r", RSA, check_record=another)
    return DKIM("example.com", "r", ExternalSigner(ask=ask, timeout=0.05))


def verbs(server: ScriptedServer) -> set[str]:
    return {received.verb for received in server.commands}


@every_loop
class TestClient:
    async def test_it_signs_what_it_sends(self) -> None:
        async with speaking() as server, client_of(server, sign=BOTH) as client:
            await client.send(mail())
            await client.send_raw(mail().as_bytes())
            async with client.session() as session:
                await session.connect()
                await session.send(mail())
            assert [receipt.outcome async for _, receipt in client.send_all([mail(n) for n in range(9)])] == [
                Outcome.ACCEPTED
            ] * 9
            assert [by_dkimpy(one.data) for one in server.messages] == [[True, True]] * 12

    async def test_options_of_a_call_go_before(self) -> None:
        async with speaking() as server, client_of(server, sign=BOTH) as client:
            await client.send(mail(), options=SendOptions(must_accept=NOBODY))
            await client.send(mail(), options=SendOptions(sign=RELAXED))
            await client.send(mail(), options=SendOptions(sign=()))
            assert [len(by_dkimpy(one.data)) for one in server.messages] == [2, 1, 0]

    @pytest.mark.parametrize("what", ["raises", "hangs", "returns rubbish", "another key"])
    async def test_what_cannot_be_signed_is_not_sent(self, what: str) -> None:
        wrong = SignerUnavailable if what in ("raises", "hangs") else SigningError
        async with speaking() as server, client_of(server, sign=failing(what)) as client:
            with pytest.raises(wrong):
                await client.send(mail())
            async with client.session() as session:
                await session.connect()
                with pytest.raises(wrong):
                    await session.send(mail())
            receipts = [receipt async for _, receipt in client.send_all([mail(1), mail(2)])]
            assert [type(one.error) for one in receipts] == [wrong] * 2
            assert server.messages == [] and "MAIL" not in verbs(server)

    async def test_a_signer_that_hangs_until_the_deadline(self) -> None:
        async def ask(request: SignRequest) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        async with speaking() as server, client_of(server, sign=DKIM("example.com", "r", ask)) as client:
            with pytest.raises(NotSent, match="read and signed"):
                await client.send(mail(), deadline=0.05)
            assert server.messages == []

    async def test_signing_may_be_cancelled(self) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def ask(request: SignRequest) -> bytes:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        async with speaking() as server, client_of(server, sign=DKIM("example.com", "r", ask)) as client:
            sending = asyncio.ensure_future(client.send(mail()))
            await begun.wait()
            sending.cancel()
            assert [type(one) for one in await gathered(sending)] == [asyncio.CancelledError]
            assert ended.is_set()
            await client.send(mail(), options=SendOptions(sign=RELAXED))
            assert len(server.messages) == 1


@pytest.mark.server
async def test_a_key_on_a_token(softhsm: SoftHSM, tmp_path: Path) -> None:
    """The key has no certificate, and does not leave the token; both verify its signature."""
    key = rsa.generate_private_key(65537, 2048)
    softhsm.add_token("dkim")
    softhsm.add_key(
        "dkim",
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        label="2026a",
        key_id=b"\1",
    )
    store = await asyncio.to_thread(CertificateStore.load, softhsm.uri("token=dkim;object=2026a"), PIN)
    way = DKIM("example.com", "token", store.key())
    records = {way.record_name: dkim_record(key)}
    async with speaking() as server, client_of(server, sign=way) as client:
        receipts = await gathered(*[client.send(mail(n)) for n in range(5)])
        assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 5
        delivered = [one.data for one in server.messages]
    assert [by_dkimpy(one, records) for one in delivered] == [[True]] * 5
    assert OpenDKIM(tmp_path, records).verdicts(delivered) == [["pass"]] * 5
    softhsm.remove("dkim", key_id=b"\1")
    async with speaking() as server, client_of(server, sign=way) as client:
        with pytest.raises(SigningError, match="the token does not sign: .* not on its token any more"):
            await client.send(mail())
        assert "MAIL" not in verbs(server)


# --- through a spool -----------------------------------------------------------------------------------------------


class TestSpool:
    async def test_it_signs_when_a_message_is_put(self, tmp_path: Path) -> None:
        """Each attempt sends the same octets."""
        async with DirectorySpool(tmp_path / "spool", create=True, sign=BOTH) as spool:
            id = await spool.put(mail())
            stored = await spool.read(id)
            assert by_dkimpy(stored) == [True, True]
            async with speaking() as server, client_of(server) as client:
                await QueueProcessor(spool, client).run_once()
                assert [one.data for one in server.messages] == [stored]

    async def test_a_processor_does_not_sign_again(self) -> None:
        async with MemorySpool(sign=RELAXED) as spool:
            await spool.put(mail())
            async with speaking() as server, client_of(server, sign=BOTH) as client:
                await QueueProcessor(spool, client).run_once()
                assert [by_dkimpy(one.data) for one in server.messages] == [[True]]

    async def test_nothing_leaves_unsigned(self) -> None:
        async with MemorySpool() as spool, speaking() as server:
            for options in ({"sign": BOTH}, {"send": SendOptions(sign=BOTH)}):
                async with client_of(server, **options) as client:
                    with pytest.raises(InvalidArgument, match="the client signs and the spool does not"):
                        QueueProcessor(spool, client)

    @pytest.mark.parametrize("group", ["client", "send"])
    async def test_a_processor_signs_what_was_put_unsigned(self, group: str, tmp_path: Path) -> None:
        once = tuple([replace(one, unless_signed=True) for one in BOTH])
        options = {"sign": once} if group == "client" else {"send": SendOptions(sign=once)}
        path = tmp_path / "spool"
        async with DirectorySpool(path, create=True, sign=RELAXED) as signing:
            await signing.put(mail(subject="signed by one"))
        async with (
            DirectorySpool(path) as spool,
            speaking() as server,
            client_of(server, **options) as client,
        ):
            await spool.put(mail(subject="signed by none"))
            # So large that it is read from the disk while it is sent.
            await spool.put(mail(subject="large", text="x" * 70 + "\n" + "y\n" * 400_000))
            report = await QueueProcessor(spool, client).run_once()
            assert len(report.sent) == 3
            assert {one.subject: by_dkimpy(one.data) for one in server.messages} == {
                "signed by one": [True, True],
                "signed by none": [True, True],
                "large": [True, True],
            }

    async def test_what_a_processor_cannot_sign_is_not_sent(self) -> None:
        async def out_of_order(request: SignRequest) -> bytes:
            raise OSError("no token")

        once = DKIM("example.com", "r", ExternalSigner(ask=out_of_order), unless_signed=True)
        async with MemorySpool() as spool, speaking() as server, client_of(server, sign=once) as client:
            id = await spool.put(mail())
            report = await QueueProcessor(spool, client).run_once()
            [deferred] = report.deferred
            assert deferred.id == id and "the signer raised OSError" in deferred.reason
            assert "MAIL" not in verbs(server)

    @pytest.mark.parametrize("what", ["raises", "hangs", "returns rubbish", "another key"])
    async def test_what_cannot_be_signed_is_not_stored(self, what: str, tmp_path: Path) -> None:
        async with DirectorySpool(tmp_path / "spool", create=True, sign=failing(what)) as spool:
            with pytest.raises(SigningError):
                await spool.put(mail())
            assert [one async for one in spool.list()] == []

    async def test_the_text_of_a_queue_file_is_signed(self) -> None:
        text = await serialize(mail(), sign=BOTH)
        _, _, message = text.partition("\nDKIM-Signature:")
        assert by_dkimpy(b"DKIM-Signature:" + message.encode("utf-8", "surrogateescape")) == [True, True]
