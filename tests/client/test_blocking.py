"""blocking.py: a client for all threads of a program, and one message from a script."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from smtp_async import (
    BlockingClient,
    ClientOptions,
    Message,
    NotSent,
    Outcome,
    PoolLimits,
    Raw,
    RecipientsRefused,
    Security,
    SendOptions,
    SMTPError,
    Timeouts,
    send_blocking,
)
from smtp_async.errors import (
    Interrupted,
    InvalidArgument,
    MissingHost,
    MissingSender,
    NotConnected,
    UsageError,
)
from smtp_async.testing import RecordingSink, ServerThread, Step, close, reply, stall
from tests.lab import PATIENCE, SENDER, mail


@pytest.fixture
def sink() -> Iterator[Any]:
    with ServerThread(RecordingSink()) as server:
        yield server
        assert server.violations == []


def blocking(sink: Any, **options: Any) -> BlockingClient:
    options.setdefault("hello", "client.test")
    return BlockingClient(sink.host, sink.port, security=Security.PLAINTEXT, options=ClientOptions(**options))


class TestMaking:
    def test_the_arguments_are_those_of_the_client(self) -> None:
        client = BlockingClient("mx.test", username="ann", password="canary", options=ClientOptions())
        assert (client.host, client.port, client.security) == ("mx.test", 587, Security.STARTTLS)
        assert client.options == ClientOptions()
        assert repr(client) == "<BlockingClient mx.test:587 starttls: not used yet>"
        assert "canary" not in repr(vars(client))

    def test_from_url(self) -> None:
        client = BlockingClient.from_url("smtps://ann:canary@mx.test")
        assert (client.host, client.port, client.security) == ("mx.test", 465, Security.IMPLICIT)
        with pytest.raises(InvalidArgument) as caught:
            BlockingClient.from_url("http://ann:canary@mx.test")
        assert "canary" not in str(caught.value)

    def test_for_provider(self) -> None:
        client = BlockingClient.for_provider("gmail", username="ann@gmail.com", password="x")
        assert (client.host, client.port) == ("smtp.gmail.com", 587)
        with pytest.raises(InvalidArgument, match="did you mean gmail"):
            BlockingClient.for_provider("gmial")

    def test_for_domain(self) -> None:
        client = BlockingClient.for_domain("example.org")
        assert (client.host, client.port, client.security) == ("example.org", 25, Security.OPPORTUNISTIC)

    def test_wrong_arguments_are_refused_at_once(self) -> None:
        with pytest.raises(MissingHost):
            BlockingClient("")
        with pytest.raises(InvalidArgument, match="belongs together"):
            BlockingClient("mx.test", username="ann")
        with pytest.raises(TypeError):
            BlockingClient()  # type: ignore[call-arg]
        gc.collect()


class TestSending:
    def test_messages_share_a_connection(self, sink: Any) -> None:
        with blocking(sink) as client:
            for n in range(3):
                assert client.send(mail(n)).outcome is Outcome.ACCEPTED
            assert client.statistics().sent == 3
        assert [message.subject for message in sink.messages] == [f"message {n}" for n in range(3)]
        assert [command.verb for command in sink.commands].count("EHLO") == 1
        assert sink.commands[-1].verb == "QUIT"

    def test_any_number_of_threads(self, sink: Any) -> None:
        pool = PoolLimits(max_connections=3)
        with blocking(sink, pool=pool) as client, ThreadPoolExecutor(20) as threads:
            receipts = list(threads.map(lambda n: client.send(mail(n)), range(100)))
        assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
        assert {message.subject for message in sink.messages} == {f"message {n}" for n in range(100)}
        assert [command.verb for command in sink.commands].count("EHLO") <= 3

    def test_the_envelope_and_the_options(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"), match="eve")
        with blocking(sink) as client:
            receipt = client.send(
                mail(1),
                sender="bounces@example.com",
                recipients=["eve@example.org", "bob@example.org"],
                options=SendOptions(must_accept=frozenset()),
            )
        assert receipt.outcome is Outcome.PARTIAL
        assert (sink.messages[0].mail_from, sink.messages[0].rcpt_tos) == (
            "bounces@example.com",
            ["bob@example.org"],
        )

    def test_a_complete_message(self, sink: Any, tmp_path: Path) -> None:
        file = tmp_path / "message.eml"
        file.write_bytes(b"Subject: complete\r\n\r\nHello\r\n")
        with blocking(sink) as client:
            client.send_raw(file, sender=SENDER, recipients=["bob@example.org"])
        assert sink.messages[0].subject == "complete"

    def test_errors_and_receipts_are_those_of_the_client(self, sink: Any) -> None:
        sink.on("RCPT", reply(550, "5.1.1 no such user"))
        with blocking(sink) as client:
            with pytest.raises(RecipientsRefused) as caught:
                client.send(mail())
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.REFUSED
            with pytest.raises(MissingSender):
                client.send(Message(to="bob@example.org", text="x"))

    def test_a_deadline(self, sink: Any) -> None:
        sink.on("MAIL", stall())
        with blocking(sink, timeouts=Timeouts(close=0.1)) as client, pytest.raises(NotSent, match="deadline"):
            client.send(mail(), deadline=0.1)

    def test_a_check(self, sink: Any) -> None:
        with blocking(sink) as client:
            assert client.check().ok

    @pytest.mark.skipif(os.name != "posix", reason="the signal of a terminal")
    def test_an_interrupted_call_is_withdrawn(self, sink: Any) -> None:
        sink.on("MAIL", stall(), nth=1)
        program = """
