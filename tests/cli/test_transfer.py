"""The bar for large mail."""

import os
import threading

import pytest
from rich.console import Console

from smtp_async.cli.output import Output
from smtp_async.cli.transfer import LARGE, TransferBar
from smtp_async.testing import reply

PEOPLE = "--from ann@example.com --to bob@example.org --text Hi"


def wide():
    screen = Output()
    screen.out = Console(force_terminal=True, width=120, color_system=None)
    return screen


def test_a_small_message_has_no_bar(capsys):
    with TransferBar(wide()) as bar:
        bar(100, LARGE - 1)
        bar(LARGE - 1, None)
    assert "Sending" not in capsys.readouterr().out


@pytest.mark.parametrize("total", [4 * LARGE, None])
def test_a_large_message_has_a_bar(capsys, total):
    with TransferBar(wide()) as bar:
        bar(LARGE, total)
        bar(2 * LARGE, total)
    assert "2.0" in capsys.readouterr().out


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * (3 * LARGE // 256))
    return path


def test_a_large_attachment_has_a_bar(shell, serve, terminal, large):
    server = serve()
    done = shell(f"send --server {server.url} {PEOPLE} --attach", large)
    assert done.exit_code == 0 and "Sending" in done.stdout and "✓ Accepted by" in done.stdout
    (part,) = server.messages[0].parsed.iter_attachments()
    assert part.get_filename() == "large.bin" and part.get_payload(decode=True) == large.read_bytes()


def test_a_large_complete_message_has_a_bar(shell, serve, terminal, tmp_path):
    path = tmp_path / "mail"
    path.write_bytes(b"From: a@example.com\nTo: b@example.org\n\n" + b"x" * 76 + b"\n" * (3 * LARGE))
    server = serve()
    done = shell(f"send --server {server.url} --eml", path)
    assert done.exit_code == 0 and "Sending" in done.stdout
    assert len(server.messages[0].data) > 6 * LARGE


def test_an_attachment_is_read_from_a_pipe(shell, serve, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    server = serve()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"once",))
    writer.start()
    assert shell(f"send --server {server.url} {PEOPLE} --attach", tmp_path / "pipe").exit_code == 0
    writer.join()
    (part,) = server.messages[0].parsed.iter_attachments()
    assert part.get_filename() == "pipe" and part.get_payload(decode=True) == b"once"


@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_quiet_and_verbose_show_no_bar(shell, serve, terminal, large, option):
    done = shell(f"send --server {serve().url} {PEOPLE} {option} --attach", large)
    assert done.exit_code == 0 and "Sending" not in done.stdout


def test_a_pipe_gets_no_bar(shell, serve, large):
    done = shell(f"send --server {serve().url} {PEOPLE} --attach", large)
    assert done.stdout.startswith("accepted\tbob@example.org\t250") and "\x1b" not in done.output


def test_quiet_shows_only_errors(shell, serve):
    server = serve()
    assert shell(f"send -q --server {server.url} {PEOPLE}").output == ""
    server.on("RCPT", reply(550, "5.1.1 no such user"), match="gone")
    done = shell(f"send -q --each --server {server.url} {PEOPLE} --cc gone@example.org")
    assert done.exit_code == 1 and "refused\tgone@example.org" in done.stdout
