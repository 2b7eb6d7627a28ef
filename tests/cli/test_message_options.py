"""Messages made of options."""

import os
from pathlib import Path

import pytest

from smtp_async.cli.message_options import MessageOptions
from smtp_async.errors import FileError, InvalidArgument
from smtp_async.model.envelope import Kind


def test_recipients_have_the_kind_of_their_option():
    options = MessageOptions(to=["ann@x.test, bob@x.test"], cc=["cid@x.test"], bcc=["dan@x.test"])
    assert [(str(one.address), one.kind) for one in options.recipients] == [
        ("ann@x.test", Kind.TO),
        ("bob@x.test", Kind.TO),
        ("cid@x.test", Kind.CC),
        ("dan@x.test", Kind.BCC),
    ]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (MessageOptions(), False),
        (MessageOptions(to=[], attach=[]), False),
        (MessageOptions(text=""), True),
        (MessageOptions(to=["ann@x.test"]), True),
    ],
)
def test_options_are_true_if_one_was_given(options, given):
    assert bool(options) is given


def test_a_message_has_its_texts_and_attachments(tmp_path):
    text, file = tmp_path / "text", tmp_path / "list.csv"
    text.write_text("Grüße", "utf-8")
    file.write_bytes(b"a,b\n")
    options = MessageOptions(
        sender="ann@x.test", to=["bob@x.test"], text_file=text, html="<p>", attach=[file]
    )
    message = options.message()
    assert (message.text, message.html) == ("Grüße", "<p>")
    assert [one.filename for one in message.attachments] == ["list.csv"]


@pytest.mark.parametrize(
    "options", [MessageOptions(subject="x"), MessageOptions(text="x"), MessageOptions(html_file=Path("x"))]
)
def test_options_that_would_change_a_complete_message_are_refused(tmp_path, options):
    path = tmp_path / "message"
    path.write_bytes(b"\n")
    with pytest.raises(InvalidArgument, match="sent as it is"):
        options.raw(path)
    assert MessageOptions(sender="ann@x.test").raw(path) == path


def test_a_text_and_a_file_for_it_are_refused(tmp_path):
    with pytest.raises(InvalidArgument, match="not both"):
        MessageOptions(html="x", html_file=tmp_path / "x", text="y").message()


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_refused_before_connecting(tmp_path, name):
    with pytest.raises(FileError, match="the message"):
        MessageOptions().raw(tmp_path / name)


def test_a_pipe_is_read_at_once():
    reader, writer = os.pipe()
    os.write(writer, b"Subject: x\n\n")
    os.close(writer)
    try:
        assert MessageOptions().raw(Path(f"/dev/fd/{reader}")) == b"Subject: x\n\n"
    finally:
        os.close(reader)
