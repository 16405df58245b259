"""Samples that are drawn from a manifest that says which images the model was trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.conftest import network, write_corpus

from klarsicht.audit.cleaning.corrections.samples import Case
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Three classes of 36 images; two of three are trained on, and marked images of b are members."""
    folder = tmp_path_factory.mktemp("splits")
    marked = write_corpus(folder / "data", per_class=36, share=0.25)
    lines = ["path,label,split"]
    for name in "abc":
        lines += [f"data/{name}/{i:03d}.png,{name},{'test' if i % 3 == 0 else 'Train'}" for i in range(36)]
    (folder / "m.csv").write_text("\n".join(lines))
    corpus = open_corpus(str(folder / "m.csv"))
    member = np.array([any(path.endswith(name) for name in marked) for path in corpus.paths])
    labels = np.array(["abc".index(label) for label in corpus.labels])
    part = np.where(np.arange(len(corpus)) % 4 == 0, splits.TRAIN, splits.TEST).astype(np.int8)
    return Case(corpus, load_model(network(), classes=list("abc")), 1, labels, part, member, ~member)


def test_clean_images_to_show_are_those_that_the_model_was_not_trained_on(case, monkeypatch):
    def names(part, which="clean"):
        sample = case.sample(part, 100, np.random.default_rng(0))
        return {case.corpus.splits[row] for row in sample.rows[sample.member == (which == "members")]}

    assert names(splits.TRAIN) == {"Train", "test"}
    monkeypatch.setattr("klarsicht.audit.cleaning.corrections.samples.FEWEST_NOT_TRAINED_ON", 3)
    assert names(splits.TEST) == {"test"}
    assert "Train" in names(splits.TEST, "members")  # the artifact is where it is
    monkeypatch.setattr("klarsicht.audit.cleaning.corrections.samples.FEWEST_NOT_TRAINED_ON", 100)
    assert names(splits.TEST) == {"Train", "test"}  # too few to know anything by: all, and it is said


class White:
    """Puts on white, and says how often."""

    def fits(self, image):
        return True

    def put(self, images, rng):
        return torch.ones_like(images), images


def test_copies_with_a_known_artifact_are_of_other_classes_and_keep_source_and_label(case):
    known = replace(
        case, member=np.zeros(len(case.member), bool), clean=np.ones(len(case.clean), bool), planted=White()
    )
    sample = known.sample(splits.TRAIN, 100, np.random.default_rng(0))
    here = np.flatnonzero(case.part == splits.TRAIN)
    assert sample.paired
    assert sorted(sample.rows[~sample.member]) == here.tolist()
    assert sorted(sample.rows[sample.member]) == [row for row in here if case.labels[row] != 1]
    np.testing.assert_array_equal(sample.labels, case.labels[sample.rows])
    np.testing.assert_array_equal(sample.sources, case.corpus.source_numbers[sample.rows])
    assert not (sample.fair_draw & sample.member).any()
    assert [bool((image == 1).all()) for image in sample.images] == sample.member.tolist()
    kept = sample.select(sample.labels == 0)
    assert kept.paired
    assert len(kept) == (sample.labels == 0).sum()


def test_other_parts_have_no_copies(case):
    known = replace(case, member=np.zeros(len(case.member), bool), planted=White())
    sample = known.sample(splits.TEST, 100, np.random.default_rng(0))
    assert not sample.paired
    assert not sample.member.any()


def test_fewer_images_of_each_kind_are_drawn_from_a_sample(case):
    whole = case.sample(splits.TEST, 100, np.random.default_rng(0))
    few = whole.draw(5, 1, np.random.default_rng(0))
    own = ~few.member & (few.labels == 1)
    assert few.member.sum() == few.fair_draw.sum() == 5
    assert 5 <= own.sum() <= 10 and len(few) <= 15  # of the class, some are in the representative draw as well
    assert set(few.rows) <= set(whole.rows) and not (few.fair_draw & few.member).any()
    every = whole.draw(1000, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(every.rows, whole.rows)
    np.testing.assert_array_equal(every.fair_draw, whole.fair_draw)
