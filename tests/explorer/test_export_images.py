"""Exports with one line for each image. Oracles: the made run, Python's csv, Hugging Face and cleanlab."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from tests.explorer.made_run import SIDE, write_run

from klarsicht.explorer import exceptional_images
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.export import export_run
from klarsicht.explorer.export_images import image_cell
from klarsicht.ground.run_folder.decisions import Change, DecisionLog
from klarsicht.ground.run_folder.store import RunStore

ROOT = Path(__file__).parents[2]
EACH, CARRIERS = 12, 3
NAMES = ("tagged", 'a "name", with\ncommas', "plain")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = write_run(tmp_path_factory.mktemp("made"), NAMES, EACH, CARRIERS)
    DecisionLog(store.path).append(Change(0, "tagged", "artifact", "tag", base=(0, 1), add=(9,), remove=(0,)), "ada")
    return store.path


def test_a_data_set_has_a_line_for_each_image_with_its_file_its_label_and_what_was_found(run, tmp_path):
    table = parquet.read_table(export_run(run, "datasets", tmp_path / "a.parquet"))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names = features["label"]["names"]
    lines = table.to_pylist()
    assert [line["row"] for line in lines] == [*range(3 * EACH)]
    assert [names[line["label"]] for line in lines] == [name for name in NAMES for _ in range(EACH)]
    assert [line["row"] for line in lines if line["carries"] == "yes"] == [1, 9]
    assert all(line["findings"][0].startswith("tagged: ") for line in lines if line["carries"] == "yes")
    assert {(line["p"], *line["findings"]) for line in lines if line["carries"] != "yes"} == {(1.0,)}
    assert lines[9]["image"]["bytes"] is None
    assert np.array_equal(Image.open(lines[9]["image"]["path"]), ExploredRun.of(RunStore(run)).pictures.read(9))


def test_issues_have_the_columns_of_cleanlab_and_a_low_score_where_there_is_one(run, tmp_path):
    with export_run(run, "cleanlab", tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["given_label"] for line in lines] == [name for name in NAMES for _ in range(EACH)]
    issues = [int(line["index"]) for line in lines if line["is_artifact_issue"] == "true"]
    assert issues == [1, 9] and all(float(lines[i]["artifact_score"]) < 0.05 for i in issues)
    assert {float(line["artifact_score"]) for i, line in enumerate(lines) if i not in issues} == {1.0}
    assert {(line["is_surroundings_issue"], float(line["surroundings_score"])) for line in lines} == {("false", 1.0)}


def test_an_image_with_the_surroundings_of_another_class_is_an_issue(run, tmp_path, monkeypatch):
    margins = {0: ("plain", -1.5), 1: ("tagged", 2.0)}

    def sides_of(reader, rows):
        return [margins.get(row, ("", None)) for row in rows]

    monkeypatch.setattr(exceptional_images, "sides_of", sides_of)
    monkeypatch.setattr("klarsicht.explorer.export_tables.sides_of", sides_of)
    with export_run(run, "cleanlab", tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["is_surroundings_issue"] for line in lines[:3]] == ["true", "false", "false"]
    expected = [1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(-2)), 1]
    np.testing.assert_allclose([float(line["surroundings_score"]) for line in lines[:3]], expected)


def test_an_image_without_a_file_of_its_own_is_inside(run, tmp_path, monkeypatch):
    opened = ExploredRun.of(write_run(tmp_path / "other", NAMES, EACH, CARRIERS))
    picture = opened.pictures.read(0)
    images = opened.reader.images()
    images.file(0).unlink()
    monkeypatch.setattr(type(opened.pictures), "read", lambda self, row: picture)
    cell = image_cell(opened, 0)
    assert cell["bytes"][:4] == b"\x89PNG" and cell["path"] == images.key(0)


@pytest.mark.nightly
def test_hugging_face_reads_images_and_labels(run, tmp_path):
    datasets = pytest.importorskip("datasets")
    file = export_run(run, "datasets", tmp_path / "a.parquet")
    read = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(read) == 3 * EACH and read[1]["image"].size == (24, 24)
    assert read.features["label"].int2str(read[EACH]["label"]) == NAMES[1]
    assert read.filter(lambda line: line["carries"] == "yes")["row"][:] == [1, 9]


@pytest.mark.nightly
def test_cleanlab_takes_the_issues_beside_its_own(run, tmp_path):
    cleanlab, pandas = pytest.importorskip("cleanlab"), pytest.importorskip("pandas")
    issues = pandas.read_csv(export_run(run, "cleanlab", tmp_path / "a.csv"), index_col="index")
    lab = cleanlab.Datalab({"label": issues["given_label"].tolist()}, label_name="label")
    lab.find_issues(features=np.random.default_rng(0).normal(size=(len(issues), 4)), issue_types={"outlier": {}})
    joined = lab.get_issues().join(issues.filter(regex="issue$|score$"))
    assert joined.query("is_artifact_issue").index.tolist() == [1, 9]
    assert {"is_outlier_issue", "is_surroundings_issue"} <= {*joined.columns}


BLOCK = re.search(r"```python\n(import lightning.+?)```", (ROOT / "docs" / "explorer.md").read_text(), re.S)[1]


@pytest.mark.nightly
def test_a_data_module_of_lightning_trains_without_the_images_that_carry_an_artifact(run, tmp_path, monkeypatch):
    lightning = pytest.importorskip("lightning")
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    export_run(run, "datasets", tmp_path / "dataset.parquet")
    space = {"transform": lambda image: torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255}
    exec(compile(BLOCK, "explorer.md", "exec"), space)
    labels, pixels = [], []

    class Network(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def training_step(self, batch):
            labels.extend(batch["label"].tolist())
            pixels.append(batch["image"].shape[1:])
            return torch.nn.functional.cross_entropy(self.layer(batch["image"].mean((2, 3))), batch["label"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    lightning.Trainer(max_epochs=1, enable_model_summary=False, **quiet).fit(Network(), space["CleanImages"]())
    counts = np.bincount(labels)  # two images of the first class carry the artifact
    assert sorted(counts) == [EACH - 2, EACH, EACH] and {*pixels} == {(3, SIDE, SIDE)}
