"""token_file.py: a file for its owner alone, replaced as a whole."""

import json
import os
import pickle
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Secret
from smtp_async.errors import FileError, InvalidArgument
from smtp_async.oauth.token_file import TokenFile, parse_token_file, read_token_file, write_token_file
from tests.servers.machine import needs_modes, needs_named_pipes

FILE = TokenFile(
    provider="google",
    token_endpoint="https://auth.test/token",
    client_id="app-1",
    client_secret=Secret("canary-secret"),
    refresh_token=Secret("canary-refresh"),
    scope="mail",
    username="ann@example.com",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("version", *TokenFile.__slots__)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token"


def content(**changes: Any) -> bytes:
    usual = {
        "version": 1,
        "provider": "google",
        "token_endpoint": "https://auth.test/token",
        "client_id": "app-1",
        "refresh_token": "canary-refresh",
    }
    return json.dumps({**usual, **changes}).encode()


def test_it_is_read_as_it_was_written(path: Path) -> None:
    write_token_file(path, FILE)
    assert read_token_file(path) == FILE
    assert FILE.endpoints.token == "https://auth.test/token"


@needs_modes
def test_only_its_owner_can_read_it_at_any_time(path: Path, monkeypatch: Any) -> None:
    modes: list[int] = []
    fsync, replaced = os.fsync, os.replace

    def watch(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    def watch_replace(source: str, target: Any) -> None:
        modes.append(stat.S_IMODE(os.stat(source).st_mode))
        replaced(source, target)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(os, "replace", watch_replace)
    before = os.umask(0)
    try:
        write_token_file(path, FILE)
    finally:
        os.umask(before)
    assert [*modes, stat.S_IMODE(path.stat().st_mode)] == [0o600] * 3


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file(path: Path, monkeypatch: Any, broken: str) -> None:
    write_token_file(path, FILE)

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(FileError, match="No space left") as caught:
        write_token_file(path, replace(FILE, refresh_token=Secret("canary-new")))
    assert caught.value.__context__ is None and "canary" not in str(caught.value)
    assert read_token_file(path) == FILE
    assert list(path.parent.iterdir()) == [path]


def test_a_symbolic_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    write_token_file(link, FILE)
    assert link.is_symlink() and read_token_file(path) == FILE


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        write_token_file(tmp_path / "no" / "token", FILE)
    with pytest.raises(FileError, match="No such file"):
        read_token_file(tmp_path / "no" / "token")


@needs_modes
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_for_others_is_refused(path: Path, mode: int) -> None:
    write_token_file(path, FILE)
    path.chmod(mode)
    with pytest.raises(FileError, match=f"its mode is {mode:o}"):
        read_token_file(path)


@needs_named_pipes
def test_no_regular_file(path: Path) -> None:
    os.mkfifo(path)
    for one in (path, Path(os.devnull)):
        with pytest.raises(FileError, match="regular"):
            read_token_file(one)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 50_000, "no JSON"),
        (b"[]", "no version"),
        (b"{}", "no version"),
        (content(version=2), "another version"),
        (content(version=True, client_id=""), "client_id"),
        (content(refresh_token=""), "refresh_token"),
        (content(refresh_token=None), "refresh_token"),
        (content(client_secret=7), "client_secret"),
        (content(token_endpoint="http://auth.test/"), "https://"),
        (content(token_endpoint="file:///etc/passwd"), "host"),
        (b" " * 70_000, "larger"),
    ],
)
def test_what_is_no_such_file(path: Path, found: bytes, said: str) -> None:
    path.touch(0o600)
    path.write_bytes(found)
    with pytest.raises(InvalidArgument, match=said) as caught:
        read_token_file(path)
    assert "canary" not in str(caught.value)


def test_what_may_be_left_out() -> None:
    found, problem = parse_token_file(content(more="ignored"))
    assert problem == "" and found is not None
    assert (found.client_secret, found.username) == (Secret(""), "")


def test_no_secret_is_shown() -> None:
    assert "canary" not in repr(FILE)
    with pytest.raises(TypeError):
        pickle.dumps(FILE)


@given(st.binary(max_size=100))
def test_any_octets(found: bytes) -> None:
    file, problem = parse_token_file(found)
    assert file is None and problem


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_object(found: dict[str, Any]) -> None:
    file, problem = parse_token_file(json.dumps({"version": 1, **found}).encode())
    assert (file is None) is bool(problem)


TEXT = st.text(min_size=1, max_size=30)


@given(TEXT, TEXT, TEXT, st.text(max_size=20))
def test_any_values(tmp_path_factory: Any, client: str, secret: str, token: str, user: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-token"
    wanted = replace(
        FILE, client_id=client, client_secret=Secret(secret), refresh_token=Secret(token), username=user
    )
    write_token_file(path, wanted)
    assert read_token_file(path) == wanted
