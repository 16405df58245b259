"""Exports opened by the programs that they are made for, each in an environment of its own: they want other versions.

VIRELAY_PYTHON, FIFTYONE_PYTHON and ATLAS_PYTHON name interpreters with virelay, with fiftyone and a mongod, and with
embedding-atlas; a test whose program is not named is skipped.
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from tests.explorer.made_run import SIDE, TAG, WINDOW, write_run

from klarsicht.explorer.export import export_run
from klarsicht.ground.run_folder.decisions import Change, DecisionLog

pytestmark = pytest.mark.nightly
EACH, CARRIERS = 24, 6
NAMES = ("tagged", 'a "name", with\ncommas', "plain")


def interpreter(name):
    """The interpreter that an environment variable names; skips the test without one."""
    found = os.environ.get(name)
    if not found:
        pytest.skip(f"{name} names no interpreter")
    return found


def run_there(python, code, *words, **environment):
    """Run code in another interpreter; returns what its last line of output tells, as JSON."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    ran = subprocess.run([python, "-c", code, *map(str, words)], capture_output=True, text=True, env=own, timeout=540)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three classes, of which the last has no stored embedding; members of the first are decided."""
    store = write_run(tmp_path_factory.mktemp("made"), NAMES, EACH, CARRIERS, embedded=[0, 1])
    log = DecisionLog(store.path)
    log.append(Change(0, "tagged", "artifact", "tag", base=(0, 1, 2), add=(9,), remove=(0,)), "ada")
    return store.path


VIRELAY = """
import sys
from virelay.application import run_wsgi_app
client = run_wsgi_app([sys.argv[1]]).test_client()
asked = 0
def get(path, **query):
    global asked
    asked += 1
    answer = client.get(path, query_string=query)
    assert answer.status_code == 200, (path, query, answer.status_code, answer.data[:300])
    return answer
project = get("/api/projects/0").json
for method in project["analysisMethods"]:
    for category in method["categories"]:
        for clustering in method["clusterings"]:
            for embedding in method["embeddings"]:
                name = embedding["name"] if isinstance(embedding, dict) else embedding
                query = {"category": category["name"], "clustering": clustering, "embedding": name}
                get(f"/api/projects/0/analyses/{method['name']}", **query)
for i in range(int(sys.argv[2])):
    for path in ("dataset/{}", "dataset/{}/image", "attributions/{}"):
        get("/api/projects/0/" + path.format(i))
    for mode in ("overlay", "input", "attribution"):
        get(f"/api/projects/0/attributions/{i}/heatmap", imageMode=mode, colorMap="gray-red")
print(asked)
"""


def test_virelay_answers_for_every_category_and_image(run, tmp_path):
    out = export_run(run, "virelay", tmp_path / "v")
    asked = run_there(interpreter("VIRELAY_PYTHON"), VIRELAY, out / "project.yaml", 2 * EACH)
    assert asked == 1 + 2 * 2 * 2 + 6 * 2 * EACH


FIFTYONE = """
import json, sys
import fiftyone as fo
from fiftyone import ViewField as F
folder, coco, data, classes = sys.argv[1:]
whole = fo.Dataset.from_dir(
    dataset_type=fo.types.FiftyOneImageClassificationDataset, data_path=folder + "/data.json",
    labels_path=folder + "/labels.json",
)
carriers = whole.match((F("ground_truth.carries") == "yes") & (F("ground_truth.label") == "tagged"))
masks = fo.Dataset.from_dir(
    dataset_type=fo.types.COCODetectionDataset, data_path=data, labels_path=coco,
    label_types=["detections", "segmentations"],
)
masks.compute_metadata()
print(json.dumps({
    "labels": whole.count_values("ground_truth.label"),
    "carriers": sorted(carriers.values("ground_truth.row")),
    "files": sorted(sample.filepath for sample in carriers),
    "readable": sum(fo.ImageMetadata.build_for(path).width == int(classes) for path in whole.values("filepath")),
    "coco": {
        sample.filepath: [(one.label, one.bounding_box) for one in sample.detections.detections]
        for sample in masks if sample.detections
    },
    "segmented": {
        sample.filepath: [[*one.mask.shape, int(one.mask.sum())] for one in sample.segmentations.detections]
        for sample in masks if sample.has_field("segmentations") and sample.segmentations
    },
}))
"""


