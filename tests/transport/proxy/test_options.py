"""options.py: which proxy, and what is refused before anything is connected to."""

import pickle
import ssl
import traceback
from dataclasses import replace
from typing import Any

import pytest

from smtp_async import ProxyAuth, ProxyOptions, ProxyType, Secret
from smtp_async.errors import InvalidArgument, InvalidHost, InvalidPort, MissingHost

PASSWORD = "canary-7781"


class TestURL:
    @pytest.mark.parametrize(
        "url, kind, port",
        [
            ("socks4://p.example", ProxyType.SOCKS4, 1080),
            ("socks4a://p.example", ProxyType.SOCKS4A, 1080),
            ("socks5://p.example", ProxyType.SOCKS5, 1080),
            ("socks5h://p.example:1", ProxyType.SOCKS5, 1),
            ("http://p.example/", ProxyType.HTTP_CONNECT, 80),
            ("https://p.example", ProxyType.HTTPS_CONNECT, 443),
        ],
    )
    def test_the_scheme_names_type_and_port(self, url: str, kind: ProxyType, port: int) -> None:
        options = ProxyOptions(url=url)
        assert (options.type, options.host, options.port) == (kind, "p.example", port)
        assert options.used

    def test_the_account_is_percent_decoded(self) -> None:
        options = ProxyOptions(url="http://ann%40x:p%3Aw@[2001:db8::1]:3128")
        assert (options.username, options.password) == ("ann@x", Secret("p:w"))
        assert (options.host, options.port) == ("2001:db8::1", 3128)
        assert str(options) == "HTTP proxy [2001:db8::1]:3128"

    @pytest.mark.parametrize(
        "url",
        ["p.example:1080", "ftp://p.example", "socks5://", "socks5://p.example/x", "http://p.example?q",
         "http://p:99999", "socks5://[::1", f"http://u:{PASSWORD}@h:x"],
    )  # fmt: skip
    def test_other_urls_are_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            ProxyOptions(url=url)
        told = "".join(
            traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
        )
        assert PASSWORD not in told.replace(f"url='{url}'", "").replace(repr(url), "")

    def test_a_url_and_parts_exclude_each_other(self) -> None:
        with pytest.raises(InvalidArgument, match="or by type"):
            ProxyOptions(url="socks5://a", host="b")


class TestParts:
    def test_nothing_is_no_proxy(self) -> None:
        options = ProxyOptions()
        assert options.type is ProxyType.NONE
        assert not options.used

    def test_disabled_options_are_kept_and_not_used(self) -> None:
        options = ProxyOptions(url="socks5://p.example", enabled=False)
        assert not options.used
        assert replace(options, enabled=True).used

    @pytest.mark.parametrize(
        "kind, port",
        [(ProxyType.HTTP_CONNECT, 80), (ProxyType.HTTPS_CONNECT, 443), (ProxyType.SOCKS5, 1080)],
    )
    def test_the_port_follows_the_type(self, kind: ProxyType, port: int) -> None:
        assert ProxyOptions(type=kind, host="p.example").port == port
        assert ProxyOptions(type=kind, host="p.example", port=9).port == 9

    @pytest.mark.parametrize(
        "kind, remote, there",
        [
            (ProxyType.SOCKS4, None, False),
            (ProxyType.SOCKS4, True, True),
            (ProxyType.SOCKS4A, None, True),
            (ProxyType.SOCKS5, None, True),
            (ProxyType.SOCKS5, False, False),
            (ProxyType.HTTP_CONNECT, None, True),
            (ProxyType.HTTPS_CONNECT, False, False),
        ],
    )
    def test_where_names_are_resolved(self, kind: ProxyType, remote: bool | None, there: bool) -> None:
        assert ProxyOptions(type=kind, host="p", remote_dns=remote).resolves_names is there

    @pytest.mark.parametrize(
        "error, options",
        [
            (MissingHost, {"type": ProxyType.SOCKS5}),
            (InvalidArgument, {"host": "p.example"}),
            (InvalidPort, {"type": ProxyType.SOCKS5, "host": "p", "port": 0}),
            (InvalidPort, {"type": ProxyType.SOCKS5, "host": "p", "port": 65536}),
            (InvalidHost, {"type": ProxyType.SOCKS5, "host": "p\r\nx"}),
            (InvalidHost, {"type": ProxyType.HTTP_CONNECT, "host": "u@p"}),
            # Credentials that the protocol cannot carry.
            (InvalidArgument, {"type": ProxyType.SOCKS4, "host": "p", "username": "u", "password": "x"}),
            (InvalidArgument, {"type": ProxyType.SOCKS4A, "host": "p", "username": "u\0mail.example"}),
            (InvalidArgument, {"type": ProxyType.SOCKS5, "host": "p", "username": "u"}),
            (InvalidArgument, {"type": ProxyType.SOCKS5, "host": "p", "password": "x"}),
            (InvalidArgument, {"type": ProxyType.SOCKS5, "host": "p", "username": "u" * 256, "password": "x"}),
            (InvalidArgument, {"type": ProxyType.SOCKS5, "host": "p", "username": "u", "password": "x" * 256}),
            (InvalidArgument, {"type": ProxyType.SOCKS5, "host": "p", "username": "ü", "password": "x"}),
            (InvalidArgument, {"type": ProxyType.SOCKS5, "host": "p", "auth": ProxyAuth.BASIC}),
            (InvalidArgument, {"type": ProxyType.SOCKS5, "host": "p", "headers": {"A": "b"}}),
            (InvalidArgument, {"type": ProxyType.HTTP_CONNECT, "host": "p", "password": "x"}),
            (InvalidArgument, {"type": ProxyType.HTTP_CONNECT, "host": "p", "auth": ProxyAuth.NTLM}),
            (InvalidArgument, {"type": ProxyType.HTTP_CONNECT, "host": "p", "username": "a\nb"}),
            (InvalidArgument, {"type": ProxyType.HTTP_CONNECT, "host": "p", "username": "a:b", "password": "x",
                               "auth": ProxyAuth.BASIC}),
        ],
    )  # fmt: skip
    def test_what_makes_no_sense_is_refused(self, error: type[Exception], options: dict[str, Any]) -> None:
        with pytest.raises(error):
            ProxyOptions(**options)


