"""Copies. Oracles: copies made by Pillow of real photographs, Pillow's own crop, a plain loop over all pairs."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.stats import norm
from skimage import data

from klarsicht.numerics.imaging.copies import (
    BINS,
    COPY_CORRELATION,
    FEWEST_PAIRS,
    GRADIENT,
    HIGH,
    LIKELY,
    LOW,
    SIDE,
    SIMILAR,
    TURNED_CORRELATION,
    UPRIGHT,
    Copies,
    chance_correlation,
    correlate_coarsely,
    correlate_details,
    find_candidates,
    find_copies,
    lay,
)

TILE = 96
TURNS = (  # of Pillow, by pose
    None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE,
)  # fmt: skip
UNDONE = (0, 1, 2, 3, 4, 6, 5, 7)  # the pose that takes back each: of a quarter turn the other one


def turned(picture, pose):
    return picture if pose == UPRIGHT else picture.transpose(TURNS[pose])


def thumbnail(picture):
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def encoded(picture, quality):
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=int(quality))
    return Image.open(io.BytesIO(buffer.getvalue()))


def resized(picture, rng):
    size = [round(TILE * rng.uniform(0.6, 2)) for _ in range(2)]
    return encoded(picture.resize(size, Image.Resampling.BICUBIC), rng.integers(60, 96))


def cropped(picture, rng):
    w, h = (round(TILE * share) for share in rng.uniform(0.9, 0.98, 2))
    x, y = rng.integers(0, TILE - w + 1), rng.integers(0, TILE - h + 1)
    return encoded(picture.crop((x, y, x + w, y + h)), rng.integers(60, 96))


def reencoded(picture, rng):
    return encoded(picture, rng.integers(40, 96))


@pytest.fixture(scope="module")
def tiles():
    """Parts of photographs that do not overlap, each with something on it."""
    found = []
    for photograph in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.immunohistochemistry()):
        for y in range(0, photograph.shape[0] - TILE, TILE):
            for x in range(0, photograph.shape[1] - TILE, TILE):
                tile = photograph[y : y + TILE, x : x + TILE]
                if tile.std() > 25:
                    found.append(Image.fromarray(tile))
    return found


def test_copies_among_photographs_are_found_and_nothing_else_is(tiles):
    rng = np.random.default_rng(0)
    ways = (reencoded, resized, cropped)
    copies = [ways[i % 3](tile, rng) for i, tile in enumerate(tiles)]
    n = len(tiles)
    found = find_copies(np.stack([thumbnail(one) for one in [*tiles, *copies]]))
    pairs = set(map(tuple, found.pairs.tolist()))
    truth = {(i, n + i) for i in range(n)}
    assert n > 60
    assert len(pairs & truth) >= 0.98 * n
    assert pairs <= truth
    assert (found.correlation >= COPY_CORRELATION).all()


def test_mirrored_and_turned_copies_are_found_with_their_poses(tiles):
    rng = np.random.default_rng(6)
    ways = (reencoded, resized, cropped)
    laid = [i % len(TURNS) for i in range(len(tiles))]
    copies = [turned(ways[i % 3](tile, rng), pose) for i, (tile, pose) in enumerate(zip(tiles, laid, strict=True))]
    n = len(tiles)
    found = find_copies(np.stack([thumbnail(one) for one in [*tiles, *copies]]))
    poses = dict(zip(map(tuple, found.pairs.tolist()), found.poses.tolist(), strict=True))
    truth = {(i, n + i): UNDONE[pose] for i, pose in enumerate(laid)}
    assert len(poses.items() & truth.items()) >= 0.95 * n
    assert poses.keys() <= truth.keys()


def test_a_pose_exchanges_axes_and_then_mirrors(tiles):
    images = np.stack([thumbnail(tiles[0])] * len(TURNS))
    laid = lay(images, np.arange(len(TURNS)))
    for pose, image in enumerate(images):
        np.testing.assert_array_equal(laid[pose], np.asarray(turned(Image.fromarray(image), pose)))


def test_a_copy_that_lies_as_its_original_is_upright_though_both_are_symmetric(tiles):
    """A picture beside its mirror image: a copy of it is a mirrored one, too, by the same correlation."""
    halves = [np.asarray(tile.convert("L").resize((TILE // 2, TILE))) for tile in tiles[:4]]
    whole = [Image.fromarray(np.hstack([half, half[:, ::-1]])) for half in halves]
    rng = np.random.default_rng(7)
    found = find_copies(np.stack([thumbnail(one) for one in [*whole, *(reencoded(one, rng) for one in whole)]]))
    assert len(found.pairs) >= 8
    once = found.one_pose((COPY_CORRELATION, TURNED_CORRELATION))
    assert once.pairs.tolist() == [[i, 4 + i] for i in range(4)]
    assert (once.poses == UPRIGHT).all()


def test_a_pair_is_kept_in_the_pose_that_reaches_its_bound():
    copies = Copies.of(
        np.array([[0, 1], [0, 1], [2, 3], [2, 3]]), np.array([0.9, 0.97, 0.87, 0.88]), np.array([0, 1, 0, 3])
    )
    once = copies.one_pose((0.95, 0.96))
    assert once.pairs.tolist() == [[0, 1], [2, 3]]
    assert once.poses.tolist() == [1, 0]
    assert once.reach((0.95, 0.96)).tolist() == [True, False]


def test_rows_one_by_one_find_what_all_find_together(tiles):
    rng = np.random.default_rng(1)
    thumbnails = np.stack([thumbnail(one) for one in [*tiles[:20], *(cropped(tile, rng) for tile in tiles[:20])]])
    whole = find_copies(thumbnails)
    some = [find_copies(thumbnails, range(a, min(a + 7, 40))) for a in range(0, 40, 7)]
    parts = [(one.pairs, one.correlation, one.poses) for one in some]
    joined = Copies.of(*map(np.concatenate, zip(*parts, strict=True)))
    np.testing.assert_array_equal(joined.pairs, whole.pairs)
    np.testing.assert_allclose(joined.correlation, whole.correlation, rtol=1e-5)
    assert len(whole.pairs) >= 19


def test_candidates_are_the_pairs_of_a_plain_loop(tiles):
    """Correlation of the low frequencies, at every window, by scipy's transform of Pillow's box resampling."""
    rng = np.random.default_rng(2)
    thumbnails = np.stack(
        [
            thumbnail(one)
            for one in [*tiles[:15], *(turned(cropped(tile, rng), i % 8) for i, tile in enumerate(tiles[:10]))]
        ]
    )

    def low(picture, box):
        part = picture.resize((SIDE, SIDE), Image.Resampling.BOX, box=box)
        z = dctn(np.asarray(part), norm="ortho")[:LOW, :LOW].ravel()[1:]
        return z / np.linalg.norm(z)

    pictures = [Image.fromarray(one.astype(np.float32)) for one in thumbnails]
    starts = [(0.0, 32.0), *((32 * 0.06 * place, 32 * 0.94) for place in (0, 0.5, 1))]
    boxes = [(x, y, x + w, y + h) for x, w in starts for y, h in starts]
    wanted, near = set(), set()
    windows = [np.stack([low(one, box) for box in boxes]) for one in pictures]
    posed = [[low(turned(other, pose), None) for pose in range(len(TURNS))] for other in pictures]
    for i, j, pose in np.ndindex(25, 25, len(TURNS)):
        best = (windows[i] @ posed[j][pose]).max()
        if i != j and best > SIMILAR:
            wanted.add((i, j, pose))
        if abs(best - SIMILAR) < 0.02:  # Pillow resamples one axis after the other, in bytes between
            near.add((i, j, pose))
    found = set(map(tuple, np.stack(find_candidates(thumbnails, range(25)), 1).tolist()))
    assert found - near == wanted - near
    assert {pose for *_, pose in wanted - near} == set(range(len(TURNS)))


def test_coarse_correlations_are_those_of_a_plain_loop_over_windows(tiles):
    """Details from scipy's transform of means of areas at every coarse window, one pair after the other."""
    rng = np.random.default_rng(4)
    thumbnails = np.stack([thumbnail(one) for one in [*tiles[:3], cropped(tiles[0], rng)]])
    detail = np.add.outer(range(HIGH), range(HIGH)) >= 0
    detail[:LOW, :LOW] = detail[:GRADIENT] = detail[:, :GRADIENT] = False

    def mean_areas(lines, start, size):
        edges = start + size * np.arange(SIDE + 1) / SIDE
        integral = np.pad(lines, ((0, 0), (1, 0))).cumsum(1)
        return np.diff([np.interp(edges, range(SIDE + 1), line) for line in integral]) * SIDE / size

    def details(picture, across=(0, SIDE), down=(0, SIDE)):
        z = dctn(mean_areas(mean_areas(picture.astype(float), *across).T, *down).T, norm="ortho")
        return z[:HIGH, :HIGH][detail] / np.linalg.norm(z[:HIGH, :HIGH][detail])

    spans = [(SIDE * (1 - size) * place, SIDE * size) for size in (1, 0.97, 0.94, 0.91) for place in (0, 0.5, 1)]
    first, second = np.array([0, 0, 1, 2, 3]), np.array([1, 3, 2, 3, 0])
    wanted = [
        max(details(thumbnails[i], across, down) @ details(thumbnails[j]) for across in spans for down in spans)
        for i, j in zip(first, second, strict=True)
    ]
    poses = np.full(len(first), UPRIGHT)
    np.testing.assert_allclose(correlate_coarsely(thumbnails, first, second, poses), wanted, atol=1e-4)
    assert wanted[1] > LIKELY + 0.1


