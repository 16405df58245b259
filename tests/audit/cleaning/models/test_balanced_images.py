"""Balanced images clean a model of a colour on the object; what they gain is counted again by other code."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chi2
from tests.audit.cleaning.models.test_group_accuracy import compared
from tests.audit.conftest import in_brief
from torch import nn

from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.packages import load_correction
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.balanced_images import BalancedComparison, BalancedImages
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.group_accuracy import GroupAccuracy, GroupTable
from klarsicht.audit.cleaning.models.group_judgement import GroupJudgement
from klarsicht.audit.cleaning.models.surroundings_correction import clean_surroundings, evaluate_surroundings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.ground.errors import CorpusError, InputError, RunMismatch, UsageError
from klarsicht.numerics.statistics.intervals import share_interval
from klarsicht.numerics.statistics.paired_loss import paired_loss

SETTINGS = CleanSettings(steps=200, batch=16, rate=0.05)


class Colours(nn.Module):
    """Dark or light by weights of mean red, green and blue."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-6.0, 0, 0], [6, 0, 0]]))  # the colour alone
            self.head.bias.copy_(torch.tensor([3.0, -3.0]))

    def forward(self, x):
        return self.head(x.mean((2, 3)))


def draw(folder, n, follows, seed):
    """Light pictures have more blue, and red follows them, or is any: pictures and labels, and a folder of classes."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    red = labels if follows else rng.integers(0, 2, n)
    colours = np.stack([60 + 130 * red, np.full(n, 100), 60 + 130 * labels], 1) + rng.normal(0, 10, (n, 3))
    noise = rng.normal(0, 5, (n, 8, 8, 3))
    pictures = np.clip(colours[:, None, None] + noise, 0, 255).astype(np.uint8)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        file = folder / ("dark", "light")[label] / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return pictures, labels


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A run on pictures whose colour tells the class, of which no shortcut was asked, and balanced ones."""
    folder = tmp_path_factory.mktemp("coloured")
    draw(folder / "data", 60, True, 0)
    draw(folder / "balanced", 60, False, 1)
    settings = AuditSettings(model="object", data=str(folder / "data"), method="HeadRelevance", batch=64)
    classifier = load_model(Colours().eval(), classes=("dark", "light"))
    with in_brief(60):
        pipeline.run(settings, folder / "run", classifier=classifier, accept_labels=True)
    return folder, classifier


def test_a_colour_on_the_object_is_unlearned_and_the_result_is_shown_again(coloured, tmp_path):
    folder, classifier = coloured
    fair = shutil.copytree(folder / "balanced", tmp_path / "fair")
    result = clean_surroundings(folder / "run", SETTINGS, out=tmp_path / "c", classifier=classifier, balanced=str(fair))
    assert result.judgement.clean and result.change is None
    assert (result.record["balanced"]["taught"], result.record["balanced"]["shown"]) == (36, 24)
    of_run, of_fair = result.judgement.comparisons
    assert of_run.kind == "images of the run" and [one.right.n for one in of_run.before.groups] == [30, 30]
    assert of_fair.loss.n == 24 and of_fair.before.average.value < 0.8 and of_fair.after.worst.right.value > 0.9

    pictures, labels = draw(tmp_path / "fresh", 200, False, 2)
    inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    net, (correction, _) = classifier.module, load_correction(result.folder)
    before = (net(inputs).argmax(1).numpy() == labels).mean()
    with correction.applied(net):
        after = (net(inputs).argmax(1).numpy() == labels).mean()
    assert before < 0.65 and after > 0.95

    again = evaluate_surroundings(folder / "run", result.folder, classifier=classifier)
    assert again.judgement == result.judgement
    shutil.move(fair, tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match=r"got .*Check the path of"):
        evaluate_surroundings(folder / "run", result.folder, classifier=classifier)
    moved = evaluate_surroundings(
        folder / "run", result.folder, classifier=classifier, balanced=str(tmp_path / "elsewhere")
    )
    assert moved.judgement == result.judgement
    with pytest.raises(RunMismatch, match=r"not the balanced images.*`test` and `groups`"):
        evaluate_surroundings(folder / "run", result.folder, classifier=classifier, balanced=str(tmp_path / "fresh"))


