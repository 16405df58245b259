"""Several labels of an image in a manifest. Oracle: the same labels written down by hand, in cells and in columns."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from klarsicht.audit.explanation.data.corpus import decode_rows
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.data.label_cells import LabelCells, split_labels
from klarsicht.ground.errors import CorpusError, UsageError
from klarsicht.ground.pictures import stored_images

PAIRS = [("0.png", "hen"), ("1.png", "duck"), ("1.png", "hen"), ("3.png", "cock")]
COLUMNS = ("cock", "duck", "hen")


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        Image.new("RGB", (4, 4), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def written(folder, text):
    (folder / "list.csv").write_text(text)
    return folder / "list.csv"


def pairs_of(corpus):
    return list(zip(corpus.keys, corpus.labels, strict=True))


@pytest.mark.parametrize("separator", [";", "|", " ", "::"])
def test_cells_are_split_where_the_separator_stands(folder, separator):
    cells = ["hen", f"duck{separator}hen{separator}duck", "", f"cock{separator}"]
    lines = "\n".join(f"{i}.png,{cell},p{i}" for i, cell in enumerate(cells))
    corpus = open_corpus(written(folder, f"path,label,source\n{lines}\n"), LabelCells(separator))
    assert len(corpus) == 4 and corpus.classes == COLUMNS and corpus.pairs().classes == COLUMNS
    pairs = corpus.pairs()
    assert pairs_of(pairs) == PAIRS and pairs.sources == ("p0", "p1", "p1", "p3")
    assert pairs.image_numbers.tolist() == [0, 1, 1, 2]
    assert corpus.image_numbers.tolist() == [0, 1, 2, 3]
    assert pairs.left_out == (("1 image", "no label"),)
    assert pairs.pairs() is pairs
    assert pairs.hash != corpus.hash


@pytest.mark.parametrize(("one", "nought"), [("1", "0"), ("1.0", "0.0"), ("1", ""), ("true", "false")])
@pytest.mark.parametrize("chosen", [COLUMNS, ("all",)])
def test_columns_of_marks_are_the_same_labels(folder, one, nought, chosen):
    lines = [
        ",".join([f"{i}.png", "test", *(one if (f"{i}.png", name) in PAIRS else nought for name in COLUMNS)])
        for i in range(4)
    ]
    text = "\n".join([f"path,split,{','.join(COLUMNS)}", *lines])
    pairs = open_corpus(written(folder, text), LabelCells(columns=chosen)).pairs()
    assert pairs_of(pairs) == PAIRS and set(pairs.splits) == {"test"}


def test_columns_of_a_parquet_file_may_be_of_any_type(folder):
    names = [f"{i}.png" for i in range(4)]
    columns = {name: [(path, name) in PAIRS for path in names] for name in COLUMNS}
    table = {"path": names, "hen": columns["hen"], "duck": np.array(columns["duck"], np.float32)}
    table["cock"] = [1 if mark else None for mark in columns["cock"]]
    parquet.write_table(pa.table(table), folder / "list.parquet")
    assert pairs_of(open_corpus(folder / "list.parquet", LabelCells(columns=COLUMNS)).pairs()) == PAIRS


def test_an_image_of_several_rows_is_decoded_once_and_each_row_gets_its_own(folder, monkeypatch):
    pairs = open_corpus(written(folder, "path,label\n0.png,hen\n1.png,duck;hen\n"), LabelCells(";")).pairs()
    read = []
    whole = stored_images.decode
    monkeypatch.setattr(stored_images, "decode", lambda path, *limits: (read.append(path), whole(path, *limits))[1])
    for _, picture in decode_rows(pairs, range(3)):
        picture.putpixel((0, 0), (9, 9, 9))  # a transform that changes its picture
        assert picture.getpixel((0, 0)) == (9, 9, 9)
    assert len(read) == 2
    shown = [picture for _, picture in decode_rows(pairs, range(3))]
    assert [picture.getpixel((0, 0))[0] for picture in shown] == [0, 40, 40] and shown[1] is not shown[2]


def test_without_a_separator_a_cell_is_the_label(folder):
    assert split_labels("a;b", "") == ("a;b",) and split_labels(" a ;; b;a", ";") == ("a", "b")
    corpus = open_corpus(written(folder, "path,label\n0.png,hen;duck\n"))
    assert corpus.pairs() is corpus and corpus.classes == ("hen;duck",)


@pytest.mark.parametrize(
    ("text", "cells", "match"),
    [
        ("path,hen\n0.png,-1\n", LabelCells(columns=("hen",)), "hen holds neither 0 nor 1; got '-1' in line 2"),
        ("path,hen\n0.png,1\n", LabelCells(columns=("gans",)), "lacks a column of `label_columns`; got gans.*be hen"),
        ("path,label\n0.png,x\n", LabelCells(columns=("all",)), "lacks a column of `label_columns`; got all.*be none"),
        ("path,a;b\n0.png,1\n", LabelCells(columns=("a;b",)), "could be mistaken for two; got a;b"),
        ("path,label\n0.png,a;b\n0.png,c\n", LabelCells(";"), "listed twice; got 2 x 0.png"),
        ("path,split\n0.png,a\n", LabelCells(";"), "lacks the column label"),
    ],
)
def test_manifests_that_do_not_hold_such_labels_say_why(folder, text, cells, match):
    with pytest.raises(CorpusError, match=match):
        open_corpus(written(folder, text), cells)


def test_no_label_at_all_two_ways_at_once_and_a_folder_are_refused(folder):
    with pytest.raises(CorpusError, match="no image has a label; got 1 blank"):
        open_corpus(written(folder, "path,label\n0.png,\n"), LabelCells(";")).pairs()
    with pytest.raises(UsageError, match=r"given twice.*--label-separator or --label-columns"):
        LabelCells(";", ("hen",))
    with pytest.raises(UsageError, match="a class folder gives each image one label"):
        open_corpus(folder, LabelCells(";"))
