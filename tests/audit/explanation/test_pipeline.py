"""The whole chain on a corpus whose artifact is known, and what must not go wrong on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from tests.audit.conftest import network, rewrite_rows, write_corpus
from tests.marks import slow

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.report.caveats import collect_caveats
from klarsicht.audit.explanation.report.page import write_report
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.status import read_progress
from klarsicht.audit.explanation.steps import relevance_step
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results import ranking
from klarsicht.audit.results.words import VerdictKind
from klarsicht.cli.app import run as klarsicht
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.point_clouds import read_points
from klarsicht.ground.errors import CorpusError, InputError, RunDamaged, RunMismatch, StoreError, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import verify


def settings(data, **changes):
    return AuditSettings(model="object", data=str(data), unit=25, batch=7, **{"neighbours": 6} | changes)


@pytest.fixture
def corpus(tmp_path):
    return tmp_path / "data", write_corpus(tmp_path / "data")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A corpus, its marked images, and the run of it by the plain settings; for reading only."""
    folder = tmp_path_factory.mktemp("audited")
    marked = write_corpus(folder / "data")
    classifier = load_model(network(), classes=["a", "b", "c"])
    return folder / "data", marked, pipeline.run(settings(folder / "data"), folder / "run", classifier=classifier)


@pytest.fixture
def finished(audited, tmp_path):
    """A copy of that run and its corpus."""
    for part in ("data", "run"):
        shutil.copytree(audited[0].with_name(part), tmp_path / part)
    return tmp_path / "data", RunStore.open(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "classes"),
    [
        *[(name, 3) for name in ("euclidean", "concept", "features", "wasserstein", "sliced-rotation")],
        ("channels", 1),  # relevance of a and of c lies in one channel: all their images are alike
    ],
)
def test_the_class_with_the_mark_ranks_first_and_its_cluster_is_the_marked_images(
    corpus, classifier, tmp_path, metric, classes
):
    data, marked = corpus
    store = pipeline.run(settings(data, metric=(metric,)), tmp_path / "run", classifier=classifier)
    order = ranking.read_ranking(store)
    assert order[0].name == "b"
    assert {str(Path(path).relative_to(data)) for path in order[0].members} == marked
    assert order[0].kind is VerdictKind.RAISES
    assert len(order) == classes
    assert [e.z for e in order] == sorted((e.z for e in order), reverse=True)


@pytest.mark.slow
def test_maps_without_positive_relevance_are_set_aside_and_counted(corpus, classifier, tmp_path):
    """Three maps of class b are made blank; the others are compared as if those had never been."""
    data, marked = corpus
    audit = Audit.of(settings(data, metric=("wasserstein-t",)), classifier)
    store = pipeline.open_run(audit, tmp_path / "run")
    with store.lock():
        relevance_step.attribute(audit, store, 1, own=classifier)
        rows = [row for row, path in enumerate(audit.corpus.paths) if "/b/" in str(path)]
        blank = [row for row in rows if str(Path(audit.corpus.paths[row]).relative_to(data)) not in marked][:3]
        maps = np.asarray(store.array("maps")[:])
        maps[blank] = 0
        for start in range(0, len(maps), audit.settings.unit):
            rewrite_rows(store, "maps", start, maps[start : start + audit.settings.unit])
        pipeline.analyse(audit, store, 1)
        pipeline.analyse(audit, store, 1, (ranking.PLAIN_METRIC,))
        pipeline.write_ranking(audit, store)
        write_report(store)
    (line,) = (r for r in store.table("suspects-wasserstein-t", "spray-wasserstein-t").to_pylist() if r["class"] == "b")
    assert line["n"] == len(rows) - 3
    assert line["aside"].startswith("3 maps")
    assert not set(line["rows"]) & set(blank)
    assert "class b (wasserstein-t)" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_screening_finds_the_mark_on_images_of_other_classes(tmp_path, classifier):
    """The mark lies on images of class a, labels say nothing about it, and it is class b that it raises. The explorer
    shows the same embedding of class b, however it was screened; of all classes it has the overlays that were drawn."""
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    from tests.audit.conftest import picture

    for i in range(90):
        picture(0, i < 12, rng).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,unlabelled")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    explored = {}
    for target in ("b", "all"):
        run = pipeline.run(settings(tmp_path / "all.csv", target=target), tmp_path / target, classifier=classifier)
        entry = ranking.read_ranking(run).of("b")
        assert sorted(entry.rows) == list(range(12))
        assert ranking.read_ranking(run)[0].name == "b"
        explored[target] = ExploredRun.of(run)
    one, screened = (pdist(read_points(run, 1).vectors) for run in explored.values())
    np.testing.assert_allclose(screened, one, atol=1e-4)
    assert explored["b"].results.drawn_overlays(1) == {}
    overlays = explored["all"].results.drawn_overlays(1)
    assert len(overlays) == 20 and len(set(overlays) & set(range(12))) == 10
    shown, plain = (
        np.asarray(Image.open(BytesIO(explored["all"].pictures.draw(min(overlays), kind, 96, 1))), float)
        for kind in ("overlay", "image")
    )
    assert shown.shape == plain.shape and np.abs(shown - plain).max() > 30
    with pytest.raises(UsageError, match="no relevance of this image"):
        explored["all"].pictures.draw(next(row for row in range(90) if row not in overlays), "overlay", 96, 1)


