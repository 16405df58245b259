"""Readability of README and the pages of the site, at a commit and now: all words of a page, running words, words a
sentence, sentences of more than 30 and of more than 40 words, and the share of running words that are terms of the
glossary.

    python -m benchmarks.readability --before 30ad1b4a^ > table.md

All words are those of `wc -w`. Running words and sentences are those of `tests/test_language.py`: of paragraphs, lists
and headings, without code, tables and equations. The glossary is today's for both sides.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.test_language import LONG, SHORT, length, sentences

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Readability:
    """Counts of a page, or of several together.

    Attributes:
        everything: all words, with those of code and tables.
        words, terms: running words, and those of them that belong to a term of the glossary.
        over_30, over_40: sentences with more words than that.
    """

    everything: int = 0
    words: int = 0
    sentences: int = 0
    over_30: int = 0
    over_40: int = 0
    terms: int = 0

    @classmethod
    def of(cls, page: str, terms: re.Pattern[str]) -> Readability:
        found = sentences(page)
        lengths = [length(sentence) for sentence in found]
        known = sum(length(hit[0]) for sentence in found for hit in terms.finditer(sentence))
        over = (sum(n > bound for n in lengths) for bound in (SHORT, LONG))
        return cls(len(page.split()), sum(lengths), len(found), *over, known)

    def __add__(self, other: Readability) -> Readability:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Readability(*(a + b for a, b in pairs))

    def cells(self) -> list[str]:
        mean, share = self.words / max(self.sentences, 1), self.terms / max(self.words, 1)
        return [
            f"{self.everything:,}",
            f"{self.words:,}",
            f"{mean:.1f}",
            str(self.over_30),
            str(self.over_40),
            f"{share:.1%}",
        ]


def glossary_terms(page: str) -> re.Pattern[str]:
    """Compile a pattern of the terms of a glossary, the longest first."""
    cells = re.findall(r"^\| ([^|]+) \| (?!---)", page, re.M)
    terms = {re.sub(r" \(.*", "", term) for cell in cells for term in cell.split(", ")} - {"term"}
    longest_first = sorted(terms, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})s?\b", re.I)


def read_pages(commit: str | None) -> dict[str, str]:
    """Read README and the pages of the site by their paths, of a commit or, for None, of the working tree."""
    if commit is None:
        files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        return {str(file.relative_to(ROOT)): file.read_text() for file in files}
    names = git("ls-tree", "-r", "--name-only", commit, "README.md", "docs").splitlines()
    return {name: git("show", f"{commit}:{name}") for name in names if name.endswith(".md")}


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="commit")
    before, now = read_pages(parser.parse_args().before), read_pages(None)
    terms = glossary_terms(now["docs/glossary.md"])
    sides = [{name: Readability.of(text, terms) for name, text in side.items()} for side in (before, now)]
    print("| page | all words | running words | words a sentence | over 30 | over 40 | terms of the glossary |")
    print("|---" * 7 + "|")
    for name in sorted(before.keys() | now.keys()):
        print("|", " | ".join([f"`{name}`", *pairs_of(*(side.get(name) for side in sides))]), "|")
    print("|", " | ".join(["all", *pairs_of(*(sum(side.values(), Readability()) for side in sides))]), "|")


def pairs_of(before: Readability | None, now: Readability | None) -> list[str]:
    """Write the cells of a page before and now; a dash where it did not exist, or no longer does."""
    sides = [["-"] * 6 if one is None else one.cells() for one in (before, now)]
    return [f"{old} to {new}" for old, new in zip(*sides, strict=True)]


if __name__ == "__main__":
    main()
