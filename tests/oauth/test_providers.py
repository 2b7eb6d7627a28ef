"""providers.py: refresh tokens, applications and service accounts, alone and behind a client."""

import asyncio
import base64
import copy
import json
import logging
import os
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import RSAKey

from smtp_async import Secret, Token
from smtp_async.errors import (
    FileError,
    InvalidArgument,
    SMTPError,
    TokenRefused,
    TokenUnavailable,
)
from smtp_async.oauth import GOOGLE, ClientCredentials, RefreshToken, ServiceAccount, microsoft
from smtp_async.oauth import providers as module
from smtp_async.oauth.token_file import TokenFile, read_token_file, write_token_file
from smtp_async.testing import CancelManner, cancellations
from tests.lab import other_tasks, until
from tests.oauth.owners import owned_by
from tests.oauth.server import AuthorizationServer, Form, Reply, error, token
from tests.servers.machine import needs_modes

SECRETS = ("canary-refresh-token", "canary-client-secret", "canary-access-token", "canary-rotated-token")


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def refresh(server: AuthorizationServer, **more: Any) -> RefreshToken:
    options: dict[str, Any] = {
        "client_id": "app-1",
        "refresh_token": "canary-refresh-token",
        "client_secret": "canary-client-secret",
        "ssl_context": server.context,
    }
    return RefreshToken(server.endpoints(), **{**options, **more})


def application(server: AuthorizationServer, **more: Any) -> ClientCredentials:
    options: dict[str, Any] = {"client_secret": "canary-client-secret", "ssl_context": server.context}
    return ClientCredentials(server.endpoints(), client_id="app-1", **{**options, **more})


def service(server: AuthorizationServer, pem: str, **more: Any) -> ServiceAccount:
    options: dict[str, Any] = {
        "client_id": "robot@project.test",
        "private_key": pem,
        "subject": "user@lab.test",
        "endpoints": server.endpoints(),
        "ssl_context": server.context,
    }
    return ServiceAccount(**{**options, **more})


class TestRefreshToken:
    async def test_what_is_asked_and_returned(self, authority: AuthorizationServer) -> None:
        before = time.time()
        found = await refresh(authority, scope="less")()
        assert found.value == Secret("access-1")
        assert found.expires_at is not None and before + 3600 <= found.expires_at <= time.time() + 3600
        assert authority.forms == [
            {
                "grant_type": "refresh_token",
                "refresh_token": "canary-refresh-token",
                "client_id": "app-1",
                "client_secret": "canary-client-secret",
                "scope": "less",
            }
        ]

    async def test_without_a_secret(self, authority: AuthorizationServer) -> None:
        await refresh(authority, client_secret="")()
        assert set(authority.forms[0]) == {"grant_type", "refresh_token", "client_id"}

    async def test_a_rotated_token_is_used_and_told(self, authority: AuthorizationServer) -> None:
        told: list[Secret] = []

        async def store(new: Secret) -> None:
            await asyncio.sleep(0)
            told.append(new)

        for on_rotation in (told.append, store):
            provider = refresh(authority, on_rotation=on_rotation)
            authority.script = [token(refresh_token="r2"), token(refresh_token="r2")]
            await provider()
            await provider()
            assert told.pop() == Secret("r2") and not told
            assert [form["refresh_token"] for form in authority.forms[-2:]] == ["canary-refresh-token", "r2"]

    async def test_a_rotation_that_cannot_be_told_is_logged(
        self, authority: AuthorizationServer, caplog: Any
    ) -> None:
        def broken(new: Secret) -> None:
            raise KeyError(new.reveal())

        authority.script = [token(refresh_token="canary-rotated-token")]
        await refresh(authority, on_rotation=broken)()
        assert "on_rotation raised KeyError" in caplog.text and "canary" not in caplog.text

    @pytest.mark.parametrize(
        "wrong", [{"client_id": ""}, {"refresh_token": ""}, {"timeout": 0}, {"refresh_token": Secret("")}]
    )
    def test_arguments(self, authority: AuthorizationServer, wrong: Any) -> None:
        with pytest.raises(InvalidArgument):
            refresh(authority, **wrong)


