"""Masks of artifacts: by relevance, by a saved correction, by windows; and their run-length codes."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from tests.explorer.made_run import SIDE, TAG, WINDOW, G, write_run
from tests.explorer.requests import ask

from klarsicht.audit.explanation.relevance.conservation import ABSORBED_BOUND
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.explorer import coco, explored_run
from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.pixel_masks import ExcessMasks, PlaceMasks, WindowMasks, mask_in_file
from klarsicht.explorer.thumbnails import crop_seen
from klarsicht.ground.pictures.seen_area import EXTENT_UNITS, SeenArea
from klarsicht.ground.run_folder.decisions import Change, DecisionLog

EACH, CARRIERS = 24, 6


@pytest.fixture
def made(tmp_path):
    return ExploredRun(write_run(tmp_path, each=EACH, carriers=CARRIERS), "ada")


def decode(code):
    """The mask of an uncompressed run-length code, pixel by pixel down the columns."""
    height, width = code["size"]
    mask = np.zeros((height, width), bool)
    at, value = 0, False
    for count in code["counts"]:
        for _ in range(count):
            mask[at % height, at // height] = value
            at += 1
        value = not value
    assert at == height * width
    return mask


def by_pycocotools(code):
    tools = pytest.importorskip("pycocotools.mask")
    return tools.decode(tools.frPyObjects(code, *code["size"])).astype(bool)


masks_of_some_size = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))


@given(masks_of_some_size)
def test_a_run_length_code_is_decoded_to_the_mask(mask):
    code = coco.run_length_code(mask)
    np.testing.assert_array_equal(decode(code), mask)
    assert all(count > 0 for count in code["counts"][1:]) and json.dumps(code)


def test_pycocotools_decodes_the_code():
    for seed in range(30):
        mask = np.random.default_rng(seed).random((seed % 7 + 1, seed % 5 + 1)) < seed / 29
        np.testing.assert_array_equal(by_pycocotools(coco.run_length_code(mask)), mask)


def slow_mask_by_relevance(made, row, shape):
    """The definition, literally: shares, smoothed, less the mean of others' shares; above half of the peak."""
    share = lambda one: gaussian_filter(np.maximum(one, 0).astype(float) / np.maximum(one, 0).sum(), 1.0)  # noqa: E731
    others = [share(made.relevance_map(other)) for other in range(CARRIERS, EACH)]
    excess = share(made.relevance_map(row)) - sum(others) / len(others)
    wide = np.asarray(Image.fromarray(excess.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR))
    return wide > wide.max() / 2


def test_relevance_beyond_that_of_other_images_is_the_mask_of_members(made):
    assert list(made.masks(0)) == ["window", "relevance"] and list(made.masks(2)) == ["relevance"]
    for row in range(CARRIERS):
        source, mask = made.mask_of(0, row, (SIDE, SIDE), "relevance")
        assert source == "relevance" and made.mask_of(0, row, (SIDE, SIDE))[0] == "window"  # a detector found it
        np.testing.assert_array_equal(mask, slow_mask_by_relevance(made, row, (SIDE, SIDE)))
    centre = np.argwhere(mask).mean(0)
    np.testing.assert_allclose(centre, [2.5 * SIDE / G - 0.5, 4.5 * SIDE / G - 0.5], atol=0.5)  # of cell (2, 4)


def test_of_a_cluster_relevance_is_the_mask(tmp_path):
    """Nothing was detected: what the images share lies where their relevance exceeds that of the others."""
    made = ExploredRun(write_run(tmp_path, each=EACH, carriers=CARRIERS, quantified=False), "ada")
    assert list(made.masks(0)) == ["relevance"] and made.mask_of(0, 0, (SIDE, SIDE))[0] == "relevance"


