"""The page: it needs nothing else, shows what was developed, and places things where they are, however turned."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile
from PIL import Image

from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.denoising import comparison_page
from klarsicht.burst.denoising.comparison_page import choose_crops, kernel_points, to_script_json, to_upright
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.03, 1e-3)
NAME = "a <b>&'.tif"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.scripts, self.inside = {}, [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script"
        named = dict(attributes)
        assert not {"href", "srcset", "data"} & set(named)
        if "src" in named:
            self.sources[named["alt"]] = named["src"]

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)


def picture(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))).astype(float) / 255


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three frames of a slope, the first named as no file should be."""
    folder = tmp_path_factory.mktemp("burst")
    y, x = np.mgrid[:192, :256].astype(np.float32)
    light = np.stack([0.2 + 0.002 * x, 0.3 + 0.001 * y, 0.4 + 0 * x], -1)
    for i, name in enumerate((NAME, "b.tif", "c.tif")):
        noisy = LEVEL.sample(light.astype(np.float32), np.random.default_rng(i))
        tifffile.imwrite(folder / name, noisy, photometric="rgb")
    page = folder.parent / "page.html"
    settings = DenoiseSettings(noise=f"{LEVEL.read},{LEVEL.shot}", reference=NAME)
    list(denoise([folder], folder.parent / "out.tif", settings, page=page))
    return light, tifffile.imread(folder / NAME), Page(page.read_text()), page.read_text()


@pytest.mark.slow
def test_it_needs_nothing_else(made):
    _, _, page, text = made
    assert all(source.startswith("data:image/") for source in page.sources.values())
    assert not re.search(r"https?://|@import|url\(", text)
    assert "is reduced" not in text  # 192 x 256 is shown whole


def test_it_shows_the_reference_and_the_result(made):
    light, noisy, page, _ = made
    after, before = (picture(page.sources[k]) for k in ("The denoised photograph", "The reference frame as it was"))
    truth, seen = developed(light), developed(np.clip(noisy, 0, 1))
    assert np.abs(after - truth).mean() < 0.6 * np.abs(before - truth).mean()
    assert np.abs(before - seen).mean() < 0.03  # a JPEG of noise


def developed(light):
    """The brightest of linear light made white, under the curve as IEC 61966-2-1 prints it."""
    bright = np.clip(light / np.quantile(light.max(-1), 0.995), 0, 1)
    return np.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright ** (1 / 2.4) - 0.055)


def test_no_name_of_a_file_ends_the_script(made):
    _, _, page, text = made
    (script,) = page.scripts
    assert "<b>" not in text and NAME in json.loads(re.search(r"names = (\[.*?\]);", script).group(1))
    told = json.loads(re.search(r"points = (\[.*\]), names", script).group(1))
    assert len(told) > 50 and all(
        len(p["share"]) == 3 and sum(np.ravel(p["k"])) == pytest.approx(1, abs=0.05) for p in told
    )
    assert json.loads(to_script_json("</script>")) == "</script>" and "<" not in to_script_json("</script>")


@pytest.mark.skipif(shutil.which("node") is None, reason="no node, which runs the page's script here")
def test_strength_on_the_page_mixes_light(made):
    """Oracle: the curve as IEC 61966-2-1 prints it, in double precision, and the ends of the slider."""
    (script,) = made[2].scripts
    rng = np.random.default_rng(3)
    before, after = rng.integers(0, 256, (2, 4000))
    mixing = re.search(r"const STEPS.*?// end of mixing", script, re.DOTALL).group(0)
    asked = f"const a = {before.tolist()}, b = {after.tolist()}, all = [0, 0.3, 0.5, 1].map(t => "
    asked += "{ const out = new Uint8ClampedArray(a.length); mix(a, b, t, out); return [...out]; });"
    told = subprocess.run(
        ["node", "-e", f"{mixing}\n{asked}\nconsole.log(JSON.stringify(all))"], capture_output=True, check=True
    )
    got, colours = np.array(json.loads(told.stdout)), np.arange(4000) % 4 < 3

    def light(code):
        return np.where(code / 255 <= 0.04045, code / 255 / 12.92, ((code / 255 + 0.055) / 1.055) ** 2.4)

    for t, row in zip((0, 0.3, 0.5, 1), got, strict=True):
        x = light(before) * (1 - t) + light(after) * t
        wanted = 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
        assert np.abs(row - wanted)[colours].max() < 0.75
        assert (row[~colours] == 255).all()
    np.testing.assert_array_equal(got[0][colours], before[colours])
    np.testing.assert_array_equal(got[3][colours], after[colours])


