"""Cancelling, anywhere and in every manner: the client stays whole, and other callers' mail is not touched.

Two ways to hit a moment. `cancellations` of the test kit cancels a call at its n-th await, once or until it is done
(as anyio does under Starlette). A caller of `send` awaits only a few times while its connection does many things, so
`interrupted` cancels after n turns of the event loop, for all n until the call ends before.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from smtp_async import (
    Credentials,
    NotSent,
    Outcome,
    OutcomeUnknown,
    PoolLimits,
    Receipt,
    Security,
    SendOptions,
    SMTPClient,
    SMTPError,
    Timeouts,
)
from smtp_async.errors import NotConnected
from smtp_async.events import Event
from smtp_async.testing import (
    CancelManner,
    CancelMoment,
    ScriptedServer,
    cancellations,
    delay,
    reply,
    run_cancelled_at,
)
from tests.lab import (
    PATIENCE,
    client_of,
    demand_nothing_left,
    every_loop,
    gathered,
    mail,
    other_tasks,
    sockets,
    speaking,
    tls_server,
    trusting,
    turns,
)
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")

MANNERS = pytest.mark.parametrize("manner", CancelManner)
MOMENTS = pytest.mark.parametrize("moment", CancelMoment)
LARGE = "0123456789 0123456789\n" * 10_000

Call = Callable[[SMTPClient], Awaitable[Any]]


def copies(server: ScriptedServer) -> Counter[str]:
    """How often each message arrived; every one of them must be for its own recipient only."""
    for message in server.messages:
        assert message.rcpt_tos == [f"user{message.subject.split()[-1]}@example.org"]
    return Counter(message.subject.split()[-1] for message in server.messages)


async def demand_whole(client: SMTPClient, server: ScriptedServer) -> None:
    """After message A was cancelled, message B on the same client arrives once, and A at most once."""
    async with asyncio.timeout(PATIENCE):
        receipt = await client.send(mail("B"))
    assert receipt.outcome is Outcome.ACCEPTED
    arrived = copies(server)
    assert arrived["B"] == 1
    assert arrived["A"] <= 1
    statistics = client.statistics()
    assert (statistics.waiting, statistics.opening) == (0, 0)


async def interrupted(call: Callable[[], Awaitable[Any]]) -> AsyncIterator[tuple[int, BaseException | None]]:
    """Run a call again and again, cancelled after 0, 1, 2 … turns of the loop; the last run is not."""

    async def run() -> Any:
        return await call()

    for turn in range(10_000):
        task = asyncio.create_task(run())
        for _ in range(turn):
            if task.done():
                break
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE)
        assert task.done(), f"it hangs when it is cancelled after {turn} turns"
        yield turn, asyncio.CancelledError() if task.cancelled() else task.exception()
        if ended:
            return


class Stage:
    """A server and a client that are made anew for every run of a scenario."""

    def __init__(self, make: Callable[[], ScriptedServer], connect: Callable[[ScriptedServer], SMTPClient]):
        self._make = make
        self._connect = connect
        self.server: ScriptedServer
        self.client: SMTPClient

    async def __aenter__(self) -> "Stage":
        self._before = other_tasks(), sockets()
        self.server = await self._make().__aenter__()
        self.client = self._connect(self.server)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.client.close()
        await self.server.wait_for_disconnect()
        assert self.server.violations == []
        await self.server.stop()
        await demand_nothing_left(*self._before)


async def cancelled_everywhere(
    stage: Stage, call: Call, after: Call, *, manner: CancelManner, moment: CancelMoment
) -> int:
    """Cancel `call` at its n-th await, on a fresh client each, for all n; then do `after`. Returns the last n."""
    runs = cancellations(lambda: _whole(stage, call), manner=manner, moment=moment)
    count = 0
    async with stage:
        async for run in runs:
            count = run.at
            if not run.injected and run.error is not None:
                raise run.error
            await after(stage.client)
            await stage.__aexit__()
            await stage.__aenter__()
    return count


async def _whole(stage: Stage, call: Call) -> Any:
    return await call(stage.client)


# --- send ----------------------------------------------------------------------------------------------------


async def pause() -> None:
    await asyncio.sleep(0)


SENDS: dict[str, Call] = {
    "small": lambda client: client.send(mail("A")),
    "large": lambda client: client.send(mail("A", text=LARGE)),
    "gated": lambda client: client.send(mail("A"), options=SendOptions(before_end_of_data=pause)),
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("what", SENDS)
@MANNERS
@MOMENTS
@every_loop
async def test_send_cancelled_at_any_await(
    what: str, warm: bool, manner: CancelManner, moment: CancelMoment
) -> None:
    stage = Stage(ScriptedServer, lambda server: client_of(server, pool=PoolLimits(max_connections=1)))

    async def call(client: SMTPClient) -> None:
        await SENDS[what](client)

    async def after(client: SMTPClient) -> None:
        await demand_whole(client, stage.server)

    if warm:
        inner = stage.__aenter__

        async def warmed() -> Stage:
            await inner()
            await stage.client.send(mail("0"))
            return stage

        stage.__aenter__ = warmed  # type: ignore[method-assign]
    assert await cancelled_everywhere(stage, call, after, manner=manner, moment=moment) > 1


@pytest.mark.parametrize("what", SENDS)
@every_loop
async def test_send_cancelled_after_any_turn_of_the_loop(what: str) -> None:
    """Cold: while the pool dials, greets, and the message is on its way."""
    stage = Stage(ScriptedServer, lambda server: client_of(server, pool=PoolLimits(max_connections=1)))
    endings: Counter[type] = Counter()
    async with stage:
        async for _, error in interrupted(lambda: SENDS[what](stage.client)):
            endings[type(error)] += 1
            await demand_whole(stage.client, stage.server)
            await stage.__aexit__()
            await stage.__aenter__()
    assert set(endings) == {asyncio.CancelledError, type(None)}
    assert endings[asyncio.CancelledError] > 5


@pytest.mark.parametrize("what", SENDS)
@every_loop
async def test_send_cancelled_between_others_on_one_connection(what: str) -> None:
    """C and D share the connection with A, before and behind it: both arrive, once."""
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        await client.send(mail("0"))
        rounds = 0

        async def three() -> None:
            nonlocal rounds
            rounds += 1
            others = [asyncio.create_task(client.send(mail(f"C{rounds}")))]
            await asyncio.sleep(0)
            a = asyncio.ensure_future(SENDS[what](client))
            await asyncio.sleep(0)
            others.append(asyncio.create_task(client.send(mail(f"D{rounds}"))))
            try:
                await a
            finally:
                self_cancelled.append(others)

        self_cancelled: list[list[asyncio.Task[Any]]] = []
        async for _ in interrupted(three):
            for others in self_cancelled:
                assert [one.outcome for one in await gathered(*others)] == [Outcome.ACCEPTED] * 2
            self_cancelled.clear()
        await client.send(mail("B"))
        arrived = copies(server)
        assert rounds > 5
        delivered = {name: arrived[name] for name in arrived if name[0] in "CD"}
        assert set(delivered.values()) == {1}
        assert arrived["B"] == 1
        assert arrived["A"] <= rounds


@pytest.mark.parametrize("what", SENDS)
async def test_a_cancelled_send_tells_what_became_of_its_message(what: str) -> None:
    """Its CancelledError has a receipt, and what is said not to be sent does not arrive."""
    stage = Stage(ScriptedServer, lambda server: client_of(server, pool=PoolLimits(max_connections=1)))
    told: list[Outcome] = []
    outcomes: Counter[Outcome] = Counter()
    async with stage:

        async def send() -> None:
            try:
                await SENDS[what](stage.client)
            except asyncio.CancelledError as error:
                told.append(vars(error)["receipt"].outcome)
                raise

        async for _, error in interrupted(send):
            await demand_whole(stage.client, stage.server)
            if isinstance(error, asyncio.CancelledError) and told:
                (outcome,) = told
                outcomes[outcome] += 1
                arrived = copies(stage.server)["A"]
                assert arrived == 0 or outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED)
                assert arrived == 1 or outcome is not Outcome.ACCEPTED
            told.clear()
            await stage.__aexit__()
            await stage.__aenter__()
    assert outcomes[Outcome.NOT_SENT]


async def test_cancelling_a_written_message_lets_it_run_to_its_end() -> None:
    gate = asyncio.Event()

    async def send(client: SMTPClient) -> Receipt:
        try:
            return await client.send(mail("A"))
        except asyncio.CancelledError as error:
            receipt: Receipt = vars(error)["receipt"]
            return receipt

    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        server.on(".", delay(gate), reply(250, "2.0.0 Ok"), nth=1)
        a = asyncio.create_task(send(client))
        await server.wait_until(lambda: "." in server.verbs())
        a.cancel()
        assert (await a).outcome is Outcome.UNKNOWN
        b = asyncio.create_task(client.send(mail("B")))
        await turns()
        gate.set()
        await b
        assert server.connections.opened == 1
        assert copies(server) == {"A": 1, "B": 1}


async def test_cancelling_a_large_message_in_its_body_ends_only_its_connection() -> None:
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
        gate = asyncio.Event()
        rule = server.on("BODY", delay(gate), after=50_000)
        a = asyncio.create_task(client.send(mail("A", text=LARGE * 100)))
        await server.wait_fired(rule)
        a.cancel()
        await asyncio.wait({a})
        gate.set()
        assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
        assert copies(server) == {"B": 1}


# --- many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@every_loop
async def test_of_300_callers_a_random_third_is_cancelled(seed: int) -> None:
    chance = random.Random(seed)
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=4)) as client:
        tasks = {
            str(n): asyncio.create_task(client.send(mail(n, text=LARGE if n % 50 == 0 else "Hi")))
            for n in range(300)
        }
        victims = chance.sample(sorted(tasks), 100)
        for victim in victims:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            tasks[victim].cancel()
        results = dict(zip(tasks, await gathered(*tasks.values()), strict=True))
        await client.send(mail("B"))
        arrived = copies(server)
        cancelled = {name for name, result in results.items() if isinstance(result, asyncio.CancelledError)}
        assert cancelled <= set(victims)
        for name, result in results.items():
            if name in cancelled:
                assert arrived[name] <= 1
            else:
                assert result.outcome is Outcome.ACCEPTED
                assert arrived[name] == 1
        assert len(cancelled) > 10
        statistics = client.statistics()
        assert (statistics.waiting, statistics.opening, statistics.unknown) == (0, 0, 0)
        assert statistics.open <= 4


async def test_deadlines_and_cancels_together_leave_the_client_whole() -> None:
    chance = random.Random(7)
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=3)) as client:
        # Warm, so that a deadline meets every stage of a message and not the dial alone.
        await client.send(mail("0"))
        tasks = {
            str(n): asyncio.create_task(client.send(mail(n), deadline=chance.choice([0.001, 0.005, 0.02, 5])))
            for n in range(1, 200)
        }
        for victim in chance.sample(sorted(tasks), 50):
            await asyncio.sleep(0)
            tasks[victim].cancel()
        results = dict(zip(tasks, await gathered(*tasks.values()), strict=True))
        await client.send(mail("B"))
        arrived = copies(server)
        for name, result in results.items():
            if isinstance(result, NotSent):
                assert arrived[name] == 0
            elif isinstance(result, OutcomeUnknown | asyncio.CancelledError):
                assert arrived[name] <= 1
            else:
                assert result.outcome is Outcome.ACCEPTED
                assert arrived[name] == 1
        assert arrived["B"] == 1


# --- session, check, close -----------------------------------------------------------------------------------

KEY = Credentials(username="ann", password="secret", allow_cleartext=True)


async def whole_session(client: SMTPClient) -> None:
    async with client.session() as session:
        await session.connect()
        await session.verify("ann")
        await session.expand("staff")
        await session.login(KEY)
        await session.command("NOOP x")
        await session.send(mail("A"))
        await session.reset()
        await session.send(mail("X", text=LARGE))
        await session.noop()
        await session.quit()


async def report(client: SMTPClient) -> None:
    await client.check()


async def question(client: SMTPClient) -> None:
    await client.verify("ann")


@pytest.mark.parametrize("call", [whole_session, report, question])
@MANNERS
@MOMENTS
@every_loop
async def test_session_check_and_verify_cancelled_at_any_await(
    call: Call, manner: CancelManner, moment: CancelMoment
) -> None:
    stage = Stage(
        lambda: ScriptedServer(users={"ann": "secret"}, lists={"staff": ["ann@example.com"]}),
        lambda server: client_of(server, pool=PoolLimits(max_connections=1)),
    )

    async def after(client: SMTPClient) -> None:
        await demand_whole(client, stage.server)

    assert await cancelled_everywhere(stage, call, after, manner=manner, moment=moment) > 3


@pytest.mark.parametrize("call", [whole_session, report])
@every_loop
async def test_session_and_check_cancelled_after_any_turn_of_the_loop(call: Call) -> None:
    stage = Stage(
        lambda: ScriptedServer(users={"ann": "secret"}, lists={"staff": ["ann@example.com"]}),
        lambda server: client_of(server, pool=PoolLimits(max_connections=1)),
    )
    async with stage:
        async for _, error in interrupted(lambda: call(stage.client)):
            assert error is None or isinstance(error, asyncio.CancelledError)
            await demand_whole(stage.client, stage.server)
            await stage.__aexit__()
            await stage.__aenter__()


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT])
async def test_connecting_over_tls_with_login_cancelled_after_any_turn(pki: Pki, security: Security) -> None:
    stage = Stage(
        lambda: tls_server(pki, users={"ann": "secret"}, implicit_tls=security is Security.IMPLICIT),
        lambda server: client_of(
            server,
            host="localhost",
            security=security,
            tls=trusting(pki),
            username="ann",
            password="secret",
            pool=PoolLimits(max_connections=1),
        ),
    )

    async def connect() -> None:
        async with stage.client.session() as session:
            await session.connect()

    async with stage:
        async for turn, error in interrupted(connect):
            assert error is None or isinstance(error, asyncio.CancelledError)
            # The whole scenario on every third turn: a handshake costs a millisecond or two.
            if turn % 3 == 0:
                await demand_whole(stage.client, stage.server)
            await stage.__aexit__()
            await stage.__aenter__()


async def test_connecting_while_hooks_are_told_cancelled_after_any_turn() -> None:
    """Hooks are awaited before the dial, too."""

    async def hook(event: Event) -> None:
        await asyncio.sleep(0)

    def watched(server: ScriptedServer) -> SMTPClient:
        client = client_of(server, pool=PoolLimits(max_connections=1))
        client.on(Event, hook)
        return client

    stage = Stage(ScriptedServer, watched)

    async def connect() -> None:
        async with stage.client.session() as session:
            await session.connect()

    async with stage:
        async for _, error in interrupted(connect):
            assert error is None or isinstance(error, asyncio.CancelledError)
            await demand_whole(stage.client, stage.server)
            await stage.__aexit__()
            await stage.__aenter__()


@MANNERS
@MOMENTS
@pytest.mark.parametrize("state", ["idle", "busy", "opening"])
@every_loop
async def test_close_cancelled_at_any_await_closes_nevertheless(
    state: str, manner: CancelManner, moment: CancelMoment
) -> None:
    limits = {"pool": PoolLimits(max_connections=2), "timeouts": Timeouts(close=0.05, quit=1)}
    stage = Stage(ScriptedServer, lambda server: client_of(server, **limits))
    sending: list[asyncio.Task[Any]] = []
    closing: list[SMTPClient] = []

    async def call(client: SMTPClient) -> None:
        if state == "idle":
            await client.send(mail("A"))
        else:
            rule = stage.server.on("." if state == "busy" else "GREETING", delay(asyncio.Event()))
            sending.append(asyncio.create_task(client.send(mail("A"))))
            await stage.server.wait_fired(rule)
        closing.append(client)
        await client.close()

    async def after(client: SMTPClient) -> None:
        if client not in closing:
            return await _end(sending)
        (result, *_) = [*await gathered(*sending), None]
        sending.clear()
        assert result is None or isinstance(result, SMTPError)
        await stage.server.wait_for_disconnect()
        with pytest.raises(NotConnected):
            await client.send(mail("B"))

    async def _end(tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await gathered(*tasks)
        sending.clear()

    assert await cancelled_everywhere(stage, call, after, manner=manner, moment=moment) > 1


@every_loop
async def test_a_caller_that_goes_away_leaves_the_dial_to_the_pool() -> None:
    gate = asyncio.Event()
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        rule = server.on("GREETING", delay(gate), reply(220, "hello"))
        a = asyncio.create_task(client.send(mail("A")))
        await server.wait_fired(rule)
        a.cancel()
        await asyncio.wait({a})
        assert (client.statistics().waiting, client.statistics().not_sent) == (0, 1)
        b = asyncio.create_task(client.send(mail("B")))
        gate.set()
        await b
        assert server.connections.opened == 1
        assert copies(server) == {"B": 1}


@MANNERS
@MOMENTS
async def test_waiting_for_a_session_can_be_cancelled(manner: CancelManner, moment: CancelMoment) -> None:
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:

        async def second() -> None:
            async with client.session():
                pass

        async with client.session():
            waiting = asyncio.create_task(run_cancelled_at(1, second, manner=manner, moment=moment))
            await turns()
        assert (await waiting).cancelled
        async with client.session() as third:
            await third.connect()
        await client.send(mail("B"))
        assert copies(server) == {"B": 1}
