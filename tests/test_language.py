"""Language of what a user reads: README, pages of the site and help of the command line.

In README, in help and on the first screen of a page no sentence has more than 30 words; elsewhere none has more than
40. None of them uses the words and openings that readers did not understand. Blocks of code, tables and equations are
no sentences; the words of tables are read all the same.
"""

import re
from pathlib import Path

import pytest
import typer

from klarsicht.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORT, LONG, FIRST_SCREEN = 30, 40, 200
ABBREVIATIONS = ("e.g.", "i.e.", "al.", "vs.", "cf.")
RETIRED = {
    r"\bsigns?\b": "detector",
    r"\b(?:the|a|its|each|every) suspects?\b(?! cluster| class)": "suspect cluster",
    r"\btold\b": "a verb of the field: given, shown, recognised",
    r"\b(?:lessons?|courses?)\b": "training image, training set",
    r"\b(?:a|each|the first|the last|two|three|in|interim) looks?\b": "interim analysis",
    r"\bspools?\b": "frame store",
    r"\banswers?\b": "logits, output, prediction",
    r"\b(?:foretell|foretold|foretells)\b": "predict, forecast",
    r"\b(?:relieve|relieved)\b": "cleaned",
    r"\b(?:nature|natures)\b": "part of the class, natural variation",
    r"\btaken for\b": "predicted as, mistaken for",
    r"\bby far\b": "the figure",
    r"\bfor sure\b": "significantly, or the interval",
    r"\b(?:put|puts|putting) (?:it |them |this |that )?on\b": "paste, insert",
    r"\bbeside\b": "compared with, next to, in addition to",
    r"\b(?:that|those) which\b|\bthat what\b": "the noun",
    r"\b(?:carriers?|members?)\b": "images with the artifact",
    r"\b(?:come|comes|came) along\b": "included",
    r"\b(?:poisoned|poisons?)\b": "relies on an artifact",
    r"\bwindows? of (?:its|their) own\b": "the same patch",
    r"(?<![\w.])\.\d": "a digit before the point",
}
OPENINGS = {
    r"Of .*": "the subject first",
    r"What (?!.*\?$).*": "the noun",
    r"(?:Whoever|Whatever|Who) (?!.*\?$).*": "the noun",
}


def plain(markdown):
    """Markdown without code, links, tags and equations: inline code and equations are one word each."""
    text = re.sub(r"^( *)```.*?^\1```[^\n]*$", "", markdown, flags=re.M | re.S)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)
    text = re.sub(r"^::: .*\n(?:    .*\n?)*", "", text, flags=re.M)
    text = re.sub(r"<[^<>]+>", "", text)
    text = re.sub(r"``.+?``|`[^`\n]+`|\$[^$\n]+\$", "CODE", text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def sentences(markdown):
    """The sentences of a text: of paragraphs, items of lists and headings, in their order."""
    lines = [line for line in plain(markdown).splitlines() if not line.lstrip().startswith("|")]
    item = r"^\s*(?:[-*]|\d+\.)\s+|^#+ "
    text = "\n".join(f"\n{re.sub(item, '', line)}\n" if line.startswith("#") else
                     f"\n{re.sub(item, '', line)}" if re.match(item, line) else line for line in lines)  # fmt: skip
    found = []
    for block in re.split(r"\n\s*\n", text):
        words = re.sub(r"[*_]+", "", " ".join(block.split()))
        start = 0
        for end in re.finditer(r"[.!?][\"')\]]*(?= +[\"'(\[]?(?:[A-Z0-9]|klarsicht))|$", words):
            if words[: end.end()].endswith(ABBREVIATIONS) or not words[start : end.end()].strip():
                continue
            found.append(words[start : end.end()].strip())
            start = end.end()
    return found


def length(sentence):
    return len(re.findall(r"[\w/]*\w[\w'.,/%-]*", sentence))


def too_long(markdown, everywhere=False):
    """Sentences that are longer than allowed: on the first screen, or everywhere, 30 words, elsewhere 40."""
    seen, found = 0, []
    for sentence in sentences(markdown):
        bound = SHORT if everywhere or seen < FIRST_SCREEN else LONG
        seen += length(sentence)
        if length(sentence) > bound:
            found.append(f"{length(sentence)} words: {sentence}")
    return found


def retired(markdown):
    """Words and openings that are not used, each with the term in its place."""
    text = plain(markdown)
    found = [
        f"{text[max(0, hit.start() - 40) : hit.end() + 30]!r}: {better}"
        for pattern, better in RETIRED.items()
        for hit in re.finditer(pattern, text, re.I)
    ]
    for sentence in sentences(markdown):
        found += [
            f"{sentence[:60]!r}: {better}" for pattern, better in OPENINGS.items() if re.fullmatch(pattern, sentence)
        ]
    return found


def helps(node=None, path="klarsicht"):
    """(name, help) of every command, and of every option and argument."""
    node = node or typer.main.get_command(app)
    yield path, node.help or ""
    for parameter in node.params:
        yield f"{path} {parameter.opts[0]}", getattr(parameter, "help", None) or ""
    for name, child in getattr(node, "commands", {}).items():
        yield from helps(child, f"{path} {name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sentences_of_a_page_are_short(page):
    assert too_long(page.read_text(), everywhere=page.name == "README.md") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_uses_terms_that_readers_know(page):
    assert retired(page.read_text()) == []


def test_sentences_of_the_help_are_short_and_use_terms_that_readers_know():
    found = {name: problems for name, text in helps() if (problems := too_long(text, everywhere=True) + retired(text))}
    assert found == {}


def test_sentences_are_counted():
    text = (
        "# A title\n\nOne [link](a.md) here, e.g. `a b`. Two!\n- An item\n  goes on.\n\n| a | b |\n\n"
        "```sh\nnot this. Nor this.\n```\n"
    )
    assert sentences(text) == ["A title", "One link here, e.g. CODE.", "Two!", "An item goes on."]
    assert [length(sentence) for sentence in sentences(text)] == [2, 5, 1, 4]


def test_a_long_sentence_is_noticed_after_the_first_screen_only_beyond_forty_words():
    page = "Short sentence here.\n\n" + "word " * 31 + "ends.\n"
    assert too_long(page) != []
    assert too_long("One two three four five. " * 40 + page) == []
    assert too_long("One two three four five. " * 40 + "word " * 41 + "ends.") != []


@pytest.mark.parametrize(
    "text", ["Of p: below it.", "What is left stays.", "a sign of it", "it is .05", "put it on it"]
)
def test_a_retired_word_is_noticed(text):
    assert retired(text) != []


@pytest.mark.parametrize("text", ["What is an artifact?", "0.05 of 20", "`sign` is code", "version 1.2.3", "carried"])
def test_other_words_are_not(text):
    assert retired(text) == []
