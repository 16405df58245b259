"""The explorer in a real browser, headless: open, sort, lasso, decide, kill the server, find the decision, clean.

Debian's Chromium driven by playwright; skipped where either is missing.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.audit.conftest import write_corpus
from tests.explorer.made_run import write_run

from klarsicht.cli.app import run as command
from klarsicht.explorer.export import export_run
from klarsicht.explorer.point_clouds import principal_plane
from klarsicht.explorer.serve import hide_address
from klarsicht.ground.run_folder.decisions import DECISIONS_FILE, Change, DecisionLog
from klarsicht.ground.run_folder.store import RunStore

pytestmark = pytest.mark.nightly
playwright = pytest.importorskip("playwright.sync_api")
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
EACH, CARRIERS = 40, 8
NAMES = ("tagged", "observed", "plain", "<script>alert(1)</script>", "\u202eexe.gnp", "z" * 120)


@contextmanager
def served(run, *options):
    """A server on a run, in a process of its own; gives its address and the process."""
    words = [sys.executable, "-m", "klarsicht", "audit", "explore", str(run), "--no-browser", "--port", "0", *options]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield server.stdout.readline().split()[1], server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")  # a page is drawn by a real browser, nightly, or not at all
    with playwright.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    found = write_run(tmp_path_factory.mktemp("made"), NAMES, EACH, CARRIERS).path
    write_correction(found / "corrections" / "0-auto")
    return found


def write_correction(folder):
    """Write what `audit clean` writes of a correction, with the widest figures that it can have."""
    folder.mkdir(parents=True)
    widest = {"value": -1.0, "low": -1.0, "high": -0.999, "n": 10}
    figures = dict.fromkeys(("accuracy", "affected", "under", "flips", "rise", "harm", "harm_affected"), widest)
    shown = {"before": figures, "after": figures, "verdict": "clean, but not proven harmless"}
    (folder / "correction.json").write_text(json.dumps({"class": "tagged", "shown": shown}))
    line = {"row": 0, "label": 0, "artifact": True, "before": 0, "after": 5}
    parquet.write_table(pa.Table.from_pylist([line]), folder / "answers.parquet")


@pytest.fixture(scope="module")
def address(made):
    with served(made, "--since", str(made)) as (found, _):
        yield found


def is_wrong(message):
    """Whether a message of the console is an error other than that of a server that was stopped."""
    return message.type == "error" and "ERR_CONNECTION" not in message.text


@pytest.fixture
def page(browser, made):
    """A page that fails the test for an error of a script, a refused script or a dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.on("console", lambda message: wrong.append(message.text) if is_wrong(message) else None)
    yield opened
    context.close()
    (made / DECISIONS_FILE).unlink(missing_ok=True)
    assert wrong == []


def names(page):
    return page.locator(".line:not(.head) .name a").all_inner_texts()


def drawn(page):
    page.wait_for_selector(".legend li")


def until(page, truth, seconds=20):
    """Wait for a truth about the page; playwright's own `wait_for_function` needs the eval that the pages forbid."""
    for _ in range(10 * seconds):
        if page.evaluate(truth):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"not true after {seconds} s: {truth}")


def lasso(page, corners):
    box = page.locator(".plot canvas").first.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def test_classes_are_listed_searched_filtered_and_sorted(page, address):
    page.goto(address)
    page.wait_for_selector(".line:not(.head)")
    assert names(page)[:2] == ["tagged", "observed"] and "<script>alert(1)</script>" in names(page)
    assert "\\u202eexe.gnp" in names(page)
    page.keyboard.press("/")
    page.keyboard.type("serv")
    assert names(page) == ["observed"]
    page.locator("input[type=search]").fill("")
    page.get_by_label("verdict", exact=True).select_option("relies on an artifact")
    assert names(page) == ["tagged"]
    page.get_by_label("verdict", exact=True).select_option("")
    page.get_by_label("order", exact=True).select_option("name")
    assert [name for name in names(page) if name.isalpha()] == ["observed", "plain", "tagged", "z" * 120]
    until(page, "[...document.querySelectorAll('.first img')].every((one) => one.naturalWidth > 0)")


