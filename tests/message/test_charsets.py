"""charsets.py: names and code pages, what they can express, and how text in them travels."""

import codecs
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import TextNotEncodable
from smtp_async.message import Message
from smtp_async.message.charsets import PAGES, charset_of, crlf_text, encoded, octets_of
from smtp_async.model.octets import SLICE

from .reading import check_wire_form, parsed, text_of

#: The code pages of the components, each with its codec.
COMPONENTS_PAGES = """
    037 cp037 437 cp437 500 cp500 708 iso8859_6 720 cp720 737 cp737 775 cp775 850 cp850 852 cp852 855
    cp855 857 cp857 858 cp858 860 cp860 861 cp861 862 cp862 863 cp863 864 cp864 865 cp865 866 cp866 869
    cp869 874 cp874 875 cp875 932 cp932 936 gbk 949 cp949 950 cp950 1026 cp1026 1140 cp1140 1200
    utf_16_le 1201 utf_16_be 1250 cp1250 1251 cp1251 1252 cp1252 1253 cp1253 1254 cp1254 1255 cp1255
    1256 cp1256 1257 cp1257 1258 cp1258 1361 johab 10000 mac_roman 10004 mac_arabic 10006 mac_greek
    10007 mac_cyrillic 10010 mac_romanian 10017 mac_cyrillic 10029 mac_latin2 10079 mac_iceland 10081
    mac_turkish 10082 mac_croatian 12000 utf_32_le 12001 utf_32_be 20105 ascii 20127 ascii 20273 cp273
    20424 cp424 20866 koi8_r 20932 euc_jp 20936 gb2312 21866 koi8_u 28591 iso8859_1 28592 iso8859_2
    28593 iso8859_3 28594 iso8859_4 28595 iso8859_5 28596 iso8859_6 28597 iso8859_7 28598 iso8859_8
    28599 iso8859_9 28605 iso8859_15 38598 iso8859_8 50220 iso2022_jp 50221 iso2022_jp_ext 50222
    iso2022_jp_ext 50225 iso2022_kr 51932 euc_jp 51936 gb2312 51949 euc_kr 52936 hz 54936 gb18030 65000
    utf_7 65001 utf_8
""".split()
#: The string encodings of macOS by name, each with its codec.
MACOS = """
    UTF32String utf_32 UTF16BigEndian utf_16_be UTF16LittleEndian utf_16_le UTF32BigEndian utf_32_be
    UTF32LittleEndian utf_32_le ASCII ascii UTF16String utf_16 Unicode utf_16 WindowsCP1251 cp1251
    WindowsCP1252 cp1252 WindowsCP1253 cp1253 WindowsCP1254 cp1254 WindowsCP1250 cp1250 ISO2022JP
    iso2022_jp JapaneseEUC euc_jp MacOSRoman mac_roman UTF8 utf_8 ISOLatin1 iso8859_1 ShiftJIS shift_jis
    ISOLatin2 iso8859_2
""".split()


def pairs(words):
    return list(zip(words[::2], words[1::2], strict=True))


def sent(text, charset, **abilities):
    data = Message(sender="a@x", to="b@x", text=text, charset=charset).content(**abilities).join()
    check_wire_form(data)
    return parsed(data)


def sample(codec):
    """A text with signs beyond ASCII that the codec knows, and with every sign of ASCII that it knows."""
    known = []
    for point in [
        *range(32, 127),
        *range(0xA0, 0x2200),
        *range(0x3041, 0x3050),
        *range(0xAC00, 0xAC10),
        0x4E2D,
    ]:
        try:
            if chr(point).encode(codec).decode(codec) == chr(point):
                known.append(chr(point))
        except UnicodeError:
            pass
    return "first line\nsecond " + "".join(known) + "\n"


@pytest.mark.parametrize(("number", "codec"), pairs(COMPONENTS_PAGES))
@pytest.mark.parametrize("eightbit", [False, True])
def test_every_code_page_reads_back(number, codec, eightbit):
    page = int(number)
    assert PAGES[page] == codec
    text = sample(codec)
    found = sent(text, page, eightbit=eightbit)
    data = found.get_payload(decode=True)
    assert data.decode(PAGES[page]).replace("\r\n", "\n") == text
    label = str(found.get_content_charset())
    assert codecs.lookup(label).name == charset_of(page).codec


def test_there_are_82_code_pages():
    assert [str(page).zfill(3) for page in sorted(PAGES)] == COMPONENTS_PAGES[::2]
    assert len(PAGES) == 82


