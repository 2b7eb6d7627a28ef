"""Mail through real servers: every service, every way to log in, every kind of refusal."""

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from smtp_async import (
    EVERYONE,
    NOBODY,
    Attachment,
    ClientOptions,
    Credentials,
    Kind,
    MessageRefused,
    NotSent,
    Outcome,
    PoolLimits,
    RecipientsRefused,
    Security,
    SenderRefused,
    SendOptions,
    SMTPClient,
    SMTPError,
)
from smtp_async.errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    CertificateRejected,
    CommandRefused,
    ExtensionMissing,
    MessageTooLarge,
    StartTLSUnavailable,
    WrongTLSMode,
)
from smtp_async.events import Direction, Error, Expand, PITrail
from smtp_async.testing import Cut, CutManner, CutProxy
from smtp_async.testing import Direction as Way
from tests.lab import SENDER, client_of, every_loop, gathered, mail, trusting, until_cut
from tests.servers import PASSWORD, REFUSED_CONTENT, REFUSED_SENDER, USER
from tests.servers.aiosmtpd_server import AiosmtpdServer
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix
from tests.servers.sink import Sink

pytestmark = pytest.mark.server

Mta = Postfix | Exim | AiosmtpdServer


@dataclass(frozen=True)
class Service:
    """One way into one server.

    Attributes:
        server: name of the fixture.
        port: name of its attribute.
        security: how TLS starts there.
        mechanism: how to log in, if at all.
    """

    server: str
    port: str
    security: Security = Security.PLAINTEXT
    mechanism: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.server, self.port.removesuffix("_port"), self.mechanism)))


TLS, IMPLICIT = Security.STARTTLS, Security.IMPLICIT
SERVICES = [
    Service("postfix", "plain_port"),
    Service("postfix", "bare_port"),
    Service("postfix", "starttls_port", TLS),
    *(Service("postfix", "auth_port", TLS, name) for name in ("PLAIN", "LOGIN", "CRAM-MD5")),
    *(Service("postfix", "tls_port", IMPLICIT, name) for name in ("PLAIN", "LOGIN", "CRAM-MD5")),
    Service("exim", "plain_port"),
    *(Service("exim", "auth_port", TLS, name) for name in ("PLAIN", "LOGIN", "CRAM-MD5")),
    Service("exim", "tls_port", IMPLICIT, "PLAIN"),
    Service("aiosmtpd", "plain_port"),
    *(Service("aiosmtpd", "auth_port", TLS, name) for name in ("PLAIN", "LOGIN")),
    Service("aiosmtpd", "tls_port", IMPLICIT, "PLAIN"),
]
MTAS = pytest.mark.parametrize("name", ["postfix", "exim", "aiosmtpd"])


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    return request.getfixturevalue


@pytest.fixture
def tag() -> str:
    return f"tag-{uuid.uuid4().hex}"


async def arrived(mta: Any, tag: str, count: int = 1) -> list[bytes]:
    """What arrived with a tag; `count` messages at least, and no more once the server has settled."""
    found = await asyncio.to_thread(mta.wait_for_message, tag, count)
    if isinstance(mta, Postfix | Exim):
        found = [one for one in await asyncio.to_thread(mta.messages) if tag.encode() in one]
    return [getattr(one, "content", one) for one in found]


def into(mta: Any, service: Service, pki: Pki, *, login: bool = True, **options: Any) -> SMTPClient:
    if service.mechanism and login:
        options["credentials"] = Credentials(
            username=USER, password=PASSWORD, mechanisms=(service.mechanism,)
        )
    return client_of(
        mta,
        host="localhost",
        port=getattr(mta, service.port),
        security=service.security,
        tls=trusting(pki),
        **options,
    )


def plain(mta: Any, **options: Any) -> SMTPClient:
    return client_of(mta, port=mta.plain_port, **options)


