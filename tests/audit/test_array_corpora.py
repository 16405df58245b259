"""Audits of images that are arrays. Oracles: the audit of the same images as 8-bit files, whose numbers are the same
shares of their range to the last bit; and marks that the test put into images of four channels.
"""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from tests.audit.conftest import SIDE, in_brief, network, write_corpus
from torch import nn

from klarsicht import audit
from klarsicht.audit.cleaning.artifacts.masks import Masks
from klarsicht.audit.cleaning.data.clean_data import clean_corpus, clean_data
from klarsicht.audit.cleaning.data.image_actions import make_action, make_inpaint_action, make_pass_action
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.duplicates import find_duplicates
from klarsicht.audit.explanation.models.array_transforms import ArrayTransform
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.audit.verdicts.quantification.check_pictures import check_pictures
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.cli.app import run as klarsicht
from klarsicht.explorer.explored_run import open_explored_run
from klarsicht.ground.errors import CorpusError, InputError
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.run_folder.store import RunStore

CODES = 257  # 16-bit codes of an 8-bit level: level / 255 = 257 level / 65535
NETS = """
import numpy as np
import torch
from klarsicht.audit import ArrayTransform
from tests.audit.conftest import network
from tests.audit.test_array_corpora import Multispectral

def deep():
    return network(), ArrayTransform(lambda x: torch.from_numpy(x.transpose(2, 0, 1) / np.float32(65535)), 3, "uint16")

def tiles():
    return Multispectral().eval(), ArrayTransform(lambda x: torch.from_numpy(x.transpose(2, 0, 1)), 4, "float32", -1, 3)

def reflectance(path):
    return np.load(path).astype(np.float32) / 1000
"""


class Multispectral(nn.Module):
    """The network of `conftest.Marked` for four channels from -1 to 3: class "b" also by a square bright in all."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(4, 4, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(4)[:, :, None, None] / 4)
            self.first.weight[3] = 0.25
            self.first.bias.copy_(torch.tensor([0.25, 0.25, 0.25, -2.6]))  # the last: only where all four are bright
            self.last.weight.copy_(torch.eye(4)[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 9.0], [0, 0, 1.0, 0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.flatten(self.pool(self.last(self.relu(self.first(x))))))


def scaled(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)) / np.float32(65535))


def deep_model():
    return load_model((network(), ArrayTransform(scaled, 3, "uint16")))


def tile_model():
    plain = ArrayTransform(lambda x: torch.from_numpy(x.transpose(2, 0, 1)), 4, "float32", -1, 3, shown=(2, 1, 0))
    return load_model((Multispectral().eval(), plain))


def settings(**changes):
    return AuditSettings(**{"model": "object", "data": "in Python", "unit": 64, "neighbours": 6} | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The corpus of 8-bit files, and the same in class folders of 16-bit .npy files."""
    folder = tmp_path_factory.mktemp("arrays")
    write_corpus(folder / "files")
    for file in sorted((folder / "files").rglob("*.png")):
        target = folder / "arrays" / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        np.save(target / f"{file.stem}.npy", np.asarray(Image.open(file)).astype(np.uint16) * CODES)
    (folder / "nets.py").write_text(NETS)
    return folder


@pytest.fixture(scope="module")
def of_files(place):
    with in_brief(60):
        store = pipeline.run(settings(data=str(place / "files")), place / "run", classifier=load_model(network()))
        return store, quantify(store, classifier=load_model(network()))


@pytest.fixture(scope="module")
def of_arrays(place):
    with in_brief(60):
        store = pipeline.run(settings(data=str(place / "arrays")), place / "deep", classifier=deep_model())
        return store, quantify(store, classifier=deep_model())


@pytest.mark.slow
def test_sixteen_bits_are_audited_as_eight_bits_are(of_files, of_arrays):
    for name in ("maps", "logits", "features", "channels"):
        np.testing.assert_array_equal(of_arrays[0].array(name)[:], of_files[0].array(name)[:])
    told = [[repr(replace(verdict, members=()).to_json()) for verdict in found] for _, found in (of_files, of_arrays)]
    assert told[0] == told[1]
    assert of_arrays[1].of("b").used
    assert of_arrays[0].manifest["array_form"]["white"] == 65535
    assert "Images are arrays: 3 channels of uint16, 0 to 65535." in (of_arrays[0].path / "report.html").read_text()


