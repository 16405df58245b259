"""The page: parsed by a strict parser, its dots where the scores are, its crops the crops."""

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from klarsicht.burst.evaluation.page import plot, separate_labels, write_page
from klarsicht.burst.evaluation.protocol import Evaluation, Protocol, Score
from klarsicht.burst.synthesis.scenes import Geometry

TABLE = {
    "single": {1: Score(20.0, 0.5, 1e-4, 1.0)},
    "hdr+": {1: Score(30.0, 0.8, 1.0, 2.0)},
    "swift": {1: Score(35.0, 0.9, 100.0, None, 25.0, 36.0)},
}


@pytest.fixture
def page(tmp_path):
    crops = {row: np.full((96, 96), level, np.uint8) for level, row in enumerate(("truth", *TABLE))}
    protocol = Protocol("grey-still", 7, Geometry(), ("<b>.png",), (0.5,), (1,), "abc")
    made = Evaluation(protocol, {"drawn": TABLE, "1": TABLE}, {"bm3d": "not < here"}, {1: crops})
    write_page(made, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_the_page_is_well_formed_and_alone(page):
    """Names are escaped; nothing is fetched from anywhere."""
    assert "&lt;b&gt;.png" in page and "<b>.png" not in page and "not &lt; here" in page
    assert "http" not in page and "<script" not in page
    for drawing in page.split("<svg")[1:]:
        ET.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")


def test_it_tells_scores_and_paths(page):
    for told in ("35.00 / 0.900", "path 25.00, rest 36.00"):
        assert told in page


def test_its_crops_are_the_crops(page):
    addresses = [part.split('"')[0] for part in page.split('src="data:image/png;base64,')[1:]]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(a)))) for a in addresses]
    assert [p.shape for p in pictures] == [(96, 96)] * 4 and [int(p[0, 0]) for p in pictures] == [0, 1, 2, 3]


def test_dots_lie_where_their_scores_are():
    """Equal factors of cost and equal dB are equal lengths; dearer is to the right, better above."""
    dots = {dot.row: dot for dot in plot(TABLE, 1).dots}
    ticks = plot(TABLE, 1)
    assert dots["hdr+"].x == next(t.place for t in ticks.x_ticks if t.text == "1")
    assert dots["swift"].x - dots["hdr+"].x == pytest.approx(dots["hdr+"].x - dots["single"].x, abs=0.2)
    assert (dots["single"].y - dots["hdr+"].y) == pytest.approx(2 * (dots["hdr+"].y - dots["swift"].y), abs=0.3)
    assert dots["swift"].trained and not dots["hdr+"].trained


def test_one_row_alone_can_be_drawn():
    assert len(plot({"single": {1: Score(20.0, 0.5, 0.0, None)}}, 1).dots) == 1


@pytest.mark.parametrize(("places", "spaced"), [([1, 2, 30], [1, 12, 30]), ([5], [5]), ([0, 0, 0], [0, 11, 22])])
def test_labels_keep_apart(places, spaced):
    assert separate_labels(places, 11) == spaced
