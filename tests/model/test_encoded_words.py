"""encoded_words.py: what encoded words say, in charsets under the names that real mail gives them."""

import encodings.aliases
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.model.encoded_words import (
    charset_name,
    codec_of,
    decoded_words,
    holds_unknown_words,
    is_encoded_word,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?a_b=C3=BC?=", "a bü"),
        ("=?UTF-8?B?w7w=?= x =?latin-1?Q?=FC?=", "ü x ü"),
        ("=?utf-8?b?w7w=?=  =?utf-8?b?w7w=?=", "üü"),
        ("=?utf-8?b?w7w=?=\r\n\t=?iso-8859-1?q?=FC?=", "üü"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
        ("=?utf-8?q?=C3?= =?latin-1?q?=BC?=", "\ufffd¼"),
        ("=?utf-8*de?q?x?=", "x"),
        ("=?utf-7?q?+2AA-?=", "\ufffd"),
        ("=?no-such?q?x?=", "=?no-such?q?x?="),
        ("=?no-such?q?x?= =?no-such?q?y?=", "=?no-such?q?x?= =?no-such?q?y?="),
        ("=?utf-8?q?x?= =?no-such?q?y?=", "x =?no-such?q?y?="),
        ("=?utf-8?q?x?= =?no-such?q?y?= =?utf-8?q?z?=", "x =?no-such?q?y?= z"),
        ("=?hex?q?41?=", "=?hex?q?41?="),
        ("=?punycode?q?x-?=", "=?punycode?q?x-?="),
        ("=?unicode_escape?q?=5Cx41?=", "=?unicode_escape?q?=5Cx41?="),
        ("=?utf-8?b?w7w?=", "ü"),
        ("=?utf-8?b?w?=", "=?utf-8?b?w?="),
        ("=?utf-8?x?w?=", "=?utf-8?x?w?="),
        ("=?utf-8?q?=zz?=", "=zz"),
        ("=?utf-8?q??=", ""),
        ("=?=?=?", "=?=?=?"),
        ("a =? b", "a =? b"),
    ],
)
def test_encoded_words(text, expected):
    assert decoded_words(text) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("=?iso-8859-8-i?B?+ezl7Q==?=", "שלום"),
        ("=?ISO-8859-8-E?B?+ezl7Q==?=", "שלום"),
        ("=?iso-8859-6-i?B?5A==?=", "ل"),
        ("=?unicode-1-1-utf-7?q?J+APY-rg?=", "Jörg"),
        ("=?x-sjis?b?k/qWew==?=", "日本"),
        ("=?shift_jis?b?h0A=?=", "①"),
        ("=?windows-31j?b?h0A=?=", "①"),
        ("=?ks_c_5601-1987?b?x9GxuQ==?=", "한국"),
        ("=?ks_c_5601-1987?b?jGM=?=", "똠"),
        ("=?windows-949?b?jGM=?=", "똠"),
        ("=?cp-850?q?=81?=", "ü"),
        ("=?cp_850?q?=81?=", "ü"),
        ("=?ibm-00858?q?=D5?=", "€"),
        ("=?win-1251?b?z/Do4uXy?=", "Привет"),
        ("=?x-cp1251?b?z/Do4uXy?=", "Привет"),
        ("=?koi8r?b?8NLJ18XU?=", "Привет"),
        ("=?x-gbk?b?1tDOxA==?=", "中文"),
        ("=?gb2312?b?6UY=?=", "镕"),
        ("=?gbk?b?gTCENg==?=", "\u00a5"),
        ("=?x-big5?b?pKSk5Q==?=", "中文"),
        ("=?x-mac-roman?q?=9F?=", "ü"),
        ("=?x-euc-jp?b?xvzL3A==?=", "日本"),
        ("=?iso-8859-1?q?=93a=94_=80?=", "“a” €"),
        ("=?us-ascii?q?=C3=BC?=", "ü"),
        ("=?iso-2022-jp?b?GyhJMTIbKEI=?=", "ｱｲ"),
        ("=?latin-9?q?=A4?=", "€"),
    ],
)
def test_charsets_by_the_names_of_real_mail(word, expected):
    assert decoded_words(word) == expected


def test_a_character_that_never_was_in_gb18030_is_marked():
    assert decoded_words("=?gb2312?b?/w==?=") == "\ufffd"


def test_names_that_python_knows_are_left_alone():
    for name in ("utf-8", "cp037", "UTF_16", "EUC-KR", "cp870", "latin1"):
        assert charset_name(name) == name


@pytest.mark.parametrize(
    "label", ["", "a b", "a" * 41, "é", "a\0", "hex", "rot13", "base64", "idna", "undefined", "zip"]
)
def test_what_is_no_charset(label):
    assert codec_of(label) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=?utf-8?q?x?=", True),
        ("=?no-such?B?x?=", True),
        ("=?utf-7?q?+2AA-?=", True),
        ("=?utf-8*de?q?x?=", True),
        ("=?utf-8?q?x?= ", False),
        ("a =?utf-8?q?x?=", False),
        ("=?utf-8?q?x?= =?utf-8?q?x?=", False),
        ("=?utf-8?x?x?=", False),
        ("=?", False),
        ("", False),
    ],
)
def test_what_is_one_encoded_word(text, expected):
    assert is_encoded_word(text) is expected


@given(
    st.sampled_from(sorted({*encodings.aliases.aliases.values(), "x-sjis", "cp-850"})),
    st.sampled_from("qb"),
    st.text("=0123456789ABCDEFabcxyz+/_?-~", max_size=40),
)
def test_any_octets_in_any_charset_decode_or_stay(label, encoding, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(decoded_words(f"=?{label}?{encoding}?{text}?= x"), str)


@given(st.text(max_size=60))
def test_any_text_decodes_or_stays(text):
    assert isinstance(decoded_words(text), str)
    assert isinstance(decoded_words(f"=?utf-8?q?{text}?="), str)


def test_decoding_is_linear():
    started = time.process_time()
    for text in (
        "=?utf-8?q?x?= " * 30_000,
        "=?utf-8?q?x?=" + "  =?utf-8?b?eHh4eHh4eHh4?=" * 30_000,
        "=?" * 100_000,
        "?= " * 100_000,
        "=?a?q?" * 50_000,
        "=?utf-8?q?" + "x" * 200_000,
        "=?utf-8?q?x?=" + " " * 200_000,
        " ".join(f"=?no{number}?q?x?=" for number in range(30_000)),
    ):
        assert isinstance(decoded_words(text), str)
    assert time.process_time() - started < 2


def test_unknown_labels_leave_nothing_behind():
    """Python keeps every name of a codec that it was asked for."""
    known = encodings._cache
    before = len(known)
    text = " ".join([f"=?no-such-{number}?q?a?=" for number in range(3000)])
    assert decoded_words(text) == text
    assert holds_unknown_words(text)
    assert len(known) - before < 100


def test_words_that_stay_are_told():
    for text in ("=?no-such?q?x?=", "a =?utf-8?b?w?= b"):
        assert holds_unknown_words(text)
    for text in ("", "plain", "=?utf-8?q?x?=", "=?utf-8?q?=3D=3Futf-8=3Fx?=", "=?"):
        assert not holds_unknown_words(text)
