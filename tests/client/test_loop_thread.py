"""loop_thread.py: an event loop for callers in other threads, and its ends."""

import asyncio
import contextvars
import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from smtp_async import Outcome, Receipt, Recipient, SMTPClient, SMTPError, Verdict
from smtp_async.client.loop_thread import LoopThread
from smtp_async.errors import NotConnected, NotSent, OutcomeUnknown, SocketError, UsageError
from smtp_async.testing import RecordingSink, ServerThread, stall
from tests.lab import PATIENCE, client_of, mail


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    one = LoopThread("test loop")
    yield one
    one.close()


async def name_of_thread() -> str:
    return threading.current_thread().name


def test_the_first_call_starts_it(thread: LoopThread) -> None:
    assert not thread.running
    assert thread.serving().run(name_of_thread()) == "test loop"
    assert thread.running and thread.serving() is thread.serving()


def test_an_error_reaches_the_caller(thread: LoopThread) -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        thread.serving().run(fail())


def test_a_call_has_the_context_of_its_caller(thread: LoopThread) -> None:
    variable = contextvars.ContextVar("variable", default="")
    variable.set("caller's")

    async def value() -> str:
        return variable.get()

    assert thread.serving().run(value()) == "caller's"


def test_a_loop_that_cannot_be_made_is_an_error(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.events, "new_event_loop", full)
        with pytest.raises(SocketError, match="no event loop can be made: Too many open files") as caught:
            thread.serving()
        assert caught.value.errno == errno.EMFILE and not thread.running
    assert thread.serving().run(name_of_thread()) == "test loop"


def test_a_call_from_the_loop_itself_is_refused(thread: LoopThread) -> None:
    """It would wait for itself."""

    async def again() -> None:
        thread.serving().run(name_of_thread())

    with pytest.raises(UsageError, match="cannot wait for that client"):
        thread.serving().run(again())


def test_after_its_end_calls_are_refused(thread: LoopThread) -> None:
    serving = thread.serving()
    thread.close()
    assert thread.closed and not serving.thread.is_alive()
    for call in (thread.serving, lambda: serving.run(name_of_thread())):
        with pytest.raises(NotConnected, match="make a new one"):
            call()


def test_an_end_waits_for_calls_that_are_about_to_return() -> None:
    """Their outcomes are known, and must not be lost."""
    thread = LoopThread("test loop")
    entered, answers = threading.Event(), []

    async def call() -> str:
        entered.set()
        for _ in range(50):
            await asyncio.sleep(0)
        return "answer"

    caller = threading.Thread(target=lambda: answers.append(thread.serving().run(call())))
    caller.start()
    entered.wait(PATIENCE)
    thread.close()
    caller.join(PATIENCE)
    assert answers == ["answer"]


def test_a_call_that_never_ends_is_cancelled_by_the_end() -> None:
    thread = LoopThread("test loop")
    entered, errors = threading.Event(), []

    async def call() -> None:
        entered.set()
        await asyncio.get_running_loop().create_future()

    def wait() -> None:
        try:
            thread.serving().run(call())
        except NotConnected as error:
            errors.append(error)

    caller = threading.Thread(target=wait)
    caller.start()
    entered.wait(PATIENCE)
    thread.close()
    caller.join(PATIENCE)
    assert [str(error) for error in errors] == ["the client was closed"]


def test_a_call_that_is_withdrawn_by_the_end_tells_what_became_of_its_message() -> None:
    thread = LoopThread("test loop")
    outcomes = [Outcome.UNKNOWN, Outcome.NOT_SENT, Outcome.ACCEPTED]
    entered = threading.Barrier(len(outcomes) + 1)

    async def call(receipt: Receipt) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as cancelled:
            # As `SMTPClient.send` does.
            vars(cancelled)["receipt"] = receipt
            raise

    def wait(outcome: Outcome) -> SMTPError:
        error = OutcomeUnknown("no reply") if outcome is Outcome.UNKNOWN else None
        receipt = Receipt((Verdict(Recipient("bob@example.org"), outcome),), error=error)
        serving = thread.serving()
        future = serving.submit(call(receipt))
        entered.wait(PATIENCE)
        with pytest.raises(SMTPError) as caught:
            future.result(PATIENCE)
        assert caught.value.receipt is receipt
        return caught.value

    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(wait, outcome) for outcome in outcomes]
        entered.wait(PATIENCE)
        thread.close()
        errors = [one.result(PATIENCE) for one in waiting]
    assert [type(error) for error in errors] == [OutcomeUnknown, NotSent, NotConnected]


def test_nothing_is_kept_any_more_while_clients_are_being_closed(thread: LoopThread) -> None:
    serving = thread.serving()
    refused: list[str] = []

    class Late:
        async def close(self) -> None:
            for key in ("late", "first"):
                with pytest.raises(NotConnected, match="make a new one"):
                    serving.keep(key, Late)
                refused.append(key)

    serving.keep("first", Late)
    serving.keep("second", Late)
    thread.close()
    assert refused == ["late", "first"] * 2


def test_clients_are_kept_by_key_and_closed_at_the_end(thread: LoopThread) -> None:
    with ServerThread(RecordingSink()) as sink:
        serving = thread.serving()
        made: list[SMTPClient] = []

        def make() -> SMTPClient:
            made.append(client_of(sink))
            return made[-1]

        client = serving.keep("a", make)
        assert serving.keep("a", make) is client and serving.keep("b", make) is not client
        serving.run(client.send(mail()))
        thread.close()
        assert len(made) == 2 and all("closed" in repr(one) for one in made)
        assert sink.commands[-1].verb == "QUIT"


#: Sends a message and ends without closing its client. Nothing but the exit itself limits the wait for QUIT.
FORGETFUL = """
import sys
from smtp_async import BlockingClient, ClientOptions, Message, Timeouts
options = ClientOptions(timeouts=Timeouts(quit=60, close=60))
client = BlockingClient.from_url(sys.argv[1], options=options)
client.send(Message(sender="ann@example.com", to="bob@example.org", subject="Last", text="Hi"))
"""
#: Seconds for a whole process on a loaded machine.
PROCESS = 18


def test_the_exit_of_the_interpreter_says_quit() -> None:
    with ServerThread(RecordingSink()) as sink:
        subprocess.run([sys.executable, "-c", FORGETFUL, sink.url], check=True, timeout=PROCESS)
        assert sink.commands[-1].verb == "QUIT"
        assert sink.messages[0].subject == "Last"


def test_the_exit_of_the_interpreter_does_not_wait_for_a_silent_server() -> None:
    with ServerThread(RecordingSink()) as sink:
        sink.on("QUIT", stall())
        subprocess.run([sys.executable, "-c", FORGETFUL, sink.url], check=True, timeout=PROCESS)