class TestFiles:
    @pytest.fixture
    def path(self, authority: AuthorizationServer, tmp_path: Path) -> Path:
        path = tmp_path / "token"
        write_token_file(
            path,
            TokenFile(
                provider="local",
                token_endpoint=authority.url,
                client_id="app-1",
                client_secret=Secret("s"),
                refresh_token=Secret("r1"),
                username="ann@example.com",
            ),
        )
        return path

    def provider(self, authority: AuthorizationServer, path: Path) -> RefreshToken:
        return RefreshToken.from_file(path, ssl_context=authority.context)

    async def test_it_is_read(self, authority: AuthorizationServer, path: Path) -> None:
        provider = self.provider(authority, str(path))  # type: ignore[arg-type]
        await provider()
        assert provider.username == "ann@example.com"
        assert (authority.forms[0]["refresh_token"], authority.forms[0]["client_secret"]) == ("r1", "s")

    async def test_a_rotated_token_is_written_back(self, authority: AuthorizationServer, path: Path) -> None:
        authority.script = [token(refresh_token="r2")]
        await self.provider(authority, path)()
        found = read_token_file(path)
        assert (found.refresh_token, found.username) == (Secret("r2"), "ann@example.com")
        assert os.stat(path).st_mode & 0o777 == 0o600

    async def test_what_another_process_wrote_is_used(
        self, authority: AuthorizationServer, path: Path
    ) -> None:
        provider = self.provider(authority, path)
        write_token_file(path, replace(read_token_file(path), refresh_token=Secret("r2")))
        await provider()
        assert authority.forms[0]["refresh_token"] == "r2"

    async def test_another_process_rotates_in_between(
        self, authority: AuthorizationServer, path: Path
    ) -> None:
        def answer(form: Form) -> Reply:
            if form["refresh_token"] == "r1":
                write_token_file(path, replace(read_token_file(path), refresh_token=Secret("r2")))
                return error("invalid_grant")
            return token("access-2")

        authority.handler = answer
        assert (await self.provider(authority, path)()).value == Secret("access-2")

    @pytest.mark.parametrize("change", [{}, {"username": "bob@example.com"}, {"client_id": "app-2"}])
    async def test_a_consent_that_comes_meanwhile_is_not_overwritten(
        self, authority: AuthorizationServer, path: Path, change: Any, caplog: Any
    ) -> None:
        consented = replace(read_token_file(path), refresh_token=Secret("fresh"), **change)

        def answer(form: Form) -> Reply:
            write_token_file(path, consented)
            return token(refresh_token="r2")

        authority.handler = answer
        await self.provider(authority, path)()
        assert read_token_file(path) == consented
        assert "holds another token" in caplog.text and "fresh" not in caplog.text

    async def test_a_file_that_goes_meanwhile_is_not_made_again(
        self, authority: AuthorizationServer, path: Path, caplog: Any
    ) -> None:
        def answer(form: Form) -> Reply:
            path.unlink()
            return token(refresh_token="r2")

        authority.handler = answer
        await self.provider(authority, path)()
        assert "kept in memory only" in caplog.text and os.listdir(path.parent) == []

    async def test_a_refusal_is_asked_once(self, authority: AuthorizationServer, path: Path) -> None:
        authority.handler = lambda form: error("invalid_grant")
        with pytest.raises(TokenRefused):
            await self.provider(authority, path)()
        assert len(authority.forms) == 1

    async def test_a_file_that_goes_leaves_the_token(
        self, authority: AuthorizationServer, path: Path, caplog: Any
    ) -> None:
        provider = self.provider(authority, path)
        os.unlink(path)
        authority.script = [token(refresh_token="r2")]
        await provider()
        assert "No such file" in caplog.text and os.listdir(path.parent) == []
        await provider()
        assert authority.forms[1]["refresh_token"] == "r2"

    async def test_a_file_of_another_application_is_left_alone(
        self, authority: AuthorizationServer, path: Path
    ) -> None:
        provider = self.provider(authority, path)
        write_token_file(path, replace(read_token_file(path), client_id="app-2", refresh_token=Secret("x")))
        authority.script = [token(refresh_token="r2")]
        await provider()
        assert authority.forms[0]["refresh_token"] == "r1"
        assert read_token_file(path).refresh_token == Secret("x")

    @pytest.mark.parametrize("manner", CancelManner)
    async def test_cancelled_while_the_token_is_rotated(
        self, authority: AuthorizationServer, path: Path, manner: CancelManner
    ) -> None:
        """What the server has put in the place of the refresh token is stored by all means."""
        authority.handler = lambda form: token(refresh_token=f"r{len(authority.forms) + 1}")
        told: list[Secret] = []

        async def store(new: Secret) -> None:
            await asyncio.sleep(0)
            told.append(new)

        provider = RefreshToken.from_file(path, ssl_context=authority.context, on_rotation=store)
        async for run in cancellations(provider.__call__, manner=manner):
            assert run.cancelled or isinstance(run.result, Token), run
            await until(lambda: not provider._storing)
            known = read_token_file(path).refresh_token
            assert known == (told[-1] if told else Secret("r1"))

    async def test_cancelled_while_the_rotated_token_is_stored(
        self, authority: AuthorizationServer, path: Path
    ) -> None:
        authority.script = [token(refresh_token="r2")]
        told, hold = asyncio.Event(), asyncio.Event()
        kept: list[Secret] = []

        async def store(new: Secret) -> None:
            told.set()
            await hold.wait()
            kept.append(new)

        provider = RefreshToken.from_file(path, ssl_context=authority.context, on_rotation=store)
        caller = asyncio.ensure_future(provider())
        await told.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        hold.set()
        await until(lambda: kept == [Secret("r2")])
        assert read_token_file(path).refresh_token == Secret("r2")

    async def test_a_disk_that_is_full(
        self, authority: AuthorizationServer, path: Path, monkeypatch: Any, caplog: Any
    ) -> None:
        def full(*args: Any) -> None:
            raise FileError("cannot write the token file: No space left on device")

        monkeypatch.setattr(module, "write_token_file", full)
        authority.script = [token(refresh_token="r2")]
        provider = self.provider(authority, path)
        await provider()
        assert "kept in memory only" in caplog.text

    @needs_modes
    def test_a_file_of_another_user(
        self, authority: AuthorizationServer, path: Path, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(os, "fstat", owned_by(os.geteuid() + 1))
        with pytest.raises(FileError, match="belongs to another user"):
            self.provider(authority, path)

    @needs_modes
    def test_a_file_that_others_may_read(self, authority: AuthorizationServer, path: Path) -> None:
        path.chmod(0o640)
        with pytest.raises(FileError, match="chmod 600"):
            self.provider(authority, path)


class TestClientCredentials:
    async def test_what_is_asked(self, authority: AuthorizationServer) -> None:
        await application(authority)()
        assert authority.forms == [
            {
                "grant_type": "client_credentials",
                "client_id": "app-1",
                "client_secret": "canary-client-secret",
                "scope": "mail.app",
            }
        ]

    def test_a_tenant_of_several_organisations_has_no_applications(self) -> None:
        with pytest.raises(InvalidArgument, match="own tenant"):
            ClientCredentials(microsoft(), client_id="a", client_secret="s")
        ClientCredentials(microsoft("contoso.test"), client_id="a", client_secret="s")

    @pytest.mark.parametrize("wrong", [{"client_secret": ""}])
    def test_arguments(self, authority: AuthorizationServer, wrong: Any) -> None:
        with pytest.raises(InvalidArgument):
            application(authority, **wrong)


class TestServiceAccount:
    async def test_the_statement(
        self, authority: AuthorizationServer, key: rsa.RSAPrivateKey, pem: str
    ) -> None:
        before = int(time.time())
        await service(authority, pem, key_id="key-7")()
        (form,) = authority.forms
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        public = RSAKey.import_key(key.public_key())
        stated = jwt.decode(form["assertion"], public, algorithms=["RS256"])
        assert stated.header == {"alg": "RS256", "typ": "JWT", "kid": "key-7"}
        issued = stated.claims.pop("iat")
        assert before <= issued <= time.time() and stated.claims.pop("exp") == issued + 3600
        assert stated.claims == {
            "iss": "robot@project.test",
            "sub": "user@lab.test",
            "scope": "mail.app",
            "aud": authority.url,
        }

    async def test_googles_key_file(self, authority: AuthorizationServer, pem: str, tmp_path: Path) -> None:
        path = tmp_path / "key.json"
        found = {"type": "service_account", "client_email": "robot@project.test", "private_key": pem}
        path.write_text(json.dumps({**found, "private_key_id": "k", "token_uri": authority.url}))
        await ServiceAccount.from_file(path, subject="user@lab.test", ssl_context=authority.context)()
        stated = authority.forms[0]["assertion"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(stated + "=="))
        assert (claims["iss"], claims["scope"]) == ("robot@project.test", GOOGLE.application_scope)

    @pytest.mark.parametrize("wrong", [{"subject": ""}, {"private_key": "no key"}, {"client_id": ""}])
    def test_arguments(self, authority: AuthorizationServer, pem: str, wrong: Any) -> None:
        with pytest.raises(InvalidArgument):
            service(authority, pem, **wrong)


# --- what goes wrong, for all of them ------------------------------------------------------------------------

Make = Callable[..., Any]


@pytest.fixture(params=["refresh", "application", "service"])
def make(request: Any, authority: AuthorizationServer, pem: str) -> Make:
    makers: dict[str, Make] = {
        "refresh": lambda **more: refresh(authority, **more),
        "application": lambda **more: application(authority, **more),
        "service": lambda **more: service(authority, pem, **more),
    }
    maker: Make = makers[request.param]
    return maker


#: What a server does with what it was sent: each of them repeats all of it, where it can.
FAILURES: dict[str, tuple[Callable[[str], Reply], type[SMTPError]]] = {
    "invalid_grant": (lambda sent: error("invalid_grant", error_description=sent), TokenRefused),
    "invalid_client": (lambda sent: error("invalid_client", 401, error_description=sent), TokenRefused),
    "a code of its own": (lambda sent: error(sent), TokenRefused),
    "500": (lambda sent: Reply(500, sent.encode()), TokenUnavailable),
    "500 with JSON": (lambda sent: error("invalid_grant", 500, error_description=sent), TokenUnavailable),
    "no JSON": (lambda sent: Reply(200, sent.encode()), TokenUnavailable),
    "another type": (lambda sent: token(SECRETS[2], token_type="mac", more=sent), TokenUnavailable),
    "no token": (lambda sent: Reply(200, {"refresh_token": SECRETS[3], "more": sent}), TokenUnavailable),
    "huge": (lambda sent: Reply(200, sent.encode() * 1000), TokenUnavailable),
    "cut": (lambda sent: Reply(200, sent.encode(), {"Content-Length": "9999"}), TokenUnavailable),
    "redirect": (
        lambda sent: Reply(302, sent.encode(), {"Location": "https://evil.test/"}),
        TokenUnavailable,
    ),
}


def shown(error: BaseException) -> str:
    """Everything that a tool might print of an exception, local variables of the library's frames included."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    told.stack = traceback.StackSummary([frame for frame in told.stack if "smtp_async/" in frame.filename])
    assert len(told.stack) > 0
    return f"{error!r} {error} {vars(error)} {''.join(told.format())}"


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure(name: str, make: Make, authority: AuthorizationServer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    answer, kind = FAILURES[name]
    authority.handler = lambda form: answer(" ".join(form.values()))
    with pytest.raises(kind) as caught:
        await make()()
    assert type(caught.value) is kind and caught.value.temporary is (kind is TokenUnavailable)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    text = shown(caught.value) + caplog.text
    secret = ("refresh_token", "client_secret", "assertion")
    sent = {value for form in authority.forms for name, value in form.items() if name in secret}
    assert sent
    assert [one for one in {*sent, *SECRETS} if one in text or one[:20] in text] == []


async def test_slow(make: Make, authority: AuthorizationServer) -> None:
    authority.open.clear()
    with pytest.raises(TokenUnavailable, match=r"localhost did not answer within 0\.2 s"):
        await make(timeout=0.2)()


async def test_a_token_that_is_good(make: Make) -> None:
    assert isinstance(await make()(), Token)


def test_nothing_secret_is_shown_or_pickled(make: Make) -> None:
    one = make()
    assert "canary" not in repr(one) and "PRIVATE" not in repr(one)
    assert "at localhost" in repr(one)
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pickled"):
            way(one)


@pytest.mark.parametrize("manner", CancelManner)
async def test_cancelled_at_every_await(make: Make, manner: CancelManner) -> None:
    one = make()
    await one()
    before = other_tasks()
    async for run in cancellations(one.__call__, manner=manner):
        assert run.cancelled or isinstance(run.result, Token), run
        await until(lambda: other_tasks() == before)
    assert isinstance(await one(), Token)