def test_copies_among_aligned_pictures_are_found_though_most_pairs_are_unlikely(tiles, monkeypatch):
    """Pictures that share their low frequencies, as radiographs do: all pairs are candidates, and all are counted."""
    monkeypatch.setattr("klarsicht.numerics.imaging.copies.COUNTED", 300)
    rng, tiles = np.random.default_rng(5), tiles[:16]
    common = 60 * np.cos(np.pi * np.arange(SIDE) / SIDE)[:, None] + 128
    pictures = [np.asarray(tile.convert("L").resize((TILE, TILE)), float) - 128 for tile in tiles]
    smooth = np.repeat(np.repeat(common, 3, 0), TILE, 1)
    aligned = [Image.fromarray(np.clip(smooth + 0.15 * one, 0, 255).astype(np.uint8)) for one in pictures]
    copies = [reencoded(one, rng) if i % 2 else cropped(one, rng) for i, one in enumerate(aligned)]
    thumbnails = np.stack([thumbnail(one) for one in [*aligned, *copies]])
    n, found = len(tiles), find_copies(thumbnails)
    first, second, poses = find_candidates(thumbnails, range(2 * n))
    assert len(first) > 2 * n**2
    assert (correlate_coarsely(thumbnails, first, second, poses) < LIKELY).mean() > 0.7
    for row, some in enumerate((poses == UPRIGHT, poses != UPRIGHT)):
        each = correlate_details(thumbnails[first[some]], lay(thumbnails[second[some]], poses[some]))
        least = (COPY_CORRELATION, TURNED_CORRELATION)[row]
        wanted = np.sort(np.stack([first[some], second[some]], 1)[each >= least], 1)
        pairs = found.pairs[(found.poses == UPRIGHT) == (row == 0)]
        assert set(map(tuple, pairs.tolist())) == set(map(tuple, wanted.tolist()))
        assert found.others[row].sum() == pytest.approx((each < least).sum(), abs=BINS)
        truth = np.histogram(np.clip(each[each < least], 0, COPY_CORRELATION), BINS, (0, COPY_CORRELATION))[0]
        assert np.abs(np.cumsum(found.others[row]) - np.cumsum(truth)).max() < 0.06 * len(each)


