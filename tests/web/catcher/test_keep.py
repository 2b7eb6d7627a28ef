"""keep.py: what was caught is there after a restart."""

import os
import stat

import pytest

from smtp_async.errors import FileError
from smtp_async.web.catcher.keep import Folder
from smtp_async.web.catcher.mailbox import Caught, Keeper, Mailbox
from tests.web.catcher.lab import DIALOGUE, letter, received


def test_everything_comes_back(tmp_path):
    folder = Folder(tmp_path / "deep" / "mail")
    mailbox = Mailbox(most=10, keeper=Keeper(folder.save, folder.forget))
    first = received(letter("Grüße"), "bob@example.org", "carol@example.org")
    first.tls, first.user, first.mail_parameters = True, "ann", {"SIZE": "5"}
    mailbox.deliver(first, DIALOGUE)
    mailbox.deliver(received(b"\x00\xff any octets"), [])
    again = Mailbox(most=10)
    again.restore(Folder(tmp_path / "deep" / "mail").messages())
    for old, new in zip(mailbox.search(""), again.search(""), strict=True):
        assert (old.id, old.at, old.received, old.dialogue) == (new.id, new.at, new.received, new.dialogue)


def test_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "mail"
    Folder(path).save(Caught("1" * 14, 1.0, received(letter()), []))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.iterdir()} == {0o600}
    assert {one.name for one in path.iterdir()} == {f"{'1' * 14}.eml", f"{'1' * 14}.json"}


def test_what_is_deleted_is_gone(tmp_path):
    folder = Folder(tmp_path)
    folder.save(Caught("1" * 14, 1.0, received(letter()), []))
    folder.forget("1" * 14)
    folder.forget("2" * 14)
    assert [*tmp_path.iterdir()] == []


def test_files_of_others_and_unfinished_ones_are_left_alone(tmp_path):
    for name in ("notes.json", f"{'1' * 14}.eml", f"{'2' * 14}.json.unfinished"):
        (tmp_path / name).write_text("not ours")
    assert [*Folder(tmp_path).messages()] == [] and len([*tmp_path.iterdir()]) == 3


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"at": "x", "dialogue": []}', '{"at": 1, "dialogue": [[1]]}']
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / f"{'1' * 14}.json").write_text(text)
    (tmp_path / f"{'1' * 14}.eml").write_text("x")
    with pytest.raises(FileError, match="is not of a caught message"):
        [*Folder(tmp_path).messages()]


def test_a_message_without_its_octets_is_named(tmp_path):
    folder = Folder(tmp_path)
    folder.save(Caught("1" * 14, 1.0, received(letter()), []))
    os.unlink(tmp_path / f"{'1' * 14}.eml")
    with pytest.raises(FileError, match="cannot read"):
        [*folder.messages()]


def test_a_folder_that_cannot_be_made_or_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="cannot keep mail in"):
        Folder(tmp_path / "file")
    folder = Folder(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileError, match="cannot keep mail in"):
        folder.save(Caught("1" * 14, 1.0, received(letter()), []))