@pytest.mark.parametrize("service", SERVICES, ids=str)
@every_loop
async def test_mail_goes_through_every_service(
    service: Service, server: Callable[[str], Any], pki: Pki, tag: str
) -> None:
    mta = server(service.server)
    async with into(mta, service, pki, pool=PoolLimits(max_connections=3)) as client:
        receipts = await gathered(
            *(client.send(mail(n, to="bob@lab.test", text=f"Grüße\n.\n..\n{tag}-{n}.")) for n in range(12))
        )
        async with client.session() as session:
            await session.connect()
            encrypted = service.security is not Security.PLAINTEXT
            assert session.info.encrypted is encrypted
            assert session.info.verified is (True if encrypted else None)
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 12
    got = await arrived(mta, tag, 12)
    assert len(got) == 12
    for n in range(12):
        assert sum(f"{tag}-{n}.".encode() in one for one in got) == 1
    if service.server in ("postfix", "exim"):
        assert all(receipt.accepted[0].queue_id for receipt in receipts)


@pytest.mark.parametrize("service", [s for s in SERVICES if s.mechanism], ids=str)
async def test_a_wrong_password_is_refused(
    service: Service, server: Callable[[str], Any], pki: Pki, tag: str
) -> None:
    mta = server(service.server)
    async with into(mta, service, pki, login=False) as client, client.session() as session:
        await session.connect()
        with pytest.raises(AuthenticationFailed) as caught:
            await session.login(Credentials(username=USER, password="wrong", mechanisms=(service.mechanism,)))
        assert caught.value.reply is not None and caught.value.reply.code == 535


@MTAS
async def test_postfix_exim_and_aiosmtpd_never_see_a_login_in_clear(
    name: str, server: Callable[[str], Any], pki: Pki
) -> None:
    mta = server(name)
    trail: list[str] = []
    for port, error in (("auth_port", AuthenticationUnavailable), ("plain_port", AuthenticationUnavailable)):
        client = client_of(mta, port=getattr(mta, port), username=USER, password=PASSWORD)
        client.on(PITrail, lambda event: trail.append(event.message))
        async with client:
            with pytest.raises(error):
                await client.send(mail())
    assert not any("AUTH" in line and line.startswith("AUTH") for line in trail)


@MTAS
async def test_a_wrong_way_in_is_named(name: str, server: Callable[[str], Any], pki: Pki) -> None:
    mta = server(name)
    options: dict[str, Any] = {"host": "localhost", "tls": trusting(pki)}
    async with client_of(mta, port=mta.plain_port, security=Security.IMPLICIT, **options) as client:
        with pytest.raises(WrongTLSMode, match="STARTTLS"):
            await client.send(mail())
    async with client_of(mta, port=mta.plain_port, security=Security.STARTTLS, **options) as client:
        with pytest.raises(StartTLSUnavailable):
            await client.send(mail())
    options["tls"] = replace(trusting(pki), server_hostname="other.example")
    for port, security in ((mta.tls_port, Security.IMPLICIT), (mta.auth_port, Security.STARTTLS)):
        async with client_of(mta, port=port, security=security, **options) as client:
            with pytest.raises(CertificateRejected, match="localhost.* not for other.example"):
                await client.send(mail())