def test_details_of_a_copy_correlate_and_those_of_another_image_do_not(tiles):
    first = np.stack([thumbnail(tile) for tile in tiles])
    assert (correlate_details(first, first) > 0.999).all()
    assert np.abs(correlate_details(first, np.roll(first, 1, 0))).max() < COPY_CORRELATION - 0.1
    brighter = (first * 0.7 + 40).astype(np.uint8)
    assert (correlate_details(first, brighter) > 0.97).all()


def test_images_with_hardly_any_detail_prove_nothing():
    y, x = np.mgrid[:SIDE, :SIDE]
    flat = np.stack([np.full((SIDE, SIDE), 90), 4 * x, 4 * y, 2 * x + 2 * y]).astype(np.uint8)
    assert len(find_copies(np.concatenate([flat, flat])).pairs) == 0


@pytest.mark.parametrize("n", [0, 1])
def test_of_no_images_there_are_no_copies(n):
    assert len(find_copies(np.zeros((n, SIDE, SIDE), np.uint8)).pairs) == 0


def test_pairs_are_kept_once_with_their_largest_correlation():
    found = Copies.of(np.array([[5, 2], [2, 5], [1, 3]]), np.array([0.9, 0.95, 0.86]))
    assert found.pairs.tolist() == [[1, 3], [2, 5]]
    assert found.correlation.tolist() == [0.86, 0.95]


def test_chance_is_the_quantile_of_the_pairs_that_are_no_copies():
    """Fisher's z of 20,000 pairs, drawn normally; those that look like copies are cut off, as the search does."""
    z = np.random.default_rng(3).normal(0.6, 0.17, 20_000)
    correlations = np.tanh(z)
    counts = np.histogram(correlations[correlations < COPY_CORRELATION], BINS, (0, COPY_CORRELATION))[0]
    expected = np.tanh(norm(0.6, 0.17).isf(1 / 20_001))
    assert chance_correlation(counts) == pytest.approx(expected, abs=0.01)
    assert chance_correlation(counts) > COPY_CORRELATION


def test_few_pairs_or_unlike_ones_leave_the_least_correlation_of_copies():
    unlike = np.histogram(np.tanh(np.linspace(0, 0.3, 5000)), BINS, (0, COPY_CORRELATION))[0]
    assert chance_correlation(unlike) == COPY_CORRELATION
    few = np.zeros(BINS, int)
    few[-1] = FEWEST_PAIRS - 1
    assert chance_correlation(few) == COPY_CORRELATION


def test_every_pair_that_is_looked_at_is_a_copy_or_counted(tiles):
    thumbnails = np.stack([thumbnail(tile) for tile in tiles[:20]] + [thumbnail(tile) for tile in tiles[:3]])
    found = find_copies(thumbnails)
    first, second, poses = find_candidates(thumbnails, range(len(thumbnails)))
    least = np.where(poses == UPRIGHT, COPY_CORRELATION, TURNED_CORRELATION)
    copies = sum(correlate_details(thumbnails[first], lay(thumbnails[second], poses)) >= least)
    assert int(found.others.sum()) == len(first) - copies
