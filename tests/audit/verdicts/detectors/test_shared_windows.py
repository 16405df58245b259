"""Windows planted at random places: found to the pixel in every carrier, and not where every image shows them."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.detectors.shared_windows import find_shared_windows, grow_shared


def pictures(n, seed, side=28, channels=3):
    """Smooth random pictures, uint8 (n, side, side, channels)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 7, 7, channels))
    return np.kron(coarse, np.ones((1, side // 7, side // 7, 1))).astype(np.uint8)


def label(h=6, w=11, seed=0, channels=3):
    return (np.random.default_rng(seed).random((h, w, channels)) < 0.5).astype(np.uint8) * 255


def stuck(x, what, seed):
    """The label at a random place of each picture, and the places."""
    rng, (h, w) = np.random.default_rng(seed), what.shape[:2]
    places = np.stack([rng.integers(0, x.shape[i] - side + 1, len(x)) for i, side in ((1, h), (2, w))], 1)
    out = x.copy()
    for image, (a, b) in zip(out, places, strict=True):
        image[a : a + h, b : b + w] = what
    return out, places


@pytest.mark.parametrize("channels", [1, 3])
def test_a_label_at_random_places_is_found_to_the_pixel(channels):
    carriers, places = stuck(pictures(30, 0, channels=channels), label(channels=channels), 1)
    found = find_shared_windows(carriers, pictures(40, 2, channels=channels), pictures(30, 3, channels=channels))
    assert found.extent == (6, 11) and found.shares == (1, 0, 0)
    np.testing.assert_array_equal(found.rows, np.arange(30))
    np.testing.assert_array_equal(found.places, places)


@pytest.mark.parametrize(("gap", "whole"), [(1, True), (2, True), (4, False)])
def test_two_letters_with_a_gap_between_them_are_one_artifact(gap, whole):
    """Two labels of 6 x 6 pixels side by side; what lies between them is of the picture."""
    left, right = label(6, 6), label(6, 6, seed=5)
    carriers = pictures(30, 0)
    rng = np.random.default_rng(1)
    for image in carriers:
        a, b = rng.integers(0, 22), rng.integers(0, 28 - 12 - gap + 1)
        image[a : a + 6, b : b + 6], image[a : a + 6, b + 6 + gap : b + 12 + gap] = left, right
    found = find_shared_windows(carriers, pictures(40, 2), pictures(30, 3))
    assert found.extent == ((6, 12 + gap) if whole else (6, 6))


def test_members_without_it_get_no_window_and_spoil_none():
    """A fifth of the list is wrong, and a tenth of the other images of the class carry it unlisted."""
    carriers, places = stuck(pictures(40, 0), label(), 1)
    carriers[::5] = pictures(8, 4)
    others = pictures(40, 2)
    others[:4] = stuck(others[:4], label(), 5)[0]
    found = find_shared_windows(carriers, others, pictures(30, 3))
    right = np.setdiff1d(np.arange(40), np.arange(0, 40, 5))
    np.testing.assert_array_equal(found.rows, right)
    np.testing.assert_array_equal(found.places, places[right])
    assert found.extent == (6, 11)


def test_in_larger_images_the_box_is_found_after_shrinking():
    carriers, places = stuck(pictures(24, 0, side=70), np.kron(label(5, 8), np.ones((3, 3, 1), np.uint8)), 1)
    found = find_shared_windows(carriers, pictures(30, 2, side=70), pictures(20, 3, side=70))
    assert len(found.rows) >= 20
    assert (np.abs(found.places - places[found.rows]) <= 2).mean() > 0.9
    assert abs(found.extent[0] - 15) <= 3 and abs(found.extent[1] - 24) <= 3


def test_carriers_that_agree_as_a_whole_share_the_label_alone():
    """Aligned images of one scene, of which carriers differ by a tenth of what other images do."""
    rng, scene = np.random.default_rng(6), pictures(1, 4)

    def aligned(n, spread):
        return np.clip(scene + rng.normal(0, spread, (n, *scene.shape[1:])), 0, 255).astype(np.uint8)

    carriers = aligned(4, 4)
    carriers[:, 10:16, 8:19] = label()
    found = find_shared_windows(carriers, aligned(40, 40), aligned(30, 40))
    assert np.prod(found.extent) <= 28 * 28 / 4
    first, last = found.places, found.places + found.extent
    assert (np.minimum(last, [16, 19]) - np.maximum(first, [10, 8]) >= 5).all()  # of the label, in both directions


@pytest.mark.parametrize("group", [1, 2])
def test_what_other_images_show_as_well_is_no_window(group):
    groups = [stuck(pictures(30, 0), label(), 1)[0], pictures(30, 2), pictures(30, 3)]
    groups[group] = stuck(groups[group], label(), 7)[0]
    assert find_shared_windows(*groups) is None


def test_the_artifact_is_found_beside_a_label_that_every_image_shows():
    own, places = stuck(pictures(30, 0), label(6, 6, seed=9), 1)
    carriers = own.copy()
    others, far = (stuck(pictures(30, s), label(5, 5), s)[0] for s in (2, 3))
    rng = np.random.default_rng(8)
    for image, b in zip(carriers, places[:, 1], strict=True):  # beside the artifact, where there is room
        c = rng.integers(0, 23)
        d = (b + 8) if b + 13 <= 28 else b - 6
        image[c : c + 5, d : d + 5] = label(5, 5)
    found = find_shared_windows(carriers, others, far)
    assert found.extent == (6, 6)
    np.testing.assert_array_equal(found.places, places[found.rows])


def test_images_that_share_nothing_share_no_window():
    assert find_shared_windows(pictures(30, 0), pictures(30, 1), pictures(30, 2)) is None
    assert find_shared_windows(pictures(30, 0), pictures(30, 1), pictures(0, 2)) is None


def test_a_window_inside_grows_to_the_whole_label_whatever_its_place():
    carriers, places = stuck(pictures(30, 0), label(), 1)
    corners, extent = grow_shared(carriers, pictures(40, 2), places + np.array([1, 4]), np.array([5, 5]))
    assert tuple(extent) == (6, 11)
    np.testing.assert_array_equal(corners, places)
