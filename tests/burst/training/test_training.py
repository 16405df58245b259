"""Training end to end on small pictures: it learns, it resumes to the byte, and it refuses what is another run."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from klarsicht.burst.data.cokriging import MOSAICS
from klarsicht.burst.network.checkpoints import load_network, read_card
from klarsicht.burst.network.pretrained import list_networks
from klarsicht.burst.synthesis.motion import TRAINING_MOTIONS
from klarsicht.burst.training import training
from klarsicht.burst.training.batches import BatchStream
from klarsicht.burst.training.training import TrainingData, TrainSettings, train
from klarsicht.ground.errors import CorpusError, ImageError, RunMismatch, UsageError
from klarsicht.ground.fit import Curve
from klarsicht.numerics.imaging.sensor_noise import GAINS

SMALL = TrainSettings(preset="kpn", width=0.125, frames=2, size=32, scale=1, batch=1, steps=6, every=3, uses=1)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        smooth = np.kron(rng.integers(0, 255, (12, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(smooth).save(folder / f"{i}.png")
    return folder


@pytest.mark.slow
def test_a_run_leaves_a_network_its_card_pictures_and_a_curve(photographs, tmp_path):
    out = train(SMALL, photographs, tmp_path / "net.safetensors")
    assert load_network(out).settings == SMALL.network
    card = read_card(out).training
    assert card["step"] == 6
    assert sorted(card["photographs"]) == ["0.png", "1.png", "2.png", "3.png"]
    run = tmp_path / "net.run"
    assert TrainSettings.from_toml(run / "settings.toml") == SMALL
    assert [path.name for path in sorted((run / "pictures").iterdir())] == ["0000003.png", "0000006.png"]
    with Image.open(run / "pictures" / "0000006.png") as sheet:
        assert sheet.size == (3 * 16 + 2 * 4, 4 * 16 + 3 * 4)
    lines = Curve(run / "curve.jsonl").read()
    assert [line["step"] for line in lines if "loss" in line] == list(range(6))
    assert {"psnr at gain 1", "psnr at gain 8"} <= lines[-1].keys()


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(photographs, tmp_path, monkeypatch):
    train(SMALL, photographs, tmp_path / "whole.safetensors")
    loss = training.DenoisingTask.loss

    def stopping(self, model, batch, step):
        if step == 4:
            raise KeyboardInterrupt
        return loss(self, model, batch, step)

    monkeypatch.setattr(training.DenoisingTask, "loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, photographs, tmp_path / "stopped.safetensors")
    monkeypatch.undo()
    train(SMALL, photographs, tmp_path / "stopped.safetensors")
    for name in ("{}.safetensors", "{}.run/curve.jsonl", "{}.run/pictures/0000006.png"):
        whole, stopped = (tmp_path / name.format(which) for which in ("whole", "stopped"))
        assert whole.read_bytes() == stopped.read_bytes(), name


@pytest.mark.slow
def test_a_network_learns(photographs, tmp_path, monkeypatch):
    """Taught one very noisy burst again and again, it leaves the mean of the frames far behind."""
    burst = BatchStream.draw
    monkeypatch.setattr(BatchStream, "draw", lambda self, index, rank: burst(self, 3, 0))
    monkeypatch.setattr(training, "NOISES", {"wide": lambda rng: GAINS[8]})
    settings = SMALL.with_values(steps=60, rate=0.03, every=60, noise="wide", motion=("still",))
    out = train(settings, photographs, tmp_path / "net.safetensors")
    batch = TrainingData.from_folder(photographs, settings).task(settings, out).batch(0, 0)
    mean = (batch.frames * batch.valid[:, :, None, None, None]).sum(1) / batch.valid.sum()
    with torch.no_grad():
        learned = load_network(out)(batch.frames, batch.read, batch.shot, batch.valid, batch.agreement).merged
    errors = [(Y - batch.truth)[..., 8:-8, 8:-8].square().mean() for Y in (mean, learned)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(("preset", "colour"), [("swift", "rgb"), ("swift", "mosaic"), ("direct", "grey")])
def test_other_presets_and_colours_go_the_same_way(preset, colour, photographs, tmp_path, plain_kernels):
    settings = SMALL.with_values(preset=preset, colour=colour, steps=1)
    if colour == "mosaic":  # frames of 32 planes need 64 pixels and twice the reach
        for file in photographs.iterdir():
            with Image.open(file) as picture:
                large = picture.resize((120, 104))
            large.save(file)
    out = train(settings, photographs, tmp_path / "net.safetensors")
    assert load_network(out, preset).settings.colour == colour


def test_a_network_for_colours_is_taught_on_grey_frames_too(photographs, tmp_path):
    settings = SMALL.with_values(colour="rgb", grey_too=True, size=32)
    supply = TrainingData.from_folder(photographs, settings).task(settings, tmp_path / "net.safetensors").batches
    drawn = [supply.draw(index, 0) for index in range(12)]
    assert {batch.truth.shape[1] for batch in drawn} == {1, 3}
    with pytest.raises(UsageError, match="grey_too"):
        TrainSettings(grey_too=True)


@pytest.mark.slow
def test_a_training_may_start_from_another_and_its_card_says_which(photographs, tmp_path):
    first = train(SMALL.with_values(steps=3), photographs, tmp_path / "first.safetensors")
    second = train(
        SMALL.with_values(steps=1, rate=1e-9, start=str(first)), photographs, tmp_path / "second.safetensors"
    )
    for name, weight in load_network(first).state_dict().items():
        assert torch.allclose(load_network(second).state_dict()[name], weight, atol=1e-6)
    card = read_card(second).training
    assert card["start"] == sha256(first.read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(card)


@pytest.mark.slow
def test_a_training_may_start_from_the_network_that_comes_along_by_its_name(photographs, tmp_path):
    settings = TrainSettings(preset="swift", colour="rgb", start="swift", size=32, scale=1, batch=1, steps=1, rate=1e-9)
    out = train(settings, photographs, tmp_path / "net.safetensors")
    assert read_card(out).training["start"] == list_networks()["swift"].card["sha256"]


def test_another_training_in_the_same_place_is_refused(photographs, tmp_path, plain_kernels):
    train(SMALL, photographs, tmp_path / "net.safetensors")
    with pytest.raises(RunMismatch, match="seed"):
        train(SMALL.with_values(seed=1), photographs, tmp_path / "net.safetensors")
    (photographs / "3.png").write_bytes((photographs / "2.png").read_bytes())
    with pytest.raises(RunMismatch, match=r"photographs\.json"):
        train(SMALL, photographs, tmp_path / "net.safetensors")


def test_minutes_become_steps_once_and_stay(photographs, tmp_path, monkeypatch, plain_kernels):
    monkeypatch.setattr(training.fit, "measure_step_seconds", lambda *a: 15.0)
    by_clock = SMALL.model_copy(update={"steps": None, "minutes": 1.0})
    train(by_clock, photographs, tmp_path / "net.safetensors")
    assert TrainSettings.from_toml(tmp_path / "net.run" / "settings.toml").steps == 4
    monkeypatch.setattr(training.fit, "measure_step_seconds", lambda *a: pytest.fail("timed again"))
    train(by_clock, photographs, tmp_path / "net.safetensors")


def test_threads_are_given_back(photographs, tmp_path, plain_kernels):
    before = torch.get_num_threads()
    train(SMALL.with_values(steps=1), photographs, tmp_path / "net.safetensors", threads=before + 1)
    assert torch.get_num_threads() == before


def test_settings_that_cannot_be_are_one_line(tmp_path):
    for values in ({"preset": "swft"}, {"colour": "color"}, {"noise": "loud"}, {"motion": ["fast"]}, {"steps": 0},
                   {"steps": 3, "minutes": 1.0}, {"width": -1.0}):  # fmt: skip
        with pytest.raises(UsageError):
            TrainSettings.from_mapping(values)
    with pytest.raises(UsageError, match=r"\.safetensors"):
        train(SMALL, tmp_path, tmp_path / "net.pt")
    with pytest.raises(CorpusError):
        train(SMALL, tmp_path / "absent", tmp_path / "net.safetensors")
    with pytest.raises((UsageError, ValidationError)):
        TrainSettings(preset="swft")
    assert json.loads(TrainSettings().model_dump_json())["preset"] == "swift"


@pytest.mark.slow
def test_small_photographs_tripods_and_texture_are_taught_when_asked_for(photographs, tmp_path):
    """Photographs of 96 x 112 pixels: too small at scale 2 (128), used at scale 1 (64)."""
    taught = {"motion": ("tripod", "whole"), "textured": 0.5, "loss": "detail", "steps": 1, "scale": 2}
    with pytest.raises(ImageError, match=r"photographs are too small; got .* below 2: smallest_scale"):
        train(SMALL.model_copy(update=taught), photographs, tmp_path / "large.safetensors")
    settings = SMALL.model_copy(update={**taught, "smallest_scale": 1})
    assert [r.motion for r in settings.recipes[::2]] == [TRAINING_MOTIONS[name] for name in ("tripod", "whole")]
    out = train(settings, photographs, tmp_path / "net.safetensors")
    assert read_card(out).training["settings"]["textured"] == 0.5


@pytest.mark.slow
def test_frames_behind_a_mosaic_teach_a_network_for_rgb_alone(photographs, tmp_path):
    settings = SMALL.with_values(colour="rgb", mosaics=("bayer", "x-trans"), size=48, steps=2, every=2)
    assert {recipe.mosaic for recipe in settings.recipes} == set(MOSAICS.values())
    out = train(settings, photographs, tmp_path / "net.safetensors")
    assert read_card(out).training["settings"]["mosaics"] == ["bayer", "x-trans"]
    for other in ({"colour": "grey"}, {"colour": "mosaic"}, {"grey_too": True}):
        with pytest.raises(UsageError, match="mosaics"):
            settings.with_values(**other)
    with pytest.raises(UsageError, match="bayer, x-trans"):
        settings.with_values(mosaics=("foveon",))
