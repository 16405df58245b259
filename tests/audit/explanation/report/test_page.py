"""The report begins with its findings and names no folder of the machine; it is printed where a browser is."""

import itertools
import re
import shutil
import stat

import numpy as np
import pyarrow as pa
import pytest
from tests.audit.conftest import write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.duplicates import CopyGroup, Duplicates
from klarsicht.audit.explanation.report.page import count_findings, write_report
from klarsicht.audit.explanation.report.pdf import print_pdf
from klarsicht.audit.explanation.report.views import SEEN_PICTURES
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.questions import UNSURE_COPY
from klarsicht.audit.results.seen_groups import SeenGroup, write_seen_groups
from klarsicht.audit.results.surroundings import SURROUNDINGS_FILE, ClassSurroundings, ExceptionalImage, Surroundings
from klarsicht.cli.app import run
from klarsicht.ground.errors import MissingExtra, ProgramFailed
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics.intervals import Interval


def without_tags(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))


def test_findings_come_first_and_no_folder_of_the_machine_is_named(quantified, tmp_path):
    folder, _, verdicts = quantified
    page = write_report(folder).read_text()
    body = page[page.index("<body>") :]
    summary = body[body.index("In short") : body.index("<h2>Verdicts</h2>")]
    reviewed = [line for line in verdicts.lines if line.verdict.needs_review]
    counted = [line.headline.split(" share ")[0] for line in reviewed]  # how many images of which class
    assert counted and [text for text in counted if text in without_tags(summary)] == counted
    assert f"In {len(verdicts) - len({line.verdict.target for line in reviewed})} of {len(verdicts)} classes" in summary
    artifacts = len(reviewed)
    assert f"{artifacts} artifact{'s' * (artifacts > 1)} that some images of a class share" in summary
    anchors = re.findall('href="#(f[0-9-]+)"', summary)
    assert anchors and summary.count("<figure") == sum(min(4, carriers(body, anchor)) for anchor in anchors)
    for part in {str(folder.parent), str(folder.parent.resolve())}:
        assert part not in page


def test_pictures_words_and_accuracy_are_explained_where_a_reader_meets_them_first(quantified):
    folder, *_ = quantified
    page = write_report(folder).read_text()
    body = page[page.index("<body>") :]
    summary = body[body.index("In short") : body.index("For the person responsible")]
    assert summary.index("A green frame marks") > summary.rindex("<figure")  # in the box of the first pictures
    assert ("red pixels speak for the class" in summary) == RunStore.open(folder).has_array("maps")
    assert body.index("<b>Logit</b>") < body.index("</thead>") and abs(np.exp(0.7) - 2) < 0.02  # doubles the odds
    assert body.index("<b>To decide:</b>") < body.index("<h2>Verdicts</h2>")
    store = RunStore.open(folder)
    names, labels = np.array(store.manifest["names"]), np.array(store.texts("corpus", "label"))
    right = (names[store.array("logits")[:].argmax(1)] == labels).mean()  # of raw outputs, and labels as written
    assert f"predicts {100 * right:.1f} % of the images as labelled" in page


@pytest.mark.parametrize(
    ("artifacts", "shortcuts", "sentence"),
    [
        (0, 3, "No artifact that some images of a class share, and 3 possible shortcuts that whole classes share."),
        (2, 0, "2 artifacts that some images of a class share."),
        (None, 1, "1 possible shortcut that whole classes share."),
    ],
)
def test_the_headline_counts_artifacts_and_shortcuts_apart(artifacts, shortcuts, sentence):
    assert count_findings(artifacts, shortcuts) == sentence


def test_what_only_a_person_can_judge_is_not_counted_as_an_artifact():
    groups = "group{} of images that share what may belong to {} class"
    assert count_findings(0, 0, 1) == f"1 {groups.format('', 'its')}."
    assert count_findings(1, 1, 2) == (
        f"1 artifact that some images of a class share, 2 {groups.format('s', 'their')}, and 1 possible shortcut that "
        "whole classes share."
    )


