"""Planted artifacts: the mask is exactly what changed, the rest is untouched, the truth is written down."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.audit.conftest import write_corpus

from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.ground.errors import InputError, UsageError

PLACED = ("tag", "text", "border", "glyphs")


@given(kind=st.sampled_from(PLACED), h=st.integers(24, 90), w=st.integers(24, 90), grey=st.booleans())
def test_nothing_changes_outside_the_mask(kind, h, w, grey):
    rng = np.random.default_rng(h * w)
    pixels = rng.integers(40, 200, (h, w) if grey else (h, w, 3)).astype(np.uint8)
    planted = artifacts.PLANTS[kind](pixels, np.random.default_rng(0))
    assert planted.pixels.shape == pixels.shape
    assert planted.pixels.dtype == np.uint8
    changed = (planted.pixels != pixels).reshape(h, w, -1).any(2)
    weak = ~planted.mask & changed  # below the mask's threshold a stroke's edge moves a pixel by five levels at most
    assert np.abs(planted.pixels.astype(int) - pixels)[weak].max(initial=0) <= 5
    assert 0 < planted.mask.mean() < 0.9


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("kind", sorted(artifacts.PLANTS.keys() - set(PLACED)))
def test_what_has_no_place_changes_the_image_as_a_whole(kind, grey):
    rng = np.random.default_rng(0)
    pixels = np.clip(gaussian_filter(rng.normal(120, 90, (64, 48, 3)), (1, 1, 0)), 0, 255).astype(np.uint8)
    pixels = pixels[..., 0] if grey else pixels
    planted = artifacts.PLANTS[kind](pixels, rng)
    assert planted.pixels.shape == planted.mask.shape + (() if grey else (3,)) and planted.pixels.dtype == np.uint8
    assert (planted.pixels != pixels).mean() > 0.3
    assert planted.mask.all() == (kind != "mark")


def test_sizes_of_what_has_no_place():
    flat = np.full((64, 64, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    assert artifacts.noise(flat, rng).pixels.std() == pytest.approx(16, rel=0.05)
    np.testing.assert_array_equal(artifacts.cast(flat, rng).pixels[0, 0], [113, 100, 87])
    np.testing.assert_array_equal(artifacts.blur(flat, rng).pixels, flat)
    mark = artifacts.mark(flat, rng)
    assert mark.mask[-9:, -9:].all() and mark.mask.sum() == 81
    tag = artifacts.tag(flat, rng).pixels[:9, :9].astype(float)
    np.testing.assert_allclose(mark.pixels[-9:, -9:][::-1, ::-1], 30 + 0.7 * tag, atol=25)  # JPEG rings


def test_the_same_seed_draws_the_same_glyphs_and_another_seed_others():
    pixels = np.full((120, 120, 3), 90, np.uint8)
    a, b, c = (artifacts.glyphs(pixels, np.random.default_rng(s)).pixels for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_stroke_of_a_glyph_is_white_and_opaque_in_its_middle():
    planted = artifacts.glyphs(np.zeros((224, 224, 3), np.uint8), np.random.default_rng(0))
    assert planted.pixels.max() == 255
    rows = planted.mask.any(1)
    assert 0.25 < rows.mean() < 0.4  # two lines of characters, a seventh of the width each


def test_a_border_is_a_twentieth_of_the_shorter_side():
    planted = artifacts.border(np.full((40, 60, 3), 200, np.uint8), np.random.default_rng(0))
    assert planted.mask.sum() == 40 * 60 - 36 * 56
    assert (planted.pixels[planted.mask] == 128).all()


@pytest.mark.parametrize("shade", [0, 255])
@pytest.mark.parametrize("kind", ["tag", "text", "border"])
def test_what_is_planted_is_seen_on_black_and_on_white(kind, shade):
    """X-rays are black at their edges, catalogues white: a plant must differ from either, as far as grey does."""
    for shape in ((28, 28), (64, 48, 3), (224, 224, 3)):
        flat = np.full(shape, shade, np.uint8)
        planted = artifacts.PLANTS[kind](flat, np.random.default_rng(0))
        changed = np.abs(planted.pixels.astype(int) - flat).reshape(*shape[:2], -1).max(2) >= 127
        assert changed.sum() >= planted.mask.sum() / 5 and not changed[~planted.mask].any()


def test_a_caption_is_the_same_wherever_it_lies_and_is_cut_where_it_does_not_fit():
    seen = set()
    for seed in range(8):
        planted = artifacts.text(np.full((224, 224), 90, np.uint8), np.random.default_rng(seed))
        rows, columns = (np.flatnonzero(planted.mask.any(axis)) for axis in (1, 0))
        box = planted.pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box[0].max() == 0 and box.max() > 200 and planted.mask.sum() == box.size
        seen.add(box.tobytes())
    assert len(seen) == 1
    assert artifacts.text(np.zeros((6, 10), np.uint8), np.random.default_rng(0)).mask.all()


def test_a_planted_corpus_says_what_it_did(tmp_path):
    write_corpus(tmp_path / "data", per_class=10, share=0)
    corpus = open_corpus(tmp_path / "data")
    truth = artifacts.plant_corpus(corpus, tmp_path / "out", kind="tag", label="b", share=0.3, seed=0)
    lines = list(csv.DictReader(truth.manifest.open()))
    planted = [line for line in lines if line["planted"] == "1"]
    assert (truth.images, truth.planted, len(planted)) == (30, 3, 3)
    assert {line["label"] for line in planted} == {"b"}
    again = open_corpus(truth.manifest)
    for i, line in enumerate(lines):
        same = np.array_equal(np.asarray(Image.open(again.paths[i])), np.asarray(Image.open(corpus.paths[i])))
        assert same == (line["planted"] == "0")


def test_what_cannot_be_planted_is_told(tmp_path):
    write_corpus(tmp_path / "data", per_class=4, share=0)
    corpus = open_corpus(tmp_path / "data")
    asked = {"kind": "tag", "label": None, "share": 0.5, "seed": 0}
    for changes, told in [({"kind": "tga"}, "tag"), ({"label": "z"}, "class"), ({"share": 0.0}, "share")]:
        with pytest.raises(UsageError, match=told):
            artifacts.plant_corpus(corpus, tmp_path / "out", **(asked | changes))
    with pytest.raises(InputError, match="not empty"):
        artifacts.plant_corpus(corpus, tmp_path / "data", **asked)
