"""Names from outside, of files, classes, sources and cameras, shown so that they cannot mislead."""

from __future__ import annotations

from typing import Any, Final

FORMULA_BEGINNINGS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")  # of cells (OWASP, CSV Injection)
LONGEST_VALUE: Final = 200  # characters of a wrong value that an error shows
# Invisible, though Unicode counts them among letters, marks and symbols: fillers of Hangul and Khmer, the grapheme
# joiner, selectors of Mongolian and of variants, the blank pattern of Braille (Unicode 15, DerivedCoreProperties:
# Default_Ignorable_Code_Point).
INVISIBLE = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800), (0x3164, 0x3164),
        (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)  # fmt: skip


def printable(text: str) -> str:
    """Escape the characters of a text that cannot be seen or that change how others are shown, as \\u202e: control
    characters, formats, line breaks, spaces other than the plain one, surrogates, and what Unicode does not define."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() and c not in INVISIBLE else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def printable_lines(text: str) -> str:
    """Escape every line of a text, whose line breaks and tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def without_formula(cell: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would compute, as `=HYPERLINK(...)`; other cells stay."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_BEGINNINGS) else cell


def describe_value(value: Any) -> str:
    """Describe a wrong value: as it is written in Python, or where that is long or has lines, its type."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE and text.isprintable() else type(value).__name__
