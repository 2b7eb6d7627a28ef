"""discover.py: which server takes the mail of an address's owner."""

import errno
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from smtp_async import (
    ClientOptions,
    Discovery,
    DNSOptions,
    Security,
    SMTPError,
    Timeouts,
    TLSOptions,
    discover,
    find_provider,
)
from smtp_async.errors import InvalidAddress, ResolveError
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from smtp_async.transport.names import AddressFamily
from smtp_async.transport.records import MX, SRV
from tests.connection.test_dial_route import dialler
from tests.lab import tls_server, trusting, until
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")


class Zone:
    """A resolver that has SRV records for localhost, and addresses for it alone."""

    def __init__(self, *services: tuple[str, int, str], exchangers: Sequence[str] = ()) -> None:
        self.services = services
        self.exchangers = exchangers
        self.failure: ResolveError | None = None
        #: The codes of the errors of MX.
        self.mx_failure = 11004

    async def addresses(self, name: str, family: AddressFamily) -> Sequence[str]:
        if name != "localhost":
            raise ResolveError(f"cannot resolve {name}: no such name", code=11001)
        return ["127.0.0.1"]

    async def mx(self, domain: str) -> Sequence[MX]:
        if not self.exchangers:
            raise ResolveError(f"no MX record of {domain}", code=self.mx_failure)
        return [MX(number, host) for number, host in enumerate(self.exchangers)]

    async def srv(self, service: str) -> Sequence[SRV]:
        if self.failure is not None:
            raise self.failure
        kind = service.partition(".")[0]
        return [SRV(0, 0, port, host) for name, port, host in self.services if name == kind]


def options(zone: Zone, pki: Pki) -> ClientOptions:
    return ClientOptions(
        dns=DNSOptions(resolver=zone), tls=trusting(pki), hello="client.test", timeouts=Timeouts.all(5)
    )


USERS = {"ann": "c4n4ry-p4ssw0rd"}


async def test_what_the_domain_names_is_tried(pki: Pki) -> None:
    async with (
        tls_server(pki, implicit_tls=True, users=USERS) as first,
        tls_server(pki, users=USERS) as second,
    ):
        zone = Zone(("_submission", second.port, "localhost"), ("_submissions", first.port, "localhost"))
        found = await discover("Ann <ann@example.org>", options=options(zone, pki))
        assert found.best is found.servers[0] and found.problems == ()
        assert [(one.port, one.security, one.works) for one in found.servers[:2]] == [
            (first.port, Security.IMPLICIT, True),
            (second.port, Security.STARTTLS, True),
        ]
        assert "RFC 8314" in found.servers[0].reason and not found.servers[0].inside
        # Usual names follow; here they do not exist.
        assert [one.host for one in found.servers[2:]] == ["smtp.example.org", "mail.example.org"] * 2
        for one in found.servers[2:]:
            assert not one.works and one.report is not None and one.report.error is not None
        for server in (first, second):
            assert "AUTH" not in server.verbs() and "MAIL" not in server.verbs()


async def test_a_server_whose_certificate_is_not_valid_does_not_work(pki: Pki) -> None:
    async with tls_server(pki, pki.expired, users=USERS) as server:
        zone = Zone(("_submission", server.port, "localhost"))
        found = await discover("ann@example.org", options=options(zone, pki))
        assert found.best is None and not found.servers[0].works


async def test_nor_does_one_without_a_login(pki: Pki) -> None:
    async with tls_server(pki) as server:
        zone = Zone(("_submission", server.port, "localhost"))
        found = await discover("ann@example.org", options=options(zone, pki))
        assert found.best is None
        report = found.servers[0].report
        assert report is not None and report.error is None


async def test_without_records_the_usual_names_are_left(pki: Pki) -> None:
    found = await discover("ann@example.org", options=options(Zone(), pki))
    assert [one.reason for one in found.servers[:2]] == [
        "smtp is a usual name for it",
        "mail is a usual name for it",
    ]
    assert found.best is None


async def known(address: str, zone: Zone, pki: Pki) -> tuple[Discovery, list[tuple[str, int, bool]]]:
    """Return what is found without a way to any server, and what of it is before the usual names."""

    async def dial(host: str, port: int) -> socket.socket:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    found = await discover(address, options=replace(options(zone, pki), dialer=dial))
    named = [one for one in found.servers if "usual name" not in one.reason]
    return found, [(one.host, one.port, one.inside) for one in named]


@pytest.mark.parametrize(
    ("exchanger", "provider", "host"),
    [
        ("alt1.aspmx.l.google.com", "google-workspace", "smtp.gmail.com"),
        ("smtp.google.com", "google-workspace", "smtp.gmail.com"),
        ("example-org.mail.protection.outlook.com", "office365", "smtp.office365.com"),
        ("in1-smtp.messagingengine.com", "fastmail", "smtp.fastmail.com"),
        ("ASPMX1.migadu.com", "migadu", "smtp.migadu.com"),
        ("mx.yandex.net", "yandex", "smtp.yandex.ru"),
    ],
)
async def test_the_provider_of_the_mail_exchanger(exchanger: str, provider: str, host: str, pki: Pki) -> None:
    found, named = await known("ann@example.org", Zone(exchangers=["mx.example.org", exchanger]), pki)
    assert named == [(host, find_provider(provider).port, False)]
    assert exchanger in found.servers[0].reason and "MX" in found.servers[0].reason
    assert found.problems == ()


