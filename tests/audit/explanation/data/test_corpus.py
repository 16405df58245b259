"""Corpora. Oracles: folders and manifests laid out by hand, hashlib over whole files, pyarrow and csv as writers."""

import csv
import os
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.data.manifest import read_columns
from klarsicht.ground.errors import CorpusError, ImageError, Unreachable


def picture(path, value=0, size=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    for i, key in enumerate(["b/2.png", "b/1.jpg", "a c/deep/x.PNG", "a/z.bmp", "a/sub/y.png"]):
        picture(root / key, 40 * i)
    return root


def manifest(folder, lines, name="list.csv", header=("path", "label", "source", "split")):
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([header[: len(lines[0]) if lines else None], *lines])
    return folder / name


# Folders


def test_a_folder_is_sorted_classes_and_images_anywhere_below_them(folder):
    corpus = open_corpus(folder)
    assert corpus.keys == ("a/sub/y.png", "a/z.bmp", "a c/deep/x.PNG", "b/1.jpg", "b/2.png")
    assert corpus.labels == ("a", "a", "a c", "b", "b")
    assert corpus.classes == ("a", "a c", "b")
    assert corpus.paths == tuple(str(folder / key) for key in corpus.keys)
    assert (corpus.sources, corpus.splits, corpus.left_out, len(corpus)) == ((), (), (), 5)


def test_folders_of_splits_hold_the_classes(tmp_path):
    for key in ("train/a/1.png", "train/b/2.png", "Val/a/x/3.png", "test/b/4.png"):
        picture(tmp_path / "data" / key)
    corpus = open_corpus(tmp_path / "data")
    assert sorted(zip(corpus.keys, corpus.labels, corpus.splits, strict=True)) == [
        ("Val/a/x/3.png", "a", "Val"), ("test/b/4.png", "b", "test"), ("train/a/1.png", "a", "train"),
        ("train/b/2.png", "b", "train"),
    ]  # fmt: skip
    assert corpus.select(split="Val").keys == ("Val/a/x/3.png",)


@pytest.mark.parametrize("other", ["carton/1.png", "train/1.png"])
def test_folders_that_are_not_all_of_splits_are_classes(tmp_path, other):
    for key in ("train/a/1.png", "test/b/4.png", other):
        picture(tmp_path / "data" / key)
    corpus = open_corpus(tmp_path / "data")
    assert corpus.splits == () and {"train", "test"} <= set(corpus.classes)


def test_what_is_left_out_is_counted_and_named(folder):
    for name in ["a/1.xml", "a/2.xml", "b/README", "notes.txt", "loose.png", ".DS_Store", "a/.x.png", "a/.git/y.png"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    (folder / "empty").mkdir()
    (folder / ".hidden").mkdir()
    corpus = open_corpus(folder)
    assert len(corpus) == 5
    assert corpus.left_out == (
        ("class empty", "no image in its folder"),
        ("b/README", "no image by its ending"),
        ("2 files, such as a/1.xml", "no image by its ending .xml"),
        ("loose.png", "in no class folder"),
        ("notes.txt", "no image by its ending .txt"),
    )


def test_linked_class_folders_are_followed_and_loops_are_not(folder, tmp_path):
    picture(tmp_path / "elsewhere" / "1.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "loop").symlink_to(folder)
    assert open_corpus(folder)[:3].keys == ("a/sub/y.png", "a/z.bmp", "a c/deep/x.PNG")
    assert open_corpus(folder).keys[-1] == "linked/1.png"


def test_names_that_are_not_utf8_are_left_out(folder):
    shutil.copy(folder / "b/2.png", os.fsencode(folder / "b") + b"/\xff.png")
    corpus = open_corpus(folder)
    assert len(corpus) == 5
    assert corpus.left_out == (("b/?.png", "its name is not UTF-8"),)


def test_a_corpus_in_a_folder_that_is_not_utf8_is_refused_before_a_table_is_written(folder, tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    shutil.copytree(folder / "b", os.path.join(place, "b"))  # noqa: PTH118 - a name that is no text
    with pytest.raises(CorpusError, match=r"path of an image is not UTF-8.*udcff.*Rename it"):
        open_corpus(place)


@pytest.mark.parametrize("make", [lambda root: None, lambda root: picture(root / "loose.png")], ids=["empty", "loose"])
def test_a_folder_without_classes_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(CorpusError, match=r"no images in class folders.*one sub-folder a class"):
        open_corpus(tmp_path)


def test_of_a_folder_that_holds_its_manifest_the_manifest_is_asked_for(tmp_path):
    """As `audit plant` and `audit clean-data` write it; a class folder of another name, or without one, is a corpus."""
    picture(tmp_path / "images" / "0.png")
    assert set(open_corpus(tmp_path).labels) == {"images"}
    (tmp_path / "manifest.csv").write_text("path,label\nimages/0.png,carton\n")
    with pytest.raises(CorpusError, match=r"are in its manifest.*Give the manifest: .*manifest\.csv"):
        open_corpus(tmp_path)
    assert set(open_corpus(tmp_path / "manifest.csv").labels) == {"carton"}
    picture(tmp_path / "carton" / "0.png")
    assert set(open_corpus(tmp_path).labels) == {"carton", "images"}


def test_a_missing_place_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="no such folder or manifest"):
        open_corpus(tmp_path / "nothing")
    with pytest.raises(CorpusError, match="a folder cannot be read"):
        Corpus.from_folder(tmp_path / "nothing")


# Manifests


LINES = [("b/2.png", "001", "p1", "train"), ("a/z.bmp", "002", "", "test"), ("b/1.jpg", "001", "p1", "train")]


def test_a_manifest_keeps_its_order_and_labels_stay_text(folder):
    corpus = open_corpus(manifest(folder, LINES))
    assert corpus.keys == ("b/2.png", "a/z.bmp", "b/1.jpg")
    assert corpus.labels == ("001", "002", "001")
    assert corpus.sources == ("p1", "", "p1")
    assert corpus.splits == ("train", "test", "train")
    assert corpus.paths[0] == str(folder / "b/2.png")


def test_parquet_says_the_same_as_csv(folder):
    columns = dict(zip(("path", "label", "source", "split"), map(list, zip(*LINES, strict=True)), strict=True))
    parquet.write_table(pa.table(columns), folder / "list.parquet")
    assert open_corpus(folder / "list.parquet") == open_corpus(manifest(folder, LINES))


def test_numbers_and_nulls_in_parquet(folder):
    parquet.write_table(
        pa.table({"path": ["b/2.png", "b/1.jpg"], "label": [3, 4], "source": [None, "x"]}), folder / "list.parquet"
    )
    corpus = open_corpus(folder / "list.parquet")
    assert (corpus.labels, corpus.sources, corpus.splits) == (("3", "4"), ("", "x"), ())


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_label_that_is_nan_in_parquet_is_missing_as_null_is(folder, missing, kind):
    """pandas writes a missing number as NaN: as a text it would be a class of its own."""
    columns = {"path": ["b/2.png", "b/1.jpg"], "label": pa.array([3.0, missing], kind)}
    parquet.write_table(pa.table(columns), folder / "list.parquet")
    with pytest.raises(CorpusError, match="a line of the manifest has no label; got line 3"):
        open_corpus(folder / "list.parquet")
    parquet.write_table(pa.table(columns | {"label": ["a", "nan"]}), folder / "list.parquet")  # a text is a name
    assert open_corpus(folder / "list.parquet").labels == ("a", "nan")


def test_weights_are_numbers_and_follow_their_rows(folder):
    columns = ("path", "label", "source", "split", "weight")
    lines = [("b/2.png", "x", "", "", "0.5"), ("b/1.jpg", "x", "", "", ""), ("a/z.bmp", "y", "", "", "3")]
    corpus = open_corpus(manifest(folder, lines, header=columns))
    assert corpus.weights == (0.5, 1, 3)
    assert corpus[[2, 0]].weights == (3, 0.5)
    assert open_corpus(folder).weights == ()


def test_missing_files_are_counted_and_three_are_named(folder):
    lines = [("b/2.png", "x"), *[(f"gone/{i}.png", "x") for i in range(5)]]
    with pytest.raises(CorpusError, match="5 of 6") as caught:
        open_corpus(manifest(folder, lines))
    assert [name in str(caught.value) for name in ("gone/0.png", "gone/2.png", "gone/3.png")] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("file,label\nb/2.png,x\n", "lacks the column path; got columns file, label"),
        ("path;label\nb/2.png;x\n", r"separated by ';': save it with commas"),
        ("path\tlabel\nb/2.png\tx\n", "separated by tabs: save it with commas"),
        ("path,label\nb/2.png,\n", "has no label; got line 2"),
        ("path,label\nb/2.png,x\nb/2.png,y\n", "listed twice; got 2 x b/2.png"),
        ("path,label\n", "no images"),
        ("path,label,weight\nb/2.png,x,-1\n", "a weight is not a number above 0; got '-1' in line 2"),
        ("path,label,weight\nb/2.png,x,nan\n", "a weight is not a number"),
        ("path,label,weight\nb/2.png,x,heavy\n", "a weight is not a number"),
        ("", "cannot be read"),
        ("path,label\nb/2.png,x,1,2\n", "cannot be read"),
        ("path,label\n\xff,x\n", r"cannot be read.*Save it as UTF-8"),
    ],
)
def test_bad_manifests_say_why(folder, content, match):
    (folder / "list.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(CorpusError, match=match):
        open_corpus(folder / "list.csv")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_picture_is_no_manifest_and_is_not_printed(folder, kind):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(folder / "x.y", kind)
    with pytest.raises(CorpusError, match=r"^no manifest; got .*x\.y; .* Give the folder that the pictures lie in\.$"):
        open_corpus(folder / "x.y")


def test_a_damaged_parquet_manifest_is_read_or_refused_in_one_line(folder):
    """Each byte altered in turn: what is decoded is text, and what is not is a CorpusError."""
    columns = dict(zip(("path", "label", "source", "split"), map(list, zip(*LINES, strict=True)), strict=True))
    parquet.write_table(pa.table(columns), folder / "list.parquet", compression="none")
    whole = (folder / "list.parquet").read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        (folder / "list.parquet").write_bytes(whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :])
        try:
            assert all(
                isinstance(text, str) for column in read_columns(folder / "list.parquet").values() for text in column
            )
        except CorpusError:
            refused += 1
    assert refused > 100
    (folder / "list.parquet").write_bytes(whole.replace(b"b/2.png", b"b/\xff.png"))
    with pytest.raises(CorpusError, match="cannot be read"):
        open_corpus(folder / "list.parquet")


def test_text_that_is_no_parquet(folder):
    (folder / "list.parquet").write_text("path,label\n")
    with pytest.raises(CorpusError, match="cannot be read"):
        open_corpus(folder / "list.parquet")


# Choosing rows


def test_select_takes_one_split(folder):
    corpus = open_corpus(manifest(folder, LINES))
    assert corpus.select(split="train").keys == ("b/2.png", "b/1.jpg")
    assert corpus.select(split="test").sources == ()
    with pytest.raises(CorpusError, match=r"no such split; got 'val'; there are test, train"):
        corpus.select(split="val")
    with pytest.raises(CorpusError, match="no column split"):
        open_corpus(folder).select(split="train")


def test_rows_are_taken_in_the_order_asked(folder):
    corpus = open_corpus(folder)
    assert corpus[np.array([3, 0])].keys == (corpus.keys[3], corpus.keys[0])
    assert corpus[1:3].labels == corpus.labels[1:3]
    with pytest.raises(IndexError):
        corpus[[5]]


def test_the_table_of_a_corpus_has_its_columns(folder):
    for corpus in (open_corpus(folder), open_corpus(manifest(folder, LINES))):
        table = corpus.to_table()
        assert table.column_names == ["key", "path", "label", "source", "split"]
        for column, wanted in zip(table.column_names, (corpus.keys, corpus.paths, corpus.labels), strict=False):
            assert table[column].to_pylist() == list(wanted)


# Identity


def test_a_copy_elsewhere_has_the_same_hash_whatever_its_dates(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(copy / "b/2.png", (1, 1))
    assert open_corpus(copy).hash == open_corpus(folder).hash


def changed(folder, how):
    file = folder / "b/2.png"
    content = bytearray(file.read_bytes())
    match how:
        case "first byte":
            content[0] ^= 1
        case "last byte":
            content[-1] ^= 1
        case "longer":
            content += b"\0"
        case "gone":
            return file.unlink()
        case "renamed":
            return file.rename(folder / "b/3.png")
        case "moved":
            return file.rename(folder / "a/2.png")
    return file.write_bytes(content)


@pytest.mark.parametrize("how", ["first byte", "last byte", "longer", "gone", "renamed", "moved"])
@pytest.mark.parametrize("size", [10, 100_000, 200_000])
def test_a_change_changes_the_hash(folder, how, size):
    (folder / "b/2.png").write_bytes(np.random.default_rng(0).bytes(size))
    before = open_corpus(folder).hash
    changed(folder, how)
    assert open_corpus(folder).hash != before


def test_labels_and_sources_are_part_of_the_identity(folder):
    hashes = {open_corpus(manifest(folder, [("b/2.png", label, source)])).hash for label in "xy" for source in "st"}
    assert len(hashes) == 4


def test_a_file_that_was_listed_and_went_away_is_out_of_reach(folder):
    corpus, later = open_corpus(folder), open_corpus(folder)
    _ = corpus.hash
    (folder / "b/2.png").unlink()
    with pytest.raises(Unreachable, match=r"2\.png.*its content may be intact"):
        _ = later.hash
    with pytest.raises(Unreachable, match=r"2\.png"):
        list(decode_rows(corpus, [corpus.keys.index("b/2.png")]))
    (folder / "b/2.png").symlink_to("nothing.png")
    with pytest.raises(Unreachable, match=r"2\.png"):
        list(decode_rows(corpus, [corpus.keys.index("b/2.png")]))


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(folder):
    (folder / "b/2.png").unlink()
    (folder / "b/2.png").symlink_to("nothing.png")
    corpus = open_corpus(folder)
    _ = corpus.hash
    ((_, gone),) = decode_rows(corpus[[2, 4]], [1])
    assert isinstance(gone, ImageError)
    assert "2.png" in str(gone)


# Pictures


def test_rows_are_decoded_or_give_their_reason(folder):
    (folder / "b/2.png").write_text("not an image")
    corpus = open_corpus(folder)
    (_, good), (row, bad) = decode_rows(corpus, [1, 4])
    assert np.asarray(good).tolist() == np.full((4, 4, 3), 120).tolist()
    assert (row, type(bad)) == (4, ImageError)
    assert "2.png" in str(bad)


def test_pipes_and_devices_in_a_folder_are_never_opened(tmp_path):
    """Either would be read for ever: the corpus opens, and names them where they are decoded."""
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        picture(tmp_path / "data" / name)
    plain = open_corpus(tmp_path / "data").hash
    os.mkfifo(tmp_path / "data" / "a" / "pipe.png")
    (tmp_path / "data" / "a" / "zero.png").symlink_to("/dev/zero")
    corpus = open_corpus(tmp_path / "data")
    assert corpus.hash != plain
    refused = {corpus.keys[row]: str(found) for row, found in decode_rows(corpus, range(len(corpus)))
               if isinstance(found, ImageError)}  # fmt: skip
    assert set(refused) == {"a/pipe.png", "a/zero.png"}
    assert all("not a regular file" in told for told in refused.values())


def test_white_levels_of_a_manifest_decide_what_an_image_is(tmp_path):
    codes = np.array([[0, 1000, 4095]], np.uint16)
    for name in ("a", "b"):
        Image.fromarray(codes).save(tmp_path / f"{name}.png")
    (tmp_path / "m.csv").write_text("path,label,white_level\na.png,x,4095\nb.png,x,\n")
    found = open_corpus(tmp_path / "m.csv")
    assert found.white_levels == (4095, 0)
    np.testing.assert_array_equal(np.asarray(found.decode(0)), [[0, 62, 255]])
    np.testing.assert_array_equal(np.asarray(found.decode(1)), [[0, 4, 16]])
    stated = found.with_limits(2000, 220)
    assert stated.white_levels == (4095, 2000) and stated[[1]].white_levels == (2000,)
    assert len({found.hash, stated.hash, replace(found, white_levels=()).hash}) == 3
    for wrong in ("0", "-1", "70000", "12.5", "nan", "white"):
        (tmp_path / "m.csv").write_text(f"path,label,white_level\na.png,x,{wrong}\n")
        with pytest.raises(CorpusError, match=r"white level out of range.*line 2"):
            open_corpus(tmp_path / "m.csv")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_a_name_that_no_system_can_hold_is_a_file_that_is_not_there(tmp_path, name):
    (tmp_path / "m.csv").write_text(f"path,label\n{name},x\n")
    with pytest.raises(CorpusError):
        open_corpus(tmp_path / "m.csv")


def named_corpus(sources):
    keys = [f"{i}.png" for i in range(3, 3 + len(sources))]
    return Corpus(tuple(keys), tuple(keys), ("a",) * len(keys), tuple(sources))


@pytest.mark.parametrize("sources", [[], ["", ""] * 60, ["p", "", "q", "p", "ä", "Z"] * 20])
def test_sources_are_numbered_in_the_order_of_their_texts(sources):
    """Oracle: np.unique of the texts "row 12" and "source p"; the table gives the same as the corpus."""
    corpus = named_corpus(sources or [""] * 120)
    texts = [f"source {name}" if name else f"row {i}" for i, name in enumerate(sources or [""] * 120)]
    expected = np.unique(texts, return_inverse=True)[1]
    np.testing.assert_array_equal(corpus.source_numbers, expected)
    np.testing.assert_array_equal(Corpus.source_numbers_of(corpus.to_table()), expected)


def test_rows_of_one_image_have_one_source():
    corpus = Corpus(("x", "x", "y"), ("x", "x", "y"), ("a", "b", "a"))
    assert corpus.source_numbers.tolist() == [0, 0, 1]
    assert Corpus.source_numbers_of(corpus.to_table()).tolist() == [0, 0, 1]


def test_equal_labels_are_kept_once():
    corpus = Corpus(("x", "y"), ("x", "y"), ("".join(["ab", "c"]), "".join(["a", "bc"])))
    assert corpus.labels == ("abc", "abc") and corpus.labels[0] is corpus.labels[1]


def test_sources_of_a_table_take_little_memory():
    """Bound: 8 bytes of a number, and what sorting numbers of five digits takes; texts would take 200 and more."""
    n = 20_000
    table = named_corpus([""] * n).to_table()
    Corpus.source_numbers_of(table)
    tracemalloc.start()
    try:
        Corpus.source_numbers_of(table)
        assert tracemalloc.get_traced_memory()[1] < 100 * n
    finally:
        tracemalloc.stop()


def test_a_column_of_splits_without_values_is_said_to_be_empty(tmp_path):
    picture(tmp_path / "1.png")
    (tmp_path / "list.csv").write_text("path,label,split\n1.png,a,\n")
    with pytest.raises(CorpusError, match=r"there are none: .*, or an empty one$"):
        open_corpus(tmp_path / "list.csv").select(split="test")
