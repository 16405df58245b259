"""Scores beside torchmetrics and hand arithmetic, on methods whose result is known."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.evaluation.protocol import (
    Evaluation,
    Protocol,
    Score,
    average_trials,
    evaluate,
    most_detailed_window,
    path_mask,
    run_trial,
    sensor_pixels,
)
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine import stopwatch
from klarsicht.numerics.imaging.sensor_noise import GAINS, noise_level

SMALL = Geometry(scale=2, height=48, width=64, reach=8)


def photographs():
    return [data.astronaut(), data.chelsea()[:, :400], data.coffee()]


@pytest.fixture(scope="module")
def grey():
    return benchmark_set("grey-still", photographs(), 7, SMALL)


def reference(burst):
    return burst.reference


def twice(burst):
    return 2 * burst.reference


@pytest.fixture(scope="module")
def evaluation(grey):
    tables, examples = evaluate({"single": reference, "twice": twice}, grey, (1, 8))
    names, exposures = ("a", "b", "c"), tuple(map(float, grey.exposures))
    protocol = Protocol("grey-still", 7, SMALL, names, exposures, (1, 8), grey.sha256)
    return Evaluation(protocol, tables, {"bm3d": "not here"}, examples)


@pytest.mark.parametrize("exposure", ["drawn", "1"])
def test_scores_are_those_of_the_protocol(grey, evaluation, exposure):
    """Written out with another library's curve-free metrics on pictures made here by the sRGB formula."""
    torch, image = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.image")

    def shown(x, w):
        x = x[:, 8:-8, 8:-8].astype(float) / w
        curve = np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)
        return torch.from_numpy(np.clip(curve, 0, 1))[None]

    dB, similar = [], []
    for k in range(3):
        w = float(grey.exposures[k]) if exposure == "drawn" else 1.0
        clean = grey.frames[k, 0] * w
        noisy = clean + np.sqrt(10**-2.14 * 10**0 + 10**-1.48 * clean) * grey.noise[k, 0]
        a, b = shown(noisy, w), shown(clean, w)
        dB.append(float(image.peak_signal_noise_ratio(a, b, data_range=1.0)))
        similar.append(float(image.structural_similarity_index_measure(a, b, data_range=1.0)))
    found = evaluation.tables[exposure]["single"][8]
    assert found.psnr == pytest.approx(np.mean(dB), abs=0.02)
    assert found.ssim == pytest.approx(np.mean(similar), abs=0.002)


def test_a_trial_times_the_method_alone(grey, monkeypatch):
    """By a clock that only the test moves: the making of the burst and the measurement of quality take longer."""
    now = [0.0]

    def lasting(seconds, function):
        def waits(*arguments):
            now[0] += seconds
            return function(*arguments)

        return waits

    hand = SimpleNamespace(process_time=lambda: now[0], perf_counter=lambda: 2 * now[0])
    monkeypatch.setattr(stopwatch, "time", hand)
    monkeypatch.setattr(BenchmarkSet, "burst", lasting(100, BenchmarkSet.burst))
    monkeypatch.setattr(BenchmarkSet, "truth", lasting(1000, BenchmarkSet.truth))
    idle, worked = (run_trial(lasting(s, reference), grey, 0, GAINS[1], random_exposure=True) for s in (0, 3))
    assert (idle.cost.cpu, idle.cost.wall) == (0, 0) and (worked.cost.cpu, worked.cost.wall) == (3, 6)
    assert now == [2203] and worked.quality == idle.quality


def test_scores_are_means_over_photographs_and_cost_is_by_the_megapixel(grey):
    trials = [run_trial(reference, grey, k, GAINS[1], random_exposure=False) for k in range(3)]
    costed = [
        dataclasses.replace(t, cost=dataclasses.replace(t.cost, cpu=s)) for t, s in zip(trials, (1, 2, 6), strict=True)
    ]
    found = average_trials(costed, 500_000)
    assert found.cpu_s_per_mpx == pytest.approx(6)
    assert found.psnr == pytest.approx(np.mean([t.quality.psnr for t in trials]))
    assert found.on_path is None


def test_path_and_rest_are_told_where_something_moves():
    moving = benchmark_set("grey-moving", photographs(), 7, SMALL)
    tables, _ = evaluate({"mean": lambda burst: burst.frames.mean(0)}, moving, (1,))
    found = tables["1"]["mean"][1]
    assert found.on_path is not None and found.off_path is not None
    assert found.on_path < found.psnr < found.off_path


