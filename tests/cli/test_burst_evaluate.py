"""`klarsicht burst evaluate` as a user types it."""

import json

import numpy as np
import pytest
from PIL import Image

from klarsicht.cli.app import run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (32, 48, 3))
    Image.fromarray(np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)).save(folder / "one.png")
    return folder


def test_tables_for_people(photos, capsys):
    assert run(["burst", "evaluate", "--photos", str(photos), "--row", "single", "--row", "mean", "--gain", "4"]) == 0
    told = capsys.readouterr().out
    for line in ("seed 7", "sha256", "one.png", "exposure drawn", "exposure 1", "best classical: gain 4:"):
        assert line in told
    rows = [line.split()[0] for line in told.splitlines() if line.startswith(("single", "mean"))]
    assert rows == ["single", "mean"] * 2


def test_json_alone_on_standard_output(photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--photos", str(photos), "--row", "single", "--row", "kpn", "--gain", "8", "--json", "--out", str(out)]
    assert run(["burst", "evaluate", *words]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)
    assert list(rows) == ["single"] and {"psnr", "ssim", "cpu_s_per_mpx"} <= set(rows["single"]["8"])
    assert "absent: kpn: no checkpoint" in told.err and "sha256" in told.err
    assert json.loads((out / "evaluation.json").read_text())["rows"] == rows


def test_a_flat_photograph_has_the_psnr_of_its_noise(tmp_path, capsys):
    """The expected squared error behind the sRGB curve, by integration over the normal noise."""
    Image.new("RGB", (768, 512), (128, 128, 128)).save(tmp_path / "flat.png")
    assert run(["burst", "evaluate", "--photos", str(tmp_path), "--row", "single", "--gain", "1", "--json"]) == 0

    def shown(x):
        return np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)

    x, (z, weights) = (128 / 255) ** 2.2, np.polynomial.hermite_e.hermegauss(40)
    error = np.square(shown(x + np.sqrt(10**-4.4 + 10**-2.57 * x) * z) - shown(x)) @ weights / weights.sum()
    found = json.loads(capsys.readouterr().out)["single"]["1"]["exposure_1"]["psnr"]
    assert found == pytest.approx(-10 * np.log10(error), abs=0.05)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--photos", "nowhere"], 3, "no such folder"),
        (["--row", "sharp"], 2, "unknown row"),
        (["--checkpoint", "nowhere.safetensors"], 4, "nowhere.safetensors"),
    ],
)
def test_mistakes_are_one_line_and_a_code(words, code, told, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(["burst", "evaluate", *words]) == code
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
