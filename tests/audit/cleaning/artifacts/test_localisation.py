"""Insertions under a person's mask have the effect of marks whose truth is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from klarsicht.audit.cleaning.artifacts import localisation as localisation_module
from klarsicht.audit.cleaning.artifacts.found_artifact import FoundArtifact
from klarsicht.audit.cleaning.artifacts.localisation import Localisation
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.results.class_verdict import UseResult
from klarsicht.audit.results.logit_effect import LogitEffect
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.errors import InputError
from klarsicht.numerics.statistics.intervals import NO_INTERVAL

SIDE, CORNER = 16, (6, 5)
MARK = np.tile([0.1, 0.9], 4)[None].repeat(2, 0).astype(np.float32)  # 2 x 8: columns dark and light


class Reader(nn.Module):
    """Two classes; the second by stripes anywhere, and by light in the upper rows."""

    def __init__(self):
        super().__init__()
        self.stripes = nn.Conv2d(1, 1, MARK.shape, bias=False)
        self.stripes.weight.data[0, 0] = torch.from_numpy(MARK - MARK.mean())

    def forward(self, x):
        stripes = self.stripes(x).amax((1, 2, 3)) + 4 * x[:, 0, :6].mean((1, 2))
        return torch.stack([torch.zeros_like(stripes), stripes], 1)


def planted(images, rng, reach):
    """The mark on copies of images (n, 1, H, W), moved by up to `reach` pixels."""
    marked = images.copy()
    for image in marked:
        y, x = np.array(CORNER) + rng.integers(-reach, reach + 1, 2)
        image[0, y : y + 2, x : x + 8] = MARK
    return marked


def localisation(reach, light=0.0):
    """24 members with the mark and 36 others of a class with light upper rows, and 40 images of another class."""
    rng = np.random.default_rng(0)
    own, elsewhere = (rng.uniform(0.3, 0.7, (n, 1, SIDE, SIDE)).astype(np.float32) for n in (60, 40))
    own[:, :, :6] += light
    own[:24] = planted(own[:24], rng, reach)
    classifier = load_model(Reader().eval(), classes=["a", "b"])
    audited = SimpleNamespace(classifier=classifier, group=SimpleNamespace(target=1, name="b"), corpus=None)
    rows = np.arange(60)
    seen = Localisation(FoundArtifact(audited, rows[:24], "list"), rows, list(torch.from_numpy(own)), rows < 24, rows)
    vars(seen)["maps"] = rng.random((60, 8, 8))
    vars(seen)["images_elsewhere"] = list(torch.from_numpy(elsewhere))
    with torch.no_grad():
        plain, shown = (Reader()(torch.from_numpy(x)) for x in (elsewhere, planted(elsewhere, rng, reach)))
    return seen, float((shown - plain).diff().mean()) / 2


def region(rows=slice(4, 10), columns=slice(3, 15)):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[rows, columns] = True
    return mask


def test_a_mark_that_moves_by_a_pixel_has_its_whole_effect_under_a_mask():
    """The blend of all members is what their median keeps; the pixels of each are the mark itself."""
    seen, truth = localisation(reach=1)
    blended, found = seen.estimate_overlay(region()), seen.overlay_in_region(region())
    rises = [0.0 if one is None else seen.effect_elsewhere(one).rise.value for one in (blended, found)]
    assert blended.fixed and rises[0] < 0.5 * truth
    assert rises[1] == pytest.approx(truth, rel=0.1)
    assert not found.fixed and (found.masks == region()).all()


@pytest.mark.parametrize("light", [0.0, 0.25])
def test_a_mark_at_one_place_stays_a_blend_whatever_the_class_shows_beside_it(light):
    """Members' own pixels would bring the light rows that all images of the class have."""
    seen, truth = localisation(reach=0, light=light)
    wide = region(slice(0, 10))
    found = seen.overlay_in_region(wide)
    mark = region(slice(6, 8), slice(5, 13))
    assert found.fixed
    np.testing.assert_array_equal(found.masks[0], mark)
    np.testing.assert_allclose(found.colour[0, 0][mark], MARK.ravel(), atol=1e-6)
    assert seen.effect_elsewhere(found).rise.value == pytest.approx(truth, rel=0.01)
    own = Overlay(wide[None].repeat(24, 0).astype(np.float32), seen.image_array[:24])
    assert (seen.effect_elsewhere(own).rise.value > 1.25 * truth) == bool(light)


def test_a_mask_beside_the_mark_is_refused_and_one_with_most_of_its_effect_is_not():
    seen, truth = localisation(reach=0)
    whole = seen.overlay_in_region(region())
    for share in (0.3, 0.7):  # of the opacity: Reader is linear in it but for the best place of plain images
        weak = replace(whole, opacity=share * whole.opacity)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Localisation, "find_insertion", lambda *_: (whole, None))
            if share < 0.5:
                with pytest.raises(InputError, match=rf"misses most.*{truth:.2f} without the mask.*Leave out --mask"):
                    seen.check_region(weak)
            else:
                seen.check_region(weak)


def test_what_is_found_without_the_mask_counts_only_where_it_raises_the_class():
    """Half of nothing is no bound: neither where nothing is found, nor where it raises the class by a trifle."""
    seen, _ = localisation(reach=0)
    whole = seen.overlay_in_region(region())
    trifle, nothing = (replace(whole, opacity=share * whole.opacity) for share in (0.01, 0.0))
    with pytest.MonkeyPatch.context() as patch:
        for other in ((None, None), (trifle, None)):
            patch.setattr(Localisation, "find_insertion", lambda *_, other=other: other)
            seen.check_region(nothing)


