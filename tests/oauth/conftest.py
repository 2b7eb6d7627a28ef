"""The authorization server of these tests."""

from collections.abc import Iterator

import pytest

from tests.oauth.server import AuthorizationServer
from tests.servers.pki import Pki


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the proxies of the machine, on which loopback addresses mean something else."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def authority(pki: Pki) -> Iterator[AuthorizationServer]:
    """An authorization server over https."""
    with AuthorizationServer(pki) as server:
        yield server
