"""pages.py: the files of the pages, in the tree and in the wheel, and how errors are answered."""

import re
import subprocess
import sys
import zipfile

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import smtp_async.web
from smtp_async.errors import SpoolError
from smtp_async.web.pages import ERRORS, number, page_routes
from tests.web.lab import ROOT, asking

FOLDER = ROOT / "smtp_async" / "web"
FILES = sorted(
    path.relative_to(FOLDER).as_posix() for path in (*FOLDER.glob("static/*"), *FOLDER.glob("templates/*"))
)


@pytest.mark.parametrize("template", ["catcher.html", "console.html"])
async def test_a_page_loads_only_what_is_served_with_it(template):
    async with asking(Starlette(routes=page_routes(template, name="<b>hostile</b>"))) as client:
        text = (await client.get("/")).text
        loaded = set(re.findall(r'(?:src|href)="([^"#]+)"', text)) - {"/"}
        assert loaded and all(one.startswith("/static/") for one in loaded)
        for one in loaded:
            assert (await client.get(one)).status_code == 200
        assert "<b>hostile" not in text and "<script>" not in text and "style=" not in text
        assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


@pytest.mark.parametrize("file", [one for one in FILES if one.endswith((".js", ".css", ".svg"))])
def test_nothing_comes_from_elsewhere(file):
    """No content delivery network, and no markup out of data."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert {one for one in addresses if "www.w3.org" not in one and one != r"https?:\/\/["} == set()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|@import", text)


async def _count(request):
    return JSONResponse(number(request, "limit", 50, 500))


async def _broken(request):
    raise SpoolError("the disk is gone")


@pytest.mark.parametrize(
    ("query", "answer"), [("", 50), ("?limit=7", 7), ("?limit=9999", 500), ("?limit=0", 0)]
)
async def test_numbers_have_a_bound(query, answer):
    async with asking(Starlette(routes=[Route("/", _count)], exception_handlers=ERRORS)) as client:
        assert (await client.get(f"/{query}")).json() == answer


@pytest.mark.parametrize("text", ["-1", "x", "", "1e3", "²", "1" * 5000])
async def test_what_is_no_number_is_refused(text):
    async with asking(Starlette(routes=[Route("/", _count)], exception_handlers=ERRORS)) as client:
        answer = await client.get("/", params={"limit": text})
        assert answer.status_code == 400 and "limit is a number" in answer.json()["error"]


async def test_errors_of_the_library_are_sentences():
    async with asking(Starlette(routes=[Route("/", _broken)], exception_handlers=ERRORS)) as client:
        answer = await client.get("/")
        assert answer.status_code == 409 and answer.json() == {"error": "the disk is gone"}


def test_the_package_says_which_extra_it_needs():
    assert "[web]" in (smtp_async.web.__doc__ or "")


@pytest.mark.timeout(120)
def test_the_wheel_has_the_files(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {f"smtp_async/web/{one}" for one in FILES} <= set(archive.namelist())
