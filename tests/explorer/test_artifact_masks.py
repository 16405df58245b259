"""Masks of the artifacts of classes, by relevance, by a saved correction, by windows."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.explorer.made_run import CARRIERS, EACH, SIDE, G, write_run

from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.pixel_masks import ExcessMasks
from klarsicht.ground.run_folder.decisions import Change


def slow_mask_by_relevance(explored, row, shape):
    """The definition, literally: shares, smoothed, less the mean of others' shares; above half of the peak."""
    share = lambda one: gaussian_filter(np.maximum(one, 0).astype(float) / np.maximum(one, 0).sum(), 1.0)  # noqa: E731
    others = [share(explored.maps.of([other])[0]) for other in range(CARRIERS, EACH)]
    excess = share(explored.maps.of([row])[0]) - sum(others) / len(others)
    wide = np.asarray(Image.fromarray(excess.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR))
    return wide > wide.max() / 2


def test_relevance_beyond_that_of_other_images_is_the_mask_of_members(explored):
    masks = explored.masks
    assert list(masks.by_source(0)) == ["window", "relevance"] and list(masks.by_source(2)) == ["relevance"]
    for row in range(CARRIERS):
        source, mask = masks.of_image(0, row, (SIDE, SIDE), "relevance")
        assert source == "relevance" and masks.of_image(0, row, (SIDE, SIDE))[0] == "window"  # a detector found it
        np.testing.assert_array_equal(mask, slow_mask_by_relevance(explored, row, (SIDE, SIDE)))
    centre = np.argwhere(mask).mean(0)
    np.testing.assert_allclose(centre, [2.5 * SIDE / G - 0.5, 4.5 * SIDE / G - 0.5], atol=0.5)  # of cell (2, 4)


def test_of_a_cluster_relevance_is_the_mask(tmp_path):
    """Nothing was detected: what the images share lies where their relevance exceeds that of the others."""
    masks = ExploredRun.of(write_run(tmp_path, quantified=False)).masks
    assert list(masks.by_source(0)) == ["relevance"] and masks.of_image(0, 0, (SIDE, SIDE))[0] == "relevance"


def test_the_masks_follow_the_decided_members(explored):
    log, before = explored.decisions.log, explored.masks.of_image(0, 0, (SIDE, SIDE), "relevance")[1]
    log.append(Change(0, "tagged", base=(*range(EACH),)), "ada")
    assert list(explored.masks.by_source(0)) == ["window"]  # no image is left to compare with
    log.append(Change(0, "tagged", base=(*range(EACH),), remove=(*range(3, EACH),)), "ada")
    assert explored.masks.of_image(0, 0, (SIDE, SIDE), "relevance")[1].sum() <= before.sum()


def save_artifact(run, name, target, **arrays_):
    folder = run.reader.store.path / "corrections" / name
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_text(json.dumps({"target": target, "artifact": 1}))
    np.savez_compressed(folder / "artifact.npz", members=np.arange(3), **arrays_)
    return folder


def test_the_place_that_a_correction_saved_goes_before_relevance(explored):
    opacity = np.zeros((1, 48, 48), np.float32)
    opacity[0, 10:14, 30:44] = 0.7
    folder = save_artifact(explored, "project", 0, opacity=opacity)
    masks = explored.masks
    assert list(masks.by_source(0)) == ["place", "window", "relevance"] and "place" not in masks.by_source(1)
    source, mask = masks.of_image(0, 0, (SIDE, SIDE))
    assert source == "place"
    np.testing.assert_array_equal(mask, opacity[0, 1::2, 1::2] > 0)  # a pixel of the file is two by two of the model
    further = save_artifact(explored, "0-artifact-2-auto", 0, opacity=np.ones((1, 48, 48), np.float32))
    (further / "artifact.json").write_text(json.dumps({"target": 0, "artifact": 2}))
    os.utime(further / "artifact.json", ns=((folder / "artifact.json").stat().st_mtime_ns + 10**8,) * 2)
    np.testing.assert_array_equal(masks.of_image(0, 0, (SIDE, SIDE))[1], mask)  # that of another artifact is not shown
    newer = save_artifact(explored, "augment", 0, opacity=(opacity == 0).astype(np.float32))
    os.utime(newer / "artifact.json", ns=((folder / "artifact.json").stat().st_mtime_ns + 10**9,) * 2)
    assert masks.of_image(0, 0, (SIDE, SIDE))[1].sum() == SIDE**2 - mask.sum()


def test_a_saved_place_that_varies_is_cut_out_of_relevance(explored):
    opacity = (np.random.default_rng(0).random((4, 24, 24)) > 0.5).astype(np.float32)
    save_artifact(explored, "project", 0, opacity=opacity, background=np.zeros((G, G)))
    mask = explored.masks.of_image(0, 0, (SIDE, SIDE), "relevance")[1]
    wanted = ExcessMasks(np.zeros((G, G)), explored.maps.of)(0, (SIDE, SIDE))
    assert list(explored.masks.by_source(0)) == ["window", "relevance"]
    np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize("damage", ["cut", "empty", "shape", "record", "none"])
def test_a_damaged_artifact_is_none(explored, damage):
    arrays_ = {} if damage == "none" else {"opacity": np.ones((4,) if damage == "shape" else (1, 4, 4), np.float32)}
    folder = save_artifact(explored, "project", 0, **arrays_)
    file = folder / ("artifact.json" if damage == "record" else "artifact.npz")
    if damage in ("cut", "empty", "record"):
        file.write_bytes(file.read_bytes()[: {"cut": 90, "empty": 0, "record": 5}[damage]])
    assert list(explored.masks.by_source(0)) == ["window", "relevance"]