@pytest.mark.slow
def test_predicted_targets_group_by_what_the_model_says(corpus, classifier, tmp_path):
    data, _ = corpus
    store = pipeline.run(settings(data, target="predicted"), tmp_path / "run", classifier=classifier)
    images = store.table("images").to_pylist()
    assert all(i["target"] == i["predicted"] for i in images)


@pytest.mark.slow
def test_what_is_stored_agrees_with_the_network(audited, classifier):
    data, _, store = audited
    audit = Audit.of(settings(data), classifier)
    images = [classifier.transform(Image.open(path)) for path in audit.corpus.paths]
    with torch.no_grad():
        logits = network()(torch.stack(images))
    np.testing.assert_allclose(store.array("logits")[:], logits, atol=1e-5)
    facts = store.table("images").to_pylist()
    truth = torch.nn.functional.cross_entropy(logits, torch.from_numpy(audit.targets), reduction="none")
    np.testing.assert_allclose([f["loss"] for f in facts], truth, atol=1e-5)


def digest(run: Path):
    store = RunStore.open(run)
    arrays = {
        name: store.array(name)[:].tobytes() for name in ("maps", "features", "logits", "head", "concepts", "channels")
    }
    return arrays | {name: (run / name).read_bytes() for name in ("ranking.json", "report.html")}


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(corpus, tmp_path, monkeypatch):
    """A process of its own is killed; what it left is resumed here, where the undisturbed run is made too."""
    data, _ = corpus
    asked = ["audit", "run", "--model", "tests.audit.conftest:network", "--data", str(data), "--unit", "10"]
    asked += ["--metric", "euclidean", "--metric", "concept", "--out"]
    monkeypatch.chdir(Path(__file__).parents[3])
    command = [sys.executable, "-m", "klarsicht", *asked, str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    marks = tmp_path / "killed" / "done" / "attribution"
    while not (marks.is_dir() and len(list(marks.glob("*.json"))) >= 2) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for run in ("killed", "whole"):
        assert klarsicht([*asked, str(tmp_path / run)]) == 0
    whole, killed = digest(tmp_path / "whole"), digest(tmp_path / "killed")
    stamp = {RunStore.open(tmp_path / run).manifest["created"][:16].replace("T", " ") for run in ("whole", "killed")}
    for when in stamp:  # the page says when the run began
        whole["report.html"] = whole["report.html"].replace(when.encode(), b"")
        killed["report.html"] = killed["report.html"].replace(when.encode(), b"")
    assert whole == killed


@pytest.mark.slow
@pytest.mark.parametrize("array", ["channels", "concepts", "features", "head", "logits", "maps"])
def test_an_audit_killed_between_an_array_and_its_checksum_resumes(corpus, tmp_path, monkeypatch, array):
    """The array is there and unrecorded, the last of them when all others are recorded; the oracle is a whole run."""
    data, _ = corpus
    monkeypatch.chdir(Path(__file__).parents[3])
    asked = settings(data).model_copy(update={"model": "tests.audit.conftest:network"})
    admit = RunStore._admit

    def killed(store, name, *checksums):
        if name == f"arrays.zarr/{array}/zarr.json":
            raise KeyboardInterrupt
        admit(store, name, *checksums)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunStore, "_admit", killed)
        pipeline.run(asked, tmp_path / "run")
    assert (tmp_path / "run" / "arrays.zarr" / array / "zarr.json").exists()
    for out in ("run", "whole"):
        pipeline.run(asked, tmp_path / out)
    resumed, whole = (digest(tmp_path / out) for out in ("run", "whole"))
    assert verify(RunStore.open(tmp_path / "run")).damaged == ()
    assert {name: resumed[name] for name in resumed.keys() - {"report.html"}} == {
        name: whole[name] for name in whole.keys() - {"report.html"}
    }


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(audited, tmp_path, monkeypatch):
    """Nor on whether the model is given or named."""
    data, _, one = audited
    monkeypatch.chdir(Path(__file__).parents[3])
    asked = settings(data).with_values(model="tests.audit.conftest:network")
    two = pipeline.run(asked, tmp_path / "two", workers=2)
    assert (one.path / "ranking.json").read_bytes() == (two.path / "ranking.json").read_bytes()
    np.testing.assert_array_equal(one.array("maps")[:], two.array("maps")[:])