def test_keys_decide_and_take_back(page, address, made):
    page.goto(address)
    page.wait_for_selector(".line.current")
    page.keyboard.press("j")
    page.keyboard.press("n")
    page.wait_for_selector(".line.current button[data-decision=legitimate][aria-pressed=true]")
    page.keyboard.press("k")
    page.keyboard.press("y")
    page.wait_for_selector(".line.current button[data-decision=artifact][aria-pressed=true]")
    found = DecisionLog(made).decisions()
    assert found[0].members == tuple(range(CARRIERS)) and found[1].is_legitimate
    count = page.locator(".bar [role=status]")
    assert count.inner_text() == f"{len(NAMES)} of {len(NAMES)} classes, 2 decided"
    page.keyboard.press("z")
    page.wait_for_selector(".line.current button[data-decision=artifact][aria-pressed=false]")
    assert 0 not in DecisionLog(made).decisions()


def test_a_lasso_selects_what_it_surrounds_and_the_selection_is_taken_out(page, address, made):
    page.goto(address + "#/class/0")
    drawn(page)
    text = page.locator(".group").first.locator(".group-head").inner_text()
    assert f"{CARRIERS} images" in text
    vectors = RunStore.open(made).part("embedding-concept", 0, "spray-concept")["vector"].to_pylist()
    side = 0.98 if principal_plane(np.array(vectors))[0, 0] > 0 else 0.02  # where the carriers lie
    lasso(page, [(0.5, 0.02), (side, 0.02), (side, 0.98), (0.5, 0.98)])
    page.wait_for_selector(".hint:has-text('8 selected')")
    until(page, "document.querySelector('.group-head img').naturalWidth > 0")  # the mean relevance
    page.get_by_role("button", name="Take all out").first.click()
    until(page, "document.querySelectorAll('.cell.removed').length > 0")
    decision = DecisionLog(made).decisions()[0]
    assert decision.members == () and decision.removed == tuple(range(CARRIERS))
    page.keyboard.press("z")
    until(page, "document.querySelectorAll('.cell.removed').length === 0")
    page.keyboard.press("Escape")
    page.locator(".cell button").first.click()
    page.wait_for_selector("dialog[open] figure[data-kind=window] img")
    assert page.locator("figure[data-kind=relevance] .colour-bar").inner_text().split()[1:] == [
        "against",
        "for",
        "the",
        "class",
        "0.7",
    ]
    until(page, "[...document.querySelectorAll('dialog img')].every((one) => one.naturalWidth > 0)")
    assert page.locator("#picture-title").inner_text() == "tagged/00000.png"
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#picture-title').textContent === 'tagged/00001.png'")
    page.keyboard.press("Escape")
    page.get_by_label("Name of the artifact").fill("white square")
    page.get_by_label("Note").fill("upper <b>right</b>")
    page.keyboard.press("Tab")
    page.wait_for_timeout(500)
    assert DecisionLog(made).decisions()[0].note == "upper <b>right</b>"
    page.keyboard.press("y")
    page.locator("nav a[data-page=findings]").click()
    page.wait_for_selector(".card")
    assert page.locator(".card h2").inner_text() == "white square"


def test_a_saved_page_opens_from_a_file_and_says_that_it_is_a_copy(page, made, tmp_path):
    page.goto(export_run(made, "page", tmp_path / "explorer.html").as_uri())
    page.wait_for_selector(".line:not(.head)")
    assert set(names(page)[:2]) == {"tagged", "observed"}
    assert page.locator("#model").inner_text().endswith("(saved copy, read-only)")
    plain = page.locator(".line:not(.head)", has_text="no artifact found").first.locator(".name div")
    assert plain.inner_text() == f"{EACH} images"  # and not how many stand in its group of highest class score
    until(page, "[...document.querySelectorAll('.first img')].every((one) => one.naturalWidth > 0)")
    assert page.locator(".decide, .bar button").count() == 0  # no button that needs a server
    page.locator("#help-button").click()
    assert "artifact:" not in page.locator("#help").inner_text() and "search" in page.locator("#help").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("y")
    page.wait_for_selector("#message:has-text('saved copy')")
    page.locator(".line:not(.head) .name a").first.click()
    drawn(page)
    page.get_by_label("show", exact=True).select_option("overlay")
    until(page, "document.querySelectorAll('.cell img').length > 10")
    until(page, "[...document.querySelectorAll('.cell img')].every((one) => one.naturalWidth > 0)")
    page.locator(".cell button").first.click()
    page.wait_for_selector("dialog[open] figure[data-kind=relevance] .colour-bar")
    assert page.locator("dialog[open] button").all_inner_texts() == ["Previous", "Next", "Show in the plot", "Close"]
    assert page.locator(".group-head button").count() == 0
    assert page.get_by_label("Name of the artifact").get_attribute("readonly") is not None


