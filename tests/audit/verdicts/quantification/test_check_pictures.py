"""Pictures made with and without the tag that the network of test_quantification reads: the truth is the picture before
the tag was put on it."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.covariance import ledoit_wolf
from tests.audit.verdicts.quantification.test_quantification import BOTH, NAMES, NOISY, SIDE, TAGS, UNUSED, USED

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.checked_picture import (
    ELSEWHERE,
    CarriedArtifact,
    CheckedPicture,
    CheckedPictures,
    PictureQuestion,
)
from klarsicht.audit.results.logit_effect import FLOOR
from klarsicht.audit.results.sufficiency import SUFFICIENCY_FILE
from klarsicht.audit.results.verdicts import VERDICTS_FILE
from klarsicht.audit.results.words import name_artifact
from klarsicht.audit.verdicts.detectors.bank import DETECTORS
from klarsicht.audit.verdicts.interventions.framings import FRAMINGS
from klarsicht.audit.verdicts.interventions.image_parts import border_mask
from klarsicht.audit.verdicts.quantification import check_pictures as check_pictures_module
from klarsicht.audit.verdicts.quantification.check_pictures import (
    KnownGroup,
    KnownMeasure,
    PictureCheck,
    check_pictures,
    choose_sign,
)
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.picture_questions import ASKED_DONORS, PictureQuestions
from klarsicht.audit.verdicts.quantification.units import predictor
from klarsicht.ground.errors import InputError, StoreError, UsageError
from klarsicht.ground.pictures.seen_area import SeenArea
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics.logits import EXCLUSIVE

PICTURES = 12


def fresh(seed):
    rng = np.random.default_rng(seed)
    scenes = [gaussian_filter(rng.normal(0, 60 * s, (SIDE, SIDE, 3)), (s, s, 0)) for s in (0.8, 2, 5)]
    return np.clip(120 + sum(scenes), 0, 255), rng


def tagged(x, rng, k):
    out, (a, b) = x.copy(), rng.integers(0, SIDE - 5, 2)
    out[a : a + 5, b : b + 5] = 255 * TAGS[k == UNUSED][..., None]
    return out


@pytest.fixture(scope="module")
def checked(quantified, tmp_path_factory):
    """Each kind of picture twelve times, in one folder; what the network predicts for the plain ones."""
    run, classifier, _ = quantified
    folder, plain = tmp_path_factory.mktemp("pictures"), {}
    for i in range(PICTURES):
        x, rng = fresh(1000 + i)
        noise = np.clip(x + rng.normal(0, 40, x.shape), 0, 255)
        kinds = {"clean": x, "used": tagged(x, rng, USED), "unused": tagged(x, rng, UNUSED), "noisy": noise}
        for name, pixels in kinds.items():
            Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"{name}-{i:02d}.png")
        with torch.no_grad():
            shown = classifier.image(Image.open(folder / f"clean-{i:02d}.png"))[None]
            plain[i] = NAMES[int(classifier.logits(shown)[0].argmax())]
    (folder / "broken.png").write_bytes(b"no picture")
    found = check_pictures(run, [folder], classifier=classifier)
    return {one.path.rpartition("/")[2].removesuffix(".png"): one for one in found}, plain, found


def of(picture, k):
    return next(one for one in picture.artifacts if one.target == k)


def test_a_prediction_rests_on_the_used_tag_and_returns_to_what_it_was_without(checked):
    pictures, plain, _ = checked
    mine = [pictures[f"used-{i:02d}"] for i in range(PICTURES)]
    assert all(one.predicted == NAMES[USED] for one in mine)
    assert sum(one.rests for one in mine) >= PICTURES - 1
    back = [of(one, USED).without == plain[i] for i, one in enumerate(mine) if of(one, USED).carried]
    assert sum(back) >= 0.8 * PICTURES
    assert [one.changes for one in mine] == [one.rests for one in mine]  # no plain picture is of that class
    one = next(of(picture, USED) for picture in mine if of(picture, USED).rests)
    assert one.drop > 0
    words = f"the score of {NAMES[USED]} changes by -{one.drop:.2f} logits, and {one.without} is predicted"
    assert any(words in picture.describe() for picture in mine)


def test_the_window_is_where_the_tag_was_put(checked):
    pictures, _, _ = checked
    for i in range(PICTURES):
        x, rng = fresh(1000 + i)
        rng.normal(0, 40, x.shape)
        a, b = rng.integers(0, SIDE - 5, 2)
        top, left, height, width = of(pictures[f"used-{i:02d}"], USED).place
        assert top * SIDE <= a + 1 and left * SIDE <= b + 1
        assert (top + height) * SIDE >= a + 4 and (left + width) * SIDE >= b + 4


def test_an_unused_tag_is_carried_and_nothing_rests_on_it(checked):
    mine = [checked[0][f"unused-{i:02d}"] for i in range(PICTURES)]
    assert sum(of(one, UNUSED).carried for one in mine) >= PICTURES - 1
    assert not any(of(one, UNUSED).rests or one.rests for one in mine)


def test_noise_is_unlike_clean_images_and_carries_no_tag(checked):
    mine = [checked[0][f"noisy-{i:02d}"] for i in range(PICTURES)]
    assert sum(of(one, k).carried for one in mine for k in (USED, UNUSED)) <= 2 and not any(one.rests for one in mine)
    noise = [of(one, NOISY) for one in mine]  # of which the strongest detection is what a group shares
    assert all(one.carried and one.drop is None for one in noise) and "cannot be removed" in mine[0].describe()


def test_a_class_known_by_what_a_group_shares_is_named(checked):
    found = checked[2]
    both = [NAMES[BOTH], f"{NAMES[BOTH]} (artifact 2)"]
    assert set(found.known) | set(found.unknown) == {NAMES[USED], NAMES[UNUSED], NAMES[NOISY], *both}
    some = CheckedPictures((), found.known[:2], found.known[2:], 0.05, 500)
    assert all(name in some.limits for name in found.known) and "only a group of images shows" in some.limits


@pytest.mark.parametrize(
    ("uncompared", "target", "drop", "undecided"),
    [
        (True, 3, None, True),  # whatever it carries of others
        (False, 3, None, True),  # noise of its own class, which cannot be taken out
        (False, 3, 0.1, False),  # taken out, and the prediction stays
        (False, 2, None, False),  # noise of another class
    ],
)
def test_what_cannot_be_asked_of_the_predicted_class_is_undecided(uncompared, target, drop, undecided):
    other = CarriedArtifact("x", target, "noise", 0.01, 1.0, True, drop=drop, without="fish")
    picture = CheckedPicture("a.png", "fish", 3, 0.9, (other,), uncompared=uncompared)
    assert picture.undecided == picture.to_json()["undecided"] == undecided
    assert not picture.rests
    which = "every" if target == 3 else "the"  # of its own class the picture is compared with another artifact
    assert (f"not compared with {which} artifact of fish" in picture.describe()) == uncompared
    assert not replace(picture, artifacts=(replace(other, target=3, rests=True),)).undecided


@pytest.mark.slow
def test_a_picture_of_a_class_that_is_not_compared_says_so(quantified, monkeypatch, tmp_path):
    """The tag that the network uses, while no detection of its class can be compared with one picture."""
    run, classifier, _ = quantified
    x, rng = fresh(2000)
    Image.fromarray(tagged(x, rng, USED).round().astype(np.uint8)).save(tmp_path / "used.png")
    monkeypatch.setattr(
        check_pictures_module,
        "choose_sign",
        lambda verdict, rows, level: None if verdict.target == USED else choose_sign(verdict, rows, level),
    )
    found = check_pictures(run, [tmp_path], classifier=classifier)
    assert NAMES[USED] in found.unknown and NAMES[USED] not in found.known
    (picture,) = found
    assert (picture.predicted, picture.uncompared, picture.undecided) == (NAMES[USED], True, True)


def test_a_border_is_measured_and_taken_out_and_noise_cannot_be():
    scenes = np.stack([fresh(i)[0] for i in range(8)]).round().astype(np.uint8)
    framed = scenes.copy()
    framed[:, :2] = framed[:, -2:] = framed[:, :, :2] = framed[:, :, -2:] = 255
    border = KnownMeasure(DETECTORS["frame"], (2, 2, 2, 2))
    assert border.scores(framed).min() > border.scores(scenes).max()
    assert border.scores(border.take_out(framed[0])[None])[0] < border.scores(framed).min()
    before, after = border.take_out_elsewhere(framed[0], scenes, np.random.default_rng(0))
    assert before.shape == after.shape and (before[:, 2:-2, 2:-2] == after[:, 2:-2, 2:-2]).all()
    noise = KnownMeasure(DETECTORS["noise"], None)
    noisy = np.clip(scenes + np.random.default_rng(0).normal(0, 40, scenes.shape), 0, 255).astype(np.uint8)
    assert noise.scores(noisy).min() > noise.scores(scenes).max() and noise.take_out(noisy[0]) is None
    told = CarriedArtifact("fish", 3, "noise 0.002", 0.004, 0.5, True)
    picture = CheckedPicture("a.png", "fish", 3, 0.9, (told,))
    assert "cannot be removed" in picture.describe() and not picture.rests and not picture.changes


def test_a_group_is_told_by_the_discriminant_of_its_description():
    """Oracle: (m - o)^T S^-1 (x - (m + o) / 2) of standardised vectors, the covariance shrunk by scikit-learn; carriers
    are scored by discriminants without them, which separate less than one that knows them."""
    rng = np.random.default_rng(3)
    own, other, shown = (rng.normal(0, [1, 20, 5], (n, 3)) for n in (12, 60, 40))
    own[:, 0] += 4
    levels = [np.repeat(vectors, 3, 1).reshape(-1, 3, 3, 1) for vectors in (own, other, shown)]
    group = KnownGroup.of(lambda stack: stack.levels[:, :, 0, 0], levels[0], levels[1])
    every = np.concatenate([own, other])
    known, seen = ((x - every.mean(0)) / every.std(0) for x in (every, shown))
    m, o = known[:12].mean(0), known[12:].mean(0)
    inside = ledoit_wolf(np.concatenate([known[:12] - m, known[12:] - o]), assume_centered=True)[0]
    np.testing.assert_allclose(group.scores(levels[2]), (seen - (m + o) / 2) @ np.linalg.inv(inside) @ (m - o))
    assert group.carrier_scores().shape == (12,) and group.carrier_scores().mean() < group.scores(levels[0]).mean()
    assert np.quantile(group.carrier_scores(), 0.2) > np.quantile(group.scores(levels[1]), 0.9)
    assert group.take_out(levels[0][0]) is None is group.place(levels[0][0])


def test_constant_components_of_a_description_say_nothing():
    flat = KnownGroup.of(lambda stack: np.ones((len(stack), 4)), np.zeros((5, 2, 2, 1)), np.zeros((9, 2, 2, 1)))
    np.testing.assert_array_equal(flat.scores(np.zeros((3, 2, 2, 1))), 0)


def test_clean_pictures_carry_nothing(checked):
    mine = [checked[0][f"clean-{i:02d}"] for i in range(PICTURES)]
    assert sum(bool(one.carried) for one in mine) <= 1 and not any(one.rests for one in mine)
    assert next(one for one in mine if not one.carried).describe().startswith("no known artifact; ")


def test_other_images_and_framings_are_asked_of_every_picture(checked):
    """The border of a scene says nothing to a network that reads a tag and the means of large blocks: nothing is
    claimed without an interval above half a logit, and what was asked is said."""
    pictures, _, found = checked
    for i in range(PICTURES):
        one = pictures[f"used-{i:02d}"]
        asked = {question.part: question for question in one.questions}
        assert {"border", "spectrum", *FRAMINGS} == asked.keys() - {"outside"}
        for question in asked.values():
            assert question.n == (1 if question.is_framing else ASKED_DONORS) and 0 <= question.stays <= question.n
            lowers = question.low is not None and question.low >= FLOOR
            assert (question.lowers, question.rests) == (lowers, lowers and question.stays <= 3)
    assert "Exchanged were the border" in found.limits and '"Not shown" is no proof' in found.limits
    assert {one.reliance for one in pictures.values()} - {""} and pictures["broken"].reliance == ""


def test_an_exchanged_border_changes_the_score_as_the_weights_do():
    """A linear network whose class 0 is the border's brightness: the fall is the difference of the mean borders."""
    rng = np.random.default_rng(0)
    mask, shape = border_mask(20, 20), (20, 20, 3)
    bright, dark = ((level + rng.integers(0, 40, (8, *shape))).astype(np.uint8) for level in (180, 20))
    images = np.concatenate([bright, dark])
    groups = (Group("bright", 0, np.arange(8)), Group("dark", 1, np.arange(8, 16)))

    def predict(x):
        own = x.numpy()[:, :, mask].mean((1, 2))
        return np.stack([10 * own, 10 * (1 - own)], 1)

    scale = PixelScale(np.zeros(3, np.float32), np.ones(3, np.float32))
    read = InputsOfRows(images, scale)
    work = SimpleNamespace(
        settings=SimpleNamespace(seed=0), groups=groups, input_images=read, scale=EXCLUSIVE, pool_rows=np.arange(16),
        store=SimpleNamespace(has_array=lambda name: False, has_file=lambda name: False),
    )  # fmt: skip
    questions = PictureQuestions(work, ("bright", "dark"), np.array([], np.intp))
    own, others = questions.draw_donors(0)
    assert len(own) == len(others) == ASKED_DONORS and own.max() < 8 <= others.min()
    found = {one.part: one for one in questions.ask(bright[0], 0, predict)}
    falls = 10 * (bright[own][:, mask].mean((1, 2))[:, None] - dark[others - 8][:, mask].mean((1, 2))) / 255
    assert found["border"].drop == pytest.approx(falls.mean(), abs=1e-3)
    assert (found["border"].stays, found["border"].stays_control) == (0, ASKED_DONORS) and found[
        "border"
    ].predicted == "dark"
    assert found["border"].rests and found["border"].low < found["border"].drop < found["border"].high
    assert found["border"].unseen == pytest.approx(FLOOR + found["border"].drop - found["border"].low)
    assert all(found[name].stays == 1 for name in FRAMINGS)  # noise of one brightness, however it is framed


