"""Images with several labels and a network of sigmoids: a row for each (image, label) pair, and own logits."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from tests.audit.conftest import Marked, in_brief, picture
from tests.audit.verdicts.quantification.test_quantification import NAMES, TAGS, USED, ReadsATag
from torch import nn

from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_model import clean
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results import ranking
from klarsicht.audit.results.verdicts import has_cleaning
from klarsicht.audit.results.words import VerdictKind
from klarsicht.audit.verdicts.quantification import opened_runs, quantification
from klarsicht.ground.errors import RunMismatch, UsageError
from klarsicht.ground.run_folder.store import RunStore

ARRAYS = ("maps", "features", "logits", "head", "concepts", "channels")


class MarkedSigmoids(Marked):
    """Three independent classes by the brightness of three channels; "b" also by a bright corner."""

    def __init__(self):
        super().__init__()
        nn.init.constant_(self.head.bias, -0.3)

    def forward(self, x):
        return torch.sigmoid(super().forward(x))


def settings(data, **changes):
    return AuditSettings(model="object", data=str(data), unit=25, batch=7, **{"neighbours": 6} | changes)


def write_pictures(folder):
    """45 images each of a, b, c and 15 of two labels, in one manifest; a mark on twelve that carry b."""
    rng, lines, marked = np.random.default_rng(0), ["path,label"], set()
    folder.mkdir()
    for i in range(150):
        labels = ("b;a" if i % 2 else "b; c") if i >= 135 else "abc"[i % 3]
        marks = labels[0] == "b" and i >= 120
        picture("abc".index(labels[0]), marks, rng).save(folder / f"{i:03d}.png")
        lines.append(f"{i:03d}.png,{labels}")
        marked |= {f"{i:03d}.png"} if marks else set()
    (folder / "list.csv").write_text("\n".join(lines))
    return [line.split(",") for line in lines[1:]], marked


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The manifest's lines, the marked images, the folder, the classifier and the run."""
    folder = tmp_path_factory.mktemp("several")
    lines, marked = write_pictures(folder / "data")
    classifier = load_model(MarkedSigmoids().eval(), classes=["a", "b", "c"])
    with in_brief(200):
        chosen = settings(folder / "data" / "list.csv", label_separator=";")
        return lines, marked, folder, classifier, pipeline.run(chosen, folder / "run", classifier=classifier)


@pytest.mark.slow
def test_pairs_are_audited_as_copies_of_the_image_with_one_label_each(audited):
    """Oracle: a corpus of files with one label each, an image of two labels copied; the same bits."""
    lines, _, folder, classifier, store = audited
    (folder / "copies").mkdir()
    copied = ["path,label"]
    for path, cell in lines:
        for label in cell.split(";"):
            name = f"{label.strip()}-{path}"
            shutil.copy(folder / "data" / path, folder / "copies" / name)
            copied.append(f"{name},{label.strip()}")
    (folder / "copies" / "list.csv").write_text("\n".join(copied))
    with in_brief(200):
        single = pipeline.run(settings(folder / "copies" / "list.csv"), folder / "single", classifier=classifier)
    assert len(store.array("logits")[:]) == len(copied) - 1 == 165
    for name in ARRAYS:
        assert store.array(name)[:].tobytes() == single.array(name)[:].tobytes()
    for table, step in (("images", "attribution"), ("suspects-concept", "spray-concept")):
        assert repr(store.table(table, step).to_pylist()) == repr(single.table(table, step).to_pylist())
    kept = [{k: v for k, v in e.items() if k != "members"} for e in ranking.read_ranking(store).to_json()]
    assert kept == [{k: v for k, v in e.items() if k != "members"} for e in ranking.read_ranking(single).to_json()]


def test_the_marked_images_are_found_whatever_else_they_show(audited):
    lines, marked, _, _, store = audited
    first = ranking.read_ranking(store)[0]
    assert first.name == "b" and {path[-7:] for path in first.members} == marked
    assert first.n == sum("b" in cell for _, cell in lines)
    page = (store.path / "report.html").read_text()
    assert (
        "150 images in" in page and "150 images have 165 labels" in page and "a class counts by its own logit" in page
    )