def test_alike_classes_are_proposed_and_decided_together(browser, tmp_path):
    made = write_run(tmp_path, each=EACH, carriers=CARRIERS, quantified=False).path
    page = browser.new_page()
    with served(made) as (found, _):
        page.goto(found + "#/findings")
        page.wait_for_selector(".card.proposed")
        assert page.locator(".card h2").inner_text() == "Seems to be one artifact in 2 classes"
        page.get_by_label("Name of the artifact of proposal 1").fill("white square")
        page.get_by_role("button", name="All of them carry it: proposal 1").click()
        page.wait_for_selector(".card:not(.proposed) h2:has-text('white square')")
        assert page.locator(".card.proposed").count() == 0
        decisions = DecisionLog(made).decisions()
        assert [one.artifact for one in decisions.values()] == ["white square"] * 2
        page.keyboard.press("z")
        page.wait_for_selector("p:has-text('seems to carry the same: observed')")
        assert [target for target, one in DecisionLog(made).decisions().items() if one.is_artifact] == [0]
    page.close()


def hold_back(run, held):
    """Move files of a run aside, as if they were not written yet; returns a function that writes one."""
    aside = run.parent / "aside"
    for name in held:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).rename(aside / name)
    return lambda name: (aside / name).rename(run / name)


def test_the_progress_of_a_running_audit_appears_without_a_reload(page, tmp_path):
    store = write_run(tmp_path, each=EACH, carriers=CARRIERS, quantified=False)
    ranking = ["ranking.json", "checksums/ranking.json.json"]
    units = [[f"tables/suspects-concept/{k:05d}.parquet", f"done/spray-concept/{k:05d}.json"] for k in (1, 2)]
    write = hold_back(store.path, [name for names in (ranking, *units) for name in names])
    store.update_manifest(finished=["attribution"])
    with served(store.path) as (found, _):
        page.goto(found)
        page.wait_for_selector("#progress:has-text('clusters (concept), 1 of 3')")
        assert names(page) == ["tagged"]
        page.evaluate("window.loaded = 'once'")
        page.locator("input[type=search]").fill("e")  # and what a person does is left alone
        for name in units[0]:
            write(name)
        page.wait_for_selector("#progress:has-text('clusters (concept), 2 of 3')", timeout=20000)
        page.wait_for_selector(".line .name a:has-text('observed')", timeout=20000)
        assert names(page) == ["tagged", "observed"] and page.locator("input[type=search]").input_value() == "e"
        for name in [*units[1], *ranking]:
            write(name)
        page.wait_for_selector(".line:has-text('higher class score')", timeout=20000)
        page.wait_for_selector("#progress", state="hidden", timeout=20000)
        assert page.evaluate("window.loaded") == "once"
        page.goto("about:blank")


def test_two_browsers_see_the_decisions_of_each_other(page, browser, address):
    other = browser.new_page()
    for one in (page, other):
        one.goto(address)
        one.wait_for_selector(".line.current")
    page.keyboard.press("u")
    other.wait_for_selector(".line button[data-decision=unsure][aria-pressed=true]", timeout=20000)
    other.close()


def test_what_is_decided_while_the_server_answers_waits_for_its_turn(page, address, made):
    page.goto(address)
    page.wait_for_selector(".line.current")
    held = []
    page.route("**/api/decisions", lambda route: held.append(route))
    for key in "yjnju":
        page.keyboard.press(key)
    for count in (1, 2, 3):
        for _ in range(100):
            page.wait_for_timeout(50)
            if len(held) == count:
                break
        page.wait_for_timeout(200)
        assert len(held) == count  # one request at a time, however many keys were pressed
        held[-1].continue_()
    page.wait_for_selector(".line button[data-decision=unsure][aria-pressed=true]")
    assert [record["decision"] for record in DecisionLog(made).records()] == ["artifact", "legitimate", "unsure"]
    for key in "zzz":
        page.keyboard.press(key)
    until(page, "document.querySelectorAll('.line button[aria-pressed=true]').length === 0")
    assert [record.get("undo") for record in DecisionLog(made).records()[3:]] == [2, 1, 0]
    assert page.locator("#message").is_hidden()


def test_what_another_decided_meanwhile_is_shown(page, address, made):
    """In the list also where the own record came right after it; on the page of a class its members."""
    log = DecisionLog(made)
    page.goto(address)
    page.wait_for_selector(".line.current")
    log.append(Change(1, "observed", "legitimate"), "bo")
    page.keyboard.press("u")
    page.wait_for_selector(".line button[data-decision=legitimate][aria-pressed=true]", timeout=20000)
    page.goto(address + "#/class/0")
    drawn(page)
    log.append(Change(0, "tagged", base=tuple(range(CARRIERS)), add=(CARRIERS, CARRIERS + 1)), "bo")
    page.wait_for_selector(f".group-head:has-text('{CARRIERS + 2} images')", timeout=20000)


