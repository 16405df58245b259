"""Lists of all members on the report of a run whose classes are known, read back by another parser and a browser."""

import io
import shutil
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError
from PIL import Image
from tests.explorer.made_run import verdict_of, write_run

from klarsicht.audit.explanation.report import page as page_module
from klarsicht.audit.explanation.report.noted_classes import NotedClass, add_small_pictures, common_prefix
from klarsicht.audit.explanation.report.page import write_report
from klarsicht.audit.explanation.report.views import EVIDENCE
from klarsicht.audit.results import ranking
from klarsicht.ground.errors import RunDamaged
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.decisions import Change, DecisionLog

NAMES = ("first", "second", "third", "fourth")
EACH, CARRIERS = 24, 6


class Lists(HTMLParser):
    """The lists of a page: names by the list's id, and what is inside the sections that fold."""

    def __init__(self, page):
        super().__init__()
        self.names, self.pictures, self.links, self._list, self._section = {}, {}, [], None, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if tag == "pre":
            self._list = (told["id"], told.get("data-prefix") or "")
        if tag == "details":
            self._section = told.get("id")
        if tag == "img" and self._section:
            self.pictures.setdefault(self._section, []).append(told)
        if tag == "a":
            self.links.append(told["href"])

    def handle_endtag(self, tag):
        self._list = None if tag == "pre" else self._list
        self._section = None if tag == "details" else self._section

    def handle_data(self, text):
        if self._list:
            name, prefix = self._list
            self.names.setdefault(name, []).extend(prefix + line for line in text.splitlines() if line)


@pytest.fixture
def store(tmp_path):
    """A run in which the first and the third class have an artifact, and the third has a small picture of it."""
    store = write_run(tmp_path, NAMES, EACH, CARRIERS, images=False, maps=False, embedded=[])
    paths = store.table("corpus")["path"].to_pylist()
    verdicts = []
    for k, name in enumerate(NAMES):
        rows = range(k * EACH, k * EACH + CARRIERS) if k in (0, 2) else ()
        verdicts.append(verdict_of(k, name, rows, [paths[row] for row in rows], EACH, k in (0, 2)))
    store.write_json("quantification.json", {"floor": 0.05, "level": 0.05, "skipped": [], "classes": verdicts})
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "JPEG")
    written, records = Written(), []
    for target, end in ((0, ""), (2, "-small")):
        picture, row = f"pictures/sign-{target}-1{end}.jpg", target * EACH
        written |= store.write_unit_file(picture, buffer.getvalue())
        records.append(
            {"target": target, "row": row, "member": True, "artifact": 1, "path": paths[row], "picture": picture}
        )
    store.write_table(EVIDENCE, {name: [record[name] for record in records] for name in records[0]})
    store.mark_done(EVIDENCE, 0, written)
    store.finish_step(EVIDENCE, 1)
    return store


def members(k):
    return [f"{NAMES[k]}/{i:05d}.png" for i in range(CARRIERS)]


def test_every_noted_class_has_all_its_members_and_is_linked(store):
    found = Lists(write_report(store).read_text())
    assert found.names["fm0"] == members(0)  # has a section of its own
    assert found.names["mm2"] == members(2) and {"#f0", "#m2"} <= set(found.links)
    assert "mm0" not in found.names and "mm3" not in found.names  # nothing was found in the fourth
    (picture,) = found.pictures["m2"]
    assert picture["loading"] == "lazy" and picture["src"].startswith("data:image/jpeg;base64,")