def test_the_planes_of_a_mosaic_are_a_quarter_each(grey):
    """A megapixel is one of the sensor's, whatever stands in its frames."""
    mosaic = benchmark_set("mosaic-still", photographs(), 7, SMALL)
    assert mosaic.frames.shape[-3:] == (4, 24, 32) and grey.frames.shape[-3:] == (1, 48, 64)
    assert sensor_pixels(mosaic) == sensor_pixels(grey) == 48 * 64
    tables, examples = evaluate({"single": reference}, mosaic, (1,))
    assert examples[1]["single"].shape == (8, 16, 3)
    assert np.isfinite(tables["1"]["single"][1].psnr)


def test_a_plane_of_a_mosaic_is_touched_where_one_of_its_four_pixels_is():
    path = np.zeros((32, 48), bool)
    path[7, 20] = path[30, 47] = True
    planes = np.zeros((16, 24), bool)
    planes[3, 10] = planes[15, 23] = True
    assert np.array_equal(path_mask(path, (4, 16, 24)), planes)
    assert np.array_equal(path_mask(path, (1, 32, 48)), path)


@pytest.mark.parametrize("name", ["bayer-still", "x-trans-still"])
def test_interpolated_frames_are_compared_in_full_resolution_after_white_balance(name):
    """By hand, with the balance taken from a grey patch of light."""
    made = benchmark_set(name, photographs()[:1], 7, SMALL)
    assert sensor_pixels(made) == 48 * 64

    def shown(x):
        x = (x * made.balances[0].reshape(3, 1, 1))[:, 8:-8, 8:-8]
        curve = np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)
        return np.clip(curve, 0, 1)

    found = run_trial(reference, made, 0, GAINS[2], random_exposure=False)
    error = np.mean(np.square(shown(made.burst(0, GAINS[2], 1.0).frames[0]) - shown(made.frames[0, 0])))
    assert found.quality.psnr == pytest.approx(-10 * np.log10(error), abs=0.02)
    np.testing.assert_allclose(np.clip(found.picture, 0, 1), shown(made.burst(0, GAINS[2], 1.0).frames[0]), atol=2e-3)


def test_what_moves_is_told_of_mosaics_too():
    made = benchmark_set("mosaic-moving", [data.astronaut()], 7, Geometry(scale=2, height=96, width=96, reach=16))
    quality = run_trial(lambda burst: burst.reference, made, 0, noise_level(4), random_exposure=False).quality
    assert quality.on_path is not None and quality.off_path is not None


def test_json_has_rows_then_gains(evaluation):
    rows = json.loads(json.dumps(evaluation.rows))
    assert list(rows) == ["single", "twice"] and list(rows["single"]) == ["1", "8"]
    cell = rows["single"]["1"]
    assert {"psnr", "ssim", "cpu_s_per_mpx"} <= set(cell) and "on_path" not in cell
    assert cell["psnr"] == evaluation.tables["drawn"]["single"][1].psnr
    assert cell["exposure_1"]["psnr"] == evaluation.tables["1"]["single"][1].psnr
    record = json.loads(json.dumps(evaluation.record))
    assert record["protocol"]["sha256"] == evaluation.protocol.sha256 and record["absent"] == {"bm3d": "not here"}


def test_the_peer_is_the_best_classical_row(evaluation):
    """Twice as bright is worse, and not classical; a better network is no peer either."""
    best = dataclasses.replace(
        evaluation,
        tables={
            "1": {"single": {1: Score(20, 0, 0, 0)}, "hdr+": {1: Score(30, 0, 0, 0)}, "net": {1: Score(40, 0, 0, 0)}}
        },
    )
    assert best.best_classical("1", 1) == ("hdr+", 30)
    assert dataclasses.replace(best, tables={"1": {"net": {1: Score(40, 0, 0, 0)}}}).best_classical("1", 1) is None


def test_the_protocol_prints_what_is_needed_to_repeat_it(evaluation, grey):
    told = "\n".join(evaluation.protocol.lines)
    for needed in (
        grey.sha256,
        "seed 7",
        "48 x 64",
        "8 pixels",
        "0.08511, 0.03311",
        "a, b, c",
        f"{grey.exposures[2]:.4f}",
    ):
        assert needed in told


def test_examples_show_the_truth_and_every_row(evaluation):
    assert {gain: set(crops) for gain, crops in evaluation.examples.items()} == {
        1: {"truth", "single", "twice"},
        8: {"truth", "single", "twice"},
    }
    error = {gain: np.abs(c["single"].astype(int) - c["truth"]).mean() for gain, c in evaluation.examples.items()}
    assert 0 < error[1] < error[8]


def test_the_busiest_window_holds_the_only_detail():
    picture = np.zeros((1, 80, 96))
    picture[0, 42:46, 50:54] = 1
    y, x = most_detailed_window(picture, 16)
    assert y <= 42 <= 46 <= y + 16 and x <= 50 <= 54 <= x + 16


def test_a_gain_that_the_protocol_has_not():
    with pytest.raises(UsageError, match="unknown gain; got '3'"):
        noise_level(3)
