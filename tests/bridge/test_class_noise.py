"""Noise of classes, estimated from pictures whose noise was drawn here."""

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.bridge import class_noise
from klarsicht.bridge.class_noise import ClassNoise, estimate_class_noise, estimate_noise, find_noisiest
from klarsicht.bridge.single_images import encode_light
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

PHONE = NoiseLevel(0.011, 0.0053)


def draw_light(count, seed, side=48):
    """Pictures (n, side, side, 3) of panes with slopes and a textured one, in linear light."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, side)
    slopes = rng.normal(0, 0.1, (count, 2, 1, 1, 3))
    light = (
        rng.uniform(0.05, 0.8, (count, 1, 1, 3))
        + slopes[:, 0] * ramp[:, None, None]
        + slopes[:, 1] * ramp[None, :, None]
    )
    light[:, : side // 3] *= rng.uniform(0.7, 1.3, (count, side // 3, side, 1))
    return np.clip(light, 0, 1)


def photograph(light, noise, seed):
    noisy = noise.sample(light.astype(np.float32), np.random.default_rng(seed)) if noise else light
    return [Image.fromarray(one) for one in encode_light(noisy)]


@pytest.mark.parametrize("noise", [PHONE, NoiseLevel(0.004, 0.0008), NoiseLevel(0.03, 0.0)], ids=str)
def test_the_noise_that_was_drawn_is_found(noise):
    found = estimate_noise(photograph(draw_light(60, 0), noise, 1))
    for light in (0.02, 0.18, 0.6):
        assert np.sqrt(found.variance(light)) == pytest.approx(np.sqrt(noise.variance(light)), rel=0.12)


def test_the_noisiest_class_is_told_among_others(tmp_path):
    light = draw_light(90, 2)
    for number, (name, noise) in enumerate([("a", None), ("night", PHONE), ("z", None)]):
        (tmp_path / name).mkdir()
        for i, one in enumerate(photograph(light[number * 30 :][:30], noise, number)):
            one.save(tmp_path / name / f"{i}.png")
    classes = estimate_class_noise(Corpus.from_folder(tmp_path))
    assert classes[0].name == "night" and len(classes) == 3
    assert find_noisiest(classes).noise == classes[0].noise
    assert classes[1].deviation < class_noise.LEAST_DEVIATION < classes[0].deviation / 5


def test_no_noise_and_no_flat_block_are_one_line_each():
    with pytest.raises(UsageError, match="no class has noise"):
        find_noisiest([ClassNoise("a", NoiseLevel(0.0005, 1e-5))])
    with pytest.raises(UsageError, match="cannot be estimated"):
        find_noisiest([])
    with pytest.raises(InputError, match="no picture"):
        estimate_noise([])