@dataclass(frozen=True)
class InputsOfRows:
    """Images by their row, in place of those of a run."""

    levels: np.ndarray
    pixel_scale: PixelScale

    def __call__(self, rows):
        return self.levels[rows]


def question(part, stays, low=None):
    framing = part in FRAMINGS
    return PictureQuestion(part, 1 if framing else 6, stays, None if framing else 6, "boat", 3.0, low, low and 4.0)


def test_nothing_shown_is_no_proof_and_is_said_with_its_power():
    picture = CheckedPicture(
        "a.png", "fish", 3, 0.9, (), questions=(question("border", 6, -0.5), question("enlarged", 1))
    )
    assert picture.reliance == "not shown" and picture.relies_on == ()
    assert picture.describe() == (
        "no known artifact; not shown to rest on the border (a fall below 4.0 logits would not be seen); "
        "0 of 1 framing change the prediction"
    )
    assert '"Not shown" is no proof' in CheckedPictures((picture,), (), (), 0.05, 9).limits
    assert "Nothing else was asked" in CheckedPictures((replace(picture, questions=()),), (), (), 0.05, 9).limits


def test_a_part_and_most_framings_are_said_to_be_relied_on():
    framings = [question(name, i % 4 == 3) for i, name in enumerate(FRAMINGS)]  # six of seven change it
    picture = CheckedPicture("a.png", "fish", 3, 0.9, (), questions=(question("border", 1, 2.0), *framings))
    assert picture.reliance == "the border, its framing" and not picture.rests
    said = picture.describe()
    assert "with that of other classes the score of fish falls by 3.0 logits (2.0 to 4.0), and 1 of 6 stay fish" in said
    assert "6 of 7 framings change the prediction: enlarged (boat), stretched in width (boat)" in said
    record = picture.to_json()
    assert record["relies_on"] == ["the border", "its framing"] and record["questions"][0]["stays"] == 1
    few = replace(
        picture, questions=(question("border", 1, 2.0), *(question(n, i > 0) for i, n in enumerate(FRAMINGS)))
    )
    assert few.reliance == "the border"


