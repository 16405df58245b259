"""Tables in memory are the manifests, or the sequences, of the same columns."""

import csv
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.data.label_cells import LabelCells
from klarsicht.audit.explanation.data.manifest import ColumnNames
from klarsicht.audit.explanation.data.tables_in_memory import ListedFiles
from klarsicht.audit.explanation.steps.audit_inputs import require_given
from klarsicht.ground.errors import CorpusError

FILES = ["0.png", "1.png", "2.png"]


class Table(dict):
    """Stand-in for a table of pandas: columns by their names."""

    columns = property(lambda self: list(self))

    def to_csv(self, file):
        with Path(file).open("w", newline="") as text:
            csv.writer(text).writerows([list(self), *zip(*self.values(), strict=True)])


def tables(columns):
    try:
        import pandas
    except ImportError:
        return [Table(columns)]
    return [Table(columns), pandas.DataFrame(columns)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, file in enumerate(FILES):
        Image.fromarray(np.full((5, 6, 3), 40 * number, np.uint8)).save(file)
    return tmp_path


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"label": list("aba")}, {}),
        ({"label": [1, 0, 1], "source": ["p", None, "q"], "weight": [1.0, 2.5, float("nan")], "split": ["x"] * 3}, {}),
        ({"finding": list("aba")}, {"names": ColumnNames(label="finding")}),
        ({"label": ["a;b", "", "b"]}, {"cells": LabelCells(separator=";")}),
        ({"a": [1, 0, 1], "b": [0, 0, 1]}, {"cells": LabelCells(columns=("all",))}),
    ],
)
def test_a_table_of_paths_is_the_manifest_of_its_columns(place, columns, options):
    blank = {name: ["" if one is None or one != one else one for one in of] for name, of in columns.items()}
    Table({"path": FILES} | blank).to_csv("manifest.csv")
    manifest = open_corpus("manifest.csv", **options)
    for table in tables({"path": FILES} | columns):
        corpus = open_corpus(table, **options)
        assert corpus.hash == manifest.hash and isinstance(corpus.reader, ListedFiles)
        for field in fields(corpus):
            one, other = getattr(corpus, field.name), getattr(manifest, field.name)
            assert field.name == "reader" or one == other, field.name


@pytest.mark.parametrize("name", ["image", "pixel_values", "path", "scan"])
def test_a_table_of_pictures_is_the_sequence_of_its_rows(place, name):
    pictures = [np.asarray(Image.open(file)) for file in FILES]
    sequence = open_corpus(list(zip(pictures, [1, 0, 1], ["p", "q", "q"], strict=True)), classes=["a", "b"])
    names = ColumnNames(path=name) if name == "scan" else ColumnNames()
    for table in tables({name: pictures, "label": [1, 0, 1], "source": ["p", "q", "q"]}):
        corpus = open_corpus(table, names=names, classes=["a", "b"])
        assert corpus.hash == sequence.hash and corpus.labels == ("b", "a", "b")
        np.testing.assert_array_equal(np.asarray(corpus.decode(2)), pictures[2])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"file": FILES, "label": list("aba")}, r"lacks the column path; got columns file, label; .*rename"),
        ({"path": FILES}, "lacks the column label"),
        ({"image": [np.zeros((4, 4), np.uint8)]}, "lacks the column label"),
        ({}, "lacks the column path; got columns none"),
        ({"path": FILES, "label": ["a", None, "b"]}, "a row of the table has no label; got row 1"),
        ({"path": ["no.png"], "label": ["a"]}, "the table names files that do not exist; .* the current folder"),
    ],
)
def test_what_is_lacking_is_said_of_the_table(place, columns, words):
    for table in tables(columns):
        with pytest.raises(CorpusError, match=words):
            open_corpus(table)


def test_a_run_asks_for_its_table_again():
    with pytest.raises(CorpusError, match="a sequence or a table in Python"):
        require_given({"sequence": True}, None)
