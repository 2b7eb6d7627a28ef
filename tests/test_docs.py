"""The manual says what is so: its programs run, its drawings are of today, every public name is in it."""

import ast
import asyncio
import importlib.util
import inspect
import itertools
import json
import re
import shlex
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
import typer
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import smtp_async
from smtp_async import (
    NOBODY,
    ClientOptions,
    Credentials,
    Message,
    Outcome,
    Secret,
    Security,
    SendOptions,
    SMTPClient,
    TLSOptions,
    TrustOptions,
    errors,
    events,
    oauth,
    testing,
)
from smtp_async.cli.app import app
from smtp_async.cli.exits import Exit
from smtp_async.connection import dial_route
from smtp_async.oauth import GOOGLE
from smtp_async.oauth.token_file import TokenFile, write_token_file
from smtp_async.testing import RecordingSink, ServerThread, mechanisms
from smtp_async.transport.dial import dial
from tests.auth.servers import xoauth2
from tests.lab import logging_restored
from tests.manual_files import write_files
from tests.oauth.server import AuthorizationServer
from tests.spool.postgres.databases import execute, new_spool, schema_of
from tests.test_parity import names_in

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
#: A program, and the mark above it: `run`, `drawn: name`, `run by tests/…` or `not run: why`.
BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(*, marked):
    """The Python programs of the manual, each with a name for the test's report."""
    for page in PAGES:
        for number, (mark, source) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1):
            if mark == "run" or not marked:
                yield pytest.param(source, id=f"{name_of(page)}-{number}")