def test_the_masks_follow_the_decided_members(made):
    before = made.mask_of(0, 0, (SIDE, SIDE), "relevance")[1]
    DecisionLog(made.store.path).append(Change(0, "tagged", base=(*range(EACH),)), "ada")
    assert list(made.masks(0)) == ["window"]  # no image is left to compare with
    DecisionLog(made.store.path).append(Change(0, "tagged", base=(*range(EACH),), remove=(*range(3, EACH),)), "ada")
    assert made.mask_of(0, 0, (SIDE, SIDE), "relevance")[1].sum() <= before.sum()


def test_the_explorer_and_the_cleaning_cut_the_same_mask():
    rng = np.random.default_rng(0)
    maps, background = rng.random((3, G, G)).astype(np.float32), rng.random((G, G)) / G**2
    place = Overlay(np.ones((2, 30, 20), np.float32), np.ones((2, 3, 30, 20), np.float32), background)
    masks = ExcessMasks(background, lambda rows: maps[rows])
    for row in range(3):
        np.testing.assert_array_equal(masks(row, (30, 20)), place.mask_from_relevance(maps[row]))


def test_an_artifact_without_a_place_has_no_mask():
    """Members whose relevance exceeds that of the others nearly everywhere."""
    maps = np.ones((9, G, G), np.float32)
    maps[4:] = 0
    maps[4:, 0, 0] = 1
    read = lambda rows: maps[rows]  # noqa: E731
    assert ExcessMasks.of(read, np.arange(4), np.arange(4, 9)) is None
    assert ExcessMasks.of(read, np.arange(4, 9), np.arange(4)) is not None
    assert ExcessMasks.of(read, np.arange(4), np.arange(0)) is None


def save_artifact(run, name, target, **arrays_):
    folder = run.store.path / "corrections" / name
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_text(json.dumps({"target": target}))
    np.savez_compressed(folder / "artifact.npz", members=np.arange(3), **arrays_)
    return folder


def test_the_place_that_a_correction_saved_goes_before_relevance(made):
    opacity = np.zeros((1, 48, 48), np.float32)
    opacity[0, 10:14, 30:44] = 0.7
    folder = save_artifact(made, "project", 0, opacity=opacity)
    assert list(made.masks(0)) == ["place", "window", "relevance"] and "place" not in made.masks(1)
    source, mask = made.mask_of(0, 0, (SIDE, SIDE))
    assert source == "place"
    np.testing.assert_array_equal(mask, opacity[0, 1::2, 1::2] > 0)  # a pixel of the file is two by two of the model
    further = save_artifact(made, "0-artifact-2-auto", 0, opacity=np.ones((1, 48, 48), np.float32))
    (further / "artifact.json").write_text(json.dumps({"target": 0, "artifact": 2}))
    os.utime(further / "artifact.json", ns=((folder / "artifact.json").stat().st_mtime_ns + 10**8,) * 2)
    np.testing.assert_array_equal(made.mask_of(0, 0, (SIDE, SIDE))[1], mask)  # that of another artifact is not shown
    newer = save_artifact(made, "augment", 0, opacity=(opacity == 0).astype(np.float32))
    os.utime(newer / "artifact.json", ns=((folder / "artifact.json").stat().st_mtime_ns + 10**9,) * 2)
    assert made.mask_of(0, 0, (SIDE, SIDE))[1].sum() == SIDE**2 - mask.sum()


def test_a_saved_place_that_varies_is_cut_out_of_relevance(made):
    opacity = (np.random.default_rng(0).random((4, 24, 24)) > 0.5).astype(np.float32)
    save_artifact(made, "project", 0, opacity=opacity, background=np.zeros((G, G)))
    mask = made.mask_of(0, 0, (SIDE, SIDE), "relevance")[1]
    wanted = ExcessMasks(np.zeros((G, G)), made.relevance_maps)(0, (SIDE, SIDE))
    assert list(made.masks(0)) == ["window", "relevance"]
    np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize("damage", ["cut", "empty", "shape", "record", "none"])
