"""console.py: the queue console as a command, with its own process and beside a processor."""

import asyncio
import json
import urllib.error
import urllib.request

import pytest

from smtp_async.cli.exits import Exit
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.postgres.spool import PostgresSpool
from tests.cli.test_catch import Running, ask
from tests.spool.postgres.databases import new_schema

RAW = b"From: ann@example.com\nTo: bob@example.org\nSubject: x\n\nHi\n"


@pytest.fixture
def spool(tmp_path):
    path = tmp_path / "spool"

    async def put():
        async with DirectorySpool(path, create=True, durable=False) as spool:
            return await spool.put(RAW)

    return path, asyncio.run(put())


def url_of(running):
    return running.process.stderr.readline().split()[-1]


def change(url, action, id):
    body = json.dumps({"action": action, "ids": [id]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}api/changes", body), timeout=10) as answer:
        return json.load(answer)


def refused(request):
    """The status of a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        request()
    # The error is an open answer.
    caught.value.close()
    return caught.value.code


@pytest.mark.timeout(60)
def test_a_queue_on_a_page(spool):
    path, id = spool
    with Running("queue", "web", path, "--web", 0) as running:
        url = url_of(running)
        assert [one["id"] for one in ask(url, "api/jobs")["jobs"]] == [id]
        assert refused(lambda: change(url, "remove", id)) == 403
        assert running.stop() == (0, "")


@pytest.mark.server
@pytest.mark.timeout(60)
def test_a_queue_in_a_database_on_a_page(postgres):
    schema = new_schema()

    async def fill():
        async with PostgresSpool(postgres.url(), schema=schema) as spool:
            await spool.create_schema()
            return await spool.put(RAW)

    id = asyncio.run(fill())
    with Running(
        "queue", "web", f"{postgres.url()}?schema={schema}", "--web", 0, "--allow-changes"
    ) as running:
        url = url_of(running)
        assert [one["id"] for one in ask(url, "api/jobs")["jobs"]] == [id]
        assert change(url, "hold", id)["done"] == [id]
        assert ask(url, f"api/jobs/{id}")["state"] == "held"
        assert running.stop()[0] == 0


@pytest.mark.timeout(60)
def test_changes_are_allowed_by_name(spool):
    path, id = spool
    with Running(
        "queue", "web", "--web", 0, "--allow-changes", env={"SMTP_ASYNC_SPOOL": str(path)}
    ) as running:
        url = url_of(running)
        assert change(url, "hold", id)["done"] == [id]
        assert ask(url, f"api/jobs/{id}")["state"] == "held"


@pytest.mark.timeout(60)
def test_a_processor_shows_what_it_does(spool, serve):
    path, _ = spool
    server = serve()
    with Running("process", "--spool", path, "--server", server.url, "--web", 0) as running:
        url = url_of(running)
        assert running.words()[0] == "sent"
        told = ask(url, "api/status")
        assert told["processor"]["sent"] == 1 and told["recent"][0]["what"] == "sent"
        assert told["changes_allowed"] is False
        code, _ = running.stop()
        assert code == Exit.OK


@pytest.mark.timeout(60)
def test_others_need_the_token(spool, tmp_path):
    path, _ = spool
    (tmp_path / "token").write_text("mine\n")
    words = ("--web-host", "0.0.0.0", "--web-token-file", tmp_path / "token")
    with Running("queue", "web", path, "--web", 0, *words) as running:
        url = url_of(running)
        assert url.endswith("/?token=mine")
        here = f"http://127.0.0.1:{url.partition('/?')[0].rpartition(':')[2]}/api/jobs"
        assert refused(lambda: urllib.request.urlopen(here, timeout=10)) == 401
        asked = urllib.request.Request(here, headers={"Authorization": "Bearer mine"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert json.load(answer)["found"] == 1


def test_what_is_no_spool(shell, tmp_path):
    done = shell(f"queue web {tmp_path / 'none'} --web 0")
    assert done.exit_code != Exit.OK and "none" in done.stderr


def test_a_port_that_is_taken(shell, serve, spool):
    server = serve()
    done = shell(f"queue web {spool[0]} --web {server.port}")
    assert done.exit_code == Exit.USAGE and "address already in use" in done.stderr
