"""Exports of a run with known content, read by other libraries."""

import csv
import errno
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from tests.explorer.made_run import EIGENVALUES, SIDE, TAG, WINDOW, D, G, write_run
from tests.without_torch import WITHOUT_TORCH

from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.export import EXPORTS, export_run, find_targets
from klarsicht.explorer.export_tables import nearest, pad_neighbours
from klarsicht.explorer.run_reader import RunReader
from klarsicht.ground.errors import CorpusError, DiskFull, InputError, UsageError
from klarsicht.ground.run_folder.decisions import Change, DecisionLog

EACH, CARRIERS = 24, 6
NAMES = ("tagged", 'a "name", with\ncommas', "plain")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = write_run(tmp_path_factory.mktemp("made"), NAMES, EACH, CARRIERS)
    log = DecisionLog(store.path)
    log.append(Change(0, "tagged", "artifact", "tag", base=(0, 1, 2), add=(9,), remove=(0,)), "ada")
    return store.path


def test_a_class_called_by_a_number_is_found_by_its_name_first(tmp_path):
    run = ExploredRun.of(write_run(tmp_path, ("1", "2", "plain"), EACH, CARRIERS, images=False))
    assert [find_targets(run, [name]) for name in ("1", "2", "plain", "0")] == [[0], [1], [2], [0]]


def test_csv_and_parquet_have_a_line_for_each_image_of_each_class(run, tmp_path):
    export_run(run, "csv", tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * EACH and {line["class"] for line in lines} == set(NAMES)
    carriers = [int(line["row"]) for line in lines if line["class"] == "tagged" and line["carries"] == "yes"]
    assert carriers == [1, 2, 9]
    assert [line["removed"] for line in lines[:2]] == ["True", "False"] and lines[0]["artifact"] == "tag"
    assert lines[0]["image"] == "tagged/00000.png" and lines[5]["predicted"] == NAMES[1]
    table = parquet.read_table(export_run(run, "parquet", tmp_path / "a.parquet"))
    read = table.to_pylist()
    for line, other in zip(lines, read, strict=True):
        for name in set(line) - {"x", "y"}:
            assert line[name] == ("" if other[name] is None else str(other[name])), name
    stored = parquet.read_table(run / "tables" / "embedding-concept" / "00000.parquet")
    np.testing.assert_allclose([line["vector"] for line in read[:EACH]], stored["vector"].to_pylist())
    assert {(line["embedding"], line["metric"]) for line in lines[:EACH]} == {("spectral", "concept")}


def test_what_a_spreadsheet_would_compute_is_written_as_a_text(run, tmp_path):
    copy, formula = shutil.copytree(run, tmp_path / "run"), '=HYPERLINK("http://x","y")'
    DecisionLog(copy).append(Change(0, "tagged", "artifact", formula, base=(), add=(1,)), "ada")
    with export_run(copy, "csv", tmp_path / "a.csv", classes=["tagged"]).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["artifact"] for line in lines} == {f"'{formula}"} and lines[0]["image"] == "tagged/00000.png"
    numbers = [float(line["x"]) for line in lines]
    assert min(numbers) < 0  # a number is none


def exported_statuses(run, tmp_path, name):
    """What the column `carries` says of the members and of the other images of a class."""
    lines = parquet.read_table(export_run(run, "parquet", tmp_path / "p.parquet", classes=[name])).to_pylist()
    (tmp_path / "p.parquet").unlink()
    told = [line["carries"] for line in lines]
    return set(told[:CARRIERS]), set(told[CARRIERS:])


@pytest.mark.parametrize(
    ("decision", "found_by_detector", "observed"),
    [
        ("", "yes", "undecided"),
        ("unsure", "undecided", "undecided"),
        ("legitimate", "no", "no"),
        ("artifact", "yes", "yes"),
    ],
)
def test_a_suspect_cluster_is_undecided_until_a_person_decides(tmp_path, decision, found_by_detector, observed):
    store = write_run(tmp_path, each=EACH, carriers=CARRIERS, images=False)
    for target, name, status in ((0, "tagged", found_by_detector), (1, "observed", observed)):
        if decision:
            DecisionLog(store.path).append(Change(target, name, decision), "ada")
        assert exported_statuses(store.path, tmp_path, name) == ({status}, {"no"})
    DecisionLog(store.path).append(Change(2, "plain", base=tuple(range(2 * EACH, 2 * EACH + CARRIERS))), "ada")
    assert exported_statuses(store.path, tmp_path, "plain") == ({"yes"}, {"no"})  # a person chose them