def test_a_file_leads_to_the_page_and_the_token_leaves_no_trace(page, made):
    with served(made, "--token") as (found, _), hide_address(found) as file:
        sites = []
        page.on("request", lambda one: sites.append(one) if one.is_navigation_request() else None)
        page.goto(file)
        page.wait_for_selector(".line.current")
        bare = found.partition("?")[0]
        assert page.url == bare and [one.url for one in sites] == [file, found, bare]
        assert [one.all_headers().get("sec-fetch-site") for one in sites[1:]] == ["cross-site", "same-origin"]
        until(page, "[...document.querySelectorAll('.first img')].every((one) => one.naturalWidth > 0)")
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and cookie["value"] not in found
        page.go_back()
        assert "token" not in page.url
        page.goto("about:blank")


def test_what_was_decided_is_there_after_the_server_was_killed(page, made):
    with served(made) as (found, server):
        page.goto(found)
        page.wait_for_selector(".line.current")
        page.keyboard.press("y")
        page.wait_for_selector(".line.current button[data-decision=artifact][aria-pressed=true]")
        os.kill(server.pid, signal.SIGKILL)
        page.goto("about:blank")
    with served(made) as (found, _):
        page.goto(found)
        page.wait_for_selector(".line.current button[data-decision=artifact][aria-pressed=true]")


def require_no_violation(axe, page, address, path):
    """Look at a page in both colour schemes with axe-core."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(address + path)
        page.reload()
        page.wait_for_selector("h1")
        page.wait_for_timeout(800)
        found = axe.run(page).response["violations"]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"][:2]]) for one in found]
        assert told == [], (scheme, path)


def test_axe_finds_nothing_on_any_page(page, address, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for path in ("", "#/class/0", "#/findings", "#/comparison", "#/corrections"):
        require_no_violation(axe, page, address, path)
    page.goto(address + "#/class/0")
    page.get_by_label("show", exact=True).select_option("masked")
    until(page, "document.querySelectorAll('.cell img').length > 0")
    assert axe.run(page).response["violations"] == []
    with served(write_run(tmp_path, each=EACH, carriers=CARRIERS, quantified=False).path) as (found, _):
        for path in ("", "#/findings"):
            require_no_violation(axe, page, found, path)
        assert page.locator(".card.proposed").count() == 1
        page.goto("about:blank")


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_nothing_is_wider_than_the_window(page, address, width):
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("", "#/class/0", "#/findings", "#/comparison", "#/corrections"):
        page.goto(address + path)
        page.reload()
        page.wait_for_selector("h1")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    lines = page.locator(".figure .range").evaluate_all("(all) => all.map((one) => one.getClientRects().length)")
    assert lines and set(lines) == {1}  # an interval is in one line
    high = page.locator(".figure .range").evaluate_all("(all) => all.map((one) => one.offsetHeight)")
    assert max(high) < 30


def test_a_run_is_cleaned_by_what_was_decided_in_the_browser(browser, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data")
    out = tmp_path / "run"
    words = ["--model", "tests.audit.conftest:network", "--data", str(tmp_path / "data"), "--out", str(out)]
    assert command(["audit", "run", *words, "--metric", "euclidean"]) == 0
    page = browser.new_page()
    with served(out) as (address, _):
        page.goto(address + "#/class/1")
        drawn(page)
        page.get_by_role("button", name="artifact: b").click()
        page.wait_for_selector("button[data-decision=artifact][aria-pressed=true]")
        page.locator(".cell button").first.click()
        page.get_by_role("button", name="Take out of the artifact").click()
        page.get_by_role("button", name="Add to the artifact").wait_for()
    page.close()
    decision = DecisionLog(out).decisions()[1]
    assert len(decision.removed) == 1
    assert command(["audit", "export", str(out), "--to", "coco", "--out", str(tmp_path / "a.json")]) == 0
    assert len(json.loads((tmp_path / "a.json").read_bytes())["annotations"]) == len(decision.members)
    capsys.readouterr()
    assert command(["audit", "clean-data", str(out), "--class", "b", "--out", str(tmp_path / "c"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["artifact"] == "decision: b"
    dropped = {Path(line["path"]).name for line in told["changed"]}
    assert f"{decision.removed[0] - 60:03d}.png" not in dropped and len(dropped) >= len(decision.members)
