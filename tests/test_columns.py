"""The page of columns explains every column that a command prints, and every key that a table or a JSON file has."""

import ast
import importlib
import inspect
import pkgutil
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import is_typeddict

import pytest
from tests.audit.results.test_ranking import JUDGED as VERDICT
from tests.audit.results.test_ranking import line, ranking

import klarsicht.audit
from klarsicht.audit.cleaning.data.data_record import MANIFEST, ImageRecord
from klarsicht.audit.explanation.relevance.attribution import FACTS
from klarsicht.audit.results.ranking import BASELINE, EFFECT, JUDGED
from klarsicht.audit.results.sufficiency import PART_COLUMNS, PartEvidence
from klarsicht.audit.results.verdict_lines import VERDICT_COLUMNS
from klarsicht.explorer import export_tables

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "klarsicht"
PRINTED, STORED = (ROOT / "docs" / "columns.md").read_text().split("\n## Keys of JSON and parquet\n")
HEADINGS = ("header", "headings", "BESIDE", "DECIDED")  # names of headings in the sources


def first_cells(text):
    """Terms of the first cells of the rows of all tables: each cell whole, and its parts between ; and ,."""
    cells = [cell.strip() for cell in re.findall(r"^\| ([^|]+) \|", text, re.M)]
    parts = {part for cell in cells for part in (cell, *re.split(r"[;,] ", cell), *cell.split("; "))}
    return {part.strip("` ").lower() for part in parts}


def texts(node):
    """Constant texts of an expression, without those in the calls and comprehensions that are inside."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    inside = ast.iter_child_nodes(node) if isinstance(node, ast.Tuple | ast.BinOp | ast.IfExp) else ()
    return set().union(*map(texts, inside))


@cache
def printed_headings(file):
    """Constant headings in a module of the command line: of variables of headings, and of calls of `table`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign | ast.AugAssign):
            names = [one.id for one in getattr(node, "targets", [getattr(node, "target", None)]) if hasattr(one, "id")]
            found |= texts(node.value) if set(names) & set(HEADINGS) else set()
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "table" and node.args:
            found |= texts(node.args[0])
    return found - {""}


def headings_of(template):
    """Headings of a page that hold no expression."""
    return set(re.findall(r"<th[^>]*>([^<{]+)</th>", template.read_text()))


def row_types():
    """Typed rows of all tables of the audit."""
    for module in pkgutil.walk_packages(klarsicht.audit.__path__, "klarsicht.audit."):
        if re.search(r"rows$|duplicates$", module.name):
            yield from (one for one in vars(importlib.import_module(module.name)).values() if is_typeddict(one))


@cache
def stored_keys():
    """Keys of the rows of tables, of records of verdicts and rankings, and of exports."""
    keys = {key for row in row_types() for key in row.__annotations__}
    keys |= VERDICT.to_json().keys() | ranking(line("a", 0, 1.0)).to_json()[0].keys()
    keys |= JUDGED.keys() | EFFECT.keys() | BASELINE.keys() | FACTS.keys()
    keys |= {field.name for one in (PartEvidence, ImageRecord) for field in fields(one)} | set(MANIFEST)
    exported = re.findall(r'^ +"(\w+)": ', inspect.getsource(export_tables.class_table), re.M)
    assert "carries" in exported
    return keys | set(exported)


CLI = sorted((SOURCES / "cli").glob("*.py"))
TEMPLATES = sorted(SOURCES.rglob("*.html.j2"))


@pytest.mark.parametrize("file", [*CLI, *TEMPLATES], ids=lambda file: file.name)
def test_every_heading_is_explained(file):
    found = printed_headings(file) if file.suffix == ".py" else headings_of(file)
    assert {heading.lower() for heading in found} - first_cells(PRINTED) == set()


def test_every_heading_of_verdicts_is_explained_with_its_keys():
    rows = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| (`.+`) \|$", PRINTED, re.M))
    assert {column.heading for column in VERDICT_COLUMNS.values()} <= rows.keys()
    keys = set(re.findall(r"`(\w+)`", " ".join(rows.values())))
    assert keys <= stored_keys() | {"effect_high", "artifact", "decision"}


def test_every_heading_of_parts_is_explained():
    assert {column.heading.lower() for column in PART_COLUMNS.values()} - first_cells(PRINTED) == set()


def test_every_key_is_explained():
    assert stored_keys() - first_cells(STORED) == set()


def test_headings_are_found_in_the_sources():
    found = set().union(*map(printed_headings, CLI))
    assert {"separation", "without relevance", "decision", "mutual", "effect left", "state"} <= found
    assert "class" in set().union(*map(headings_of, TEMPLATES))


def test_every_explained_key_is_of_the_sources():
    sources = "\n".join(file.read_text() for room in ("audit", "explorer") for file in (SOURCES / room).rglob("*.py"))
    words = set(re.findall(r"\w+", sources)) | stored_keys()
    assert set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+) \|", STORED, re.M)))) - words == set()
