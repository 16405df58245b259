"""The lab beside the product: the index repeats the status of each decision, links lead somewhere, pages of the site
name parts of the lab that exist, and the changelog stays short."""

import re
from collections import Counter
from pathlib import Path

import pytest
from tests.test_docs import leads_somewhere

ROOT = Path(__file__).parents[1]
LAB = ROOT / "lab"
DECISIONS = sorted((LAB / "decisions").glob("*.md"))
INDEX = (LAB / "README.md").read_text()
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
CHANGELOG_LINES = 40


@pytest.mark.parametrize("note", DECISIONS, ids=lambda note: note.name[:4])
def test_a_decision_has_a_status_that_the_index_repeats(note):
    title, _, status = note.read_text().splitlines()[:3]
    assert title.startswith("# ")
    match = re.fullmatch(r"Status: ((?:in force|(?:in part )?replaced by (\d{4}(?:, \d{4})*)))", status)
    assert match, status
    replacing = (match[2] or "").split(", ") if match[2] else []
    numbers = {other.name[:4] for other in DECISIONS}
    assert all(number in numbers and number != note.name[:4] for number in replacing)
    assert f"| [{note.name[:4]}](decisions/{note.name}) {title[2:]} | {match[1]} |" in INDEX


def test_the_index_names_each_decision_once():
    named = Counter(re.findall(r"\(decisions/(\S+\.md)\)", INDEX))
    assert named == Counter(note.name for note in DECISIONS)


def test_the_overview_names_each_page_of_benchmarks_once():
    overview = (LAB / "benchmarks" / "README.md").read_text()
    pages = sorted(page.name for page in (LAB / "benchmarks").glob("*.md") if page.name != "README.md")
    assert sorted(re.findall(r"^\| \[.+?\]\((\S+\.md)\)", overview, re.M)) == pages


@pytest.mark.parametrize("page", sorted(LAB.rglob("*.md")), ids=lambda page: page.stem[:20])
def test_links_of_the_lab_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        assert "://" in target or leads_somewhere(target, page), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_parts_of_the_lab_that_pages_name_exist(page):
    """The site does not hold the lab, so its pages name files of the repository."""
    for target in re.findall(r"`(lab/[^`]+)`", page.read_text()):
        assert leads_somewhere(target, ROOT / "README.md"), target


def test_a_missing_heading_is_noticed():
    assert leads_somewhere("README.md#two-to-four-classes", LAB / "README.md")
    assert not leads_somewhere("README.md#no-such-heading", LAB / "README.md")
    assert not leads_somewhere("NONE.md", LAB / "README.md")


def test_each_section_of_the_changelog_is_short():
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1:]
    assert sections
    for section in sections:
        assert len(section.strip().splitlines()) <= CHANGELOG_LINES, section.splitlines()[0]