def test_a_damaged_artifact_is_none(made, damage):
    arrays_ = {} if damage == "none" else {"opacity": np.ones((4,) if damage == "shape" else (1, 4, 4), np.float32)}
    folder = save_artifact(made, "project", 0, **arrays_)
    file = folder / ("artifact.json" if damage == "record" else "artifact.npz")
    if damage in ("cut", "empty", "record"):
        file.write_bytes(file.read_bytes()[: {"cut": 90, "empty": 0, "record": 5}[damage]])
    assert list(made.masks(0)) == ["window", "relevance"]


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    area=st.builds(
        SeenArea,
        st.sampled_from(EXTENT_UNITS),
        *[st.sampled_from([0.5, 0.875, 1.0, 13.0])] * 2,
        *[st.sampled_from([0.0, 0.5, 1.0])] * 2,
    ),
    window=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_mask_lies_within_what_the_model_sees(size, area, window):
    """Against the window's corners in pixels of the file, one by one."""
    mask = mask_in_file(WindowMasks({3: window}), 3, size, area)
    unit = {"side": size, "shorter": [min(size)] * 2, "longer": [max(size)] * 2, "pixels": [1, 1]}[area.unit]
    wide, high = area.width * unit[0], area.height * unit[1]
    left, top = area.left * (size[0] - wide), area.top * (size[1] - high)
    y, x = top + window[0] * high, left + window[1] * wide
    ends = y + min(window[2], 1 - window[0]) * high, x + min(window[3], 1 - window[1]) * wide
    first, last = (max(y, 0), max(x, 0)), (min(ends[0], size[1]), min(ends[1], size[0]))
    if mask is None:  # nothing of it lies on the file, or less than a pixel
        assert min(b - a for a, b in zip(first, last, strict=True)) <= 1
    else:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert [rows[0], columns[0]] == pytest.approx(first, abs=2)
        assert [rows[-1] + 1, columns[-1] + 1] == pytest.approx(last, abs=2)
        assert rows[0] >= top - 1 and rows[-1] <= top + high and columns[0] >= left - 1 and columns[-1] <= left + wide
        assert mask.sum() == len(rows) * len(columns)
    assert mask_in_file(WindowMasks({}), 3, size, area) is None
    assert mask_in_file(PlaceMasks(np.zeros((4, 4), bool)), 3, size, area) is None


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_padded_is_drawn_and_masked_where_pillow_pads_it(made, turned):
    """A file of 24 x 48 pixels, and the square that ImageOps.pad makes of it."""
    made.store.update_manifest(seen=SeenArea("longer").to_json())
    greys = np.random.default_rng(1).integers(0, 255, (2 * SIDE // 8, SIDE // 8)).astype(np.uint8)
    pixels = np.kron(greys, np.ones((8, 8), np.uint8))  # in the blocks of JPEG
    picture = Image.fromarray(pixels.T if turned else pixels).convert("RGB")
    picture.save(made.images().file(0))
    padded = ImageOps.pad(picture, (2 * SIDE, 2 * SIDE))
    drawn = Image.open(io.BytesIO(made.draw(0, "window", 2 * SIDE, 1)))  # class 1 has no window: the outline is missing
    assert drawn.size == padded.size
    off = np.abs(np.asarray(drawn, float) - np.asarray(padded, float))
    assert off.max() <= 4  # the file is drawn as JPEG
    top, left, height, width = (round(2 * SIDE * share) for share in WINDOW)
    square = np.zeros((2 * SIDE, 2 * SIDE), bool)
    square[top : top + height, left : left + width] = True
    inside = square[SIDE // 2 : -SIDE // 2] if turned else square[:, SIDE // 2 : -SIDE // 2]
    np.testing.assert_array_equal(made.mask_of(0, 0, picture.size, "window")[1], inside)


def test_a_long_strip_padded_to_a_square_takes_no_square_of_memory():
    """40,000 x 12 pixels are 1.6 gigapixels as a square."""
    strip = Image.new("L", (40_000, 12), 255)
    seen = np.asarray(crop_seen(strip, SeenArea("longer")))
    assert seen.size <= 2 << 20 and seen.shape[0] == seen.shape[1]
    shapes = []

    def masks(row, shape):
        shapes.append(shape)
        return np.ones(shape, bool)

    mask = mask_in_file(masks, 0, strip.size, SeenArea("longer"))
    assert mask.shape == (12, 40_000) and mask.all() and np.prod(shapes[0]) <= 2 << 20


def test_masks_are_exported_by_their_source(made):
    app = make_app(made)
    assert ask(app, "/api/classes/0/masks").json["masks"] == ["window", "relevance"]
    for source in ("relevance", "window"):
        with zipfile.ZipFile(io.BytesIO(ask(app, f"/api/classes/0/masks.zip?source={source}").content)) as archive:
            pictures = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()]
        found = ask(app, f"/api/classes/0/coco.json?source={source}").json["annotations"]
        assert len(pictures) == len(found) == CARRIERS and {one["mask_source"] for one in found} == {source}
        for row, (picture, one) in enumerate(zip(pictures, found, strict=True)):
            mask = picture == 255
            np.testing.assert_array_equal(mask, made.mask_of(0, row, (SIDE, SIDE), source)[1])
            assert one["area"] == mask.sum() and set(np.unique(picture)) == {0, 255}
            left, top, width, height = one["bbox"]
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            assert mask[top].any() and mask[:, left].any() and mask[top + height - 1].any()
            if source == "relevance":
                np.testing.assert_array_equal(decode(one["segmentation"]), mask)
            else:
                assert one["bbox"] == [WINDOW[1] * SIDE, WINDOW[0] * SIDE, TAG, TAG]
                assert one["segmentation"] == [[left, top, left + TAG, top, left + TAG, top + TAG, left, top + TAG]]
    assert ask(app, "/api/classes/0/masks.zip?source=place").status == 400
    assert ask(app, "/api/classes/0/coco.json?source=passwd").status == 400
    assert ask(app, "/api/images/0/picture?kind=mask&target=0&source=place").status == 400


def test_a_masked_picture_is_dark_beyond_the_mask(made):
    answer = ask(make_app(made), f"/api/images/0/picture?kind=masked&target=0&source=relevance&side={SIDE}")
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L")).astype(int)
    file = np.asarray(Image.open(made.images().file(0)).convert("L")).astype(int)
    mask = made.mask_of(0, 0, (SIDE, SIDE), "relevance")[1]
    far = ~np.asarray(Image.fromarray(mask).resize((SIDE, SIDE)))
    far[2:10, 8:20] = False
    assert drawn[far].mean() < 0.5 * file[far].mean()
    plain = ask(make_app(made), f"/api/images/{EACH}/picture?kind=masked&target=1&side={SIDE}")
    assert plain.status == 200  # an image without a mask is shown as it is


@pytest.mark.parametrize(("n", "count"), [(1, 1), (511, 511), (512, 512), (513, None), (700, None), (100_000, 512)])
def test_runs_of_rows_are_chosen_at_equal_steps(n, count):
    """From the first to the last; of few rows runs overlap, and are fewer than asked for."""
    rows = 3 * np.arange(n)
    chosen = explored_run.choose_runs(rows, 512)
    assert set(chosen) <= set(rows) and (np.diff(chosen) > 0).all()
    assert {rows[0], rows[-1]} <= set(chosen)
    assert len(chosen) == count if count else 448 <= len(chosen) <= 512


def test_maps_that_hardly_conserve_are_hints(made):
    assert explored_run.ABSORBED_SHARE == ABSORBED_BOUND
    assert not ask(make_app(made), "/api/classes/0").json["hints"]  # .02 absorbed
    images = made.images()
    for share, hints in ((0.91, True), (-0.95, True), (0.89, False), (None, False)):
        object.__setattr__(images, "absorbed", share)
        assert made.maps_are_hints is hints