def test_the_slider_of_strength_names_the_option_of_the_run(made):
    _, _, _, text = made
    assert '<output id="told" for="strength">--strength 1.00</output>' in text and "const most = 1.0," in text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_turn_as_pictures_turn(orientation):
    stored = np.zeros((30, 50))
    stored[4, 40] = 1
    (y,), (x,) = np.nonzero(turn_upright(stored, orientation))
    H, W = turn_upright(stored, orientation).shape
    assert to_upright((4.5 / 30, 40.5 / 50), orientation) == pytest.approx(((y + 0.5) / H, (x + 0.5) / W))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_kernels_turn_with_the_picture(orientation):
    """A kernel's weight on a pixel of the stored picture stays on that pixel of the upright one."""

    class Found:
        spool = FrameStore("", (1, 2, 30, 50))
        single = None
        kernels = ({"y": 10, "x": 20, "k": np.eye(3)[None].tolist(), "share": [1.0], "averaged": 2.0},)

    stored = np.zeros((30, 50))
    stored[9:12, 19:22] = np.eye(3)
    shown = turn_upright(stored, orientation)
    (point,) = kernel_points(Found, orientation)
    y, x = int(point["y"] * shown.shape[0]), int(point["x"] * shown.shape[1])
    np.testing.assert_array_equal(shown[y - 1 : y + 2, x - 1 : x + 2], point["k"][0])


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_crops_show_what_they_say(orientation, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_page, "CROP", 64)
    light = np.full((1, 400, 600), 0.5, np.float32)
    light[0, 100:110, 500:510] = 1  # detail
    light[0, 300:340, 100:140] = 0.01  # dark
    trust = np.ones((1, 400, 600), np.float32)
    trust[0, 200:220, 20:40] = 0
    spool = FrameStore(tmp_path / "s", (1, 2, 400, 600))
    spool.allocate()
    spool.write_frame(0, np.concatenate([light, trust]))
    room = Renderer.from_header(spool, Header(tmp_path / "a", "grey", (400, 600), 0, "none", orientation=orientation))
    found = choose_crops(room, room.trust_map(2000))
    for title, (y, x) in {"dark": (320, 120), "least trust in the burst": (210, 30)}.items():
        window = found[title]
        assert window.size == (64, 64)
        assert window.y0 <= y < window.y1 and window.x0 <= x < window.x1, title
    corners = np.array([(window.y0, window.x0) for window in found.values()])
    apart = np.abs(corners[:, None] - corners).max(-1)[np.triu_indices(len(corners), 1)]
    assert len(corners) == 4 and apart.min() >= 64 / 2 - 10  # the reduced picture has pixels of 10


def test_crops_of_a_small_picture_are_fewer_and_differ(tmp_path):
    """Others would show the same of a picture that is hardly larger than one crop."""
    spool = FrameStore(tmp_path / "s", (1, 2, 300, 310))
    spool.allocate()
    spool.write_frame(0, np.random.default_rng(0).random((2, 300, 310)).astype(np.float32))
    room = Renderer.from_header(spool, Header(tmp_path / "a", "grey", (300, 310), 0, "none"))
    windows = list(choose_crops(room, room.trust_map(2000)).values())
    assert len(windows) == 1 and windows[0].size == (300, 310)


def test_crops_of_a_picture_a_little_larger_than_one_differ(tmp_path):
    """Crops near a border are moved inside: four places of a picture of 400 pixels were nearly the same part."""
    spool = FrameStore(tmp_path / "s", (1, 2, 400, 420))
    spool.allocate()
    spool.write_frame(0, np.random.default_rng(0).random((2, 400, 420)).astype(np.float32))
    room = Renderer.from_header(spool, Header(tmp_path / "a", "grey", (400, 420), 0, "none"))
    windows = list(choose_crops(room, room.trust_map(2000)).values())
    assert len(windows) == 1 and windows[0].size == (320, 320)
