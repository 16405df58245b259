"""The samples of docs: files that open without anything beside them, and name no folder of a machine.
Oracles: an HTML parser and Pillow."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "docs" / "samples"
NAMES = ("report.html", "explorer.html")
LARGEST = 1.5e6  # bytes of both together


def read_addresses(page):
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.extend(
        value for name, value in attrs if name in ("src", "href") and value
    )
    parser.feed(page)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_needs_nothing_from_elsewhere_and_names_no_folder(name):
    page = (SAMPLES / name).read_text()
    loaded = [address for address in read_addresses(page) if not address.startswith(("data:", "#"))]
    assert [
        address for address in loaded if not address.startswith("https://")
    ] == []  # links to papers may be followed
    assert not re.search(r"(?<![\w.])/(?:home|tmp|root|work|Users)/", page)
    assert "carton" in page


@pytest.mark.parametrize("name", NAMES)
def test_the_pictures_of_a_sample_can_be_decoded(name):
    pictures = re.findall(r"data:image/(?:webp|png|jpeg);base64,([A-Za-z0-9+/=]+)", (SAMPLES / name).read_text())
    assert len(pictures) > 10
    for picture in pictures[:: len(pictures) // 5]:
        assert min(Image.open(io.BytesIO(base64.b64decode(picture))).size) >= 32


def test_the_samples_are_small():
    assert sum((SAMPLES / name).stat().st_size for name in NAMES) < LARGEST
