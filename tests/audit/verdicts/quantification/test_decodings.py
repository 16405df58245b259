"""Number of times that each image is decoded in a whole `audit quantify`: once, whichever of its steps looks at it."""

from collections import Counter
from pathlib import Path

import pytest
from tests.audit.conftest import in_brief, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.quantification.quantification import quantify


@pytest.fixture
def decodings(monkeypatch):
    """Count the decodings of each image, by its key."""
    count, decode = Counter(), Corpus.decode

    def counting(corpus, row):
        count[corpus.keys[row]] += 1
        return decode(corpus, row)

    monkeypatch.setattr(Corpus, "decode", counting)
    return count


@pytest.mark.nightly
def test_each_image_is_decoded_once_and_once_more_where_it_is_drawn(tmp_path, classifier, decodings):
    """By detectors, artifacts on other images and the clusters that the model follows; pictures of these clusters show
    the file as `audit run` does."""
    write_corpus(tmp_path / "data", per_class=40)
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), metric=("euclidean",), batch=64)
    with in_brief(60):
        run = pipeline.run(settings, tmp_path / "run", classifier=classifier)
        decodings.clear()
        quantify(run, classifier=classifier)
    followed = run.table("followed").num_rows
    drawn = {row["path"] for row in run.table("views").to_pylist() if row["picture"]}
    assert followed and run.table("effects").num_rows and len(decodings) == 120
    twice = {key for key, count in decodings.items() if count == 2}
    assert max(decodings.values()) == 2 and twice == {"/".join(Path(path).parts[-2:]) for path in drawn}
