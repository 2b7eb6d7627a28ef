"""Clients made from the options: the server."""

import pytest

from smtp_async import ClientOptions, ProxyOptions, ProxyType
from smtp_async.cli.options import Access
from smtp_async.cli.server import client_for
from smtp_async.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mail.test", "mail.test", 587),
        ("mail.test:25", "mail.test", 25),
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("2001:db8::1", "2001:db8::1", 587),
        ("[2001:db8::1]", "2001:db8::1", 587),
        ("[2001:db8::1]:25", "2001:db8::1", 25),
        ("/run/lmtp", "/run/lmtp", 0),
    ],
)
def test_host_and_port_are_parsed(text, host, port):
    client = client_for(text, Access(), ClientOptions())
    assert (client.host, client.port) == (host, port)


class TestProxy:
    def proxy(self, url: str) -> ProxyOptions:
        client = client_for("mail.test", Access(proxy=url), ClientOptions())
        assert isinstance(client.options.proxy, ProxyOptions)
        return client.options.proxy

    def test_without_an_account(self):
        proxy = self.proxy("http://p.test:3128")
        assert (proxy.type, proxy.host, proxy.port) == (ProxyType.HTTP_CONNECT, "p.test", 3128)

    def test_the_password_comes_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("SMTP_ASYNC_PROXY_PASSWORD", "secret")
        proxy = self.proxy("socks5://ann%40x@p.test")
        assert (proxy.username, proxy.password.reveal()) == ("ann@x", "secret")

    def test_a_user_id_has_no_password(self, monkeypatch):
        monkeypatch.setenv("SMTP_ASYNC_PROXY_PASSWORD", "secret")
        assert not self.proxy("socks4a://ann@p.test").password

    def test_or_from_a_prompt(self, monkeypatch):
        monkeypatch.setattr("getpass.getpass", lambda prompt: prompt)
        assert "ann at the proxy" in self.proxy("http://ann@p.test").password.reveal()

    @pytest.mark.parametrize(
        "url", ["http://ann:secret@p.test", "ftp://p.test", "p.test:3128", "http://[::1"]
    )
    def test_other_urls_are_refused_and_not_repeated(self, url):
        with pytest.raises(InvalidArgument) as caught:
            self.proxy(url)
        assert "secret" not in str(caught.value)