def test_head_relevance_and_evidence_are_of_the_own_logit(audited):
    """Oracle: the network's own layers, before its sigmoid."""
    lines, _, folder, classifier, store = audited
    net, facts = MarkedSigmoids().eval(), store.table("images", "attribution").to_pylist()
    rows = [(path, "abc".index(label.strip())) for path, cell in lines for label in cell.split(";")]
    x = torch.stack([classifier.transform(Image.open(folder / "data" / path)) for path, _ in rows])
    features = net.flatten(net.pool(net.last(net.relu(net.first(x))))).detach().numpy()
    weight, target = net.head.weight.detach().numpy(), np.array([k for _, k in rows])
    np.testing.assert_allclose(store.array("head")[:], features * weight[target], atol=1e-6)
    own = (features @ weight.T + net.head.bias.detach().numpy())[np.arange(len(rows)), target]
    np.testing.assert_allclose([f["centred"] for f in facts], own, atol=1e-4)
    np.testing.assert_allclose([f["loss"] for f in facts], -np.log(expit(own)), atol=1e-4)


@pytest.mark.slow
def test_the_followed_cluster_is_measured_in_own_logits_on_images_that_do_not_carry_the_class(audited, tmp_path):
    """Oracle: the network reads the mark for class b, by construction."""
    _, marked, _, classifier, store = audited
    shutil.copytree(store.path, tmp_path / "run")
    with in_brief(200):
        quantification.quantify(tmp_path / "run", classifier=classifier)
    first = ranking.read_ranking(tmp_path / "run")[0]
    assert first.name == "b" and {path[-7:] for path in first.members} == marked
    assert first.effect.rank == 0 and first.effect.low > 0


def test_a_run_of_several_labels_says_that_it_cannot_be_cleaned(audited):
    """Oracle: `audit clean`, which refuses it."""
    *_, classifier, store = audited
    assert not has_cleaning(store)
    with pytest.raises(UsageError, match="no cleaning of this run yet"):
        clean(store, "b", classifier=classifier)


def test_a_screened_corpus_counts_every_image_once(audited, tmp_path):
    _, marked, folder, classifier, _ = audited
    chosen = settings(folder / "data" / "list.csv", label_separator=";", target="b")
    with in_brief(200):
        store = pipeline.run(chosen, tmp_path / "run", classifier=classifier)
    entry = ranking.read_ranking(store)[0]
    assert entry.n == 150 and {path[-7:] for path in entry.members} == marked


def test_cleaning_of_several_labels_is_refused_in_one_line(audited):
    _, _, _, classifier, store = audited
    with pytest.raises(UsageError, match=r"no cleaning of this run yet; got several labels an image.*--exclusive"):
        AuditedRun.of(store.path, classifier=classifier)


def test_cleaning_of_sigmoids_is_refused_and_of_exclusive_classes_not(tmp_path):
    write_pictures(tmp_path / "data")
    lines = (tmp_path / "data" / "list.csv").read_text().splitlines()
    (tmp_path / "data" / "one.csv").write_text("\n".join(lines[:121]))
    classifier = load_model(MarkedSigmoids().eval(), classes=["a", "b", "c"])
    data = str(tmp_path / "data" / "one.csv")
    own, led = (
        pipeline.open_run(Audit.of(settings(data, independent=asked), classifier), tmp_path / name)
        for asked, name in ((None, "own"), (False, "led"))
    )
    assert (own.manifest["independent"], led.manifest["independent"]) == (True, False)
    with pytest.raises(UsageError, match=r"independent outputs \(sigmoids\)"):
        AuditedRun.of(own.path, data, classifier)
    AuditedRun.of(led.path, data, classifier)
    with pytest.raises(RunMismatch, match="independent"):
        pipeline.open_run(Audit.of(settings(data, independent=False), classifier), own.path)


# Verdicts

THREE, SIDE, IMAGES = (USED, 5, 7), 32, 100


