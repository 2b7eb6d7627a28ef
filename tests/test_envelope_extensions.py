"""What an envelope can carry, through the whole client: against real servers where one speaks it, else by the RFC.

Postfix and Exim speak DSN, and Postfix takes AUTH= from who is logged in. No server that can be installed here speaks
DELIVERBY, FUTURERELEASE, MT-PRIORITY, REQUIRETLS or BINARYMIME: for them the scripted server stands in, and every
parameter it saw is held against the grammar of its RFC.
"""

import asyncio
import re
import uuid
from datetime import UTC, datetime
from email import message_from_string
from typing import Any

import pytest

from smtp_async import (
    DSN,
    DeliverBy,
    Envelope,
    Kind,
    Message,
    Notify,
    PoolLimits,
    Recipient,
    Return,
    Security,
    SendOptions,
)
from smtp_async.errors import ExtensionMissing, MessageTooLarge
from smtp_async.model.content import Content
from tests.lab import SENDER, client_of, every_loop, gathered, mail, speaking, tls_server, trusting
from tests.servers import PASSWORD, USER
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
OFFER = (
    *(
        "PIPELINING",
        "SIZE 100000",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "BINARYMIME",
    ),
    *("DELIVERBY 30", "FUTURERELEASE 86400 2031-01-01T00:00:00Z", "MT-PRIORITY MIXER", "REQUIRETLS"),
)
XCHAR = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
#: The parameters as their RFCs have them: 3461, 2852, 4865, 6710, 8689, 4954.
GRAMMAR = {
    "RET": r"FULL|HDRS",
    "ENVID": rf"{XCHAR}{{1,100}}",
    "BY": r"[+-]?\d{1,9};[NR]T?",
    "HOLDFOR": r"[1-9]\d{0,8}",
    "HOLDUNTIL": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "MT-PRIORITY": r"-?[1-9]|0",
    "REQUIRETLS": r"",
    "AUTH": rf"<>|{XCHAR}+",
    "NOTIFY": r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}",
    "ORCPT": rf"(?:rfc822|utf-8);{XCHAR}{{1,490}}",
    "BODY": r"8BITMIME|BINARYMIME",
    "SIZE": r"\d{1,20}",
    "SMTPUTF8": r"",
}
WISHES: dict[str, dict[str, Any]] = {
    "RET": {"ret": Return.HDRS},
    "ENVID": {"envid": "envelope 7 = +"},
    "AUTH": {"auth": "e=mc2+@example.com"},
    "BY": {"deliver_by": DeliverBy(seconds=60, trace=True)},
    "HOLDFOR": {"hold_for": 3600.5},
    "HOLDUNTIL": {"hold_until": NOON},
    "MT-PRIORITY": {"mt_priority": -4},
    "REQUIRETLS": {"require_tls": True},
}
VALUES = {
    "RET": "HDRS",
    "ENVID": "envelope+207+20+3D+20+2B",
    "AUTH": "e+3Dmc2+2B@example.com",
    "BY": "60;RT",
    "HOLDFOR": "3601",
    "HOLDUNTIL": "2030-01-01T12:00:00Z",
    "MT-PRIORITY": "-4",
    "REQUIRETLS": "",
}