def compiled(source):
    return compile(source, "<manual>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


# --- programs ------------------------------------------------------------------------------------------------


HOSTS = ("smtp.example.com", "smtp.gmail.com", "smtp.office365.com")
LOGIN_HOSTS = ("oauth2.googleapis.com", "login.microsoftonline.com")


@pytest.fixture
def certificate(monkeypatch, tmp_path):
    """The certificate of all servers of the manual's examples, which this process believes."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*HOSTS, *LOGIN_HOSTS).configure_cert(context)
    return context


@pytest.fixture
def internet(monkeypatch, certificate):
    """Every mail server of the manual's examples, by port: sinks."""
    # For a login by OAuth the password is the token.
    login: dict[str, Any] = {
        "users": {"ann": "secret", "ann@example.com": "access-1"},
        "mechanisms": {**mechanisms.STANDARD, "XOAUTH2": xoauth2()},
    }
    kinds: dict[int, dict[str, Any]] = {
        587: {"ssl_context": certificate, **login},
        465: {"ssl_context": certificate, **login, "implicit_tls": True},
        1025: {},
    }
    with ExitStack() as stack:
        sinks = {
            port: stack.enter_context(ServerThread(RecordingSink(**kind))) for port, kind in kinds.items()
        }

        async def dial_a_sink(host, port, **options):
            there = sinks.get(port)
            return await (dial(there.host, there.port, **options) if there else dial(host, port, **options))

        monkeypatch.setattr(dial_route, "dial", dial_a_sink)
        yield sinks
        assert [wrong for sink in sinks.values() for wrong in sink.violations] == []


@pytest.mark.parametrize("source", list(blocks(marked=False)))
def test_it_is_python(source):
    compiled(source)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_it_says_why_a_program_is_not_run(page):
    """A program is run here, or is drawn from one that a test runs, or a test runs it, or the page says why not."""
    for mark, source in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert mark == "run" or mark.startswith(("drawn: ", "run by ", "not run: ")), source
        if mark.startswith("run by "):
            test = ROOT / mark.removeprefix("run by ")
            assert name_of(page) in test.read_text(encoding="utf-8")


@pytest.fixture
def login_servers(certificate, pki, monkeypatch, tmp_path):
    """The authorization servers of the manual's examples, played by one, and the files that the examples read."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with AuthorizationServer(pki, context=certificate) as server:
        connect_tcp = anyio.connect_tcp

        async def connect(remote_host, remote_port, **options):
            assert remote_host in LOGIN_HOSTS and remote_port == 443
            return await connect_tcp("127.0.0.1", server.port, **options)

        monkeypatch.setattr(anyio, "connect_tcp", connect)
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        found = {"type": "service_account", "client_email": "robot@example.com", "private_key": key.decode()}
        found |= {"token_uri": GOOGLE.token}
        (tmp_path / "service-account.json").write_text(json.dumps(found))
        stored = TokenFile(
            provider="google",
            token_endpoint=GOOGLE.token,
            client_id="123.apps.googleusercontent.com",
            client_secret=Secret("s"),
            refresh_token=Secret("r"),
        )
        write_token_file(tmp_path / "ann.token", stored)
        yield server


@pytest.mark.parametrize("source", list(blocks(marked=True)))
def test_it_runs(source, internet, login_servers, tmp_path, monkeypatch):
    # Some of them make directories where they stand.
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    # Without a loop of its own: some of them call asyncio.run themselves.
    with logging_restored("smtp_async.wire"):
        unfinished = eval(compiled(source), {"__name__": "__main__"})
        if inspect.iscoroutine(unfinished):
            asyncio.run(unfinished)


def test_programs_with_tokens_ask_for_them(internet, login_servers, tmp_path, monkeypatch):
    """Each program of the page on OAuth fetches one token and sends one message with it."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "how-to" / "oauth2.md").read_text(encoding="utf-8")
    programs = [source for mark, source in BLOCK.findall(page) if mark == "run"]
    for source in programs:
        asyncio.run(eval(compiled(source), {"__name__": "__main__"}))
    grants = [form["grant_type"].rpartition(":")[2] for form in login_servers.forms]
    assert grants == ["refresh_token", "jwt-bearer", "refresh_token", "client_credentials"]
    assert [one.user for one in internet[587].messages] == ["ann@example.com"] * len(programs)


@pytest.mark.server
async def test_sql(postgres):
    page = (DOCS / "how-to" / "postgres.md").read_text(encoding="utf-8")
    statements = "".join(re.findall(r"```sql\n(.*?)```", page, re.DOTALL)).split(";")[:-1]
    schema = schema_of(await new_spool(postgres))
    user = f"web_{schema}"
    execute(postgres, f"create role {user}")
    for statement in statements:
        statement = statement.replace("to web", f"to {user}").replace("'smtp_async'", f"'{schema}'")
        execute(postgres, re.sub(r"\bsmtp_async\b", schema, statement))
    assert len(statements) > 6
    rights = execute(postgres, f"select has_table_privilege('{user}', '{schema}.jobs', 'insert')")
    assert rights == [(True,)]


def test_the_first_program_of_the_readme(internet, capsys):
    _, source = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    exec(source, {})
    message = internet[587].messages[0]
    assert (message.user, message.tls, message.subject) == ("ann", True, "Hello")
    assert "ACCEPTED" in capsys.readouterr().out
    assert len([line for line in source.splitlines() if line.strip()]) <= 10


# --- drawings ------------------------------------------------------------------------------------------------


def drawing():
    spec = importlib.util.spec_from_file_location("draw", DOCS / "draw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_drawings_are_of_today(page):
    text = page.read_text(encoding="utf-8")
    assert drawing().drawn(text) == text, "python docs/draw.py draws them anew"


def test_every_drawing_is_shown():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(drawing().BLOCK.findall(text)) and {
        name for _, name, _ in drawing().BLOCK.findall(text)
    } == set(drawing().DRAWINGS)


# --- names ---------------------------------------------------------------------------------------------------


def documented(*pages):
    text = "".join((DOCS / "reference" / page).read_text(encoding="utf-8") for page in pages)
    return sorted(re.findall(r"^### `(\w+)`$", text, re.MULTILINE))


def test_every_public_name_is_in_the_reference():
    apart = ("testing.md", "oauth.md")
    pages = [page.name for page in (DOCS / "reference").glob("*.md") if page.name not in apart]
    assert documented(*pages) == sorted(smtp_async.__all__)


@pytest.mark.parametrize(("module", "page"), [(testing, "testing.md"), (oauth, "oauth.md")])
def test_every_name_of_the_other_modules_is_in_the_reference(module, page):
    assert documented(page) == sorted(module.__all__)


@pytest.mark.parametrize(("module", "page"), [(errors, "errors.md"), (events, "events.md")])
def test_every_error_and_event_is_in_the_reference(module, page):
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    names = set(module.__all__) - {"Event"}
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("name", sorted(smtp_async.__all__))
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(smtp_async, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing)


def test_options_and_their_defaults_are_in_the_reference():
    text = (DOCS / "reference" / "client.md").read_text(encoding="utf-8")
    limits = smtp_async.PoolLimits()
    assert [one for one in limits.__slots__ if f"`{one}={getattr(limits, one)}`" not in text] == []
    spans = {
        word: number
        for names, number in re.findall(r"((?:`\w+`(?: and )?)+) (\d+|None)[,.]", text.replace("\n", " "))
        for word in re.findall(r"\w+(?=`)", names)
    }
    times = smtp_async.Timeouts()
    wanted = {
        one: str(int(span)) if (span := getattr(times, one)) is not None else "None"
        for one in times.__slots__
    }
    assert {one: spans.get(one) for one in wanted} == wanted
    assert [one for one in smtp_async.ClientOptions.__slots__ if f"`{one}`" not in text] == []
    assert [one for one in smtp_async.SendOptions.__slots__ if f"`{one}`" not in text] == []


def test_options_and_exit_codes_of_the_command_line():
    text = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    commands: Any = typer.main.get_command(app)
    options = [
        option
        for command in (commands, *commands.commands.values())
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    ]
    assert [option for option in options if option not in text] == []
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [*map(int, Exit), 130]


def shell_commands(page):
    """The words of each `smtp-async` command of a page: in indented blocks and within the text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"[\[\]…]", "", text)  # how a synopsis says that words may be left out or repeated
    lines = re.findall(r"^    (.*)$", text, re.MULTILINE) + re.findall(r"`(smtp-async [^`]+)`", text)
    for line in lines:
        words = shlex.split(line, comments=True) if "smtp-async " in line else []
        while "smtp-async" in words or "/usr/bin/smtp-async" in words:
            start = min(words.index(one) for one in ("smtp-async", "/usr/bin/smtp-async") if one in words)
            words = words[start + 1 :]
            yield list(itertools.takewhile(lambda word: word not in ("|", "||", "&&", "smtp-async"), words))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_a_shell_have_these_options(page):
    for words in shell_commands(page):
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        known = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
        plain = []
        while words:
            word, *words = words
            name, assigned, _ = word.partition("=")
            if re.match(r"--?[A-Za-z]", name):
                assert name in known or name == "--help", word
                if words and words[0][0] != "-" and not (assigned or name == "--help" or known[name].is_flag):
                    words = words[1:]
            else:
                plain.append(word)
        # Of a group one command is named, unless the line stands for several of them.
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        many = any(one.nargs != 1 for one in arguments) or any("|" in word for word in plain)
        assert many or len(plain) <= len(arguments), plain


# --- the text itself -----------------------------------------------------------------------------------------


def anchors(page):
    found = [heading for _, heading in HEADING.findall(page.read_text(encoding="utf-8"))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_not_too_wide(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    wide = [
        line for line in lines if len(line) > 120 and not line.startswith(("|", "`SMTPClient(", "`Message("))
    ]
    assert wide == []


def test_pictures_are_small():
    sizes = {picture.name: picture.stat().st_size for picture in (DOCS / "images").iterdir()}
    assert len(sizes) >= 4 and {name for name, size in sizes.items() if size > 100_000} == set()


def test_page_one_of_the_tutorial_has_the_rule():
    tutorial = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    page_one = tutorial.split("\n## ")[1]
    assert "smtplib" in page_one and "opposite" in page_one and "must_accept" in page_one


# --- what guarantees.md says of threats -----------------------------------------------------------------------

#: The number of rows under each letter.
THREATS = {"A": 7, "B": 11, "C": 9, "D": 9, "E": 8, "F": 10, "G": 6, "H": 7, "I": 3}


def rows_of_threats():
    for line in (DOCS / "guarantees.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| ([A-I][0-9]+) \|", line):
            yield match[1], [cell.strip() for cell in line.strip("|").split("|")]


def test_every_threat_is_listed_once_and_in_order():
    assert [row for row, _ in rows_of_threats()] == [
        f"{letter}{number}" for letter, most in THREATS.items() for number in range(1, most + 1)
    ]


def test_every_threat_has_tests_that_are_collected():
    for row, (_, threat, does, tests) in rows_of_threats():
        nodes = re.findall("`([^`]+)`", tests)
        assert threat and does and nodes, row
        for node in nodes:
            path, _, test = node.partition("::")
            assert test in names_in(ROOT / path), node


# --- what supported-smtp.md says of real servers -------------------------------------------------------------


def letter(**fields):
    fields = {"to": "user@lab.test", "subject": "supported", "text": "Grüße\n.\nund Küsse\n", **fields}
    return Message(sender="ann@example.com", **fields)


def client_of(server, port, pki, *, login=True, **options):
    trust = ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)))
    mechanisms = options.pop("mechanisms", ())
    account = Credentials(username=server.user, password=server.password, mechanisms=mechanisms)
    return SMTPClient("localhost", port, credentials=account if login else None, options=trust, **options)


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim", "aiosmtpd"])
@pytest.mark.parametrize(
    ("service", "security"), [("auth_port", Security.STARTTLS), ("tls_port", Security.IMPLICIT)]
)
async def test_tls_and_logins(name, service, security, pki, request):
    server = request.getfixturevalue(name)
    async with client_of(server, getattr(server, service), pki, security=security) as client:
        assert (await client.send(letter())).outcome is Outcome.ACCEPTED


@pytest.mark.server
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_mechanisms(name, mechanism, pki, request):
    server = request.getfixturevalue(name)
    said: list[Any] = []
    async with client_of(server, server.auth_port, pki, mechanisms=(mechanism,)) as client:
        client.on(events.PITrail, said.append)
        assert (await client.send(letter())).outcome is Outcome.ACCEPTED
    assert any(line.message.startswith(f"AUTH {mechanism}") for line in said)


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_what_a_relay_offers(name, pki, request):
    """SIZE and 8BITMIME; SMTPUTF8 where an address needs it."""
    server = request.getfixturevalue(name)
    said: list[Any] = []
    async with client_of(server, server.plain_port, pki, login=False, security=Security.PLAINTEXT) as client:
        client.on(events.PITrail, said.append)
        assert (await client.send(letter())).accepted
        with pytest.raises(errors.MessageTooLarge):
            await client.send(letter(text="long line\n" * 1_200_000))
        if name == "postfix":
            assert (await client.send(letter(to="grüße@lab.test"))).accepted
    lines = [line.message for line in said if line.command == "MAIL" and line.direction.name == "CLIENT"]
    assert all(" SIZE=" in line and " BODY=8BITMIME" in line for line in lines)
    assert any("SMTPUTF8" in line for line in lines) is (name == "postfix")


@pytest.mark.server
@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_lmtp_has_a_verdict_for_each(where, dovecot, pki):
    url = f"lmtp://localhost:{dovecot.lmtp_port}" if where == "tcp" else f"lmtp+unix://{dovecot.lmtp_socket}"
    trust = TLSOptions(trust=TrustOptions(ca_file=pki.ca_file))
    options = ClientOptions(tls=trust, send=SendOptions(must_accept=NOBODY))
    mailboxes = ["user@lab.test", "user2@lab.test", "full@lab.test", "nobody@lab.test"]
    async with SMTPClient.from_url(url, options=options) as client:
        receipt = await client.send(letter(to=mailboxes))
    outcomes = [verdict.outcome for verdict in receipt.verdicts]
    assert outcomes == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.REFUSED, Outcome.REFUSED]
