"""Messages of all kinds for the tests of the catcher."""

from email.message import EmailMessage

from smtp_async.testing import ReceivedMessage
from smtp_async.web.catcher.server import DialogueLine

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6364f8cf500f00038801806b7bdd8c0000000049454e44ae426082"
)
HTML = (
    '<html><head><base href="http://evil.example/"><meta http-equiv="refresh" content="0;url=http://evil.example">'
    '</head><body><p>Hi <b>Bob</b></p><img id="logo" src="cid:logo@x"><img src="http://tracker.example/1.png">'
    '<a href="https://example.com/confirm?a=1&amp;b=2">Confirm</a><a href="javascript:alert(1)">no</a>'
    "<script>document.body.innerHTML = 'scripted'; parent.hacked = 1</script></body></html>"
)


def letter(
    subject="Hello", *, sender="Ann <ann@example.com>", to="bob@example.org", text="Hi Bob\n", html=None
):
    """A message of `email`."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
        [*_, page] = message.iter_parts()
        assert isinstance(page, EmailMessage)
        page.add_related(PIXEL, "image", "png", cid="<logo@x>", filename="logo.png")
    return message


def received(message, *recipients, sender="ann@example.com"):
    """A message as the server records it; bytes are taken as they are."""
    data = message if isinstance(message, bytes) else message.as_bytes().replace(b"\n", b"\r\n")
    people = [*recipients] or ["bob@example.org"]
    return ReceivedMessage(sender, people, data, rcpt_parameters=[{} for _ in people])


DIALOGUE = [DialogueLine("server", "220 ready", 0.0), DialogueLine("client", "EHLO x", 0.001)]
