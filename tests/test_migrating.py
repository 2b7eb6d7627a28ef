"""docs/migrating/: where the names of other libraries have gone is true, and the programs do what they say."""

import csv
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import smtp_async
from smtp_async import ClientOptions, Message, SMTPClient, Timeouts, errors
from smtp_async.testing import Action, ScriptedServer, close, reply, swallow

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "migrating"
COMPONENTS = ["ipworks", "secureblackbox", "sockettools"]
#: Pages whose tables are written by hand.
WRITTEN = ["smtplib", "aiosmtplib", "fastapi-mail", "django"]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINE = re.compile(r"^\| `([^`]+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
#: Names that stand in the tables beside the classes of the front door.
MEANT = {"attach": Message.attach, "send": SMTPClient.send, "smtp_async.send": smtp_async.send}


def text_of(page: str) -> str:
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def rows(system: str, *kinds: str) -> list[dict[str, str]]:
    with (ROOT / "docs" / "parity.csv").open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["id"].startswith(f"{system}.")]
    return [row for row in found if row["id"].split(".")[1] in kinds]


def place_of(page: str, section: str, member: str) -> str:
    """Return what the table of a section has in the place of a member."""
    _, _, text = text_of(page).partition(f"\n## {section}\n")
    (place,) = [place for name, place, _ in LINE.findall(text.partition("\n## ")[0]) if name == member]
    return str(place.strip("`"))


def programs(page: str) -> dict[str, Any]:
    """Return the functions that the programs of a page define."""
    names: dict[str, Any] = {}
    for source in BLOCK.findall(text_of(page)):
        if (
            re.search(r"^(async )?def ", source, re.MULTILINE)
            and "await client.send(message)  #" not in source
        ):
            exec(source, names)
    return names


# --- setting strings, flags, numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["ipworks", "secureblackbox"])
def test_a_setting_string_has_its_option(system: str) -> None:
    settings = {row["id"].split(".", 2)[2]: row for row in rows(system, "config")}
    assert {name for name, row in settings.items() if not row["python"] and row["status"] == "works"} == set()
    for name, row in settings.items():
        assert row["python"].endswith(place_of(system, "Setting strings", name).replace("—", ""))


@pytest.mark.parametrize("written", [str.lower, str.upper, str.capitalize])
@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_yes_or_no(word: str, written: Any) -> None:
    """The program of the page reads a file of settings."""
    options_of = programs("ipworks")["options_of"]
    options = options_of(
        f"[smtp]\nSendRSET = {written(word)}\nTcpNoDelay = {written(word)}\nHello = here.test\n"
    )
    assert isinstance(options, ClientOptions)
    assert options.send_rset is options.socket.nodelay is WORDS[word]
    assert (options.hello, options.send.require_to, options.timeouts.connect) == ("here.test", True, 30)


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="Not a boolean"):
        programs("ipworks")["options_of"]("[smtp]\nSendRSET = perhaps\n")


@pytest.mark.parametrize("row", rows("sockettools", "option"), ids=lambda row: row["id"])
def test_a_flag_has_its_option(row: dict[str, str]) -> None:
    assert row["python"] and row["python"].endswith(
        place_of("sockettools", "Option flags", row["id"].split(".", 2)[2])
    )


@pytest.mark.parametrize("row", rows("ipworks", "error"), ids=lambda row: row["id"])
def test_a_number_has_its_exception(row: dict[str, str]) -> None:
    member = row["id"].split(".", 2)[2]
    number = int(member.rpartition(".")[2])
    place = place_of("ipworks", "Error numbers", member)
    if row["status"] == "works":
        assert issubclass(getattr(errors, place.removeprefix("errors.")), errors.BY_NUMBER[number])


@pytest.mark.parametrize(
    ("steps", "number"),
    [
        ([close()], 1120),
        ([swallow()], 201),
        ([reply(554, "5.7.1 no")], 161),
        ([], 0),
    ],
    ids=["closed", "silent", "refused", "accepted"],
)
async def test_the_number_of_send_is_that_of_the_cause(steps: list[Action], number: int) -> None:
    options = ClientOptions(timeouts=Timeouts(data=0.2))
    message = Message(sender="ann@example.com", to="bob@example.org", text="Hi")
    async with ScriptedServer() as server, SMTPClient.from_url(server.url, options=options) as client:
        if steps:
            server.on("DATA", *steps)
        assert await programs("ipworks")["number_of_send"](client, message) == number


# --- names in the tables that are written by hand -----------------------------------------------------------


def calls(code: str) -> list[tuple[Any, list[str]]]:
    """Return the things of this library that a piece of code calls, each with the names of its arguments."""
    found = []
    for name, arguments in re.findall(r"(?:\b|^)((?:smtp_async\.)?\w+)\(([^()]*)\)?", code):
        thing = MEANT.get(name) or (getattr(smtp_async, name) if name in smtp_async.__all__ else None)
        if thing is not None:
            found.append((thing, re.findall(r"(\w+)=", arguments)))
    return found


@pytest.mark.parametrize("page", WRITTEN)
def test_the_names_of_ours_are_there(page: str) -> None:
    """The second column of a table holds names of this library: exceptions, classes and their arguments."""
    seen = 0
    cells = re.findall(r"^\| .*? \| (.*) \|$", text_of(page), re.MULTILINE)
    for code in [code for cell in cells for code in CODE.findall(cell)]:
        for name in re.findall(r"errors\.(\w+)", code):
            assert name in errors.__all__
            seen += 1
        for thing, arguments in calls(code):
            known = set(inspect.signature(thing).parameters)
            if thing is Message:
                known |= set(Message.__slots__) | {"charset"}
            assert set(arguments) <= known, code
            seen += 1
    assert seen >= 5


@pytest.mark.parametrize("page", [*COMPONENTS, *WRITTEN])
def test_a_page_is_in_the_list(page: str) -> None:
    assert f"({page}.md)" in text_of("README")
