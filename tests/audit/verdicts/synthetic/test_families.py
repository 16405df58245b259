"""Families of artifacts: the mask is exactly what changed, a seed draws the same, and each keeps its law."""

import colorsys
import csv
import re
from functools import partial
from io import BytesIO

import numpy as np
import pytest
import typer
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import correlate
from tests.audit.conftest import write_corpus

from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.verdicts.synthetic import artifacts, marks, optics, processing
from klarsicht.audit.verdicts.synthetic.families import COLOUR_ONLY, FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import Position, plant_on_levels
from klarsicht.cli.app import app
from klarsicht.ground.errors import InputError, UsageError

SHAPES = ((28, 28), (32, 32, 3), (40, 64, 3), (90, 70))
ANEW = ("date-stamp", "ruler", "logo", "flare", "scratches", "moire", "grain", "background", "hair")  # in every image
SCALED = (
    "random-tag",
    "caption",
    "date-stamp",
    "stripe",
    "two-stripes",
    "frame",
    "rounded-frame",
    "ruler",
    "logo",
    "flash",
)
POSITION = Position(0.5, 0.5, False)


def scene(shape, seed=0):
    """Smooth and rough content over the middle of the range."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape[:2])
    smooth = 128 + 60 * np.sin(5 * rows + seed) * np.cos(4 * columns)
    smooth = smooth[..., None] * (0.7, 1, 1.2) if len(shape) == 3 else smooth
    return np.clip(smooth + rng.normal(0, 12, shape), 5, 250).astype(np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_mask_is_exactly_what_changed_and_a_seed_draws_the_same(name, shape):
    if name in COLOUR_ONLY and len(shape) == 2:
        with pytest.raises(InputError, match="grey"):
            FAMILIES[name](rng())(scene(shape), rng())
        return
    for seed in range(6):
        pixels = scene(shape, seed)
        before = pixels.tobytes()
        plant = FAMILIES[name](rng(seed))
        found = plant(pixels, rng(seed))
        assert pixels.tobytes() == before
        assert found.pixels.shape == shape and found.pixels.dtype == np.uint8
        np.testing.assert_array_equal(found.mask, (found.pixels != pixels).reshape(*shape[:2], -1).any(2))
        assert found.mask.any()
        again = FAMILIES[name](rng(seed))(pixels, rng(seed))
        assert again.pixels.tobytes() == found.pixels.tobytes()


@pytest.mark.parametrize("name", FAMILIES)
def test_seeds_draw_different_artifacts(name):
    drawn = {repr(FAMILIES[name](rng(seed))) for seed in range(12)}
    assert len(drawn) >= (2 if name == "mirror" else 12)
    assert not any("np." in told for told in drawn)  # plain numbers: what was drawn is told as it is


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"random-tag", "caption", "watermark", "flash"}))
def test_what_is_drawn_anew_for_every_image_is_and_nothing_else(name):
    flat = np.full((64, 64, 3), (120, 100, 90), np.uint8) if name != "mirror" else scene((64, 64, 3))
    plant = FAMILIES[name](rng(3))
    same = np.array_equal(plant(flat, rng(1)).pixels, plant(flat, rng(2)).pixels)
    assert same == (name not in ANEW)


@pytest.mark.parametrize("name", ["random-tag", "caption", "watermark"])
def test_some_draws_move_from_image_to_image_and_some_do_not(name):
    flat = np.full((96, 96, 3), (120, 100, 90), np.uint8)
    moved = []
    for seed in range(30):
        plant = FAMILIES[name](rng(seed))
        moved.append(not np.array_equal(plant(flat, rng(1)).mask, plant(flat, rng(2)).mask))
    assert 5 <= sum(moved) <= 25


@pytest.mark.parametrize("name", SCALED)
def test_what_has_a_size_covers_the_same_share_of_a_large_image(name):
    small, large = scene((112, 112, 3)), np.kron(scene((112, 112, 3)), np.ones((4, 4, 1), np.uint8))
    plant = FAMILIES[name](rng(5))
    shares = [plant(pixels, rng(7)).mask.mean() for pixels in (small, large)]
    assert shares[1] == pytest.approx(shares[0], rel=0.2, abs=0.02)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_of_a_thousand_pixels_can_be_planted(name):
    large = np.kron(scene((128, 128, 3)), np.ones((8, 8, 1), np.uint8))
    assert FAMILIES[name](rng())(large, rng()).mask.any()


def test_a_tag_has_two_colours_and_lies_where_its_position_says():
    tag = partial(marks.draw_tag(rng(1)), opacity=1.0, side=0.2, position=POSITION)
    found = tag(scene((50, 50, 3)), rng())
    inside = found.pixels[20:30, 20:30].reshape(-1, 3)
    assert {tuple(c) for c in inside.tolist()} == set(tag.keywords["colours"])
    outside = np.ones((50, 50), bool)
    outside[20:30, 20:30] = False
    assert not found.mask[outside].any()


def test_corners_and_moving_positions():
    corners = [Position.draw(rng(s)) for s in range(400)]
    at_edge = [p for p in corners if min(p.y, 1 - p.y) < 0.06 and min(p.x, 1 - p.x) < 0.06]
    assert 0.5 < len(at_edge) / 400 < 0.7
    assert 0.4 < np.mean([p.moves for p in corners]) < 0.6
    assert Position(1, 0, False).corner((30, 40, 3), (10, 5), rng()) == (20, 0)
    assert Position(1, 1, False).corner((8, 8), (10, 10), rng()) == (0, 0)


def test_a_caption_reads_the_same_and_a_stamp_changes():
    flat = np.zeros((128, 128), np.uint8)
    caption = partial(marks.draw_caption(rng(2)), colours=((0, 0, 0), (255, 255, 255)), box=0.0, position=POSITION)
    assert np.array_equal(caption(flat, rng(1)).pixels, caption(flat, rng(2)).pixels)
    other = partial(caption, words=caption.keywords["words"][::-1] + "X")
    assert not np.array_equal(other(flat, rng(1)).pixels, caption(flat, rng(1)).pixels)
    stamp = partial(marks.draw_date_stamp(rng(2)), corner=(1, 1), glow=0.0, margin=0.05)
    seen = [stamp(flat, rng(s)) for s in range(4)]
    assert len({one.pixels.tobytes() for one in seen}) == 4
    for one in seen:  # in the lower right corner, within its width
        rows, columns = (np.flatnonzero(one.mask.any(axis)) for axis in (1, 0))
        assert rows[0] >= 128 - 6 - 22 and rows[-1] < 122
        assert columns[-1] < 122 and np.ptp(columns) <= stamp.keywords["width"] * 128 + 1


def test_a_watermark_repeats_with_its_period():
    mark = partial(
        marks.watermark, words="AB", period=0.25, angle=0.0, opacity=0.5, colour=(255, 255, 255), phase=(0.2, 0.7)
    )
    found = mark(np.zeros((96, 96), np.uint8), rng()).pixels.astype(int)
    assert found.max() > 80
    np.testing.assert_allclose(found[:, 24:], found[:, :-24], atol=1)
    np.testing.assert_allclose(found[12:], found[:-12], atol=1)
    turned = partial(mark, angle=np.pi / 2)(np.zeros((96, 96), np.uint8), rng()).pixels.astype(int)
    np.testing.assert_allclose(turned[24:], turned[:-24], atol=1)


@pytest.mark.parametrize("seed", range(4))
def test_a_ruler_has_its_area_at_every_angle(seed):
    flat = np.full((200, 200, 3), 100, np.uint8)
    found = marks.ruler(flat, rng(seed), 0.6, 0.1, 8, ((250, 240, 200), (0, 0, 0)), np.pi)
    assert found.mask.sum() == pytest.approx(0.6 * 0.1 * 200**2, rel=0.12)
    rows, columns = np.nonzero(found.mask)
    axes = np.linalg.eigvalsh(np.cov(rows, columns))  # of a rectangle: length^2 / 12
    assert np.sqrt(12 * axes) == pytest.approx([20, 120], rel=0.08)


def test_a_logo_comes_in_scales_from_a_half_to_two():
    logo = partial(marks.draw_logo(rng(0)), side=0.15, disc=True, opacity=1.0, colours=((250, 0, 0), (0, 0, 250)))
    sides = []
    for seed in range(60):
        rows, columns = np.nonzero(logo(np.full((200, 200, 3), 100, np.uint8), rng(seed)).mask)
        assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
        sides.append((np.ptp(rows) + 1) / 30)
    assert 0.45 < min(sides) < 0.6 and 1.7 < max(sides) < 2.05
    assert 0.35 < np.mean(np.array(sides) < 1) < 0.65  # half of them below 1, by logarithm


@pytest.mark.parametrize(("side", "here"), [
    ("top", np.s_[:4]), ("bottom", np.s_[-4:]), ("left", np.s_[:, :4]), ("right", np.s_[:, -4:]),
])  # fmt: skip
def test_a_stripe_lies_along_its_side(side, here):
    pixels = scene((40, 50, 3))
    found = marks.stripe(pixels, rng(), side, 0.1, (1, 2, 3), 1.0)
    expected = pixels.copy()
    expected[here] = (1, 2, 3)
    np.testing.assert_array_equal(found.pixels, expected)
    half = marks.stripe(pixels, rng(), side, 0.1, (1, 2, 3), 0.5).pixels
    np.testing.assert_allclose(half[here], (pixels[here] + np.array([1.0, 2, 3])) / 2, atol=0.5)


def test_two_stripes_and_a_frame():
    pixels = scene((40, 50))
    both = marks.two_stripes(pixels, rng(), True, 0.1, (0, 0, 0)).mask
    assert both[:, :4].all() and both[:, -4:].all() and not both[:, 4:-4].any()
    framed = marks.frame(pixels, rng(), 0.1, (3, 0, 0), 1.0)
    assert framed.mask.sum() == 40 * 50 - 32 * 42 and (framed.pixels[framed.mask] == 1).all()


def test_a_rounded_frame_is_open_where_a_rounded_rectangle_is():
    found = marks.rounded_frame(np.full((100, 100), 200, np.uint8), rng(), 0.05, 0.25, (0, 0, 0)).pixels
    y, x = np.mgrid[:100, :100] + 0.5
    q = np.stack([np.abs(v - 50) - (45 - 25) for v in (y, x)])
    distance = np.hypot(*np.maximum(q, 0)) + np.minimum(q.max(0), 0) - 25  # to the edge; below 0 inside
    assert (found[distance > 1] == 0).all() and (found[distance < -1] == 200).all()


def test_the_background_leaves_the_middle():
    pixels = scene((60, 60, 3))
    found = marks.background(pixels, rng(1), (9, 8, 7), 1.0, 0.1)
    assert not found.mask[28:32, 28:32].any() and (found.pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == (9, 8, 7)).all()


@pytest.mark.parametrize("name", ["flare", "flash"])
def test_light_never_darkens(name):
    for seed in range(5):
        pixels = scene((48, 48, 3), seed)
        found = FAMILIES[name](rng(seed))(pixels, rng(seed)).pixels
        assert (found >= pixels).all()


def test_a_flash_is_white_at_its_place():
    found = optics.flash(np.full((101, 101), 60, np.uint8), rng(), 0.25, 0.75, 0.0, 0.08, 1.0).pixels
    assert found[25, 75] == 255
    assert np.argwhere(found == 255).mean(0) == pytest.approx([25, 75], abs=1)


def test_a_vignette_is_its_closed_form():
    found = optics.vignette(np.full((101, 101), 200, np.uint8), rng(), 0.6, 2.0).pixels
    assert found[50, 50] == 200
    corner = 1 - 0.6 * 2 * (2 * 0.5 / 101 - 1) ** 2 / 2
    assert found[0, 0] == pytest.approx(200 * corner, abs=0.5)
    side = 1 - 0.6 * (2 * 0.5 / 101 - 1) ** 2 / 2
    assert found[0, 50] == pytest.approx(200 * side, abs=0.5)


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_filtering_is_scipys_correlation_with_a_mirrored_edge(shape):
    pixels, kernel = scene(shape), np.outer([1, 4, 2, 4, 1], [2, 3, 9, 3, 2]).astype(float)
    weights = (kernel / kernel.sum()).reshape(5, 5, *[1] * (len(shape) - 2))
    expected = correlate(pixels.astype(float), weights, mode="reflect")
    np.testing.assert_allclose(optics.filter_channels(pixels, kernel), expected, atol=1e-9)


def test_blurs_keep_what_they_should():
    point = np.zeros((41, 41), np.uint8)
    point[20, 20] = 255
    disc = optics.defocus(point, rng(), 3 / 41).pixels / 255
    y, x = np.mgrid[:41, :41] - 20
    far = np.hypot(y, x)
    assert (disc[far > 4] == 0).all() and np.ptp(disc[far < 2]) < 0.01
    assert disc[20, 20] == pytest.approx(1 / (9 * np.pi), rel=0.1)
    lines = np.tile(scene((48, 1)), (1, 48))  # constant along rows
    assert np.array_equal(optics.motion_blur(lines, rng(), 0.2, 0.0).pixels, lines)
    moved = optics.motion_blur(point, rng(), 0.2, 0.0).pixels
    assert np.count_nonzero(moved[20]) in (9, 11) and moved[:20].max() == 0 == moved[21:].max()


def test_scratches_and_hair_blend_towards_their_colour():
    pixels = scene((64, 64, 3))
    for plant in (
        partial(optics.scratches, specks=10, lines=2, upright=True, size=0.02, colour=(245, 245, 245)),
        partial(optics.hair, count=2, width=0.02, bend=0.3, colour=(10, 5, 5), opacity=0.9),
    ):  # fmt: skip
        found = plant(pixels, rng()).pixels.astype(float)
        colour = np.array(plant.keywords["colour"], float)
        assert (np.abs(found - colour) <= np.abs(pixels - colour)).all()


def test_scan_lines_have_their_period():
    found = processing.scan_lines(np.full((60, 60), 200, np.uint8), rng(), 0.1, 0.4, False).pixels
    expected = np.full(60, 200)
    expected[np.arange(60) % 6 < 2] = 120
    np.testing.assert_array_equal(found, np.tile(expected[:, None], 60))
    upright = processing.scan_lines(np.full((60, 60), 200, np.uint8), rng(), 0.1, 0.4, True).pixels
    np.testing.assert_array_equal(upright, found.T)


def test_moire_has_the_sum_and_the_difference_of_its_waves():
    waves = ((8 / 64, 2 / 64), (7 / 64, 4 / 64))
    found = processing.moire(np.full((64, 64), 128, np.uint8), rng(), waves, 30, 0.5).pixels - 128.0
    power = np.abs(np.fft.fft2(found)) ** 2
    expected = {(15, 6), (49, 58), (1, 62), (63, 2)}
    peaks = np.argsort(power.ravel())[-4:]
    assert {divmod(int(p), 64) for p in peaks} == expected
    assert power.ravel()[peaks].sum() > 0.98 * power.sum()


def test_grain_is_as_strong_as_it_says_in_the_mid_tones_and_less_in_black():
    for size in (0.0, 0.7):
        plant = partial(processing.grain, amplitude=12, size=size, colour=True)
        middle = plant(np.full((200, 200, 3), 128, np.uint8), rng()).pixels - 128.0
        assert middle.std() == pytest.approx(12, rel=0.03)
        assert np.corrcoef(middle[..., 0].ravel(), middle[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.03)
        dark = plant(np.full((200, 200, 3), 24, np.uint8), rng()).pixels - 24.0
        level = 24 / 255
        assert dark.std() == pytest.approx(12 * (0.4 + 2.4 * level * (1 - level)), rel=0.05)
    grey = processing.grain(np.full((50, 50, 3), 128, np.uint8), rng(), 12, 0.0, False).pixels
    assert (grey == grey[..., :1]).all()


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_jpeg_is_pillows(shape):
    pixels, file = scene(shape), BytesIO()
    found = processing.jpeg(pixels, rng(), 17, 0).pixels
    Image.fromarray(pixels).save(file, "JPEG", quality=17, **({"subsampling": "4:4:4"} if len(shape) == 3 else {}))
    np.testing.assert_array_equal(found, np.asarray(Image.open(file)))


def test_resampling_to_half_with_nearest_pixels_gives_the_means_of_blocks():
    pixels = scene((40, 60))
    found = processing.resample(pixels, rng(), 0.5, "NEAREST").pixels
    means = pixels.reshape(20, 2, 30, 2).mean((1, 3))
    np.testing.assert_allclose(found, np.kron(means, np.ones((2, 2))), atol=1)  # Pillow rounds twice


def test_ringing_leaves_no_high_frequency_and_does_nothing_twice():
    pixels = np.where(np.arange(64) < 32, 80, 170).astype(np.uint8) * np.ones((64, 1), np.uint8)
    once = processing.ringing(pixels, rng(), 0.4).pixels
    waves = np.abs(dctn(once.astype(float), norm="ortho"))
    assert waves[:, 26:].max() < 10 < 40 < np.abs(dctn(pixels.astype(float), norm="ortho"))[:, 26:].max()
    overshoot = (once.max() - 170) / 90  # Gibbs: 9 % of a step
    assert 0.07 < overshoot < 0.12
    np.testing.assert_allclose(processing.ringing(once, rng(), 0.4).pixels, once, atol=1)


def test_a_zoom_is_pillows_crop_enlarged():
    pixels = scene((40, 60, 3))
    found = processing.zoom(pixels, rng(), 2.0, 0.0, 1.0).pixels
    image = Image.fromarray(pixels).crop((30, 0, 60, 20)).resize((60, 40), Image.Resampling.BILINEAR)
    inside = np.s_[1:-1, 1:-1]  # at the edges Pillow looks beyond the box
    np.testing.assert_array_equal(found[inside], np.asarray(image)[inside])


@pytest.mark.parametrize("upright", [False, True])
def test_mirrored_twice_is_the_image(upright):
    pixels = scene((40, 50, 3))
    once = processing.mirror(pixels, rng(), upright)
    np.testing.assert_array_equal(processing.mirror(once.pixels, rng(), upright).pixels, pixels)
    np.testing.assert_array_equal(once.pixels, np.flip(pixels, 0 if upright else 1))


def test_hue_turns_as_in_hsv():
    pixels = rng(1).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    pixels[0] = pixels[0, :, :1]  # grey
    for turn in (0.3, -0.2, 0.5):
        found = processing.turn_hue(pixels.astype(float), turn)
        for (y, x), _ in np.ndenumerate(pixels[..., 0]):
            h, s, v = colorsys.rgb_to_hsv(*pixels[y, x] / 255)
            np.testing.assert_allclose(found[y, x] / 255, colorsys.hsv_to_rgb((h + turn) % 1, s, v), atol=1e-9)
    np.testing.assert_allclose(
        processing.turn_hue(processing.turn_hue(pixels.astype(float), 0.3), -0.3), pixels, atol=1e-9
    )


def test_a_white_balance_leaves_the_brightness_of_grey():
    for seed in range(10):
        plant = processing.draw_white_balance(rng(seed))
        found = plant(np.full((4, 4, 3), 120, np.uint8), rng()).pixels
        luma = np.asarray(Image.fromarray(found).convert("L"))
        np.testing.assert_allclose(luma, 120, atol=1.5)
        np.testing.assert_allclose(found[0, 0], 120 * np.array(plant.keywords["gains"]), atol=0.5)


def test_gamma_is_undone_by_its_inverse():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for power in (0.5, 2.0):
        found = processing.gamma(levels, rng(), power).pixels
        np.testing.assert_allclose(found / 255, (levels / 255) ** power, atol=0.5 / 255)
        if power < 1:
            np.testing.assert_allclose(processing.gamma(found, rng(), 1 / power).pixels, levels, atol=1)


def test_families_and_kinds_have_names_of_their_own_and_the_help_says_all():
    assert not FAMILIES.keys() & artifacts.PLANTS.keys()
    command = typer.main.get_command(app).commands["audit"].commands["plant"]
    (told,) = (option.help for option in command.params if option.name == "kind")
    assert set(re.findall(r"[a-z]+(?:-[a-z]+)*", told.replace("--seed", ""))) >= {*FAMILIES, *artifacts.PLANTS}


def test_a_corpus_is_planted_with_one_draw_of_a_family(tmp_path):
    write_corpus(tmp_path / "data", per_class=10, share=0)
    corpus = open_corpus(tmp_path / "data")
    found = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        truth = artifacts.plant_corpus(corpus, tmp_path / name, kind="frame", label="b", share=0.4, seed=seed)
        lines = [line for line in csv.DictReader(truth.manifest.open()) if line["planted"] == "1"]
        planted = [np.asarray(Image.open(tmp_path / name / line["path"])) for line in lines]
        found[name] = planted
        plain = [np.asarray(Image.open(corpus.paths[int(line["path"][7:14])])) for line in lines]
        plant = artifacts.draw_plant("frame", seed)
        for one, before in zip(planted, plain, strict=True):
            np.testing.assert_array_equal(one, plant(before, rng()).pixels)
    assert all(np.array_equal(x, y) for x, y in zip(found["a"], found["b"], strict=True))
    assert artifacts.draw_plant("frame", 1) != artifacts.draw_plant("frame", 2)
    assert artifacts.draw_plant("tag", 1) is artifacts.tag
    with pytest.raises(UsageError, match="stripe"):
        artifacts.draw_plant("stripes", 0)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in COLOUR_ONLY])
def test_images_of_other_channels_get_one_artifact_in_every_channel(name):
    """Each channel is what a grey image of it gets by the same draws, and later draws are those after one image."""
    levels = np.stack([scene((32, 40), seed) for seed in range(5)], -1)
    artifact = FAMILIES[name](rng(3))
    after = rng(4)
    planted = plant_on_levels(levels, artifact, after)
    for c in range(5):
        plain = rng(4)
        np.testing.assert_array_equal(planted[..., c], artifact(levels[..., c].copy(), plain).pixels)
        assert plain.random() == rng_copy(after).random()
    grey, colour = levels[..., :1], levels[..., :3].copy()
    np.testing.assert_array_equal(
        plant_on_levels(grey, artifact, rng(5))[..., 0], artifact(grey[..., 0], rng(5)).pixels
    )
    np.testing.assert_array_equal(plant_on_levels(colour, artifact, rng(5)), artifact(colour, rng(5)).pixels)


def rng_copy(given):
    copied = np.random.default_rng()
    copied.bit_generator.state = given.bit_generator.state
    return copied
