"""Cleaning agrees with the verdict: a wave of any phase, whose use `audit quantify` measured by a way that no
localisation knows."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from klarsicht.audit.cleaning.artifacts import artifact
from klarsicht.audit.cleaning.artifacts.localisation import Localisation
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict
from klarsicht.audit.results.verdicts import VERDICTS_FILE, Quantification

SIDE, WAVE, HEIGHT, IMAGES, CARRIERS, WEIGHT = 16, 5, 60.0, 100, 40, 1.2
TURNS = 2 * np.pi * WAVE * np.arange(SIDE) / SIDE


class WaveReader(nn.Module):
    """Three classes by the brightness of three channels; class "b" also, wrongly, by a wave along the rows."""

    def __init__(self):
        super().__init__()
        self.colours, self.waves = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 4, (1, SIDE), bias=False)
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(7, 3, bias=False)
        phases = np.stack([np.cos(TURNS - quarter * np.pi / 2) for quarter in range(4)]) / 3
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(3)[:, :, None, None])
            self.waves.weight.copy_(torch.from_numpy(phases)[:, None, None].expand(4, 3, 1, SIDE))
            self.head.weight.zero_()
            self.head.weight[:, :3] = 6 * torch.eye(3)
            self.head.weight[1, 3:] = WEIGHT

    def forward(self, x):
        seen = [self.flatten(self.pool(one)) for one in (self.colours(x), self.relu(self.waves(x)))]
        return self.head(torch.cat(seen, 1))


def read(model=None):
    return load_model(model or WaveReader().eval(), classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A run in whose class "b" four in ten images carry the wave at a random phase, with the verdict on it."""
    folder, rng = tmp_path_factory.mktemp("measured"), np.random.default_rng(0)
    for label, name in enumerate("abc"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(IMAGES):
            pixels = rng.uniform(60, 120, (SIDE, SIDE, 3))
            pixels[..., label] += 40
            if name == "b" and i < CARRIERS:
                pixels += HEIGHT * np.cos(TURNS + rng.uniform(0, 2 * np.pi))[:, None]
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / "data" / name / f"{i:03d}.png")
    settings = AuditSettings(model="object", data=str(folder / "data"))
    store = pipeline.run(settings, folder / "run", classifier=read())
    write_verdict(store)
    return store


def write_verdict(store, how="shared frequencies"):
    rows = tuple(range(IMAGES, IMAGES + CARRIERS))
    paths = store.texts("corpus", "path")
    use = UseResult("spectrum 0.002", how, 4.12, 3.9, 4.4, 9.0, 0.01, 0, 0.35, 0.01, 0.25, 1.0, "shared", 0.9, 0.9)
    detection = DetectionResult("spectrum 0.002", 60.0, 9.0, 0.001, 0.01, 1e-9)
    verdict = Verdict(
        "b", 1, IMAGES, 0, detection, rows, tuple(paths[row] for row in rows), use, artifactual=True, poisoned=True,
        used=True,
    )  # fmt: skip
    store.write_json(VERDICTS_FILE, Quantification((verdict,), 0.01, 0.05).to_json())


@pytest.mark.slow
def test_clean_puts_on_what_quantify_measured_and_does_not_call_it_too_small(audited, tmp_path):
    """A wave of 60 levels is 60 / 255 * SIDE / 2 times the mean of a cosine's positive half, at four phases, but for
    what is cut off at black; two thirds of it are left when logits are centred."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Localisation, "locate", lambda self: (None, None))  # nothing that it knows
        found = clean_model.clean(audited.path, "b", CleanSettings(images=60), out=tmp_path / "c", classifier=read())
    truth = 2 / 3 * WEIGHT * 4 * (HEIGHT / 255 * SIDE / 2) / np.pi
    assert found.artifact.insertion_text == "inserted into other images: the shared change of the spectrum"
    assert found.judgement.before.rise.value == pytest.approx(truth, rel=0.25)
    assert found.judgement.kind not in ("small", "unused") and found.choice.chosen.method != "nothing"
    new_before, new_after = found.judgement.new_draws
    assert new_before.rise.value == pytest.approx(truth, rel=0.25)
    assert new_after.rise.value < 0.5 * new_before.rise.value
    again = artifact.load_artifact(tmp_path / "c")
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for one, other in ((again.imitation, found.artifact.imitation), (again.new_draws, found.artifact.new_draws)):
        both = (x.put(image, np.random.default_rng(0))[0] for x in (one, other))
        assert torch.equal(*both)
    assert again.measured_use == found.artifact.measured_use


@pytest.mark.slow
def test_members_of_whatever_origin_have_the_use_of_the_artifact_that_they_carry(audited):
    """At a Jaccard index of one half and more."""
    run = AuditedRun.of(audited.path, classifier=read())
    found = run.find_members("b")
    for members, alike in ((found.members, True), (found.members[: CARRIERS // 2], True), (found.members[:19], False)):
        seen = run.with_use(type(found)(found.audited, members, "list"))
        assert (seen.measured_use is not None) == alike
