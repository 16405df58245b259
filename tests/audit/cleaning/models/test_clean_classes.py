"""Two used artifacts in two classes, taken out of one model by one command; and a second audit that finds neither used.

The network reads one tag for one class and another tag for another by construction, so what is right is known.
"""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.audit import conftest
from tests.audit.conftest import Marked, in_brief
from tests.audit.results.test_surroundings import LIGHT
from torch import nn

from klarsicht.audit.cleaning.artifacts.artifact import build_artifact, load_artifact
from klarsicht.audit.cleaning.corrections import corrected_model, packages
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.clean_losses import CleanLosses
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting
from klarsicht.audit.cleaning.models import (
    certificate,
    clean_model,
    correction_choice,
    evaluation,
)
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import verdicts
from klarsicht.audit.results.surroundings import SURROUNDINGS_FILE, Surroundings
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.ground.errors import EffectRemains, InputError, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.erasure import Eraser
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss

SIDE, K, EACH = 32, 24, 40
NAMES = [f"c{k:02d}" for k in range(K)]
TAGS = np.random.default_rng(4).permutation(np.repeat([0.0, 1.0], 13)[:25]).reshape(5, 5), np.eye(5)
PLACES = (2, 3), (22, 20)
FIRST, SECOND = POISONED = (3, 11)


class ReadsTwoTags(nn.Module):
    """Logits are random projections of a smoothed image; each of two of them also counts matches of its tag."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.match = nn.Conv2d(3, 2, 5)
        self.relu = nn.ReLU()
        self.smooth = nn.AvgPool2d(8)
        self.tag = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(50, K)
        with torch.no_grad():
            for i, tag in enumerate(TAGS):
                pattern = torch.tensor(tag - tag.mean(), dtype=torch.float32)
                self.match.weight[i] = pattern.expand(3, 5, 5) / (pattern**2).sum() / 3
            self.match.bias.fill_(-0.8)
            self.head.weight.copy_(torch.randn(K, 50, generator=generator) * 0.5)
            self.head.weight[:, 48:] = 0
            self.head.weight[FIRST, 48] = self.head.weight[SECOND, 49] = 40
            self.head.bias.zero_()

    def forward(self, x):
        seen = torch.cat([self.flatten(self.smooth(x)), self.flatten(self.tag(self.relu(self.match(x))))], 1)
        return self.head(seen)


def write_corpus(folder):
    """Every class the same kind of scenes; a tag at its place on a quarter of two classes."""
    rng = np.random.default_rng(0)
    for k in range(K):
        (folder / NAMES[k]).mkdir(parents=True)
        scenes = [gaussian_filter(rng.normal(0, 60 * s, (EACH, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
        x = np.clip(120 + sum(scenes), 0, 255)
        if k in POISONED:
            a, b = PLACES[k == SECOND]
            x[: EACH // 4, a : a + 5, b : b + 5] = 255 * TAGS[k == SECOND][..., None]
        for i in range(EACH):
            Image.fromarray(x[i].round().astype(np.uint8)).save(folder / NAMES[k] / f"{i:02d}.png")


def audit(folder, data, classifier):
    settings = AuditSettings(model="object", data=str(data), batch=64)
    with in_brief(20 * K):
        pipeline.run(settings, folder, classifier=classifier)
        return quantification.quantify(folder, classifier=classifier)


@pytest.mark.nightly  # two audits of 24 classes
def test_a_second_audit_of_the_model_cleaned_of_both_calls_neither_class_poisoned(tmp_path):
    torch.set_num_threads(1)
    write_corpus(tmp_path / "data")
    classifier = load_model(ReadsTwoTags().eval(), classes=NAMES)
    first = audit(tmp_path / "run", tmp_path / "data", classifier)
    assert {one.name for one in first if one.poisoned} == {NAMES[k] for k in POISONED}
    found = clean_model.clean_classes(tmp_path / "run", settings=CleanSettings(images=100), classifier=classifier)
    assert {one.name for one in found.judgement.classes} == {NAMES[k] for k in POISONED}
    assert found.judgement.clean
    cleaned = corrected_model.corrected_classifier(classifier, found.folder)
    second = audit(tmp_path / "again", tmp_path / "data", cleaned)
    assert not any(one.poisoned for one in second)


class TwoMarks(Marked):
    """Class "b" also by a white corner, and class "c" by a red one: both wrongly."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 5, 1, bias=False)
        self.last, self.head = nn.Conv2d(5, 5, 1, bias=False), nn.Linear(5, 3)
        with torch.no_grad():
            seen = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0], [1.0, -3.0, -3.0]]
            self.first.weight.copy_(torch.tensor(seen)[..., None, None])
            self.last.weight.copy_(torch.eye(5)[..., None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 9.0, 0], [0, 0, 1.0, 0, 30.0]]))
            self.head.bias.zero_()


