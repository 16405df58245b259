"""Methods that are compared, methods that are absent, and settings refused before anything is computed."""

import json

import numpy as np
import pytest

from klarsicht.burst.evaluation import classical, comparison
from klarsicht.burst.evaluation.protocol import EXPOSURES
from klarsicht.burst.network.checkpoints import save_network
from klarsicht.burst.network.inference import denoise_burst
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.burst.synthesis.photographs import PhotographSet
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.errors import MissingExtra, ModelError, UsageError
from klarsicht.numerics.imaging.sensor_noise import GAINS

SMALL = Geometry(scale=2, height=48, width=64, reach=8)


@pytest.fixture
def shelf(monkeypatch):
    """Small photographs in place of the packaged ones."""
    rng = np.random.default_rng(0)
    pictures = tuple(np.kron(rng.integers(0, 256, (8, 10, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(2))
    found = PhotographSet(("one", "two"), pictures, SMALL)
    monkeypatch.setattr(comparison.photographs, "packaged_photographs", lambda: found)
    return found


def checkpoint(path, preset="mkpn", colour="grey"):
    save_network(build_network(NetworkSettings(preset=preset, colour=colour, width=0.125), 0), path, {})
    return path


def test_every_row_takes_part_or_is_absent_with_a_reason(monkeypatch):
    monkeypatch.setattr(classical, "find_spec", lambda name: None)
    methods, absent = comparison.select_methods((), {})
    assert set(methods) | set(absent) == set(comparison.COMPARED_ROWS) and not set(methods) & set(absent)
    assert set(absent) == {"bm3d", "align+mean+bm3d", "hdr++bm3d", "nlm", "kpn", "mkpn", "bpn", "swift"}
    assert "checkpoint" in absent["swift"] and "bench" in absent["nlm"]


def test_a_checkpoint_takes_part_under_its_preset(tmp_path):
    trained = comparison.load_networks([checkpoint(tmp_path / "a.safetensors", "kpn")], "grey-still")
    methods, absent = comparison.select_methods(("single",), trained)
    assert set(methods) == {"single", "kpn"} and absent == {}


def test_two_checkpoints_of_one_preset_are_told_apart(tmp_path):
    paths = [checkpoint(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    trained = comparison.load_networks(paths, "grey-still")
    methods, absent = comparison.select_methods(("single", "mkpn"), trained)
    assert set(methods) == {"single", "mkpn:a", "mkpn:b"} and absent == {}
    with pytest.raises(UsageError, match="mkpn:a"):
        comparison.load_networks([paths[0]] * 2, "grey-still")


def test_a_network_for_other_frames_is_refused(tmp_path):
    path = checkpoint(tmp_path / "colour.safetensors", colour="mosaic")
    with pytest.raises(ModelError, match=r"colour.safetensors; got one for mosaic frames; the set has grey"):
        comparison.load_networks([path], "grey-moving")
    assert "mkpn" in comparison.load_networks([path], "mosaic-moving")


def test_a_network_for_colours_takes_part_on_grey_frames(tmp_path):
    path = checkpoint(tmp_path / "colour.safetensors", colour="rgb")
    assert "mkpn" in comparison.load_networks([path], "rgb-moving") and "mkpn" in comparison.load_networks(
        [path], "grey-still"
    )


def test_interpolated_frames_have_their_own_network(tmp_path):
    """And take any for RGB, none for planes."""
    assert [file.stem for file in comparison.find_pretrained("bayer-still", ())] == ["swift-interpolated"]
    assert [file.stem for file in comparison.find_pretrained("rgb-still", ())] == ["swift"]
    for name in ("x-trans-moving", "bayer-still"):
        assert "mkpn" in comparison.load_networks([checkpoint(tmp_path / "rgb.safetensors", colour="rgb")], name)
    with pytest.raises(ModelError, match="the set has interpolated frames"):
        comparison.load_networks([checkpoint(tmp_path / "planes.safetensors", colour="mosaic")], "bayer-still")


def test_what_is_no_network_is_refused(tmp_path):
    (tmp_path / "notes.safetensors").write_text("not a network")
    with pytest.raises(ModelError, match="notes"):
        comparison.load_networks([tmp_path / "notes.safetensors"], "grey-still")


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ({"rows": ["bmd3"]}, UsageError, "bm3d"),
        ({"gains": [3]}, UsageError, "gain"),
        ({"name": "gray-still", "rows": ["single"]}, UsageError, "grey-still"),
        ({"rows": ["bpn"]}, UsageError, "none of the rows can run"),
    ],
)
def test_wrong_words_are_refused(shelf, given, kind, told):
    with pytest.raises(kind, match=told):
        comparison.evaluate_all(**given)


def test_packages_that_are_all_missing(shelf, monkeypatch):
    monkeypatch.setattr(classical, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="non-commercial"):
        comparison.evaluate_all(rows=["bm3d"])


@pytest.mark.slow
def test_scores_of_a_network_are_those_of_its_pictures(shelf, tmp_path):
    """PSNR by hand from what the network gives for each burst."""
    path = checkpoint(tmp_path / "a.safetensors", "kpn-separable")
    found = comparison.evaluate_all(checkpoints=[path], rows=["single"], gains=[4])
    made = benchmark_set("grey-still", shelf.photographs, 7, SMALL)
    assert found.protocol.sha256 == made.sha256 and found.protocol.photographs == ("one", "two")
    network = comparison.load_networks([path], "grey-still")["kpn-separable"]

    def shown(x, w):
        x = x[:, 8:-8, 8:-8] / w
        curve = np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)
        return np.clip(curve, 0, 1)

    for exposure, drawn in EXPOSURES.items():
        dB = []
        for k in range(2):
            w = float(made.exposure(k, drawn))
            image = denoise_burst(network, made.burst(k, GAINS[4], w))
            dB.append(-10 * np.log10(np.mean((shown(image, w) - shown(made.truth(k, w), w)) ** 2)))
        assert found.tables[exposure]["kpn-separable"][4].psnr == pytest.approx(np.mean(dB), abs=0.02)


def test_what_is_written(shelf, tmp_path):
    found = comparison.evaluate_all(rows=["single", "mean", "kpn"], gains=[1, 8])
    comparison.write_evaluation(found, tmp_path / "new" / "folder")
    record = json.loads((tmp_path / "new" / "folder" / "evaluation.json").read_text())
    assert record["rows"] == json.loads(json.dumps(found.rows)) and "kpn" in record["absent"]
    assert (tmp_path / "new" / "folder" / "evaluation.html").stat().st_size > 5000
