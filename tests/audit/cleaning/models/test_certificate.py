"""Corrections side by side, on evaluations written by hand: means over seeds, what is proven, what is called clean."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from klarsicht.audit.cleaning.models import certificate
from klarsicht.audit.cleaning.models.certificate import FIGURES
from klarsicht.ground.errors import HarmExceeded, InputError, UsageError


def interval(value, half=0.01, n=400):
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def look(name, harm, flips, probes=(0.9, 0.8, 0.95)):
    figures = dict.fromkeys(FIGURES, interval(0.5)) | {"harm": interval(harm, 0.002), "flips": interval(flips)}
    again = {"suspect": flips > 0.3, "z": 1.0, "found": 0.5, "members": 1.0}
    layers = {layer: interval(p) for layer, p in zip(("a", "b", "head"), probes, strict=True)}
    return {"correction": name, **figures, "probes": layers, "second audit": again}


def written(folder, method="oblique", seed=0, model="m", harm=0.0, flips=0.05, clean=True, **settings):
    folder.mkdir(parents=True)
    found = {
        "verdict": "cleaned: so" if clean else "harmful: 9 points", "kind": "clean" if clean else "harmful",
        "clean": clean, "identity": {"model": model},
        "class": "tee", "target": 0, "settings": {"method": method, "seed": seed, "layer": None} | settings,
        "chosen": {"method": method, "layer": "b", "directions": 2, "strength": 1.0},
        "bounds": {"overall": 0.005, "affected": 0.02},
        "remaining": 0.1, "shown on": 400, "skipped": [], "images": {"trained on": False, "why": ""},
        "artifact": {"members": 12, "origin": "detector: the same patch (32 px)"}, "next": "Use `klarsicht` again.",
        "looks": [look("nothing", 0.0, 0.4), look(method, harm, flips, (0.5, 0.6, 0.7))],
    }  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(found))
    return folder


def test_seeds_of_one_method_are_one_line_with_the_interval_of_a_t_test(tmp_path):
    flips = (0.32, 0.35, 0.41)
    found = certificate.read_certificate(
        written(tmp_path / f"{i}", seed=i, model=f"m{i}", flips=f) for i, f in enumerate(flips)
    )
    (line,) = found.rows
    low, high = stats.ttest_1samp(flips, 0).confidence_interval(0.95)
    told = line.figures["flips"]
    np.testing.assert_allclose((told.value, told.low, told.high, told.n), (np.mean(flips), low, high, 3))
    assert (line.seeds, found.before.seeds, line.suspect, found.before.suspect) == (3, 3, (3, 3), (3, 3))


def test_seeds_that_agree_are_no_proof_beyond_their_images(tmp_path):
    """Three seeds without any loss, each on images that leave .2 of a point open."""
    found = certificate.read_certificate(written(tmp_path / f"{i}", seed=i, flips=0.995) for i in range(3))
    harm, flips = (found.rows[0].figures[name] for name in ("harm", "flips"))
    np.testing.assert_allclose((harm.value, harm.low, harm.high), (0, -0.002, 0.002))
    assert (flips.low, flips.high) == (pytest.approx(0.985), 1)  # no share is above one


def test_one_seed_keeps_its_interval_over_images_and_says_what_is_proven(tmp_path):
    tight, loose = written(tmp_path / "a", harm=0.002), written(tmp_path / "b", method="project", harm=0.004)
    found = certificate.read_certificate([tight, loose])
    assert [line.name for line in found.rows] == ["oblique", "project"]
    assert found.rows[0].figures["harm"].n == 400
    assert [found.losses_within_bounds(line)["harm"] for line in found.rows] == [
        True,
        False,
    ]  # .002 + .002 and .004 + .002; .005
    assert (found.rows[0].at.value, found.rows[0].after.value) == (0.5, 0.7)
    assert found.before.seeds == 1  # one model and one sample, shown once


def test_ways_of_one_method_are_told_apart_by_what_differs(tmp_path):
    found = certificate.read_certificate([written(tmp_path / "a", layer="x"), written(tmp_path / "b", layer="y")])
    assert [line.name for line in found.rows] == ["oblique (layer x)", "oblique (layer y)"]


def test_where_none_is_clean_in_every_seed_it_is_an_error(tmp_path):
    bad = [written(tmp_path / f"b{i}", method="project", seed=i, clean=i > 0) for i in range(3)]
    with pytest.raises(HarmExceeded, match="project: clean in 2 of 3 seeds"):
        certificate.read_certificate(bad).check()
    certificate.read_certificate([*bad, written(tmp_path / "good")]).check()


def test_other_classes_other_bounds_and_folders_without_an_evaluation_are_refused(tmp_path):
    one, other = written(tmp_path / "a"), written(tmp_path / "b")
    for what, value in (("class", "coat"), ("bounds", {"overall": 0.1, "affected": 0.1})):
        file = other / "evaluation.json"
        file.write_text(json.dumps(json.loads((one / "evaluation.json").read_text()) | {what: value}))
        with pytest.raises(UsageError, match=f"different {what}"):
            certificate.read_certificate([one, other])
    with pytest.raises(InputError, match="no evaluation in this folder"):
        certificate.read_certificate([tmp_path])


def test_the_page_begins_with_sentences_for_a_reader_who_knows_no_term_of_the_table(tmp_path):
    """Figures as written above; a term of the table, such as probe, stands in none of them."""
    found = certificate.read_certificate([written(tmp_path / "a", harm=0.002)])
    page = certificate.render_page(found)
    short = re.sub(r"<[^>]*>", "", page[page.index("<h2>In short") : page.index("<h2>Effect and cost")])
    assert "An artifact is what some images of a class share" in short and "Next: Use klarsicht again." in short
    for sentence in (
        "12 images of tee carry the artifact. A detector saw what they share: the same patch (32 px).",
        "Inserted into other images, the artifact turns 40.0 % (39.0 to 41.0) of them into tee as long as the model",
        "After the correction oblique, it turns 5.0 % (4.0 to 6.0).",
        "images without the artifact: 50.0 % before, 50.0 % after. The model loses 0.20 points (0.00 to 0.40).",
        "Not tested here: artifacts of other kinds or classes",
    ):
        assert sentence in short
    assert not any(word in short for word in ("probe", "seed", "logit", "harmful"))


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("unused", "unused"), "The model is not shown to use the artifact."),
        (("remains", "harmful"), "No correction cleans the model."),
        (("clean", "remains"), "The model is cleaned (correction: m0)."),
        (("clean-unproven", "harmful"), "The model is cleaned; a loss of accuracy is not excluded (correction: m0)."),
    ],
)
def test_the_first_sentence_says_why_no_correction_cleans_the_model(tmp_path, kinds, said):
    """A model that does not use the artifact needs no correction, and none failed."""
    folders = [
        written(tmp_path / f"{i}", method=f"m{i}", clean=kind.startswith("clean")) for i, kind in enumerate(kinds)
    ]
    for folder, kind in zip(folders, kinds, strict=True):
        file = folder / "evaluation.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"kind": kind}))
    assert certificate.read_certificate(folders).outcome == said


def test_the_page_shows_every_line_on_one_scale(tmp_path):
    folders = [written(tmp_path / "a", harm=0.002), written(tmp_path / "b", method="<b>", harm=0.05, clean=False)]
    found = certificate.read_certificate(folders)
    certificate.write_certificate(tmp_path / "out", certificate.render_page(found), found.to_json())
    page = (tmp_path / "out" / "certificate.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>The model is cleaned (correction: oblique).</b>" in page  # may be called clean
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["corrections"][1]["proven"]["harm"] is False
    assert not re.search(r"""(src|href)=["']?http""", page)
    (harm, *_) = certificate.template_context(found)["columns"]
    assert [(harm.is_broken(row), harm.is_proven(row)) for row in found.rows] == [(False, True), (True, False)]
    for row, value in zip(found.rows, (0.2, 5.0), strict=True):  # where it is drawn, back in percent
        at = harm.position(row.figures["harm"].value)
        assert at / 100 * (harm.high - harm.low) + harm.low == pytest.approx(value, abs=1e-9)
        assert f"left:{at:.1f}%" in page
    assert 0 <= harm.position(harm.bound) <= 100
