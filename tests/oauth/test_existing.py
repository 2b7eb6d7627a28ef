"""existing.py: objects of google-auth and msal, played by classes with their documented members."""

import pickle
import sys
import threading
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from smtp_async import Secret, Token
from smtp_async.errors import FeatureUnavailable, InvalidArgument, TokenRefused, TokenUnavailable
from smtp_async.oauth import from_google, from_msal
from smtp_async.testing import CancelManner, cancellations
from tests.lab import other_tasks, until

CANARY = "canary-token"


class RefreshError(Exception):
    """As `google.auth.exceptions.RefreshError`."""

    def __init__(self, *args: Any, retryable: bool = False) -> None:
        super().__init__(*args)
        self.retryable = retryable


class TransportError(Exception):
    pass


class Google:
    """As `google.auth.credentials.Credentials`."""

    def __init__(self, error: Exception | None = None, expiry: Any = datetime(2030, 1, 1)) -> None:
        self.token: Any = None
        self.expiry = expiry
        self.error = error
        self.requests: list[Any] = []
        self.threads: list[int] = []

    def refresh(self, request: Any) -> None:
        self.threads.append(threading.get_ident())
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        self.token = f"google-{len(self.requests)}"


class Msal:
    """As `msal.ConfidentialClientApplication`, with its cache."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.cached: Any = None
        self.calls: list[Any] = []
        self.threads: list[int] = []

    def _next(self) -> Any:
        self.threads.append(threading.get_ident())
        if self.cached is None:
            found = self.answers.pop(0)
            if isinstance(found, Exception):
                raise found
            if isinstance(found, dict) and "access_token" in found:
                self.cached = found
            return found
        return self.cached

    def acquire_token_for_client(self, scopes: list[str]) -> Any:
        self.calls.append(scopes)
        return self._next()

    def remove_tokens_for_client(self) -> None:
        self.cached = None

    def acquire_token_silent_with_error(
        self, scopes: Any, account: Any, *, force_refresh: bool = False
    ) -> Any:
        self.calls.append((account, force_refresh))
        if force_refresh:
            self.cached = None
        return self._next()


def issued(value: str) -> dict[str, Any]:
    return {"access_token": value, "token_type": "Bearer", "expires_in": 3599}


class TestGoogle:
    @pytest.mark.parametrize("expiry", [datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=UTC)])
    async def test_a_token(self, expiry: datetime) -> None:
        credentials = Google(expiry=expiry)
        provider = from_google(credentials, request="transport")
        assert await provider() == Token("google-1", 1893456000.0)
        assert (await provider()).value == Secret("google-2")
        assert credentials.requests == ["transport"] * 2
        assert threading.get_ident() not in credentials.threads

    async def test_a_token_that_does_not_expire(self) -> None:
        assert (await from_google(Google(expiry=None), request=1)()).expires_at is None

    async def test_its_own_transport(self, monkeypatch: Any) -> None:
        module: Any = ModuleType("google.auth.transport.requests")
        module.Request = lambda: "made"
        for name in ("google", "google.auth", "google.auth.transport"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, "google.auth.transport.requests", module)
        credentials = Google()
        await from_google(credentials)()
        assert credentials.requests == ["made"]

    async def test_a_transport_that_is_missing(self, monkeypatch: Any) -> None:
        monkeypatch.setitem(sys.modules, "google", None)
        with pytest.raises(FeatureUnavailable) as caught:
            await from_google(Google())()
        assert caught.value.needs == "google-auth[requests]"

    @pytest.mark.parametrize(
        ("error", "kind", "said"),
        [
            (
                RefreshError(f"invalid_grant: {CANARY}", {"error": "invalid_grant"}),
                TokenRefused,
                "invalid_grant",
            ),
            (RefreshError(f"it said {CANARY}"), TokenRefused, "RefreshError"),
            (RefreshError(CANARY, retryable=True), TokenUnavailable, "RefreshError"),
            (TransportError(CANARY), TokenUnavailable, "TransportError"),
        ],
    )
    async def test_failures(self, error: Exception, kind: Any, said: str) -> None:
        with pytest.raises(kind, match=said) as caught:
            await from_google(Google(error), request=1)()
        assert type(caught.value) is kind and CANARY not in str(caught.value)
        assert caught.value.__context__ is None

    async def test_no_token(self) -> None:
        class Odd(Google):
            def refresh(self, request: Any) -> None:
                pass

        with pytest.raises(TokenUnavailable, match="no token"):
            await from_google(Odd(), request=1)()

    def test_something_else(self) -> None:
        with pytest.raises(InvalidArgument, match="refresh"):
            from_google(object())  # type: ignore[arg-type]


class TestMsal:
    async def test_an_application(self) -> None:
        application = Msal(issued("one"))
        provider = from_msal(application, ["https://outlook.office365.com/.default"])
        found = await provider()
        assert found.value == Secret("one") and found.expires_at is not None
        assert application.calls == [["https://outlook.office365.com/.default"]]
        assert threading.get_ident() not in application.threads

    @pytest.mark.parametrize("account", [None, {"username": "ann"}])
    async def test_a_token_that_a_server_refused_is_not_taken_from_the_cache(self, account: Any) -> None:
        provider = from_msal(Msal(issued("one"), issued("two")), ["s"], account=account)
        assert [(await provider()).value.reveal() for _ in range(2)] == ["one", "two"]

    async def test_a_cache_that_cannot_be_emptied(self) -> None:
        class Older(Msal):
            remove_tokens_for_client: Any = property()

        provider = from_msal(Older(issued("one")), ["s"])
        assert [(await provider()).value.reveal() for _ in range(2)] == ["one", "one"]

    async def test_an_account(self) -> None:
        application = Msal(issued("one"))
        await from_msal(application, ["s"], account={"username": "ann"})()
        assert application.calls == [({"username": "ann"}, False)]

    @pytest.mark.parametrize(
        ("answer", "kind", "said"),
        [
            (None, TokenRefused, "log in again"),
            (
                {"error": "invalid_client", "error_description": "AADSTS7000215"},
                TokenRefused,
                "AADSTS7000215",
            ),
            ({"error": "temporarily_unavailable"}, TokenUnavailable, "now"),
            ({}, TokenUnavailable, "access_token"),
            (OSError(CANARY), TokenUnavailable, "OSError"),
        ],
    )
    async def test_failures(self, answer: Any, kind: Any, said: str) -> None:
        with pytest.raises(kind, match=said) as caught:
            await from_msal(Msal(answer), ["s"])()
        assert type(caught.value) is kind and CANARY not in str(caught.value)
        assert caught.value.__context__ is None

    @pytest.mark.parametrize(
        ("application", "scopes", "account"),
        [(Msal(), "one text", None), (Msal(), [], None), (object(), ["s"], None), (object(), ["s"], {})],
    )
    def test_arguments(self, application: Any, scopes: Any, account: Any) -> None:
        with pytest.raises(InvalidArgument):
            from_msal(application, scopes, account=account)


@pytest.mark.parametrize(
    "provider", [from_google(Google(), request=1), from_msal(Msal(issued("one")), ["s"])]
)
def test_they_cannot_be_pickled(provider: Any) -> None:
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(provider)


@pytest.mark.parametrize("manner", CancelManner)
async def test_cancelled_at_every_await(manner: CancelManner) -> None:
    provider = from_google(Google(), request=1)
    before = other_tasks()
    async for run in cancellations(provider.__call__, manner=manner):
        assert run.cancelled or isinstance(run.result, Token), run
        await until(lambda: other_tasks() == before)
    assert isinstance(await provider(), Token)
