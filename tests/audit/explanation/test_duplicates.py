"""Copies among the images of a run. Oracle: copies that the test made of parts of photographs."""

import io
import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from skimage import data
from tests.audit.conftest import network

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.duplicates import (
    Duplicates,
    find_copies_in,
    find_duplicates,
    group_copies,
)
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.questions import UNSURE_COPY
from klarsicht.cli.app import run as klarsicht
from klarsicht.ground.errors import RunMismatch, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.imaging.copies import Copies

TILE = 64


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A manifest of parts of two photographs as classes, and a run of it. Copies: of 0 in the other split, of 1 with
    another label, of 2 twice the same file, of 3 a crop and a crop of it, of 5 its mirror image; 4 cannot be read."""
    folder = tmp_path_factory.mktemp("copies")
    tiles = [
        Image.fromarray(photograph[y : y + TILE, x : x + TILE])
        for photograph in (data.immunohistochemistry(), data.chelsea())
        for y in range(0, 256, TILE)
        for x in range(0, 384, TILE)
    ]
    lines = ["path,label,split"]

    def add(name, picture, label, split="train", **how):
        picture.save(folder / name, **how)
        lines.append(f"{name},{label},{split}")

    for i, tile in enumerate(tiles):
        add(f"{i:02d}.png", tile, "ab"[i >= 24])
    add("leak.jpg", tiles[0].resize((50, 44)), "a", "test", quality=85)
    add("label.jpg", tiles[1], "b", quality=70)
    add("same.png", tiles[2], "a")
    add("again.png", tiles[2], "a")
    add("crop.png", tiles[3].crop((3, 2, 63, 62)), "a")
    add("crop of crop.png", tiles[3].crop((5, 4, 61, 60)), "a")
    add("mirror.jpg", tiles[5].transpose(Image.Transpose.FLIP_LEFT_RIGHT), "b", "test", quality=80)
    (folder / "04.png").write_bytes(b"nothing")
    (folder / "all.csv").write_text("\n".join(lines))
    settings = AuditSettings(model="object", data=str(folder / "all.csv"), unit=16)
    pipeline.run(settings, folder / "run", classifier=load_model(network(), classes=["a", "b", "c"]))
    return folder


@pytest.mark.slow
def test_copies_are_grouped_and_what_crosses_splits_or_labels_comes_first(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    found = find_duplicates(tmp_path / "run")
    names = [sorted(path.rpartition("/")[2] for path in group.paths) for group in found.groups]
    assert names == [
        ["05.png", "mirror.jpg"], ["00.png", "leak.jpg"], ["01.png", "label.jpg"], ["02.png", "again.png", "same.png"],
        ["03.png", "crop of crop.png", "crop.png"],
    ]  # fmt: skip
    assert [group.kind for group in found.groups] == ["turned", "near", "near", "exact", "near"]
    assert [group.crosses_splits for group in found.groups] == [True, True, False, False, False]
    assert [group.crosses_labels for group in found.groups] == [True, False, True, False, False]
    assert (found.images, found.unread, found.superfluous) == (54, 1, 7)
    assert found.describe() == (
        "7 of 54 images are copies of others, in 5 groups: 2 across splits, 2 across labels. In 1 of these, images are "
        "mirrored or turned."
    )
    store = RunStore.open(tmp_path / "run")
    lines = store.table("duplicates").to_pylist()
    assert [line["group"] for line in lines] == [0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Leaks and repeats" in page
    assert found.describe() in page
    assert page.count("across labels</span>") == 2


@dataclass(frozen=True)
class Rows:
    """Rows of a corpus of one label, without splits."""

    count: int
    splits = None

    def __len__(self):
        return self.count

    @property
    def paths(self):
        return [f"{i}.png" for i in range(self.count)]

    keys = paths

    def labels_of_image(self, row):
        return (self.labels[row],)

    @property
    def labels(self):
        return ["a"] * self.count


def test_a_group_says_which_share_of_its_pairs_are_copies_of_each_other():
    """Pairs counted by hand: a chain of five, two exact copies with a near one, two exact copies without detail."""
    pairs = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (5, 6), (5, 7), (6, 7)])
    digests = np.arange(10, dtype=np.uint8)[:, None].repeat(2, 1) + 1
    digests[6], digests[9] = digests[5], digests[8]
    groups = group_copies(Rows(10), Copies.of(pairs, np.full(7, 0.9)), np.arange(10), digests)
    assert [group.rows for group in groups] == [(0, 1, 2, 3, 4), (5, 6, 7), (8, 9)]
    assert [group.mutual for group in groups] == [pytest.approx(4 / 10), 1, 1]
    assert [group.chained for group in groups] == [True, False, False]
    told = Duplicates(groups, 10, 0)
    assert "1 of these is a chain" in told.describe()
    assert "chain" not in Duplicates(groups[1:], 10, 0).describe()
    assert told.to_json()["groups"][0]["mutual"] == pytest.approx(0.4)


def test_an_image_with_several_labels_is_compared_by_all_of_them():
    """Rows 0 and 1 are one image, 2 and 3 its copy in another order, 4 a copy with one of both labels."""
    keys = ("x.png", "x.png", "y.png", "y.png", "z.png")
    corpus = Corpus(keys, keys, ("cat", "dog", "dog", "cat", "cat"))
    copies = Copies.of(np.array([(0, 2), (0, 4)]), np.full(2, 0.9))
    digests = np.arange(1, 6, dtype=np.uint8)[:, None].repeat(2, 1)
    (group,) = group_copies(corpus, copies, np.array([0, 2, 4]), digests)
    assert group.labels == ("cat, dog", "cat, dog", "cat") and group.crosses_labels
    (pair,) = group_copies(corpus, Copies.of(np.array([(0, 2)]), np.full(1, 0.9)), np.array([0, 2, 4]), digests)
    assert not pair.crosses_labels


def test_a_group_with_a_mirrored_image_is_a_turned_one():
    """Row 1 mirrors row 0, and row 2 has the same pixels as row 0; rows 3 and 4 are upright copies."""
    digests = np.arange(5, dtype=np.uint8)[:, None].repeat(2, 1) + 1
    digests[2] = digests[0]
    pairs, poses = np.array([(0, 1), (0, 2), (1, 2), (3, 4)]), np.array([1, 0, 1, 0])
    groups = group_copies(Rows(5), Copies.of(pairs, np.full(4, 0.95), poses), np.arange(5), digests)
    assert [(group.rows, group.kind) for group in groups] == [((0, 1, 2), "turned"), ((3, 4), "near")]
    assert "In 1 of these, images are mirrored or turned." in Duplicates(groups, 5, 0).describe()
    assert "turned" not in Duplicates(groups[1:], 5, 0).describe()


def test_chance_is_that_of_the_pose():
    """An upright pair of 0.93 is sure from 0.92 on, and a mirrored one from 0.95 on."""
    pairs, poses = np.array([(0, 1), (2, 3)]), np.array([0, 1])
    digests = np.arange(4, dtype=np.uint8)[:, None].repeat(2, 1) + 1
    groups = group_copies(Rows(4), Copies.of(pairs, np.full(2, 0.93), poses), np.arange(4), digests, (0.92, 0.95))
    assert [(group.rows, group.kind) for group in groups] == [((0, 1), "near"), ((2, 3), UNSURE_COPY)]


@pytest.mark.slow
def test_copies_are_looked_for_again_where_splits_changed(place, tmp_path, capsys):
    """Else a gate would be open: no copy of the old splits is across them."""
    shutil.copytree(place, tmp_path / "all")
    settings = AuditSettings(model="object", data=str(tmp_path / "all" / "all.csv"), unit=16)
    classifier = load_model(network(), classes=["a", "b", "c"])
    find_duplicates(tmp_path / "all" / "run", data=str(tmp_path / "all" / "all.csv"))
    pipeline.run(settings, tmp_path / "all" / "run", classifier=classifier)
    assert (tmp_path / "all" / "run" / "duplicates.json").is_file()
    table = (tmp_path / "all" / "all.csv").read_text().replace("label.jpg,b,train", "label.jpg,b,test")
    (tmp_path / "all" / "all.csv").write_text(table)
    pipeline.run(settings, tmp_path / "all" / "run", classifier=classifier)
    assert "splits changed since copies were looked for" in capsys.readouterr().err
    found = find_duplicates(tmp_path / "all" / "run", data=str(tmp_path / "all" / "all.csv"))
    assert sum(group.crosses_splits for group in found.groups) == 3


def test_a_folder_of_copies_is_no_audit(leaked, tmp_path, capsys):
    find_copies_in(leaked, tmp_path / "copies")
    for command in ("quantify", "clean", "shortcuts"):
        assert klarsicht(["audit", command, str(tmp_path / "copies")]) == 3
        assert "these are copies of a corpus, and no audit" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_resumes_and_says_the_same_in_json(place, tmp_path, capsys):
    """Units that a killed process left without a marker are made again."""
    shutil.copytree(place / "run", tmp_path / "run")
    run = str(tmp_path / "run")
    assert klarsicht(["audit", "duplicates", run]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:5] == ["#", "images", "kind", "correlation", "mutual"]
    assert printed[1].split()[:3] == ["1", "2", "turned"]
    assert printed[1].split()[-3:] == ["05.png", "|", "mirror.jpg"] and str(place) not in "".join(printed)
    store = RunStore.open(run)
    store.clear_markers("thumbnails")
    store.clear_markers("copy_pairs")
    assert klarsicht(["audit", "duplicates", run, "--json", "--workers", "2"]) == 0
    again = find_duplicates(run, shard="1/2").to_json()
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(again))


def test_another_corpus_is_refused(place, tmp_path):
    shutil.copytree(place, tmp_path / "all")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(buffer, "PNG")
    (tmp_path / "all" / "05.png").write_bytes(buffer.getvalue())
    with pytest.raises(RunMismatch, match="the corpus changed"):
        find_duplicates(tmp_path / "all" / "run", data=str(tmp_path / "all" / "all.csv"))


def test_a_run_without_copies_says_so(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "data" / label / f"{i}.png")
    settings = AuditSettings(model="object", data=str(tmp_path / "data"))
    run = pipeline.run(settings, tmp_path / "run", classifier=load_model(network(), classes=["a", "b", "c"]))
    assert find_duplicates(run.path).describe() == "No copies among 12 images."
    assert json.loads((run.path / "duplicates.json").read_text())["groups"] == []


@pytest.fixture
def leaked(tmp_path):
    """Folders of splits with four pictures of a photograph each; test/b/1.jpg is train/a/1.png, resized."""
    photograph = data.chelsea()
    for number in range(8):
        split, label = ("train", "test")[number > 3], "ab"[number % 2]
        tile = Image.fromarray(photograph[number * 24 : number * 24 + TILE, number * 40 : number * 40 + TILE])
        (tmp_path / "data" / split / label).mkdir(parents=True, exist_ok=True)
        tile.save(tmp_path / "data" / split / label / f"{number}.png")
    first = Image.open(tmp_path / "data" / "train" / "b" / "1.png")
    first.resize((50, 50)).save(tmp_path / "data" / "test" / "a" / "copy.jpg", quality=90)
    return tmp_path / "data"


def test_copies_of_a_corpus_need_no_run(leaked, tmp_path):
    found = find_copies_in(leaked)
    assert [group.keys for group in found.groups] == [("test/a/copy.jpg", "train/b/1.png")]
    assert found.groups[0].crosses_splits and found.groups[0].crosses_labels
    assert found.images == 9
    kept = find_copies_in(leaked, tmp_path / "copies", shard="1/1")
    assert kept == found
    assert json.loads((tmp_path / "copies" / "duplicates.json").read_text())["superfluous"] == 1
    assert len(RunStore.open(tmp_path / "copies").table("duplicates")) == 2
    (leaked / "test" / "a" / "copy.jpg").unlink()
    with pytest.raises(RunMismatch, match="corpus"):
        find_copies_in(leaked, tmp_path / "copies")
    with pytest.raises(UsageError, match="shard"):
        find_copies_in(leaked, shard="1/2")
    with pytest.raises(UsageError, match="decode"):
        find_copies_in(leaked, decode=5)


def test_the_command_takes_a_corpus(leaked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert klarsicht(["audit", "duplicates", "data", "--out", "copies"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 9 images are copies of others, in 1 group: 1 across splits, 1 across labels." in printed
    assert klarsicht(["audit", "duplicates", "nothing"]) == 3
    assert "nothing" in capsys.readouterr().err
    assert klarsicht(["audit", "duplicates", "data", "--data", "data"]) == 3
    assert "no run in this folder" in capsys.readouterr().err


def test_the_options_of_a_corpus_are_refused_for_a_run(place, capsys):
    assert klarsicht(["audit", "duplicates", str(place / "run"), "--label-column", "label"]) == 2
    assert "--label-column" in capsys.readouterr().err


def test_pairs_no_more_alike_than_chance_are_told_apart():
    pairs = np.array([(0, 1), (1, 2), (3, 4)])
    digests = np.arange(6, dtype=np.uint8)[:, None].repeat(2, 1) + 1
    groups = group_copies(Rows(6), Copies.of(pairs, np.array([0.99, 0.9, 0.88])), np.arange(6), digests, (0.95, 0.95))
    assert [(group.rows, group.kind == UNSURE_COPY) for group in groups] == [
        ((0, 1), False),
        ((1, 2), True),
        ((3, 4), True),
    ]
    told = Duplicates(groups, 6, 0)
    assert told.superfluous == 1
    assert "1 of 6 images are copies of others, in 1 group" in told.describe()
    assert "2 more groups are only as alike" in told.describe()
    assert Duplicates(groups[1:], 6, 0).describe().startswith("No copies among 6 images. Images of 2 more groups")