@pytest.mark.parametrize(("name", "codec"), pairs(MACOS))
def test_every_encoding_of_macos_reads_back_by_the_name_of_its_codec(name, codec):
    text = sample(codec)
    found = sent(text, codec)
    assert found.get_payload(decode=True).decode(codec).replace("\r\n", "\n") == text
    assert codecs.lookup(str(found.get_content_charset())).name == codecs.lookup(codec).name


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("latin-1", "iso-8859-1"),
        ("cp1252", "windows-1252"),
        (1252, "windows-1252"),
        ("ascii", "us-ascii"),
        ("ISO-2022-JP", "iso-2022-jp"),
        (65001, "utf-8"),
        ("UTF8", "utf-8"),
        ("utf-16", "utf-16"),
        (1200, "utf-16le"),
        (10000, "macintosh"),
        ("Shift_JIS", "shift-jis"),
        ("x-sjis", "shift-jis"),
        ("iso-8859-8-i", "iso-8859-8"),
        ("cp-850", "cp850"),
        ("gb2312", "gb2312"),  # a larger charset is meant only where text is read
        (1125, "cp1125"),  # in no table, but Python has a codec of that number
    ],
)
def test_labels(given, label):
    assert charset_of(given).label == label


@pytest.mark.parametrize(
    "bad", [709, 0, -1, 99999, "no-such", "", "hex", "rot13", "a\0b", "utf-8\r\nX: y", None, 1.5]
)
def test_an_unknown_charset_is_434(bad):
    with pytest.raises(TextNotEncodable) as caught:
        Message(charset=bad) if bad is not None else charset_of(bad)
    assert caught.value.code == 434


@pytest.mark.parametrize(
    ("text", "charset"), [("日", "latin-1"), ("ü", 20127), ("\ud800", 1200), ("😀", 1252)]
)
def test_a_text_that_the_charset_cannot_express_is_434(text, charset):
    for arguments in ({"text": text}, {"html": text}):
        with pytest.raises(TextNotEncodable) as caught:
            Message(sender="a@x", to="b@x", charset=charset, **arguments).content()
        assert caught.value.code == 434
        assert isinstance(caught.value.__cause__, UnicodeError)


def test_a_codec_that_an_application_registers_is_a_code_page():
    def search(name):
        return codecs.lookup("latin-1") if name == "cp70901" else None

    codecs.register(search)
    try:
        assert encoded("ü", charset_of(70901), "x") == b"\xfc"
    finally:
        codecs.unregister(search)
        charset_of.cache_clear()


def test_page_50220_widens_half_width_katakana():
    found = sent("ﾊﾞｽ\n", 50220)
    assert text_of(found) == "バス\n"
    with pytest.raises(TextNotEncodable):
        sent("ﾊﾞｽ", "iso-2022-jp")


@pytest.mark.parametrize("charset", [1200, "utf-16", 12001, 37, 52936, "utf-7"])
def test_what_is_not_ascii_goes_as_base64(charset):
    """RFC 2045 section 6.8: a line end in it is not the octets CR LF."""
    for eightbit in (False, True):
        found = sent(
            "a\nb\u0a0d\u0d0a\n" if charset != 37 and charset != 52936 else "a\nb\n",
            charset,
            eightbit=eightbit,
        )
        assert found["Content-Transfer-Encoding"] == "base64"
        decoded = found.get_payload(decode=True).decode(charset_of(charset).codec)
        assert decoded.startswith("a\r\nb")
        assert decoded.endswith("\r\n")


def test_bytes_are_in_the_charset_already():
    message = Message(sender="a@x", to="b@x", text="Grüße\n".encode("latin-1"), charset="latin-1")
    assert text_of(parsed(message.as_bytes())) == "Grüße\n"
    message.charset = "utf-8"
    with pytest.raises(TextNotEncodable):
        message.content()
    taken: Any = bytearray("Grüße".encode("utf-16"))
    message.text = taken
    message.charset = "utf-16"
    assert parsed(message.as_bytes()).get_content().rstrip() == "Grüße"


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_any_text_reads_back(text):
    data = sent(text, "latin-1").get_payload(decode=True).decode("latin-1")
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    assert data.replace("\r\n", "\n") == (plain if plain.endswith("\n") or not plain else plain + "\n")


# --- long texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", sorted({*PAGES.values(), "utf-16", "utf-8-sig", "iso2022_jp_2"}))
def test_long_text_is_encoded_as_if_in_one_call(codec):
    text = sample(codec)
    text *= SLICE // len(text) + 2
    for cut in range(2):
        octets = octets_of(text[cut:], codec)
        if codec == "utf_7":  # which may end its own encoding at any place
            assert octets.decode(codec) == text[cut:]
        else:
            assert octets == text[cut:].encode(codec)


@given(st.integers(-3, 3), st.text(min_size=1, max_size=5))
def test_the_error_of_a_long_text_names_the_place(offset, end):
    text = "x" * (SLICE + offset) + "\ud800" + end
    with pytest.raises(UnicodeEncodeError) as caught:
        octets_of(text)
    assert caught.value.start == SLICE + offset
    with pytest.raises(UnicodeEncodeError) as expected:
        text.encode()
    assert str(caught.value) == str(expected.value)


@given(st.integers(0, 6), st.text(alphabet="\r\na", min_size=1, max_size=8))
def test_line_ends_of_long_texts(before, seam):
    for filler in ("x", "\r\n", "\r"):
        text = (filler * SLICE)[: SLICE - before] + seam + filler * SLICE
        assert crlf_text(text) == text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
