"""The audit of a denoiser: an object that one frame shows is copied or left out as its kernels say, files are complete,
and wrong arguments are one line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from klarsicht import bridge, burst
from klarsicht.bridge import denoiser_audit
from klarsicht.bridge.denoiser_audit import DenoiserAudit
from klarsicht.bridge.kernel_measures import MEASURES
from klarsicht.bridge.measured_burst import MeasuredBurst, measure_burst
from klarsicht.bridge.strategies import COPIES, StrategyMaps
from klarsicht.bridge.strategy_pictures import StrategyMap
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 1e-3)
SQUARE = np.s_[..., 32:64, 40:88]


def scene(moved):
    """A burst of smooth texture; in its last three frames a bright square, or not; and its truth."""
    rng = np.random.default_rng(0)
    light = np.kron(rng.random((12, 16)), np.ones((8, 8)))[None].astype(np.float32) * 0.3 + 0.2
    frames = np.stack([light] * 4)
    if moved:
        frames[1:][SQUARE] += 0.4
    return Burst(LEVEL.sample(frames, rng), LEVEL), light


@pytest.fixture
def trusting():
    """A network whose kernels are those of its initial state: the mean of all frames, whatever they show."""
    return build_network(NetworkSettings(preset="kpn", width=0.125, frames=4), seed=0).eval()


@pytest.mark.slow
def test_a_network_that_averages_what_moved_is_found_to_copy_it(trusting, plain_kernels):
    """The mean of four frames of which three show a square holds three quarters of it: it is copied there."""
    both = [scene(True), scene(False)]
    found = bridge.audit_denoiser(trusting, [one for one, _ in both], truths=[truth for _, truth in both], points=400)
    assert found.copied_share(1) < 0.01 < found.copied_share(0)
    inside = np.zeros((96, 128), bool)
    inside[SQUARE[1:]] = True
    copies = found.bursts[0].copies
    assert copies[inside[::4, ::4]].mean() > 0.9 and copies[~inside[::4, ::4]].mean() < 0.05
    copying = next(one for one in found.maps.strategies if one.kind == COPIES)
    assert copying.p < 0.05 and copying.error > 1
    assert "copy what moved" in found.lines[0] and "<table" in found._repr_html_()


@pytest.mark.slow
def test_files_of_an_audit(tmp_path):
    """One page, and for each burst a picture and arrays of every fourth pixel."""
    shots, truth = scene(True)
    level = {"read": LEVEL.read, "shot": LEVEL.shot}
    frames, true = (np.repeat(light, 3, -3) for light in (shots.frames, truth))
    np.savez(tmp_path / "one.npz", frames=frames, truth=true, **level)
    found = bridge.audit_bursts([tmp_path / "one.npz"], tmp_path / "out", points=300)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "explorer.json", "one.npz", "one.png", "page.html", "strategies.json",
    ]  # fmt: skip
    arrays = np.load(tmp_path / "out" / "one.npz")
    assert arrays["measures"].shape == (24, 32, len(MEASURES)) and arrays["labels"].shape == (24, 32)
    facts = json.loads((tmp_path / "out" / "strategies.json").read_text())
    assert sum(one["share"] for one in facts["strategies"]) == pytest.approx(1, abs=1e-3)
    assert len(arrays["strategies"]) == len(found.maps.strategies)
    points = json.loads((tmp_path / "out" / "explorer.json").read_text())["points"]
    assert arrays["labels"][points["row"], points["column"]].tolist() == points["strategy"]
    page = (tmp_path / "out" / "page.html").read_text()
    assert page.count("<img") == 1 and all(one.name in page for one in found.maps.strategies)
    assert Image.open(tmp_path / "out" / "one.png").width == 128 * 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_drawn_points_stand_at_their_places_on_the_upright_maps(orientation):
    """Each point has a label of its own, so the upright label map says where it is."""
    rng, shape = np.random.default_rng(0), (5, 7)
    labels = (rng.permutation(35).reshape(shape), 35 + rng.permutation(35).reshape(shape))
    bursts = tuple(
        MeasuredBurst(str(k), 4, np.zeros((*shape, 12)), np.ones(shape), np.zeros((8, 8, 3), np.uint8), True, one)
        for k, one in enumerate((1, orientation))
    )
    drawn = np.sort(rng.permutation(70)[:20])
    clusters = SimpleNamespace(embedding=rng.random((20, 4)), suspect=None)
    found = DenoiserAudit(bursts, StrategyMaps((), labels, clusters, drawn)).to_explorer()["points"]
    upright = [turn_upright(one, turn) for one, turn in zip(labels, (1, orientation), strict=True)]
    places = zip(found["burst"], found["row"], found["column"], found["strategy"], strict=True)
    assert all(upright[k][row, column] == label for k, row, column, label in places)
    assert np.corrcoef(found["x"], found["y"])[0, 1] == pytest.approx(0, abs=1e-3)  # principal components


@pytest.mark.slow
def test_a_stopped_audit_goes_on_with_the_bursts_that_were_measured(tmp_path, monkeypatch):
    """The files are those of an audit that was not stopped, and nothing is left beside them."""
    for k, moved in enumerate((True, False)):
        shots, truth = scene(moved)
        frames, true = (np.repeat(light, 3, -3) for light in (shots.frames, truth))
        np.savez(tmp_path / f"{k}.npz", frames=frames, truth=true, read=LEVEL.read, shot=LEVEL.shot)
    paths, measured, stop = [tmp_path / "0.npz", tmp_path / "1.npz"], [], [True]

    def measure(network, burst, name, truth):
        if name == "1" and stop:
            raise KeyboardInterrupt
        measured.append(name)
        return measure_burst(network, burst, name, truth)

    monkeypatch.setattr(denoiser_audit, "measure_burst", measure)
    with pytest.raises(KeyboardInterrupt):
        bridge.audit_bursts(paths, tmp_path / "out", points=200)
    stop.clear()
    bridge.audit_bursts(paths, tmp_path / "out", points=200)
    assert measured == ["0", "1"]
    bridge.audit_bursts(paths, tmp_path / "whole", points=200)
    for file in (tmp_path / "whole").iterdir():
        other = tmp_path / "out" / file.name
        if file.suffix == ".npz":  # which holds the time
            arrays, others = np.load(file), np.load(other)
            assert all(np.array_equal(arrays[name], others[name]) for name in arrays)
        else:
            assert other.read_bytes() == file.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_an_audit_without_the_network_is_refused_before_a_frame_is_read(tmp_path):
    (tmp_path / "burst").mkdir()
    with pytest.raises(UsageError, match="without the network"):
        bridge.audit_bursts([tmp_path / "burst"], tmp_path / "out", DenoiseSettings(fast=True))
    assert [path.name for path in tmp_path.iterdir()] == ["burst"]


@pytest.mark.slow
def test_photographs_are_audited_and_the_page_of_denoising_shows_their_map(tmp_path):
    """Both measure every eighth pixel while tiles are denoised; the picture stands upright."""
    rng = np.random.default_rng(1)
    light = np.kron(rng.random((16, 24, 1)), np.ones((8, 8, 3))) * 0.5 + 0.2
    (tmp_path / "burst").mkdir()
    for i in range(3):
        noisy = light + 0.02 * rng.standard_normal(light.shape)
        Image.fromarray((255 * np.clip(noisy, 0, 1)).astype(np.uint8)).save(tmp_path / "burst" / f"{i}.png")
    settings = DenoiseSettings(noise="0.02,0.001", threads=1)
    found = bridge.audit_bursts([tmp_path / "burst"], tmp_path / "out", settings, points=300)
    assert found.bursts[0].measures.shape == (16, 24, len(MEASURES)) and not found.bursts[0].has_truth
    shares = found.bursts[0].measures[..., MEASURES.index("reference share")]
    assert ((shares > 0.2) & (shares <= 1)).all()
    for _ in burst.denoise(
        tmp_path / "burst", tmp_path / "clean.png", settings, page=tmp_path / "page.html", painter=StrategyMap()
    ):
        pass
    assert 'id="strategies"' in (tmp_path / "page.html").read_text()
    assert not list(tmp_path.glob("**/*.work"))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"bursts": []}, InputError, "no bursts"),
        ({"points": 5}, UsageError, "100 to 1000000"),
        ({"seed": -1}, UsageError, "seed is out of range"),
        ({"truths": []}, InputError, "truths that do not fit"),
        ({"bursts": "frames"}, UsageError, "bursts"),
        ({"network": "swift"}, UsageError, "load_network"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, error, words, trusting):
    given = {"network": trusting, "bursts": [scene(False)[0]]} | arguments
    with pytest.raises(error, match=words) as caught:
        bridge.audit_denoiser(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bursts", "words"), [([], "no bursts"), (["absent"], "no such burst"), (["a.txt"], "a.txt is no burst")]
)
def test_what_is_no_burst_is_one_line_before_anything_is_written(bursts, words, tmp_path):
    (tmp_path / "a.txt").write_text("no burst")
    with pytest.raises(InputError, match=words):
        bridge.audit_bursts([tmp_path / name for name in bursts], tmp_path / "out")
    assert not (tmp_path / "out").exists()