def test_what_a_person_decided_is_listed(store):
    log = DecisionLog(store.path)
    log.append(Change(3, NAMES[3], "artifact", "dust", base=(80, 81, 95)), "ada")
    log.append(Change(2, NAMES[2], "legitimate"), "ada")
    page = write_report(store).read_text()
    found = Lists(page)
    assert found.names["mm3"] == ["fourth/00008.png", "fourth/00009.png", "fourth/00023.png"]
    assert "artifact: dust" in page and "legitimate" in page and found.names["mm2"] == members(2)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a/b1.png", "a/b2.png"], "a/b"), (["ab", "a"], ""), (["aab", "aa", "aac"], "a"), (["x"], ""), ([], ""),
        (["same", "same"], "sam"), (["", "a"], ""), (["b", "a"], ""),
    ],
)  # fmt: skip
def test_a_common_prefix_leaves_a_character_of_each_name(names, wanted):
    assert common_prefix(names) == wanted


def test_pictures_are_as_many_of_each_class_as_fit():
    classes = [NotedClass(name, k, "", 9, "", "", ()) for k, name in enumerate(NAMES)]
    pictures = {k: [(f"{k}{i}", "x" * 10) for i in range(5)] for k in range(4)}
    counts = {
        most: [len(one.pictures) for one in add_small_pictures(classes, pictures, most)]
        for most in (120, 119, 79, 25, 9)
    }
    assert counts == {120: [3] * 4, 119: [2] * 4, 79: [1] * 4, 25: [1, 1, 0, 0], 9: [0] * 4}


@pytest.mark.nightly
def test_a_browser_finds_opens_and_saves_a_class_without_a_server(store, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed")  # a page is drawn by a real browser, nightly, or not at all
    page_file = write_report(store)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        wrong = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(page_file.as_uri())
        page.locator("a[href='#m2']").first.click()
        page.wait_for_selector("#m2[open] img")
        with page.expect_download() as saved:
            page.locator("#m2 button.save").click()
        saved.value.save_as(tmp_path / "members.txt")
        page.locator("#m2 .plate").click()
        page.wait_for_selector("#enlarged[open] img")
        browser.close()
    assert (tmp_path / "members.txt").read_text().splitlines() == members(2)
    assert wrong == []


def test_a_line_break_in_a_name_is_shown_escaped(tmp_path):
    """A name of two lines would else be read as two images."""
    names = ("first", "line\nbreak")
    page = write_report(write_run(tmp_path, names, EACH, CARRIERS, images=False, maps=False, embedded=[])).read_text()
    assert "line\\x0abreak" in page and "line\nbreak" not in page


@pytest.mark.nightly
def test_all_columns_of_the_ranking_fit_a_window_of_1300_pixels(store):
    """Names as long as ImageNet's, a followed cluster, a decision: the layout is the browser's."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed")  # a page is drawn by a real browser, nightly, or not at all
    long = "black-footed ferret, ferret, Mustela nigripes"
    effect = {
        "low": -10.25,
        "high": -10.01,
        "runner_up": 0.5,
        "rank": 1,
        "effect_z": 9.0,
        "follows": 0.5,
        "stability": 0.88,
    }
    lines = [line | {"class": long, "effect": -10.13, **effect} for line in store.read_json("ranking.json")]
    store.write_table(ranking.FOLLOWED, {name: [line[name] for line in lines] for name in lines[0]})
    DecisionLog(store.path).append(Change(3, NAMES[3], "artifact", "black and white tag"), "ada")
    page_file = write_report(store)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 800})
        page.goto(page_file.as_uri())
        assert page.get_by_text(long).count() and page.get_by_text("black and white tag").count()
        hidden = page.evaluate("[...document.querySelectorAll('.wide')].map(box => box.scrollWidth - box.clientWidth)")
        browser.close()
    assert len(hidden) >= 2 and not any(hidden)


def test_a_fault_of_the_template_is_no_damage_of_the_run(store, monkeypatch):
    """A name that a template lacks is a fault of the program; a look-up in a table that fails is damage."""
    monkeypatch.setattr(page_module, "template_values", lambda _: {})
    with pytest.raises(UndefinedError):
        write_report(store)
    monkeypatch.setattr(page_module, "template_values", lambda _: {}["damaged"])
    with pytest.raises(RunDamaged):
        write_report(store)
