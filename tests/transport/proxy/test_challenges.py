"""challenges.py: the parser of Proxy-Authenticate."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.transport.proxy.challenges import Challenge, parse_challenges


@pytest.mark.parametrize(
    "values, found",
    [
        ([], []),
        (["Basic"], [("basic", "", {})]),
        (['Basic realm="a, b"'], [("basic", "", {"realm": "a, b"})]),
        (["NTLM", "Negotiate"], [("ntlm", "", {}), ("negotiate", "", {})]),
        (["NTLM, Basic realm=x"], [("ntlm", "", {}), ("basic", "", {"realm": "x"})]),
        (["NTLM TlRMTVNTUAAC=="], [("ntlm", "TlRMTVNTUAAC==", {})]),
        (["NTLM TlRMTVNTUAAC=, Basic realm=x"], [("ntlm", "TlRMTVNTUAAC=", {}), ("basic", "", {"realm": "x"})]),
        (
            ['Digest realm="a \\"b\\"", nonce = "n", qop="auth,auth-int" , algorithm=MD5,, Basic realm="c"'],
            [
                ("digest", "", {"realm": 'a "b"', "nonce": "n", "qop": "auth,auth-int", "algorithm": "MD5"}),
                ("basic", "", {"realm": "c"}),
            ],
        ),
        ([', ,Digest nonce="first", nonce="second"'], [("digest", "", {"nonce": "first"})]),
        (['realm="nobody"'], [("realm", "", {})]),
        (['Basic realm="open'], [("basic", "", {}), ("realm", "", {})]),
        (["\x01"], []),
    ],
)  # fmt: skip
def test_fields(values: list[str], found: list[Challenge]) -> None:
    assert parse_challenges(values) == found


@given(st.lists(st.text(alphabet=st.characters(max_codepoint=255)), max_size=3))
def test_anything_is_read_without_an_error(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower() != ""


@given(st.text(alphabet=' ,="\\aB1/+-_', max_size=60))
def test_likely_text_is_read_without_an_error(value: str) -> None:
    for challenge in parse_challenges([value]):
        assert challenge.scheme == challenge.scheme.lower() != ""
        assert all(name == name.lower() != "" for name in challenge.parameters)


@pytest.mark.parametrize("unit", ["a", "a ", ",", "a=", 'a="', "a=\\", '"\\', "a=b", "a=b,", " "])
def test_long_fields_cost_no_time(unit: str) -> None:
    begun = time.process_time()
    parse_challenges(["Digest " + unit * (32_768 // len(unit))])
    assert time.process_time() - begun < 1