def test_what_is_hardly_shown_is_said():
    """Oracle: 32 of 320 pixels each way are a hundredth; 40 of 400 columns, in a square of 400, a tenth."""
    shown, _ = SeenArea("pixels", 32, 32).overlap((320, 320))
    _, filled = SeenArea("longer").overlap((40, 400))
    assert (shown, filled) == (pytest.approx(0.01), pytest.approx(0.1))
    told = CheckedPicture("a.png", "fish", 3, 0.9, (), shown=shown, filled=filled).describe()
    assert told == (
        "no known artifact; only 1.0% of the picture is shown to the model; "
        "the picture fills only 10.0% of what the model is shown"
    )
    assert CheckedPicture("a.png", "fish", 3, 0.9, (), shown=0.5).describe() == "no known artifact"


def test_a_run_that_was_only_asked_for_shortcuts_checks_parts_and_says_that_artifacts_were_not_asked_for(
    checked, quantified, tmp_path, monkeypatch
):
    pictures, _, _ = checked
    made, classifier, _ = quantified
    shutil.copytree(made, tmp_path / "run")
    store = RunStore.open(tmp_path / "run")
    for file in (VERDICTS_FILE, f"checksums/{VERDICTS_FILE}.json"):  # as before it was quantified
        (store.path / file).unlink()
    picture = pictures["used-00"].path
    both = (
        r"neither quantified nor asked for shortcuts.*audit quantify .*surroundings `klarsicht audit shortcuts .*enough"
    )
    with monkeypatch.context() as patch, pytest.raises(StoreError, match=both):
        patch.delattr(check_pictures_module, "open_run")  # no model is loaded for this answer
        check_pictures(store, picture, classifier=classifier)
    store.write_json(SUFFICIENCY_FILE, {})  # no more of it is read than that it is there
    found = check_pictures(store, picture, classifier=classifier)
    (one,) = found
    with_artifacts = pictures["used-00"]
    assert (one.predicted, one.probability) == (with_artifacts.predicted, with_artifacts.probability)
    assert one.artifacts == () and len(one.questions) == len(with_artifacts.questions)
    assert one.describe().startswith("artifacts not asked for; ") and "no known artifact" not in one.describe()
    broken = check_pictures(store, pictures["broken"].path, classifier=classifier)
    for some in (found, broken):
        assert some.limits.startswith("The run was not asked for artifacts: `klarsicht audit quantify`.")