class TestRecipients:
    @MTAS
    async def test_a_refused_to_or_cc_refuses_the_message_for_all(
        self, name: str, server: Callable[[str], Any], tag: str
    ) -> None:
        mta = server(name)
        async with plain(mta, pool=PoolLimits(max_connections=1)) as client:
            for fields in (
                {"to": ["bob@lab.test", "x@reject.test"]},
                {"to": "bob@lab.test", "cc": "x@reject.test"},
            ):
                with pytest.raises(RecipientsRefused) as caught:
                    await client.send(mail(1, text=tag, **fields))
                assert caught.value.receipt is not None
                first, second = caught.value.receipt.verdicts
                assert (first.outcome, second.outcome) == (Outcome.NOT_SENT, Outcome.REFUSED)
                assert not caught.value.temporary
            await client.send(mail(2, to="bob@lab.test", text=f"{tag} last"))
        (only,) = await arrived(mta, tag)
        assert b"last" in only

    @MTAS
    async def test_a_refused_bcc_is_told_and_the_rest_goes_out(
        self, name: str, server: Callable[[str], Any], tag: str
    ) -> None:
        mta = server(name)
        told: list[Error] = []
        async with plain(mta) as client:
            client.on(Error, told.append)
            receipt = await client.send(mail(1, to="bob@lab.test", bcc="x@reject.test", text=tag))
        assert receipt.outcome is Outcome.PARTIAL
        assert [verdict.recipient.kind for verdict in receipt.refused] == [Kind.BCC]
        assert [str(error.recipient.address) for error in told if error.recipient] == ["x@reject.test"]
        (only,) = await arrived(mta, tag)
        assert b"reject.test" not in only

    @MTAS
    async def test_no_recipient_must_accept(self, name: str, server: Callable[[str], Any], tag: str) -> None:
        mta = server(name)
        to = ["bob@lab.test", "x@reject.test", "y@defer.test"]
        async with plain(mta) as client:
            receipt = await client.send(mail(1, to=to, text=tag), options=SendOptions(must_accept=NOBODY))
        assert receipt.outcome is Outcome.PARTIAL
        assert [verdict.outcome for verdict in receipt.verdicts] == [
            Outcome.ACCEPTED,
            Outcome.REFUSED,
            Outcome.REFUSED,
        ]
        assert [verdict.temporary for verdict in receipt.verdicts] == [False, False, True]
        assert len(await arrived(mta, tag)) == 1

    @MTAS
    async def test_everyone_must_accept(self, name: str, server: Callable[[str], Any], tag: str) -> None:
        mta = server(name)
        async with plain(mta, pool=PoolLimits(max_connections=1)) as client:
            with pytest.raises(RecipientsRefused):
                await client.send(
                    mail(1, to="bob@lab.test", bcc="x@reject.test", text=tag),
                    options=SendOptions(must_accept=EVERYONE),
                )
            await client.send(mail(2, to="bob@lab.test", text=f"{tag} last"))
        assert len(await arrived(mta, tag)) == 1

    @MTAS
    async def test_all_refused_whatever_the_policy(
        self, name: str, server: Callable[[str], Any], tag: str
    ) -> None:
        mta = server(name)
        async with plain(mta, pool=PoolLimits(max_connections=1)) as client:
            for policy in (EVERYONE, NOBODY):
                with pytest.raises(RecipientsRefused) as caught:
                    await client.send(
                        mail(1, to=["x@reject.test", "y@defer.test"], text=tag),
                        options=SendOptions(must_accept=policy),
                    )
                assert caught.value.receipt is not None
                assert caught.value.receipt.outcome is Outcome.REFUSED
            await client.send(mail(2, to="bob@lab.test", text=f"{tag} last"))
        assert len(await arrived(mta, tag)) == 1


class TestRefusals:
    @MTAS
    async def test_sender_content_and_size(self, name: str, server: Callable[[str], Any], tag: str) -> None:
        mta = server(name)
        async with plain(mta, pool=PoolLimits(max_connections=1)) as client:
            with pytest.raises(SenderRefused):
                await client.send(mail(1, sender=REFUSED_SENDER, to="bob@lab.test", text=tag))
            with pytest.raises(MessageRefused) as content:
                await client.send(mail(2, to="bob@lab.test", text=f"{tag}\n{REFUSED_CONTENT}"))
            assert content.value.reply is not None and content.value.reply.permanent
            too_big = b"Subject: big\r\n\r\n" + b"0123456789\r\n" * 1_000_000
            with pytest.raises(MessageTooLarge):
                await client.send_raw(too_big, sender=SENDER, recipients=["bob@lab.test"])
            receipt = await client.send(mail(3, to="bob@lab.test", text=f"{tag} last"))
            assert receipt.outcome is Outcome.ACCEPTED
        (only,) = await arrived(mta, tag)
        assert b"last" in only

    async def test_size_is_refused_by_the_server_where_it_is_not_announced(self, postfix: Postfix) -> None:
        too_big = b"Subject: big\r\n\r\n" + b"0123456789\r\n" * 1_000_000
        async with client_of(postfix, port=postfix.bare_port) as client:
            with pytest.raises(MessageRefused) as caught:
                await client.send_raw(too_big, sender=SENDER, recipients=["bob@lab.test"])
        assert caught.value.reply is not None and caught.value.reply.code == 552


