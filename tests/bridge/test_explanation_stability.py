"""Stability of explanations: rank correlations in closed form, and the relevance of a linear model, weight x pixel."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr, ttest_1samp
from torch import nn

from klarsicht import audit, bridge
from klarsicht.audit.results.stability import read_stability
from klarsicht.bridge import explanation_stability
from klarsicht.bridge.explanation_stability import (
    ImageVersions,
    add_noise,
    average_correlations,
    correlate_ranks,
    estimate_level,
    measure_grain,
    read_light,
)
from klarsicht.bridge.single_images import encode_light
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIDE, EACH = 16, 20
LEVEL = NoiseLevel(0.02, 0.01)


def test_a_class_without_a_picture_has_no_level():
    assert estimate_level([]) is None


def test_ranks_of_a_linear_model_under_noise_correlate_as_the_closed_form_says():
    """Relevance is w x for equal weights, x normal of deviation s; with noise of deviation sigma Pearson's correlation
    is r = s / sqrt(s^2 + sigma^2), and that of the ranks 6 / pi arcsin(r / 2) (Pearson 1907)."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.3, (2, 300, 300))
    for sigma in (0.1, 0.4):
        r = 0.3 / np.hypot(0.3, sigma)
        found = correlate_ranks(2.5 * x, 2.5 * (x + rng.normal(0, sigma, x.shape)))
        np.testing.assert_allclose(found, 6 / np.pi * np.arcsin(r / 2), atol=0.01)  # 90,000 pixels: error 0.003


def test_a_map_that_does_not_change_has_1_and_only_order_counts():
    x = np.random.default_rng(1).normal(size=(3, 8, 8))
    np.testing.assert_allclose(correlate_ranks(x, x), 1)
    np.testing.assert_allclose(correlate_ranks(x, np.exp(3 * x)), 1)
    np.testing.assert_allclose(correlate_ranks(x, -x), -1)
    tied = np.round(x)
    wanted = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(tied, x, strict=True)]
    np.testing.assert_allclose(correlate_ranks(tied, x), wanted)
    assert np.isnan(correlate_ranks(np.ones((1, 4)), x[:1, 0, :4])).all()


def test_the_interval_of_a_mean_is_that_of_students_test_and_no_correlation_is_above_1():
    values = np.array([0.2, 0.5, 0.9, 0.4])
    known = ttest_1samp(values, 0).confidence_interval()
    found = average_correlations(values)
    np.testing.assert_allclose((found.low, found.high), known, rtol=1e-4)
    assert average_correlations(np.array([1.0, 0.9, 1.0])).high == 1


def test_added_noise_has_its_level_and_a_grey_picture_stays_grey():
    flat = Image.fromarray(np.full((128, 128), 127, np.uint8))
    for picture in (flat, flat.convert("RGB")):
        noisy = add_noise(picture, LEVEL, np.random.default_rng(0))
        assert noisy.mode == picture.mode and noisy.size == picture.size
        light = read_light(noisy).astype(float)
        wanted = np.sqrt(0.02**2 + 0.01 * read_light(picture).mean())
        assert light.std() == pytest.approx(wanted, rel=0.03)


def test_the_noise_of_a_picture_is_estimated_and_small_pictures_have_none():
    light = np.broadcast_to(np.linspace(0.1, 0.7, 256)[:, None, None], (256, 256, 3)).astype(np.float32)
    picture = Image.fromarray(encode_light(LEVEL.sample(light, np.random.default_rng(0))))
    found = estimate_level([picture])
    np.testing.assert_allclose(found.variance(0.3), LEVEL.variance(0.3), rtol=0.15)
    small = [picture.crop((0, y, 16, y + 16)) for y in range(0, 256, 16)]
    assert estimate_level(small[:1]) is None
    np.testing.assert_allclose(estimate_level(small).variance(0.3), LEVEL.variance(0.3), rtol=0.5)


def test_grain_is_the_deviation_over_the_slope_of_the_curve_of_srgb():
    slope = 2.4 / 1.055 * ((127.5 / 255 + 0.055) / 1.055) ** 1.4 / 255  # light a code, IEC 61966-2-1
    assert measure_grain(NoiseLevel(0.02, 0)) == pytest.approx(0.02 / slope, rel=0.02)


