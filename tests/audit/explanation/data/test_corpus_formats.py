"""Corpora of every format. Oracle: the same pictures as files in class folders; libraries that write a format."""

import errno
import gzip
import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
import torchvision
from PIL import Image
from pyarrow import parquet

from klarsicht.audit.explanation.data import corpus_formats, tables_of_pictures
from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.data.label_cells import LabelCells
from klarsicht.audit.explanation.data.manifest import ColumnNames
from klarsicht.ground.errors import CorpusError, ImageError, MissingExtra, ProgramFailed, Unreachable, UsageError
from klarsicht.ground.pictures.array_images import ArrayForm

CLASSES = ("cat", "dog", "owl")
LABELS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 9, 7, 3), np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PNGS = [png(pixels) for pixels in PIXELS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The class folder, as a corpus."""
    root = tmp_path_factory.mktemp("files")
    for i, (content, label) in enumerate(zip(PNGS, LABELS, strict=True)):
        (root / CLASSES[label]).mkdir(exist_ok=True)
        (root / CLASSES[label] / f"{i:02d}.png").write_bytes(content)
    return root


def check(corpus, labels=None, pixels=PIXELS):
    """The pictures and labels are those that were written, in their order."""
    named = [CLASSES[label] for label in LABELS]
    assert list(corpus.labels) == (labels or named)
    for row, picture in decode_rows(corpus, range(len(corpus))):
        np.testing.assert_array_equal(np.asarray(picture), pixels[row])
    part = corpus[[7, 2]]
    assert [np.asarray(part.decode(i)).tolist() for i in range(2)] == [pixels[7].tolist(), pixels[2].tolist()]
    assert len(set(corpus.keys)) == len(corpus)


def prints(corpus):
    return [corpus.reader.fingerprint(path) for path in corpus.paths]


HUGGINGFACE = json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": {"names": CLASSES}}}}).encode()


def hub_table(rows=slice(None)):
    """A table as `datasets` writes it: pictures as structs, labels as numbers, their names in the metadata."""
    pictures = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(PNGS)]
    table = pa.table(
        {"image": pictures[rows], "label": LABELS[rows], "source": [f"s{i // 2}" for i in range(12)][rows]}
    )
    return table.replace_schema_metadata({b"huggingface": HUGGINGFACE})


def test_labels_that_are_nan_beside_pictures_and_in_arrays_are_missing(tmp_path):
    labels = np.where(np.arange(12) == 7, np.nan, 1.0)
    table = hub_table()
    table = table.set_column(1, "label", pa.array(labels, pa.float64())).replace_schema_metadata(None)
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(CorpusError, match=r"a row has no label; got .*#7"):
        open_corpus(tmp_path / "t.parquet")
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=labels)
    with pytest.raises(CorpusError, match=r"a label is not a number; got nan in .*item 7"):
        open_corpus(tmp_path / "a.npz")


def test_parquet_with_pictures_and_a_folder_of_it_with_splits(tmp_path, folder, monkeypatch):
    (tmp_path / "data").mkdir()
    parquet.write_table(hub_table(slice(0, 8)), tmp_path / "data" / "train-00000-of-00001.parquet", row_group_size=3)
    parquet.write_table(hub_table(slice(8, 12)), tmp_path / "data" / "test-00000-of-00001.parquet")
    corpus = open_corpus(tmp_path)
    assert corpus.splits == ("test",) * 4 + ("train",) * 8
    check(corpus.select(split="train")[range(8)], [CLASSES[i] for i in LABELS[:8]])
    assert corpus.sources[4:] == tuple(f"s{i // 2}" for i in range(8))
    parquet.write_table(hub_table(), tmp_path / "all.parquet", row_group_size=5)
    check(open_corpus(tmp_path / "all.parquet"))
    assert prints(open_corpus(tmp_path / "all.parquet")) == prints(open_corpus(folder))  # a file's bytes are its bytes
    monkeypatch.setattr(tables_of_pictures, "GROUP_BYTES", 1)  # one row group at a time
    check(open_corpus(tmp_path / "all.parquet"))


def test_columns_by_other_names(tmp_path, folder):
    table = pa.table({"scan": PNGS, "finding": [CLASSES[i] for i in LABELS], "patient": [7] * 12, "n": [1] * 12})
    parquet.write_table(table, tmp_path / "a.parquet")
    names = ColumnNames("scan", "finding", "patient")
    corpus = open_corpus(tmp_path / "a.parquet", names=names)
    check(corpus)
    assert set(corpus.sources) == {"7"}
    with pytest.raises(CorpusError, match=r"without the column label.*`label_column`"):
        open_corpus(tmp_path / "a.parquet")
    files = sorted(folder.rglob("*.png"))
    lines = [f"{file},{CLASSES[label]},p{i}" for i, (file, label) in enumerate(zip(files, LABELS, strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(["scan,finding,patient", *lines]))
    corpus = open_corpus(tmp_path / "a.csv", names=names)
    check(corpus)
    assert corpus.sources[3] == "p3"
    with pytest.raises(CorpusError, match=r"lacks the column path.*`path_column`"):
        open_corpus(tmp_path / "a.csv")
    with pytest.raises(CorpusError, match="lacks the column nobody"):
        open_corpus(tmp_path / "a.csv", names=ColumnNames("scan", "finding", "nobody"))


def test_a_folder_of_datasets(tmp_path):
    (tmp_path / "train").mkdir()
    with pa.ipc.new_stream(tmp_path / "train" / "data-00000-of-00001.arrow", hub_table().schema) as stream:
        stream.write_table(hub_table(), max_chunksize=5)
    (tmp_path / "train" / "cache-1234.arrow").write_bytes(b"of another kind")
    corpus = open_corpus(tmp_path)
    check(corpus)
    assert set(corpus.splits) == {"train"}


def test_a_folder_that_the_library_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    made = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(pixels) for pixels in PIXELS], "label": LABELS}, features=features
    )
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "saved")
    check(open_corpus(tmp_path / "saved"))
    made.to_parquet(tmp_path / "a.parquet")
    check(open_corpus(tmp_path / "a.parquet"))
    check(open_corpus(made))


def write_tar(file, members):
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_webdataset_archives(tmp_path, folder):
    for shard, rows in (("a.tar", range(6)), ("b.tar", range(6, 12))):
        members = [("./readme.txt", b"no sample")] if shard == "a.tar" else []
        for i in rows:
            told = json.dumps({"name": CLASSES[LABELS[i]], "patient": i // 3}).encode()
            members += [
                (f"x/{i:03d}.png", PNGS[i]),
                (f"x/{i:03d}.cls", str(LABELS[i]).encode()),
                (f"x/{i:03d}.json", told),
            ]
        write_tar(tmp_path / shard, members)
    corpus = open_corpus(tmp_path)
    check(corpus, [str(i) for i in LABELS])
    assert corpus.keys[7] == "b.tar/x/007"
    assert corpus.left_out == (("1 sample", "no picture among its members"),)
    assert prints(corpus) == prints(open_corpus(folder))
    named = open_corpus(tmp_path, names=ColumnNames("png", "name", "patient"))
    check(named)
    assert named.sources[8] == "2"
    with pytest.raises(CorpusError, match=r"a sample has no label.*`label_column`"):
        open_corpus(tmp_path / "a.tar", names=ColumnNames(label="kind"))
    (tmp_path / "c.tar").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(CorpusError, match=r"a tar archive cannot be read.*Unpack"):
        open_corpus(tmp_path / "c.tar")


def test_a_null_is_no_label_and_no_source(tmp_path):
    told = [{"label": i, "patient": None} for i in range(2)]
    write_tar(tmp_path / "a.tar", [(f"{i}.{end}", content) for i in range(2) for end, content in
                                   (("png", PNGS[i]), ("json", json.dumps(told[i]).encode()))])  # fmt: skip
    assert open_corpus(tmp_path / "a.tar").labels == ("0", "1")
    with pytest.raises(CorpusError, match=r"no sample has that source; got patient; .*source_column"):
        open_corpus(tmp_path / "a.tar", names=ColumnNames(source="patient"))
    write_tar(tmp_path / "b.tar", [("0.png", PNGS[0]), ("0.json", b'{"label": null}')])
    with pytest.raises(CorpusError, match="a sample has no label"):
        open_corpus(tmp_path / "b.tar")


def test_sources_that_are_asked_for_and_not_there_are_named(tmp_path, folder):
    """Else the images of one patient would count as independent."""
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS, patient=np.arange(12) // 3)
    assert len(set(open_corpus(tmp_path / "a.npz", names=ColumnNames(source="patient")).sources)) == 4
    with pytest.raises(CorpusError, match=r"no array of sources of that name; got patients; there are .*patient"):
        open_corpus(tmp_path / "a.npz", names=ColumnNames(source="patients"))
    with pytest.raises(UsageError, match=r"a class folder has no columns; got patient for"):
        open_corpus(folder, names=ColumnNames(source="patient"))


def test_blank_labels_are_missing_and_the_order_of_bytes_does_not_count(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS[:3], labels=np.array(["cat", "", "dog"]))
    with pytest.raises(CorpusError, match="a picture has no label; got item 1 of"):
        open_corpus(tmp_path / "a.npz")
    with pytest.raises(CorpusError, match="item 1 has no label"):
        open_corpus([(Image.fromarray(PIXELS[0]), "cat"), (Image.fromarray(PIXELS[1]), "")])
    np.savez(tmp_path / "b.npz", images=(PIXELS.astype(np.uint16) * 257).astype(">u2"), labels=LABELS)
    np.testing.assert_array_equal(np.asarray(open_corpus(tmp_path / "b.npz").decode(3)), PIXELS[3])


def test_pictures_of_another_palette_have_another_hash():
    ramp = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    pictures = []
    for colour in ((255, 0, 0), (0, 255, 0)):
        picture = ramp.convert("P")
        picture.putpalette([int(c * i / 255) for i in range(256) for c in colour])
        pictures.append(picture)
    red, green, again = (open_corpus([(one, "a")]).hash for one in (*pictures, pictures[0]))
    assert red == again != green


def test_archives_that_the_library_webdataset_wrote(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for i in range(12):
            sink.write({"__key__": f"sample{i:04d}", "png": Image.fromarray(PIXELS[i]), "cls": LABELS[i]})
    check(open_corpus(tmp_path / "a.tar"), [str(i) for i in LABELS])


def test_a_member_is_read_where_it_lies_and_not_searched_for(tmp_path, monkeypatch):
    write_tar(
        tmp_path / "a.tar", [(f"{i}.{end}", c) for i in range(12) for end, c in (("png", PNGS[i]), ("cls", b"0"))]
    )
    corpus = open_corpus(tmp_path / "a.tar")
    monkeypatch.setattr(tarfile, "open", None)
    assert np.asarray(corpus.decode(11)).tolist() == PIXELS[11].tolist()


@pytest.mark.parametrize(
    ("arrays", "splits"),
    [
        ({"images": PIXELS, "labels": LABELS}, ()),
        ({"x": PIXELS.transpose(0, 3, 1, 2), "y": np.array(LABELS)[:, None]}, ()),
        ({"images": PIXELS.astype(np.float32) / 255, "labels": np.array(LABELS, float)}, ()),
        ({"images": PIXELS.astype(np.uint16) * 257, "labels": LABELS}, ()),
        ({"train_images": PIXELS[:8], "train_labels": LABELS[:8], "test_images": PIXELS[8:], "test_labels": LABELS[8:]},
         ("train",) * 8 + ("test",) * 4),
        ({"x_train": PIXELS[:8], "y_train": LABELS[:8], "x_test": PIXELS[8:], "y_test": LABELS[8:]},
         ("train",) * 8 + ("test",) * 4),
    ],
)  # fmt: skip
def test_npz(tmp_path, arrays, splits):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    corpus = open_corpus(tmp_path / "a.npz")
    check(corpus, [str(i) for i in LABELS])
    assert corpus.splits == splits


def test_arrays_by_their_names_and_what_is_wrong_with_them(tmp_path):
    np.savez(
        tmp_path / "a.npz", scans=PIXELS, findings=LABELS, patients=["p"] * 12, short=LABELS[:5], wide=PIXELS[..., 0]
    )
    file = tmp_path / "a.npz"
    corpus = open_corpus(file, names=ColumnNames("scans", "findings", "patients"))
    check(corpus, [str(i) for i in LABELS])
    assert set(corpus.sources) == {"p"}
    for names, told in (
        (ColumnNames("scans", "short"), "arrays of different lengths"),
        (ColumnNames("scans", "wide"), "labels are not a list"),
        (ColumnNames(), r"no arrays of pictures and labels.*`path_column`"),
    ):
        with pytest.raises(CorpusError, match=told):
            open_corpus(file, names=names)
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(CorpusError, match="a file of arrays cannot be read"):
        open_corpus(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (PIXELS.astype(np.float32), r"no known white.*--decode"),
        (PIXELS.astype(np.int32), r"no known white.*--decode"),
        (np.zeros((12, 9, 7, 5), np.uint8), r"an array is not a picture.*C 1, 3 or 4"),
    ],
)
def test_arrays_of_unknown_white_or_of_many_channels_are_refused_one_by_one(tmp_path, pixels, told):
    np.savez(tmp_path / "a.npz", images=pixels, labels=LABELS)
    with pytest.raises(ImageError, match=told):
        open_corpus(tmp_path / "a.npz").decode(0)


def test_hdf5_by_paths_inside(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["set/scans"] = PIXELS
        file["set/findings"] = [CLASSES[i] for i in LABELS]
        encoded = file.create_dataset("set/files", (12,), h5py.vlen_dtype(np.uint8))
        for i, content in enumerate(PNGS):
            encoded[i] = np.frombuffer(content, np.uint8)
    check(open_corpus(tmp_path / "a.h5", names=ColumnNames("set/scans", "set/findings")))
    check(open_corpus(tmp_path / "a.h5", names=ColumnNames("set/files", "set/findings")))
    with fsspec.open("memory://h5/a.h5", "wb") as file:
        file.write((tmp_path / "a.h5").read_bytes())
    check(open_corpus("memory://h5/a.h5", names=ColumnNames("set/scans", "set/findings")))


def test_hdf5_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").touch()
    with pytest.raises(MissingExtra, match=r"\.\[hdf5\]"):
        open_corpus(tmp_path / "a.h5")


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files(tmp_path, packed):
    grey = PIXELS[..., 0]
    for split, rows in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        images = b"\0\0\x08\x03" + b"".join(n.to_bytes(4) for n in grey[rows].shape) + grey[rows].tobytes()
        labels = b"\0\0\x08\x01" + len(LABELS[rows]).to_bytes(4) + bytes(LABELS[rows])
        for name, content in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
            (tmp_path / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    corpus = open_corpus(tmp_path)
    assert corpus.splits == ("test",) * 4 + ("train",) * 8
    order = [*range(8, 12), *range(8)]
    assert list(corpus.labels) == [str(LABELS[i]) for i in order]
    for row, i in enumerate(order):
        np.testing.assert_array_equal(np.asarray(corpus.decode(row)), grey[i])
    (tmp_path / f"train-labels-idx1-ubyte{'.gz' * packed}").unlink()
    with pytest.raises(CorpusError):
        open_corpus(tmp_path)


class Gray(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return torch.full((1, 5, 5), i / 4), i


def test_sequences(folder):
    paths = sorted(folder.rglob("*.png"))
    pictures = [Image.fromarray(pixels) for pixels in PIXELS]
    named = [CLASSES[i] for i in LABELS]
    for items in (paths, PNGS, pictures, list(PIXELS), [str(path) for path in paths]):
        check(open_corpus(list(zip(items, named, strict=True))))
    check(open_corpus([{"image": one, "label": i} for one, i in zip(pictures, LABELS, strict=True)], classes=CLASSES))
    check(open_corpus(torchvision.datasets.ImageFolder(folder)))
    corpus = open_corpus([(one, "a", f"p{i}", i + 1) for i, one in enumerate(pictures)])
    assert (corpus.sources[3], corpus.weights[3]) == ("p3", 4.0)
    grey = open_corpus(Gray())
    assert grey.labels == ("0", "1", "2")
    assert np.unique(np.asarray(grey.decode(2))).tolist() == [128]
    assert prints(open_corpus(list(zip(PNGS, named, strict=True)))) == prints(open_corpus(folder))


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([], "no images"),
        ([5], "not a picture with a label"),
        ([{"image": 5}], r"not a picture with a label.*\['image'\]"),
        ([("a",)], "not a picture with a label"),
        ([(None, 1)], "not a picture with a label"),
        ([(5, 1)], "an item of a sequence is not a picture"),
    ],
)
def test_what_is_no_sequence_of_pictures_is_refused(items, told):
    with pytest.raises(CorpusError, match=told):
        open_corpus(items)


def test_a_sequence_that_draws_its_pictures_is_refused_and_one_that_fails_names_itself():
    class Drawn(Gray):
        def __getitem__(self, i):
            return torch.rand(1, 5, 5), i

    class Failing(Gray):
        def __getitem__(self, i):
            raise RuntimeError("as it happens")

    with pytest.raises(CorpusError, match="another picture each time"):
        open_corpus(Drawn())
    with pytest.raises(CorpusError, match=r"a sequence cannot be read.*as it happens"):
        open_corpus(Failing())


def test_the_hash_of_every_format_is_of_its_content(tmp_path, folder):
    rows = list(zip(PNGS, [CLASSES[i] for i in LABELS], strict=True))
    one = open_corpus(rows)
    assert one.hash == open_corpus(list(rows)).hash
    rows[3] = (PNGS[3][:-1] + b"x", rows[3][1])
    assert one.hash != open_corpus(rows).hash
    files = {}
    for name, table in (("a", hub_table()), ("b", hub_table())):
        (tmp_path / name).mkdir()
        parquet.write_table(table, tmp_path / name / "t.parquet", compression="snappy" if name == "a" else "none")
        files[name] = open_corpus(tmp_path / name / "t.parquet")
    assert files["a"].hash == files["b"].hash  # a copy elsewhere, packed in another way


def test_urls(folder, tmp_path):
    """Class folder, manifest, parquet, archive and arrays in a file system that is only reached by fsspec."""
    memory = fsspec.filesystem("memory")
    for file in folder.rglob("*.png"):
        memory.pipe(f"/bucket/classes/{file.relative_to(folder)}", file.read_bytes())
    corpus = open_corpus("memory://bucket/classes")
    check(corpus)
    assert prints(corpus) == prints(open_corpus(folder))
    assert corpus.keys == open_corpus(folder).keys
    lines = [f"classes/{key},{label}" for key, label in zip(corpus.keys, corpus.labels, strict=True)]
    memory.pipe("/bucket/all.csv", "\n".join(["path,label", *lines]).encode())
    check(open_corpus("memory://bucket/all.csv"))
    parquet.write_table(hub_table(), tmp_path / "t.parquet")
    memory.pipe("/bucket/tables/t.parquet", (tmp_path / "t.parquet").read_bytes())
    check(open_corpus("memory://bucket/tables"))
    write_tar(
        tmp_path / "a.tar", [(f"{i:02d}.{e}", c) for i in range(12) for e, c in (("png", PNGS[i]), ("cls", b"9"))]
    )
    memory.pipe("/bucket/tars/a.tar", (tmp_path / "a.tar").read_bytes())
    check(open_corpus("memory://bucket/tars"), ["9"] * 12)
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    memory.pipe("/bucket/a.npz", (tmp_path / "a.npz").read_bytes())
    check(open_corpus("memory://bucket/a.npz"), [str(i) for i in LABELS])
    with pytest.raises(CorpusError, match=r"memory://bucket/nothing"):
        open_corpus("memory://bucket/nothing")
    memory.rm("/bucket/classes/cat/00.png")
    with pytest.raises(Unreachable, match=r"cat/00\.png"):
        next(decode_rows(corpus, [0]))


@pytest.mark.parametrize("kind", ["tables", "tars", "arrays"])
def test_a_container_whose_disk_does_not_answer_is_out_of_reach(tmp_path, monkeypatch, kind):
    parquet.write_table(hub_table(), tmp_path / "t.parquet")
    write_tar(
        tmp_path / "a.tar", [(f"{i:02d}.{e}", c) for i in range(12) for e, c in (("png", PNGS[i]), ("cls", b"9"))]
    )
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    file = {"tables": "t.parquet", "tars": "a.tar", "arrays": "a.npz"}[kind]
    corpus = open_corpus(tmp_path / file)
    _ = corpus.hash
    assert corpus.absent == set()
    corpus_formats.close_tables()  # as a worker process begins
    corpus_formats.close_arrays()
    opened = Path.open

    def stale(path, *args, **kwargs):
        if path.name == file:
            raise OSError(errno.ESTALE, "Stale file handle")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", stale)
    with pytest.raises(Unreachable, match=r"out of reach.*Stale file handle"):
        next(decode_rows(corpus, [3]))
    monkeypatch.undo()
    check(corpus, list(corpus.labels))


def test_a_scheme_whose_package_is_missing_names_it(monkeypatch):
    with pytest.raises((MissingExtra, CorpusError), match=r"nowhere"):
        open_corpus("nowhere://bucket/a")
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(MissingExtra, match=r"s3://.*\.\[cloud\]"):
        open_corpus("s3://bucket/a")


DECODER = """
import numpy as np

def window(path):
    file, _, part = path.partition("#")
    volume = np.load(file)
    return volume[int(part)].clip(100, 300) / 200 - .5

def add(content):
    import io
    from PIL import Image
    return 255 - np.asarray(Image.open(io.BytesIO(content)))

def fails(path):
    raise ValueError("no such window")

number = 5
"""


def test_what_is_stored_is_decoded_by_a_users_function(tmp_path):
    """Slices of a volume by their number after a #, and the bytes of a table, each with a function."""
    (tmp_path / "read.py").write_text(DECODER)
    volume = RNG.integers(0, 400, (4, 6, 5)).astype(np.int16)
    np.save(tmp_path / "v.npy", volume)
    (tmp_path / "all.csv").write_text("path,label\n" + "".join(f"v.npy#{i},a\n" for i in range(4)))
    corpus = open_corpus(tmp_path / "all.csv", decoder=f"{tmp_path}/read.py:window")
    for i in range(4):
        wanted = np.rint((volume[i].clip(100, 300) / 200 - 0.5) * 255)
        assert np.abs(np.asarray(corpus.decode(i)) - wanted).max() <= 1
    with pytest.raises(CorpusError, match="files that do not exist"):
        open_corpus(tmp_path / "all.csv")
    parquet.write_table(hub_table(), tmp_path / "t.parquet")
    check(open_corpus(tmp_path / "t.parquet", decoder=f"{tmp_path}/read.py:add"), pixels=255 - PIXELS)
    failing = open_corpus(tmp_path / "all.csv", decoder=f"{tmp_path}/read.py:fails")
    with pytest.raises(ProgramFailed, match=r"--decode fails on other images.*no such window.*3 others"):
        next(decode_rows(failing, [0]))
    for spec, told in (
        ("read.py:number", "no function"),
        ("read.py:windo", "Did you mean window"),
        ("no.py:x", "no such file"),
    ):
        with pytest.raises(UsageError, match=told):
            open_corpus(tmp_path / "all.csv", decoder=f"{tmp_path}/{spec}")


@pytest.mark.parametrize("form", [None, ArrayForm(3, "uint8", 0, 255)], ids=["picture", "array"])
def test_a_function_may_return_what_pillow_opened_and_did_not_load(tmp_path, form):
    """A damaged picture and a closed file show only when pixels are loaded: each is one image's error."""
    (tmp_path / "read.py").write_text(OPENS)
    pixels = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    for name in ("a.png", "cut.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:600])
    (tmp_path / "all.csv").write_text("path,label\na.png,a\ncut.png,a\n")
    opens, closes = (
        open_corpus(tmp_path / "all.csv", decoder=f"{tmp_path}/read.py:{by}") for by in ("opens", "closes")
    )
    np.testing.assert_array_equal(np.asarray(opens.as_arrays(form).decode(0)), pixels)
    for corpus, row in ((opens, 1), (closes, 0)):
        with pytest.raises(ImageError, match="cannot use a picture"):
            corpus.as_arrays(form).decode(row)


OPENS = """
from PIL import Image

def opens(path):
    return Image.open(path)

def closes(path):
    with Image.open(path) as image:
        return image
"""


def test_files_of_any_ending_are_images_where_a_function_decodes_them(tmp_path):
    (tmp_path / "read.py").write_text(DECODER)
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        with (tmp_path / "data" / label / "v.volume").open("wb") as file:
            np.save(file, np.full((1, 6, 5), 200))
    with pytest.raises(CorpusError, match="no images in class folders"):
        open_corpus(tmp_path / "data")
    assert open_corpus(tmp_path / "data", decoder=f"{tmp_path}/read.py:window").labels == ("a", "b")


def test_arrays_in_class_folders_are_pictures(tmp_path):
    for i, (label, pixels) in enumerate(zip(LABELS, PIXELS, strict=True)):
        (tmp_path / f"{label}").mkdir(exist_ok=True)
        np.save(tmp_path / f"{label}" / f"{i:02d}.npy", pixels)
    check(open_corpus(tmp_path), labels=[str(label) for label in LABELS])


def test_several_labels_stand_in_manifests_only(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    for data in (tmp_path / "a.npz", [(PIXELS[0], "a;b")]):
        with pytest.raises(UsageError, match="only a manifest holds several labels of an image"):
            open_corpus(data, LabelCells(separator=";"))


def test_white_levels_and_bounds_hold_for_pairs_of_images_and_labels(folder, tmp_path):
    lines = [f"{file},{i % 2};{i % 3}" for i, file in enumerate(sorted(folder.rglob("*.png")))]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines]))
    corpus = open_corpus(tmp_path / "a.csv", LabelCells(separator=";")).with_limits(4095, 3.0).pairs()
    assert (corpus.megapixels, set(corpus.white_levels), len(corpus.white_levels)) == (3.0, {4095}, len(corpus))
    assert isinstance(corpus, Corpus)