def test_a_second_run_computes_nothing_again(finished, classifier, tmp_path, monkeypatch):
    data, _ = finished
    monkeypatch.setattr(attribution.Attribution, "__call__", lambda *_: pytest.fail("attributed again"))
    monkeypatch.setattr(pipeline.Analysis, "__call__", lambda *_: pytest.fail("analysed again"))
    pipeline.run(settings(data), tmp_path / "run", classifier=classifier)
    assert all(step.complete for step in read_progress(tmp_path / "run"))


def test_other_settings_another_model_or_other_data_do_not_mix_into_a_run(finished, classifier, tmp_path):
    data, _ = finished
    with pytest.raises(RunMismatch, match="seed"):
        pipeline.run(settings(data, seed=1), tmp_path / "run", classifier=classifier)
    Image.new("RGB", (12, 12)).save(data / "a" / "new.png")
    with pytest.raises(RunMismatch, match=r"the corpus changed since the run; 1 image new, first a/new\.png\. "):
        pipeline.run(settings(data), tmp_path / "run", classifier=classifier)
    (data / "a" / "new.png").rename(data / "a" / "000.png")  # another picture of the same name
    with pytest.raises(RunMismatch, match="the same names, but a file or a label is another one"):
        pipeline.run(settings(data), tmp_path / "run", classifier=classifier)
    for name in ("000.png", "001.png"):
        (data / "a" / name).unlink()
    with pytest.raises(RunMismatch, match=r"2 images gone, first a/000\.png\. "):
        pipeline.run(settings(data), tmp_path / "run", classifier=classifier)


@pytest.mark.slow
def test_bad_images_are_counted_named_and_left_out(corpus, classifier, tmp_path):
    data, marked = corpus
    (data / "a" / "text.png").write_text("this is not a picture")
    (data / "a" / "cut.png").write_bytes((data / "a" / "000.png").read_bytes()[:60])
    Image.new("1", (12, 12)).save(data / "a" / "onebit.png")
    Image.fromarray(np.full((12, 12), 40000, np.uint16)).save(data / "a" / "deep.png")
    (data / "d").mkdir()
    store = pipeline.run(settings(data), tmp_path / "run", classifier=classifier)
    lines = store.table("images").to_pylist()
    keys = store.table("corpus")["key"].to_pylist()
    left_out = {keys[line["row"]] for line in lines if line["skipped"]}
    assert left_out == {"a/text.png", "a/cut.png"}
    page = (store.path / "report.html").read_text()
    assert "text.png" in page
    assert "class d" in page
    assert len(ranking.read_ranking(store).of("b").members) == len(marked)


@pytest.mark.slow
def test_a_class_of_three_images_is_skipped_by_name(corpus, classifier, tmp_path):
    data, _ = corpus
    for file in sorted((data / "c").iterdir())[3:]:
        file.unlink()
    store = pipeline.run(settings(data), tmp_path / "run", classifier=classifier)
    assert [e.name for e in ranking.read_ranking(store)] in (["b", "a"], ["b"])
    assert "3 images; at least 20 are needed" in (store.path / "report.html").read_text()
    (told,) = (one for one in collect_caveats(store, store.table("images")) if one.startswith("Not in the ranking: "))
    names, _ = told.removeprefix("Not in the ranking: ").split(". ", 1)
    ranked = {one.name for one in ranking.read_ranking(store)}
    assert set(names.replace(" and ", ", ").split(", ")) == {"a", "b", "c"} - ranked


