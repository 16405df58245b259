"""Alignment against shifts that are known because they were made, and against another library's estimate."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.registration import phase_cross_correlation

from klarsicht.burst.align import alignment as tiles_and_frames
from klarsicht.burst.align import matched_filter
from klarsicht.burst.align.alignment import align, align_whole_frames, stabilised_grey
from klarsicht.burst.align.correlation import best_shift, confidence, shift_prior
from klarsicht.burst.align.tile_grid import Mesh, fetch_shifted
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.synthesis.motion import MOTIONS, CameraPath, render_frame
from klarsicht.burst.synthesis.scenes import Geometry, grey_light, scenes
from klarsicht.burst.synthesis.synthesis import KINDS, Recipe, draw_burst
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

QUIET = NoiseLevel(1e-3, 1e-4)
SHIFTS = np.array([[0, 0], [3, -2], [-7, 5], [11, 8], [0, -1]])


def window(picture, dy, dx, size=160, corner=40):
    return picture[corner - dy : corner - dy + size, corner - dx : corner - dx + size]


@pytest.fixture(scope="module")
def picture():
    return scenes([data.astronaut()], grey_light)[0][0, ::2, ::2]


@pytest.fixture(scope="module")
def clean(picture):
    """Five frames moved by whole pixels: what the reference shows at p, frame i shows at p + SHIFTS[i]."""
    return np.stack([window(picture, dy, dx) for dy, dx in SHIFTS])[:, None]


def noisy(clean, level, seed=0):
    return Burst(level.sample(clean.astype(np.float32), np.random.default_rng(seed)), level)


def batch(*bursts):
    frames = torch.stack([torch.from_numpy(b.frames) for b in bursts])
    read, shot = (torch.tensor([getattr(b.noise, name) for b in bursts]) for name in ("read", "shot"))
    return frames, read, shot, torch.stack([torch.from_numpy(b.valid) for b in bursts])


def align_burst(burst, tile=64):
    """The frames of a burst, aligned to the reference, (N, C, H, W), and their alignment."""
    alignment = align(*batch(burst), tile)
    return burst.with_frames(alignment.apply(torch.from_numpy(burst.frames)[None])[0].numpy()), alignment


@pytest.mark.parametrize("level", [QUIET, GAINS[1], GAINS[4]])
def test_whole_shifts_are_found(clean, level):
    frames, read, shot, valid = batch(noisy(clean, level))
    whole = align_whole_frames(stabilised_grey(frames, read, shot), valid)
    np.testing.assert_allclose(whole.shifts[0], SHIFTS, atol=0.15)
    assert whole.confidence[0, 1:].min() > 0.99


def test_aligned_frames_show_the_reference(clean):
    aligned, alignment = align_burst(noisy(clean, QUIET))
    inner = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    np.testing.assert_allclose(aligned.frames[inner], np.broadcast_to(clean[0], clean.shape)[inner], atol=0.06)
    np.testing.assert_array_equal(alignment.shifts[0, :, 2, 2], SHIFTS)
    assert alignment.agreement()[0, :, 56:-56, 56:-56].min() > 0.999
    np.testing.assert_allclose(aligned.frames[0], noisy(clean, QUIET).frames[0], atol=1e-6)


def test_far_shifts_are_found_on_a_large_frame():
    """1411 pixels, 60 away: compared at a third of the size."""
    wide = data.retina()[:1200, :1200].mean(-1).astype(np.float32) / 255
    frames = np.stack([wide[60:1140, 60:1140], wide[1:1081, 112:1192]])[:, None]
    level = NoiseLevel(0.005, 1e-4)
    light, valid = stabilised_grey(*batch(noisy(frames, level))[:3]), torch.ones(1, 2, dtype=torch.bool)
    np.testing.assert_allclose(align_whole_frames(light, valid).shifts[0, 1], [59, -52], atol=0.6)


def test_aliased_detail_misleads_less(monkeypatch):
    """A scene of power 1 / f^2, of which frames show every fourth pixel, is aligned better where what was aliased
    counts as noise: by a tenth at least."""
    step, rng = 4, np.random.default_rng(0)
    side = 160 * step
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    f[0, 0] = np.inf
    fine = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / f, s=(side, side))
    moved = rng.integers(0, 4 * step, (8, 2))
    moved[0] = 0
    frames = np.stack([np.roll(0.5 + 0.1 * fine / fine.std(), shift, (0, 1))[::step, ::step] for shift in moved])
    burst = noisy(frames[:, None], QUIET)

    def error():
        found = align_burst(burst)[1].fine[0, 1:, 1:-1, 1:-1].numpy()
        return np.abs(found - (moved / step)[1:, None, None]).max(-1).mean()

    now = error()
    monkeypatch.setattr(matched_filter, "aliased_share", lambda device: torch.zeros(matched_filter.RINGS))
    assert now < 0.9 * error()


def test_planes_of_a_mosaic_move_together(picture):
    """Even shifts of the mosaic are whole shifts of the planes; the colours are not mixed."""
    full = np.stack([window(picture, 2 * dy, 2 * dx, size=128, corner=60) for dy, dx in SHIFTS])
    full[:, ::2, ::2] *= 0.5
    level = GAINS[1]
    sampled = level.sample(full, np.random.default_rng(0))
    aligned, alignment = align_burst(Burst.from_mosaic(sampled, level), tile=32)
    np.testing.assert_allclose(alignment.whole.shifts[0], SHIFTS, atol=0.2)
    truth = Burst.from_mosaic(full, level).frames[0]
    middle = (slice(None), slice(12, -12), slice(12, -12))
    assert np.abs(aligned.frames.mean(0) - truth)[middle].mean() < 0.02


def test_dim_frames_at_the_highest_gain():
    """A fifth of the light at gain 8. More than .6 pixels off on an axis is wrong; scikit-image's phase correlation,
    of frame by frame, is wrong several times as often."""
    recipe = Recipe(geometry=Geometry(scale=2, height=160, width=160, reach=16), noise=gain_8, exposures=(-0.7, -0.7))
    library = scenes([data.astronaut(), data.coffee()], grey_light)
    ours, theirs = [], []
    for seed in range(6):
        made = draw_burst(library, recipe, np.random.default_rng(seed))
        frames, read, shot, valid = batch(made.burst)
        shifts = align_whole_frames(stabilised_grey(frames, read, shot), valid).shifts[0].numpy()
        ours += [*np.abs(shifts - made.clean.displacements)[1:].max(1)]
        x = made.burst.frames[:, 0]
        found = np.array([-phase_cross_correlation(x[0], frame, upsample_factor=10)[0] for frame in x[1:]])
        theirs += [*np.abs(found - made.clean.displacements[1:]).max(1)]
    wrong, wrong_there = np.mean(np.array(ours) > 0.6), np.mean(np.array(theirs) > 0.6)
    assert wrong <= 0.04 and wrong_there > 4 * wrong and wrong_there > 0.1


def gain_8(rng):
    return GAINS[8]


def gain_1(rng):
    return GAINS[1]


def test_a_blank_scene_stays_and_is_not_sure():
    """Nothing to see: the prior keeps frames about where they are, and sureness says that this is a guess."""
    blank = np.full((8, 1, 96, 96), 0.2, np.float32)
    alignment = align(*batch(noisy(blank, GAINS[8])))
    assert alignment.whole.confidence[0, 1:].max() < 0.9
    assert alignment.agrees.float().mean() > 0.95


def test_rotation_is_followed_by_tiles():
    """By .02 radians: what the reference shows at q from the centre lies .02 (x, -y) from there in the frame."""
    photograph = scenes([data.astronaut()], grey_light)[0]
    turned = CameraPath(np.zeros((2, 2)), np.array([0.0, 0.02]))
    geometry = Geometry(scale=1, height=400, width=400, reach=40)
    frames = np.stack([render_frame(photograph[:, :480, :480], turned, i, geometry) for i in range(2)])
    alignment = align(*batch(noisy(frames, QUIET)))
    both, middle = torch.from_numpy(frames[None, :, 0]), (..., slice(20, -20), slice(20, -20))
    tiles = alignment.apply(both[:, :, None])[0, 1, 0][middle]
    whole = fetch_shifted(both, alignment.whole.shifts.round().long())[0, 1][middle]
    truth = both[0, 0][middle]
    assert (tiles - truth).square().mean() < 0.1 * (whole - truth).square().mean()
    centres = np.array(alignment.mesh.corners(0)) + 32 - 199.5
    expected = 0.02 * np.stack(np.broadcast_arrays(centres, -centres[:, None]), -1)
    error = np.abs(alignment.shifts[0, 1].numpy() - expected)[1:-1, 1:-1]
    assert np.median(error) < 0.5 and np.mean(error.max(-1) < 1.5) > 0.9


def test_what_moved_is_said_to_disagree():
    geometry = Geometry(scale=2, height=160, width=160, reach=4)
    library = scenes([data.astronaut(), data.coffee()], grey_light)
    still = [draw(library, geometry, "still", seed) for seed in range(3)]
    moving = [draw(library, geometry, "occluded", seed) for seed in range(3)]
    quiet = align(*batch(*(made.burst for made in still))).agreement()
    assert quiet[..., 8:-8, 8:-8].mean() > 0.97  # nearer the border, frames may show nothing
    alignment = align(*batch(*(made.burst for made in moving)))
    clean = torch.stack([torch.from_numpy(m.clean.frames * np.float32(m.exposure)) for m in moving])
    ghosts = (alignment.apply(clean) - clean[:, :1]).abs()[:, :, 0] > 0.2 * clean.amax()
    paths = torch.stack([torch.from_numpy(m.clean.path) for m in moving])
    assert ghosts[:, 1:].any() and alignment.agreement()[ghosts & paths[:, None]].mean() < 0.65


def draw(library, geometry, motion, seed):
    recipe = Recipe(motion=MOTIONS[motion], geometry=geometry, noise=gain_1)
    return draw_burst(library, recipe, np.random.default_rng(seed))


def test_missing_frames_stay_and_do_not_disturb(clean):
    burst = noisy(clean, GAINS[4])
    zeros = np.zeros_like(burst.frames[:3])
    alone = align(*batch(burst))
    filled = align(*batch(Burst(np.concatenate([burst.frames, zeros]), burst.noise, np.arange(8) < 5)))
    np.testing.assert_allclose(filled.whole.shifts[0, :5], alone.whole.shifts[0], atol=0.02)
    assert not filled.whole.shifts[0, 5:].any() and not filled.shifts[0, 5:].any()
    assert not filled.agrees[0, 5:].any() and not filled.whole.confidence[0, 5:].any()


def test_a_single_frame_is_its_own_reference(clean):
    aligned, alignment = align_burst(noisy(clean[:1], GAINS[1]))
    assert not alignment.shifts.any()
    np.testing.assert_allclose(aligned.frames, noisy(clean[:1], GAINS[1]).frames, atol=1e-6)


@pytest.mark.parametrize("kind", ["grey", "mosaic"])
def test_a_batch_is_its_bursts_one_by_one(kind):
    library = scenes([data.astronaut()], KINDS[kind].light)
    recipe = Recipe(kind=KINDS[kind], geometry=Geometry(scale=2, height=128, width=128, reach=16))
    made = [draw_burst(library, recipe, np.random.default_rng(seed)).burst for seed in range(2)]
    together = align(*batch(*made))
    for b, burst in enumerate(made):
        alone = align(*batch(burst))
        np.testing.assert_allclose(together.whole.shifts[b], alone.whole.shifts[0], atol=1e-3)
        assert torch.equal(together.shifts[b], alone.shifts[0])


def test_a_tile_scores_what_its_pixels_do(monkeypatch):
    """The four cells that tiles are made of: correlations of whole tiles, pixel by pixel, the border padded by 0."""
    rng, mesh, r = np.random.default_rng(4), Mesh(40, 70, 32), 3
    monkeypatch.setattr(tiles_and_frames, "TILE_REACH", r)
    template, frames = rng.standard_normal((2, 1, 1, 40, 70)).astype(np.float32)
    (Y, X), rho, scene = mesh.shape, 0.4, 0.7
    shares, nowhere = torch.full((1, 1, Y, X), scene), torch.zeros(1, 1, 2)
    given = (torch.from_numpy(template), torch.from_numpy(frames))
    shifts, sure = tiles_and_frames._tile_shifts(*given, shares, torch.tensor([rho]), nowhere, mesh)
    t, f = (np.pad(one[0, 0], 32 + r) for one in (template, frames))
    scores = np.empty((Y, X, 2 * r + 1, 2 * r + 1), np.float32)
    for y, x, dy, dx in np.ndindex(scores.shape):
        top, left = 16 + r + 16 * y, 16 + r + 16 * x
        one = t[top : top + 32, left : left + 32]
        other = f[top + dy - r : top + dy - r + 32, left + dx - r : left + dx - r + 32]
        scores[y, x, dy, dx] = scene * ((one * other).sum() - rho / 2 * np.square(other).sum())
    prior = shift_prior(r, *tiles_and_frames.TILE_PRIOR, torch.zeros(2))
    np.testing.assert_allclose(shifts[0, 0], best_shift(torch.from_numpy(scores) + prior), atol=1e-3)
    np.testing.assert_allclose(sure[0, 0], confidence(torch.from_numpy(scores) + prior), atol=1e-3)
