"""A corpus of many classes with planted artifacts, and a network that reads one of them by construction."""

import base64
import hashlib
import html
import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.audit import conftest
from tests.audit.conftest import in_brief
from tests.marks import slow
from torch import nn

from klarsicht import audit
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.report.figures import Illustrator
from klarsicht.audit.explanation.report.page import PAGE
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import ranking, verdicts
from klarsicht.audit.results.significance import MIN_CLASSES
from klarsicht.audit.results.words import VerdictKind, describe_insertion
from klarsicht.audit.verdicts.detectors import natural_windows
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.audit.verdicts.quantification.further_artifacts import find_further_artifacts
from klarsicht.ground.errors import StoreError, UsageError
from klarsicht.ground.run_folder.store import RunStore

SIDE, K, EACH = 32, 24, 40
NAMES = [f"c{k:02d}" for k in range(K)]
TAGS = np.random.default_rng(4).permutation(np.repeat([0.0, 1.0], 13)[:25]).reshape(5, 5), np.eye(5)
TWO_TAGS = np.fliplr(np.eye(5)), np.pad(np.zeros((3, 3)), 1, constant_values=1)
USED, UNUSED, NOISY = 3, 11, 17
BOTH, TAGGED = 23, (range(12), range(20, 28))  # a class with two tags, each on images of its own


