"""Origins of a class's artifact, and its imitation where it has no place."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.audit.conftest import Marked, picture
from tests.audit.verdicts.quantification.test_quantification import BOTH, NAMES, USED

from klarsicht.audit.cleaning.artifacts import artifact, localisation
from klarsicht.audit.cleaning.artifacts.found_artifact import FoundArtifact
from klarsicht.audit.cleaning.artifacts.localisation import Localisation
from klarsicht.audit.cleaning.data.data_artifacts import build_artifacts, leave_removed
from klarsicht.audit.cleaning.models.audited_run import AuditedRun, find_classes_to_clean
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data import groups
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import verdicts
from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import describe_detector
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.decisions import Change, DecisionLog

LIGHT = 50


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """Of class b, which the network tells by how white an image is too, each fourth image is lighter."""
    folder, rng = tmp_path_factory.mktemp("patient"), np.random.default_rng(0)
    for label, name in enumerate("abc"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(60):
            image = np.asarray(picture(label, False, rng), np.int16)
            light = LIGHT if name == "b" and i % 4 == 0 else 0
            pixels = np.clip(image + light, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{i:03d}.png")
    settings = AuditSettings(model="object", data=str(folder / "data"), neighbours=6, metric=("euclidean",))
    classifier = load_model(Marked().eval())
    pipeline.run(settings, folder / "run", classifier=classifier)
    return AuditedRun.of(folder / "run", classifier=classifier)


def lighter(patient):
    keys = patient.audit.corpus.keys
    return np.array([row for row, key in enumerate(keys) if key[:2] == "b/" and int(key[2:5]) % 4 == 0])


def say(patient, sign, artifactual, shared=False):
    """Writes a quantification by hand: this sign, on the lighter images."""
    rows = tuple(int(row) for row in lighter(patient))
    detection, use = DetectionResult(sign, *[0.0] * 5), UseResult("", "", *[0.0] * 10)
    told = Verdict("b", 1, 0, 0, detection, rows, (), use, artifactual, False, shared)
    patient.store.write_json(verdicts.VERDICTS_FILE, Quantification((told,), 0.1, 0.05).to_json())


def test_a_class_without_an_artifact_is_cleaned_of_its_cluster_and_that_is_said(patient, capsys):
    """Unless the cluster was asked for by name, or a detector called the class."""
    for artifactual, by, warned in ((False, None, True), (False, "cluster", False), (True, None, False)):
        say(patient, "noise 0.002", artifactual)
        found, told = patient.find_members("b", by), capsys.readouterr().err
        words = f"found no artifact in b: the {len(found.members)} images of its suspect cluster are taken"
        assert (words in told) == warned


def test_detectors_are_believed_where_they_called_the_class(patient):
    say(patient, "noise 0.002", True)
    found = patient.find_members("b")
    assert (found.origin, found.change) == ("detector: noise in smooth areas (beyond 99.8 % of other images)", "noise")
    np.testing.assert_array_equal(found.members, lighter(patient))
    assert patient.find_members("b", "cluster").origin == "cluster: euclidean"
    say(patient, "noise 0.002", False)
    assert patient.find_members("b").origin == "cluster: euclidean"
    with pytest.raises(UsageError, match="no detector called"):
        patient.find_members("b", "detector")
    with pytest.raises(UsageError, match="detector"):
        patient.find_members("b", "detektor")
    say(patient, "texture 28 0.98", False, shared=True)  # of two classes: who names the class means what the page names
    for by in (None, "detector"):
        found = patient.find_members("b", by)
        assert found.origin == "detector: the same patch (28 px, match at least 0.98)"
        np.testing.assert_array_equal(found.members, lighter(patient))
    assert patient.find_members("b", "cluster").origin == "cluster: euclidean"
    with pytest.raises(UsageError, match="to be looked at: b"):  # nobody named a class
        find_classes_to_clean(patient)
    with pytest.raises(UsageError, match="two sources"):
        patient.build_artifact("b", found_by="cluster", members=Path("list.txt"))


def test_what_has_no_place_is_imitated(patient):
    """Light has no place. Of all changes it is the one that does what it does in members, and its size is known."""
    finding = patient.find_members("b", "cluster")

    found = artifact.build_artifact(FoundArtifact(finding.audited, lighter(patient), "list"))
    assert found.place is None and found.imitation is not None
    assert found.imitation.kind == "light" and found.imitation.size == pytest.approx(LIGHT, abs=4)
    assert found.to_json()["place"] == "none" and found.insertion_text.endswith("levels of light")


def test_a_pattern_over_the_frame_is_put_on_other_images(patient, tmp_path):
    """Every fourth row is brighter by the half, in members and, by the record that is read again, in other images."""
    group, corpus = patient.audited_class(1, "euclidean"), patient.audit.corpus
    own = np.setdiff1d(group.group.rows, lighter(patient))
    elsewhere = np.setdiff1d(np.arange(len(corpus)), group.group.rows)
    seen = Localisation.of(FoundArtifact(group, own[::3], "list"), own[::3], np.delete(own, np.s_[::3]), elsewhere)
    images = [image.clone() for image in seen.images]
    for image, carries in zip(images, seen.member, strict=True):
        if carries:
            image[:, ::4] *= 1.5
    found = replace(seen, images=images).estimate_imitation()
    assert found.kind == "row gains"
    gains = np.exp(found.change.log_gain).mean(-1)
    assert gains[::4].mean() == pytest.approx(1.5, abs=0.2)  # of dark and noisy pixels it is estimated too small
    assert np.delete(gains, np.s_[::4], 0).mean() == pytest.approx(1, abs=0.05)

    part = artifact.deal_images(corpus.source_numbers, 1, 0)
    built = artifact.make_known_artifact("b", 1, None, part, "list")
    replace(built, imitation=found).save(tmp_path / "a", corpus)
    again = artifact.load_artifact(tmp_path / "a")
    assert again.insertion_text.startswith("inserted into other images: gains of the rows, ")
    np.testing.assert_array_equal(again.insertion.change.log_gain, found.change.log_gain)


def test_a_mark_of_any_place_and_size_is_put_on_by_its_colours(patient):
    group, corpus = patient.audited_class(1, "euclidean"), patient.audit.corpus
    own = np.setdiff1d(group.group.rows, lighter(patient))
    elsewhere = np.setdiff1d(np.arange(len(corpus)), group.group.rows)
    seen = Localisation.of(FoundArtifact(group, own[::3], "list"), own[::3], np.delete(own, np.s_[::3]), elsewhere)
    images, marks, rng = [image.clone() for image in seen.images], [], np.random.default_rng(0)
    for image, carries in zip(images, seen.member, strict=True):
        side = int(rng.integers(4, 8))
        y, x = rng.integers(0, min(image.shape[1:]) - side, 2)
        if carries:
            image[:, y : y + side, x : x + side] = images[0].max()
            marks.append((slice(y, y + side), slice(x, x + side)))
    found = replace(seen, images=images).overlay_from_shared_colours()
    assert found is not None and not found.fixed and len(found.masks) == len(marks)
    for mask, mark in zip(found.masks, marks, strict=True):
        true = np.zeros_like(mask)
        true[mark] = True
        assert (mask & true).sum() >= 0.7 * (mask | true).sum()


def test_a_detector_says_how_it_is_imitated(patient, tmp_path):
    """Even where another change would do more; and the record is read again as it was written."""
    finding = patient.find_members("b", "cluster")
    found = artifact.build_artifact(FoundArtifact(finding.audited, lighter(patient), "detector", "light"))
    assert found.place is None and found.imitation.kind == "light"
    found.save(tmp_path / "a", patient.audit.corpus)
    again = artifact.load_artifact(tmp_path / "a")
    assert (again.imitation.kind, again.imitation.size) == (found.imitation.kind, found.imitation.size)
    assert again.insertion is again.imitation


def test_members_that_are_like_the_others_are_imitated_by_nothing(patient):
    some = np.array([row for row, key in enumerate(patient.audit.corpus.keys) if key[:2] == "a/"])[::3]
    others = np.setdiff1d(patient.audited_class(0, "euclidean").group.rows, some)
    seen = Localisation.of(
        FoundArtifact(patient.audited_class(0, "euclidean"), some, "list", "blur"), some, others, others[:0]
    )
    assert seen.find_insertion() == (None, None) and seen.estimate_corruption() is None


@pytest.mark.slow
def test_a_further_artifact_is_found_by_its_name(quantified):
    run, classifier, found = quantified
    audited = AuditedRun.of(run, classifier=classifier)
    (further,) = found.of(NAMES[BOTH]).further
    second = audited.find_members(f"{NAMES[BOTH]} (artifact 2)")
    assert second.members.tolist() == list(further.rows) and describe_detector(further.detection.sign) in second.origin
    assert (second.folder_name, audited.find_members(NAMES[BOTH]).folder_name) == (f"{BOTH}-artifact-2", str(BOTH))
    made = artifact.build_artifact(second)
    assert (made.name, made.folder_name) == (f"{NAMES[BOTH]} (artifact 2)", second.folder_name)
    with pytest.raises(UsageError, match=rf"no such artifact.*Name one: {NAMES[BOTH]}; {NAMES[BOTH]} \(artifact 2\)"):
        audited.find_members(f"{NAMES[BOTH]} (artifact 3)")
    with pytest.raises(UsageError, match="unknown class"):
        audited.find_members("moon (artifact 2)")


def test_every_artifact_that_the_model_uses_is_cleaned_without_a_class(quantified, tmp_path):
    """The verdicts of a run, of which those on a class with two artifacts are changed by hand: both are used."""
    run, classifier, found = quantified
    shutil.copytree(run, tmp_path / "run")
    audited = AuditedRun.of(tmp_path / "run", classifier=classifier)
    both = found.of(NAMES[BOTH])
    used = replace(both, poisoned=True, further=tuple(replace(one, poisoned=True) for one in both.further))
    told = replace(found, verdicts=tuple(used if one.target == BOTH else one for one in found))
    audited.store.write_json(verdicts.VERDICTS_FILE, told.to_json())
    names = find_classes_to_clean(audited)
    assert set(names) == {NAMES[USED], NAMES[BOTH], f"{NAMES[BOTH]} (artifact 2)"}
    taken, left_out = audited.find_all_members(names)
    assert len(taken) == 3 and not left_out


@pytest.mark.slow
def test_what_carries_another_artifact_of_the_class_is_not_clean(quantified, tmp_path, monkeypatch):
    """The images of either artifact are disjoint: those of the other are neither members nor clean, with a mask too,
    here of one that lies on neither artifact, and so is not held against their pixels."""
    monkeypatch.setattr(localisation.Localisation, "check_region", lambda *_: None)
    run, classifier, found = quantified
    audited = AuditedRun.of(run, classifier=classifier)
    first, second = (list(one.rows) for one in found.of(NAMES[BOTH]).artifacts)
    mask = tmp_path / "mask.png"
    Image.fromarray(np.pad(np.full((5, 5), 255, np.uint8), (0, 27))).save(mask)
    for name, number, mine, others in ((NAMES[BOTH], 1, first, second), (f"{BOTH} (artifact 2)", 2, second, first)):
        for region in (None, mask):
            made, of_class = audited.build_artifact(name, mask=region)
            assert (made.number, made.members.tolist(), made.of_others.tolist()) == (number, mine, others)
            assert made.folder_name == (str(BOTH) if number == 1 else f"{BOTH}-artifact-2")
            case = made.case(of_class)
            assert not case.clean[others].any() and not case.clean[mine].any() and case.clean.any()
    made.save(tmp_path, audited.audit.corpus)
    np.testing.assert_array_equal(artifact.load_artifact(tmp_path).case(of_class).clean, case.clean)
    alone, _ = audited.build_artifact(NAMES[USED])
    assert not len(alone.of_others)


def test_a_further_artifact_heeds_the_decision_on_its_class_and_the_finder(quantified, tmp_path):
    run, classifier, _ = quantified
    shutil.copytree(run, tmp_path / "run")
    audited, name = AuditedRun.of(tmp_path / "run", classifier=classifier), f"{NAMES[BOTH]} (artifact 2)"
    with pytest.raises(UsageError, match="a further artifact of a class has no cluster"):
        audited.find_members(name, "cluster")
    DecisionLog(tmp_path / "run").append(Change(BOTH, NAMES[BOTH], "legitimate"), "ada")
    with pytest.raises(UsageError, match="decided to be legitimate"):
        audited.find_members(name)
    assert audited.find_members(name, "detector").number == 2


def test_an_artifact_is_named_by_its_output_where_a_class_has_its_name():
    audit = SimpleNamespace(names=("carton", "carton (artifact 2)"), index={})
    run = AuditedRun(None, audit)
    assert run.name_clearly("carton (artifact 2)", 0, 2) == "0 (artifact 2)"
    assert run.name_clearly("carton (artifact 2)", 1, 1) == "carton (artifact 2)"
    assert run.name_clearly("carton (artifact 2) (artifact 2)", 1, 2) == "carton (artifact 2) (artifact 2)"
    for name, found in (("0 (artifact 2)", (0, 2)), ("carton (artifact 2)", (1, 1)), ("carton (artifact 3)", (0, 3))):
        assert groups.find_artifact(name, audit.names, audit.index) == found


def test_images_taken_out_of_the_first_artifact_may_carry_a_further_one(quantified, tmp_path):
    run, classifier, found = quantified
    shutil.copytree(run, tmp_path / "run")
    audited, names = (
        AuditedRun.of(tmp_path / "run", classifier=classifier),
        [NAMES[BOTH], f"{NAMES[BOTH]} (artifact 2)"],
    )
    removed = (found.of(names[0]).rows[0], found.of(names[1]).rows[0])
    DecisionLog(tmp_path / "run").append(Change(BOTH, NAMES[BOTH], base=removed, remove=removed), "ada")
    carries = leave_removed(audited, build_artifacts(audited, names, 0.5)).carries
    assert not carries[0, list(removed)].any() and carries[1, removed[1]]
