"""Names that mislead, shown. Oracle: Unicode's own categories, and its list of what is drawn as nothing."""

import unicodedata

import pytest

from klarsicht.ground.names import printable, printable_lines, without_formula

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.slow
def test_every_hidden_character_is_escaped_and_every_plain_one_stays():
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in HIDDEN:
            assert printable(character).isascii() and printable(character).startswith("\\"), hex(code)
    for text in ("cat 12.png", "Größe_é", "猫の写真", "кошка", "قطة", "🐱", "a\\b", "x̃"):
        assert printable(text) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),  # shown as photoexe.png
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("a\u200bb", r"a\u200bb"),
        ("line\nverdict: clean", r"line\x0averdict: clean"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\xa0b\xad", r"a\xa0b\xad"),
        ("a\U000e0041", r"a\U000e0041"),
        ("a\u3164", r"a\u3164"),
        ("v\ufe0f", r"v\ufe0f"),
        (b"\xff".decode(errors="surrogateescape"), r"\udcff"),
    ],
)
def test_names_that_mislead(name, shown):
    assert printable(name) == shown
    printable(name).encode()


def test_lines_and_tabs_of_a_text_stay():
    assert printable_lines("a\tb\nc\u202e") == "a\tb\nc\\u202e"


@pytest.mark.parametrize("formula", ["=1+2", '=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_text_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(formula):
    """The beginnings are those of OWASP, CSV Injection."""
    assert without_formula(formula) == "'" + formula


@pytest.mark.parametrize("cell", ["", "a=1", "'=1", " =1", -1, -1.5, None, True])
def test_other_cells_stay(cell):
    assert without_formula(cell) is cell
