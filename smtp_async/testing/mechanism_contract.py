"""What every SASL mechanism must do, as tests that a mechanism of an application's own runs.

    class TestMyMechanism(MechanismContract):
        mechanism = MyMechanism
        users = {"ann": "s3cret"}
        credentials = Credentials(username="ann", password="s3cret", mechanisms=[MyMechanism])

        @staticmethod
        def server(users, initial):
            ...  # the server's side, a generator as in `smtp_async.testing.mechanisms`

The tests are coroutines; pytest needs a plugin that runs them (pytest-asyncio in its `auto` mode, or anyio).
"""

from __future__ import annotations

import base64
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from ..auth.credentials import Credentials
from ..auth.mechanism import Mechanism as ClientMechanism
from ..auth.mechanism import Peer
from ..client.client import SMTPClient
from ..client.options import ClientOptions
from ..errors import AuthenticationFailed, ProtocolViolation, SMTPError
from ..model.secret import Secret
from ..tls.context import Security
from .mechanisms import Exchange
from .server import ScriptedServer

__all__ = ["MechanismContract"]

#: RFC 4422 section 3.1.
_NAME = re.compile(r"[A-Z0-9_-]{1,20}")
#: As many challenges as a connection answers.
_ROUNDS = 10


class MechanismContract:
    """Tests of a mechanism: derive from it, with these class attributes and a `server`.

    Attributes:
        mechanism: the class.
        credentials: what the server takes.
        users: the users that the server knows, by name.
    """

    mechanism: ClassVar[type[ClientMechanism]]
    credentials: ClassVar[Credentials]
    users: ClassVar[Mapping[str, str]] = {}

    @staticmethod
    def server(users: Mapping[str, str], initial: bytes | None, /) -> Exchange:
        """The server's side: yields challenges, receives responses, returns the user or None."""
        raise NotImplementedError

    # --- the class ---

    def test_the_name_is_one_of_sasl(self) -> None:
        assert _NAME.fullmatch(self.mechanism.name)

    def test_missing_extras_and_objections_are_texts(self) -> None:
        assert isinstance(self.mechanism.missing(), str)
        assert self.mechanism.objection(self.credentials, self._peer()) == ""

    # --- one exchange ---

    def test_it_begins_incomplete_and_without_secrets(self) -> None:
        one = self._make()
        assert one.complete is False
        assert one.explanation == ""

    def test_an_exchange_ends_complete(self) -> None:
        one = self._make()
        assert self._converse(one) is not None
        assert one.complete is True

    def test_each_exchange_is_its_own(self) -> None:
        first, second = self._make(), self._make()
        self._converse(first)
        assert second.complete is False
        assert self._converse(second) is not None

    def test_secrets_are_parts_of_what_was_sent(self) -> None:
        """They are masked wherever a server repeats them; what was not sent need not be."""
        sent = b""
        one = self._make()
        exchange = self.server(self.users, None)
        challenge = next(exchange)
        try:
            for _ in range(_ROUNDS):
                sent += self._respond(one, challenge)
                assert all(secret and secret in sent for secret in one.secrets())
                challenge = exchange.send(sent[-len(self._last) :] if self._last else b"")
        except StopIteration:
            pass

    def test_a_server_that_never_ends_is_a_violation(self) -> None:
        one = self._make()
        self._prepare(one, None)
        one.initial_response()
        try:
            for _ in range(_ROUNDS + 1):
                self._respond(one, b"")
        except ProtocolViolation:
            return
        raise AssertionError("it answers challenges for ever")

    def test_challenges_of_any_kind_raise_nothing_else(self) -> None:
        for challenge in (b"", b"\0", b"\xff" * 9000, b"garbage", b"=,=,=", b'{"a":1}'):
            one = self._make()
            self._prepare(one, None)
            one.initial_response()
            try:
                assert isinstance(self._respond(one, challenge), bytes)
            except SMTPError:
                pass

    def test_it_does_not_show_its_secrets(self) -> None:
        one = self._make()
        self._converse(one)
        shown = f"{one!r} {one} {vars(one)!r}"
        try:
            shown += pickle.dumps(one).decode("latin-1")
        except (TypeError, AttributeError, pickle.PicklingError):
            pass
        for secret in (self.credentials.password, self.credentials.token):
            if isinstance(secret, Secret) and secret:
                text = secret.reveal()
                assert text not in shown
                assert base64.b64encode(text.encode()).decode().rstrip("=") not in shown

    # --- over a connection ---

    async def test_a_login(self) -> None:
        async with ScriptedServer(
            users=dict(self.users), mechanisms={self.mechanism.name: self.server}
        ) as server:
            async with self._client(server) as client, client.session() as session:
                await session.connect()
                assert session.connected
            assert [line.verb for line in server.commands].count("AUTH") == 1

    async def test_a_refusal(self) -> None:
        def refuse(users: Mapping[str, str], initial: bytes | None) -> Exchange:
            yield from self.server(users, initial)
            return None

        async with ScriptedServer(users=dict(self.users), mechanisms={self.mechanism.name: refuse}) as server:
            async with self._client(server) as client, client.session() as session:
                try:
                    await session.connect()
                except (AuthenticationFailed, ProtocolViolation):
                    return
        raise AssertionError("a refused login was taken for one")

    # --- what the tests share ---

    _last = b""

    def _peer(self) -> Peer:
        return Peer(host="mx.test", offered=frozenset({self.mechanism.name}), secure=True)

    def _make(self) -> ClientMechanism:
        return self.mechanism(self.credentials, self._peer())

    def _prepare(self, one: ClientMechanism, challenge: bytes | None) -> None:
        pending = one.pending(challenge)
        if pending is not None:
            pending.work()

    def _respond(self, one: ClientMechanism, challenge: bytes) -> bytes:
        self._prepare(one, challenge)
        self._last = one.respond(challenge)
        return self._last

    def _converse(self, one: ClientMechanism) -> str | None:
        self._prepare(one, None)
        exchange = self.server(self.users, one.initial_response())
        try:
            challenge = next(exchange)
            for _ in range(_ROUNDS):
                challenge = exchange.send(self._respond(one, challenge))
        except StopIteration as end:
            user: str | None = end.value
            return user
        raise AssertionError("the exchange does not end")

    def _client(self, server: ScriptedServer) -> SMTPClient:
        allowed = replace(self.credentials, mechanisms=(self.mechanism,), allow_cleartext=True)
        return SMTPClient(
            server.host,
            server.port,
            credentials=allowed,
            security=Security.PLAINTEXT,
            options=ClientOptions(hello="client.test"),
        )