def test_fiftyone_reads_images_labels_and_members(run, tmp_path):
    """In a data base of its own: FiftyOne keeps its data sets in a MongoDB."""
    python = interpreter("FIFTYONE_PYTHON")
    folder, coco = export_run(run, "fiftyone", tmp_path / "f"), export_run(run, "coco", tmp_path / "coco.json")
    data = run.parent / "data"
    told = run_there(
        python, FIFTYONE, folder, coco, data, SIDE, FIFTYONE_DATABASE_DIR=str(tmp_path / "mongo"),
        FIFTYONE_DO_NOT_TRACK="true", FIFTYONE_DATABASE_VALIDATION="false", FIFTYONE_PLUGINS_DIR=str(tmp_path / "p"),
    )  # fmt: skip
    assert told["labels"] == dict.fromkeys(NAMES, EACH) and told["readable"] == 3 * EACH
    assert told["carriers"] == [1, 2, 9]
    assert told["files"] == [str(data / "tagged" / f"{i:05d}.png") for i in (1, 2, 9)]
    assert len(told["coco"]) == 3
    ((label, box),) = told["coco"][str(data / "tagged" / "00001.png")]
    assert label == "tag" and box == pytest.approx([WINDOW[1], WINDOW[0], WINDOW[3], WINDOW[2]])
    assert told["segmented"][str(data / "tagged" / "00001.png")] == [[TAG, TAG, TAG**2]]


OPENED = """
import json, runpy, sys
import fiftyone as fo
dataset = runpy.run_path(sys.argv[1] + "/open_in_fiftyone.py")["dataset"]
print(json.dumps({
    "samples": len(dataset), "tags": dataset.count_sample_tags(), "runs": dataset.list_brain_runs(),
    "maps": [fo.Heatmap.from_dict(s.relevance.to_dict()).map_path is not None for s in dataset if s.relevance],
    "sizes": [list(s.relevance.get_map().shape) for s in dataset.limit(3)],
    "embedding": len(dataset.first().embedding),
}))
"""


def test_fiftyone_opens_heat_maps_embeddings_and_tags(run, tmp_path):
    folder = export_run(run, "fiftyone", tmp_path / "f")
    told = run_there(
        interpreter("FIFTYONE_PYTHON"), OPENED, folder, FIFTYONE_DATABASE_DIR=str(tmp_path / "mongo"),
        FIFTYONE_DO_NOT_TRACK="true", FIFTYONE_DATABASE_VALIDATION="false", FIFTYONE_PLUGINS_DIR=str(tmp_path / "p"),
    )  # fmt: skip
    assert told["samples"] == len(told["maps"]) == 3 * EACH and all(told["maps"])
    assert sum(told["tags"].values()) == 3 and told["runs"] == ["klarsicht"]
    assert told["sizes"] == [[SIDE, SIDE]] * 3 and told["embedding"] > 0


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def atlas_served(python, file, log):
    """A server of Embedding Atlas on a file; gives its address."""
    port = free_port()
    words = ["--x", "x", "--y", "y", "--neighbors", "neighbors", "--image", "image", "--port", str(port)]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("w") as told:
        command = [python, "-c", "from embedding_atlas.cli import main; main()", str(file), *words, "--no-auto-port"]
        server = subprocess.Popen(command, stdout=told, stderr=told, env=own)
    try:
        for _ in range(1200):
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/data/metadata.json").read()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_embedding_atlas_serves_points_neighbours_and_images(run, tmp_path):
    """Asked by what its page asks for: settings, and SQL on its data base."""
    python = interpreter("ATLAS_PYTHON")
    file = export_run(run, "atlas", tmp_path / "a.parquet")
    with atlas_served(python, file, tmp_path / "log") as address:
        settings = json.loads(urllib.request.urlopen(f"{address}/data/metadata.json").read())["props"]["data"]
        assert settings["projection"] == {"x": "x", "y": "y"}
        assert (settings["neighbors"], settings["image"]) == ("neighbors", "image")

        def ask(sql):
            body = json.dumps({"type": "json", "sql": sql}).encode()
            return json.loads(urllib.request.urlopen(f"{address}/data/query", body).read())

        (counts,) = ask("select count(*) n, count(x) placed, count(image.bytes) pictures from dataset")
        assert counts == {"n": 2 * EACH, "placed": 2 * EACH, "pictures": 2 * EACH}
        (one,) = ask('select file, len(neighbors.ids) k, neighbors.ids[1] "first" from dataset where row = 0')
        assert (one["file"], one["k"]) == ("tagged/00000.png", 10) and one["first"] in range(1, EACH)
        ranks = ask("select min(pagerank) low, sum(pagerank) total from dataset")[0]
        assert ranks["low"] > 0 and ranks["total"] == pytest.approx(1)
        assert b"<script" in urllib.request.urlopen(address).read()
