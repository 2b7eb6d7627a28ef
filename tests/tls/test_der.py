"""The outer shape of DER."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.der import DERError, children, elements


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
