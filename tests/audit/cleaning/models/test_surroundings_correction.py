"""A small network that has learned the surroundings is trained on own places, and measured by other code."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import in_brief
from tests.audit.verdicts.own_places.test_own_places import draw_squares
from torch import nn
from torch.nn.functional import cross_entropy

from klarsicht.audit.cleaning.corrections.packages import load_correction
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.group_accuracy import OwnImages
from klarsicht.audit.cleaning.models.surroundings_correction import (
    bound_change,
    clean_surroundings,
    evaluate_surroundings,
)
from klarsicht.audit.cleaning.models.teaching_images import require_own_places
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.splits import TRAIN, VALIDATION
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.inputs import InputImages, PixelScale
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.surroundings import SURROUNDINGS_FILE
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.surroundings import examine_surroundings
from klarsicht.ground.errors import StoreError, UsageError
from klarsicht.ground.run_folder.store import RunStore

NAMES = ("dark", "light")
CLEANING = CleanSettings(steps=300, batch=32, rate=2e-3)


class Small(nn.Module):
    """Three convolutions, then the mean answer of each channel."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 2, 1),
            nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def trained(images, labels):
    """A network trained on images (n, H, W, 3) for twelve epochs, in evaluation mode."""
    torch.manual_seed(0)
    net, x, y = Small(), torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)
    optimizer, rng = torch.optim.Adam(net.parameters(), 2e-3), np.random.default_rng(0)
    for _ in range(12):
        for rows in np.array_split(rng.permutation(len(x)), len(x) // 32):
            optimizer.zero_grad()
            cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


def right_of(net, images, labels, odd):
    """Share that is right of exceptions and of the others, by another drawing of the same kind."""
    with torch.no_grad():
        says = net(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).argmax(1).numpy()
    return (says == labels)[odd].mean(), (says == labels)[~odd].mean()


def write_folder(folder, images, labels):
    """Write images (n, H, W, 3) into a folder of classes."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / NAMES[label]).mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(folder / NAMES[label] / f"{i:03d}.png")


def true_groups(folder, odd):
    """Lines path,group of the files of a folder of classes: surroundings are the class's, of exceptions the other's."""
    for file in sorted(folder.rglob("*.png")):
        label = NAMES.index(file.parent.name)
        yield f"{file.relative_to(folder)},{('night', 'day')[1 - label if odd[int(file.stem)] else label]}"


class Balance(nn.Module):
    """Light where its weights of mean red, green and blue give more than nothing."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, 0, 0], [1, 0, 1]]))

    def forward(self, x):
        return self.head(x.mean((2, 3)))


def on_the_line(light, dark, teach=()):
    """400 images that bound a loss, of a network by red that may become one against green: light ones that turn wrong,
    and dark ones that turn right, at shares of the way; others never do. Light ones that teach turn at theirs.

    Of red u and green v, 200 levels together, (1 - a) u - a v is 0 at a = u / 200. Blue speaks for light on all of it.
    """
    others = 400 - len(light) - len(dark)
    never = np.repeat([1, 0], [others - 100, 100])
    labels = np.concatenate([np.ones(len(light), int), np.zeros(len(dark), int), never, np.ones(len(teach), int)])
    colours = [(200 * a, 200 - 200 * a, 0) for a in (*light, *dark)]
    colours += [(0, 0, 200 * one) for one in never] + [(200 * a, 200 - 200 * a, 0) for a in teach]
    levels = np.rint(np.tile(np.array(colours)[:, None, None], (1, 8, 8, 1))).astype(np.uint8)
    classifier = load_model(Balance().eval(), classes=NAMES)
    shown = InputImages(Corpus(("0",), ("0",), ("0",)), classifier, PixelScale.of(classifier), (8, 8))
    part = np.repeat([VALIDATION, TRAIN], [400, len(teach)])
    change = RetrainedWeights({"head.weight": torch.tensor([[0.0, 0, 0], [0, -1, 1]])})
    return classifier, change, OwnImages(levels, np.zeros(levels.shape[:3], bool), labels, labels, part, shown)


@pytest.mark.parametrize(
    ("light", "dark", "kept", "lost"),
    [
        ((), (), 1.0, 0),
        ((0.15, 0.35, 0.55), (), 0.5, 2),  # the third is one too many of 400
        ((0.05, 0.05, 0.05), (), 0.0, 0),
        ((0.15, 0.25, 0.35), (0.25,), 1.0, 2),  # one that turns right makes up for one
        ((0.15, 0.25, 0.35), (0.75,), 0.3, 2),  # not one farther along the line
        ((0.95, 0.95, 0.95, 0.95), (), 0.9, 0),
    ],
)
def test_weights_stop_on_the_line_before_more_is_lost_than_may_be(light, dark, kept, lost):
    classifier, change, own_images = on_the_line(light, dark, teach=[0.05] * 50)
    correction, bounded = bound_change(classifier, change, own_images, 0.005)
    assert (bounded.share, bounded.loss.value, bounded.loss.n) == (kept, lost / 400, 400)
    torch.testing.assert_close(correction.state["head.weight"][1], torch.tensor([1 - kept, -kept, 1]))
    assert ("the weights stay as they were" in bounded.describe()) == (kept == 0)


def test_nothing_is_bounded_or_taught_without_images():
    classifier, change, own_images = on_the_line((), ())
    with pytest.raises(UsageError, match="no images to bound the loss"):
        bound_change(classifier, change, replace(own_images, part=own_images.part * 0), 0.005)
    with pytest.raises(UsageError, match=r"too few own places.*none found"):
        require_own_places(own_images, "none found")


@pytest.mark.slow
def test_the_worst_group_of_fresh_images_gains_and_the_exported_model_says_the_same(tmp_path):
    images, labels, odd_of_run, _ = draw_squares(400, 12, np.random.default_rng(5))
    write_folder(tmp_path / "data", images, labels)
    net = trained(images, labels)
    classifier, run = load_model(net, classes=NAMES), tmp_path / "run"
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), method="HeadRelevance", batch=64)
    with in_brief(60):
        pipeline.run(settings, run, classifier=classifier, accept_labels=True)
    with pytest.raises(StoreError, match="surroundings"):
        clean_surroundings(run, classifier=classifier)
    with open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (audit, work):
        of_run = examine_surroundings(audit, work, 1)
    assert of_run.relied_on

    result = clean_surroundings(run, CLEANING, classifier=classifier)
    assert result.judgement.clean and result.after.worst.right.value > result.before.worst.right.value + 0.3
    pictures, composites = result.judgement.comparisons
    assert "which prove little" in pictures.few and composites.few == ""  # a handful of exceptions
    evaluated = evaluate_surroundings(run, result.folder, classifier=classifier)
    assert evaluated.judgement == result.judgement  # the same images, dealt again
    kept = (result.folder / "evaluation.json").read_bytes()
    options = {"images": 20, "out": tmp_path / "few"}
    few, other = (evaluate_surroundings(run, result.folder, classifier=classifier, seed=i, **options) for i in (0, 1))
    for one in (few, other):
        assert max(group.right.n for table in one.judgement.comparisons for group in table.before.groups) == 20
        assert one.folder == tmp_path / "few" and (one.folder / "evaluation.json").is_file()
    assert few.judgement != other.judgement and (result.folder / "evaluation.json").read_bytes() == kept
    fresh = draw_squares(400, 200, np.random.default_rng(6))
    before = right_of(net, *fresh[:3])
    correction, _ = load_correction(result.folder)
    with correction.applied(net):
        after = right_of(net, *fresh[:3])
        says = net(torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    assert after[0] > before[0] + 0.2 and after[1] > before[1] - 0.05
    other, (images, labels, odd) = tmp_path / "other", fresh[:3]
    other.mkdir()
    lines = ["path,label,group"]
    for i, image in enumerate(images):
        Image.fromarray(image).save(other / f"{i}.png")
        lines.append(f"{i}.png,{NAMES[labels[i]]},{'odd' if odd[i] else 'usual'}")
    (other / "table.csv").write_text("\n".join(lines))
    asked = {"test": str(other / "table.csv"), "classifier": classifier}
    with pytest.raises(UsageError, match="`groups`"):
        evaluate_surroundings(run, result.folder, **asked)
    (shown,) = evaluate_surroundings(run, result.folder, groups="group", **asked).judgement.comparisons
    for table, right in ((shown.before, before), (shown.after, after)):
        found = {one.side: [] for one in table.groups}
        for one in table.groups:
            found[one.side].append(one.right.value * one.right.n)
        assert [sum(found[side]) / 200 for side in ("odd", "usual")] == pytest.approx(list(right))
    (tmp_path / "true.csv").write_text("\n".join(["path,group", *true_groups(tmp_path / "data", odd_of_run)]))
    again = clean_surroundings(
        run, CLEANING, classifier=classifier, groups=str(tmp_path / "true.csv"), out=tmp_path / "c"
    )
    assert {one.side for one in again.after.groups} == {"day", "night"} and again.judgement.clean
    images, labels, *_ = draw_squares(60, 30, np.random.default_rng(7))  # half of them on the other surroundings
    write_folder(tmp_path / "fair", images, labels)
    named = {"classifier": classifier, "balanced": str(tmp_path / "fair")}
    beside = clean_surroundings(run, CLEANING, out=tmp_path / "e", **named)
    kinds = ["held-out images", "balanced images that taught nothing", "composites of held-out images"]
    assert [one.kind for one in beside.judgement.comparisons] == kinds and beside.judgement.clean
    assert beside.judgement.comparisons[2].before == result.before  # the same composites decide
    assert evaluate_surroundings(run, beside.folder, classifier=classifier).judgement == beside.judgement
    store = RunStore.open(run)
    store.write_json(SURROUNDINGS_FILE, replace(of_run, p=0.5).to_json())
    asked_all_the_same = clean_surroundings(run, CLEANING, classifier=classifier, out=tmp_path / "d")
    bounded = asked_all_the_same.change
    assert result.change is None and bounded.loss.n == 80 and bounded.loss.value <= CLEANING.overall  # a fifth
    assert asked_all_the_same.record["change"]["share"] == bounded.share
    exported = torch.export.load(result.folder / "model.pt2").module()
    torch.testing.assert_close(exported(torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))), says)
