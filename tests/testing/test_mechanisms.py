"""The server's side of SASL: who is let in, and who is not."""

import hmac
from collections.abc import Mapping

import pytest

from smtp_async.testing.mechanisms import CRAM_CHALLENGE, STANDARD

USERS = {"ann": "secret", "jörg": "pässword"}


def talk(
    name: str, *responses: bytes, initial: bytes | None = None, users: Mapping[str, str] = USERS
) -> object:
    """Return the challenges and the user at the end."""
    exchange, challenges = STANDARD[name](users, initial), []
    try:
        challenges.append(next(exchange))
        for response in responses:
            challenges.append(exchange.send(response))
    except StopIteration as end:
        return challenges, end.value
    return challenges, ...


def digest(password: str) -> bytes:
    return hmac.new(password.encode(), CRAM_CHALLENGE, "md5").hexdigest().encode()


def test_plain() -> None:
    message = b"\0ann\0secret"
    assert talk("PLAIN", initial=message) == ([], "ann")
    assert talk("PLAIN", message) == ([b""], "ann")
    assert talk("PLAIN", initial="\0jörg\0pässword".encode()) == ([], "jörg")
    for wrong in (b"\0ann\0Secret", b"\0eve\0secret", b"ann\0secret", b"", b"\0\0", b"\xff\0\xff\0\xff"):
        assert talk("PLAIN", initial=wrong) == ([], None)


def test_login() -> None:
    assert talk("LOGIN", b"ann", b"secret") == ([b"Username:", b"Password:"], "ann")
    assert talk("LOGIN", b"secret", initial=b"ann") == ([b"Password:"], "ann")
    assert talk("LOGIN", b"ann", b"wrong") == ([b"Username:", b"Password:"], None)


def test_cram_md5() -> None:
    assert talk("CRAM-MD5", b"ann " + digest("secret")) == ([CRAM_CHALLENGE], "ann")
    assert talk("CRAM-MD5", b"ann " + digest("wrong")) == ([CRAM_CHALLENGE], None)
    # A user that is not known has no empty password.
    assert talk("CRAM-MD5", b"eve " + digest("")) == ([CRAM_CHALLENGE], None)
    assert talk("CRAM-MD5", initial=b"ann") == ([], None)


@pytest.mark.parametrize("name", STANDARD)
def test_nobody_is_let_in_where_nobody_is_known(name: str) -> None:
    responses = (b"\0\0",) if name == "PLAIN" else (b"", b"")
    assert talk(name, *responses, users={})[1] is None  # type: ignore[index]