def test_the_part_of_a_picture_that_is_shown_follows_from_the_run(quantified, tmp_path):
    """Oracle: of a picture four times as large each way, a crop of the network's own side is a sixteenth."""
    run, classifier, _ = quantified
    Image.fromarray(np.repeat(np.repeat(fresh(5)[0].astype(np.uint8), 4, 0), 4, 1)).save(tmp_path / "large.png")
    with open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (audit, work):
        checking = PictureCheck(work, audit.names, (), 0.05, SeenArea("pixels", SIDE, SIDE))
        with predictor(work) as predict:
            assert checking.check("large.png", Image.open(tmp_path / "large.png"), predict).shown == pytest.approx(
                1 / 16
            )


def test_a_broken_file_is_named_and_the_rest_is_checked(checked):
    pictures, _, found = checked
    assert pictures["broken"].why and "not checked" in pictures["broken"].describe()
    assert len(found) == 4 * PICTURES + 1 and NAMES[USED] in found.limits
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    lines = told["pictures"][-1]["artifacts"]
    assert {name_artifact(line["class"], line["artifact"]) for line in lines} == set(found.known)


def test_pictures_in_an_array_file_are_checked_as_the_files_that_hold_the_same_pixels(checked, quantified, tmp_path):
    run, classifier, _ = quantified
    _, _, found = checked
    mine = [one for one in found if "used-0" in one.path]
    pixels = np.stack([np.asarray(Image.open(one.path)) for one in mine])
    np.savez(tmp_path / "several.npz", images=pixels, labels=np.array(["x"] * len(pixels)))
    again = check_pictures(run, [tmp_path / "several.npz", mine[0].path], classifier=classifier)
    names = [f"{tmp_path / 'several.npz'}#{row}" for row in range(len(mine))] + [mine[0].path]
    assert [one.path for one in again] == names and len(mine) > 5
    assert [replace(one, path="") for one in again] == [replace(one, path="") for one in (*mine, mine[0])]


