"""A network whose logits are known: each class by a block of its own, one also by a chequered pattern that all of its
images have."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import in_brief
from torch import nn

from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_model import clean, clean_classes
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.alarms import read_alarms
from klarsicht.audit.results.ranking import read_ranking
from klarsicht.audit.results.verdicts import read_verdicts
from klarsicht.audit.results.words import VerdictKind
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore

SIDE, K, EACH, CHEQUERED, WEIGHT = 24, 10, 32, 3, 60.0
NAMES = [f"c{k}" for k in range(K)]
PATTERN = 1 - 2 * (np.indices((SIDE, SIDE)).sum(0) % 2)


def block(k):
    """Rows and columns of the block of a class."""
    row, column = divmod(k, 4)
    return np.s_[4 + 6 * row : 8 + 6 * row, 2 + 6 * column : 6 + 6 * column]


def rectified():
    """Return a network whose logits are the mean levels of blocks, of one class plus the size of the pattern."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, K + 2), nn.ReLU(), nn.Linear(K + 2, K))
    first, second = torch.zeros(K + 2, 3, SIDE, SIDE), torch.zeros(K, K + 2)
    for k in range(K):
        first[k][(slice(None), *block(k))] = 10 / (3 * 16)
        second[k, k] = 1
    first[K] = WEIGHT * torch.from_numpy(PATTERN) / (3 * SIDE * SIDE)
    first[K + 1] = -first[K]
    second[CHEQUERED, K:] = 1
    with torch.no_grad():
        for layer, weight in ((net[1], first.flatten(1)), (net[3], second)):
            layer.weight.copy_(weight)
            layer.bias.zero_()
    return net.eval()


def write(folder):
    rng = np.random.default_rng(0)
    for k in range(K):
        for i in range(EACH):
            x = rng.integers(90, 130, (SIDE, SIDE, 3)).astype(float)
            x[block(k)] += rng.integers(20, 90)
            if k == CHEQUERED:
                x += rng.uniform(10, 20) * PATTERN[..., None]
            (folder / NAMES[k]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.astype(np.uint8)).save(folder / NAMES[k] / f"{i:02d}.png")


@pytest.fixture(scope="module")
def quantified(tmp_path_factory):
    """A run, what `quantify` says of it, and its images by the rows of the corpus."""
    folder = tmp_path_factory.mktemp("textures")
    write(folder / "data")
    classifier = load_model(rectified(), classes=NAMES)
    settings = AuditSettings(model="textures", data=str(folder / "data"), batch=64, method="EpsilonPlusFlat")
    with in_brief(64):
        pipeline.run(settings, folder / "run", classifier=classifier)
        found = quantify(folder / "run", classifier=classifier)
    paths = RunStore.open(folder / "run").table("corpus")["path"].to_pylist()
    return folder / "run", found, [np.asarray(Image.open(folder / "data" / path), float) / 255 for path in paths]


@pytest.mark.slow
def test_the_class_of_a_texture_is_named_and_no_other_is(quantified):
    run, found, _ = quantified
    assert [verdict.name for verdict in found if verdict.texture] == [NAMES[CHEQUERED]]
    one = found.of(NAMES[CHEQUERED])
    assert one.needs_review and one.texture.startswith(f"By the fine texture alone, {NAMES[CHEQUERED]} can be")
    if not one.has_group:
        (line,) = [line for line in found.lines if line.name == one.name]
        assert one.kind is VerdictKind.TEXTURE and line.headline == one.texture
        assert line.describe_images() == f"{EACH} of {EACH}" and line.next_step("r")[1] == "klarsicht audit shortcuts r"
    assert read_verdicts(run).of(one.name) == one
    assert next(entry for entry in read_ranking(run) if entry.name == one.name).kind is one.kind_of_class
    page = (run / "report.html").read_text("utf-8")
    assert one.texture in page
    record = json.loads((run / "quantification.json").read_text("utf-8"))
    assert [line["class"] for line in record["classes"] if line["texture"]] == [NAMES[CHEQUERED]]


def logits(image):
    """Compute what the weights give for levels (H, W, C) in [0, 1]."""
    blocks = [10 * image[block(k)].mean() for k in range(K)]
    return np.array(blocks) + WEIGHT * abs((image.mean(2) * PATTERN).mean()) * (np.arange(K) == CHEQUERED)


@pytest.mark.slow
def test_the_rise_is_that_of_the_weights_on_images_with_other_fine_frequencies(quantified):
    """Oracle: a literal exchange of the frequencies from a quarter of a cycle on, one channel at a time."""
    run, _, images = quantified
    rows = RunStore.open(run).table("exchanged-fine-texture-64").to_pylist()
    mine = [row for row in rows if row["target"] == CHEQUERED]
    along = np.fft.fftfreq(SIDE)
    fine = along[:, None] ** 2 + along**2 >= 0.25**2

    def score(row, giver):
        changed = [
            np.fft.ifft2(np.fft.fft2(images[row][..., c]) * ~fine + np.fft.fft2(images[giver][..., c]) * fine).real
            for c in range(3)
        ]
        y = logits(np.round(255 * np.clip(np.stack(changed, 2), 0, 1)) / 255)
        return y[CHEQUERED] - y.mean()

    expected = [score(row["row"], row["donor"]) - score(row["row"], row["control"]) for row in mine]
    assert {row["part"] for row in rows} == {"fine texture"} and len(mine) == 32 and min(expected) > 1
    np.testing.assert_allclose([row["rise"] for row in mine], expected, atol=0.01)


@pytest.mark.slow
def test_a_gate_stops_for_it_and_the_model_is_not_corrected_but_the_pictures_are(quantified):
    """Neither with the class nor without one, unless the artifact is named."""
    run, found, _ = quantified
    assert found.of(NAMES[CHEQUERED]).kind_of_class is VerdictKind.TEXTURE
    classifier = load_model(rectified(), classes=NAMES)
    told = (
        rf"share its fine texture.*got {NAMES[CHEQUERED]};.*`klarsicht audit clean-data \S+ --action denoise --out new`"
    )
    for ask in (
        lambda: clean_classes(run, classifier=classifier),
        lambda: clean(run, NAMES[CHEQUERED], classifier=classifier),
    ):
        with pytest.raises(UsageError, match=told):
            ask()
    alarms = read_alarms(RunStore.open(run), ["relies"])
    assert [(one.subject, one.message) for one in alarms if not one.images] == [
        (NAMES[CHEQUERED], found.of(NAMES[CHEQUERED]).texture)
    ]
    fitted = AuditedRun.of(run, classifier=classifier)
    assert len(fitted.find_members(NAMES[CHEQUERED], "cluster").members)
