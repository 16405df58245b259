"""The root of the repository holds what a newcomer looks for there, and nothing that a trial left behind."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOLDERS = {".ci", "benchmarks", "docs", "examples", "extras", "lab", "src", "tests"}
FILES = {
    ".gitignore", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "mkdocs.yml",
    "pyproject.toml",
}  # fmt: skip


def test_only_listed_entries_are_versioned_in_the_root():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("no git repository: a source distribution")
    versioned = {name.split("/", 1)[0] for name in listing.stdout.split("\0") if name}
    assert versioned == FOLDERS | FILES
