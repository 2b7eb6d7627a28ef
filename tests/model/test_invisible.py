"""invisible.py: characters without a picture, and what they are called."""

import sys
import unicodedata

import pytest

from smtp_async.model.invisible import BLANKS, hidden_character, named

# Unicode's DerivedCoreProperties, Default_Ignorable_Code_Point, as ranges.
IGNORABLE = (
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F)),
    *((0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A)),
    (0xE0000, 0xE0FFF),
)


def test_format_characters_and_what_is_ignored_by_default_are_found_and_nothing_else():
    ignorable = {code for first, last in IGNORABLE for code in range(first, last + 1)}
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        expected = code in ignorable or unicodedata.category(char) == "Cf"
        # Version 16 of Unicode assigned some that were kept free.
        if unicodedata.category(char) != "Cn" or code in ignorable:
            assert (hidden_character(f"a{char}b") is not None) == expected, hex(code)


@pytest.mark.parametrize("text", ["می\u200cخواهم", "ක්\u200dෂ", "क\u094d\u200dष"])
def test_joiners_between_letters_of_scripts_that_need_them_are_no_fault(text):
    assert hidden_character(text) is None


@pytest.mark.parametrize(
    "text", ["\u200cم", "م\u200d", "a\u200cb", "م\u200ca", "م\u200c\u200dم", "👩\u200d👧"]
)
def test_other_joiners_are_found(text):
    assert hidden_character(text) in ("\u200c", "\u200d")
    assert hidden_character(text, joiners=True) is None


def test_names():
    assert named("\u200b") == "ZERO WIDTH SPACE (U+200B)"
    assert named("\U000e0fff") == "a character without a name (U+E0FFF)"


def test_blanks_are_all_separators_but_the_space():
    import re

    found = re.findall(f"[{BLANKS}]", "".join(map(chr, range(sys.maxunicode + 1))))
    assert found == [c for c in map(chr, range(0x80, sys.maxunicode + 1)) if unicodedata.category(c) == "Zs"]