def test_one_image_is_a_result_without_a_ranking(tmp_path, classifier):
    (tmp_path / "data" / "a").mkdir(parents=True)
    Image.new("RGB", (12, 12), "white").save(tmp_path / "data" / "a" / "one.png")
    store = pipeline.run(settings(tmp_path / "data"), tmp_path / "run", classifier=classifier)
    assert len(ranking.read_ranking(store)) == 0
    assert "No class could be ranked" in (store.path / "report.html").read_text()


def test_labels_the_model_does_not_know_are_refused_by_name(corpus, classifier, tmp_path):
    data, _ = corpus
    (data / "a").rename(data / "zebra")
    with pytest.raises(CorpusError, match="zebra"):
        pipeline.run(settings(data), tmp_path / "run", classifier=classifier)


@pytest.mark.slow
def test_a_class_map_tells_the_outputs_of_foreign_labels(corpus, classifier, tmp_path):
    data, _ = corpus
    (data / "b").rename(data / "zebra")
    (tmp_path / "map.csv").write_text("label,index\na,0\nzebra,1\nc,2\n")
    store = pipeline.run(settings(data, class_map=str(tmp_path / "map.csv")), tmp_path / "run", classifier=classifier)
    assert ranking.read_ranking(store)[0].name == "zebra"
    (tmp_path / "map.csv").write_text("label,index\na,1\nzebra,0\nc,2\n")
    with pytest.raises(RunMismatch, match=r"class map changed since the run; got a: output 1; the run has 0\."):
        pipeline.check_unchanged(Audit.of_run(store, classifier=classifier), store)
    (tmp_path / "map.csv").write_text("label,index\na,0\nzebra,7\nc,2\n")
    with pytest.raises(InputError, match="zebra"):
        Audit.of(settings(data, class_map=str(tmp_path / "map.csv")), classifier).index  # noqa: B018


def test_an_unknown_target_or_a_folder_among_the_images_leaves_nothing(corpus, classifier, tmp_path):
    with pytest.raises(UsageError, match="unknown class"):
        pipeline.run(settings(corpus[0], target="bb"), tmp_path / "run", classifier=classifier)
    with pytest.raises(UsageError, match=r"would lie among the images; got .*/run; .*Choose another `out`"):
        pipeline.run(settings(corpus[0]), corpus[0] / "run", classifier=classifier)
    assert not (tmp_path / "run").exists() and not (corpus[0] / "run").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": ("euclidian",)}, "euclidean"),
        ({"method": "EpsilonPlus"}, "EpsilonPlusFlat"),
        ({"target": "all", "metric": ("euclidean",)}, "one class"),
        ({"target": "z"}, "unknown class"),
    ],
)
def test_wrong_names_are_told_with_near_ones(corpus, classifier, tmp_path, changes, told):
    with pytest.raises(UsageError, match=told):
        pipeline.run(settings(corpus[0], **changes), tmp_path / "run", classifier=classifier)


def test_the_report_needs_no_network_and_no_other_file(finished):
    page = write_report(finished[1]).read_text()
    assert page.count("data:image/jpeg;base64,") > 10
    for outside in ("http://", "https://", "<script ", "<link", "url("):
        assert outside not in page
    assert page.count("<script>") == 1 and "default-src 'none'" in page  # its own, see its content security policy


def test_plain_features_never_compete(finished):
    _, run = finished
    order = ranking.read_ranking(run)
    assert {e.metric for e in order} == {"concept"} and order.of("b").baseline.overlap == 1  # both find the mark
    assert json.loads((run.path / "ranking.json").read_text())[0]["plain_size"] == order[0].baseline.size
    assert "without relevance" in (run.path / "report.html").read_text()
    shutil.rmtree(run.path / "tables" / "suspects-features")
    with pytest.raises(RunDamaged, match=r"suspects-features/00000\.parquet: missing"):
        ranking.read_ranking(run)


