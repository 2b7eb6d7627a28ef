"""web_options.py: where a page is served, and the missing extra."""

import pytest

from smtp_async.cli.web_options import WebOptions
from smtp_async.errors import FeatureUnavailable, FileError
from smtp_async.web.serving import Address


def test_the_address_of_a_page(tmp_path):
    assert WebOptions().address(8025) == Address(port=8025, host="127.0.0.1")
    (tmp_path / "token").write_text("mine\nnot this line\n")
    options = WebOptions(web_host="0.0.0.0", web_name=["mail.test"], web_token_file=tmp_path / "token")
    address = options.address(1)
    assert address.host == "0.0.0.0" and address.names == ["mail.test"]
    assert address.token is not None and address.token.reveal() == "mine" and "mine" not in repr(address)


def test_a_token_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError):
        WebOptions(web_token_file=tmp_path / "none").address(1)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("smtp_async.cli.web_options.find_spec", lambda name: None)
    with pytest.raises(FeatureUnavailable, match="starlette and uvicorn and jinja2: pip install") as caught:
        WebOptions().address(1)
    assert caught.value.needs == "smtp-async[web]"
