"""constructors.py: both clients are made from a URL and for a provider, with the same arguments and errors."""

from types import TracebackType

import pytest

from smtp_async import BlockingClient, Security, SMTPClient
from smtp_async.errors import InvalidArgument

SECRET = "hunter2-secret"

pytestmark = pytest.mark.parametrize("cls", [SMTPClient, BlockingClient])


def test_a_client_is_made_from_a_url(cls: type[SMTPClient] | type[BlockingClient]) -> None:
    client = cls.from_url(f"smtps://ann:{SECRET}@mail.example.com")
    assert type(client) is cls
    assert (client.host, client.port, client.security) == ("mail.example.com", 465, Security.IMPLICIT)
    assert SECRET not in repr(client)


def test_a_wrong_url_is_refused_without_its_password(cls: type[SMTPClient] | type[BlockingClient]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        cls.from_url(f"imap://ann:{SECRET}@mail.example.com")
    assert SECRET not in str(caught.value)
    frame: TracebackType | None = caught.tb
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.endswith("client/constructors.py"):
            assert not any(SECRET in str(value) for value in frame.tb_frame.f_locals.values())
        frame = frame.tb_next


def test_a_client_is_made_for_a_provider(cls: type[SMTPClient] | type[BlockingClient]) -> None:
    client = cls.for_provider("gmail", username="ann@gmail.com", password=SECRET)
    assert type(client) is cls and client.host == "smtp.gmail.com"
    with pytest.raises(InvalidArgument, match="gmail"):
        cls.for_provider("gmial", username="ann@gmail.com", password=SECRET)
