"""Objects that one holds print as one short line, whatever they contain."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import network

from klarsicht import audit
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import Outcome
from klarsicht.audit.cleaning.models.judgement import Judgement
from klarsicht.audit.explanation.duplicates import CopyGroup, Duplicates
from klarsicht.audit.results.content_groups import ContentGroup, ContentGroups, ContentPicture
from klarsicht.audit.results.sufficiency import ClassProfile, PartEvidence, PartLine
from klarsicht.audit.results.surroundings import ClassSurroundings, ExceptionalImage, Surroundings
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics.intervals import Interval
from klarsicht.numerics.statistics.paired_loss import PairedLoss


@pytest.fixture(scope="module")
def held(quantified, tmp_path_factory):
    run, classifier, verdicts = quantified
    model = audit.load_model(network(), classes=["a", "b", "c"])
    rng = np.random.default_rng(0)
    nothing, loss = Interval(np.float64(0.0), 0.0, 0.0, 100), PairedLoss(0.0, -0.001, 0.001, 100)
    unchanged = Outcome(*[nothing] * 6, loss, loss, nothing)
    part = PartEvidence(
        "border", 0.97, 0.9, 0.99, *[None] * 4, 0.4, -0.4, 1.3, 0.1, 0.1, 0.0, 0.9, 0.9, 0.0, 0.2, False
    )
    profile = ClassProfile("cat", 0, 40, 0.97, 0.9, 0.99, (part,) * 40)
    place = tuple(np.float64(0.25) for _ in range(4))
    content = ContentGroup("cat", 0, 104, tuple(ContentPicture(f"{i}.png", "dog", i, 0.5, place) for i in range(30)))
    around = ClassSurroundings("cat", 0, 104, 24, "dog", nothing, nothing, nothing)
    exceptions = tuple(ExceptionalImage(f"{i}.png", "cat", "dog", np.float64(-0.6)) for i in range(24))
    files = tuple(f"{i}.png" for i in range(50))
    copies = CopyGroup(tuple(range(50)), files, files, ("cat",) * 50, ("",) * 50, "exact", 1.0)
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
        "Entry": audit.rank(run)[0],
        "Verdict": verdicts[0],
        "VerdictLine": verdicts.lines[0],
        "Judgement": Judgement(unchanged, unchanged, Bounds()),
        "ClassProfile": profile,
        "PartLine": PartLine(profile, part),
        "ContentGroup": content,
        "ContentGroups": ContentGroups((content,) * 20),
        "ClassSurroundings": around,
        "Surroundings": Surroundings((around,) * 20, exceptions, 0.5, 0.2),
        "CopyGroup": copies,
        "Duplicates": Duplicates((copies,) * 20, 1000, 0),
    }


IN_NOTEBOOKS = (
    "Relevance", "Spray", "Ranking", "Entry", "Quantification", "Verdict", "VerdictLine", "CheckedPictures",
    "Judgement", "RunStore",
)  # fmt: skip


IN_LINES = (
    "Classifier", "Corpus", "ClassProfile", "PartLine", "ContentGroup", "ContentGroups", "ClassSurroundings",
    "Surroundings", "CopyGroup", "Duplicates",
)  # fmt: skip


@pytest.mark.parametrize("name", [*IN_LINES, *IN_NOTEBOOKS])
def test_an_object_prints_as_one_short_line_with_its_name(held, name):
    printed = repr(held[name])
    assert printed.startswith(f"{name}(") and printed.endswith(")") and "\n" not in printed
    assert len(printed) <= 200 and "np." not in printed


@pytest.mark.parametrize("name", IN_NOTEBOOKS)
def test_an_object_is_html_of_whole_elements_in_a_notebook(held, name):
    """By the parser of the standard library: each element is closed in the order in which it was opened."""
    page, parser = held[name]._repr_html_(), Elements()
    parser.feed(page)
    assert parser.opened == [] and parser.seen and not re.search(r"np\.float|object at", page)


def test_relevance_shows_the_picture_beside_the_overlay_and_names_the_class(held):
    page = held["Relevance"]._repr_html_()
    assert page.count("<img") == 2 * len(held["Relevance"].maps) and "<td>b</td>" in page


def test_a_run_proposes_what_a_person_reads(held):
    run = held["RunStore"]
    assert {"path", "report", "table"} <= set(dir(run)) and "write_json" not in dir(run)
    assert all(hasattr(run, name) for name in dir(run))


class Elements(HTMLParser):
    """The elements that are open, and all that were."""

    def __init__(self):
        super().__init__()
        self.opened, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("img", "br"):
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag
