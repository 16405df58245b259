"""Overlays of planted squares: their place, opacity and colour are estimated."""

import numpy as np
import pytest
import torch

from klarsicht.audit.verdicts.interventions.overlay import (
    Overlay,
    estimate_blend,
    estimate_overlay,
    select_touching,
)
from klarsicht.ground.errors import InputError


def pictures(n=60, side=16, seed=0):
    return np.random.default_rng(seed).random((n, 3, side, side)).astype(np.float32)


def maps(n, seed=0):
    """The object in the middle of every map; what the tests add is the artifact's."""
    found = 0.1 * np.random.default_rng(seed).random((n, 8, 8))
    found[:, 3:5, 3:5] += 1
    return found


def planted(opacity=1.0, strangers=0):
    """Members with a square at rows and columns 2 to 5, others, and their maps."""
    members, others, seen = pictures(seed=1), pictures(seed=2), maps(60, 1)
    colour = np.array([0.9, 0.1, 0.5], np.float32)[:, None, None]
    marked = members[strangers:]
    marked[:, :, 2:6, 2:6] = (1 - opacity) * marked[:, :, 2:6, 2:6] + opacity * colour
    seen[strangers:, 1:3, 1:3] += 2
    return members, others, seen, maps(60, 2)


@pytest.mark.parametrize("strangers", [0, 6])
@pytest.mark.parametrize("opacity", [1.0, 0.7])
def test_a_planted_square_comes_back_with_its_opacity_and_colour(opacity, strangers):
    place = estimate_overlay(*planted(opacity, strangers))
    assert place.fixed
    truth = np.zeros((16, 16), bool)
    truth[2:6, 2:6] = True
    np.testing.assert_array_equal(place.masks[0], truth)
    np.testing.assert_allclose(place.opacity[0][truth].mean(), opacity, atol=0.06)
    np.testing.assert_allclose(place.colour[0, :, truth].mean(0), [0.9, 0.1, 0.5], atol=0.04)


def test_a_tag_on_a_flat_background_is_opaque():
    """Where the others never vary their deviation says nothing; that the colour differs says enough."""
    members, others = np.zeros((9, 1, 8, 8), np.float32), np.zeros((9, 1, 8, 8), np.float32)
    members[:, :, :2, :2] = 1
    o, _, colour = estimate_blend(members, others, 1.0)
    expected = np.zeros((8, 8))
    expected[:2, :2] = 1
    np.testing.assert_array_equal(o, expected)
    np.testing.assert_array_equal(colour[0], expected)


def test_pasting_is_blending():
    place = estimate_overlay(*planted(0.7))
    image = torch.from_numpy(pictures(1)[0])
    (out,), (control,) = place.put(image[None], np.random.default_rng(0))
    assert torch.equal(control, image)
    o, c = torch.from_numpy(place.opacity[0]), torch.from_numpy(place.colour[0])
    torch.testing.assert_close(out, image * (1 - o) + o * c)
    outside = ~torch.from_numpy(place.masks[0])
    torch.testing.assert_close(out[:, outside], image[:, outside], atol=0, rtol=0)


def test_where_the_place_varies_members_lend_their_own_pixels():
    members, others, seen = pictures(seed=1), pictures(seed=2), maps(60, 1)
    rng = np.random.default_rng(0)
    corners = [tuple(rng.integers(0, 6, 2)) for _ in members]
    for image, seen_in, (y, x) in zip(members, seen, corners, strict=True):
        image[:, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4] = rng.random((3, 4, 4))
        seen_in[y : y + 2, x : x + 2] += 3
    place = estimate_overlay(members, others, seen, maps(60, 2))
    assert not place.fixed
    truth = np.zeros((len(place.masks), 16, 16), bool)
    for mask, (y, x) in zip(truth, corners, strict=False):
        mask[2 * y : 2 * y + 4, 2 * x : 2 * x + 4] = True
    overlap = (truth & place.masks).sum() / (truth | place.masks).sum()
    assert overlap > 0.4
    for pasted in place.put(torch.zeros(9, 3, 16, 16), rng)[0].numpy():
        assert any(np.array_equal(pasted, np.where(m, c, 0)) for m, c in zip(place.masks, place.colour, strict=True))


def test_a_region_drawn_by_a_person_takes_the_place_of_relevance():
    members, others, *_ = planted()
    region = np.zeros((16, 16), bool)
    region[3:5, 3:5] = True
    place = estimate_overlay(members, others, maps(60, 1), maps(60, 2), region)
    assert place.masks[0].sum() == 16  # the whole square: it touches the region
    with pytest.raises(InputError, match="does not fit"):
        estimate_overlay(members, others, maps(60, 1), maps(60, 2), region[:4])
    with pytest.raises(InputError, match="images with it and without it"):
        estimate_overlay(members[:0], others, maps(0), maps(60, 2))


def test_only_pieces_that_touch_the_region_are_kept():
    strict = np.zeros((6, 6), bool)
    strict[0, :3] = strict[4:, 4:] = True
    region = np.zeros((6, 6), bool)
    region[0, 0] = True
    np.testing.assert_array_equal(np.argwhere(select_touching(strict, region)), [[0, 0], [0, 1], [0, 2]])


def test_an_image_of_another_size_does_not_fit():
    place = Overlay(np.ones((1, 4, 4), np.float32), np.ones((1, 3, 4, 4), np.float32))
    assert place.fits(torch.ones(3, 4, 4))
    assert not place.fits(torch.ones(3, 5, 4))


def test_few_members_agree_by_chance_at_no_pixel():
    """Five pictures of noise against sixty: nothing lies on all of them."""
    _, least, _ = estimate_blend(pictures(5, seed=3), pictures(60, seed=4), 1.0)
    assert (least >= 0.5).mean() < 0.01