class ThreeSigmoids(nn.Module):
    """Three of the classes of `ReadsATag`, each with a sigmoid; the first reads the tag."""

    def __init__(self):
        super().__init__()
        self.body = ReadsATag()
        whole, self.body.head = self.body.head, nn.Linear(49, 3)
        self.body.head.load_state_dict({name: rows[list(THREE)] for name, rows in whole.state_dict().items()})
        self.end = nn.Sigmoid()

    def forward(self, x):
        return self.end(self.body(x))


def write_scenes(folder):
    """Scenes of the same kind, ten with the tag; their labels, the used class first. Half of the tagged carry two."""
    rng = np.random.default_rng(0)
    scenes = [gaussian_filter(rng.normal(0, 60 * s, (IMAGES, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
    x = np.clip(120 + sum(scenes), 0, 255)
    folder.mkdir()
    labels = []
    for i in range(IMAGES):
        if i < 10:
            a, b = rng.integers(0, SIDE - 5, 2)
            x[i, a : a + 5, b : b + 5] = 255 * TAGS[0][..., None]
        labels.append([NAMES[USED]] if i < 40 else [NAMES[THREE[1 + i % 2]]])
        if i < 5 or 30 <= i < 40:
            labels[i].append(NAMES[THREE[1 + i % 2]])
        Image.fromarray(x[i].round().astype(np.uint8)).save(folder / f"{i:02d}.png")
    return labels


def write_list(file, labels):
    file.write_text("\n".join(["path,label", *(f"{i:02d}.png,{'|'.join(some)}" for i, some in enumerate(labels))]))
    return file


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    labels = write_scenes(folder / "data")
    return folder, labels, load_model(ThreeSigmoids().eval(), classes=[NAMES[k] for k in THREE])


def quantified(folder, data, classifier, **changes):
    chosen = AuditSettings(model="object", data=str(data), method="HeadRelevance", batch=64, **changes)
    with in_brief(200):
        pipeline.run(chosen, folder, classifier=classifier)
        return quantification.quantify(folder, classifier=classifier)


@pytest.fixture(scope="module")
def several(scenes):
    """The run over images of several labels, the verdicts, and the labels as they were written."""
    folder, labels, classifier = scenes
    data = write_list(folder / "data" / "several.csv", labels)
    return folder / "several", quantified(folder / "several", data, classifier, label_separator="|"), labels, classifier


@pytest.mark.slow
def test_the_used_tag_is_found_and_its_co_carried_classes_are_not_blamed(several):
    _, found, _, _ = several
    first = found.of(NAMES[USED])
    assert first.kind is VerdictKind.POISONED and first.use.rank == 0 and first.use.low > 1
    assert {path[-6:-4] for path in first.members} >= {f"{i:02d}" for i in range(1, 9)}
    assert not any(v.used for v in found if v.name != NAMES[USED])


def test_others_of_a_class_do_not_carry_it_and_the_pool_holds_each_image_once(several):
    """Oracle: the labels as they were written."""
    run, _, labels, classifier = several
    with opened_runs.open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (_, work):
        keys = [work.corpus.keys[row] for row in work.pool_rows]
        assert sorted(keys) == [f"{i:02d}.png" for i in range(IMAGES)]
        for number, group in enumerate(work.groups):
            others = {int(keys[i][:2]) for i in np.flatnonzero(work.others(number))}
            assert others == {i for i, some in enumerate(labels) if group.name not in some}
            assert {work.corpus.keys[row] for row in work.other_rows(number)} == {f"{i:02d}.png" for i in others}


@pytest.mark.slow
def test_with_one_label_each_the_verdicts_are_those_of_a_plain_run(scenes):
    folder, labels, classifier = scenes
    data = write_list(folder / "data" / "single.csv", [some[:1] for some in labels])
    plain, split = (
        quantified(folder / name, data, classifier, **more)
        for name, more in (("plain", {}), ("split", {"label_separator": "|"}))
    )
    assert json.dumps(plain.to_json()) == json.dumps(split.to_json())
    a, b = (RunStore.open(folder / name) for name in ("plain", "split"))
    for name in ("features", "logits"):
        assert a.array(name)[:].tobytes() == b.array(name)[:].tobytes()
    assert (a.path / "ranking.json").read_bytes() == (b.path / "ranking.json").read_bytes()
