"""Groups that were seen, of a network in closed form: what it uses is said of them."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tests.audit.results.test_class_verdict import FOUND, USE
from tests.audit.verdicts.interventions.test_group_use import MARKED, SCALE, grey_images, network, with_squares

from klarsicht.audit.results.seen_groups import SeenGroup, describe_seen_groups
from klarsicht.audit.results.verdict_lines import VerdictLine
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VerdictKind
from klarsicht.audit.verdicts.quantification import seen_use
from klarsicht.audit.verdicts.quantification.seen_use import measure_seen_use, measure_untested_use
from klarsicht.numerics.statistics.logits import EXCLUSIVE

N = len(MARKED)


def seen(rows):
    paths = tuple(f"{row}.png" for row in rows)
    return SeenGroup("mole", 0, N, "colours", 0.001, "", "few classes", "", tuple(map(int, rows)), paths)


@pytest.fixture
def work(monkeypatch):
    rng = np.random.default_rng(0)
    levels = np.concatenate([with_squares(grey_images(N, rng), rng)[0], grey_images(80, rng)])

    class Images:
        pixel_scale = SCALE

        def __call__(self, rows):
            return levels[rows]

    def work(weights=(40.0, -40.0, 0.0), classes=2, earlier=()):
        @contextmanager
        def predictor(_):
            yield network(list(weights))

        monkeypatch.setattr(seen_use, "predictor", predictor)
        monkeypatch.setattr(seen_use, "load_seen_groups", lambda store: earlier)
        rows = np.split(np.arange(len(levels)), [N, *range(N + 20, N + 20 * (classes - 1), 20)])
        groups = [SimpleNamespace(name=f"class {k}" if k else "mole", target=k, rows=of) for k, of in enumerate(rows)]
        return SimpleNamespace(
            groups=groups, store=None, settings=SimpleNamespace(seed=0), scale=EXCLUSIVE, input_images=Images(),
            other_rows=lambda number: np.setdiff1d(np.arange(len(levels)), groups[number].rows),
        )  # fmt: skip

    return work


def test_a_group_whose_square_the_network_uses_says_so_and_a_random_one_does_not(work):
    marked, other = seen(np.flatnonzero(MARKED)), seen(np.random.default_rng(1).permutation(N)[:24])
    used, unused = measure_seen_use(work(), [marked, other])
    assert used.is_used and "Pasted into 80 images of class 1, it raises mole by" in used.headline
    assert not unused.is_used and unused.headline.endswith("too few to say whether the model uses it.")


def test_the_summary_says_how_many_groups_were_tested():
    untested, tested = seen(range(9)), replace(seen(range(9)), use="pasted into 80 images, it changes nothing")
    assert "Nothing shows whether the model uses it" in describe_seen_groups([untested, untested])
    assert "The model is not shown to use any of them:" in describe_seen_groups([tested, tested])
    assert "not shown to use any of the 1 tested:" in describe_seen_groups([untested, tested])
    assert "The model is not shown to use it:" in describe_seen_groups([tested])


def test_what_is_measured_is_not_measured_again_and_many_classes_are_not_asked(work):
    group = seen(np.flatnonzero(MARKED))
    (first,) = measure_seen_use(work(), [group])
    (again,) = measure_seen_use(work((0.0, 0.0, 0.0), earlier=(first,)), [group])
    assert again == first
    assert measure_seen_use(work(classes=5), [group]) == (group,)


def test_few_images_and_most_of_a_class_are_left_as_they_are(work):
    few, most = seen(range(7)), seen(range(61))
    assert measure_seen_use(work(), [few, most]) == (few, most)


@pytest.mark.parametrize("has_windows", [True, False])
def test_a_verdict_that_is_not_tested_says_what_its_mark_does(work, monkeypatch, has_windows):
    of_run, rows = work((-40.0, 40.0, 0.0)), np.flatnonzero(MARKED)
    levels = of_run.input_images(np.arange(N))
    corners = np.array([np.argwhere(levels[i, ..., 0] != levels[i, ..., 1]).min(0) / 56 for i in rows])
    sign = {
        "target": 0, "sign": "aligned 56 0.8", "score": 9.0, "rows": rows.tolist(), "height": 0.25, "width": 0.25,
        "places": corners.ravel().tolist() if has_windows else [],
    }  # fmt: skip
    monkeypatch.setattr(seen_use, "read_detections", lambda store, found: {(0, 1): [sign]})
    found = replace(FOUND, name="mole", target=0, n=N, rows=tuple(map(int, rows)), use=replace(USE, covered=0.25))
    found = replace(found, detection=replace(found.detection, sign=sign["sign"]))
    other = replace(found, target=1, name="class 1", artifactual=False)
    (told, same) = measure_untested_use(of_run, Quantification((found, other), 1.0, 0.05))
    assert told.kind is VerdictKind.ACTS and "Pasted into 80 images of class 1, it lowers mole by" in told_line(told)
    assert same == other
    tested = replace(found, use=replace(found.use, covered=0.9))
    for unchanged in (Quantification((tested, other), 1.0, 0.05), Quantification((found, other), 1.0, 0.05)):
        blind = work((0.0, 0.0, 0.0))
        assert measure_untested_use(blind, unchanged) == unchanged  # nothing is claimed of what does nothing
    assert measure_untested_use(work(classes=5), Quantification((found, other), 1.0, 0.05)).verdicts[0] == found


def told_line(verdict):
    return VerdictLine(1, 1, verdict.name, verdict, 2, 0.05).headline