def test_a_border_is_compared_with_as_many_images_as_reach_the_level(quantified):
    """Own clean images first, which the artifact's carriers are not among, then those of other classes."""
    run, classifier, found = quantified
    with open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (audit, work):
        noted = tuple(verdict for verdict in found if verdict.artifactual)
        checking = PictureCheck(work, audit.names, noted, 0.05)
        (group,) = (group for group in work.groups if group.target == USED)
        own = work.input_images(np.setdiff1d(group.rows, found.of(NAMES[USED]).rows))
        images = checking.clean_of(USED)
    assert len(images) == ELSEWHERE >= 1 / 0.05 - 1
    mine = [any((image == one).all() for one in own) for image in images]
    assert sum(mine) == len(own) < ELSEWHERE and mine == sorted(mine, reverse=True)


def sign(name, rows, score, places=()):
    return {"target": 0, "sign": name, "score": score, "rows": list(rows), "places": list(places), "height": 5.0,
            "width": 5.0}  # fmt: skip


def test_a_group_is_compared_by_a_window_or_a_measure_of_its_own_images(quantified):
    """The window that shares half of its images with the group, and whose score is beyond chance, of two halves."""
    _, _, found = quantified
    verdict = replace(found[0], rows=tuple(range(10)), detection=replace(found[0].detection, sign="embedding 0.002"))
    group = sign("embedding 0.002", range(10), 40.0)
    half, other = sign("fine .1", range(5, 15), 20.0, [0.0] * 20), sign("fine .2", range(6, 16), 50.0, [0.0] * 20)
    noise, faint = sign("noise 0.002", range(8), 15.0), sign("texture .1", range(10), 0.5, [0.0] * 20)
    assert choose_sign(verdict, [group, half, other, noise, faint], 0.05) == half
    assert choose_sign(verdict, [group, noise, faint, other], 0.05) == noise
    assert choose_sign(verdict, [group, faint, other], 0.05) == group  # in whose description it is compared
    spots = replace(verdict, detection=replace(verdict.detection, sign="flat-colour"))
    assert choose_sign(spots, [sign("flat-colour", range(10), 40.0), faint, other], 0.05) is None
    own = replace(verdict, detection=replace(verdict.detection, sign="texture .1"))
    assert choose_sign(own, [group, half, faint], 0.05) == faint