@pytest.mark.parametrize(("labels", "kind", "said"), [("ab", "exact", 1), ("aa", "exact", 0), ("ab", UNSURE_COPY, 0)])
def test_copies_with_several_labels_are_told_in_short(quantified, tmp_path, monkeypatch, labels, kind, said):
    """A run in which nothing else was found said that there was nothing to look at."""
    pair = CopyGroup((0, 1), ("x", "y"), ("x", "y"), tuple(labels), ("", ""), kind, 1.0)
    record = Duplicates((pair,), 60, 0).to_json()
    record["groups"] = [group | {"images": []} for group in record["groups"]]
    monkeypatch.setattr("klarsicht.audit.explanation.report.page.read_copies", lambda store: record)
    page = without_tags(write_report(shutil.copytree(quantified[0], tmp_path / "run")).read_text())
    short, _, rest = page[page.index("In short") :].partition("For the person responsible")
    found = rest[rest.index("Found:") : rest.index("Not answered:")]
    assert [record["told"] in text for text in (short, found)] == [bool(said)] * 2
    assert record["told"] in rest  # with its table, whatever it says


def test_a_run_that_was_not_quantified_says_what_to_do_next(classifier, tmp_path):
    write_corpus(tmp_path / "data", per_class=4)
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), metric=("euclidean",))
    store = pipeline.run(settings, tmp_path / "run", classifier=classifier)
    said = without_tags((store.path / "report.html").read_text())
    assert "Nothing has been tested yet" in said and "Found: nothing yet" in said
    assert "nothing that a person should look at" not in said  # nobody has asked


@pytest.mark.parametrize(
    ("names", "used", "sentence"),
    [
        (("carton",), 0, "1 group of images of carton shares something that no verdict names. Nothing shows whether"),
        (("carton",), 1, "1 group of images of carton shares something that no verdict names. The model uses it: look"),
        (
            ("b", "a", "b"),
            1,
            "3 groups of images of b and a share something that no verdict names. The model uses 1 of",
        ),
        (("b", "a", "b"), 3, "share something that no verdict names. The model uses them: look at the images."),
        ((), 0, None),
    ],
)
def test_groups_that_no_verdict_names_are_told_in_short(quantified, tmp_path, names, used, sentence):
    shutil.copytree(quantified[0], tmp_path / "run")
    groups = [SeenGroup(name, 0, 9, f"veil 0.00{i}", 0.01, "", "too few", "", (0, 1), ("a", "b"), "", i <= used) for
              i, name in enumerate(names, 1)]  # fmt: skip
    write_seen_groups(RunStore.open(tmp_path / "run"), groups)
    said = without_tags(write_report(tmp_path / "run").read_text())
    summary = said[said.index("In short") : said.index("For the person responsible")]
    assert sentence in summary if sentence else "something that no verdict" not in said


def test_surroundings_that_the_model_relies_on_come_first_with_the_next_step(quantified, tmp_path):
    """They concern nearly a whole class, have no table of their own, and would be lost below ten other findings."""
    folder = shutil.copytree(quantified[0], tmp_path / "run")
    share, control = Interval(0.76, 0.67, 0.83, 100), Interval(0.02, 0.006, 0.07, 100)
    one = ClassSurroundings("light", 0, 400, 8, "dark", share, control, Interval(0.24, 0.17, 0.33, 100))
    odd = tuple(ExceptionalImage(f"light/{i}.png", "light", "dark", -1.25) for i in range(8))
    RunStore.open(folder).write_json(SURROUNDINGS_FILE, Surroundings((one,), odd, 0.7, 0.02).to_json())
    page = write_report(folder).read_text()
    summary = page[page.index("In short") : page.index("<h2>For the person responsible")]
    assert summary.index(one.describe()) < summary.index('<a href="#f')
    assert "look at the 8 exceptions" in summary and "<code>klarsicht audit clean RUN --part surroundings" in summary


