"""http_reply.py: the parser of what a proxy answers to CONNECT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import ProxyResponse
from smtp_async.errors import ProxyError
from smtp_async.transport.proxy.http_reply import body_framing, chunk_size, keeps_open, parse_head


def response(status: int = 407, /, **headers: str) -> ProxyResponse:
    return ProxyResponse(
        status, "", tuple((name.replace("_", "-"), value) for name, value in headers.items())
    )


class TestHead:
    def test_status_reason_and_fields(self) -> None:
        head = b"HTTP/1.1 407 Needs a login\r\nVia: a\r\nX-Empty:\r\nPROXY-Authenticate:  NTLM \t\r\n\r\n"
        assert parse_head(head) == (
            407,
            "Needs a login",
            (("Via", "a"), ("X-Empty", ""), ("PROXY-Authenticate", "NTLM")),
            b"",
        )

    @pytest.mark.parametrize(
        "head", [b"HTTP/1.0 200\r\n\r\n", b"HTTP/1.1 200 \r\n\r\n", b"HTTP/1.1 200 OK\n\n"]
    )
    def test_forms_that_proxies_use(self, head: bytes) -> None:
        assert parse_head(head).status == 200

    @pytest.mark.parametrize(
        "head",
        [b"", b"\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n",
         b"HTTP/1.1 +20 OK\r\n\r\n", b"HTTP/1.1 200OK\r\n\r\n", b"http/1.1 200 OK\r\n\r\n", b"HTTP/1.1 020 OK\r\n\r\n",
         b"220 mail.example ESMTP\r\n\r\n", b"HTTP/1.1 200 OK\x00\r\n\r\n", b"HTTP/1.1 200 OK\rX: y\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.1 200 OK\r\n folded: a\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n", b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
         b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 201 + b"\r\n"],
    )  # fmt: skip
    def test_what_is_no_reply(self, head: bytes) -> None:
        with pytest.raises(ProxyError):
            parse_head(head)

    @given(st.binary(max_size=200))
    def test_anything_is_a_reply_or_a_proxy_error(self, head: bytes) -> None:
        for octets in (head, b"HTTP/1.1 " + head, b"HTTP/1.1 407 x\r\n" + head):
            try:
                parsed = parse_head(octets)
            except ProxyError:
                continue
            assert 100 <= parsed.status <= 999
            assert not any(c in name + value for name, value in parsed.headers for c in "\r\n\0")

    @given(
        st.lists(
            st.tuples(
                st.text(alphabet="abcXYZ-", min_size=1),
                st.text(
                    alphabet=st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f")
                ),
            )
        )
    )
    def test_what_was_written_is_read(self, headers: list[tuple[str, str]]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        assert parse_head(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode("latin-1")).headers == tuple(headers)


class TestBody:
    @pytest.mark.parametrize(
        "reply, framing",
        [
            (response(200, Content_Length="5"), 0),
            (response(200, Transfer_Encoding="chunked"), 0),
            (response(Content_Length="5"), 5),
            (response(Content_Length="5", content_length="5"), 5),
            (response(Content_Length="5", content_length="6"), None),
            (response(Content_Length="-5"), None),
            (response(Content_Length="+5"), None),
            (response(Content_Length="5_0"), None),
            (response(Content_Length="9" * 20), None),
            (response(Transfer_Encoding="Chunked", Content_Length="5"), "chunked"),
            (response(Transfer_Encoding="gzip, chunked"), None),
            (response(), None),
        ],
    )
    def test_how_long_it_is(self, reply: ProxyResponse, framing: int | str | None) -> None:
        assert body_framing(reply) == framing

    @pytest.mark.parametrize(
        "version, headers, stays",
        [
            (b"1.1", {}, True),
            (b"1.1", {"Connection": "close"}, False),
            (b"1.1", {"Connection": "x, Close"}, False),
            (b"1.1", {"Proxy_Connection": "close"}, False),
            (b"1.0", {}, False),
            (b"1.0", {"Proxy_Connection": "Keep-Alive"}, True),
            (b"1.0", {"Connection": "close", "Proxy_Connection": "keep-alive"}, False),
        ],
    )
    def test_whether_the_connection_stays(self, version: bytes, headers: dict[str, str], stays: bool) -> None:
        assert keeps_open(b"HTTP/" + version, response(**headers)) is stays

    def test_chunk_sizes(self) -> None:
        assert chunk_size(b"1a\r\n") == 26
        assert chunk_size(b"0 ; name=value\n") == 0

    @given(st.binary(max_size=20))
    def test_other_lines_are_no_chunk(self, line: bytes) -> None:
        try:
            assert 0 <= chunk_size(line) < 2**32
        except ProxyError:
            pass
