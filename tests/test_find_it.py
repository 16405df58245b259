"""A newcomer finds an answer within two clicks: a page in the navigation, and a heading on that page."""

import re
from pathlib import Path

import pytest
from tests.test_docs import anchors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAVIGATION = dict(re.findall(r"^\s+- (.+?): (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
QUESTIONS = {  # question: first click in the navigation, second click on a heading, words of the answer below it
    "Install it without a GPU": ("Install", "install", "whl/cpu"),
    "Is another tool better for me?": ("klarsicht or another tool?", "klarsicht-or-another-tool", "Captum"),
    "My model is a Hugging Face folder": ("Your model", "transformers", "--model hf:"),
    "My labels are in a CSV file": ("Your images and labels", "corpora", "path,label"),
    "Several DICOM slices of each patient": ("Your images and labels", "a-function-of-your-own", "read_dicom.py"),
    "What do I do with my result?": ("Read your result", "all-verdicts", "next step"),
    "What does p (used) mean?": ("Columns of every table", "verdicts-audit-quantify", "did not use the artifact"),
    "I have only two classes": ("Which classes hold an artifact", "two-to-four-classes", "With two classes only you"),
    "How do I load the cleaned model?": (
        "Clean the model or the data", "use-the-cleaned-model", 'torch.export.load("cleaned/model.pt2")',
    ),
    "It found nothing. Can I trust that?": ("Which classes hold an artifact", "power", "klarsicht audit power"),
    "It ended with exit code 3": ("Exit codes", "exit-codes", "| 3 |"),
    "What do the colours of a map mean?": ("Read your result", "the-colours-of-a-relevance-map", "| red |"),
    "It was stopped halfway. How do I go on?": (
        "Step by step", "skipped-images-and-resuming", "After a kill, give the same command again",
    ),
    "What will it cost?": ("Step by step", "klarsicht-audit-doctor", "`--cost` forecasts"),
    "Which file do I send to a colleague?": ("Step by step", "klarsicht-audit-report", "The page needs no other file"),
    "The mark belongs to the class. Where do I say so?": ("Look at it, and decide", "decisions", "*legitimate*"),
    "Which of my files carry the mark?": ("Look at it, and decide", "klarsicht-audit-export", "one row for each image"),
    "Can my build stop on a finding?": ("Stop a pipeline on a finding", "stop-a-pipeline-on-a-finding", "exit code 0"),
    "Can I clean the data and train again?": (
        "Clean the model or the data", "klarsicht-audit-clean-data", "a new corpus without the artifact",
    ),
    "My images have 16 bits": ("Your images and labels", "arrays", "white at `--white-level`"),
    "Is somebody else's model file safe to open?": ("What runs code", "code-in-files-from-others", "`--trust`"),
    "How noisy is my camera?": ("Your own photographs", "klarsicht-burst-calibrate", "Measures a camera's noise"),
    "How do I get the verdicts as a table in Python?": ("Functions", "from-python", "`to_pandas()`"),
    "How do I get a DNG of my burst?": ("Your own photographs", "klarsicht-burst-denoise", ".dng"),
}  # fmt: skip


def section(page, anchor):
    """Text of a page from a heading to the next one of its level or above."""
    parts = re.split(r"^(#+) (.+)$", page.read_text(), flags=re.M)
    named = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in parts[2::3]]
    start = named.index(anchor)
    level = len(parts[1::3][start])
    below = (i for i in range(start + 1, len(named)) if len(parts[1::3][i]) <= level)
    return " ".join(parts[3 * start + 3 : 3 * next(below, len(named)) + 1])


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_is_two_clicks_away(question):
    entry, heading, words = QUESTIONS[question]
    page = DOCS / NAVIGATION[entry]
    assert heading in anchors(page)
    assert words in section(page, heading)


def test_a_section_ends_at_the_next_heading_of_its_level(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\none\n## B\ntwo\n### C\nthree\n## D\nfour\n")
    assert section(page, "b").split() == ["two", "###", "C", "three"]
    assert section(page, "d").split() == ["four"]