def test_windows_that_may_be_the_nature_of_a_class_are_undecided(tmp_path):
    store = write_run(tmp_path, each=EACH, carriers=CARRIERS, images=False)
    content = store.read_json("quantification.json")
    content["classes"][0] |= {"shared": True, "artifactual": False, "poisoned": False}
    store.write_json("quantification.json", content)
    assert exported_statuses(store.path, tmp_path, "tagged") == ({"undecided"}, {"no"})


def test_coco_holds_the_decided_artifacts_and_of_undecided_runs_those_of_detectors(run, tmp_path):
    found = json.loads(export_run(run, "coco", tmp_path / "a.json").read_bytes())
    assert [one["name"] for one in found["categories"]] == ["tag"]
    assert [one["image_id"] for one in found["annotations"]] == [1, 2, 9]
    assert [one["whole"] for one in found["annotations"]] == [False, False, True]  # 9 was added by hand
    assert found["annotations"][0]["bbox"] == [WINDOW[1] * SIDE, WINDOW[0] * SIDE, TAG, TAG]
    other = write_run(tmp_path / "other", each=EACH, carriers=CARRIERS)
    found = json.loads(export_run(other.path, "coco", tmp_path / "b.json").read_bytes())
    assert [one["name"] for one in found["categories"]] == ["tagged"] and len(found["annotations"]) == CARRIERS
    with pytest.raises(UsageError, match="no class has an artifact"):
        export_run(other.path, "coco", tmp_path / "c.json", classes=["plain"])


def test_members_of_a_further_artifact_carry_it(tmp_path):
    """A frequent artifact that is not used, and a rare one on other images that is."""
    store = write_run(tmp_path, each=EACH, carriers=CARRIERS)
    content, rare = store.read_json("quantification.json"), [CARRIERS + 1, CARRIERS + 4]
    first = next(one for one in content["classes"] if one["target"] == 0)
    first["further"] = [first | {"rows": rare, "size": 2}]
    first |= {"poisoned": False, "used": False, "verdict": "artifactual: present, no use shown"}
    store.write_json("quantification.json", content)
    assert ExploredRun.of(store).results.line(0).kind == "poisoned"
    lines = parquet.read_table(
        export_run(store.path, "parquet", tmp_path / "p.parquet", classes=["tagged"])
    ).to_pylist()
    assert [line["row"] for line in lines if line["carries"] == "yes"] == [*range(CARRIERS), *rare]
    found = json.loads(export_run(store.path, "coco", tmp_path / "a.json").read_bytes())
    names = {one["id"]: one["name"] for one in found["categories"]}
    told = [(names[one["category_id"]], one["image_id"], one["whole"]) for one in found["annotations"]]
    expected = [("tagged", row, False) for row in range(CARRIERS)]
    assert told == expected + [("tagged (artifact 2)", row, True) for row in rare]
    assert {one["class"] for one in found["annotations"]} == {"tagged"}
    DecisionLog(store.path).append(Change(0, "tagged", "legitimate"), "ada")
    lines = parquet.read_table(
        export_run(store.path, "parquet", tmp_path / "q.parquet", classes=["tagged"])
    ).to_pylist()
    assert {line["carries"] for line in lines} == {"no"}


