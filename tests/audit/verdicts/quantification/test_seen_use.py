"""Groups that were seen, of a network in closed form: what it uses is said of them."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tests.audit.verdicts.interventions.test_group_use import MARKED, SCALE, grey_images, network, with_squares

from klarsicht.audit.results.seen_groups import SeenGroup, describe_seen_groups
from klarsicht.audit.verdicts.quantification import seen_use
from klarsicht.audit.verdicts.quantification.seen_use import measure_seen_use
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
        monkeypatch.setattr(seen_use, "read_seen_groups", lambda store: earlier)
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
    assert not unused.is_used and "no use of it is shown" in unused.headline


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