# Damage


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damaged", "damage"),
    [
        ("arrays.zarr/head/c.2.0", Path.unlink),
        ("arrays.zarr/maps/c.0.0.0", flip),
        slow("arrays.zarr/maps/zarr.json", Path.unlink),
        slow("arrays.zarr/zarr.json", flip),
        ("tables/images/00003.parquet", flip),
        slow("tables/suspects-concept/00001.parquet", Path.unlink),
        ("tables/corpus.parquet", flip),
        slow("tables/views.parquet", Path.unlink),
        ("ranking.json", flip),
        ("done/attribution/00001.json", Path.unlink),
        slow("done/spray-concept/00002.json", flip),
    ],
)
def test_what_is_damaged_is_named_and_computed_again_to_the_byte(finished, classifier, capsys, damaged, damage):
    data, run = finished
    before = {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*") if p.is_file() and p.name != "lock"}
    damage(run.path / damaged)
    with pytest.raises(RunDamaged):
        verify(run).require_intact()
    pipeline.run(settings(data), run.path, classifier=classifier)
    assert damaged in capsys.readouterr().err
    assert verify(run).damaged == ()
    after = {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*") if p.is_file() and p.name != "lock"}
    # the copied run names the data where they were: the manifest, the corpus and all that shows paths differ once
    pipeline.run(settings(data), run.path, classifier=classifier)
    again = {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*") if p.is_file() and p.name != "lock"}
    assert after == again
    kept = {p for p in before if p.parts[0] in ("arrays.zarr", "done") or p.match("tables/images/*")}
    assert all(after[p] == before[p] for p in kept)


def test_eight_lost_shards_do_not_change_a_ranking_in_silence(finished, classifier, capsys):
    """With zeros in place of them the marked class fell to the last place, at exit code 0."""
    data, run = finished
    before = [(e.name, e.z) for e in ranking.read_ranking(run)]
    for shard in sorted(run.path.glob("arrays.zarr/head/c.*"))[:5]:
        shard.unlink()
    shutil.rmtree(run.path / "tables" / "suspects-concept")
    asked = ["audit", "status", "--verify", str(run.path)]
    assert klarsicht(asked) == 10
    told = capsys.readouterr()
    assert told.out.count("damaged: arrays.zarr/head/") == 5 and "arrays.zarr/head/" in told.err
    pipeline.run(settings(data), run.path, classifier=classifier)
    assert [(e.name, e.z) for e in ranking.read_ranking(run)] == before
    assert klarsicht(asked) == 0
    assert klarsicht([*asked, "--json"]) == 0


@pytest.mark.parametrize("content", ["{}", "[1]", '{"classes": [{}], "skipped": []}', '[{"rows": [10000000]}]'])
@pytest.mark.parametrize("file", ["ranking.json", "quantification.json"])
def test_json_of_something_else_is_refused_in_one_line_where_its_checksum_is_right(finished, capsys, file, content):
    _, run = finished
    run.write_bytes(file, content.encode())
    of_another_version = file == "quantification.json" and content.startswith("{")
    assert klarsicht(["audit", "rank", str(run.path)]) == (3 if of_another_version else 10)
    assert file in capsys.readouterr().err


@pytest.mark.parametrize("changed", [{"data": None}, {"settings": {"seed": "x"}}, {"settings": [1]}])
def test_a_manifest_without_usable_settings_is_refused_in_one_line(finished, changed):
    _, run = finished
    run.update_manifest(**changed)
    with pytest.raises(StoreError):
        AuditSettings.of_run(run.manifest)


@pytest.mark.parametrize("changes", [{"method": "HeadRelevance"}, {"target": "all"}])
def test_channels_without_maps_are_refused(corpus, classifier, tmp_path, changes):
    with pytest.raises(UsageError, match="compares propagated relevance"):
        pipeline.run(settings(corpus[0], metric=("channels",), **changes), tmp_path / "run", classifier=classifier)


def test_a_network_without_convolutions_has_maps_and_no_channels(corpus, tmp_path):
    dense = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    classifier = load_model(dense, classes=["a", "b", "c"])
    run = pipeline.run(settings(corpus[0]), tmp_path / "run", classifier=classifier)
    assert run.has_array("maps") and not run.has_array("channels") and "middle" not in run.manifest
    with pytest.raises(UsageError, match="without convolutions"):
        pipeline.run(settings(corpus[0], metric=("channels",)), tmp_path / "again", classifier=classifier)


@pytest.mark.parametrize(("spec", "asked"), [("timm:resnet50@w.pt", True), ("mine.py:timm", False)])
def test_only_a_network_of_timm_is_asked_for_its_size(spec, asked, capsys):
    pipeline.note_default_size(spec)
    assert ("trained at another" in capsys.readouterr().err) == asked
