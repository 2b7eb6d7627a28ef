"""device.py: codes for another device, and questions no faster than the server wants them."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Secret
from smtp_async.errors import InvalidArgument, TokenRefused, TokenUnavailable
from smtp_async.oauth import GOOGLE
from smtp_async.oauth.answers import Answer
from smtp_async.oauth.device import DeviceCode, consent_on_device, read_device_code
from smtp_async.testing import CancelManner, cancellations
from tests.lab import every_loop, other_tasks, until
from tests.oauth.server import AuthorizationServer, Reply, error, token

CODES = {
    "device_code": "canary-device",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://auth.test/device",
    "expires_in": 1800,
    "interval": 5,
}
PENDING = error("authorization_pending")


class Account:
    """Sees what it has to do, and never sleeps."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []
        self.slept: list[float] = []

    def show(self, address: str, code: str) -> None:
        self.shown.append((address, code))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


async def consent(server: AuthorizationServer, account: Account, **more: Any) -> Answer:
    options = {"client_id": "app-1", "ssl_context": server.context, "sleep": account.sleep, **more}
    return await consent_on_device(server.endpoints(), show=account.show, **options)


@every_loop
async def test_a_consent(authority: AuthorizationServer) -> None:
    account = Account()
    authority.script = [Reply(200, CODES), PENDING, PENDING, token(refresh_token="r1")]
    assert (await consent(authority, account, client_secret="s1")).refresh_token == Secret("r1")
    assert account.shown == [("https://auth.test/device", "WDJB-MJHT")]
    assert account.slept == [5.0, 5.0, 5.0]
    assert authority.paths == ["/device", "/token", "/token", "/token"]
    assert authority.forms[0] == {"client_id": "app-1", "client_secret": "s1", "scope": "mail.send"}
    assert authority.forms[3] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "canary-device",
        "client_id": "app-1",
        "client_secret": "s1",
    }


async def test_the_server_asks_for_patience(authority: AuthorizationServer) -> None:
    account = Account()
    slow = error("slow_down")
    authority.script = [Reply(200, CODES), slow, slow, PENDING, Reply(503, b""), Reply(503, b""), token()]
    await consent(authority, account)
    assert account.slept == [5.0, 10.0, 15.0, 15.0, 30.0, 60.0]


class TestFailures:
    @pytest.mark.parametrize("code", ["access_denied", "expired_token", "invalid_grant"])
    async def test_the_account_refuses(self, authority: AuthorizationServer, code: str) -> None:
        authority.script = [Reply(200, CODES), PENDING, error(code, error_description="canary-device")]
        with pytest.raises(TokenRefused, match=code) as caught:
            await consent(authority, Account())
        assert "canary" not in str(caught.value)

    async def test_the_codes_expire(self, authority: AuthorizationServer) -> None:
        authority.script = [Reply(200, {**CODES, "expires_in": 0.05})]
        with pytest.raises(TokenUnavailable, match=r"within 0\.05 s"):
            await consent(authority, Account(), sleep=lambda seconds: asyncio.Event().wait())

    async def test_no_codes(self, authority: AuthorizationServer) -> None:
        authority.script = [Reply(200, {**CODES, "user_code": None})]
        with pytest.raises(TokenUnavailable, match="no device code") as caught:
            await consent(authority, Account())
        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (error("unauthorized_client"), TokenRefused),
            (Reply(500, b""), TokenUnavailable),
            (Reply(200, b"[]"), TokenUnavailable),
        ],
    )
    async def test_the_beginning_is_refused(
        self, authority: AuthorizationServer, answer: Reply, kind: Any
    ) -> None:
        authority.script = [answer]
        with pytest.raises(kind, match="device authorization endpoint"):
            await consent(authority, Account())

    async def test_no_device_endpoint(self) -> None:
        with pytest.raises(InvalidArgument, match="google"):
            await consent_on_device(GOOGLE, client_id="a", show=lambda address, code: None)


@pytest.mark.parametrize("manner", CancelManner)
async def test_cancelled_at_every_await(authority: AuthorizationServer, manner: CancelManner) -> None:
    authority.handler = lambda form: token() if "grant_type" in form else Reply(200, CODES)
    before = other_tasks()

    async def scenario() -> Answer:
        return await consent(authority, Account())

    async for run in cancellations(scenario, manner=manner):
        assert run.cancelled or isinstance(run.result, Answer), run
        await until(lambda: other_tasks() == before)
    assert isinstance(run.result, Answer)


def read(**changes: Any) -> DeviceCode | None:
    return read_device_code({**CODES, **changes})


def test_what_is_shown_cannot_steer_a_terminal() -> None:
    found = read(user_code="A\x1b[2J")
    assert found is not None and "\x1b" not in found.user_code


@pytest.mark.parametrize("address", ["http://auth.test/", "javascript:alert(1)", "", None])
def test_an_address_that_is_not_https(address: Any) -> None:
    assert read(verification_uri=address) is None


@pytest.mark.parametrize("odd", [None, True, "5", -1, 0, float("nan"), 1e12])
def test_times_that_make_no_sense(odd: Any) -> None:
    found = read(interval=odd, expires_in=odd)
    assert found is not None and (found.interval, found.expires_in) == (5.0, 3600.0)


def test_googles_name_of_the_address() -> None:
    found = read(verification_uri=None, verification_url="https://www.google.com/device")
    assert found is not None and found.address == "https://www.google.com/device"


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("https://a/")


@given(st.dictionaries(st.sampled_from([*CODES, "verification_url"]), VALUES))
def test_any_object(found: dict[str, Any]) -> None:
    code = read_device_code(found)
    assert code is None or (0 < code.interval <= 60 and 0 < code.expires_in <= 3600)
