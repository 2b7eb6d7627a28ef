"""The tests mirror the package: what `smtp_async/pool/dialling.py` does is tested in `tests/pool/test_dialling.py`.

A module without a file of its own stands below with the reason, and with the file that tests it. Tests do not reach
into the package: they set no private name of it, and no constant.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# It parses every test.
pytestmark = pytest.mark.timeout(60)

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "smtp_async"

_SERVER = ("testing/test_server.py", "a part of ScriptedServer, which is tested as its clients meet it")
_EXAM = "the exam is tested by those who pass it, and by those who do not"

#: Module → the file that tests it, and why it has none of its own.
ELSEWHERE = {
    "__main__": ("cli/test_app.py", "one call"),
    "client/fork_count": ("client/test_client.py", "only a client that is used in a forked child shows it"),
    "web/catcher/details": ("web/catcher/test_app.py", "what the interface tells of one message"),
    "testing/connection": _SERVER,
    "testing/dialogue": _SERVER,
    "testing/script": _SERVER,
    "testing/wire": _SERVER,
    "testing/contracts": ("spool/test_contract.py", _EXAM),
    "testing/lease_contract": ("spool/test_contract.py", _EXAM),
    "testing/upgrade_contract": ("testing/test_stream_contract.py", _EXAM),
    "testing/stream_peers": ("testing/test_stream_contract.py", "the other ends in the exam of a stream"),
    "tls/path_validation": (
        "tls/test_verdict.py",
        "each question about a path has its rows in the table of cases",
    ),
    "transport/receiving": ("transport/test_stream.py", "the half of a stream that receives"),
    "tls/containers": ("tls/test_stores.py", "files are read by way of CertificateStore.load alone"),
}

#: Test files that are about no single module: what several of them do together, or a corpus.
ACROSS = {
    "auth": {"test_canary", "test_hostile", "test_real_logins"},
    "connection": {"test_login_choice", "test_dial_route_by_proxies"},
    "message": {"test_corpus", "test_odd_mail", "test_odd_objects"},
    "oauth": {"test_real_servers", "test_sending"},
    "processor": {"test_on_files", "test_real_delivery"},
    "protocol": {"test_pipeline_group"},
    "spool/directory": {
        "test_cancellation",
        "test_disk_errors",
        "test_faults",
        "test_full_disk",
        "test_kills",
        "test_power_loss",
        "test_processes",
    },
    "spool/postgres": {"test_faults", "test_kills"},
    "tls": {
        "test_agreement",
        "test_certificate_servers",
        "test_client_certificates",
        "test_forbidden_servers",
        "test_hostile",
        "test_negotiated",
        "test_negotiated_options",
        "test_page",
        "test_revocation_authorities",
        "test_revoked_servers",
        "test_trust_servers",
    },
    "web/catcher": {"test_page"},
    "web/console": {"test_page"},
}

MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)


def mirrored(module: str) -> Path:
    path = Path(module)
    return TESTS / path.parent / f"test_{path.name}.py"


def test_every_module_has_a_test_file() -> None:
    for module in MODULES:
        if module in ELSEWHERE:
            assert not mirrored(module).exists(), "it has a file of its own: take it out of the table"
            tested_in = TESTS / ELSEWHERE[module][0]
        else:
            tested_in = mirrored(module)
        assert tested_in.exists(), tested_in
        assert any("test" in name.lower() for name in facts(tested_in).defined), tested_in


def test_the_table_names_modules_that_exist() -> None:
    assert set(ELSEWHERE) <= set(MODULES)


@pytest.mark.parametrize("room", sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}))
def test_every_test_file_of_a_room_has_its_module(room: Path) -> None:
    """Otherwise a module was renamed or went away, and its tests stayed."""
    where = room.relative_to(PACKAGE)
    modules = {f"test_{path.stem}" for path in room.glob("*.py")}
    found = {path.stem for path in (TESTS / where).glob("test_*.py")}
    assert found - modules == ACROSS.get(where.as_posix(), set())


def test_the_first_line_of_a_test_file_names_no_other_module() -> None:
    for path in TESTS.rglob("test_*.py"):
        first = facts(path).docstring.partition(":")[0]
        assert not first.endswith(".py") or first == f"{path.stem.removeprefix('test_')}.py", path


# --- what tests may touch ------------------------------------------------------------------------------------

SOURCES = sorted(TESTS.rglob("*.py"))


class Facts(NamedTuple):
    """What the tests of this file ask about another one, which takes long to parse.

    Attributes:
        docstring: of the module.
        defined: the names of functions and classes.
        patched: lines and names that `monkeypatch` sets.
        private: lines and private names that are read.
    """

    docstring: str
    defined: list[str]
    patched: list[tuple[int, str]]
    private: list[tuple[int, str]]


@functools.cache
def facts(path: Path) -> Facts:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    defined = [
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    return Facts(
        ast.get_docstring(tree) or "", defined, list(patched(nodes)), list(private_names_read(nodes))
    )


def patched(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """The names that a file has `monkeypatch` set: the last part, as it is written."""
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "setattr"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "monkeypatch"
        ):
            for argument in node.args[:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value.rpartition(".")[2]


#: Private names that tests read. Most are of the standard library: what careless programs write into its objects, and
#: what it tells in no other way. The others are of this package, each with its reason.
READ_ALL_THE_SAME = {
    "_payload": "email: get_payload decodes, and a program may put anything there",
    "_headers": "email: a program may put anything there",
    "_chunks": "email.header: the same",
    "_msg_callback": "ssl: the callback of a context",
    "_cache": "encodings: the codecs that Python remembers",
    "_log_destroy_pending": "asyncio: a task that is left on purpose",
    "_transport": "asyncio: the transport of a writer, and of a stream: its socket, and what the kernel has not taken",
    "_private_key": "trustme: the key of an authority, to issue what trustme does not",
    "_binding": "the pool of a client, in one function of the lab",
    "_connection": "the TLS object of a session's connection",
    "_keys": "a store gives a key to an identity only",
    "_storing": "a refresh token is being stored for a caller that was cancelled",
    "_receiver": "what has arrived at a stream and was not read",
    "_connection_failed": "a failure at a moment that no server can choose",
    "_revoked_certificates": "cryptography: adding them one by one takes the square of their number",
    "_work": "a step that is due, before it is done",
}


def private_names_read(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """The private names that a file reads of what is not its own."""
    own = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if node.attr not in {*own, "_replace", "_asdict", "_fields", "_exit"}:
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smtp_async"):
            yield from ((node.lineno, name.name) for name in node.names if name.name.startswith("_"))


def test_no_test_reads_a_private_name() -> None:
    wrong = [
        f"{path.relative_to(TESTS)}, line {line}: {name}"
        for path in SOURCES
        for line, name in facts(path).private
        if name not in READ_ALL_THE_SAME
    ]
    assert wrong == []


def test_no_test_patches_a_constant_or_a_private_name() -> None:
    """A limit is an option or an argument, a time a clock that is handed over."""
    # Constants of the standard library say what the system can do.
    outside = {"CHANNEL_BINDING_TYPES", "HAS_PSK", "OPENSSL_VERSION_INFO", "RAND_add", "_bcrypt_supported"}
    wrong = [
        f"{path.relative_to(TESTS)}, line {line}: {name}"
        for path in SOURCES
        for line, name in facts(path).patched
        if name not in outside and (name.isupper() or (name.startswith("_") and not name.startswith("__")))
    ]
    assert wrong == []
