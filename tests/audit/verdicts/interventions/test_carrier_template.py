"""A known tag is found where it lies, by a slow search too, and is gone when it is taken out."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.carrier_template import CarrierTemplate, take_out_border

TAG = (255 * np.random.default_rng(5).integers(0, 2, (5, 6, 1))).astype(np.uint8).repeat(3, 2)


def scenes(n, seed):
    return np.random.default_rng(seed).integers(60, 190, (n, 24, 28, 3)).astype(np.uint8)


def examples(anywhere):
    rng, carriers = np.random.default_rng(1), scenes(12, 2)
    places = rng.integers(0, 18, (12, 2)) if anywhere else np.full((12, 2), 3)
    for image, (a, b) in zip(carriers, places, strict=True):
        image[a : a + 5, b : b + 6] = TAG
    return ArtifactExamples(carriers, scenes(12, 3), places.astype(np.intp), (5, 6))


@pytest.mark.parametrize("anywhere", [False, True])
def test_similarities_are_those_of_a_slow_search(anywhere):
    template = CarrierTemplate.of(examples(anywhere))
    image = scenes(1, 4)[0]
    alike = template.similarities(image)
    for i, j in np.ndindex(*alike.shape):
        a, b = template.low[0] + i, template.low[1] + j
        window = image[a : a + template.extent[0], b : b + template.extent[1]].astype(float)
        x, t = ((one - template.plain)[template.is_shared].ravel() for one in (window, template.values))
        assert alike[i, j] == pytest.approx(2 * x @ t / (x @ x + t @ t), abs=1e-9)


@pytest.mark.parametrize(("anywhere", "place"), [(False, (4, 2)), (True, (11, 15))])
def test_a_tag_is_found_where_it_lies_and_taken_out(anywhere, place):
    template = CarrierTemplate.of(examples(anywhere))
    assert template.extent == (5, 6)
    clean = scenes(20, 6)
    marked = clean[0].copy()
    marked[place[0] : place[0] + 5, place[1] : place[1] + 6] = TAG
    score, found = template.match(marked)
    assert found == place and score > max(template.match(image)[0] for image in clean)
    without = template.take_out(marked, found)
    assert score == pytest.approx(1) and template.match(without)[0] < 0.6
    outside = np.ones((24, 28), bool)
    outside[place[0] - 1 : place[0] + 6, place[1] - 1 : place[1] + 7] = False
    np.testing.assert_array_equal(without[outside], marked[outside])
    assert without[~outside].min() >= marked[outside].min()


def test_a_border_is_replaced_by_the_pixel_inside():
    image = scenes(1, 7)[0]
    out = take_out_border(image, (2, 1, 3, 0))
    for y, x in np.ndindex(24, 28):
        np.testing.assert_array_equal(out[y, x], image[np.clip(y, 2, 22), np.clip(x, 3, 27)])