def test_one_path_and_pillow_images_are_checked_as_the_list_of_their_files(checked, quantified, tmp_path):
    """Oracle: the same pixels, of files. An image has the name of its file; one without a file is numbered."""
    run, classifier, _ = quantified
    pictures, _, _ = checked
    first, second = pictures["used-00"], pictures["used-01"]
    opened, drawn = Image.open(first.path), Image.fromarray(np.asarray(Image.open(second.path)))
    for alone in (first.path, Path(first.path), opened):
        assert check_pictures(run, alone, classifier=classifier).pictures == (first,)
    several = check_pictures(run, [second.path, drawn], classifier=classifier).pictures
    assert several == (second, replace(second, path="picture 2"))
    with pytest.raises(UsageError, match=r"pictures\[0\] must be a path or a Pillow image; got ndarray"):
        check_pictures(run, [np.asarray(opened)], classifier=classifier)


def test_what_is_not_there_is_an_error(quantified, tmp_path):
    run, classifier, _ = quantified
    with pytest.raises(InputError, match="no such picture"):
        check_pictures(run, [tmp_path / "none.png"], classifier=classifier)
    with pytest.raises(InputError, match="no picture in this folder"):
        check_pictures(run, [tmp_path], classifier=classifier)
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="no run"):
        check_pictures(tmp_path / "run", [run / "report.html"], classifier=classifier)


def test_a_further_artifact_is_told_by_its_number_and_its_class_by_its_logit():
    second = CarriedArtifact("carton", 4, "texture 32 0.9", 0.01, 1.0, True, drop=2.0, without="boat", number=2)
    picture = CheckedPicture("a.png", "carton", 4, 0.9, (second,))
    assert picture.describe().startswith("the same patch as in images of carton (artifact 2) (p ")
    assert "without it the score of carton changes by -2.00 logits" in picture.describe()
    (line,) = picture.to_json()["artifacts"]
    assert (line["class"], line["artifact"]) == ("carton", 2) and "number" not in line