class TestReset:
    """MAIL is preceded by RSET unless the end of data before it was answered with 2xx."""

    @pytest.mark.parametrize("name", ["postfix", "exim"])
    async def test_the_next_message_has_its_own_sender(
        self, name: str, server: Callable[[str], Any], tag: str
    ) -> None:
        mta = server(name)
        trail: list[PITrail] = []
        async with plain(mta, pool=PoolLimits(max_connections=1)) as client:
            client.on(PITrail, trail.append)
            results = await gathered(
                client.send(mail(1, sender="first@sender.test", to="x@reject.test", text=tag)),
                client.send(mail(2, sender="second@sender.test", to="bob@lab.test", text=f"{tag} two")),
                client.send(mail(3, sender="third@sender.test", to="y@defer.test", text=tag)),
                client.send(mail(4, sender="fourth@sender.test", to="bob@lab.test", text=f"{tag} four")),
            )
            assert client.statistics().open == 1
        kinds = [type(result).__name__ for result in results]
        assert kinds == ["RecipientsRefused", "Receipt", "RecipientsRefused", "Receipt"]
        # Two behind refusals; between the second message and the third the server is asked whether it reads on.
        assert [event.message for event in trail].count("RSET") == 3
        answers = {event.reply.code for event in trail if event.command == "MAIL" and event.reply}
        assert answers == {250}
        got = await arrived(mta, tag, 2)
        senders = sorted(one.split(b"\n", 1)[0].lower() for one in got)
        assert senders == [b"return-path: <fourth@sender.test>", b"return-path: <second@sender.test>"]

    async def test_smtp_sink_never_has_to_say_nested_mail(self, make_sink: Callable[..., Sink]) -> None:
        trail: list[PITrail] = []
        sink = make_sink("-f", "RCPT")
        async with client_of(sink, pool=PoolLimits(max_connections=1)) as client:
            client.on(PITrail, trail.append)
            results = await gathered(*(client.send(mail(n)) for n in range(5)))
        assert {type(result) for result in results} == {RecipientsRefused}
        said = [event.message for event in trail if event.direction is Direction.SERVER]
        assert not any("503" in line or "nested" in line.lower() for line in said)
        assert [event.message for event in trail].count("RSET") == 4

    async def test_without_rset_the_connection_is_closed_instead(self, postfix: Postfix, tag: str) -> None:
        trail: list[str] = []
        client = plain(postfix, pool=PoolLimits(max_connections=1), send_rset=False)
        client.on(PITrail, lambda event: trail.append(event.message))
        async with client:
            with pytest.raises(RecipientsRefused):
                await client.send(mail(1, to="x@reject.test"))
            await client.send(mail(2, to="bob@lab.test", text=tag))
        assert "RSET" not in trail
        assert len([line for line in trail if line.startswith("EHLO")]) == 2
        assert len(await arrived(postfix, tag)) == 1