class ReadsATag(nn.Module):
    """Logits are random projections of a smoothed image; one of them also counts matches of the first tag."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.match = nn.Conv2d(3, 1, 5)
        self.relu = nn.ReLU()
        self.smooth = nn.AvgPool2d(8)
        self.tag = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(49, K)
        with torch.no_grad():
            pattern = torch.tensor(TAGS[0] - TAGS[0].mean(), dtype=torch.float32)
            self.match.weight.copy_(pattern.expand(1, 3, 5, 5) / (pattern**2).sum() / 3)
            self.match.bias.fill_(-0.8)
            self.head.weight.copy_(torch.randn(K, 49, generator=generator) * 0.5)
            self.head.weight[:, 48] = 0
            self.head.weight[USED, 48] = 40
            self.head.bias.zero_()

    def forward(self, x):
        seen = torch.cat([self.flatten(self.smooth(x)), self.flatten(self.tag(self.relu(self.match(x))))], 1)
        return self.head(seen)


def write_corpus(folder, classes=range(K)):
    """Every class the same kind of scenes; tags on a quarter of two classes, noise on a quarter of a third; two
    tags in a fourth, each on images of its own."""
    rng = np.random.default_rng(0)
    for k in classes:
        name = NAMES[k]
        (folder / name).mkdir(parents=True)
        scenes = [gaussian_filter(rng.normal(0, 60 * s, (EACH, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
        x = np.clip(120 + sum(scenes), 0, 255)
        for i in range(EACH // 4):
            if k in (USED, UNUSED):
                a, b = rng.integers(0, SIDE - 5, 2)
                x[i, a : a + 5, b : b + 5] = 255 * TAGS[k == UNUSED][..., None]
            elif k == NOISY:
                x[i] = np.clip(x[i] + rng.normal(0, 25, x[i].shape), 0, 255)
        for tag, images in zip(TWO_TAGS, TAGGED, strict=True) if k == BOTH else ():
            for i in images:
                a, b = rng.integers(0, SIDE - 5, 2)
                x[i, a : a + 5, b : b + 5] = 255 * tag[..., None]
        for i in range(EACH):
            Image.fromarray(x[i].round().astype(np.uint8)).save(folder / name / f"{i:02d}.png")
    again = Image.open(folder / NAMES[5] / "20.png")
    again.save(folder / NAMES[5] / "99.jpg", quality=92)  # the same photograph, re-encoded


POOL = 20 * K  # half of all images: a class is compared with those of others


def reader_of_a_tag():
    return load_model(ReadsATag().eval(), classes=NAMES)


def quantified_in(folder):
    """Write a corpus, its audit, quantified, and the verdicts."""
    torch.set_num_threads(1)
    write_corpus(folder / "data")
    settings = AuditSettings(model="object", data=str(folder / "data"), method="HeadRelevance", batch=64)
    with in_brief(POOL):
        pipeline.run(settings, folder / "run", classifier=reader_of_a_tag())
        found = quantification.quantify(folder / "run", classifier=reader_of_a_tag())
    (folder / "verdicts.pkl").write_bytes(pickle.dumps(found))


@pytest.fixture
def done(quantified):
    return quantified


@pytest.mark.slow
def test_the_used_tag_is_poison_and_the_others_are_present(done):
    _, _, found = done
    assert found[0].name == NAMES[USED] and found[0].kind is VerdictKind.POISONED
    assert found[0].use.rank == 0 and found[0].use.low > 0 and found[0].use.flips > found[0].use.flips_control + 0.3
    for k in (UNUSED, NOISY):
        assert found.of(NAMES[k]).kind is VerdictKind.PRESENT, found.of(NAMES[k])
    clean = [v for v in found if v.target not in (USED, UNUSED, NOISY, BOTH)]
    assert not any(v.poisoned for v in clean)
    assert found[0].matters and found[0].use.flips_low > 0.1 and found[0].detection.p_own < 1e-3
    assert sum(v.artifactual for v in clean) <= 2
    assert found.floor == pytest.approx(1 / (K - 4 + 1), abs=0.01)
    assert f"below {found.floor:.3f} is extrapolated" in found.limits


@pytest.mark.parametrize(
    ("tagged", "natural", "verdict"),
    [
        (USED, False, VerdictKind.POISONED),
        slow(UNUSED, False, VerdictKind.PRESENT),
        slow(USED, True, VerdictKind.SHARED_AND_USED),
        slow(UNUSED, True, VerdictKind.SHARED),
    ],
)
def test_of_two_classes_each_is_judged_by_itself(done, tmp_path, monkeypatch, tagged, natural, verdict):
    """A tag in one of two classes, and a network of two outputs that reads it or does not; where images count as
    aligned, windows are no verdict."""
    if natural:
        monkeypatch.setattr(natural_windows, "ALIGNED", -1.0)
    run, _, _ = done
    pair = (tagged, 5)
    for k in pair:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / NAMES[k]).symlink_to(run.parent / "data" / NAMES[k])
    net = ReadsATag().eval()
    whole, net.head = net.head, nn.Linear(49, 2)
    net.head.load_state_dict({name: rows[list(pair)] for name, rows in whole.state_dict().items()})
    classifier = load_model(net, classes=[NAMES[k] for k in pair])
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), method="HeadRelevance", batch=64)
    pipeline.run(settings, tmp_path / "run", classifier=classifier)
    found = quantification.quantify(tmp_path / "run", classifier=classifier)
    assert found[0].name == NAMES[tagged] and found[0].kind is verdict
    assert found.of(NAMES[5]).kind is VerdictKind.NOTHING
    assert found.floor == 1 and [v.artifactual for v in found] == [not natural, False]
    assert (found[0].use.p_tiles <= 0.025) == (tagged == USED)


def test_members_are_the_images_that_carry_it(done):
    _, _, found = done
    for k in (USED, UNUSED, NOISY):
        names = {path[-6:-4] for path in found.of(NAMES[k]).members}
        assert names >= {f"{i:02d}" for i in range(1, 9)}
        assert len(names) <= 12


def test_each_of_two_artifacts_of_a_class_is_named(done):
    """Oracle: the images on which either tag was put."""
    run, _, found = done
    first, *further = found.of(NAMES[BOTH]).artifacts
    planted = [set(images) for images in TAGGED]
    assert first.artifactual and [one.artifactual for one in further] == [True]
    for one in (first, *further):
        numbers = {int(path[-6:-4]) for path in one.members}
        true = max(planted, key=lambda images: len(numbers & images))
        planted.remove(true)
        assert 2 * len(numbers & true) / (len(numbers) + len(true)) > 0.8, sorted(numbers)
    assert not set(first.rows) & set(further[0].rows) and further[0].n == first.n
    assert f"{NAMES[BOTH]} (artifact 2)" in (run / PAGE).read_text()


def test_a_class_of_one_artifact_has_no_further_one(done):
    _, _, found = done
    assert [len(found.of(NAMES[k]).further) for k in (USED, UNUSED, NOISY)] == [0, 0, 0]
    assert not any(v.further for v in found if not v.artifactual)


def test_repeated_photographs_are_left_out_and_reported(done):
    _, _, found = done
    assert [(v.name, v.repeats, v.n) for v in found if v.repeats] == [(NAMES[5], 1, EACH)]


def test_what_is_written_is_what_was_found(done):
    run, _, found = done
    assert verdicts.read_verdicts(run) == found
    assert verdicts.read_verdicts(run).run == str(run)
    table = RunStore.open(run).table("quantification").to_pylist()
    assert [line["class"] for line in table] == [v.name for v in found]
    assert json.loads(json.dumps(found.to_json()))["classes"][0]["poisoned"] is True
    page = (run / PAGE).read_text()
    assert f"{found.floor:.3f}" in page
    cells = [f">{html.escape(cell)}</td>" for line in found.lines for cell in line.texts[1:]]
    assert [cell for cell in cells if cell not in page.replace("\N{NO-BREAK SPACE}", " ")] == []


def test_the_ranking_tells_the_verdicts(done):
    run, _, found = done
    ranked = audit.rank(run)
    assert ranked[0].name == NAMES[USED] and ranked[0].poisoned and ranked[0].artifactual
    assert len(ranked) == K and {e.name: e.judged.detection.q for e in ranked} == {v.name: v.detection.q for v in found}
    assert (ranked[0].judged.matters, ranked[0].judged.use.low) == (True, found[0].use.low)
    frame = ranked.to_table().to_pylist()
    assert {"class", "metric", "tau", "z", "q", "size", "prevalence", "artifactual", "poisoned"} <= frame[0].keys()


def test_the_observational_ranking_stays_as_the_run_made_it(done):
    run, _, _ = done
    records = RunStore.open(run).read_json(ranking.FILE)
    observed = ranking.read_ranking(run, observed=True)
    expected = sorted(records, key=lambda r: (-r["z"], r["target"]))
    assert [(e.target, e.z, list(e.rows)) for e in observed] == [(r["target"], r["z"], r["rows"]) for r in expected]


def test_effects_say_how_much_was_put_on(done):
    run, _, found = done
    (line,) = (li for li in RunStore.open(run).table("effects").to_pylist() if li["target"] == USED)
    assert line["covered"] == found[0].use.covered or found[0].use.covered is None
    words = describe_insertion(found[0].use.how, found[0].use.covered).replace(" %", "\N{NO-BREAK SPACE}%")
    assert found[0].tested and words in (run / PAGE).read_text()


def test_an_audit_given_again_keeps_the_verdicts_in_the_table(done, tmp_path):
    run, classifier, found = done
    copy = RunStore(shutil.copytree(run, tmp_path / "run"))
    before = copy.table("ranking")
    settings = AuditSettings(model="object", data=str(run.parent / "data"), method="HeadRelevance", batch=64)
    with in_brief(POOL):
        pipeline.run(settings, copy.path, classifier=classifier)
    where = ["members"]  # paths, of a corpus that moved
    assert copy.table("ranking").drop_columns(where) == before.drop_columns(where)
    assert before["verdict"][0].as_py() == found[0].verdict


def test_it_resumes_to_the_same_verdicts_without_looking_again(done, monkeypatch):
    run, classifier, found = done
    for module in ("units", "further_artifacts"):
        name = f"klarsicht.audit.verdicts.quantification.{module}.run_detectors"
        monkeypatch.setattr(name, lambda images: pytest.fail("looked again"))
    assert quantification.quantify(run, classifier=classifier) == found


def test_a_stricter_level_needs_no_new_work(done):
    run, classifier, found = done
    strict = quantification.quantify(run, classifier=classifier, level=1e-9)
    assert not any(v.artifactual for v in strict) and [v.detection.p for v in strict] != []
    quantification.quantify(run, classifier=classifier)
    assert verdicts.read_verdicts(run) == found


def test_insertions_chosen_among_other_detections_are_made_again(tmp_path):
    """Of few classes another level inserts other detections, although the one that was chosen may be among them."""
    store, discarded = RunStore.create(tmp_path / "run", settings={}, identity={}), []

    def insert(*signs):
        rows = tuple({"target": 0, "sign": sign} for sign in signs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunStore, "discard_step", lambda _, step: discarded.append(step))
            quantification.discard_other_insertions(store, SimpleNamespace(step="effects", signs=((), rows)))
        return len(discarded)

    assert insert("embedding") == 0 and insert("embedding") == 0
    assert insert("texture", "embedding") == 1 and insert("texture", "embedding") == 1
    assert insert("embedding") == 2


def test_a_run_without_verdicts_says_so(tmp_path, classifier):
    with pytest.raises(StoreError):
        verdicts.read_verdicts(RunStore.create(tmp_path / "run", settings={}, identity={}))


@pytest.mark.parametrize("level", [0, 1, -0.1])
def test_levels_are_checked(done, level):
    run, classifier, _ = done
    with pytest.raises(UsageError):
        quantification.quantify(run, classifier=classifier, level=level)


def test_a_screening_compares_no_classes(tmp_path, done):
    _, classifier, _ = done
    rng = np.random.default_rng(0)
    for name in NAMES[:2]:
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(15):
            Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)).save(
                tmp_path / "data" / name / f"{i}.png"
            )
    settings = AuditSettings(
        model="object", data=str(tmp_path / "data"), target=NAMES[0], method="HeadRelevance", batch=64
    )
    pipeline.run(settings, tmp_path / "run", classifier=classifier)
    with pytest.raises(UsageError, match="compares no classes"):
        quantification.quantify(tmp_path / "run", classifier=classifier)


def test_classes_too_small_are_skipped_and_named():
    found = verdicts.Quantification((), 1.0, 0.05, (("tiny", "3 different images; at least 20 are needed"),))
    assert found.to_json()["skipped"] == [["tiny", "3 different images; at least 20 are needed"]]
    with pytest.raises(UsageError, match="this class was not examined; got tiny; 3 different images"):
        found.of("tiny")
    with pytest.raises(UsageError, match="unknown class"):
        found.of("other")


def test_the_ranking_of_a_run_that_was_not_quantified_knows_no_verdict():
    entry = ranking.Entry.from_record(
        {"class": "a", "target": 0, "metric": "concept", "n": 4, "proposal": "", "rows": [1], "parts": []}
        | dict.fromkeys(("tau", "rho2", "d2", "shift", "z", "deviation", "rounding"), 1.0),
        ["a", "b"],
    )
    assert entry.artifactual is None and entry.poisoned is None and entry.judged is None


@pytest.mark.slow
def test_pictures_that_a_kill_prevented_are_drawn_by_the_same_command(tmp_path, monkeypatch):
    """The table of what is drawn is on the disk when the kill comes: the next run must not take it for drawn."""
    conftest.write_corpus(tmp_path / "data", per_class=20)
    classifier, drawn = load_model(conftest.network(), classes=["a", "b", "c"]), []

    def stopped(self, entries):
        raise KeyboardInterrupt

    def counted(self, entries, draw=Illustrator.draw):
        drawn.append(len(entries))
        draw(self, entries)

    with in_brief(POOL):
        settings = AuditSettings(model="object", data=str(tmp_path / "data"), neighbours=6)
        pipeline.run(settings, tmp_path / "run", classifier=classifier)
        monkeypatch.setattr(Illustrator, "draw", stopped)
        with pytest.raises(KeyboardInterrupt):
            quantification.quantify(tmp_path / "run", classifier=classifier)
        monkeypatch.setattr(Illustrator, "draw", counted)
        for _ in range(2):
            quantification.quantify(tmp_path / "run", classifier=classifier)
    assert len(drawn) == 1


def test_the_page_lists_every_class_and_all_members_and_runs_its_own_script_alone(done):
    folder, _, found = done
    page = (folder / PAGE).read_text()
    (script,) = re.findall(r"<script>(.*)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page
    verdict_table, ranking_table = re.findall(r'<table class="classes">.*?</table>', page, re.S)
    for table in (verdict_table, ranking_table):
        assert {name for name in NAMES if f">{name}<" in table} == set(NAMES)
    (listed,) = re.findall(rf'<pre id="fm{USED}">(.*?)</pre>', page, re.S)
    members = map(Path, found.of(NAMES[USED]).members)
    assert listed.split() == [f"{one.parent.name}/{one.name}" for one in members]  # from the root of the corpus


def test_a_further_artifact_is_found_by_its_name(done):
    run, _, found = done
    name = f"{NAMES[BOTH]} (artifact 2)"
    assert found.of(name) == found.of(NAMES[BOTH]).further[0] == verdicts.read_verdicts(run).of(f"{BOTH} (artifact 2)")
    assert [label for label, _ in found.of(NAMES[BOTH]).named_artifacts] == [NAMES[BOTH], name]


def test_of_fewer_examined_classes_than_are_compared_none_is_examined_again(done):
    """Classes with too few images are groups of the run, and no classes to compare with: nothing of it is looked at."""
    _, _, found = done
    few = replace(found, verdicts=found.verdicts[: MIN_CLASSES - 1])
    assert few[0].artifactual and find_further_artifacts(None, None, few, 1) is few
