"""An audit of a denoiser in the explorer: its answers are those of a folder made by hand, and damage is one line."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tests.explorer.requests import ask

from klarsicht.explorer.app import make_denoiser_app
from klarsicht.explorer.denoiser_strategies import DenoiserStrategies, is_denoiser_audit
from klarsicht.explorer.serve import open_application
from klarsicht.ground.errors import InputError, UsageError

LABELS = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two bursts, of which the second was photographed upright."""
    for name, orientation in (("1-a", 1), ("2-a", 6)):
        np.savez(tmp_path / f"{name}.npz", labels=LABELS, picture=PICTURE, orientation=orientation)
    facts = {"strategies": [{"name": "averages all frames"}, {"name": "x"}], "bursts": [{"name": "a"}, {"name": "a"}]}
    (tmp_path / "strategies.json").write_text(json.dumps(facts))
    (tmp_path / "explorer.json").write_text(json.dumps({"files": ["1-a", "2-a"], "colours": [[0, 0, 255], [9, 9, 9]]}))
    return tmp_path


def test_the_page_its_files_and_no_others_are_served(folder):
    app = make_denoiser_app(DenoiserStrategies.open(folder))
    page = ask(app, "/").content.decode()
    assert page.count("<script") == 1 and "http" not in page
    for name in ("strategies.js", "style.css", "elements.js", "requests.js", "icon.svg"):
        assert ask(app, f"/static/{name}").status == 200
    for path in (
        "/static/main.js",
        "/static/strategies.html",
        "/static/..%2fapp.py",
        "/api/run",
        "/api/bursts/2/picture",
    ):
        assert ask(app, path).status in (400, 404)


def test_answers_are_those_of_the_folder_upright(folder):
    """Orientation 6 of EXIF: the first row of the file is the right side of the picture."""
    app = make_denoiser_app(DenoiserStrategies.open(folder))
    told = ask(app, "/api/strategies").json
    assert told["shapes"] == [[2, 3], [3, 2]] and told["strategies"][1]["name"] == "x"
    assert ask(app, "/api/bursts/0/labels").content == LABELS.tobytes()
    assert ask(app, "/api/bursts/1/labels").content == np.rot90(LABELS, -1).tobytes()
    shown = Image.open(io.BytesIO(ask(app, "/api/bursts/1/picture").content))
    np.testing.assert_array_equal(np.asarray(shown), PICTURE)  # which is stored upright


def test_what_is_cut_short_or_not_known_of_a_denoiser_is_one_line(folder):
    assert is_denoiser_audit(folder)
    with pytest.raises(UsageError, match="no alarms; got earlier"):
        open_application(folder, "me", None, "earlier")
    app = make_denoiser_app(DenoiserStrategies.open(folder))
    (folder / "2-a.npz").write_bytes(b"PK\x03\x04")
    answer = ask(app, "/api/bursts/1/labels")
    assert answer.status == 422 and "2-a.npz cannot be read" in answer.json["error"]
    for content in ("", "{}", '{"files": ["a"]}'):
        (folder / "explorer.json").write_text(content)
        with pytest.raises(InputError, match="burst audit"):
            DenoiserStrategies.open(folder)
