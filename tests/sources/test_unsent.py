"""unsent.py: what was given to be closed is closed, although the mail was never sent."""

import io

import pytest

from smtp_async import Attachment, Message
from smtp_async.model.content import Content, Source
from smtp_async.sources.unsent import UnsentSources
from tests.sources.origins import Awaited


def mail_of(*attachments: Attachment) -> Message:
    return Message(attachments=attachments)


class ClosingMail(Message):
    """A mail that keeps a stream in a way of its own, and notes how it is closed."""

    def __init__(self, *attachments):
        super().__init__(attachments=attachments)
        self.closed = []

    def close(self):
        self.closed.append("close")

    async def aclose(self):
        self.closed.append("aclose")


@pytest.mark.parametrize("awaited", [False, True])
async def test_streams_that_were_given_to_be_closed_are_closed(awaited):
    given, kept = io.BytesIO(b"x"), io.BytesIO(b"y")
    unsent = UnsentSources(mail_of(Attachment(given, close=True), Attachment(kept), Attachment(b"octets")))
    if awaited:
        await unsent.aclose()
    else:
        unsent.close()
    assert given.closed and not kept.closed


async def test_async_streams_are_closed_where_that_can_be_awaited():
    given, kept = Awaited([b"x"]), Awaited([b"y"])
    unsent = UnsentSources(mail_of(Attachment(given, close=True), Attachment(kept)))
    unsent.close()
    assert not given.closed
    await unsent.aclose()
    assert given.closed and not kept.closed


async def test_a_mail_with_a_way_of_its_own_is_asked_to_close():
    mail = ClosingMail()
    unsent = UnsentSources(mail)
    unsent.close()
    await unsent.aclose()
    assert mail.closed == ["close", "aclose"]


async def test_content_that_was_rendered_is_closed_in_place_of_the_mail():
    """The content has the mail's sources, and a rendered mail may be sent again."""
    attached, rendered = io.BytesIO(b"x"), io.BytesIO(b"x")
    mail = ClosingMail(Attachment(attached, close=True))
    unsent = UnsentSources(mail, Content((b"head", Source(rendered, close=True))))
    unsent.close()
    await unsent.aclose()
    assert rendered.closed and not attached.closed and mail.closed == []


async def test_a_stream_that_cannot_be_closed_does_not_keep_the_others_open():
    class Broken(io.BytesIO):
        asked = False

        def close(self):
            # Once only: the interpreter closes it, too, when it goes.
            if not self.asked:
                self.asked = True
                raise OSError("gone")
            super().close()

    last = io.BytesIO(b"x")
    await UnsentSources(mail_of(Attachment(Broken(b"x"), close=True), Attachment(last, close=True))).aclose()
    assert last.closed


async def test_nothing_is_opened_only_to_be_closed(tmp_path):
    """A path that does not exist is no error of a mail that is not sent."""
    unsent = UnsentSources(mail_of(Attachment(tmp_path / "missing", close=True)))
    unsent.close()
    await unsent.aclose()
    assert not (tmp_path / "missing").exists()