class TestHeaders:
    @pytest.mark.parametrize(
        "headers", [{"X-Token": "a b", "Y": ""}, [("X-Token", "a b"), ("Y", "")], "X-Token: a b\r\nY:\r\n"]
    )
    def test_every_form_gives_pairs(self, headers: Any) -> None:
        options = ProxyOptions(url="http://p", headers=headers)
        assert options.headers == (("X-Token", "a b"), ("Y", ""))

    @pytest.mark.parametrize(
        "headers",
        ["X: a\r\n\r\nY: b", "no colon", {"X": "a\r\nY: b"}, {"X": "a\nb"}, {"X": "a\0"}, {"X y": "a"}, {"": "a"},
         {"X\r\nY": "a"}, {"X": "\u2028"}, {"Content-Length": "5"}, {"transfer-encoding": "chunked"}, {"Host": "x"}],
    )  # fmt: skip
    def test_what_would_change_the_request_is_refused(self, headers: Any) -> None:
        with pytest.raises(InvalidArgument):
            ProxyOptions(url="http://p", headers=headers)


class TestSecrets:
    def test_neither_password_nor_headers_show(self) -> None:
        options = ProxyOptions(url=f"http://u:{PASSWORD}@p", headers={"X-Token": PASSWORD})
        assert PASSWORD not in f"{options!r} {options}"

    def test_they_do_not_travel(self) -> None:
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(ProxyOptions(url=f"http://u:{PASSWORD}@p"))

    def test_no_frame_of_the_library_holds_them(self) -> None:
        with pytest.raises(InvalidArgument) as caught:
            ProxyOptions(type=ProxyType.SOCKS4, host="p", username="u", password="-".join(["canary", "7781"]))
        trace = caught.value.__traceback__
        frames = traceback.StackSummary.extract(traceback.walk_tb(trace), capture_locals=True)
        assert PASSWORD not in "".join(traceback.format_list(frames[1:]))

    def test_a_context_can_be_given(self) -> None:
        context = ssl.create_default_context()
        assert ProxyOptions(url="https://p", context=context).context is context


class TestFromEnvironment:
    def test_nothing_set_is_no_proxy(self) -> None:
        assert ProxyOptions.from_environment({}) is None
        assert ProxyOptions.from_environment({"HTTP_PROXY": "http://p", "ALL_PROXY": " "}) is None

    def test_a_value_that_is_no_url_names_the_variable_only(self) -> None:
        with pytest.raises(InvalidArgument, match="^ALL_PROXY in the environment") as caught:
            ProxyOptions.from_environment({"ALL_PROXY": f"gopher://u:{PASSWORD}@p"})
        assert PASSWORD not in str(caught.value)

    def test_the_process_is_asked_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SMTP_PROXY", "socks5h://p.example")
        options = ProxyOptions.from_environment()
        assert options is not None and options.host == "p.example"
