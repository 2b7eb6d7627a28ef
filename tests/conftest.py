"""Fixtures of real servers, the event loops of `tests.lab.every_loop`, and the check for leaks.

Each real server is started once per session, when a test first uses it. If tests run in several processes (`-n`), each
process is a session with servers of its own.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from tests import lab
from tests.servers.aiosmtpd_server import AiosmtpdServer
from tests.servers.cyrus import Cyrus
from tests.servers.dns import Dns
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.kdc import Kdc, find_gssapi
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix
from tests.servers.postgres import PgBouncer, Postgres
from tests.servers.proxies import Dante, Squid, SshForwarding, Tinyproxy
from tests.servers.sink import Sink
from tests.servers.softhsm import SoftHSM

# Few examples, and the same ones in every run: the suite fails after a change, not by chance. `make thorough` and
# `make fuzz` draw others. How long an example takes says more about the machine than about the code.
settings.register_profile(
    "smtp_async",
    max_examples=500 if lab.THOROUGH else 25,
    derandomize=not lab.THOROUGH,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("smtp_async")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """The certificate authority of all these servers."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def postfix(pki: Pki) -> Iterator[Postfix]:
    """Postfix, from bare SMTP to implicit TLS with AUTH."""
    server = Postfix.start(pki)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kdc(postfix: Postfix) -> Iterator[Kdc]:
    """A key distribution centre, whose tickets `postfix` takes."""
    server = Kdc.start()
    postfix.trust(server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gssapi(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The module gssapi can be imported."""
    find_gssapi(tmp_path_factory.mktemp("gssapi"))


@pytest.fixture
def ticket(kdc: Kdc, gssapi: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process has a ticket for the user of `kdc`."""
    for name, value in kdc.ticket(tmp_path / "tickets").items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def exim(pki: Pki) -> Iterator[Exim]:
    """Exim, plain, with STARTTLS and AUTH, and with implicit TLS."""
    server = Exim.start(pki)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def dovecot(pki: Pki, postfix: Postfix) -> Iterator[Dovecot]:
    """Dovecot: LMTP, and submission that relays to `postfix`."""
    server = Dovecot.start(pki, relay_port=postfix.plain_port)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cyrus(pki: Pki) -> Iterator[Cyrus]:
    """Cyrus IMAP's LMTP, for SCRAM with channel binding."""
    server = Cyrus.start(pki)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def dns() -> Iterator[Dns]:
    """NSD and Unbound, with zones that are signed, not signed, and signed wrongly."""
    server = Dns.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def aiosmtpd(pki: Pki) -> Iterator[AiosmtpdServer]:
    """aiosmtpd: SMTP with and without TLS and AUTH, and LMTP; needs nothing installed."""
    server = AiosmtpdServer(pki)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def dante() -> Iterator[Dante]:
    """Dante: SOCKS4 and SOCKS5, with and without a login."""
    server = Dante.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tinyproxy() -> Iterator[Tinyproxy]:
    """tinyproxy: CONNECT in HTTP/1.0, with and without a login."""
    server = Tinyproxy.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def squid(pki: Pki) -> Iterator[Squid]:
    """Squid: CONNECT with Digest, Basic or NTLM, also over TLS."""
    server = Squid.start(pki)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def ssh_forwarding() -> Iterator[SshForwarding]:
    """The dynamic forwarding of OpenSSH: SOCKS4, SOCKS4a and SOCKS5."""
    server = SshForwarding.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sink() -> Iterator[Sink]:
    """smtp-sink without options."""
    server = Sink.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHSM:
    """Tokens without hardware; each file of tests adds tokens of its own."""
    return SoftHSM(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL; each test makes its own schema."""
    server = Postgres.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """PgBouncer in front of PostgreSQL, which pools transactions."""
    server = PgBouncer.start(postgres)
    yield server
    server.stop()


@pytest.fixture
def make_sink() -> Iterator[Callable[..., Sink]]:
    """A function that starts an smtp-sink with options; the sink is stopped after the test."""
    started: list[Sink] = []

    def make(*options: str) -> Sink:
        started.append(Sink.start(*options))
        return started[-1]

    yield make
    for server in started:
        server.stop()


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_collected() -> None:
    """Hide the objects that exist before the first test of a file from the garbage collector.

    Modules and collected tests are some 300,000 objects, and each test adds its reports. Most tests collect twice
    (`no_leaks`), which would take a tenth of a second each time. Objects that the tests of the file make are collected.
    """
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return asyncio's loop, or the loops that the test's marker names."""
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        return lab.LOOPS
    return {"asyncio": asyncio.new_event_loop}


@pytest_asyncio.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Check that the test leaves no task, no socket and no unclosed object behind."""
    gc.collect()
    tasks, sockets = lab.other_tasks(), lab.sockets()
    yield
    await lab.demand_nothing_left(tasks, sockets)
    gc.collect()
