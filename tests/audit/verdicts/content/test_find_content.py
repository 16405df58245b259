"""Content that a network was built to lean on, in a pile of other things: found, placed, and shown to act."""

import json

import pytest
from tests.audit.verdicts.content import leaning_network as made

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.content_groups import read_content
from klarsicht.audit.results.words import ContentKind
from klarsicht.audit.verdicts.content.find_content import find_content
from klarsicht.ground.errors import UsageError


def run(folder, **pile):
    made.write_pile(folder / "pile", **pile)
    settings = AuditSettings(model="object", data=str(folder / "pile"), target="leaf", method="GradientTimesInput")
    pipeline.run(settings, folder / "run", classifier=made.leaning())
    return folder / "run"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = run(tmp_path_factory.mktemp("content"))
    return folder, find_content(folder, images=40, classifier=made.leaning())


def test_the_planted_pictures_are_the_group_and_nothing_else(done):
    (group,) = done[1]
    assert group.name == "leaf" and group.kind is ContentKind.RELIES
    assert {int(path[-7:-4]) for path in group.members} == set(made.CARRIERS)


def test_the_region_that_acts_is_where_the_content_was_planted(done):
    (group,) = done[1]
    truth = (made.TOP / made.TILES, made.LEFT / made.TILES, *[made.SQUARE / made.TILES] * 2)
    for picture in group.pictures:
        assert picture.place == pytest.approx(truth, abs=1 / made.TILES)


def test_put_on_other_pictures_it_turns_them_into_the_class(done):
    """Whole, the content adds WRONG x (1 - 0.3) x 4 / 36 = 7 logits; other pictures have some 0.8 for every class."""
    effect = done[1].groups[0].effect
    assert effect.turned.value > 0.8 and effect.turned_control.value < 0.2
    assert 1 < effect.rise.low < effect.rise.value < effect.rise.high < 8
    said = done[1].groups[0].describe()
    assert "Put on other pictures it turns" in said and "relies on context" in said


def test_it_is_written_beside_the_run(done):
    folder, found = done
    assert json.loads((folder / "content.json").read_text()) == json.loads(json.dumps(found.to_json()))
    assert read_content(folder) == found
    page = (folder / "content.html").read_text()
    assert page.count("<img") == 2 * len(made.CARRIERS) and str(folder) not in page


@pytest.mark.slow
def test_without_such_pictures_no_group_is_relied_on(tmp_path):
    folder = run(tmp_path, carriers=())
    (group,) = find_content(folder, images=40, classifier=made.leaning())
    assert group.kind is ContentKind.NO_GROUP and not group.effect.rise.n


def test_an_unknown_class_is_an_error_with_the_names(done):
    with pytest.raises(UsageError, match="cloud"):
        find_content(done[0], classes=["clowd"], classifier=made.leaning())


def test_pictures_of_the_class_itself_are_no_other_things(done):
    """Asked for "stone", none of the pictures of stones, half of the pile, may be in the group."""
    (group,) = find_content(done[0], classes=["stone"], images=8, level=0.001, classifier=made.leaning())
    assert {picture.label for picture in group.pictures} == {"cloud"} and group.n == made.PICTURES // 2