def fresh_pictures(mark=""):
    """Twelve pictures of class a that no run has seen, with the mark of class b or c."""
    rng = np.random.default_rng(99)
    x = torch.stack([torch.from_numpy(np.array(conftest.picture(0, False, rng)) / 255.0) for _ in range(12)])
    x = x.permute(0, 3, 1, 2).float()
    if mark == "b":
        x[:, :, :4, :4] = 1
    if mark == "c":
        x[:, :, -4:, -4:] = torch.tensor([1.0, 0, 0])[:, None, None]
    return x


def of_two_marks():
    return load_model(TwoMarks().eval(), classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A finished run, and text files of what carries each mark."""
    folder = tmp_path_factory.mktemp("marked")
    conftest.write_corpus(folder / "data", share=0.3)
    for i in range(18):
        path = folder / "data" / "c" / f"{i:03d}.png"
        pixels = np.array(Image.open(path))
        pixels[-4:, -4:] = (255, 0, 0)
        Image.fromarray(pixels).save(path)
    settings = AuditSettings(model="object", data=str(folder / "data"))
    return pipeline.run(settings, folder / "run", classifier=of_two_marks()).path


ASKED = CleanSettings(method="oblique", layer="last", directions=2, strength=1, images=60)


@pytest.mark.slow
def test_two_classes_are_cleaned_by_one_model_that_resumes(marked, tmp_path, monkeypatch):
    classifier = of_two_marks()
    found = clean_model.clean_classes(marked, ["b", "c"], ASKED, out=tmp_path, classifier=classifier)
    cleaned = corrected_model.corrected_classifier(classifier, tmp_path)
    for i, mark in ((1, "b"), (2, "c")):
        seen = [fresh_pictures(one) for one in ("", mark)]
        y = [[compute_logits(model, list(x)) for x in seen] for model in (classifier, cleaned)]
        rise = [float((under - plain)[:, i].mean() - (under - plain).mean()) for plain, under in y]
        assert rise[0] > 1 and abs(rise[1]) < 0.25 * rise[0], (mark, rise)
    alone = torch.export.load(tmp_path / "model.pt2").module()(seen[1]).detach()
    np.testing.assert_allclose(alone, y[1][1], atol=1e-4)
    told = json.loads((tmp_path / "certificate.json").read_text())
    assert [one["class"] for one in told["classes"]] == ["b", "c"]
    assert [order["order"] for order in told["orders"]] == [["b", "c"], ["c", "b"]]
    assert all(one[look]["remaining"] < 0.5 for one in told["classes"] for look in ("alone", "together"))
    assert "<td>b</td>" in (tmp_path / "certificate.html").read_text()
    parts = [load_artifact(tmp_path / str(target)).part for target in (1, 2)]
    np.testing.assert_array_equal(*parts)  # what is shown for one was not fitted on for the other
    with pytest.raises(UsageError, match="several classes"):
        evaluation.evaluate(marked, tmp_path, classifier=classifier)

    def refuse(*_, **__):
        raise AssertionError("fitted again")

    (tmp_path / "correction.json").unlink()  # as if killed before it was composed
    monkeypatch.setattr(clean_model, "fit_composed", refuse)
    again = clean_model.clean_classes(marked, ["b", "c"], ASKED, out=tmp_path, classifier=classifier)
    assert again.record["shown"] == found.record["shown"] and again.record["files"] == found.record["files"]
    with pytest.raises(AssertionError, match="fitted again"):  # other settings
        other = ASKED.model_copy(update={"seed": 1})
        clean_model.clean_classes(marked, ["b", "c"], other, out=tmp_path, classifier=classifier)


@pytest.mark.slow
def test_two_classes_are_cleaned_by_inpaintings_in_one_model(marked, tmp_path):
    """At the image both marks are located and filled, by one network that is exported, too."""
    classifier = of_two_marks()
    asked = CleanSettings(method="inpaint", images=60)
    found = clean_model.clean_classes(marked, ["b", "c"], asked, out=tmp_path, classifier=classifier)
    assert all(isinstance(part, FeatureInpainting) for part in found.correction.parts)
    cleaned = corrected_model.corrected_classifier(classifier, tmp_path)
    for i, mark in ((1, "b"), (2, "c")):
        y = [
            [compute_logits(model, list(fresh_pictures(one))) for one in ("", mark)] for model in (classifier, cleaned)
        ]
        rise = [float((under - plain)[:, i].mean() - (under - plain).mean()) for plain, under in y]
        assert rise[0] > 1 and abs(rise[1]) < 0.25 * rise[0], (mark, rise)
        alone = torch.export.load(tmp_path / "model.pt2").module()(fresh_pictures(mark)).detach()
        np.testing.assert_allclose(alone, y[1][1], atol=1e-4)
    told = json.loads((tmp_path / "certificate.json").read_text())
    assert all("inpaint" in one["setting"] for one in told["classes"])
    again, _ = packages.load_correction(tmp_path)
    for kept, part in zip(again.parts, found.correction.parts, strict=True):
        assert all(np.array_equal(value, vars(part)[name]) for name, value in vars(kept).items())


@pytest.fixture(scope="module")
def fitted(marked):
    """Two erasures at one layer that commute: of the channel of either mark."""
    run, found = AuditedRun.of(marked, classifier=of_two_marks()), []
    for name, channel in (("b", 3), ("c", 4)):
        members = run.find_members(name)
        artifact, v = build_artifact(members, seed=0), np.eye(5)[:, [channel]]
        erasure = Erasure("last", Eraser(v, v.T, np.zeros(5)))
        found.append(correction_choice.FittedClass(artifact, artifact.case(members.audited), erasure, "by hand"))
    return found


@pytest.mark.parametrize(("falls", "first"), [((0.0, 0.004), "b"), ((0.004, 0.0), "c")])
def test_of_orders_that_gain_alike_the_one_that_loses_less_on_many_images_is_taken(fitted, monkeypatch, falls, first):
    class Draw:
        def __len__(self):
            return 4000

        def compare(self, corrections, last=2):
            known = [falls[one.parts[0] is fitted[1].correction] for one in corrections]
            found = [Interval(x, x - 0.001, x + 0.001, 4000) for x in known]
            return [CleanLosses(PairedLoss(0.01, 0.009, 0.011, 4000), NO_LOSS, fall, NO_INTERVAL) for fall in found]

    monkeypatch.setattr(correction_choice, "draw_clean_together", lambda *_: Draw())
    asked = CleanSettings(images=60, overall=0.2, affected=0.2, least_effect=0.5)
    joint, orders = correction_choice.choose_order(fitted, asked)
    assert orders[0].gained == pytest.approx(orders[1].gained, abs=1e-6)
    assert joint.parts[0] is next(one.correction for one in fitted if one.artifact.name == first)
    assert [one.losses.fall.value for one in orders] == list(falls)
    judged = correction_choice.judge_together(fitted, joint, orders, (), asked)
    assert {look.least for one in judged.classes for look in (one.alone, one.together)} == {0.5}
    page = certificate.render_joint_page(judged)
    each = page[page.index("Each class, together") : page.index("<h2>Order")]
    shares = re.findall(r'<tr><td class="text">(\w+)</td><td>(\d+)</td><td>([\d.]+) ', each)
    for name, n, before in shares:  # by hand: the share of the images of a class that are predicted as it
        of_class = judged.recalls.truth == "abc".index(name)
        assert int(n) == of_class.sum()
        assert float(before) == pytest.approx(
            100 * (judged.recalls.before[of_class] == "abc".index(name)).mean(), abs=0.05
        )
    assert {name for name, *_ in shares} == {"a", "b", "c"}
    assert page.count('<td>1.0<span class="ends">0.9 to 1.1</span></td><td>4000</td>') == 2
    assert judged.to_json()["clean images"] == {"classes": 3, "outputs": 3}


def test_the_certificate_of_several_classes_begins_with_sentences(fitted):
    """Shares are put in by hand; a term of the table, such as probe, stands in none of the sentences."""

    def turning(judged, before, after):
        shares = [Interval(x, x - 0.01, x + 0.01, 400) for x in (before, after)]
        looks = [replace(look, flips=share) for look, share in zip((judged.before, judged.after), shares, strict=True)]
        return replace(judged, before=looks[0], after=looks[1])

    asked = CleanSettings(images=60, overall=0.2, affected=0.2)
    joint, orders = correction_choice.choose_order(fitted, asked)
    judged = correction_choice.judge_together(fitted, joint, orders, [("d", "no image shows it")], asked)
    second, first = judged.classes
    first = replace(first, alone=turning(first.alone, 0.4, 0.3), together=turning(first.together, 0.4, 0.05))
    page = certificate.render_joint_page(replace(judged, classes=(second, first)))
    short = re.sub(r"<[^>]*>", "", page[page.index("<h2>In short") : page.index("<h2>Effect and cost")])
    for sentence in (
        "An artifact is what some images of a class share",
        f"the artifact of {first.name} turns 40.0 % (39.0 to 41.0) of them into {first.name} before the corrections",
        "before the corrections, and 5.0 % (4.0 to 6.0) after them.",
        f"Whether the artifact of {second.name} turns other images into {second.name} could not be measured.",
        "d is not corrected: no image shows it.",
        "On images without any of the artifacts, the model ",
        "Next: ",
        "Not tested here: artifacts of other kinds or classes",
    ):
        assert sentence in short
    assert not any(word in short for word in ("probe", "seed", "logit"))


def test_clean_images_for_orders_are_of_the_part_to_choose_on_and_of_every_class(fitted):
    case = fitted[0].case
    draw = correction_choice.draw_clean_together(case, [1, 2], CleanSettings(images=60))
    assert set(draw.rows) == set(np.flatnonzero(case.clean & (case.part == splits.VALIDATION)))
    assert draw.targets == (1, 2)


def test_a_class_without_a_correction_is_named_and_the_others_are_cleaned(marked, tmp_path, monkeypatch):
    def build(found, **more):
        if found.audited.group.name == "c":
            raise InputError("these images are like the others of the class", got="a chance cluster")
        return build_artifact(found, **more)

    monkeypatch.setattr(clean_model, "build_artifact", build)
    found = clean_model.clean_classes(marked, ["c", "b"], ASKED, out=tmp_path, classifier=of_two_marks())
    assert [one.name for one in found.judgement.classes] == ["b"] and found.judgement.classes[0].together.helps
    assert [name for name, _ in found.judgement.left_out] == ["c"]
    with pytest.raises(EffectRemains, match="c: not corrected, these images are like the others"):
        found.check()
    with pytest.raises(InputError, match="these images are like"):  # of all: that is the error
        clean_model.clean_classes(marked, ["c"], ASKED, out=tmp_path / "c", classifier=of_two_marks())


@pytest.mark.parametrize(
    ("names", "settings", "told"),
    [
        ("", ASKED, "not quantified"),
        ("bd", ASKED, "'d'"),
        ("bc", CleanSettings(method="augment"), "cannot be composed"),
        ("bc", CleanSettings(method="reactive-class"), "cannot be composed"),
        ("bc", CleanSettings(train=True), "`train`"),
    ],
)
def test_what_cannot_be_cleaned_together_is_one_error(marked, tmp_path, names, settings, told):
    with pytest.raises(UsageError, match=told):
        clean_model.clean_classes(marked, list(names), settings, out=tmp_path / "c", classifier=of_two_marks())
    assert not (tmp_path / "c").exists()


def test_where_no_class_is_poisoned_there_is_nothing_to_clean(marked, tmp_path):
    run = shutil.copytree(marked, tmp_path / "run")
    store = RunStore.open(run)
    store.write_json(verdicts.VERDICTS_FILE, verdicts.Quantification((), 1.0, 0.05).to_json())
    with pytest.raises(UsageError, match=r"no class relies on an artifact.*Name one by `name`"):
        clean_model.clean_classes(run, classifier=of_two_marks())


SHARED = r"98 % of light share their surroundings, and the model relies on them;.*`klarsicht audit clean \S+ --part s"


@pytest.mark.parametrize(
    ("quantified", "p", "light", "said"),
    [
        (True, 0.025, LIGHT, SHARED),
        (False, 0.025, LIGHT, SHARED),
        (True, 0.5, LIGHT, "there is nothing to clean"),
        (True, 0.025, replace(LIGHT, taken=LIGHT.taken_control), "there is nothing to clean"),
        (False, 0.5, LIGHT, "not quantified"),
    ],
)
def test_surroundings_that_the_model_relies_on_are_said_in_place_of_nothing_to_clean(
    marked, tmp_path, quantified, p, light, said
):
    run = shutil.copytree(marked, tmp_path / "run")
    store = RunStore.open(run)
    if quantified:
        store.write_json(verdicts.VERDICTS_FILE, verdicts.Quantification((), 1.0, 0.05).to_json())
    store.write_json(SURROUNDINGS_FILE, Surroundings((light,), (), 0.7, p).to_json())
    with pytest.raises(UsageError, match=said) as refused:
        clean_model.clean_classes(run, classifier=of_two_marks())
    assert refused.value.exit_code == 2
