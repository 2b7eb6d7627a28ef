"""challenges.py: what a mechanism has to wait for, long responses, the number of rounds, and errors without frames."""

import asyncio
import logging
import threading
import traceback
from typing import Any

import pytest

from smtp_async import Credentials, Outcome
from smtp_async.auth import Exposure, Mechanism, Needs, Peer, Pending
from smtp_async.auth.mechanism import UNKNOWN_PEER
from smtp_async.errors import (
    AuthenticationUnavailable,
    InvalidArgument,
    ProtocolViolation,
    SMTPError,
    Timeout,
)
from smtp_async.testing import ScriptedServer
from tests.auth import servers
from tests.lab import client_of, every_loop, gathered, impatient, mail, speaking

pytestmark = pytest.mark.usefixtures("no_leaks")

USERS = {"ann": "secret"}
ANN = Credentials(username="ann", password="secret", allow_cleartext=True)
SCRAM = {name: servers.scram(name) for name in ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")}


class Played(Mechanism):
    """A mechanism whose steps a test decides."""

    name = "X-PLAYED"
    needs = Needs.NOTHING
    exposes = Exposure.NOTHING
    first: bytes | None = None
    answer: Any = b"answer"
    work: Any = None
    blocking = False
    log: list[str] = []

    def pending(self, challenge: bytes | None) -> Pending | None:
        self.log.append(f"pending {challenge!r}")
        return None if self.work is None else Pending(self.work, self.blocking)

    def initial_response(self) -> bytes | None:
        self.log.append("initial")
        self.complete = True
        return self.first

    def respond(self, challenge: bytes) -> bytes:
        self.log.append(f"respond {challenge!r}")
        self.complete = True
        if isinstance(self.answer, BaseException):
            raise self.answer
        found: bytes = self.answer
        return found

    def secrets(self) -> tuple[bytes, ...]:
        return ()


def played(**how: Any) -> type[Played]:
    return type("Own", (Played,), {"log": [], **how})


def served(*challenges: bytes, end: str | None = "ann") -> Any:
    def serve(users: Any, initial: bytes | None) -> Any:
        for challenge in challenges:
            _ = yield challenge
        return end

    return serve


async def login(mechanism: type[Played], server: ScriptedServer, **options: Any) -> Any:
    account = Credentials(mechanisms=[mechanism])
    async with client_of(server, credentials=account, **options) as client, client.session() as session:
        return (await gathered(session.connect()))[0]


def server_of(*challenges: bytes) -> ScriptedServer:
    return ScriptedServer(mechanisms={"X-PLAYED": served(*challenges)})


class TestSteps:
    @pytest.mark.parametrize("blocking", [False, True])
    @every_loop
    async def test_work_is_done_before_each_response(self, blocking: bool) -> None:
        where: list[Any] = []
        own = played(work=lambda *_: where.append(threading.current_thread()), blocking=blocking)
        async with server_of(b"one", b"two") as server:
            assert (await login(own, server)).code == 220
        assert own.log == [
            "pending None",
            "initial",
            "pending b'one'",
            "respond b'one'",
            "pending b'two'",
            "respond b'two'",
        ]
        here = threading.current_thread()
        assert [one is here for one in where] == [not blocking] * 3

    async def test_work_may_be_awaited(self) -> None:
        done: list[int] = []

        async def work(*_: Any) -> None:
            await asyncio.sleep(0)
            done.append(1)

        async with server_of(b"one") as server:
            assert (await login(played(work=work), server)).code == 220
        assert done == [1, 1]

    @pytest.mark.parametrize(
        ("size", "waits"), [(0, False), (360, False), (369, False), (370, True), (4000, True)]
    )
    async def test_a_long_initial_response_waits_for_the_server(self, size: int, waits: bool) -> None:
        """RFC 4954 section 4: a line has 512 octets."""
        own = played(first=b"x" * size)
        async with ScriptedServer(mechanisms={"X-PLAYED": servers.anonymous}) as server:
            assert (await login(own, server)).code == 220
            lines = [line.line for line in server.commands]
        assert (b"AUTH X-PLAYED" in lines) is waits
        assert all(len(line) + 2 <= 512 for line in lines if line.startswith(b"AUTH"))
        assert own.log.count("initial") == (2 if waits else 1)

    async def test_an_empty_initial_response(self) -> None:
        async with ScriptedServer(mechanisms={"X-PLAYED": servers.anonymous}) as server:
            assert (await login(played(first=b""), server)).code == 220
            assert b"AUTH X-PLAYED =" in [line.line for line in server.commands]

    @pytest.mark.parametrize(("rounds", "fine"), [(10, True), (11, False), (30, False)])
    async def test_ten_rounds(self, rounds: int, fine: bool) -> None:
        async with server_of(*[b"again"] * rounds) as server:
            result = await login(played(), server)
        assert (result.code == 220) if fine else isinstance(result, ProtocolViolation)


class TestErrors:
    async def test_no_other_mechanism_follows_once_something_was_sent(self) -> None:
        own = played(answer=AuthenticationUnavailable("the ticket has expired"))
        offered: Any = {"X-PLAYED": served(b"one"), "ANONYMOUS": servers.anonymous}
        async with ScriptedServer(mechanisms=offered) as server:
            account = Credentials(mechanisms=[own, "ANONYMOUS"])
            async with client_of(server, credentials=account) as client, client.session() as session:
                with pytest.raises(AuthenticationUnavailable, match="expired"):
                    await session.connect()
            assert [line.line for line in server.commands if line.verb == "AUTH"] == [b"AUTH X-PLAYED"]

    @pytest.mark.parametrize(
        "error", [InvalidArgument("no"), ProtocolViolation("no"), AuthenticationUnavailable("no")]
    )
    async def test_the_exchange_is_cancelled(self, error: SMTPError) -> None:
        """RFC 4954 section 4."""
        async with server_of(b"one") as server:
            assert type(await login(played(answer=error), server)) is type(error)
            assert [line.line for line in server.commands][-2:] == [b"*", b"QUIT"]

    async def test_no_frame_holds_a_challenge_or_a_response(self) -> None:
        class Nosy(Played):
            def respond(self, challenge: bytes) -> bytes:
                response = b"my answer to " + challenge
                try:
                    raise ValueError(response)
                except ValueError as error:
                    raise ProtocolViolation("no") from error

        async with server_of(b"c4n4ry") as server:
            error = await login(Nosy, server)
        assert isinstance(error, ProtocolViolation) and error.stage == "AUTH"
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert "c4n4ry" not in told and "my answer" not in told

    async def test_work_that_fails(self) -> None:
        def work(self: Played) -> None:
            raise AuthenticationUnavailable("no ticket")

        async with server_of(b"one") as server:
            result = await login(played(work=work), server)
            assert isinstance(result, AuthenticationUnavailable)
            assert [line.verb for line in server.commands if line.verb == "AUTH"] == []


class Revealing(Played):
    """Raises an error whose text is the password, in the step `where`."""

    where = ""
    error: type[BaseException] = ValueError

    def __init__(self, credentials: Credentials, peer: Peer = UNKNOWN_PEER) -> None:
        super().__init__(credentials, peer)
        self.fail("init")

    def fail(self, where: str) -> None:
        if where == self.where:
            raise self.error(f"cannot encode {self._credentials.password.reveal()}")

    def pending(self, challenge: bytes | None) -> Pending | None:
        self.fail("pending")
        return Pending(lambda: self.fail("work"), True)

    def initial_response(self) -> bytes | None:
        self.fail("initial")
        return super().initial_response()

    def challenge(self, text: bytes) -> bytes:
        self.fail("challenge")
        return super().challenge(text)

    def respond(self, challenge: bytes) -> bytes:
        self.fail("respond")
        return super().respond(challenge)

    def secrets(self) -> tuple[bytes, ...]:
        self.fail("secrets")
        return super().secrets()


class TestOwnMechanismThatRaises:
    @pytest.mark.parametrize("raised", [ValueError, asyncio.CancelledError])
    @pytest.mark.parametrize(
        "where", ["init", "pending", "work", "initial", "challenge", "respond", "secrets"]
    )
    @every_loop
    async def test_its_text_shows_nowhere(
        self, where: str, raised: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        own = type("Own", (Revealing,), {"log": [], "where": where, "error": raised})
        account = Credentials(username="ann", password="c4n4ry", mechanisms=[own])
        async with server_of(b"one") as server:
            async with client_of(server, credentials=account) as client:
                with pytest.raises(AuthenticationUnavailable) as caught:
                    await client.send(mail(), deadline=5)
            asked_to_stop = [line.line for line in server.commands].count(b"*")
            assert server.connections.opened == 1
        assert asked_to_stop == (1 if where in ("challenge", "respond") else 0)
        assert f"X-PLAYED failed: {raised.__name__}" in str(caught.value)
        told = "".join(
            traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
        )
        assert "c4n4ry" not in told + caplog.text


class TestThreads:
    @every_loop
    async def test_a_key_is_derived_off_the_loop_and_in_few_threads(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import hashlib

        loop_thread = threading.current_thread()
        lock = threading.Lock()
        running: list[int] = []
        peaks: list[int] = []
        derive = hashlib.pbkdf2_hmac

        def watched(*args: Any) -> bytes:
            if threading.current_thread().name.startswith("AnyIO"):
                assert threading.current_thread() is not loop_thread
                with lock:
                    running.append(1)
                    peaks.append(len(running))
                try:
                    return derive(*args)
                finally:
                    with lock:
                        running.pop()
            return derive(*args)

        monkeypatch.setattr(hashlib, "pbkdf2_hmac", watched)
        async with speaking(users=USERS, mechanisms=SCRAM) as server:
            async with client_of(server, credentials=ANN) as client:
                receipts = await gathered(*(client.send(mail(n)) for n in range(10)))
        assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 10
        assert peaks and max(peaks) <= 4

    async def test_it_has_the_time_of_the_login(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import hashlib

        held = threading.Event()
        derive = hashlib.pbkdf2_hmac

        def slow(*args: Any) -> bytes:
            # The server derives in the main thread.
            if threading.current_thread() is not threading.main_thread():
                held.wait(10)
            return derive(*args)

        monkeypatch.setattr(hashlib, "pbkdf2_hmac", slow)
        try:
            async with speaking(users=USERS, mechanisms=SCRAM) as server:
                limits = impatient(5, auth=0.05)
                async with client_of(server, credentials=ANN, timeouts=limits) as client:
                    with pytest.raises(Timeout, match="SCRAM-SHA-512 took more than"):
                        await client.send(mail())
        finally:
            held.set()
