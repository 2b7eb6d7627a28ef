"""Real servers for the tests that ask for one: each is started once per session, and only when asked for."""

from collections.abc import Callable, Iterator

import pytest

from tests.servers.aiosmtpd_server import AiosmtpdServer
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix
from tests.servers.sink import Sink


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """A certificate authority that all servers here have their certificates from."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def postfix(pki: Pki) -> Iterator[Postfix]:
    """Postfix, from bare SMTP to implicit TLS with AUTH."""
    server = Postfix.start(pki)
    yield server
    server.stop()


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
def aiosmtpd(pki: Pki) -> Iterator[AiosmtpdServer]:
    """aiosmtpd: SMTP with and without TLS and AUTH, and LMTP; needs nothing installed."""
    server = AiosmtpdServer(pki)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sink() -> Iterator[Sink]:
    """smtp-sink as it is without options."""
    server = Sink.start()
    yield server
    server.stop()


@pytest.fixture
def make_sink() -> Iterator[Callable[..., Sink]]:
    """Starts an smtp-sink with the options given; it ends with the test."""
    started: list[Sink] = []

    def make(*options: str) -> Sink:
        started.append(Sink.start(*options))
        return started[-1]

    yield make
    for server in started:
        server.stop()
