"""Tables that the command line prints, of results that are made by hand."""

import html
import re
import shlex
from dataclasses import replace

import numpy as np

from klarsicht.audit.cleaning.corrections.class_recalls import ClassRecalls
from klarsicht.audit.cleaning.data.clean_data import CleanedCorpus
from klarsicht.audit.cleaning.data.data_record import FOUND, ImageRecord
from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict
from klarsicht.audit.results.ranking import ClusterEffect, Entry
from klarsicht.audit.results.seen_groups import SeenGroup
from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import SCREENED_FOLLOWED
from klarsicht.audit.verdicts.quantification.screening import Screening
from klarsicht.cli import cleaning_tables, tables

ENTRY = Entry(
    name="carton", target=478, metric="concept", tau=1.0, rho2=0.5, d2=4.0, shift=2.0, z=3.0, size=2, n=8, rows=(1, 4),
    members=("b.png", "e.png"), proposal="rise", effect=ClusterEffect(2.5, 1.5, 3.5, 2.25, 4.0, 0, 0.7, 0.8),
)  # fmt: skip
STANDS = Specificity("basket", 0.25, -0.5, 1.0, 31.4159, 1.5, own=2.125, peer="monitor", peer_effect=2.625, ahead=3)


def printed(capsys, found):
    tables.screening(found, 1)
    return capsys.readouterr().out.splitlines()


def test_a_screening_tells_margin_probability_and_every_outputs_search(capsys):
    told = printed(capsys, Screening(ENTRY, (("pier", 1), ("dock", 1)), 1000, 0.05, STANDS))
    assert told[0] == f"carton: 2 of 8 images, by concept: {SCREENED_FOLLOWED}"
    assert "+2.50 (+1.50 to +3.50)" in told[1] and "+2.25" in told[1] and "0 of 1000 outputs" in told[1]
    assert "basket" in told[2] and "0.25 logits more (-0.50 to 1.00), which may be chance" in told[2]
    assert "31.4 times" in told[3] and "1.5 times" in told[3]
    assert "3 of 1,000" in told[4] and "by 2.12 logits" in told[4] and "monitor rises most, by 2.62" in told[4]
    assert told[5:] == ["p 0.004; significance level 0.05", "labels of these images: pier 1"]


USE = UseResult("fine 32 0.8", "own place", 2.5, 1.5, 3.5, 9.0, 0.0001, 0, 0.17, 0.03, 0.1, 1.0, "tile", 0.75)
CARTON = Verdict(
    "carton", 478, 200, 0, DetectionResult("fine 32 0.8", 9.0, 5.0, 0.01, 0.1, 0.0125), (1, 4), ("b", "e"), USE,
    artifactual=True, poisoned=True, used=True, resembles=("hair", "mark"),
)  # fmt: skip
CELLS = {
    "class": "carton", "verdict": "relies on an artifact", "p (artifact)": "0.013", "p (used)": "<0.001",
    "images with it": "2 of 200", "score change (logits, 95 %)": "+2.50 (+1.50 to +3.50)",
    "predicted as it (without)": "17.0 % (3.0 %)",
    "detector": "the same fine patch (32 px, match at least 0.8); like hair or mark",
    "inserted into other classes": "the patch, where images have it (covers 75 % of the difference)",
}  # fmt: skip
HEADLINE = (
    "The model uses it: pasted on images of other classes, it adds 2.5 logits and turns 17 of 100 into carton (3 "
    "without). It is a mark: the same pixels."
)


