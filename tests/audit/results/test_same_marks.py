"""One mark that two searches found, each in a part of its images, against the images that are written to carry it."""

from dataclasses import replace

import pyarrow as pa
import pytest
from tests.audit.results.test_ranking import JUDGED

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import list_called, name_further_step, read_detections
from klarsicht.audit.results.rows import FurtherSignRow, SignRow
from klarsicht.audit.results.same_marks import merge_same_marks
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.store import RunStore

MARKED, OTHER = range(30), range(40, 56)  # images of one mark, and of another one
PARTS = MARKED[:12], MARKED[12:]  # found by the search of the class, and of what was left


def sign(name, rows, *, side=0.1, score=9.0, places=True):
    place = [0.9, 0.5] * len(rows) if places else []
    return SignRow(target=0, sign=name, score=score, rows=list(rows), places=place, height=side, width=side)


def artifact(name, rows, *, used=False):
    paths = tuple(f"{row}.png" for row in rows)
    detection = replace(JUDGED.detection, sign=name)
    return replace(
        JUDGED, rows=tuple(rows), members=paths, artifactual=True, used=used, poisoned=used, detection=detection
    )


FIRST, SECOND = artifact("fine-grey 32 0.93", PARTS[0]), artifact("fine 32 0.8", PARTS[1], used=True)
OF_FIRST, OF_SECOND = sign("fine-grey 32 0.93", PARTS[0]), sign("fine 32 0.8", PARTS[1], side=0.2)
WHOLE = sign("fine 32 0.8", [*MARKED[5:], 70], side=0.2)


def test_what_one_window_matches_in_both_parts_is_one_mark_of_all_images():
    (one,) = merge_same_marks([FIRST, SECOND], {1: [OF_FIRST, WHOLE]}, 0.05)
    assert one.rows == tuple(MARKED) and one.members == tuple(f"{row}.png" for row in MARKED)
    assert one.poisoned and one.detection == SECOND.detection  # the part that the model was shown to use
    unused = replace(SECOND, used=False, poisoned=False)
    assert merge_same_marks([FIRST, unused], {1: [OF_FIRST, WHOLE]}, 0.05)[0].detection == FIRST.detection


@pytest.mark.parametrize(
    "seen",
    [
        sign("texture 32 0.9", [*MARKED[:12], *OTHER[:3]]),  # hardly any image of the other mark
        sign("borders", [*MARKED[:12], *OTHER], places=False),  # a description of whole images
        sign("evidence 32 0.9", range(100)),  # what most of the class has in common
        sign("fine 32 0.8", [*MARKED[:12], *OTHER], score=0.5),  # as chance gives it
    ],
)
def test_different_marks_stay_two(seen):
    two = [FIRST, artifact("texture 32 0.9", OTHER)]
    assert merge_same_marks(two, {1: [OF_FIRST, seen]}, 0.05) == tuple(two)


def test_a_third_artifact_keeps_its_search_and_joins_what_it_is_like():
    third = artifact("template 32", OTHER)
    one, other = merge_same_marks([FIRST, SECOND, third], {1: [OF_FIRST, WHOLE], 2: [OF_SECOND]}, 0.05)
    assert one.rows == tuple(MARKED) and other.rows == third.rows and other.searches == ((3, "template 32"),)
    both = sign("fine 32 0.9", [*PARTS[1], *OTHER])
    first, rest = merge_same_marks([FIRST, SECOND, third], {1: [OF_FIRST], 2: [OF_SECOND, both]}, 0.05)
    assert first.rows == FIRST.rows and rest.rows == (*PARTS[1], *OTHER)


def test_a_run_shows_the_windows_of_all_searches(tmp_path):
    store = RunStore.create(tmp_path / "run", settings={}, identity={}, index={}, independent=False)
    third, of_third = artifact("template 32", OTHER), sign("template 32", OTHER)
    merged, other = merge_same_marks([FIRST, SECOND, third], {1: [OF_FIRST, WHOLE]}, 0.05)
    found = Quantification((replace(merged, further=(other,)),), 1.0, 0.05)
    step = name_further_step(list_called([FIRST]), 0.05)  # as the searches named it, before anything was merged
    further = [{**OF_SECOND, "artifact": 2}, {**of_third, "artifact": 3}]
    for name, rows, row in (("signs", [OF_FIRST, WHOLE], SignRow), (step, further, FurtherSignRow)):
        store.mark_done(name, 0, store.write_part(name, 0, pa.Table.from_pylist(rows, schema_of(row))))
        store.finish_step(name, 1)
    found = Quantification(tuple(map(Verdict.from_json, found.to_json()["classes"])), 1.0, 0.05)  # as a reader has it
    detections = read_detections(store, found)
    (joined,) = [row for row in detections[0, 1] if row["sign"] == found[0].detection.sign]
    assert joined["rows"] == list(MARKED) and joined["height"] == joined["width"] == 0.2
    assert joined["places"] == [0.8, 0.5] * len(MARKED)  # the larger window, within the image
    assert detections[0, 2] == [of_third]
