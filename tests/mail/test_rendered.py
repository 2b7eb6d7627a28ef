"""rendered.py: the same content for every server, whose sources are closed if it is not sent."""

import io

import pytest

from smtp_async.mail.rendered import RenderedMail
from smtp_async.model.content import Content, Source
from smtp_async.model.envelope import Envelope


@pytest.mark.parametrize("waits", [False, True])
async def test_the_content_is_the_same_for_every_server_and_closes_its_streams(waits: bool) -> None:
    stream = io.BytesIO(b"Subject: hi\r\n\r\nhello\r\n")
    envelope = Envelope("ann@example.com", ["bob@example.org"])
    content = Content((Source(stream, encoding="identity", close=True),))
    mail = RenderedMail(envelope, content)
    assert mail.envelope() is envelope
    assert mail.content() is mail.content(eightbit=True, utf8=True, binary=True) is content
    if waits:
        await mail.aclose()
    else:
        mail.close()
    assert stream.closed
