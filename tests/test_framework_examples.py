"""examples/frameworks/: each application sends mail, as its framework's own test client sees it."""

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from smtp_async.testing import RecordingSink, ServerThread, reply

EXAMPLES = Path(__file__).parents[1] / "examples" / "frameworks"
BOB = "bob@example.org"


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with ServerThread(RecordingSink()) as server:
        monkeypatch.setenv("SMTP_URL", server.url)
        yield server
        assert server.violations == []


def load(name: str) -> ModuleType:
    """Import an example anew, as its framework does; some look for their own module by its name."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {name: module}):
        spec.loader.exec_module(module)
    return module


def demand_welcome(sink: Any, count: int = 1) -> None:
    assert [(one.subject, one.rcpt_tos) for one in sink.messages] == [("Welcome", [BOB])] * count


def refuse(sink: Any, code: int) -> None:
    sink.on("RCPT", reply(code, f"{code // 100}.1.1 no"), match="eve")


def test_each_is_in_the_list() -> None:
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f"(frameworks/{path.name})" not in text] == []


@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")
def test_fastapi(sink: Any) -> None:
    from fastapi.testclient import TestClient

    with TestClient(load("fastapi_app").app) as client:
        assert client.post("/register", params={"address": BOB}).json() == {"outcome": "accepted"}
        demand_welcome(sink)
        refuse(sink, 550)
        for address in ("eve@example.org", "not an address"):
            assert client.post("/register", params={"address": address}).status_code == 400
    assert sink.commands[-1].verb == "QUIT"


def test_litestar(sink: Any) -> None:
    from litestar.testing import TestClient

    with TestClient(load("litestar_app").app) as client:
        answer = client.post("/register", params={"address": BOB})
        assert answer.json() == {"outcome": "accepted"}
        demand_welcome(sink)
        refuse(sink, 451)
        assert client.post("/register", params={"address": "eve@example.org"}).status_code == 503
        assert client.post("/register", params={"address": "not an address"}).status_code == 400
    assert sink.commands[-1].verb == "QUIT"


async def test_aiohttp(sink: Any) -> None:
    from aiohttp.test_utils import TestClient, TestServer

    async with TestClient(TestServer(load("aiohttp_app").make_app())) as client:
        async with client.post("/register", params={"address": BOB}) as answer:
            assert await answer.json() == {"outcome": "accepted"}
        demand_welcome(sink)
        refuse(sink, 550)
        for address in ("eve@example.org", "not an address"):
            async with client.post("/register", params={"address": address}) as answer:
                assert answer.status == 400
    assert sink.commands[-1].verb == "QUIT"


async def test_quart(sink: Any) -> None:
    app = load("quart_app").app
    async with app.test_app() as running:
        client = running.test_client()
        answer = await client.post("/register", query_string={"address": BOB})
        assert await answer.get_json() == {"outcome": "accepted"}
        demand_welcome(sink)
        refuse(sink, 451)
        answer = await client.post("/register", query_string={"address": "eve@example.org"})
        assert answer.status_code == 503
        answer = await client.post("/register", query_string={"address": "not an address"})
        assert answer.status_code == 400
    assert sink.commands[-1].verb == "QUIT"


def test_celery(sink: Any) -> None:
    tasks = load("celery_tasks")
    from celery.exceptions import Retry

    try:
        assert tasks.welcome.apply((BOB,)).get() == "accepted"
        tasks.app.conf.task_always_eager = True
        assert tasks.welcome.delay(BOB).get() == "accepted"
        demand_welcome(sink, 2)
        refuse(sink, 451)
        with mock.patch.object(tasks.welcome, "retry", side_effect=Retry("later")) as retry:
            tasks.welcome.apply(("eve@example.org",))
        assert retry.call_args.kwargs["countdown"] == 60
    finally:
        tasks.mail.close()


async def test_taskiq(sink: Any) -> None:
    tasks = load("taskiq_tasks")
    await tasks.broker.startup()
    try:
        task = await tasks.welcome.kiq(BOB)
        assert (await task.wait_result(timeout=10)).return_value == "accepted"
    finally:
        await tasks.broker.shutdown()
    demand_welcome(sink)
    assert sink.commands[-1].verb == "QUIT"


async def test_arq(sink: Any) -> None:
    """Its worker needs Redis; here its functions are called as the worker calls them."""
    from arq import Retry
    from arq.worker import create_worker, func

    settings = load("arq_tasks").WorkerSettings
    assert [func(one).name for one in settings.functions] == ["welcome"] and create_worker is not None
    (welcome,) = settings.functions
    ctx: dict[str, Any] = {"job_try": 1}
    await settings.on_startup(ctx)
    try:
        assert await welcome(ctx, BOB) == "accepted"
        demand_welcome(sink)
        refuse(sink, 451)
        with pytest.raises(Retry):
            await welcome(ctx, "eve@example.org")
    finally:
        await settings.on_shutdown(ctx)
    assert sink.commands[-1].verb == "QUIT"


def test_django(sink: Any) -> None:
    """In a process of its own, because Django has one set of settings for each."""
    program = """
import django_site
from django.test import Client, AsyncClient
import asyncio
print(Client().get("/register", {"address": "bob@example.org"}).json())
print(asyncio.run(AsyncClient().get("/register-async", {"address": "bob@example.org"})).json())
"""

    async def run() -> str:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            stdout=asyncio.subprocess.PIPE,
            env={
                "PYTHONPATH": f"{EXAMPLES}:{EXAMPLES.parents[1]}",
                "EMAIL_HOST": sink.host,
                "EMAIL_PORT": str(sink.port),
            },
        )
        out, _ = await child.communicate()
        return out.decode()

    assert asyncio.run(run()) == "{'sent': 1}\n{'sent': 1}\n"
    demand_welcome(sink, 2)
