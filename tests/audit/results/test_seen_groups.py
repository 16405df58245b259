"""Groups that no verdict names, from detections that are written by hand."""

from dataclasses import replace

import pytest
from scipy.stats import chi2
from tests.audit.results.test_ranking import JUDGED

from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.seen_groups import (
    SeenGroup,
    list_seen_groups,
    load_seen_groups,
    read_seen_groups,
    write_seen_groups,
)
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.ground.errors import StoreError
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.store import RunStore


def sign(name, score, rows, places=()):
    return {
        "target": 0, "sign": name, "score": score, "rows": list(rows), "places": list(places), "height": 0.1,
        "width": 0.1,
    }  # fmt: skip


CALLED = range(10, 20)
PATCH = sign("fine 50 0.9", 6.0, range(8), [0.0, 0.9] * 8)
SIGNS = (
    sign("borders", 40.0, range(30, 70)),
    PATCH,
    sign("fine 50 0.98", 5.0, range(7), [0.0, 0.9] * 7),  # nearly the same images
    sign("texture 32 0.95", 9.0, CALLED, [0.5, 0.5] * 10),
    sign("template 32", 8.0, range(12, 16), [0.5, 0.5] * 4),  # all of them called
    sign("template 48", 7.5, range(15, 22), [0.5, 0.5] * 7),  # five of seven called
    sign("noise 0.002", 1.0, range(40, 44)),  # as chance gives it
    sign("veil 0.002", 30.0, [5]),  # no group
)


@pytest.fixture
def store(tmp_path):
    import pyarrow as pa

    store = RunStore.create(tmp_path / "run", settings={}, identity={}, index={}, independent=False)
    paths = [f"{i}.png" for i in range(90)]
    n = len(paths)
    store.write_table("corpus", {"key": paths, "path": paths, "label": [""] * n, "source": [""] * n, "split": [""] * n})
    store.mark_done("signs", 0, store.write_part("signs", 0, pa.Table.from_pylist(list(SIGNS), schema_of(SignRow))))
    store.finish_step("signs", 1)
    return store


def found(called, classes=2, **fields):
    verdict = replace(JUDGED, rows=tuple(CALLED), artifactual=called, **fields)
    return Quantification((verdict, *(replace(JUDGED, target=k) for k in range(1, classes))), 1.0, 0.05)


def test_each_group_that_is_not_called_is_listed_once_and_patches_come_first(store):
    groups = list_seen_groups(store, found(called=True))
    assert [one.sign for one in groups] == ["fine 50 0.9", "borders"]
    assert groups[0].members == tuple(f"{i}.png" for i in range(8)) and groups[0].place == "top right"
    # the mean surprisal of two halves, four times of which has chi squared's distribution, of eight detections
    assert groups[0].p == pytest.approx(8 * chi2.sf(4 * PATCH["score"], 4))


def test_what_no_verdict_names_is_listed_although_it_is_the_strongest(store):
    signs = [one.sign for one in list_seen_groups(store, found(called=False))]
    assert signs == ["texture 32 0.95", "template 32", "template 48", "fine 50 0.9", "borders"]


def test_the_reason_is_that_classes_are_few_or_that_others_have_such_groups(store):
    few, many = (list_seen_groups(store, found(called=True, classes=n))[0].why for n in (2, 5))
    assert "part of the class" in few and "other classes" in many


def test_a_group_that_was_put_on_other_images_says_so_and_no_other_does(store):
    tried = replace(JUDGED.use, tried="borders", shift=1.5, flips=0.0, flips_control=0.0)
    patch, borders = list_seen_groups(store, found(called=True, use=tried))
    assert "adds 1.5 logits" in borders.headline and "which proves nothing" in borders.headline
    assert patch.headline == "8 of 90 images of a share the same fine patch, top right (p 0.001 within the class)."


def test_the_record_is_read_as_it_was_written_and_a_run_without_one_has_none(store):
    assert load_seen_groups(store) == ()
    groups = list_seen_groups(store, found(called=True))
    write_seen_groups(store, groups)
    assert load_seen_groups(store) == groups
    with pytest.raises(StoreError, match="has not been quantified"):
        read_seen_groups(store)
    store.write_json("quantification.json", {})
    assert read_seen_groups(store.path) == groups
    record = store.read_json("seen.json")
    assert "not the same as not used" in record["told"] and record["groups"][0]["class"] == "a"
    assert SeenGroup.from_json(record["groups"][1]) == groups[1]


def test_a_record_of_an_earlier_version_has_no_use(store):
    write_seen_groups(store, list_seen_groups(store, found(called=True)))
    record = store.read_json("seen.json")
    for group in record["groups"]:
        del group["use"], group["is_used"]
    store.write_json("seen.json", record)
    assert [(one.use, one.is_used) for one in load_seen_groups(store)] == [("", False)] * 2
