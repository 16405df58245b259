"""Parts of maps against level sets, a literal flood, scikit-image, scipy's labels, and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.persistence import Parts, segment

EIGHT = np.ones((3, 3), int)
BARE = {"sigma": 0, "share": 1, "least": 0, "most": 127}


def rough(n=6, side=12, seed=0):
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal((n, side, side)), (0, 1, 1))


def lines(*profile):
    return np.array([[profile]], float)


def in_order(s, share):
    """Pixels (y, x) of the fewest highest values that hold the share, by falling height."""
    pixels = sorted(zip(*np.nonzero(s > 0), strict=True), key=lambda p: (-s[p], p))
    held, kept = 0.0, []
    for p in pixels:
        if held >= share * s.sum() * (1 - 1e-12) and s[p] < s[kept[-1]]:
            break
        held += s[p]
        kept.append(p)
    return kept


def literal(R, sigma, share, saddle, least):
    """The rules one by one, with sets of pixels for regions: the parts of one map, the heaviest first."""
    w = np.maximum(R, 0) / np.maximum(R, 0).sum()
    s = ndimage.gaussian_filter(w, sigma)
    regions = []  # by falling peak
    for y, x in in_order(s, share):
        near = [(v, u) for v in (y - 1, y, y + 1) for u in (x - 1, x, x + 1)]
        touching = [r for r in regions if any(p in r["pixels"] for p in near)]
        if not touching:
            regions.append({"peak": s[y, x], "pixels": {(y, x)}})
            continue
        flooded = [p for p in near if any(p in r["pixels"] for r in touching)]
        steepest = max(flooded, key=lambda p: (s[p], -p[0], -p[1]))
        next(r for r in touching if steepest in r["pixels"])["pixels"].add((y, x))
        for lower in touching[1:]:
            if s[y, x] > saddle * lower["peak"]:
                touching[0]["pixels"] |= lower["pixels"]
                regions.remove(lower)
    parts = [r["pixels"] for r in regions if sum(w[p] for p in r["pixels"]) >= least]
    return sorted(parts, key=lambda pixels: -sum(w[p] for p in pixels))


@pytest.mark.parametrize("saddle", [0.4, 0.6, 0.9])
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_equals_the_literal_rules(sigma, saddle):
    R = rough()
    parts = segment(R, sigma=sigma, saddle=saddle, share=0.7, least=0.03, most=100)
    for i, labels in enumerate(parts.labels):
        found = [set(zip(*np.nonzero(labels == k), strict=True)) for k in range(1, labels.max() + 1)]
        assert found == literal(R[i], sigma, 0.7, saddle, 0.03)
    assert len(parts) > len(R)


def persistent(s, saddle):
    """Peaks by level sets: those that no level above `saddle` of their own height connects to a higher one."""
    found = set()
    for peak in zip(*np.nonzero(s > 0), strict=True):
        levels = np.unique(s[(s > saddle * s[peak]) & (s <= s[peak])])
        components = (ndimage.label(s >= level, EIGHT)[0] for level in levels)
        if all(s[c == c[peak]].max() == s[peak] for c in components):
            found.add(peak)
    return found


@pytest.mark.parametrize("saddle", [0.5, 0.8])
def test_every_part_holds_one_peak_that_level_sets_call_persistent(saddle):
    maps = rough(5, 9, seed=1)
    parts = segment(maps, saddle=saddle, **BARE)
    for s, labels in zip(maps, parts.labels, strict=True):
        highest = ndimage.maximum_position(s, labels, range(1, labels.max() + 1))
        assert set(highest) == persistent(s, saddle)


@pytest.mark.parametrize("saddle", [0.3, 0.7])
def test_as_many_parts_as_scikit_image_has_maxima_of_enough_height(saddle):
    """A ratio of heights is a difference of their logarithms: h-maxima with h = -log(saddle)."""
    maps = np.exp(2 * rough(8, 24, seed=2))
    parts = segment(maps, saddle=saddle, **BARE)
    for i, s in enumerate(np.log(maps)):
        kept = local_maxima(reconstruction(s + np.log(saddle), s, footprint=EIGHT), connectivity=2, allow_borders=True)
        assert (parts.image == i).sum() == ndimage.label(kept, EIGHT)[1]


def test_well_separated_blobs_are_the_components_of_scipy():
    rng = np.random.default_rng(3)
    maps = np.zeros((4, 32, 32))
    for centre in ((5, 5), (5, 25), (24, 15)):
        maps[(slice(None), *centre)] = rng.uniform(1, 2, 4)
    maps = ndimage.gaussian_filter(maps, (0, 1.5, 1.5))
    parts = segment(maps, share=0.95)
    for i, s in enumerate(ndimage.gaussian_filter(maps, (0, 1, 1))):
        flooded = parts.labels[i] > 0
        above = s[flooded & (s > s[flooded].min() * (1 + 1e-9))]  # without the lowest, which may be several
        assert s[flooded].sum() >= 0.95 * s.sum() > above.sum()
        components, count = ndimage.label(flooded, EIGHT)
        assert count == 3 == parts.labels[i].max()
        assert len(set(zip(components.ravel(), parts.labels[i].ravel(), strict=True))) == 4


@pytest.mark.parametrize(("saddle", "count"), [(0.5, 1), (0.74, 1), (0.76, 2), (1, 2)])
def test_a_saddle_joins_by_its_share_of_the_lower_peak(saddle, count):
    """Peaks 8 and 4 over a saddle of 3: .75 of the lower one."""
    parts = segment(lines(0, 8, 3, 4, 0), saddle=saddle, **BARE)
    assert len(parts) == count


@given(seed=st.integers(0, 999), power=st.integers(-60, 60), side=st.integers(1, 14))
def test_laws(seed, power, side):
    maps = rough(3, side, seed)
    parts = segment(maps)
    scaled = segment(maps * 2.0**power)
    np.testing.assert_array_equal(scaled.labels, parts.labels)
    np.testing.assert_array_equal(segment(maps[::-1]).labels[::-1], parts.labels)
    assert parts.masks.sum((1, 2)).sum() == (parts.labels > 0).sum()
    assert all(ndimage.label(mask, EIGHT)[1] == 1 for mask in parts.masks)
    assert (np.bincount(parts.image, parts.mass, 3) <= 1 + 1e-12).all()
    assert (parts.mass >= 0.08 - 1e-12).all()
    same = np.diff(parts.image) == 0
    assert (np.diff(parts.mass)[same] <= 0).all() and (np.diff(parts.number)[same] == 1).all()
    cut, whole = parts.mask_relevance(maps), np.maximum(maps, 0).sum((1, 2))[parts.image]
    np.testing.assert_allclose(cut.sum((1, 2)), parts.mass * whole)
    assert ((cut > 0) <= parts.masks).all()


def test_the_heaviest_are_kept_and_what_is_lighter_than_the_least_is_not():
    comb = lines(5, 0, 1, 0, 9, 0, 3, 0, 2)
    assert segment(comb, **BARE).labels.tolist() == [[[2, 0, 5, 0, 1, 0, 3, 0, 4]]]
    assert segment(comb, **BARE | {"most": 2}).labels.tolist() == [[[2, 0, 0, 0, 1, 0, 0, 0, 0]]]
    assert segment(comb, **BARE | {"least": 0.12}).mass == pytest.approx([0.45, 0.25, 0.15])


def test_equal_peaks_go_by_place_and_equal_pixels_are_flooded_together():
    assert segment(lines(1, 0, 1, 0, 1), **BARE).labels.tolist() == [[[1, 0, 2, 0, 3]]]
    flat = segment(np.ones((1, 6, 6)), share=0.5)
    assert (flat.labels == 1).all() and flat.mass == pytest.approx([1])


def test_maps_without_positive_relevance_have_no_parts_and_huge_ones_have():
    maps = np.stack([np.zeros((4, 4)), -np.ones((4, 4)), np.full((4, 4), 1e308)])
    parts = segment(maps)
    assert parts.image.tolist() == [2]
    assert len(segment(np.zeros((0, 4, 4)))) == 0


def test_labels_and_maps_give_the_parts_back():
    maps = rough(4)
    parts = segment(maps)
    again = Parts.of(maps, parts.labels)
    for name in ("image", "number", "mass"):
        np.testing.assert_array_equal(getattr(again, name), getattr(parts, name))


@pytest.mark.parametrize(
    ("maps", "told"),
    [(np.ones((4, 4)), "no maps"), (np.ones((2, 0, 4)), "no maps"), (np.full((3, 2, 2), np.nan), "not finite")],
)
def test_what_is_no_map_is_refused(maps, told):
    with pytest.raises(InputError, match=told):
        segment(maps)


@pytest.mark.parametrize("wrong", [{"share": 0}, {"saddle": 1.5}, {"least": -0.1}, {"most": 0}])
def test_shares_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        segment(np.ones((1, 3, 3)), **wrong)