class TestSink:
    @every_loop
    async def test_many_messages_on_few_connections(self, sink: Sink) -> None:
        async with client_of(sink, pool=PoolLimits(max_connections=4)) as client:
            receipts = await gathered(*(client.send(mail(n)) for n in range(500)))
            assert all(receipt.outcome is Outcome.ACCEPTED for receipt in receipts)
            statistics = client.statistics()
            assert statistics.sent == 500 and statistics.open <= 4
            assert statistics.round_trips < 700

    @pytest.mark.parametrize("options", [("-e",), ("-p",), ("-L",)], ids=["HELO", "no PIPELINING", "LMTP"])
    async def test_its_other_dialects(self, options: tuple[str, ...], make_sink: Callable[..., Sink]) -> None:
        sink = make_sink(*options)
        async with client_of(sink, lmtp="-L" in options) as client:
            receipts = await gathered(*(client.send(mail(n)) for n in range(20)))
        assert [getattr(receipt, "outcome", receipt) for receipt in receipts] == [Outcome.ACCEPTED] * 20

    @pytest.mark.parametrize("command", ["RCPT", "DATA", "."])
    @pytest.mark.parametrize(("option", "temporary"), [("-r", True), ("-f", False)])
    async def test_its_refusals(
        self, option: str, temporary: bool, command: str, make_sink: Callable[..., Sink]
    ) -> None:
        async with client_of(make_sink(option, command), pool=PoolLimits(max_connections=1)) as client:
            kind = RecipientsRefused if command == "RCPT" else MessageRefused
            for result in await gathered(*(client.send(mail(n)) for n in range(3))):
                assert type(result) is kind
                assert result.temporary is temporary

    @pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
    async def test_its_disconnects(self, command: str, make_sink: Callable[..., Sink]) -> None:
        async with client_of(make_sink("-q", command)) as client:
            (result,) = await gathered(client.send(mail()))
        assert result.receipt.outcome is Outcome.NOT_SENT


class TestDovecot:
    def client(self, dovecot: Dovecot, way: str, **options: Any) -> SMTPClient:
        if way == "tcp":
            return client_of(dovecot, port=dovecot.lmtp_port, lmtp=True, **options)
        url = f"lmtp+unix://{dovecot.lmtp_socket}"
        return SMTPClient.from_url(url, options=ClientOptions(hello="client.test", **options))

    @pytest.mark.parametrize("way", ["tcp", "unix"])
    @every_loop
    async def test_one_refused_and_two_accepted(self, way: str, dovecot: Dovecot, tag: str) -> None:
        to = ["user@lab.test", "nobody@lab.test", "user2@lab.test"]
        async with self.client(dovecot, way) as client:
            receipt = await client.send(mail(1, to=to, text=tag), options=SendOptions(must_accept=NOBODY))
        assert receipt.outcome is Outcome.PARTIAL
        assert [verdict.outcome for verdict in receipt.verdicts] == [
            Outcome.ACCEPTED,
            Outcome.REFUSED,
            Outcome.ACCEPTED,
        ]
        assert len(await arrived(dovecot, tag, 2)) == 2

    @pytest.mark.parametrize("way", ["tcp", "unix"])
    async def test_a_full_mailbox_refuses_after_the_content(
        self, way: str, dovecot: Dovecot, tag: str
    ) -> None:
        to = ["user@lab.test", "full@lab.test", "user2@lab.test"]
        async with self.client(dovecot, way, pool=PoolLimits(max_connections=1)) as client:
            receipt = await client.send(mail(1, to=to, text=tag))
            assert [verdict.outcome for verdict in receipt.verdicts] == [
                Outcome.ACCEPTED,
                Outcome.REFUSED,
                Outcome.ACCEPTED,
            ]
            assert receipt.refused[0].reply is not None and receipt.refused[0].reply.code == 552
            with pytest.raises(MessageRefused):
                await client.send(mail(2, to="full@lab.test", text=tag))
            with pytest.raises(RecipientsRefused):
                await client.send(mail(3, to="nobody@lab.test", text=tag))
            await client.send(mail(4, to="user@lab.test", text=f"{tag} last"))
            assert client.statistics().open == 1
        assert len(await arrived(dovecot, tag, 3)) == 3

    async def test_many_over_lmtp(self, dovecot: Dovecot, tag: str) -> None:
        async with self.client(dovecot, "tcp", pool=PoolLimits(max_connections=2)) as client:
            receipts = await gathered(
                *(client.send(mail(n, to=["user@lab.test", "user2@lab.test"], text=tag)) for n in range(20))
            )
        assert all(len(receipt.accepted) == 2 for receipt in receipts)
        assert len(await arrived(dovecot, tag, 40)) == 40

    async def test_submission_with_starttls_and_login(
        self, dovecot: Dovecot, postfix: Postfix, pki: Pki, tag: str
    ) -> None:
        client = client_of(
            dovecot, host="localhost", port=dovecot.submission_port, security=Security.STARTTLS,
            tls=trusting(pki), username=USER, password=PASSWORD,
        )  # fmt: skip
        async with client:
            await gathered(*(client.send(mail(n, to="bob@lab.test", text=tag)) for n in range(5)))
        assert len(await arrived(postfix, tag, 5)) == 5