def test_the_first_seen_groups_are_shown_in_short_with_pictures(quantified, tmp_path):
    """Three of five groups: the sentence that tells each, and the first four of its six pictures."""
    shutil.copytree(quantified[0], tmp_path / "run")
    store = RunStore.open(tmp_path / "run")
    groups = [SeenGroup("b", 0, 20 + i, "veil 0.001", 0.01, "", "too few", "", (0, 1), ("a", "b")) for i in range(5)]
    write_seen_groups(store, groups)
    store.discard_step(SEEN_PICTURES)
    rows, files = [], {}
    for group, i in itertools.product(range(5), range(6)):
        name = f"pictures/seen-{group}-{i}.jpg"
        files |= store.write_unit_file(name, f"picture {i} of {group}".encode())
        rows.append({"target": 0, "group": group, "path": f"{i} of {group}.png", "picture": name})
    store.write_table(SEEN_PICTURES, pa.Table.from_pylist(rows))
    store.mark_done(SEEN_PICTURES, 0, files)
    store.finish_step(SEEN_PICTURES, 1)
    page = write_report(store).read_text()
    summary = page[page.index("In short") : page.index("For the person responsible")]
    assert re.findall(r'title="(\d of \d.png)"', summary)[-12:] == [
        f"{i} of {g}.png" for g in range(3) for i in range(4)
    ]
    assert [f"2 of {20 + i} images of b" in summary for i in range(5)] == [True] * 3 + [False] * 2


def test_pictures_of_a_cluster_begin_with_the_largest_evidence(quantified):
    """Logits of the run less their mean over outputs, in the order of the page."""
    folder, _, _ = quantified
    store, page = RunStore.open(folder), write_report(folder).read_text()
    logits = np.asarray(store.array("logits"), float)
    evidence = logits - logits.mean(1, keepdims=True)
    keys = list(store.texts("corpus", "key"))
    section = re.search(r'<section class="suspect" id="s(\d+)">(.*?)</section>', page, re.DOTALL)
    for half in re.split(r"<h3>Other", section[2]):
        rows = [keys.index(name) for name in re.findall(r'<figure class="plate" tabindex="0" title="([^"]+)"', half)]
        shown = evidence[rows, int(section[1])]
        assert len(rows) > 2 and (np.diff(shown) <= 0).all()


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """A browser of four lines, the only program there is."""

    def install(body):
        program = tmp_path / "bin" / "chromium"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", str(program.parent))

    return install


PRINTS = (
    'for one in "$@"; do case "$one" in --print-to-pdf=*) echo "%PDF of $one" > "${one#--print-to-pdf=}";; esac; done'
)


def test_a_browser_that_is_installed_prints_the_page(tmp_path, browser):
    page = tmp_path / "report.html"
    page.write_text("<p>Hans</p>")
    browser(PRINTS)
    assert print_pdf(page) == tmp_path / "report.pdf"
    assert (tmp_path / "report.pdf").read_text().startswith("%PDF")


def test_a_browser_that_prints_nothing_and_none_at_all_are_one_error(tmp_path, browser, monkeypatch):
    page = tmp_path / "report.html"
    browser("echo no display >&2; exit 1")
    with pytest.raises(ProgramFailed, match="no display"):
        print_pdf(page)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"open .*report\.html in your browser"):
        print_pdf(page)
    assert not (tmp_path / "report.pdf").exists()


@pytest.mark.nightly
def test_chromium_prints_the_report_of_a_run(quantified, tmp_path, capsys):
    shutil.copytree(quantified[0], tmp_path / "run")
    assert run(["audit", "report", str(tmp_path / "run"), "--pdf"]) == 0
    assert (tmp_path / "run" / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "run" / f"report.{end}") for end in ("html", "pdf")]


def carriers(body, anchor):
    """Count the pictures of images with an artifact in its own section of the page."""
    section = body[body.index(f'id="{anchor}"') :]
    return section[: section.index("Images without it")].count("<figure")