@pytest.mark.slow
def test_pictures_of_report_and_explorer_are_those_of_the_files(of_files, of_arrays):
    drawn = [sorted((store.path / "pictures").glob("*.jpg")) for store, _ in (of_files, of_arrays)]
    assert [file.name for file in drawn[0]] == [file.name for file in drawn[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*drawn, strict=True))
    runs = [open_explored_run(store.path, "tester") for store, _ in (of_files, of_arrays)]
    for kind in ("image", "overlay"):
        assert runs[0].pictures.draw(61, kind) == runs[1].pictures.draw(61, kind)


@pytest.mark.nightly
def test_a_picture_is_checked_and_copies_are_found(place, of_files, of_arrays):
    rows = [
        check_pictures(store, [place / folder / "b"], classifier=model)
        for (store, _), folder, model in (
            (of_files, "files", load_model(network())),
            (of_arrays, "arrays", deep_model()),
        )
    ]
    told = [[(one.predicted, one.probability, one.rests) for one in found.pictures] for found in rows]
    assert told[0] == told[1]
    assert find_duplicates(of_arrays[0].path).groups == find_duplicates(of_files[0].path).groups


@pytest.mark.slow
def test_the_command_line_audits_arrays(place, of_arrays, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    told = ["--model", "nets.py:deep", "--data", str(place / "arrays"), "--unit", "64", "--method", "HeadRelevance"]
    assert klarsicht(["audit", "run", *told, "--out", str(tmp_path / "run")]) == 0
    np.testing.assert_array_equal(RunStore.open(tmp_path / "run").array("logits")[:], of_arrays[0].array("logits")[:])
    assert klarsicht(["audit", "doctor", *told[:4]]) == 0
    assert "3 channels of uint16, 0 to 65535" in capsys.readouterr().out


def tiles(per_class=40, seed=0):
    """Tiles (12, 12, 4) of numbers from -1 to 3, class c bright in channel c; a square in 12 of class "b"."""
    rng = np.random.default_rng(seed)
    made = []
    for label, name in enumerate("abc"):
        for i in range(per_class):
            x = rng.uniform(-1, 0, (SIDE, SIDE, 4)).astype(np.float32)
            x[..., label] += 1.6
            if name == "b" and i < 12:
                x[:4, :4] = 3
            made.append((x, name))
    return made


@pytest.mark.slow
def test_four_channels_of_floats_from_python_to_verdict_and_pictures(tmp_path):
    corpus, model = tiles(), tile_model()
    with in_brief(60):
        run = audit.run(settings(), tmp_path, classifier=model, corpus=corpus)
        found = quantify(run, classifier=model, data=corpus)
    for ask in (quantify, lambda of, **more: audit.clean(of, "b", **more)):
        with pytest.raises(CorpusError, match="data="):
            ask(run, classifier=model)
    with pytest.raises(CorpusError, match="data="):
        find_duplicates(run)
    assert repr(found).startswith("Quantification(3 classes, 1 with an artifact, ") and len(repr(found)) < 100
    assert found.of("b").used and not found.of("a").used and not found.of("c").used
    assert set(found.of("b").rows) == set(range(40, 52))
    drawn = [row for row in range(40, 52) if (run.path / f"pictures/1-{row}.jpg").is_file()]
    assert drawn
    for row in drawn:
        shown = np.asarray(Image.open(run.path / f"pictures/1-{row}.jpg")).astype(int)
        assert shown[2:20, 2:20].min() > 230  # the square is white in the three channels that are shown


@pytest.mark.nightly
def test_parts_and_metrics_of_maps_of_four_channels(tmp_path):
    """The classes "b" of `tiles`, by every kind of metric: of maps, of parts, and of a middle layer."""
    metrics = ("euclidean", "channels", "wasserstein-ts", "concept")
    run = audit.run(settings(parts=True, metric=metrics), tmp_path, classifier=tile_model(), corpus=tiles())
    found = {entry.metric for entry in audit.rank(run) if entry.name == "b"}
    assert found <= set(metrics) and found
    assert run.has_array("parts") and run.has_array("maps")


def test_bad_arrays_are_left_out_each_with_its_reason(place, tmp_path):
    (tmp_path / "data").symlink_to(place / "arrays")
    bad = tmp_path / "more"
    for name in "abc":
        (bad / name).mkdir(parents=True)
        for file in sorted((place / "arrays" / name).glob("*.npy"))[:12]:
            (bad / name / file.name).write_bytes(file.read_bytes())
    good = np.load(bad / "a" / "000.npy")
    np.save(bad / "a" / "x-channels.npy", good[..., :2])
    np.save(bad / "a" / "x-floats.npy", good.astype(np.float32))
    np.save(bad / "a" / "x-objects.npy", np.array([None, 1]), allow_pickle=True)
    (bad / "a" / "x-short.npy").write_bytes((bad / "a" / "000.npy").read_bytes()[:-9])
    (bad / "a" / "x-text.npy").write_text("no array")
    Image.fromarray((good // CODES).astype(np.uint8)).save(bad / "a" / "x-picture.png")
    store = pipeline.run(settings(data=str(bad), max_skipped=0.4), tmp_path / "run", classifier=deep_model())
    table = store.table("images", "attribution").to_pylist()
    keys = store.table("corpus")["key"].to_pylist()
    told = {key[4:-4]: line["skipped"] for key, line in zip(keys, table, strict=True) if "x-" in key}
    assert told.pop("picture") == ""  # its white is known
    row = keys.index("a/x-picture.png")
    np.testing.assert_array_equal(store.array("logits")[row], store.array("logits")[keys.index("a/000.npy")])
    for name, words in (
        ("channels", "shape (12, 12, 2); (H, W, 3)"), ("floats", "got float32; uint16"), ("objects", "no numbers"),
        ("short", "ends too early"), ("text", "cannot decode"),
    ):  # fmt: skip
        assert words in told[name], told[name]
    assert all(line["skipped"] == "" for key, line in zip(keys, table, strict=True) if "x-" not in key)


def test_a_function_of_ones_own_gives_arrays(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    for x, name in tiles(12):
        (tmp_path / "codes" / name).mkdir(parents=True, exist_ok=True)
        file = tmp_path / "codes" / name / f"{len(list((tmp_path / 'codes' / name).iterdir())):02d}.bin"
        with file.open("wb") as opened:
            np.save(opened, np.rint(x * 1000).astype(np.int16))
    corpus = open_corpus(tmp_path / "codes", decoder="nets.py:reflectance").as_arrays(tile_model().form)
    image = corpus.decode(3)
    assert image.dtype == np.float32 and image.shape == (SIDE, SIDE, 4)
    np.testing.assert_allclose(image, tiles(12)[3][0], atol=0.0005)
    with pytest.raises(CorpusError):
        open_corpus(tmp_path / "codes")


def test_arrays_are_put_aside_as_they_are(place, tmp_path):
    corpus = open_corpus(place / "arrays").as_arrays(deep_model().form)
    carries = np.arange(len(corpus)) == 60
    cleaned = clean_corpus(corpus, carries, make_action("quarantine"), tmp_path / "out")
    assert (tmp_path / "out" / "quarantine" / "0000060.npy").read_bytes() == (place / "arrays/b/000.npy").read_bytes()
    assert [line.action for line in cleaned.lines].count("quarantine") == 1
    assert json.loads((tmp_path / "out" / "cleaning.json").read_text())["images"] == 180


def test_arrays_are_repaired_in_their_own_range(place, tmp_path):
    """Oracle: 8-bit files of the same images repaired: the same to the rounding of 8 bits, and finer within it."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:4, :4] = True
    under = Masks.of(Overlay(mask[None].astype(np.float32), np.ones((1, 3, SIDE, SIDE), np.float32)))
    read = []
    for kind, model in (("files", load_model(network())), ("arrays", deep_model())):
        corpus = open_corpus(place / kind).as_arrays(model.form)
        carries = np.arange(len(corpus)) == 60
        found = clean_corpus(corpus, carries, make_inpaint_action(under, model), tmp_path / kind)
        cleaned = open_corpus(found.manifest).as_arrays(model.form)
        row = next(i for i, path in enumerate(cleaned.paths) if "images/" in path)
        read.append(np.asarray(cleaned.decode(row)))
        before = np.asarray(corpus.decode(60))
        np.testing.assert_array_equal((read[-1] != before).any(2), mask)
    levels, codes = read
    assert codes.dtype == np.uint16 and codes.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(codes / CODES, levels, atol=0.502)
    assert (codes[mask] % CODES).any() and not (codes[~mask] % CODES).any()


@pytest.mark.slow
def test_a_run_of_arrays_is_cleaned_as_that_of_files(of_files, of_arrays, tmp_path):
    """Oracle: the cleaning of the run of 8-bit files, whose artifact is the same."""
    changed = []
    for name, (store, _), model in (("files", of_files, load_model(network())), ("arrays", of_arrays, deep_model())):
        found = clean_data(store.path, tmp_path / name, "inpaint", name="b", classifier=model)
        lines = [line for line in found.lines if line.action == "inpaint"]
        cleaned = open_corpus(found.manifest).as_arrays(model.form)
        new = [np.asarray(cleaned.decode(i)) for i, path in enumerate(cleaned.paths) if "images/" in path]
        changed.append(([Path(line.path).stem for line in lines], np.stack(new)))
    assert changed[0][0] == changed[1][0] and len(changed[0][0]) >= 6
    np.testing.assert_allclose(changed[1][1] / CODES, changed[0][1], atol=0.502)


def test_a_callable_gets_arrays_and_keeps_their_form_and_white_level(place, tmp_path):
    form = ArrayForm(3, "uint16", 0, 65535)
    corpus = replace(open_corpus(place / "arrays"), white_levels=(40000,) * 180).as_arrays(form)
    carries = np.arange(180) == 5
    found = clean_corpus(corpus, carries, make_pass_action(lambda x: x // 2, "half as bright"), tmp_path / "out")
    cleaned = open_corpus(found.manifest).as_arrays(form)
    row = next(i for i, path in enumerate(cleaned.paths) if "images/" in path)
    np.testing.assert_allclose(cleaned.decode(row), corpus.decode(5) // 2, atol=1.5)
    for wrong in (lambda x: x.astype(float), lambda x: x[..., :2], lambda x: None):
        with pytest.raises(InputError, match="another"):
            clean_corpus(corpus, carries, make_pass_action(wrong, "wrong"), tmp_path / "no")


@pytest.mark.parametrize("kind", ["tag", "noise", "stripe"])
def test_artifacts_are_planted_in_arrays_as_in_files(place, tmp_path, kind, monkeypatch):
    """Oracle: the same plants in 8-bit files of the same images, code for level."""
    monkeypatch.chdir(place)
    asked = ["--kind", kind, "--class", "b", "--share", "0.2"]
    for name, more in (("files", []), ("arrays", ["--model", "nets.py:deep"])):
        assert klarsicht(["audit", "plant", name, "--out", str(tmp_path / name), *asked, *more]) == 0
    files, arrays = (open_corpus(tmp_path / name / "manifest.csv") for name in ("files", "arrays"))
    assert (files.labels, len(arrays)) == (arrays.labels, 180)
    changed = 0
    for path, other, plain in zip(files.paths, arrays.paths, open_corpus("files").paths, strict=True):
        levels, codes = np.asarray(Image.open(path)), np.load(other)
        assert codes.dtype == np.uint16
        np.testing.assert_array_equal(codes, levels.astype(np.uint16) * CODES)
        changed += not np.array_equal(levels, np.asarray(Image.open(plain)))
    assert changed == 12


def test_every_container_gives_the_same_arrays(tmp_path):
    """Oracle: the arrays that were written."""
    form = tile_model().form
    images = [x for x, _ in tiles(2)]
    files = {f"{i}.npy": io.BytesIO() for i in range(6)}
    for (name, content), x in zip(files.items(), images, strict=True):
        np.save(content, x)
        (tmp_path / name).write_bytes(content.getvalue())
    lines = [f"{name},{label}" for name, label in zip(files, "aabbcc", strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines]))
    np.savez(tmp_path / "a.npz", images=np.stack(images), labels=list("aabbcc"))
    first = np.stack(images).transpose(0, 3, 1, 2)
    np.savez(tmp_path / "b.npz", images=first, labels=list("aabbcc"))
    table = {"image": [content.getvalue() for content in files.values()], "label": list("aabbcc")}
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for (name, content), label in zip(files.items(), "aabbcc", strict=True):
            for ending, member in (("npy", content.getvalue()), ("cls", label.encode())):
                info = tarfile.TarInfo(f"{name[0]}.{ending}")
                info.size = len(member)
                archive.addfile(info, io.BytesIO(member))
    sequence = [(torch.from_numpy(x), label) for x, label in zip(images, "aabbcc", strict=True)]
    for data in (*(tmp_path / name for name in ("a.csv", "a.npz", "b.npz", "t.parquet", "s.tar")), sequence):
        corpus = open_corpus(data).as_arrays(form)
        assert corpus.labels == tuple("aabbcc")
        for row, x in enumerate(images):
            np.testing.assert_array_equal(corpus.decode(row), x)