class TestStreams:
    """Messages that are read while they are sent; what arrives is compared in test_content_servers.py."""

    @staticmethod
    def whole(tag: str, size: int = 3 << 20) -> bytes:
        head = (
            f"From: {SENDER}\r\nTo: bob@lab.test,\r\n dora@lab.test\r\nBcc: hidden@lab.test\r\n\r\n{tag}\r\n"
        )
        return head.encode() + b".0123456789 0123456789\r\n" * (size // 24)

    @pytest.mark.parametrize("chunking", ["never", "always"])
    @pytest.mark.parametrize("name", ["postfix", "exim"])
    async def test_a_whole_message_takes_its_envelope_from_its_header(
        self, name: str, chunking: Any, server: Callable[[str], Any], tag: str, tmp_path: Path
    ) -> None:
        mta = server(name)
        path = tmp_path / "message.eml"
        path.write_bytes(self.whole(tag))
        async with plain(mta) as client:
            receipt = await client.send_raw(path, options=SendOptions(chunking=chunking, chunk_size=100_000))
        assert [str(one.recipient.address) for one in receipt.verdicts] == [
            "bob@lab.test", "dora@lab.test", "hidden@lab.test",
        ]  # fmt: skip
        got = await arrived(mta, tag, 3)
        assert len(got) == 3
        body = self.whole(tag).partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
        for one in got:
            assert one.endswith(b"\n\n" + body)
            assert b"Bcc" not in one.partition(b"\n\n")[0]

    async def test_dovecot_takes_chunks_for_each_recipient(self, dovecot: Dovecot, tag: str) -> None:
        recipients = ["user@lab.test", "nobody@lab.test"]
        options = SendOptions(chunking="always", must_accept=NOBODY)
        async with client_of(dovecot, port=dovecot.lmtp_port, lmtp=True) as client:
            trail: list[PITrail] = []
            client.on(PITrail, trail.append)
            stream = io.BytesIO(self.whole(tag))
            receipt = await client.send_raw(stream, recipients=recipients, options=options)
        assert "BDAT 0 LAST" in [event.message for event in trail]
        assert Outcome.ACCEPTED in [one.outcome for one in receipt.verdicts]

    @pytest.mark.parametrize("chunking", ["never", "always"])
    @pytest.mark.parametrize("name", ["postfix", "exim"])
    async def test_what_is_stopped_in_its_middle_is_not_delivered(
        self, name: str, chunking: Any, server: Callable[[str], Any], tag: str
    ) -> None:
        mta = server(name)

        def stop(sent: int, total: int | None) -> bool:
            return sent < 1_000_000

        async with plain(mta, pool=PoolLimits(max_connections=1)) as client:
            options = SendOptions(progress=stop, chunking=chunking)
            with pytest.raises(NotSent):
                await client.send_raw(io.BytesIO(self.whole(tag)), options=options)
            await client.send(mail(1, to="bob@lab.test", text=f"{tag} last"))
        (only,) = await arrived(mta, tag)
        assert b"last" in only

    @pytest.mark.parametrize("chunking", ["never", "always"])
    @pytest.mark.parametrize("name", ["postfix", "exim"])
    async def test_a_file_is_sent_again_when_its_connection_is_cut(
        self, name: str, chunking: Any, server: Callable[[str], Any], tag: str, tmp_path: Path
    ) -> None:
        mta = server(name)
        path = tmp_path / "data"
        path.write_bytes(b"\x80" * (3 << 20))
        cut = Cut(1_000_000, Way.TO_SERVER, CutManner.RST, link=0)
        async with (
            CutProxy(mta.host, mta.plain_port, cut) as proxy,
            client_of(proxy, pool=PoolLimits(max_connections=1)) as client,
        ):
            message = mail(1, to="bob@lab.test", text=tag, attachments=[Attachment(path)])
            options = SendOptions(chunking=chunking, progress=until_cut(client, 1_000_000))
            receipt = await client.send(message, options=options)
            assert client.statistics().reconnects == 1
        assert receipt.outcome is Outcome.ACCEPTED
        (only,) = await arrived(mta, tag)
        assert only.count(b"gICAgICA") > 60_000

    @MTAS
    async def test_a_file_over_the_limit_is_refused_before_mail(
        self, name: str, server: Callable[[str], Any], tmp_path: Path
    ) -> None:
        path = tmp_path / "huge"
        with path.open("wb") as file:
            file.truncate(1 << 30)
        trail: list[PITrail] = []
        async with plain(server(name)) as client:
            client.on(PITrail, trail.append)
            with pytest.raises(MessageTooLarge):
                await client.send(mail(1, to="bob@lab.test", attachments=[Attachment(path)]))
        assert not [event for event in trail if event.message.startswith("MAIL")]

    async def test_a_stream_beyond_the_limit_is_refused_by_the_server(
        self, postfix: Postfix, tag: str
    ) -> None:
        """The size was not known before."""

        async def endless() -> AsyncIterator[bytes]:
            yield self.whole(tag, 1 << 20)
            while True:
                yield b"0123456789 0123456789\r\n" * 40_000

        async with plain(postfix, pool=PoolLimits(max_connections=1)) as client:
            options = SendOptions(chunking="always")
            with pytest.raises(SMTPError) as caught:
                await client.send_raw(endless(), options=options, deadline=15)
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome in (Outcome.REFUSED, Outcome.NOT_SENT)
            await client.send(mail(1, to="bob@lab.test", text=f"{tag} last"))
        (only,) = await arrived(postfix, tag)
        assert b"last" in only


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_questions(name: str, server: Callable[[str], Any]) -> None:
    mta = server(name)
    async with plain(mta) as client:
        assert (await client.verify("bob@lab.test")).code in (250, 252)
        report = await client.check()
        assert report.error is None
        assert report.extensions.pipelining and report.extensions.size


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_mailbox_that_is_not_there_is_not_verified(name: str, server: Callable[[str], Any]) -> None:
    async with plain(server(name)) as client:
        with pytest.raises(CommandRefused) as caught:
            await client.verify("nobody@reject.test" if name == "postfix" else "no such\\address")
        assert caught.value.reply is not None and caught.value.reply.code // 100 == 5


async def test_exim_expands_a_list(exim: Exim) -> None:
    told: list[Expand] = []
    async with plain(exim) as client:
        client.on(Expand, told.append)
        members = await client.expand("staff@lab.test")
    assert sorted(map(str, members)) == ["ann@lab.test", "bob@lab.test"]
    assert [event.address for event in told] == members


async def test_postfix_expands_nothing(postfix: Postfix) -> None:
    async with plain(postfix) as client:
        with pytest.raises(CommandRefused):
            await client.expand("staff")


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_commands_without_a_call_of_their_own(name: str, server: Callable[[str], Any]) -> None:
    async with plain(server(name)) as client, client.session() as session:
        await session.connect()
        # Postfix knows no HELP.
        assert (await session.command("HELP")).code == (500 if name == "postfix" else 214)
        # RFC 1985: from 250 (it has begun) to 459 (not allowed here); what matters is that it is paired.
        assert (await session.command("ETRN lab.test")).code in (250, 251, 252, 253, 458, 459)
        assert (await session.noop()).code == 250


@pytest.mark.parametrize("name", ["postfix", "exim"])
@pytest.mark.parametrize("verb", ["SEND", "SOML", "SAML"])
async def test_no_server_of_today_offers_terminals(
    name: str, verb: Any, server: Callable[[str], Any]
) -> None:
    trail: list[PITrail] = []
    async with plain(server(name)) as client:
        client.on(PITrail, trail.append)
        with pytest.raises(ExtensionMissing, match=verb):
            await client.send(mail(1, to="bob@lab.test"), options=SendOptions(verb=verb))
    assert not [event for event in trail if " FROM:" in event.message]
