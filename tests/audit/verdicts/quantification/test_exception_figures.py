"""Exceptions on the page of a run whose places are written by hand: which images, in which order, and the outline."""

import base64
import io
import re

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tests.audit.conftest import in_brief
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.report.page import write_report
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.surroundings import (
    SURROUNDINGS_FILE,
    SURROUNDINGS_STEP,
    ClassSurroundings,
    ExceptionalImage,
    Surroundings,
)
from klarsicht.audit.verdicts.quantification.exception_figures import (
    EXCEPTIONS_DRAWN,
    USUAL_DRAWN,
    write_exception_figures,
)
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.surroundings_units import PLACE_SCHEMA
from klarsicht.numerics.statistics.intervals import Interval

NAMES, N, ODD, SIDE, SQUARE = ("dark", "light"), 20, 8, 32, (slice(8, 20), slice(4, 24))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a run of even grey images, of which the first eight of each class are exceptions, clearest last."""
    folder = tmp_path_factory.mktemp("exceptions")
    for name in NAMES:
        (folder / "data" / name).mkdir(parents=True)
        for i in range(N):
            grey = np.full((SIDE, SIDE, 3), 60 + 2 * i, np.uint8)
            Image.fromarray(grey).save(folder / "data" / name / f"{i:02d}.png")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    classifier, run = load_model(network.eval(), classes=NAMES), folder / "run"
    settings = AuditSettings(model="object", data=str(folder / "data"), method="HeadRelevance", batch=64)
    with in_brief(8):
        pipeline.run(settings, run, classifier=classifier, accept_labels=True)
    own, places = np.zeros((SIDE, SIDE), bool), []
    own[SQUARE] = True
    for row in range(2 * N):
        label, i = divmod(row, N)
        odd = i < ODD
        places.append(
            {"row": row, "target": label, "side": 1 - label if odd else label, "margin": -1.0 - i if odd else 1.0 + i}
            | {"height": SIDE, "width": SIDE, "own": np.packbits(own).tobytes()}
        )
    share = Interval(0.9, 0.8, 0.95, 100)
    none = Interval(0, 0, 0.1, 100)
    classes = tuple(
        ClassSurroundings(name, k, N, ODD, NAMES[1 - k], share, none, share) for k, name in enumerate(NAMES)
    )
    found = Surroundings(classes, (ExceptionalImage("dark/00.png", "dark", "light", -1.0),), 1.0, 0.02)
    with open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (_, work):
        table = pa.Table.from_pylist(places, PLACE_SCHEMA)
        work.store.mark_done(SURROUNDINGS_STEP, 0, work.store.write_part("places", 0, table))
        work.store.finish_step(SURROUNDINGS_STEP, 1)
        work.store.write_json(SURROUNDINGS_FILE, found.to_json())
        write_exception_figures(work, found)
    return write_report(run).read_text()


def pictures(page, target):
    """(heading, file, pixels) of the pictures in the section of a class."""
    (section,) = re.findall(rf'<section class="suspect" id="x{target}">(.*?)</section>', page, re.S)
    for part in section.split("<h3>")[1:]:
        for name, uri in re.findall(r'title="([^"]*)"><img src="data:image/jpeg;base64,([^"]*)"', part):
            picture = Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB")
            yield part.split("<")[0], name, np.asarray(picture, int)


@pytest.mark.parametrize("target", [0, 1])
def test_the_clearest_exceptions_go_first_and_usual_images_stand_beside_them(page, target):
    headings = {}
    for heading, name, _ in pictures(page, target):
        headings.setdefault(heading, []).append(name)
    odd, usual = headings.values()
    assert [name.split("/")[-1] for name in odd] == [f"{i:02d}.png" for i in reversed(range(ODD))][:EXCEPTIONS_DRAWN]
    assert len(usual) == USUAL_DRAWN and all(int(name[-6:-4]) >= ODD for name in usual)
    assert all(name.startswith(NAMES[target]) for name in (*odd, *usual))


def test_what_is_outlined_are_own_places(page):
    for _, _, pixels in pictures(page, 0):
        times = pixels.shape[0] // SIDE
        green = pixels[..., 1] - pixels[..., [0, 2]].max(-1) > 40  # of grey images nothing else is
        top, bottom, left, right = (times * edge for one in SQUARE for edge in (one.start, one.stop))
        rows, columns = np.nonzero(green)
        assert np.ptp(rows) > bottom - top > times and np.ptp(columns) > right - left
        assert abs(rows.min() - top) <= times and abs(rows.max() - bottom) <= times
        assert abs(columns.min() - left) <= times and abs(columns.max() - right) <= times
        assert not green[top + times : bottom - times, left + times : right - times].any()


def test_the_summary_begins_with_them(page):
    summary = page.split('<section class="summary">')[1].split("</section>")[0]
    assert [summary.count(f'href="#x{target}"') for target in (0, 1)] == [1, 1]
    assert summary.count("data:image/jpeg") == 8