def test_atlas_has_coordinates_neighbours_and_images(run, tmp_path):
    lines = parquet.read_table(export_run(run, "atlas", tmp_path / "a.parquet")).to_pylist()
    assert len(lines) == 3 * EACH and {"x", "y", "neighbors", "image"} <= lines[0].keys()
    members = range(EACH, EACH + CARRIERS)  # class 1: the vectors of its first six lie apart
    for line in members:
        ids = lines[line]["neighbors"]["ids"]
        assert line not in ids and set(ids[: CARRIERS - 1]) == set(members) - {line}
        assert lines[line]["neighbors"]["distances"] == sorted(lines[line]["neighbors"]["distances"])
    file = tmp_path / "a.jpg"
    file.write_bytes(lines[0]["image"]["bytes"])
    assert Image.open(file).size == (96, 96)


def test_every_line_of_an_atlas_has_as_many_neighbours(tmp_path):
    """Embedding Atlas stacks the lists into one array, and ends where their lengths differ."""
    small = write_run(tmp_path, each=4, carriers=2, images=False, embedded=[0, 2]).path
    lines = parquet.read_table(export_run(small, "atlas", tmp_path / "a.parquet")).to_pylist()
    assert [line["target"] for line in lines] == [0] * 4 + [2] * 4
    assert all(len(line["neighbors"][name]) == 10 for line in lines for name in ("ids", "distances"))
    assert [set(line["neighbors"]["ids"]) for line in lines[4:]] == [{4, 5, 6, 7} - {i} for i in range(4, 8)]
    with pytest.raises(UsageError, match="no class has a stored embedding"):
        export_run(small, "atlas", tmp_path / "b.parquet", classes=["observed"])


def test_a_line_without_others_is_its_own_neighbour():
    ids, distances = pad_neighbours(*nearest(np.ones((1, 3)), 10), 10)
    assert ids.tolist() == [[0] * 10] and distances.tolist() == [[0.0] * 10]


