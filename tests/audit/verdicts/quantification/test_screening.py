"""A whole corpus screened for one class: the marked images of every class, and nothing else."""

import dataclasses
import json
import re

import numpy as np
import pytest
from tests.audit.conftest import network, picture
from tests.marks import slow_but_first

from klarsicht import audit
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import words
from klarsicht.audit.results.ranking import SCREENING_FILE
from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.verdicts.quantification import screening
from klarsicht.explorer.explored_run import open_explored_run
from klarsicht.ground.errors import UsageError

EACH, MARKED = 60, 12


def write_corpus(folder):
    """The mark, that class "b" is known by, lies on a fifth of the images of "a" and "c"; none of "b" is there."""
    rng = np.random.default_rng(0)
    for label, name in ((0, "a"), (2, "c")):
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            picture(label, i < MARKED, rng).save(folder / name / f"{i:03d}.png")


def run(tmp_path, **asked):
    write_corpus(tmp_path / "data")
    classifier = load_model(network(), classes=["a", "b", "c"])
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), unit=25, **{"target": "b"} | asked)
    pipeline.run(settings, tmp_path / "run", classifier=classifier)
    return tmp_path / "run", classifier


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder, classifier = run(tmp_path_factory.mktemp("screened"), metric=("concept", "euclidean"))
    return folder, classifier, screening.screen(folder, classifier=classifier, level=0.4)


def test_the_marked_images_of_any_class_are_its_cluster(done):
    _, _, found = done
    names = {path[-9:] for path in found.entry.members}
    assert names == {f"{name}/{i:03d}.png" for name in "ac" for i in range(MARKED)}
    assert found.labels == (("a", MARKED), ("c", MARKED))


def test_put_on_other_images_they_raise_the_class_most(done):
    _, _, found = done
    assert found.effect.rank == 0 and found.effect.shift > found.effect.runner_up
    assert found.p == pytest.approx(1 / 3) and found.verdict == words.SCREENED_FOLLOWED
    strict = dataclasses.replace(found, level=0.05)
    assert strict.verdict == words.SCREENED_NOTHING  # one of three outputs is no evidence at .05
    assert f"no smaller than {1 / 3:.3f}" in strict.limits and found.limits == "" == found.to_json()["limits"]


def test_it_stands_before_the_outputs_that_were_searched_for_alike(done):
    _, _, found = done
    stands = found.standing
    assert stands.ahead == 0 and stands.own > stands.peer_effect and {stands.runner, stands.peer} <= {"a", "c"}
    assert stands.margin == pytest.approx(found.effect.shift - found.effect.runner_up)
    assert stands.margin_low < stands.margin < stands.margin_high and stands.uplift > stands.uplift_control
    assert Specificity.from_row(stands.columns()) == stands


def test_it_is_written_beside_the_run_and_asked_again_without_new_work(done, monkeypatch):
    folder, classifier, found = done
    assert json.loads((folder / SCREENING_FILE).read_text()) == json.loads(json.dumps(found.to_json()))
    entry = audit.rank(folder)[0]
    assert entry == found.entry and (entry.kind, entry.verdict) == (words.VerdictKind.FOLLOWED, found.verdict)
    (line,) = open_explored_run(folder, "").results.lines().values()
    assert (line.kind, line.words) == ("followed", found.verdict)
    page = (folder / "report.html").read_text()
    assert f"{found.effect.shift:+.2f}" in page
    summary = page[page.index("In short") : page.index("<h2>For the person responsible")]
    pictures = re.findall(r'<figure class="plate" title="([^"]+)"', summary)
    assert len(pictures) == 4 and {one[-9:] for one in pictures} <= {path[-9:] for path in found.entry.members}
    assert all(sentence in page for sentence in found.standing.describe(3)) and "0 of 3 outputs" in page
    monkeypatch.setattr(
        "klarsicht.audit.verdicts.quantification.cluster_units.find_followed_cluster",
        lambda *_: pytest.fail("tried again"),
    )
    assert screening.screen(folder, classifier=classifier, level=0.4) == found


@pytest.mark.parametrize("asked", slow_but_first([{"method": "HeadRelevance"}, {"target": "label"}, {"target": "all"}]))
def test_what_has_no_single_target_or_no_maps_is_refused(tmp_path, asked):
    folder, classifier = run(tmp_path, **asked)
    assert screening.is_screening(folder) == (asked != {"target": "label"})
    with pytest.raises(UsageError, match="nothing to insert into other images"):
        screening.screen(folder, classifier=classifier)
