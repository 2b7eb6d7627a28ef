"""The queue and a real Postfix: refused, deferred then accepted, deferred until expiry; and real reports."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async import DSN, Message, Notify, Outcome, Recipient, Security, SMTPClient
from smtp_async.processor import ProcessorOptions, QueueProcessor, ReportOptions, RetryPolicy, parse_report
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import State
from tests.processor.fakes import ManualClock
from tests.servers import machine, postfix
from tests.servers.exim import Exim
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("no_leaks")]

ANN = "ann@lab.test"
HOUR = 3600.0
RESTRICTIONS = "smtpd_recipient_restrictions = check_recipient_access"


class DeferringPostfix:
    """A Postfix that defers mail for `later.test` until `say` changes that.

    Args:
        directory: holds the table of recipients; Postfix reads it for each new connection.
    """

    def __init__(self, directory: Path, pki: Pki) -> None:
        self.table = directory / "later"
        (directory / "main.cf").write_text("compatibility_level = 3.6\n")
        self.say("DEFER come back later")
        config = postfix.MAIN_CF.replace(
            RESTRICTIONS, f"{RESTRICTIONS} hash:{self.table}, check_recipient_access"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postfix, "MAIN_CF", config)
            self.server = Postfix.start(pki)

    def say(self, action: str) -> None:
        self.table.write_text(f"later.test {action}\n")
        command = [str(machine.program("postmap")), "-c", str(self.table.parent), f"hash:{self.table}"]
        subprocess.run(command, check=True, timeout=20)


@pytest.fixture(scope="module")
def deferring(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeferringPostfix]:
    found = DeferringPostfix(tmp_path_factory.mktemp("later"), pki)
    yield found
    found.server.stop()


def client_for(server: Any) -> SMTPClient:
    return SMTPClient(server.host, server.plain_port, security=Security.PLAINTEXT)


def message(to: str, subject: str) -> Message:
    return Message(sender=ANN, to=to, subject=subject, text="Hello")


async def test_jobs_are_refused_deferred_accepted_and_expire(
    deferring: DeferringPostfix, tmp_path: Path
) -> None:
    clock = ManualClock()
    began = clock()
    async with DirectorySpool(tmp_path / "spool", create=True) as spool:
        refused = await spool.put(message("bob@lab.test, nobody@reject.test", "refused"))
        later = await spool.put(message("cid@later.test", "later"))
        never = await spool.put(message("dan@defer.test", "never"), expires=clock() + 3.5 * HOUR)

        async def look() -> Any:
            # A new connection, because Postfix reads its tables anew for each.
            async with client_for(deferring.server) as client:
                queue = QueueProcessor(
                    spool,
                    client,
                    retry=RetryPolicy(first=HOUR, factor=1.0, jitter=False),
                    options=ProcessorOptions(bounce=ReportOptions(reporting="queue.test"), clock=clock),
                )
                return await queue.run_once()

        first = await look()
        assert [one.id for one in first.failed] == [refused]
        assert {one.id for one in first.deferred} == {later, never} and first.sent == ()
        entry = await spool.get(refused)
        assert entry.state is State.FAILED
        assert [result.outcome for result in entry.results if result] == [Outcome.ACCEPTED, Outcome.REFUSED]
        assert [(str(who.address), result.code) for who, result in entry.failed] == [
            ("nobody@reject.test", 554)
        ]
        assert {(await spool.get(id)).attempts for id in (later, never)} == {1}
        assert (await spool.get(later)).not_before == clock() + HOUR

        # Both jobs are not due yet; the report is.
        clock.move(HOUR / 2)
        second = await look()
        assert len(second.sent) == 1 and second.deferred == ()
        (report,) = [parse_report(one) for one in deferring.server.wait_for_message("multipart/report")]
        assert [(one.address, one.action, one.code) for one in report.recipients] == [
            ("nobody@reject.test", "failed", 554)
        ]
        assert report.reporting == "queue.test" and b"Subject: refused" in report.original

        deferring.say("OK")
        clock.move(HOUR / 2)
        third = await look()
        assert third.sent == (later,) and [one.id for one in third.deferred] == [never]

        # One attempt per hour, and the last one at the expiry.
        tries, last = [], third
        while not last.failed:
            clock.now = (await spool.get(never)).not_before
            tries.append(round((clock.now - began) / HOUR, 3))
            last = await look()
        assert tries == [2.0, 3.0, 3.5]
        assert [one.id for one in last.failed] == [never]
        entry = await spool.get(never)
        assert entry.state is State.FAILED and "in time" in entry.reason
        clock.move(1)
        assert len((await look()).sent) == 1
        reports = [
            parse_report(one) for one in deferring.server.wait_for_message("multipart/report", count=2)
        ]
        expired = next(one for one in reports if one.recipients[0].address == "dan@defer.test")
        assert expired.recipients[0].failed and str(expired.recipients[0].status).startswith("4.")
    states = sorted(
        path.name.partition(".")[2] for path in (tmp_path / "spool").rglob("*.*") if path.is_file()
    )
    assert states == ["failed", "failed"]
    # The accepted recipient got the message once.
    headers = [one.replace(b"\r\n", b"\n").partition(b"\n\n")[0] for one in deferring.server.messages()]
    assert sum(b"\nSubject: refused" in header for header in headers) == 1


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_report_of_a_real_server_is_parsed(name: str, request: pytest.FixtureRequest) -> None:
    """Postfix and Exim report a success on request, in the form of a delivery report."""
    server: Postfix | Exim = request.getfixturevalue(name)
    subject = f"reported {time.time_ns()}"
    recipient = Recipient("bob@lab.test", dsn=DSN(notify=Notify.SUCCESS, orcpt="robert@lab.test"))
    async with client_for(server) as client:
        receipt = await client.send(message("bob@lab.test", subject), recipients=[recipient])
    found = server.wait_for_message("multipart/report")
    report = parse_report(found[-1])
    (one,) = report.recipients
    assert (one.address, one.action, str(one.status)) == ("bob@lab.test", "delivered", "2.0.0")
    assert one.original == "robert@lab.test" and report.reporting == server.hostname
    assert report.message_id == receipt.message_id and report.text


async def test_a_message_goes_over_two_servers(postfix: Postfix, exim: Exim, tmp_path: Path) -> None:
    subject = f"routed {time.time_ns()}"
    async with (
        DirectorySpool(tmp_path / "spool", create=True) as spool,
        client_for(postfix) as by_postfix,
        client_for(exim) as by_exim,
    ):
        both = await spool.put(message("bob@lab.test, carol@lab.test, nobody@reject.test", f"{subject} both"))
        tagged = await spool.put(message("bob@lab.test", f"{subject} tagged"), tag="exim")

        def route(entry: Any, recipient: Any) -> SMTPClient:
            return by_exim if entry.tag == "exim" or recipient.address.local == "carol" else by_postfix

        report = await QueueProcessor(spool, routes=route).run_once()
        assert report.sent == (tagged,) and [one.id for one in report.failed] == [both]
        results = (await spool.get(both)).results
    assert [None if one is None else one.outcome for one in results] == [
        Outcome.ACCEPTED,
        Outcome.ACCEPTED,
        Outcome.REFUSED,
    ]
    assert len(postfix.wait_for_message(f"{subject} both")) == 1
    assert len(exim.wait_for_message(subject, count=2)) == 2