class Exactly:
    """A mail whose bytes are sent as they are."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def envelope(self) -> Envelope:
        return Envelope(SENDER, ["bob@example.org"])

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        return Content.of_bytes(self.data, exact=True)


def obeys_the_grammar(parameters: dict[str, str]) -> bool:
    return all(re.fullmatch(GRAMMAR[name], value) for name, value in parameters.items())


# --- the scripted server, written from the RFCs ---


@pytest.mark.parametrize("name", [name for name in WISHES if name != "REQUIRETLS"])
async def test_each_wish_reaches_the_server_in_the_form_of_its_rfc(name: str) -> None:
    async with speaking(extensions=OFFER, users={"ann": "secret"}) as server, client_of(server) as client:
        await client.send(mail(), options=SendOptions(**WISHES[name]))
        (message,) = server.messages
    assert message.mail_parameters.pop("SIZE")
    assert message.mail_parameters == {name: VALUES[name]}
    assert obeys_the_grammar(message.mail_parameters)


@every_loop
async def test_all_at_once_and_for_each_recipient() -> None:
    others = {"hold_for", "require_tls"}
    wishes = {key: value for wish in WISHES.values() for key, value in wish.items() if key not in others}
    recipients = [
        Recipient(
            "bob@example.org", dsn=DSN(notify=Notify.SUCCESS | Notify.DELAY, orcpt="staff+x@example.org")
        ),
        Recipient("eve@example.org", Kind.BCC, dsn=DSN(notify=Notify.NEVER)),
        Recipient("ünal@faß.de", Kind.CC, dsn=DSN(orcpt="ünal@faß.de")),
        Recipient("joe@example.org", Kind.CC),
    ]
    async with speaking(extensions=OFFER, users={"ann": "secret"}) as server, client_of(server) as client:
        await client.send(mail(), recipients=recipients, options=SendOptions(**wishes))
        (message,) = server.messages
    assert {*VALUES} - {"HOLDFOR", "REQUIRETLS"} <= {*message.mail_parameters}
    assert message.rcpt_parameters == [
        {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;staff+2Bx@example.org"},
        {"NOTIFY": "NEVER"},
        {"ORCPT": r"utf-8;\x{FC}nal@fa\x{DF}.de"},
        {},
    ]
    assert all(map(obeys_the_grammar, [message.mail_parameters, *message.rcpt_parameters]))


@pytest.mark.parametrize("name", WISHES)
async def test_without_the_extension_nothing_is_begun_and_the_connection_lives(name: str) -> None:
    async with (
        speaking(extensions=("PIPELINING", "SIZE 100000")) as server,
        client_of(server, pool=PoolLimits(max_connections=1)) as client,
    ):
        await client.send(mail(1))
        before = len(server.commands)
        (error,) = await gathered(client.send(mail(2), options=SendOptions(**WISHES[name])))
        assert isinstance(error, ExtensionMissing)
        assert f"{name} needs " in str(error)
        assert error.receipt is not None and error.receipt.not_sent
        assert len(server.commands) == before
        await client.send(mail(3))
        assert (len(server.messages), server.connections.opened) == (2, 1)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"deliver_by": DeliverBy(seconds=29)}, "30 seconds"),
        ({"hold_for": 86401}, "86400 seconds"),
        ({"hold_until": NOON.replace(year=2031)}, "2031-01-01"),
    ],
)
async def test_more_than_the_server_announced_is_not_asked_for(wish: dict[str, Any], words: str) -> None:
    async with speaking(extensions=OFFER) as server, client_of(server) as client:
        with pytest.raises(ExtensionMissing, match=words):
            await client.send(mail(), options=SendOptions(**wish))
        assert "MAIL" not in server.verbs()


async def test_reports_can_be_done_without() -> None:
    recipient = Recipient("bob@example.org", dsn=DSN(notify=Notify.SUCCESS))
    async with speaking(extensions=("PIPELINING",)) as server, client_of(server) as client:
        with pytest.raises(ExtensionMissing, match="DSN"):
            await client.send(mail(), recipients=[recipient])
        options = SendOptions(ret=Return.FULL, envid="1", dsn_required=False)
        await client.send(mail(), recipients=[recipient], options=options)
        (message,) = server.messages
    assert (message.mail_parameters, message.rcpt_parameters) == ({}, [{}])


async def test_tls_all_the_way_is_not_believed_in_clear() -> None:
    async with speaking(extensions=OFFER) as server, client_of(server) as client:
        with pytest.raises(ExtensionMissing, match="REQUIRETLS"):
            await client.send(mail(), options=SendOptions(require_tls=True))
        assert "MAIL" not in server.verbs()


async def test_tls_all_the_way_is_asked_for_within_tls(pki: Pki) -> None:
    options = SendOptions(require_tls=True)
    async with tls_server(pki, extensions=OFFER) as server:
        client = client_of(server, host="localhost", security=Security.STARTTLS, tls=trusting(pki))
        async with client:
            await client.send(mail(), options=options)
        (message,) = server.messages
        assert message.tls
        assert "REQUIRETLS" in message.mail_parameters
        assert server.violations == []


@every_loop
async def test_binary_content_arrives_as_it_left() -> None:
    data = b"Subject: x\r\n\r\none\ntwo\rthree\0\r\n.\r\n" + b"x" * 2000 + bytes(range(256))
    async with speaking(extensions=OFFER) as server, client_of(server) as client:
        await client.send(Exactly(data), options=SendOptions(exact=True))
        (message,) = server.messages
    assert (message.data, message.chunked) == (data, True)
    assert message.mail_parameters["BODY"] == "BINARYMIME"
    assert obeys_the_grammar(message.mail_parameters)


@pytest.mark.parametrize("missing", ["BINARYMIME", "CHUNKING"])
async def test_binary_content_is_refused_before_mail(missing: str) -> None:
    offer = [line for line in OFFER if line != missing]
    async with speaking(extensions=offer) as server, client_of(server) as client:
        with pytest.raises(ExtensionMissing, match="BINARYMIME"):
            await client.send(Exactly(b"A: b\r\n\r\none\ntwo"))
        assert "MAIL" not in server.verbs()


@pytest.mark.parametrize(("chunking", "chunked"), [("auto", False), ("always", True), ("never", False)])
async def test_chunks_are_the_callers_choice(chunking: Any, chunked: bool) -> None:
    async with speaking() as server, client_of(server) as client:
        await client.send(mail(text="..\n."), options=SendOptions(chunking=chunking))
        (message,) = server.messages
    assert message.chunked is chunked
    assert message.data.endswith(b"..\r\n.\r\n")


async def test_a_message_over_the_limit_is_not_begun() -> None:
    async with speaking(extensions=("SIZE 1000",)) as server, client_of(server) as client:
        with pytest.raises(MessageTooLarge):
            await client.send(mail(text="x" * 1000))
        assert "MAIL" not in server.verbs()


@pytest.mark.parametrize(
    ("sender", "recipient"), [("jösé@example.com", "bob@example.org"), ("ann@example.com", "böb@faß.de")]
)
async def test_another_script_needs_its_extension(sender: str, recipient: str) -> None:
    async with speaking(extensions=("8BITMIME",)) as server, client_of(server) as client:
        with pytest.raises(ExtensionMissing, match="SMTPUTF8"):
            await client.send(Message(sender=sender, to=recipient, text="x"))
        assert "MAIL" not in server.verbs()


async def test_a_domain_of_another_script_needs_none() -> None:
    async with speaking(extensions=()) as server, client_of(server) as client:
        await client.send(mail(), sender="ann@bücher.example", recipients=["bob@faß.de"])
        (message,) = server.messages
    assert (message.mail_from, message.rcpt_tos) == ("ann@xn--bcher-kva.example", ["bob@xn--fa-hia.de"])


# --- real servers ---


@pytest.fixture
def tag() -> str:
    return f"tag-{uuid.uuid4().hex}"


async def report_of(mta: Any, tag: str) -> dict[str, str]:
    """The fields of the delivery report that names an envelope, all groups in one."""
    found = await asyncio.to_thread(mta.wait_for_message, tag, 1)
    parsed = [message_from_string(one.decode()) for one in found]
    reports = [one for one in parsed if one.get_content_type() == "multipart/report"]
    (report,) = reports
    parts: Any = report.get_payload()
    status, returned = parts[1:]
    groups = status.get_payload()
    fields = {name: value for group in groups for name, value in group.items()}
    return {name.lower(): value for name, value in fields.items()} | {"returned": returned.get_content_type()}


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_real_report_tells_what_was_asked(
    name: str, request: pytest.FixtureRequest, tag: str
) -> None:
    mta = request.getfixturevalue(name)
    recipient = Recipient("bob@lab.test", dsn=DSN(notify=Notify.SUCCESS, orcpt="bob+alias@elsewhere.test"))
    async with client_of(mta, port=mta.plain_port) as client:
        await client.send(
            mail(sender="ann@lab.test", text="Hello"),
            recipients=[recipient],
            options=SendOptions(envid=f"{tag} = +", ret=Return.HDRS),
        )
    fields = await report_of(mta, tag)
    # Exim gives both back as they came.
    plain = name == "postfix"
    original = "rfc822;bob+alias@elsewhere.test" if plain else "rfc822;bob+2Balias@elsewhere.test"
    assert fields["original-envelope-id"] == (f"{tag} = +" if plain else f"{tag}+20+3D+20+2B")
    assert fields["original-recipient"].replace(" ", "") == original
    assert fields["action"].split()[0] == "delivered"
    assert fields["returned"] == "text/rfc822-headers"


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_an_original_recipient_of_another_script_is_told(
    name: str, request: pytest.FixtureRequest, tag: str
) -> None:
    mta = request.getfixturevalue(name)
    recipient = Recipient("bob@lab.test", dsn=DSN(notify=Notify.SUCCESS, orcpt="ünal+x@faß.de"))
    async with client_of(mta, port=mta.plain_port) as client:
        message = mail(sender="ann@lab.test", text="Hello")
        await client.send(message, recipients=[recipient], options=SendOptions(envid=tag))
    told = (await report_of(mta, tag))["original-recipient"].replace(" ", "")
    assert told in (r"utf-8;\x{FC}nal\x{2B}x@fa\x{DF}.de", "utf-8;ünal+x@faß.de")


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_recipient_that_is_never_reported(
    name: str, request: pytest.FixtureRequest, tag: str
) -> None:
    mta = request.getfixturevalue(name)
    never, success = DSN(notify=Notify.NEVER), DSN(notify=Notify.SUCCESS)
    recipients = [Recipient("quiet@lab.test", dsn=never), Recipient("loud@lab.test", dsn=success)]
    async with client_of(mta, port=mta.plain_port) as client:
        message = mail(sender="ann@lab.test", text="Hello")
        await client.send(message, recipients=recipients, options=SendOptions(envid=tag))
    assert "loud@lab.test" in (await report_of(mta, tag))["final-recipient"]
    found = [one for one in await asyncio.to_thread(mta.messages) if tag.encode() in one]
    assert len(found) == 1 and b"quiet@lab.test" not in found[0].partition(b"delivery-status")[2]


@pytest.mark.server
async def test_a_real_server_takes_the_submitter_from_the_login(postfix: Postfix, pki: Pki, tag: str) -> None:
    client = client_of(
        postfix, host="localhost", port=postfix.tls_port, security=Security.IMPLICIT, tls=trusting(pki),
        username=USER, password=PASSWORD,
    )  # fmt: skip
    async with client:
        for auth in ("<>", "first+one@example.com"):
            receipt = await client.send(mail(to="bob@lab.test", text=tag), options=SendOptions(auth=auth))
            assert receipt.accepted
    assert len(await asyncio.to_thread(postfix.wait_for_message, tag, 2)) == 2


@pytest.mark.server
async def test_real_servers_without_the_extension_are_not_asked(postfix: Postfix) -> None:
    async with client_of(postfix, port=postfix.bare_port) as client:
        results = await gathered(
            *(client.send(mail(n), options=SendOptions(**wish)) for n, wish in enumerate(WISHES.values()))
        )
        assert [type(one) for one in results] == [ExtensionMissing] * len(WISHES)
        await client.send(mail(9))