def test_insertions_that_fit_no_image_have_no_effect_and_none_is_weaker():
    seen, _ = localisation(reach=0)
    large = Overlay(np.ones((1, 20, 20), np.float32), np.ones((1, 1, 20, 20), np.float32))
    assert seen.effect_elsewhere(large) == LogitEffect(NO_INTERVAL)
    assert not seen.is_weaker(large, large, 0.5)


class WaveReader(nn.Module):
    """Two classes; the second by the energy of one frequency along the rows, whatever its phase."""

    def __init__(self):
        super().__init__()
        phase = 2 * np.pi * WAVE * np.arange(SIDE) / SIDE
        self.waves = nn.Conv2d(1, 2, (1, SIDE), bias=False)
        self.waves.weight.data[:, 0, 0] = torch.from_numpy(np.stack([np.cos(phase), np.sin(phase)])).float()

    def forward(self, x):
        energy = 4 * (self.waves(x) ** 2).mean((1, 2, 3))
        return torch.stack([torch.zeros_like(energy), energy], 1)


WAVE = 5


def waves(images, rng):
    """The wave at a random phase on copies of images (n, 1, H, W)."""
    phase = 2 * np.pi * (WAVE * np.arange(SIDE) / SIDE + rng.random((len(images), 1, 1, 1)))
    return (np.rint(255 * np.clip(images + 0.15 * np.cos(phase), 0, 1)) / 255).astype(np.float32)


@pytest.mark.parametrize("located", ["nothing", "a weaker place", "the place itself"])
def test_the_way_of_quantify_is_put_on_unless_what_is_located_does_as_much(located):
    """A wave of any phase, which no localisation knows: shared frequencies put on at least 0.8 of what it truly does.
    A place that does as much stays."""
    rng = np.random.default_rng(0)
    own, elsewhere = (rng.uniform(0.3, 0.7, (n, 1, SIDE, SIDE)).astype(np.float32) for n in (120, 40))
    own[:40] = waves(own[:40], rng)
    classifier = load_model(WaveReader().eval(), classes=["a", "b"])
    audited = SimpleNamespace(classifier=classifier, group=SimpleNamespace(target=1, name="b"), corpus=None)
    use = UseResult("spectrum 0.002", "shared frequencies", 4.1, 3.9, 4.3, 9.0, 0.01, 0, 0.3, 0.0, 0.2, 1.0, "shared")
    rows = np.arange(120)
    found = FoundArtifact(audited, rows[:40], "detector: spectrum 0.002", measured_use=use)
    seen = Localisation(found, rows, list(torch.from_numpy(own)), rows < 40, rows)
    vars(seen)["images_elsewhere"] = list(torch.from_numpy(elsewhere))
    with torch.no_grad():
        plain, shown = (WaveReader()(torch.from_numpy(x)) for x in (elsewhere, waves(elsewhere, rng)))
    truth = float((shown - plain).diff().mean()) / 2
    phase = 2 * np.pi * WAVE * np.arange(SIDE) / SIDE
    opacity, wave = np.ones((1, SIDE, SIDE), np.float32), 0.5 + 0.15 * np.cos(phase) * np.ones((1, 1, SIDE, 1))
    itself = Overlay(opacity, wave.astype(np.float32))
    place = {"nothing": None, "a weaker place": replace(itself, opacity=0.2 * opacity), "the place itself": itself}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Localisation, "locate", lambda self: (place[located], None))
        overlaid, way = seen.find_insertion()
    assert overlaid is place[located]
    if located == "the place itself":
        assert way is None
        return
    assert str(way) == "the shared change of the spectrum"
    assert seen.effect_elsewhere(way).rise.value > 0.8 * truth > 0.5


class MarkEmbedding(nn.Module):
    """Embedding by the largest match of a dark and light mark, in levels."""

    def __init__(self):
        super().__init__()
        self.stripes = Reader().stripes

    def forward(self, x):
        match = self.stripes(x / 255).amax((1, 2, 3))
        return torch.stack([match, 0 * match], 1)

    def embed(self, levels):
        with torch.no_grad():
            return self(torch.from_numpy(levels).permute(0, 3, 1, 2).float()).double().numpy()


def test_the_pixels_that_the_embedding_knows_are_an_overlay(monkeypatch):
    """`quantify` measured by them: of what is then put on, the mark is a part, and it raises the class."""
    monkeypatch.setattr(localisation_module, "read_embedding", lambda store: MarkEmbedding())
    monkeypatch.setattr(Localisation, "locate", lambda self: (None, None))
    known, truth = localisation(reach=3)
    figures = (truth, truth, truth, 9.0, 0.01, 0, 0.3, 0.0, 0.2, 1.0)
    use = UseResult("embedding 0.002", "more known pixels", *figures, "shared")
    audited = SimpleNamespace(**vars(known.audited), store=None)
    seen = replace(known, artifact=replace(known.artifact, audited=audited, measured_use=use))
    vars(seen).update(maps=known.maps, images_elsewhere=known.images_elsewhere)
    overlaid, imitation = seen.find_insertion()
    assert imitation is None and overlaid.masks.mean() == pytest.approx(0.15, abs=0.02)
    is_mark = np.abs(overlaid.colour[:, 0] - 0.5) > 0.39
    assert (overlaid.masks & is_mark).sum() > 4 * 0.15 * is_mark.sum()  # four times what random masks would hold
    assert seen.effect_elsewhere(overlaid).rise.value > 0.4 * truth