import sys
from smtp_async import BlockingClient, ClientOptions, Message, Timeouts
message = Message(sender="ann@example.com", to="bob@example.org", subject="Hello", text="Hi")
options = ClientOptions(timeouts=Timeouts(close=0.1))
with BlockingClient.from_url(sys.argv[1], options=options) as client:
    try:
        client.send(message)
    except KeyboardInterrupt:
        print("withdrawn")
"""
        with subprocess.Popen(
            [sys.executable, "-c", program, sink.url], stdout=subprocess.PIPE, text=True
        ) as child:
            patience = threading.Event()
            while not any(command.verb == "MAIL" for command in sink.commands):
                patience.wait(0.01)
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate()
        assert out == "withdrawn\n" and sink.messages == []


class TestSendAll:
    def test_receipts_come_as_messages_end(self, sink: Any) -> None:
        with blocking(sink) as client:
            found = {
                message.subject: receipt.outcome for message, receipt in client.send_all(map(mail, range(50)))
            }
        assert found == {f"message {n}": Outcome.ACCEPTED for n in range(50)}
        assert len(sink.messages) == 50

    def test_the_input_is_pulled_in_the_callers_thread_and_not_far_ahead(self, sink: Any) -> None:
        pulled: list[int] = []

        def endless() -> Iterator[Message]:
            while True:
                pulled.append(threading.get_ident())
                yield mail(len(pulled))

        with blocking(sink, pool=PoolLimits(max_connections=2)) as client:
            ended = 0
            for _ in client.send_all(endless()):
                ended += 1
                # Twice what two connections carry, and the one that is asked for.
                assert len(pulled) <= ended + 8 + 1
                if ended == 30:
                    break
            assert client.send(mail("last")).outcome is Outcome.ACCEPTED
        assert set(pulled) == {threading.get_ident()}

    def test_a_message_that_cannot_be_sent_is_a_receipt(self, sink: Any) -> None:
        messages = [mail(1), Message(to="bob@example.org", text="x"), Raw(b"", SENDER, ["bob@example.org"])]
        with blocking(sink) as client:
            outcomes = {id(message): receipt for message, receipt in client.send_all(messages)}
        assert isinstance(outcomes[id(messages[1])].error, MissingSender)
        assert outcomes[id(messages[0])].outcome is Outcome.ACCEPTED

    def test_no_message_at_all(self, sink: Any) -> None:
        with blocking(sink) as client:
            assert list(client.send_all([])) == []

    def test_what_the_input_raises_comes_after_the_receipts(self, sink: Any) -> None:
        def broken() -> Iterator[Message]:
            yield mail(1)
            raise KeyError("no more")

        found = []
        with blocking(sink) as client, pytest.raises(KeyError, match="no more"):
            for message, receipt in client.send_all(broken()):
                found.append((message.subject, receipt.outcome))
        assert found == [("message 1", Outcome.ACCEPTED)]

    def test_no_connection(self) -> None:
        with BlockingClient.from_url("smtp+plain://127.0.0.1:1") as client:
            found = []
            with pytest.raises(SMTPError, match="127.0.0.1"):
                for _, receipt in client.send_all([mail(1), mail(2)]):
                    found.append(receipt.outcome)
            assert set(found) == {Outcome.NOT_SENT}

    def test_closing_in_the_middle_ends_it(self, sink: Any) -> None:
        client = blocking(sink)
        receipts = client.send_all(mail(n) for n in range(1_000))
        next(receipts)
        client.close()
        with pytest.raises(SMTPError, match="the client (was|is) closed"):
            for _ in receipts:
                pass

    def test_the_end_is_told_before_the_result(self, sink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        # As between the two, when the future is not done yet.
        monkeypatch.setattr(Future, "cancelled", lambda future: False)
        # The end of the loop cancels some of them; others end before.
        for _ in range(20):
            client = blocking(sink)
            receipts = client.send_all(mail(n) for n in range(1_000))
            next(receipts)
            client.close()
            with pytest.raises(SMTPError, match="the client (was|is) closed"):
                for _ in receipts:
                    pass

    def test_the_iterator_keeps_its_client(self, sink: Any) -> None:
        receipts = blocking(sink).send_all(map(mail, range(5)))
        gc.collect()
        with pytest.warns(ResourceWarning, match="not closed: <BlockingClient 127.0.0.1"):
            # The end of the iterator is that of the client.
            outcomes = [receipt.outcome for _, receipt in receipts]
            gc.collect()
        assert outcomes == [Outcome.ACCEPTED] * 5


class TestBelonging:
    async def test_a_running_event_loop_is_refused(self) -> None:
        """The first mistake of those who come to asyncio: a blocking call in a coroutine."""
        client = BlockingClient("127.0.0.1", 1, security=Security.PLAINTEXT)
        calls: list[Callable[[], object]] = [
            lambda: client.send(mail()),
            lambda: client.send_raw(b""),
            lambda: client.send_all([]),
            client.check,
            client.statistics,
            client.__enter__,
        ]
        for call in calls:
            with pytest.raises(UsageError, match="would stop the running event loop: await SMTPClient"):
                call()

    async def test_a_thread_beside_an_event_loop_may_use_it(self, sink: Any) -> None:
        client = blocking(sink)
        assert (await asyncio.to_thread(client.send, mail())).outcome is Outcome.ACCEPTED
        client.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    @pytest.mark.parametrize("used", [False, True])
    def test_a_forked_child_has_connections_of_its_own(self, used: bool, sink: Any) -> None:
        client = blocking(sink)
        if used:
            client.send(mail(1))
        child = os.fork()
        if child == 0:  # pragma: no cover
            status = 1
            try:
                client.send(mail(2))
                client.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        client.send(mail(3))
        client.close()
        assert [message.subject for message in sink.messages] == ["message 1"] * used + [
            "message 2",
            "message 3",
        ]
        assert [command.verb for command in sink.commands].count("EHLO") == 2
        assert [command.verb for command in sink.commands].count("QUIT") == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_child_that_is_forked_while_another_thread_sends(self, sink: Any) -> None:
        client, done = blocking(sink), threading.Event()

        def work() -> None:
            while not done.is_set():
                client.send(mail())

        worker = threading.Thread(target=work)
        worker.start()
        try:
            for _ in range(2):
                child = os.fork()
                if child == 0:  # pragma: no cover
                    status = 1
                    try:
                        client.send(mail("child"))
                        client.close()
                        status = 0
                    finally:
                        os._exit(status)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            done.set()
            worker.join()
            client.close()
        assert [message.subject for message in sink.messages].count("message child") == 2


class TestClosing:
    @pytest.mark.parametrize("used", [False, True])
    def test_a_closed_client_sends_no_more(self, used: bool, sink: Any) -> None:
        client = blocking(sink)
        if used:
            client.send(mail())
        client.close()
        client.close()
        assert "closed" in repr(client)
        calls: list[Callable[[], object]] = [
            lambda: client.send(mail()),
            lambda: client.send_all([]),
            client.__enter__,
        ]
        for call in calls:
            with pytest.raises(NotConnected, match="the client is closed: make a new one"):
                call()

    def test_running_messages_end_and_waiting_ones_fail(self, sink: Any) -> None:
        reached, gate = threading.Event(), threading.Event()

        async def hold(step: Step) -> None:
            reached.set()
            await asyncio.to_thread(gate.wait, PATIENCE)
            step.default()

        sink.on(".", hold, nth=1)
        client = blocking(sink, pool=PoolLimits(max_connections=1))
        with ThreadPoolExecutor(11) as threads:
            sendings = [threads.submit(client.send, mail(n)) for n in range(10)]
            reached.wait(PATIENCE)
            closing = threads.submit(client.close)
            # Those that wait fail before the one under way has ended.
            wait(sendings, PATIENCE, FIRST_COMPLETED)
            gate.set()
            closing.result(PATIENCE)
            errors = [sending.exception(PATIENCE) for sending in sendings]
        assert errors.count(None) == len(sink.messages) >= 1
        for error in errors:
            assert error is None or isinstance(error, Interrupted | NotConnected)

    def test_one_that_is_not_closed_gives_a_warning_and_is_closed(self, sink: Any) -> None:
        client = blocking(sink)
        client.send(mail())
        threads = {thread for thread in threading.enumerate() if thread.name == "smtp_async client"}
        with pytest.warns(ResourceWarning, match="not closed: <BlockingClient 127.0.0.1"):
            del client
            gc.collect()
        for thread in threads:
            thread.join(PATIENCE)
        assert sink.commands[-1].verb == "QUIT"

    def test_a_connection_that_the_server_closed_is_replaced(self, sink: Any) -> None:
        sink.on("DATA", close(), nth=1)
        with blocking(sink) as client:
            assert client.send(mail()).outcome is Outcome.ACCEPTED


def test_a_script_sends_one_message() -> None:
    with ServerThread(RecordingSink()) as sink:
        receipt = send_blocking(mail(), url=sink.url, options=ClientOptions(hello="script.test"))
        assert receipt.outcome is Outcome.ACCEPTED
        assert [m.subject for m in sink.messages] == ["message 1"]
        assert sink.commands[-1].verb == "QUIT"


async def test_send_blocking_refuses_inside_a_running_loop() -> None:
    with pytest.raises(UsageError, match="await smtp_async.send"):
        send_blocking(mail(), url="smtp+plain://localhost")


def test_send_blocking_raises_what_a_client_raises() -> None:
    with pytest.raises(SMTPError) as caught:
        send_blocking(mail(), url="smtp+plain://127.0.0.1:1")
    assert caught.value.__context__ is None
    assert caught.value.receipt is not None
    assert caught.value.receipt.outcome is Outcome.NOT_SENT