def test_neighbours_are_those_of_all_pairs():
    X = np.random.default_rng(0).normal(size=(40, 3))
    X[7] = X[8] = X[9]  # copies
    ids, distances = nearest(X, 5)
    apart = np.linalg.norm(X[:, None] - X[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(distances, np.sort(apart, axis=1)[:, :5])
    np.testing.assert_allclose(np.take_along_axis(apart, ids, 1), distances)
    assert nearest(X[:1], 5)[0].shape == (1, 0) and nearest(np.zeros((12, 2)), 3)[0].shape == (12, 3)


def test_fiftyone_names_files_that_exist(run, tmp_path):
    out = export_run(run, "fiftyone", tmp_path / "f")
    labels, files = (json.loads((out / name).read_bytes()) for name in ("labels.json", "data.json"))
    assert labels["labels"].keys() == files.keys() and len(files) == 3 * EACH
    assert all(os.path.isfile(path) for path in files.values())  # noqa: PTH113
    first = labels["labels"]["00000-00000001"]
    assert labels["classes"][first["label"]] == "tagged" and first["attributes"]["carries"] == "yes"


def test_a_virelay_project_has_the_stored_maps_and_embeddings(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    out = export_run(run, "virelay", tmp_path / "v", classes=["tagged", "2"])
    with h5py.File(out / "analysis.h5") as file:
        assert list(file) == ["00000", "00002"]
        assert file["00002/index"][:].tolist() == list(range(EACH, 2 * EACH))
        assert file["00000/embedding/spectral"].shape == (EACH, D)
        np.testing.assert_allclose(file["00000/embedding/spectral"].attrs["eigenvalue"], EIGENVALUES, rtol=1e-6)
        assert {file[f"00000/embedding/{name}"].attrs["metric"] for name in ("spectral", "plane")} == {"concept"}
        assert np.flatnonzero(file["00000/cluster/carries"][:] == 1).tolist() == [1, 2, 9]
        assert np.flatnonzero(file["00002/cluster/carries"][:] == 2).tolist() == list(range(CARRIERS))
    with h5py.File(out / "attribution.h5") as file:
        maps = file["attribution"][:]
        assert maps.shape == (2 * EACH, 3, 128, 128) and (maps[:, 0] == maps[:, 2]).all()
        cell = 128 // G
        top = np.unravel_index(maps[0, 0].argmax(), (128, 128))
        assert (top[0] // cell, top[1] // cell) == (2, 4)
    with h5py.File(out / "dataset.h5") as file:
        assert file["data"].shape == maps.shape and file["label"][:].tolist() == [0] * EACH + [2] * EACH
    labels = json.loads((out / "label-map.json").read_bytes())
    assert [one["name"] for one in labels] == list(NAMES)


def test_formats_that_show_images_are_refused_where_these_are_gone(tmp_path):
    run = write_run(tmp_path / "made", NAMES, EACH, CARRIERS).path
    DecisionLog(run).append(Change(0, "tagged", "artifact", "tag", base=(0, 1, 2), add=(), remove=()), "ada")
    data, moved = tmp_path / "made" / "data", tmp_path / "moved"
    data.rename(moved)
    for to in ("page", "datasets", "coco", "virelay", "fiftyone"):
        with pytest.raises(CorpusError, match=rf"they were; got {re.escape(str(data))};.* place: `data`"):
            export_run(run, to, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert export_run(run, "csv", tmp_path / "images.csv").is_file()  # shows none
    export_run(run, "coco", tmp_path / "out.json", data=str(moved))
    assert len(json.loads((tmp_path / "out.json").read_text())["images"]) == 3


@pytest.mark.parametrize("to", EXPORTS)
def test_an_output_that_exists_is_kept(run, tmp_path, to):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(InputError, match=r"exists|not empty"):
        export_run(run, to, out)
    assert [file.name for file in out.iterdir()] == ["mine"]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    store = write_run(tmp_path_factory.mktemp("small"), ("tagged", "plain"), each=4, carriers=2)
    DecisionLog(store.path).append(Change(0, "tagged", "artifact", base=(0, 1)), "ada")
    return store.path


def count_calls(monkeypatch, home, name, fault=None, at=0):
    """Count the calls of a function from now on; the call of that number fails."""
    calls, own = [], getattr(home, name)

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == at:
            raise fault
        return own(*args, **kwargs)

    monkeypatch.setattr(home, name, counted)
    return calls


FAULTS = [(os, "fsync", OSError(errno.ENOSPC, "no space")), (RunReader, "images", KeyboardInterrupt())]


@pytest.mark.parametrize(("home", "name", "fault"), FAULTS, ids=["the disk is full", "stopped by a person"])
@pytest.mark.parametrize("to", EXPORTS)
def test_a_failed_export_leaves_nothing_behind(small_run, tmp_path, monkeypatch, to, home, name, fault):
    """At its first and last call and in the middle; folders that were made above the output go, too."""
    with monkeypatch.context() as patch:
        calls = count_calls(patch, home, name)
        export_run(small_run, to, tmp_path / "whole" / "out")
        total = len(calls)
    assert total
    shutil.rmtree(tmp_path / "whole")
    (tmp_path / "empty").mkdir()
    for at in sorted({1, (total + 1) // 2, total}):
        for out in (tmp_path / "new" / "out", tmp_path / "empty" / "out", tmp_path / "empty"):
            if out.is_dir() and not EXPORTS[to].folder:
                continue
            with monkeypatch.context() as patch, pytest.raises((DiskFull, KeyboardInterrupt)):
                count_calls(patch, home, name, fault, at)
                export_run(small_run, to, out)
            assert list(tmp_path.rglob("*")) == [tmp_path / "empty"], (at, out)


def test_unknown_formats_and_classes_are_told(run, tmp_path):
    with pytest.raises(UsageError, match="Did you mean csv"):
        export_run(run, "cvs", tmp_path / "a")
    with pytest.raises(UsageError, match="tagged"):
        export_run(run, "csv", tmp_path / "a", classes=["taged"])
    without = write_run(tmp_path / "without", maps=False)
    with pytest.raises(UsageError, match="this run has none"):
        export_run(without.path, "virelay", tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_exporting_needs_no_torch(run, tmp_path):
    words = ["audit", "export", str(run), "--to", "csv", "--out", str(tmp_path / "a.csv")]
    told = subprocess.run([*WITHOUT_TORCH, *words], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "a.csv").stat().st_size
