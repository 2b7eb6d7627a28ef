"""proxy_response.py: what an HTTP proxy answered."""

import pickle

from smtp_async import ProxyResponse

RESPONSE = ProxyResponse(
    407,
    "Proxy Authentication Required",
    (("Proxy-Authenticate", "Basic realm=a"), ("Via", "x"), ("proxy-authenticate", "NTLM")),
    b"body",
)


def test_a_header_is_found_in_any_case() -> None:
    assert RESPONSE.header("vIA") == "x"
    assert RESPONSE.header("Content-Length") is None


def test_values_are_joined_or_listed_in_order() -> None:
    assert RESPONSE.header("Proxy-Authenticate") == "Basic realm=a, NTLM"
    assert RESPONSE.values("PROXY-AUTHENTICATE") == ["Basic realm=a", "NTLM"]


def test_it_travels() -> None:
    assert pickle.loads(pickle.dumps(RESPONSE)) == RESPONSE
