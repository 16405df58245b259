"""The networks that come along: found by name and by the frames they serve, and as their cards say."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from tests.marks import slow

from klarsicht.burst.evaluation import comparison
from klarsicht.burst.network import checkpoints, pretrained
from klarsicht.burst.network.unet import COLOURS, NetworkSettings, build_network
from klarsicht.ground.errors import UsageError

FREE = {"CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "public domain", "US government work"}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder with one network, as if it had come along."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    network = build_network(NetworkSettings(preset="swift", colour="rgb", width=0.125), 0)
    checkpoints.save_network(network, tmp_path / "swift.safetensors", {}, torch.float16)
    (tmp_path / "swift.json").write_text("{}")
    return network


def test_weights_are_found_by_name_and_by_the_frames_they_serve(weights, tmp_path):
    assert list(pretrained.list_networks()) == ["swift"]
    assert (
        pretrained.find_weights("rgb")
        == pretrained.find_weights("grey")
        == pretrained.resolve_checkpoint("swift")
        == tmp_path / "swift.safetensors"
    )
    assert pretrained.find_weights("mosaic") is None
    assert pretrained.find_weights("interpolated") == tmp_path / "swift.safetensors"
    for name in ("swift-interpolated.safetensors", "swift-interpolated.json"):
        (tmp_path / name).write_text("{}")
    assert pretrained.find_weights("interpolated") == tmp_path / "swift-interpolated.safetensors"
    assert pretrained.find_weights("rgb") == tmp_path / "swift.safetensors"
    assert pretrained.resolve_checkpoint("elsewhere.safetensors") == Path("elsewhere.safetensors")
    with pytest.raises(UsageError, match="swift"):
        pretrained.resolve_checkpoint("swft")


def test_sixteen_bits_are_read_as_32_and_are_the_nearest(weights):
    loaded = checkpoints.load_network(Path("swift"))
    for name, weight in weights.state_dict().items():
        got = loaded.state_dict()[name]
        assert got.dtype == torch.float32
        assert torch.equal(got, weight.half().float())


def test_a_network_comes_along_for_every_kind_of_frame():
    assert list(pretrained.list_networks()) == ["swift", "swift-raw", "swift-interpolated"]
    assert all(pretrained.find_weights(colour) for colour in COLOURS)
    files = {pretrained.find_weights(colour) for colour in ("rgb", "mosaic", "interpolated")}
    assert len(files) == 3


@pytest.mark.parametrize("one", pretrained.list_networks().values(), ids=lambda one: one.name)
def test_what_comes_along_is_what_its_card_says(one):
    content = one.file.read_bytes()
    assert len(content) == one.card["bytes"] < 8_000_000
    assert hashlib.sha256(content).hexdigest() == one.card["sha256"]
    assert checkpoints.load_network(one.file).settings.colour == {"interpolated": "rgb"}.get(one.colour, one.colour)
    licences = {part for p in one.card["photographs"].values() for part in p["licence"].split(" / ")}
    assert licences <= FREE
    assert json.loads(json.dumps(one.card)) == one.card
    assert "/" not in json.dumps([t["settings"] for t in one.card["trainings"]])


@pytest.mark.parametrize(
    ("name", "chosen", "gain"),
    [("swift-raw", "mosaic-still", 4), slow("swift", "grey-still", 2), slow("swift-interpolated", "bayer-still", 4)],
)
def test_a_cell_of_the_card_is_measured_again(name, chosen, gain):
    pytest.importorskip("skimage")
    tables = pretrained.list_networks()[name].card["tables"]
    (written,) = [one for one in tables if (one["photographs"], one["name"]) == ("scikit-image", chosen)]
    found = comparison.evaluate_all(rows=["swift"], gains=[gain], name=chosen, exact=True)
    assert found.protocol.sha256 == written["sha256"]
    cell, card = found.rows["swift"][str(gain)], written["rows"]["swift"][str(gain)]
    assert cell["psnr"] == pytest.approx(card["psnr"], abs=0.02)
    assert cell["exposure_1"]["psnr"] == pytest.approx(card["exposure_1"]["psnr"], abs=0.02)
