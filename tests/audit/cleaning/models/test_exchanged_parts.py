"""Parts of whole classes, on the network that takes a white corner for class `b`, and on pictures of one colour."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare
from tests.audit.conftest import SIDE, network, write_corpus
from tests.audit.results.test_sufficiency import evidence_of

from klarsicht import audit
from klarsicht.audit.cleaning.artifacts import artifact
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.models import clean_model, evaluation
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.exchanged_parts import ExchangedParts, read_own_places
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.sufficiency import SUFFICIENCY_FILE, ClassProfile, Sufficiency
from klarsicht.audit.verdicts.interventions.image_parts import border_mask, corner_mask
from klarsicht.ground.errors import InputError, StoreError, UsageError
from klarsicht.ground.run_folder.store import RunStore

CORNER = "top left"
CLASSES, EACH, WIDE = 3, 6, 20


def of(module):
    return load_model(module, classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A finished run in which every image of `b` has the white corner, and what `audit shortcuts` would note."""
    folder = tmp_path_factory.mktemp("marked")
    write_corpus(folder / "data", share=1.0)
    store = pipeline.run(
        AuditSettings(model="object", data=str(folder / "data")), folder / "run", classifier=of(network())
    )
    profiles = [
        ClassProfile(name, k, 60, 1.0, 0.9, 1.0, (evidence_of("border"), evidence_of(CORNER, noted=name == "b")))
        for k, name in enumerate("abc")
    ]
    store.write_json(SUFFICIENCY_FILE, Sufficiency(tuple(profiles), 0.05, 60).to_json())
    return store


def logits(module, images, correction=None):
    return compute_logits(of(module), images, correction)


def shown(label, white):
    """Images of a label without noise, some with the white corner."""
    image = torch.full((3, SIDE, SIDE), 0.1)
    image[label] = 0.5
    if white:
        image[:, :4, :4] = 1
    return image


@pytest.mark.slow
def test_clean_images_of_the_class_have_the_corner_of_another(marked):
    run = AuditedRun.of(marked.path, classifier=of(network()))
    found, audited = run.part_artifact("b", [CORNER])
    case = found.case(audited)
    rows = np.flatnonzero((case.labels == 1) & (case.part == splits.TEST))
    read = case.read(rows, np.ones(len(rows), bool)).images
    corner = corner_mask(False, False)(SIDE, SIDE)
    for row, image in zip(rows, read, strict=True):
        whole = np.asarray(Image.open(run.audit.corpus.paths[row]), np.uint8)
        assert (np.rint(image.numpy().transpose(1, 2, 0) * 255)[~corner] == whole[~corner]).all()
        assert whole[corner].min() == 255 and image.numpy()[:, corner].max() < 1
    assert not len(found.members) and not found.carries.any()


@pytest.mark.parametrize("method", ["oblique", "augment"])
def test_the_part_no_longer_tells_the_class(marked, tmp_path, method):
    """Putting the corner on others does what it did before to a tenth or, by training, to half; without it the class is
    not told worse."""
    asked = CleanSettings(method=method, layer="last" if method == "oblique" else None, images=60, steps=150, rate=0.02)
    found = clean_model.clean(marked.path, "b", asked, out=tmp_path / "c", part=[], classifier=of(network()))
    assert found.artifact.planted.parts == (CORNER,) and "top left" in found.artifact.origin
    assert found.judgement.before.rise.low > 0.1
    assert found.judgement.remaining < (0.1 if method == "oblique" else 0.5)
    assert found.judgement.after.affected.value >= found.judgement.before.affected.value
    plain, after = (
        logits(network(), [shown(0, False), shown(0, True)], one) for one in (None, found.choice.correction)
    )
    rise = [y[1, 1] - y[1].mean() - (y[0, 1] - y[0].mean()) for y in (plain, after)]
    assert rise[1] < 0.6 * rise[0]
    kept = artifact.load_artifact(found.folder)
    np.testing.assert_array_equal(kept.planted.donors, found.artifact.planted.donors)
    seen = evaluation.evaluate(marked.path, found.folder, classifier=of(network()), images=40)
    assert abs(seen.after.outcome.rise.value) < 0.6 * seen.before.outcome.rise.value


def test_what_cannot_be_exchanged_is_refused(marked, tmp_path):
    def clean(name, part, **more):
        return clean_model.clean(marked.path, name, CleanSettings(), part=part, classifier=of(network()), **more)

    with pytest.raises(UsageError, match="no part of this class is flagged"):
        clean("a", [])
    with pytest.raises(UsageError, match="unknown part"):
        clean("b", ["rim"])
    with pytest.raises(UsageError, match="no background to exchange"):
        clean("b", ["background"])
    with pytest.raises(UsageError, match="`part"):
        clean("b", [CORNER], kind="tag")


