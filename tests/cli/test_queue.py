"""`smtp-async queue`: what is put in, what is shown, what is changed, and the exit codes."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from smtp_async import Receipt, Recipient, Reply, Verdict
from smtp_async.cli.app import app
from smtp_async.cli.exits import Exit
from smtp_async.model.receipt import Outcome
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import State

PEOPLE = "--from ann@example.com --to bob@example.org"
RAW = b"From: ann@example.com\nTo: bob@example.org\nBcc: eve@example.org\nSubject: Raw\n\nAs it is\n"


@pytest.fixture
def spool(tmp_path):
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def run(shell, spool):
    """`smtp-async queue …` on the spool."""

    def run(line, *words, **more):
        return shell(f"queue {line}", *words, "--spool", spool, **more)

    return run


def inside(path, use):
    """Do something in the spool by way of the library."""

    async def do():
        async with DirectorySpool(path) as spool:
            return await use(spool)

    return asyncio.run(do())


def ended(path, *outcomes, end="fail"):
    """End the one job that is due with a result for each recipient."""

    async def do(spool):
        (lease,) = await spool.claim(1)
        verdicts = [
            Verdict(one, outcome, Reply(250 if outcome is Outcome.ACCEPTED else 550, (b"5.1.1 x \x1b[2J",)))
            for one, outcome in zip(lease.entry.pending, outcomes, strict=True)
        ]
        receipt = Receipt(tuple(verdicts))
        await (lease.fail(receipt, reason="550 no") if end == "fail" else lease.settle(receipt, keep=True))

    inside(path, do)


def fields(done):
    return [line.split("\t") for line in done.stdout.splitlines()]


# --- add -----------------------------------------------------------------------------------------------------


def test_add_prints_the_id(run, spool, tmp_path):
    (tmp_path / "data.csv").write_bytes(b"a,b\n")
    done = run(f"add {PEOPLE} --cc cid@example.org --subject Héllo --text Hi --attach", tmp_path / "data.csv")
    assert done.exit_code == 0 and done.stderr == ""
    id = done.stdout.strip()
    entry = inside(spool, lambda spool: spool.get(id))
    assert entry.state is State.QUEUED and str(entry.envelope.sender) == "ann@example.com"
    assert [str(one.address) for one in entry.envelope.recipients] == ["bob@example.org", "cid@example.org"]
    assert b'filename="data.csv"' in inside(spool, lambda spool: spool.read(id)).replace(
        b"=data.csv", b'="data.csv"'
    )


def test_add_creates_the_directory_if_wanted(shell, tmp_path):
    line = f"queue add {PEOPLE} --text Hi --spool {tmp_path}/new"
    done = shell(line)
    assert done.exit_code == Exit.USAGE and done.stderr.startswith("smtp-async: There is no spool directory")
    assert shell(f"{line} --create").exit_code == 0
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_add_takes_complete_messages(run, spool, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(RAW)
    done = run("add", tmp_path / "one", tmp_path / "two")
    first, second = done.stdout.split()
    assert first != second
    assert run("add", stdin=RAW.decode()).exit_code == 0
    assert (
        run("add -", "--from", "me@example.com", "--to", "x@example.org", stdin=RAW.decode()).exit_code == 0
    )
    rows = fields(run("ls"))
    assert [(row[6], row[7]) for row in rows] == [
        *[("ann@example.com", "bob@example.org,eve@example.org")] * 3,
        ("me@example.com", "x@example.org"),
    ]
    for row in rows:
        stored = inside(spool, lambda spool, id=row[0]: spool.read(id))
        assert stored == b"From: ann@example.com\r\nTo: bob@example.org\r\nSubject: Raw\r\n\r\nAs it is\r\n"


def test_add_reads_the_text_from_a_pipe(run, spool):
    id = run(f"add {PEOPLE}", stdin="From a pipe\n").stdout.strip()
    assert inside(spool, lambda spool: spool.read(id)).endswith(b"\r\n\r\nFrom a pipe\r\n")


def test_the_same_key_is_the_same_job(run, spool):
    ids = {run(f"add {PEOPLE} --text Hi --key invoice-7").stdout for _ in range(3)}
    assert len(ids) == 1 and len(fields(run("ls"))) == 1


def test_a_key_stays_known_after_its_message_is_sent(run, spool):
    (id,) = {run(f"add {PEOPLE} --text Hi --key invoice-7").stdout.strip()}
    inside(spool, lambda queue: queue.remove(id))
    assert run(f"add {PEOPLE} --text Hi --key invoice-7").stdout.strip() == id
    assert run("ls").stdout == ""


def test_a_job_of_a_later_version_is_logged_and_not_shown(run, spool):
    newer, other = (run(f"add {PEOPLE} --text Hi").stdout.strip() for _ in range(2))
    file = spool / f"{newer}.queued"
    file.write_bytes(file.read_bytes().replace(b"SPOOL1", b"SPOOL2", 1))
    done = run("ls")
    assert [row[0] for row in fields(done)] == [other]
    assert done.stderr.count(newer) == 1 and "version is 2" in done.stderr
    done = run("rm", newer)
    assert done.exit_code == 5 and "version is 2" in done.stderr and file.exists()


def test_not_before_and_expires_are_kept(run, spool):
    id = run(f"add {PEOPLE} --text Hi --not-before 2h --expires 2099-01-01T00:00Z").stdout.strip()
    known = json.loads(run("show --json", id).stdout)
    assert known["expires"] == "2099-01-01T00:00:00Z" and known["not_before"] > known["created"]
    assert inside(spool, lambda spool: spool.claim(1)) == []


def test_the_spool_may_be_set_in_the_environment(shell, spool):
    done = shell(f"queue add {PEOPLE} --text Hi", env={"SMTP_ASYNC_SPOOL": str(spool)})
    assert done.exit_code == 0 and len(list(spool.glob("*.queued"))) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("add no-such-file", "No such file"),
        ("add / ", "Is a directory"),
        ("add x --subject y", "sent as it is"),
        ("add x y --key z", "a key is for one job"),
        ("add --from ann@example.com --text Hi", "has no recipient"),
        ("add --to ann@example.com --text Hi", "has no sender"),
        (f"add {PEOPLE} --text Hi --not-before soon", "is not a time"),
        (f"add {PEOPLE} --text Hi --expires 1999-01-01", "is over already"),
        (f"add {PEOPLE} --text Hi --attach no-such-file", "No such file"),
        (f"add {PEOPLE} --text Hi --key ''", "a key is a string"),
        ("show ../../etc/passwd", "not a valid job id"),
        ("show 0-0", "no job 0-0"),
        ("show 0-0 --json --raw", "only one of"),
        ("requeue 0-0 --not-before x", "is not a time"),
        ("ls --state lost", "lost"),
        ("ls --limit 0", "limit"),
    ],
)
def test_invalid_options_are_refused(run, line, words):
    done = run(line)
    assert done.exit_code == Exit.USAGE and words.lower() in done.stderr.lower() and done.stdout == ""


def test_an_empty_pipe_is_refused(run):
    assert run("add", stdin="").exit_code == Exit.USAGE


def test_add_without_a_message_on_a_terminal_is_refused(run, monkeypatch):
    monkeypatch.setattr("smtp_async.cli.queue.sys", SimpleNamespace(stdin=None))
    done = run("add")
    assert done.exit_code == Exit.USAGE and "There is no message" in done.stderr


# --- ls, show, stats -----------------------------------------------------------------------------------------


def test_ls_lists_jobs_by_state(run, spool):
    failed = run(f"add {PEOPLE} --text Hi").stdout.strip()
    ended(spool, Outcome.REFUSED)
    sent = run(f"add {PEOPLE} --text Hi").stdout.strip()
    ended(spool, Outcome.ACCEPTED, end="settle")
    queued, held = (run(f"add {PEOPLE} --text Hi").stdout.strip() for _ in range(2))
    run("hold", held)
    states = {row[0]: row[1] for row in fields(run("ls"))}
    assert states == {failed: "failed", sent: "sent", queued: "queued", held: "held"}
    assert list(states) == [failed, sent, queued, held]
    for state, ids in {"failed": [failed], "sent": [sent], "queued": [queued, held], "held": [held]}.items():
        assert [row[0] for row in fields(run(f"ls --state {state}"))] == ids
    assert run("ls --state sending").stdout == ""
    assert [row[0] for row in fields(run("ls --limit 2"))] == [failed, sent]
    assert [json.loads(line)["id"] for line in run("ls --json").stdout.splitlines()] == list(states)
    assert fields(run("stats"))[:5] == [
        ["queued", "2"],
        ["sending", "0"],
        ["sent", "1"],
        ["failed", "1"],
        ["held", "1"],
    ]
    assert json.loads(run("stats --json").stdout)["failed"] == 1


def test_stats_tells_the_changes_and_who_holds_leases(run, spool):
    for _ in range(3):
        run(f"add {PEOPLE} --text Hi")

    async def while_one_is_sent(queue):
        await queue.claim()
        plain = await asyncio.to_thread(run, "stats --rates 0.1")
        return plain, await asyncio.to_thread(run, "stats --rates 0.1 --json")

    plain, as_json = inside(spool, while_one_is_sent)
    found = json.loads(as_json.stdout)
    name = f"{socket.gethostname()}:{os.getpid()}"
    assert found["holders"] == [{"name": name, "leases": 1, "left": None}]
    assert (found["rates"]["queued"], found["rates"]["sending"], found["empty_in"]) == (0.0, 0.0, None)
    assert ["holder", name, "1", "-"] in fields(plain) and ["queued/s", "0.0"] in fields(plain)
    assert json.loads(run("stats --json").stdout)["holders"] == []


def test_an_empty_spool_is_shown_as_such(run):
    assert run("ls").stdout == "" and run("ls --json").stdout == ""
    assert ["oldest", "-"] in fields(run("stats")) and json.loads(run("stats --json").stdout)[
        "oldest"
    ] is None


def test_show_prints_a_job(run, spool):
    id = run(f"add {PEOPLE},cid@example.org --text", "Hi\x1b[2J\tthere").stdout.strip()
    shown = run("show", id).stdout
    assert f"Job: {id}\nState: queued\n" in shown and "pending\tcid@example.org\t-\t-\n" in shown
    ended(spool, Outcome.REFUSED, Outcome.ACCEPTED)
    done = run("show --message", id)
    assert "State: failed\nWhy: 550 no\n" in done.stdout
    refused, accepted = (row for row in fields(done) if row[0] in ("refused", "accepted"))
    assert refused[1] == "bob@example.org" and refused[3] == "550 5.1.1 x \\x1b[2J"
    assert accepted[1] == "cid@example.org"
    assert "Hi\\x1b[2J\tthere" in done.stdout and "\x1b" not in done.output
    known = json.loads(run("show --json", id).stdout)
    assert [one["outcome"] for one in known["recipients"]] == ["refused", "accepted"]
    assert known["recipients"][0]["code"] == 550 and known["reason"] == "550 no"


def test_show_raw_prints_the_octets_unchanged(run, spool):
    id = run("add", stdin=RAW.decode()).stdout.strip()
    stored = inside(spool, lambda spool: spool.read(id))
    assert run("show --raw", id).stdout_bytes == stored


# --- hold, release, requeue, rm ------------------------------------------------------------------------------


def test_hold_release_requeue_and_rm_change_jobs(run, spool):
    id = run(f"add {PEOPLE} --text Hi").stdout.strip()
    assert run("hold", id).stdout == f"held\t{id}\n"
    assert inside(spool, lambda spool: spool.claim(1)) == []
    assert run("release", id).stdout == f"released\t{id}\n"
    ended(spool, Outcome.REFUSED)
    assert run("hold", id).exit_code == Exit.USAGE
    assert run("requeue --not-before 1h --expires 2h", id).stdout == f"requeued\t{id}\n"
    assert fields(run("ls"))[0][1] == "queued" and inside(spool, lambda spool: spool.claim(1)) == []
    assert run("rm", id).stdout == f"removed\t{id}\n"
    assert run("ls").stdout == ""


def test_an_error_of_one_job_does_not_stop_the_others(run):
    first, second = (run(f"add {PEOPLE} --text Hi").stdout.strip() for _ in range(2))
    done = run("rm", first, "0-0", second)
    assert done.exit_code == Exit.USAGE and done.stdout == f"removed\t{first}\nremoved\t{second}\n"
    assert done.stderr == "smtp-async: There is no job 0-0.\n"


def test_a_delivered_job_cannot_be_requeued(run, spool):
    id = run(f"add {PEOPLE} --text Hi").stdout.strip()
    ended(spool, Outcome.ACCEPTED, end="settle")
    done = run("requeue", id)
    assert done.exit_code == Exit.USAGE and "very recipient of the job" in done.stderr


def test_a_job_being_sent_cannot_be_changed(run, spool):
    id = run(f"add {PEOPLE} --text Hi").stdout.strip()

    async def meanwhile(spool):
        assert len(await spool.claim(1)) == 1
        return await asyncio.to_thread(run, "rm", id)

    done = inside(spool, meanwhile)
    assert done.exit_code == Exit.NOT_SENT and "is being sent" in done.stderr


# --- what is wrong with the spool ----------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["ls", "stats", "show 0-0", "rm 0-0", f"add {PEOPLE} --text Hi"])
def test_a_spool_that_others_may_write_to_is_refused(run, spool, line):
    spool.chmod(0o777)
    done = run(line)
    assert done.exit_code == Exit.SETUP and done.stderr.startswith(
        "smtp-async: Other users may write to the spool"
    )
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_a_damaged_job_is_reported(run, spool):
    id = run(f"add {PEOPLE} --text Hi").stdout.strip()
    (spool / f"{id}.queued").write_bytes(b"SPOOL9 nonsense\n")
    done = run("show", id)
    assert done.exit_code == Exit.SETUP and done.stderr.count("\n") == 1
    assert run("ls").stdout == ""


def test_a_file_in_place_of_the_directory_is_refused(shell, tmp_path):
    (tmp_path / "file").touch()
    done = shell(f"queue ls --spool {tmp_path}/file")
    assert done.exit_code == Exit.USAGE and "There is no spool directory" in done.stderr


# --- on a terminal -------------------------------------------------------------------------------------------


def test_details_that_wrap_stay_below_their_beginning(run, spool, terminal):
    people = ",".join(f"{letter * 48}@example.org" for letter in "abc")
    run(f"add {PEOPLE.rpartition(' ')[0]} {people} --text Hi")
    _, first, *details = run("ls").stdout.splitlines()
    assert "queued" in first and len(details) >= 2
    assert [line for line in details if not line.startswith("   ")] == []


def test_a_terminal_gets_tables(run, spool, terminal):
    done = run(f"add {PEOPLE} --to c@x.test,d@x.test,e@x.test --text Hi")
    assert done.stdout.startswith("✓ Queued as ")
    id = done.stdout.split()[-1]
    ended(spool, *[Outcome.REFUSED] * 4)
    listed = run("ls").stdout
    assert id in listed and "failed" in listed and "550 no" in listed
    assert "ann@example.com → bob@example.org, c@x.test, d@x.test and 1 more" in listed
    shown = run("show", id).stdout
    assert "Recipient" in shown and "5.1.1 x \\x1b[2J" in shown and "\x1b[2J" not in shown
    assert run("show --raw", id).stdout.rstrip().endswith("Hi")
    assert run("requeue", id).stdout == f"✓ Requeued: {id}\n"
    assert "Due in" in run("ls").stdout and "1" in run("stats").stdout
    run(f"add {PEOPLE} --text Hi")
    assert "There are more; --limit 10 shows more." in run("ls --limit 1").stdout
    assert run("ls --state sent").stdout == "No job.\n"


# --- the real thing ------------------------------------------------------------------------------------------


def test_a_broken_pipe_ends_ls(spool):
    async def fill(spool):
        for _ in range(50):
            await spool.put(RAW, recipients=[Recipient("x" * 60 + "@example.org")] * 60)

    inside(spool, fill)
    program = [sys.executable, "-m", "smtp_async", "queue", "ls", "--spool", str(spool)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 1 and b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_every_option_is_in_the_reference():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    front: Any = typer.main.get_command(app)
    commands = front.commands["queue"].commands
    assert [name for name in commands if f"queue {name}" not in text] == []
    options = {
        option
        for command in commands.values()
        for one in command.params
        for option in one.opts
        if option[:2] == "--"
    }
    assert [option for option in options if option not in text] == []


def test_no_temporary_file_is_left_behind(run, spool):
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for line in ("ls", "stats", "show 0-0"):
        run(line)
    after = set(os.listdir("/proc/self/fd")) if before else set()
    assert len(after) <= len(before)
