"""How the server's bytes arrive: the manner must never matter."""

import pytest

from tests.protocol.talk import MANNERS, Deliver


@pytest.fixture(params=MANNERS, ids=list(MANNERS))
def deliver(request: pytest.FixtureRequest) -> Deliver:
    """Each way to hand the same bytes to a machine: whole, by line, byte by byte."""
    return MANNERS[request.param]
