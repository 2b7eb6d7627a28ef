"""The outer shape of DER."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.der import DERError, check_shape, children, elements
from tests.tls.authority import root


def test_elements():
    data = b"\x02\x01\x05\x30\x03\x04\x01x"
    assert [(one.tag, one.content) for one in elements(data)] == [(2, b"\x05"), (0x30, b"\x04\x01x")]
    assert b"".join(one.whole for one in elements(data)) == data
    assert [one.content for one in children(b"\x30\x03\x04\x01xtail")] == [b"x"]
    assert [one.tag for one in children(b"\x30\x80\x02\x01\x03\x30\x80\x00\x00\x00\x00")] == [2, 0x30]
    assert next(elements(b"\x04\x81\x80" + b"x" * 128)).content == b"x" * 128


@pytest.mark.parametrize(
    "data",
    [
        b"\x30",
        b"\x30\x85\x00\x00\x00\x00\x01x",
        b"\x04\x02x",
        b"\x1f\x01x",
        b"\x04\x82\x01",
    ],
)
def test_what_is_not_read(data):
    with pytest.raises(DERError):
        list(elements(data))


@given(st.binary(max_size=200))
def test_anything_is_read_to_its_end_or_refused(data):
    try:
        found = list(elements(data))
    except DERError:
        return
    assert b"".join(one.whole for one in found) == data


def check(data: bytes, **bounds: int) -> None:
    check_shape(data, **({"max_length": 100, "max_depth": 5, "max_values": 20} | bounds))


class TestShape:
    def test_a_certificate_passes(self) -> None:
        check(root().der, max_length=1000, max_depth=12, max_values=200)

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"\x04\x65" + bytes(101), "a value of 101 bytes, of 100 at most"),
            (
                b"\x30\x0c" * 1 + b"\x30\x0a\x30\x08\x30\x06\x30\x04\x30\x02\x05\x00",
                "nested more than 5 deep",
            ),
            (b"\x30\x2a" + b"\x05\x00" * 21, "more than 20 values"),
            (b"\x30\x04\x04\x09\x00\x00", "the end is missing"),
            (b"\x30\x03\x04\x05\x00\x05\x00\x05\x00", "reaches beyond"),
            (b"\x1f\x81\x00\x00", "a tag of several bytes"),
            (b"\x04\x03\x30\x01", "the end is missing"),
        ],
    )
    def test_what_is_refused(self, data: bytes, says: str) -> None:
        with pytest.raises(DERError, match=says):
            check(data)

    def test_what_an_octet_string_holds_counts(self) -> None:
        inner = b"\x30\x08" + b"\x05\x00" * 4
        check(b"\x04\x0a" + inner, max_values=6)
        with pytest.raises(DERError, match="more than 5 values"):
            check(b"\x04\x0a" + inner, max_values=5)
        # It begins like a sequence, but is none.
        check(b"\x04\x03\x30\x00\x00")

    @given(st.binary(max_size=400))
    def test_anything(self, data: bytes) -> None:
        try:
            check(data)
        except DERError:
            pass