def test_a_picture_without_noise_has_three_equal_versions():
    picture = Image.new("RGB", (8, 8))
    versions = ImageVersions.of(picture, NoiseLevel(0, 0), None, np.random.default_rng(0))
    assert versions.with_noise is picture and versions.without_noise is picture


class Linear(nn.Module):
    """Two classes by weights on pixels."""

    def __init__(self):
        super().__init__()
        self.flatten, self.head = nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(np.random.default_rng(5).uniform(0.5, 1, self.head.weight.shape)))

    def forward(self, x):
        return self.head(self.flatten(x))


def as_input(picture):
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1) / 255)


@pytest.fixture(scope="module")
def linear_run(tmp_path_factory):
    """A run of a linear model whose relevance is weight times pixel, its classifier, and its pictures by row."""
    folder, rng, pictures = tmp_path_factory.mktemp("linear"), np.random.default_rng(0), []
    for name in "ab":
        (folder / "data" / name).mkdir(parents=True)
        for i in range(EACH):
            pictures.append(Image.fromarray(rng.integers(30, 220, (SIDE, SIDE, 3)).astype(np.uint8)))
            pictures[-1].save(folder / "data" / name / f"{i:02d}.png")
    model = audit.load_model((Linear(), as_input), classes=["a", "b"])
    settings = audit.AuditSettings(model="linear", data=str(folder / "data"), method="GradientTimesInput")
    return audit.run(settings, folder / "run", classifier=model), model, pictures


@pytest.mark.slow
def test_stability_of_a_linear_model_is_that_of_weight_times_pixel(linear_run, plain_kernels):
    run, model, pictures = linear_run
    found = bridge.measure_stability(run, images=EACH, noise=LEVEL, classifier=model)
    w = model.module.head.weight.detach().numpy().reshape(2, 3, SIDE, SIDE)
    for target, one in enumerate(sorted(found, key=lambda one: one.target)):
        maps = []
        for row in range(EACH * target, EACH * (target + 1)):
            noisy = add_noise(pictures[row], LEVEL, generator(0, "noise of stability", row))
            maps.append([(w[target] * as_input(p).numpy()).sum(0).ravel() for p in (pictures[row], noisy)])
        values = [spearmanr(*pair).statistic for pair in maps]
        assert one.with_noise.value == pytest.approx(np.mean(values), abs=1e-5) and one.with_noise.n == EACH
        half = 2.0930 * np.std(values, ddof=1) / np.sqrt(EACH)  # Student's t with 19 degrees of freedom
        assert one.with_noise.high - one.with_noise.value == pytest.approx(half, abs=1e-5)
        others = [spearmanr(maps[i][0], maps[i - 1][0]).statistic for i in range(EACH)]
        assert one.other == pytest.approx(np.mean(others), abs=1e-5)
        assert one.grain == pytest.approx(measure_grain(LEVEL))
    assert found.passes == 3 * 2 * EACH
    assert [one.with_noise.value for one in found] == sorted(one.with_noise.value for one in found)


@pytest.mark.slow
def test_what_was_measured_stands_in_the_run_and_on_its_page(linear_run, plain_kernels):
    run, model, _ = linear_run
    found = bridge.measure_stability(run, images=3, noise=NoiseLevel(0, 0), classifier=model)
    assert all((one.with_noise.value, one.without_noise.value) == pytest.approx((1, 1)) for one in found)
    assert read_stability(run).to_json() == found.to_json()
    lines = list(csv.DictReader((run.path / "stability.csv").read_text().splitlines()))
    assert [(one["class"], one["images"], one["with_noise_value"]) for one in lines] == [
        (one.name, "3", "1.0000") for one in found
    ]
    page = (run.path / "report.html").read_text()
    assert "18 explained passes" in page and page.count("1.00 (1.00 to 1.00)") == 4


def test_settings_out_of_range_and_unknown_noise_are_one_line(linear_run, monkeypatch):
    run, model, _ = linear_run
    monkeypatch.setattr(explanation_stability, "estimate_level", lambda pictures: None)
    with pytest.raises(UsageError, match="images"):
        bridge.measure_stability(run, images=1, classifier=model)
    with pytest.raises(InputError, match="noise of these images cannot be estimated"):
        bridge.measure_stability(run, classifier=model)