def test_the_table_of_verdicts_is_the_same_on_the_command_line_and_in_a_notebook(capsys):
    """Every artifact has a row; what the terminal aligns by blanks, the notebook puts into cells. Then each artifact
    has its sentences and the command."""
    rare = replace(CARTON, rows=(7,), members=("h",))
    other = replace(CARTON, name="crate", target=519)
    found = Quantification((replace(CARTON, further=(rare,)), other), 0.01, 0.05)
    tables.verdicts(found, 1, "my runs/1", {(478, 1): "top right"})
    printed = capsys.readouterr().out.splitlines()
    head, first, second = [re.split(r" {2,}", line) for line in printed[:3]]
    assert dict(zip(head, first, strict=True)) == CELLS
    assert dict(zip(head, second, strict=True)) == CELLS | {
        "class": "carton (artifact 2)", "images with it": "1 of 200"
    }  # fmt: skip
    assert printed[4:] == [  # the second class is beyond the lines that were asked for
        "", f"2 of 200 images of carton share the same fine patch, top right. {HEADLINE}",
        "next: look at the images, then correct the model: klarsicht audit clean 'my runs/1' --class carton",
        "", f"1 of 200 images of carton share a further trait: the same fine patch. {HEADLINE}",
        "next: look at the images, then correct the model: klarsicht audit clean 'my runs/1' --class "
        "'carton (artifact 2)'",
    ]  # fmt: skip
    page = found._repr_html_()
    rows = [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    cells = [[html.unescape(cell).replace("\u00a0", " ") for cell in row] for row in rows]
    assert cells[:3] == [head, first, second] and [row[0] for row in cells[3:]] == ["crate"]


def test_where_nothing_was_found_it_says_what_to_ask_next(capsys):
    plain = replace(CARTON, artifactual=False, poisoned=False, used=False, rows=(), members=())
    tables.verdicts(Quantification((plain,), 0.01, 0.05), 1, "my runs/1", {})
    commands = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert commands == ["klarsicht audit shortcuts 'my runs/1'", "klarsicht audit power 'my runs/1'"]


def test_a_group_that_is_seen_and_not_tested_comes_with_the_commands_that_show_and_test_it(capsys):
    plain = replace(CARTON, artifactual=False, poisoned=False, used=False, rows=(), members=())
    group = SeenGroup(
        "a mole", 1, 90, "borders", 0.007, "", "the run has too few classes", "", (1, 2), ("1.png", "2.png")
    )
    tables.verdicts(Quantification((plain,), 0.01, 0.05), 1, "my runs/1", {}, (group,))
    told = [line.partition(": klarsicht ")[2] for line in capsys.readouterr().out.splitlines() if "next: l" in line]
    look, test = map(shlex.split, told)
    assert look == ["audit", "explore", "my runs/1"]
    assert test == ["audit", "clean", "my runs/1", "--class", "a mole", "--members", "LIST"]


def test_a_group_that_the_model_uses_comes_first_and_is_counted_apart(capsys):
    plain = replace(CARTON, artifactual=False, poisoned=False, used=False, rows=(), members=())
    group = SeenGroup("mole", 1, 90, "borders", 0.007, "", "few classes", "", (1, 2), ("1.png", "2.png"))
    used = replace(group, rows=(3, 4), use="pasted into 9 images of x, it raises mole", is_used=True)
    tables.verdicts(Quantification((plain,), 0.01, 0.05), 1, "run", {}, (group, used))
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if line.startswith("seen")]
    assert [head.split(" of")[0] for head in heads] == ["seen, used: 1 group", "seen, not called: 1 group"]
    first, second = (line for line in lines if line.startswith("- "))
    assert first.endswith("Pasted into 9 images of x, it raises mole.") and "Pasted" not in second


def test_recalls_of_twelve_classes_are_those_of_the_corrected_one_and_of_the_nine_that_lose_most(capsys):
    """Of twenty images each, class k loses k; the mean falls by half of 11 / 20."""
    truth = np.repeat(np.arange(12), 20)
    after = np.where(np.arange(240) % 20 < truth, 0, truth)
    cleaning_tables.recalls(ClassRecalls(truth, truth, after, (0,)))
    _, *rows, mean = [
        re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines() if line.strip()
    ]
    assert [row[0] for row in rows] == ["class 0", *(f"class {k}" for k in range(11, 2, -1))]
    assert [float(row[3].split()[0]) for row in rows] == [100.0, *(100 - 5.0 * k for k in range(11, 2, -1))]
    assert mean[:2] == ["mean over classes", "240"] and mean[3].startswith("72.5 ")


def test_each_image_that_is_left_out_has_its_reason_and_one_is_one(capsys, tmp_path):
    reasons = (FOUND, FOUND, "probability 0.75")
    lines = tuple(
        ImageRecord(f"{i}.png", "lion", "", "", "", "drop", "", "lion", 0, why) for i, why in enumerate(reasons)
    )
    facts = {"class": "lion", "above": 0.5, "tables": "csv"}
    cleaning_tables.corpus(CleanedCorpus(tmp_path, facts, lines), dry_run=True)
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("  why") and [line.split("  ")[-1] for line in told[1:4]] == list(reasons)
    assert (
        "2 of these are images of the finding; 1 other counts by a probability of at least 0.5 (--above): look at it"
        in (told[5])
    )
    several = (*lines, ImageRecord("3.png", "lion", "", "", "", "drop", "", "lion", 0, "probability 0.60"))
    cleaning_tables.corpus(CleanedCorpus(tmp_path, facts, several), dry_run=True)
    assert "; 2 others count by a probability of at least 0.5 (--above): look at them" in capsys.readouterr().out
