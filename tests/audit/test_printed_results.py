"""Objects that one holds print as one short line, whatever they contain."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import network

from klarsicht import audit
from klarsicht.ground.run_folder.store import RunStore


@pytest.fixture(scope="module")
def held(quantified, tmp_path_factory):
    run, classifier, verdicts = quantified
    model = audit.load_model(network(), classes=["a", "b", "c"])
    rng = np.random.default_rng(0)
    picture = tmp_path_factory.mktemp("one") / "a.png"
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(picture)
    return {
        "Relevance": audit.explain(model, torch.rand(2, 3, 12, 12), [0, 1]),
        "Classifier": model,
        "Corpus": audit.open_corpus([(Image.new("RGB", (4, 4)), str(i % 7)) for i in range(1000)]),
        "Spray": audit.spray(rng.random((60, 8, 8)), n_neighbors=5),
        "Ranking": audit.rank(run),
        "Quantification": verdicts,
        "CheckedPictures": audit.check_pictures(run, [picture], classifier=classifier),
        "RunStore": RunStore.open(run),
    }


@pytest.mark.parametrize(
    "name", ["Relevance", "Classifier", "Corpus", "Spray", "Ranking", "Quantification", "CheckedPictures", "RunStore"]
)
def test_an_object_prints_as_one_short_line_with_its_name(held, name):
    printed = repr(held[name])
    assert printed.startswith(f"{name}(") and printed.endswith(")") and "\n" not in printed
    assert len(printed) <= 200
