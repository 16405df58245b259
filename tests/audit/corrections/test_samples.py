"""Which images are drawn, on a manifest that says which ones the model was trained on."""

import numpy as np
import pytest
from tests.audit.conftest import network, write_corpus

from klarsicht.audit.corrections.samples import Case
from klarsicht.audit.data import splits
from klarsicht.audit.data.corpus_formats import open_corpus
from klarsicht.audit.models.classifier import load_model


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
    monkeypatch.setattr("klarsicht.audit.corrections.samples.FEWEST_NOT_TRAINED_ON", 3)
    assert names(splits.TEST) == {"test"}
    assert "Train" in names(splits.TEST, "members")  # the artifact is where it is
    monkeypatch.setattr("klarsicht.audit.corrections.samples.FEWEST_NOT_TRAINED_ON", 100)
    assert names(splits.TEST) == {"Train", "test"}  # too few to know anything by: all, and it is said