async def test_the_provider_of_the_domain_without_asking_for_its_exchangers(pki: Pki) -> None:
    zone = Zone(exchangers=["mx.messagingengine.com"])
    found, named = await known("ann@hotmail.com", zone, pki)
    # It is not in the domain, but no record led to it.
    assert named == [("smtp-mail.outlook.com", 587, True)]
    assert "Outlook.com has the domain" in found.servers[0].reason


async def test_what_the_domain_names_is_before_the_preset(pki: Pki) -> None:
    zone = Zone(("_submissions", 465, "mail.example.net"), exchangers=["aspmx.l.google.com"])
    _, named = await known("ann@example.org", zone, pki)
    assert named == [("mail.example.net", 465, False), ("smtp.gmail.com", 587, False)]


@pytest.mark.parametrize("exchanger", ["mx.example.net", "notgoogle.com", "google.com.example.net"])
async def test_an_exchanger_of_no_known_provider(exchanger: str, pki: Pki) -> None:
    _, named = await known("ann@example.org", Zone(exchangers=[exchanger]), pki)
    assert named == []


@pytest.mark.parametrize(("code", "problems"), [(11001, 0), (11004, 0), (11002, 1), (11003, 1)])
async def test_exchangers_that_cannot_be_looked_up(code: int, problems: int, pki: Pki) -> None:
    zone = Zone()
    zone.mx_failure = code
    found, named = await known("ann@example.org", zone, pki)
    assert named == [] and len(found.problems) == problems and len(found.servers) == 4


async def test_the_server_of_a_preset_is_tried(pki: Pki) -> None:
    async with tls_server(pki, users=USERS) as server:
        tls = replace(trusting(pki), server_hostname="localhost")
        settings = replace(
            options(Zone(exchangers=["aspmx.l.google.com"]), pki), tls=tls, dialer=dialler(server.port)
        )
        found = await discover("ann@example.org", options=settings)
        assert found.best is found.servers[0] and found.best.host == "smtp.gmail.com"
        assert "AUTH" not in server.verbs()


async def test_records_that_cannot_be_read(pki: Pki) -> None:
    zone = Zone()
    zone.failure = ResolveError("not protected by DNSSEC", code=11003)
    found = await discover("ann@example.org", options=options(zone, pki))
    assert found.problems and "DNSSEC" in found.problems[0] and found.servers
    zone.failure = ResolveError("no server answers", code=11002)
    with pytest.raises(ResolveError, match="no server answers"):
        await discover("ann@example.org", options=options(zone, pki))


@pytest.mark.parametrize("address", ["", "ann", "ann@", "ann@[192.0.2.1]", "ann@[IPv6:2001:db8::1]"])
async def test_what_has_no_domain(address: str) -> None:
    with pytest.raises(SMTPError) as caught:
        await discover(address)
    assert isinstance(caught.value, InvalidAddress)


async def test_real_names_and_a_real_server(dns: Any, pki: Pki, postfix: Any) -> None:
    """SRV records from NSD; a dialer leads to Postfix, whose certificate is for localhost."""
    ports = {2465: postfix.tls_port, 2587: postfix.auth_port}

    async def dial(host: str, port: int) -> socket.socket:
        if port not in ports:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        return socket.create_connection(("127.0.0.1", ports[port]))

    settings = ClientOptions(
        dns=DNSOptions(servers=(dns.server,)),
        tls=TLSOptions(trust=trusting(pki).trust, server_hostname="localhost"),
        timeouts=Timeouts.all(10),
        dialer=dial,
    )
    found = await discover("user@lab.test", options=settings)
    assert [(one.host, one.port, one.inside, one.works) for one in found.servers] == [
        ("mail.lab.test", 2465, True, True),
        ("mail.lab.test", 2587, True, True),
        ("smtp.lab.test", 465, True, False),
        ("mail.lab.test", 465, True, False),
        ("smtp.lab.test", 587, True, False),
        ("mail.lab.test", 587, True, False),
    ]
    assert found.best is found.servers[0]


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_cancelled_anywhere(pki: Pki, manner: CancelManner, moment: CancelMoment) -> None:
    async with tls_server(pki, users=USERS) as server:
        zone = Zone(("_submission", server.port, "localhost"))

        async def look() -> None:
            await discover("ann@example.org", options=options(zone, pki))

        count = 0
        async for run in cancellations(look, manner=manner, moment=moment):
            count += run.injected
            await until(lambda: not server.connections.open)
        assert count
