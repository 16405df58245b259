"""The record of an artifact whose truth is known: detector, place, and nothing learned from what is shown later."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.audit.conftest import picture, rewrite_rows, write_corpus
from tests.audit.shortcut import FACTS

from klarsicht.audit.cleaning.artifacts import artifact, localisation
from klarsicht.audit.cleaning.artifacts.found_artifact import AuditedClass, FoundArtifact
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import audit_inputs
from klarsicht.audit.results import ranking
from klarsicht.audit.verdicts.interventions import overlay
from klarsicht.ground.errors import InputError


@pytest.fixture
def audited(tmp_path, classifier):
    write_corpus(tmp_path / "data")
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), neighbours=6, metric=("euclidean",))
    store = pipeline.run(settings, tmp_path / "run", classifier=classifier)
    audit = audit_inputs.Audit.of(settings, classifier)
    group = pipeline.make_analyses(audit, store)["euclidean"].group(1)
    labels = np.array([audit.index[label] for label in audit.corpus.labels])
    return AuditedClass(store, audit.corpus, audit.classifier, group, labels)


def members(audited):
    return np.array(ranking.read_ranking(audited.store).of("b").rows)


@pytest.mark.slow
def test_the_record_knows_members_place_and_detector(audited):
    found = artifact.build_artifact(FoundArtifact(audited, members(audited), "cluster"))
    assert found.place.fixed
    truth = np.zeros((12, 12), bool)
    truth[:4, :4] = True
    np.testing.assert_array_equal(found.place.masks[0], truth)
    np.testing.assert_allclose(found.place.colour[0][:, truth], 1, atol=1e-6)
    assert found.membership.auc > 0.99
    np.testing.assert_array_equal(found.carries, found.member)  # only the marked images carry it, of all classes
    assert {int((found.part[found.members] == part).sum()) for part in range(3)} <= {2, 3, 4, 5}


@pytest.mark.slow
def test_nothing_is_learned_from_images_that_are_shown_later(audited):
    """Every file of the parts `choose` and `show` is spoilt, and so are their rows of the store: the record is the
    same, to the bit, but for what the detector now says of them."""
    first = artifact.build_artifact(FoundArtifact(audited, members(audited), "cluster"))
    later = np.flatnonzero(first.part != splits.TRAIN)
    rng = np.random.default_rng(9)
    for row in later:
        Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)).save(audited.corpus.paths[row])
    for name in ("maps", "features", "concepts", "head"):
        values = np.asarray(audited.store.array(name)[:])
        values[later] = rng.random(values[later].shape)
        rewrite_rows(audited.store, name, 0, values)
    second = artifact.build_artifact(FoundArtifact(audited, members(audited), "cluster"))
    np.testing.assert_array_equal(first.place.opacity, second.place.opacity)
    np.testing.assert_array_equal(first.place.colour, second.place.colour)
    fit = first.part == splits.TRAIN
    np.testing.assert_array_equal(first.membership.probability[fit], second.membership.probability[fit])
    assert (first.membership.auc, first.membership.seen) == (second.membership.auc, second.membership.seen)


@pytest.mark.slow
def test_an_image_that_shows_the_artifact_at_its_place_carries_it(audited):
    """From half of the marked images the others are found by their pixels, whatever the detector says of features."""
    rows = members(audited)
    found = artifact.build_artifact(FoundArtifact(audited, rows[::2], "list"))
    seen = artifact.find_showing_rows(audited, found.place, rows[::2][found.part[rows[::2]] == splits.TRAIN])
    np.testing.assert_array_equal(np.sort(seen), rows)
    np.testing.assert_array_equal(found.membership.probability[rows], 1)
    np.testing.assert_array_equal(np.flatnonzero(found.carries), rows)


@pytest.mark.slow
def test_a_place_that_does_not_do_what_the_artifact_does_is_no_place(audited):
    """Relevance of members, overwritten, points at the corner opposite the mark: what lies there raises nothing. The
    window that members share is then the mark."""
    maps = np.asarray(audited.store.array("maps")[:])
    rows = members(audited)
    maps[rows] = 0
    maps[rows, -4:, -4:] = 1
    rewrite_rows(audited.store, "maps", 0, maps)
    truth = np.zeros((12, 12), bool)
    truth[:4, :4] = True
    np.testing.assert_array_equal(
        artifact.build_artifact(FoundArtifact(audited, rows, "cluster")).place.masks[0], truth
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localisation, "find_shared_windows", lambda *_: None)
        assert artifact.build_artifact(FoundArtifact(audited, rows, "cluster")).place is None
    region = np.zeros((12, 12), bool)
    region[-4:, -4:] = True  # nor is it one if a person says so
    with pytest.raises(InputError, match="the mask misses most of the artifact"):
        artifact.build_artifact(FoundArtifact(audited, rows, "cluster"), region=region)


@pytest.mark.slow
def test_members_that_share_nothing_are_no_artifact(tmp_path, classifier):
    """A third of a class, drawn at random: no detector, out of fold, tells it from the rest."""
    write_corpus(tmp_path / "data", per_class=240, share=0)
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), neighbours=6, metric=("euclidean",))
    store = pipeline.run(settings, tmp_path / "run", classifier=classifier)
    audit = audit_inputs.Audit.of(settings, classifier)
    group = pipeline.make_analyses(audit, store)["euclidean"].group(1)
    labels = np.array([audit.index[label] for label in audit.corpus.labels])
    audited = AuditedClass(store, audit.corpus, audit.classifier, group, labels)
    drawn = np.random.default_rng(0).choice(group.rows, 80, replace=False)
    with pytest.raises(InputError, match=r"like the others of the class.*half is chance"):
        artifact.build_artifact(FoundArtifact(audited, drawn, "list"))


@pytest.mark.slow
def test_samples_of_different_parts_share_no_source(audited):
    case = artifact.build_artifact(FoundArtifact(audited, members(audited), "cluster")).case(audited)
    rng = np.random.default_rng(0)
    fit, choose, show = (case.sample(part, 100, rng) for part in range(3))
    for one, other in ((fit, choose), (fit, show), (choose, show)):
        splits.check_disjoint_sources(one.sources, other.sources)
    assert show.member.sum() + show.fair_draw.sum() == len(show)
    assert not (show.member & show.fair_draw).any()


@pytest.mark.slow
def test_an_image_that_cannot_be_read_any_more_is_named(audited):
    case = artifact.build_artifact(FoundArtifact(audited, members(audited), "cluster")).case(audited)
    shown = np.flatnonzero((case.part == splits.TEST) & case.clean)
    Path(audited.corpus.paths[shown[0]]).write_bytes(b"no image")
    found = case.sample(splits.TEST, 1000, np.random.default_rng(0))
    ((path, why),) = found.skipped
    assert path == audited.corpus.paths[shown[0]]
    assert "cannot decode" in why
    assert len(found) == (case.part == splits.TEST).sum() - 1


@pytest.mark.slow
def test_a_saved_record_is_the_record(audited, tmp_path):
    found = artifact.build_artifact(FoundArtifact(audited, members(audited), "cluster"))
    found.save(tmp_path / "a", audited.corpus)
    again = artifact.load_artifact(tmp_path / "a")
    assert again.to_json() == found.to_json()
    np.testing.assert_array_equal(again.place.colour, found.place.colour)
    np.testing.assert_array_equal(again.membership.probability, found.membership.probability)
    with pytest.raises(InputError, match="no artifact"):
        artifact.load_artifact(tmp_path)


@pytest.mark.parametrize("name", ["artifact.npz", "artifact.json"])
def test_a_damaged_record_is_refused_and_beside_its_correction_by_name(audited, tmp_path, name):
    found = artifact.build_artifact(FoundArtifact(audited, members(audited), "cluster"))
    found.save(tmp_path, audited.corpus)
    whole = (tmp_path / name).read_bytes()
    for bit in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:bit])
        with pytest.raises(InputError, match="no artifact in this folder"):
            artifact.load_artifact(tmp_path)
    (tmp_path / name).write_bytes(whole)
    packages.save_correction(tmp_path, JointCorrection(), FACTS)
    artifact.load_artifact(tmp_path)
    for bit in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:bit] + bytes([whole[bit] ^ 1]) + whole[bit + 1 :])
        with pytest.raises(InputError, match=name):
            artifact.load_artifact(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"no {name}"):
        artifact.load_artifact(tmp_path)


def with_windows(audited, rows, places, extent=(3, 3)):
    shares = np.asarray(places, float) / 12
    return FoundArtifact(audited, rows, "detector: texture", "tile", shares, (extent[0] / 12, extent[1] / 12))


@pytest.mark.slow
def test_a_detectors_window_inside_the_mark_gives_the_whole_mark_to_the_pixel(audited):
    """The window is 3 x 3 somewhere inside of the 4 x 4 mark; relevance is spoilt and could not say where it lies."""
    rows = members(audited)
    maps = np.asarray(audited.store.array("maps")[:])
    rewrite_rows(audited.store, "maps", 0, np.random.default_rng(0).random(maps.shape).astype(maps.dtype))
    truth = np.zeros((12, 12), bool)
    truth[:4, :4] = True
    found = artifact.build_artifact(with_windows(audited, rows, np.zeros((len(rows), 2))))
    assert found.place.fixed
    np.testing.assert_array_equal(found.place.masks[0], truth)
    without = artifact.build_artifact(FoundArtifact(audited, rows, "detector: texture", "tile")).place
    np.testing.assert_array_equal(without.masks[0], truth)  # by the window that members share


@pytest.mark.slow
def test_windows_that_do_not_do_what_the_artifact_does_are_not_believed(audited):
    """Windows in the opposite corner show nothing that raises the class: relevance says where the mark lies."""
    rows = members(audited)
    found = artifact.build_artifact(with_windows(audited, rows, np.full((len(rows), 2), 8)))
    assert found.place.fixed
    assert found.place.masks[0][:4, :4].all() and not found.place.masks[0][8:, 8:].any()


def audit_moving_mark(folder, classifier, mark, carriers=24):
    """A class of 60 images of which the first have a mark (5, 5, 3) at random places; their rows, places and images."""
    rng, places, images = np.random.default_rng(0), [], []
    for label, name in enumerate("abc"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(60):
            pixels = np.asarray(picture(label, False, rng)).copy()
            if name == "b" and i < carriers:
                a, b = rng.integers(0, 8, 2)
                pixels[a : a + 5, b : b + 5] = mark
                places.append((a, b))
                images.append(pixels.transpose(2, 0, 1) / np.float32(255))
            Image.fromarray(pixels).save(folder / "data" / name / f"{i:03d}.png")
    settings = AuditSettings(model="object", data=str(folder / "data"), neighbours=6, metric=("euclidean",))
    store = pipeline.run(settings, folder / "run", classifier=classifier)
    audit = audit_inputs.Audit.of(settings, classifier)
    group = pipeline.make_analyses(audit, store)["euclidean"].group(1)
    audited = AuditedClass(store, audit.corpus, classifier, group, np.repeat(np.arange(3), 60))
    return audited, np.array([audit.corpus.keys.index(f"b/{i:03d}.png") for i in range(carriers)]), places, images


@pytest.mark.slow
def test_a_mark_at_varying_places_is_cut_out_to_the_pixel_from_a_list_of_members(tmp_path, classifier):
    """Nobody says where it lies; relevance of this network has as many cells as the image has pixels, and is spoilt."""
    mark = np.full((5, 5, 3), 255, np.uint8)
    mark[2, 2] = mark[1, 3] = 0
    audited, rows, _, _ = audit_moving_mark(tmp_path, classifier, mark)
    store = audited.store
    maps = np.asarray(store.array("maps")[:])
    rewrite_rows(store, "maps", 0, np.random.default_rng(0).random(maps.shape).astype(maps.dtype))
    place = artifact.build_artifact(FoundArtifact(audited, rows, "list")).place
    assert not place.fixed and len(place.masks) >= 6
    for mask, colour in zip(place.masks, place.colour, strict=True):
        a, b = np.argwhere(mask)[0]
        np.testing.assert_array_equal(np.argwhere(mask), np.argwhere(np.ones((5, 5))) + np.array([a, b]))
        np.testing.assert_allclose(colour[:, a : a + 5, b : b + 5], mark.transpose(2, 0, 1) / 255, atol=1e-6)
    dark = overlay.Overlay(
        np.pad(np.ones((1, 4, 4), np.float32), ((0, 0), (0, 8), (0, 8))), np.zeros((1, 3, 12, 12), "f")
    )
    with pytest.MonkeyPatch.context() as patch:  # a fixed place that raises nothing, whatever was asked of it
        patch.setattr(localisation.Localisation, "overlay_from_relevance", lambda *_: dark)
        assert not artifact.build_artifact(FoundArtifact(audited, rows, "list")).place.fixed


@pytest.mark.slow
def test_new_draws_of_a_mark_at_varying_places_are_those_of_images_that_nothing_was_fitted_on(tmp_path, classifier):
    """An example has the pixels of the image that lends it, by which that is known."""
    audited, rows, places, images = audit_moving_mark(tmp_path, classifier, np.full((5, 5, 3), 255, np.uint8))
    found = artifact.build_artifact(with_windows(audited, rows, places, (5, 5)))
    lenders = []
    for which, part in ((found.place, splits.TRAIN), (found.new_draws, splits.TEST)):
        numbers = []
        for mask, colour in zip(which.masks, which.colour, strict=True):
            (i,) = (i for i, image in enumerate(images) if np.allclose(image, colour, atol=1e-6))
            a, b = places[i]
            assert mask[a : a + 5, b : b + 5].all() and mask.sum() < 72
            numbers.append(i)
        assert sorted(numbers) == [i for i in range(24) if found.part[rows[i]] == part]
        lenders.append({*numbers})
    assert not lenders[0] & lenders[1]
    found.save(tmp_path, audited.corpus)
    again = artifact.load_artifact(tmp_path)
    for name, values in found.new_draws.arrays().items():
        np.testing.assert_array_equal(values, again.new_draws.arrays()[name])
    assert again.to_json() == found.to_json()


@pytest.mark.slow
def test_a_few_listed_images_tell_the_place_together_and_each_part_lends_its_own(tmp_path, classifier):
    """Eight are listed, of which three are to fit on. Relevance of this network is spoilt."""
    mark = np.full((5, 5, 3), 255, np.uint8)
    mark[2, 2] = mark[1, 3] = 0
    audited, rows, places, images = audit_moving_mark(tmp_path, classifier, mark, carriers=8)
    maps = np.asarray(audited.store.array("maps")[:])
    rewrite_rows(audited.store, "maps", 0, np.random.default_rng(0).random(maps.shape).astype(maps.dtype))
    found = artifact.build_artifact(FoundArtifact(audited, rows, "list: eight.txt"))
    assert (found.part[rows] == splits.TRAIN).sum() == 3
    parts = (found.place, splits.TRAIN), (found.choice_draws, splits.VALIDATION), (found.new_draws, splits.TEST)
    for draws, part in parts:
        lent = [i for i in range(8) if found.part[rows[i]] == part]
        assert len(draws.masks) == len(lent)
        for i, mask, colour in zip(lent, draws.masks, draws.colour, strict=True):
            np.testing.assert_allclose(colour, images[i], atol=1e-6)
            square = np.argwhere(np.ones((5, 5))) + np.array(places[i])
            np.testing.assert_array_equal(np.argwhere(mask), square)
    found.save(tmp_path, audited.corpus)
    again = artifact.load_artifact(tmp_path)
    np.testing.assert_array_equal(again.choice_draws.opacity, found.choice_draws.opacity)
    assert again.to_json() == found.to_json()


def test_windows_that_vary_lend_each_members_own_pixels():
    rng = np.random.default_rng(0)
    others = rng.random((20, 3, 12, 12)).astype(np.float32)
    images, corners = rng.random((20, 3, 12, 12)).astype(np.float32), rng.integers(0, 9, (20, 2))
    place = overlay.overlay_at_windows(images, others, corners, (3, 3), rng.random((20, 6, 6)))
    assert not place.fixed and place.background is not None
    for mask, colour, image, (a, b) in zip(place.masks, place.colour, images, corners, strict=True):
        assert mask.sum() == 9 and mask[a : a + 3, b : b + 3].all()
        np.testing.assert_array_equal(colour, image)