def test_pairs_in_python_are_named_again_and_a_correction_without_any_takes_none(coloured, tmp_path):
    folder, classifier = coloured
    pictures, labels = draw(tmp_path / "fair", 60, False, 1)
    pairs = [(Image.fromarray(one), ("dark", "light")[label]) for one, label in zip(pictures, labels, strict=True)]
    named = {"classifier": classifier, "out": tmp_path / "c"}
    result = clean_surroundings(folder / "run", SETTINGS, balanced=pairs, **named)
    again = evaluate_surroundings(folder / "run", result.folder, balanced=pairs, **named)
    assert again.judgement == result.judgement and result.record["balanced"]["data"] == ""
    with pytest.raises(UsageError, match=r"not named.*Name them: `balanced`"):
        evaluate_surroundings(folder / "run", result.folder, **named)


@pytest.mark.parametrize(
    ("count", "names", "kind", "said"),
    [
        (18, ("dark", "light"), InputError, r"too few balanced images; got dark 9 and light 9; 10 of each class"),
        (40, ("cat", "dog"), CorpusError, r"labels the model does not know; got 'cat', 'dog'.*as in the run"),
    ],
)
def test_other_classes_and_few_images_are_one_line(coloured, tmp_path, count, names, kind, said):
    folder, classifier = coloured
    draw(tmp_path / "drawn", count, False, 3)
    for old, new in zip(("dark", "light"), names, strict=True):
        (tmp_path / "drawn" / old).rename(tmp_path / "drawn" / new)
    with pytest.raises(kind, match=said) as error:
        clean_surroundings(folder / "run", balanced=str(tmp_path / "drawn"), classifier=classifier)
    assert "\n" not in str(error.value)


def test_images_are_dealt_by_class(coloured):
    folder, classifier = coloured
    run = AuditedRun.of(folder / "run", classifier=classifier)
    one, other = (BalancedImages.of(run, str(folder / "balanced"), seed) for seed in (0, 1))
    for label in (0, 1):
        assert one.teaches[one.labels == label].sum() == 18 == other.teaches[other.labels == label].sum()
    assert (one.teaches != other.teaches).any()


@pytest.mark.parametrize(("won", "lost"), [(3, 0), (4, 0), (9, 1), (5, 3), (0, 0), (0, 6), (20, 8), (20, 12)])
def test_a_gain_of_all_images_together_is_shown_where_mcnemars_test_shows_one(won, lost):
    before = np.repeat([1, 1, 0, 0], [40, lost, won, 10]).astype(bool)
    after = np.repeat([1, 0, 1, 0], [40, lost, won, 10]).astype(bool)
    table = GroupTable((GroupAccuracy("dark", "any", share_interval(after)),))
    one = BalancedComparison("balanced images", table, table, paired_loss(before, after))
    gains = won > lost and chi2.sf((won - lost) ** 2 / (won + lost), 1) < 0.05
    assert one.gains == gains and ("no gain was shown" in one.no_help) != gains
    judgement = GroupJudgement((one,), Bounds())
    expected = "clean" if gains else "gain-not-shown" if won > lost else "harmful" if lost else "remains"
    assert judgement.kind == expected
    if expected == "gain-not-shown":  # so many of the same kind show it
        more = int(re.search(r"about ([\d,]+) would", judgement.advice)[1].replace(",", "")) / len(before)
        assert chi2.sf(more * (won - lost) ** 2 / (won + lost), 1) < 0.05


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 4), (0, 3), (6, 6), (3, 12), (0, 8), (12, 0)])
def test_a_loss_of_balanced_images_is_harm_though_composites_decide(won, lost):
    before = np.repeat([1, 1, 0, 0], [40, lost, won, 10]).astype(bool)
    after = np.repeat([1, 0, 1, 0], [40, lost, won, 10]).astype(bool)
    table = GroupTable((GroupAccuracy("dark", "any", share_interval(after)),))
    balanced = BalancedComparison("balanced images", table, table, paired_loss(before, after))
    decisive = compared((100, 24, 20, 100), (98, 96, 95, 99))
    judgement = GroupJudgement((compared((100, 24, 20, 100), (20, 24, 20, 20)), balanced, decisive), Bounds())
    harms = lost > won and chi2.sf((won - lost) ** 2 / (won + lost), 1) < 0.05
    assert judgement.kind == ("harmful" if harms else "clean")  # a loss of usual images never is: the shortcut helps
    assert ("balanced images" in judgement.reason) == harms == ("--balanced" in judgement.advice)
