"""The table of certificates at real servers: Postfix (OpenSSL) and Exim (GnuTLS), and what their logs tell of a client.

One instance of each shows all certificates, one after the other.
"""

from __future__ import annotations

import asyncio

import pytest

from smtp_async.errors import TLSError
from smtp_async.tls import Security
from tests.lab import sampled
from tests.servers.exim import Exim
from tests.servers.postfix import Postfix
from tests.tls.cases import CASES, PLAIN
from tests.tls.smtp_server import begin_session, connect, has_resumed, timeless
from tests.tls.test_verdict import WAYS, options_for

pytestmark = pytest.mark.server

#: A key that may not sign: GnuTLS finds no cipher suite for it.
NOT_SHOWN_BY_EXIM = {"key for other things"}
#: Exim does not log what a client has said that gives up within the handshake.
ROWS = [
    (server, name, way)
    for server in ("postfix", "exim")
    for name in CASES
    for way in WAYS
    if way != "within the handshake" or (server == "postfix" and name in PLAIN)
    if server == "postfix" or name not in NOT_SHOWN_BY_EXIM
]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Postfix | Exim:
    found: Postfix | Exim = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(("server", "name", "way"), sampled(ROWS, 5), indirect=["server"])
async def test_the_table(server: Postfix | Exim, name: str, way: str) -> None:
    """What is wrong is found and told, and behind the handshake such a server is told nothing."""
    case = CASES[name]
    shown = case.shows()
    server.show(shown.combined)
    security = Security.STARTTLS if way == "STARTTLS" else Security.IMPLICIT
    port = server.shown_port if way == "STARTTLS" else server.shown_tls_port
    in_clear = ["ehlo", "starttls"] if way == "STARTTLS" else []
    options, shared = options_for(case, shown, way), timeless()
    if way == "resumed":
        await begin_session(port, shared, options, shown.certificate, security)
    local_ports: list[int] = []
    start = len(server.log())
    if case.error is None:
        info = (await connect(port, shared, options, security, local_ports=local_ports)).info
        assert info is not None and info.validation is not None
        assert info.session_resumed is (way == "resumed")
        assert info.verified is (True if case.verified is None else case.verified)
        assert info.validation.status == "OK" and info.validation.accepted
        problems, said = info.validation.problems, sorted([*in_clear, "ehlo"])
    else:
        with pytest.raises(TLSError, match=case.says) as caught:
            await connect(port, shared, options, security, local_ports=local_ports)
        assert type(caught.value) is case.error
        # A policy that fails leaves nothing to tell of the chain.
        found = caught.value.validation
        problems, said = case.problems if found is None else found.problems, in_clear
        assert found is not None or name == "policy that fails"
    assert problems == case.problems
    if way == "resumed":
        assert await has_resumed(port, shared, options)
    (local_port,) = local_ports
    assert await asyncio.to_thread(server.commands_of, local_port, start) == said