def coloured():
    """Pictures of two colours, of the class and of its own, and of two sizes, as (picture, label, number)."""
    return [
        (Image.new("RGB", (WIDE + 4 * (i % 2), WIDE), (50 * k + 20, 10 * i, 0)), k, CLASSES * i + k)
        for i in range(EACH)
        for k in range(CLASSES)
    ]


def labels_of(pictures):
    return [label for _, label, _ in pictures]


def test_the_border_of_a_picture_is_that_of_another_one_and_says_nothing_of_the_class():
    """Colours of borders against labels: of another picture than its own, each class as often as it has others."""
    pictures, drawn = coloured(), np.zeros((CLASSES, CLASSES))
    found = ExchangedParts(pictures, labels_of(pictures), ["border"])
    torch.manual_seed(0)
    for i, (picture, label, number) in list(enumerate(pictures)) * 60:
        changed, *rest = found[i]
        levels, rim = np.asarray(changed), border_mask(picture.height, picture.width)
        assert changed.size == picture.size and rest == [label, number]
        assert (levels[~rim] == np.asarray(picture)[~rim]).all()
        (colour,) = np.unique(levels[rim][:, 0])
        drawn[label, (int(colour) - 20) // 50] += 1
    expected = 60 * EACH * (EACH - np.eye(CLASSES)) / (CLASSES * EACH - 1)
    assert chisquare(drawn.ravel(), expected.ravel()).pvalue > 0.001


def test_all_parts_are_those_of_one_picture():
    pictures = coloured()
    found = ExchangedParts(pictures, labels_of(pictures), ["top left", "bottom right"])
    torch.manual_seed(0)
    for i, (picture, _, _) in enumerate(pictures):
        levels, plain = np.asarray(found[i][0]), np.asarray(picture)
        assert (levels[0, 0] == levels[-1, -1]).all() and (levels[0, 0] != plain[0, 0]).any()
        assert (levels[0, -1] == plain[0, -1]).all() and (levels[-1, 0] == plain[-1, 0]).all()


def test_so_many_pictures_are_changed_as_were_asked_for_and_the_seed_says_which():
    pictures = coloured()
    found = ExchangedParts(pictures, labels_of(pictures), ["border"], share=0.3)

    def changes():
        torch.manual_seed(3)
        return [np.asarray(found[i % len(found)][0]).tobytes() for i in range(600)]

    plain = [np.asarray(pictures[i % len(found)][0]).tobytes() for i in range(600)]
    first = changes()
    changed = sum(a != b for a, b in zip(first, plain, strict=True))
    assert abs(changed - 180) < 3.3 * np.sqrt(600 * 0.3 * 0.7)
    assert changes() == first


def test_grey_pictures_and_arrays_stay_what_they_are_and_the_transform_comes_last():
    arrays = [(np.full((WIDE, WIDE), 90 * k, np.uint8), k) for k in (0, 1)]
    found = ExchangedParts(
        arrays, [0, 1], ["border"], share=1.0, transform=lambda picture: (picture.mode, picture.size)
    )
    assert found[0] == (("L", (WIDE, WIDE)), 0)


@pytest.mark.parametrize(
    "picture",
    [
        np.full((8, 8), 300, np.uint16), np.full((8, 8, 3), 0.5), np.zeros((8, 8, 4), np.uint8),
        Image.fromarray(np.full((8, 8), 300, np.uint16)),
    ],
)  # fmt: skip
def test_more_than_eight_bits_are_refused_and_not_cut_down(picture):
    pairs = [(picture, 0), (picture, 1)]
    with pytest.raises(InputError, match="cannot be exchanged"):
        ExchangedParts(pairs, [0, 1], ["border"])[0]


def with_squares():
    """Pictures of a square on one level, (picture, label), and where the square is; class 1 has four times as many, and
    of the last picture no square is known."""
    rng, pairs, own = np.random.default_rng(0), [], np.zeros((11, WIDE, WIDE), bool)
    for i in range(11):
        label, levels = int(i >= 2), np.full((WIDE, WIDE, 3), 10 * i + 5, np.uint8)
        a, b = rng.integers(0, WIDE - 7, 2)
        levels[a : a + 7, b : b + 7] = 200 + i
        own[i, a : a + 7, b : b + 7] = i < 10
        pairs.append((Image.fromarray(levels), label))
    return pairs, own


def test_surroundings_are_those_of_another_picture_of_any_class_and_its_square_is_gone():
    pairs, own = with_squares()
    found, drawn = ExchangedParts(pairs, [label for _, label in pairs], ["surroundings"], own=own), np.zeros(11, int)
    torch.manual_seed(0)
    for i, (picture, label) in list(enumerate(pairs[:10])) * 40:
        changed, said = found[i]
        levels = np.asarray(changed)[..., 0]
        (around,) = np.unique(levels[~own[i]])  # nothing of the donor's square, and nothing of this picture's level
        inside = own[i] & (levels == 200 + i)
        assert said == label and around % 10 == 5 and around != np.asarray(picture)[~own[i]].min()
        assert set(np.unique(levels[own[i]])) <= {200 + i, around}
        assert inside.sum() in (1, 9, 25, 49)  # a rim of 0 to 3 px
        drawn[around // 10] += i > 1  # of class 1 alone, so that no picture is its own donor in class 0
    assert drawn[10] == 0
    assert chisquare([drawn[:2].sum(), drawn[2:].sum()]).pvalue > 0.001
    plain = np.asarray(pairs[10][0])
    assert (np.asarray(found[10][0]) == plain).all()  # without own places nothing is laid


def test_surroundings_need_own_places_of_two_classes():
    pairs, own = with_squares()
    labels = [label for _, label in pairs]
    with pytest.raises(UsageError, match=r"no surroundings to exchange.*Name the files"):
        ExchangedParts(pairs, labels, ["surroundings"])
    with pytest.raises(UsageError, match="another shape"):
        ExchangedParts(pairs, labels, ["surroundings"], own=own[:3])
    own[:2] = False
    with pytest.raises(UsageError, match=r"pictures of 1 class\(es\)"):
        ExchangedParts(pairs, labels, ["surroundings"], own=own)[5]


def test_own_places_of_files_are_those_of_the_run(marked, tmp_path):
    """Every second image was examined; the class of the last has own places four times as large as usual."""
    run = RunStore.open(shutil.copytree(marked.path, tmp_path / "run"))
    paths, places = [Path(path) for path in run.table("corpus")["path"].to_pylist()], []
    for row in range(0, len(paths), 2):
        own = np.zeros((SIDE, SIDE), bool)
        own[: 2 if row + 2 < len(paths) else SIDE, :4] = True
        places.append(
            {"row": row, "target": row % 3, "side": row % 3, "margin": 1.0, "height": SIDE, "width": SIDE}
            | {"own": np.packbits(own).tobytes()}
        )
    run.mark_done("surroundings", 0, run.write_part("places", 0, pa.Table.from_pylist(places)))
    run.finish_step("surroundings", 1)
    last = len(paths) - 1 - (len(paths) - 1) % 2
    found = read_own_places(run, [paths[4], paths[5], paths[last]])
    assert found.sum((1, 2)).tolist() == [8, 0, 0] and found[0, :2, :4].all()
    with pytest.raises(InputError, match="files that the run does not know"):
        read_own_places(run, [tmp_path / "other.png"])


def test_the_background_is_exchanged_where_it_is_that_of_both():
    """Relevance lies in the left half of one picture, and in the upper half of the other."""
    pictures = [(Image.new("RGB", (WIDE, WIDE), colour), k) for k, colour in enumerate([(9, 9, 9), (200, 0, 0)])]
    maps = np.zeros((2, WIDE, WIDE), np.float32)
    maps[0, :, : WIDE // 2] = 1
    maps[1, : WIDE // 2] = 1
    found = ExchangedParts(pictures, [0, 1], ["background"], share=1.0, maps=maps)
    levels = np.asarray(found[0][0])[..., 0]
    assert levels[-1, -1] == 200 and {levels[0, 0], levels[0, -1], levels[-1, 0]} == {9}


def test_the_parts_that_a_run_noted_are_exchanged(marked):
    paths = AuditedRun.of(marked.path, classifier=of(network())).audit.corpus.paths
    pictures = [(Image.open(path), k // 60) for k, path in enumerate(paths)]
    found = audit.exchange_parts(marked.path, pictures, [label for _, label in pictures])
    assert found.parts == (CORNER,)
    corner = corner_mask(False, False)(SIDE, SIDE)
    torch.manual_seed(0)
    white = [np.asarray(found[k][0])[corner].min() == 255 for k in range(60, 120)]  # of `b`, all white before
    assert 0.1 < np.mean(white) < 0.6
    named = audit.exchange_parts(marked.path, pictures, found.labels, paths, parts=["background"], share=1.0)
    assert named.maps.shape[0] == len(paths) and named[3][0].size == (SIDE, SIDE)
    with pytest.raises(InputError, match="does not know"):
        audit.exchange_parts(marked.path, pictures[:1], [0], ["other.png"], parts=["background"])


def test_pictures_that_cannot_be_exchanged_are_refused(marked, tmp_path):
    pictures = coloured()
    for labels, parts, more, words in (
        (labels_of(pictures), [], {}, "no part to exchange"),
        (labels_of(pictures), ["background"], {}, "no background"),
        (labels_of(pictures)[1:], ["border"], {}, "no pictures to exchange"),
        ([0] * len(pictures), ["border"], {}, "no pictures to exchange"),
        (labels_of(pictures), ["border"], {"share": 0.0}, "share"),
    ):
        with pytest.raises(UsageError, match=words):
            ExchangedParts(pictures, labels, parts, **more)
    shutil.copytree(marked.path, tmp_path / "run", ignore=shutil.ignore_patterns(SUFFICIENCY_FILE))
    with pytest.raises(StoreError):
        audit.exchange_parts(tmp_path / "run", pictures, labels_of(pictures))
