"""The order of classes, and what is written of it."""

from dataclasses import replace

import pytest
from sklearn.metrics import jaccard_score

from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict
from klarsicht.audit.results.ranking import ClusterEffect, Entry, Ranking, order_by_verdict, rank_by_z, with_baseline
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VerdictKind
from klarsicht.cli import tables
from klarsicht.ground.errors import UsageError


def line(name, target, z, metric="concept", rows=(0, 2)):
    numbers = {"tau": 1.0, "rho2": 0.5, "d2": 4.0, "shift": z / 2, "z": z, "deviation": 0.0, "rounding": 0.0, "n": 10}
    members = {"rows": list(rows), "parts": []}
    return {"class": name, "target": target, "metric": metric, "proposal": "k-means k=2"} | members | numbers


JUDGED = Verdict(
    "a", 0, 90, 0, DetectionResult("veil 0.002", 9.0, 5.0, 0.01, 0.1, 0.03), (1, 2), ("a", "b"),
    UseResult("veil 0.002", "12 levels of light", 0.1, -0.1, 0.3, 0.4, 0.6, 3, 0.0, 0.0, 0.0, 1.0, "light"),
    artifactual=False, poisoned=False,
)  # fmt: skip
PATHS = [f"{i}.png" for i in range(10)]


def ranking(*lines) -> Ranking:
    return rank_by_z([Entry.from_record(one, PATHS) for one in lines])


def test_each_class_stands_once_by_its_best_metric_and_classes_by_falling_z():
    order = ranking(line("a", 0, 1.0), line("b", 1, 3.0, "euclidean"), line("b", 1, 2.0), line("c", 2, 3.0))
    assert [(e.name, e.metric, e.z) for e in order] == [("b", "euclidean", 3), ("c", "concept", 3), ("a", "concept", 1)]


def test_an_entry_carries_the_paths_of_its_members_and_its_prevalence():
    (entry,) = ranking(line("a", 0, 1.0, rows=(1, 3, 4)))
    assert entry.members == ("1.png", "3.png", "4.png")
    assert (entry.size, entry.prevalence) == (3, 0.3)


def test_json_has_the_promised_fields_and_the_table_the_same():
    order = ranking(line("a", 0, 1.0), line("b", 1, -2.0))
    for record in order.to_json():
        assert {"class", "tau", "z", "members", "prevalence", "verdict"} <= record.keys()
    assert order.to_table().to_pylist() == [
        {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}
        for record in order.to_json()
    ]
    assert order[1].kind is VerdictKind.NO_RISE


def test_a_class_is_found_by_name_and_by_number_and_a_wrong_one_is_told():
    order = ranking(line("carton", 478, 1.0))
    assert order.of("carton") is order.of("478") is order.of(478) is order["carton"]
    numbers = ranking(line("1", 0, 3.0), line("0", 1, 1.0))  # labels that look like numbers of other classes
    assert numbers.of("0").target == 1
    with pytest.raises(UsageError, match="carton"):
        order.of("cartoon")


@pytest.mark.parametrize(
    ("artifactual", "poisoned", "kind"),
    [
        (None, None, VerdictKind.RAISES),
        (False, False, VerdictKind.NOTHING),
        (True, False, VerdictKind.PRESENT),
        (True, True, VerdictKind.POISONED),
    ],
)
def test_the_verdict_is_that_of_the_quantification_where_there_is_one(artifactual, poisoned, kind):
    judged = None if artifactual is None else replace(JUDGED, artifactual=artifactual, poisoned=poisoned)
    found = replace(Entry.from_record(line("a", 0, 3.0), PATHS), judged=judged)
    assert found.kind is kind
    record = found.to_json()
    assert [record[key] for key in ("artifactual", "poisoned", "q", "use_low", "matters")] == (
        [None] * 5 if judged is None else [artifactual, poisoned, 0.1, -0.1, False]
    )


def test_quantified_classes_are_ordered_by_verdict_then_by_harm_and_others_by_z():
    """Harm, the share of other images that become the class, comes before z; where no artifact was found, z stays."""
    used, found = {"artifactual": True, "poisoned": True}, {"artifactual": True}
    claims = {0: (0.0, {}), 1: (0.1, found), 2: (0.4, found), 3: (0.02, used), 4: (0.6, used), 5: (0.9, {})}
    verdicts = tuple(
        replace(JUDGED, target=k, use=replace(JUDGED.use, flips=flips), **claim) for k, (flips, claim) in claims.items()
    )
    entries = list(ranking(*(line("abcdefg"[k], k, 9.0 - k) for k in range(7))))
    order = order_by_verdict(entries, Quantification(verdicts, 0.01, 0.05))
    assert [entry.name for entry in order] == ["e", "d", "c", "b", "a", "f", "g"]  # g was not judged
    assert [entry.to_json()["harm"] for entry in order] == [0.6, 0.02, 0.4, 0.1, 0.0, 0.0, None]


def test_plain_features_stand_beside_with_their_overlap():
    """Rows 0 to 5 beside 3 to 8: three of nine in both, as scikit-learn counts them."""
    own, other = line("a", 0, 2.0, rows=range(6)), line("a", 0, 1.5, "features", rows=range(3, 9)) | {"tau": 0.7}
    entries = [
        Entry.from_record(own, PATHS),
        Entry.from_record(line("b", 1, 1.0), PATHS),
        Entry.from_record(line("c", 2, 1.0), PATHS),
    ]
    first, second, third = with_baseline(entries, [other, line("b", 1, 0.0, "features", rows=())])
    member = [[row in one["rows"] for row in range(10)] for one in (own, other)]
    assert first.baseline.overlap == pytest.approx(jaccard_score(*member))
    assert (first.baseline.size, first.baseline.tau, first.baseline.z) == (6, 0.7, 1.5)
    assert (first.metric, first.z, first.rows) == ("concept", 2.0, tuple(range(6)))  # nothing else changes
    assert second.beside == third.beside == "" and second.baseline is None
    assert first.beside == "6 images, 33 % the same"


def spread(name, target, shift, deviation, rounding=1e-5):
    z = shift / max(deviation, rounding)
    return line(name, target, z) | {"shift": shift, "deviation": deviation, "rounding": rounding}


def test_a_large_z_of_a_class_that_hardly_varies_counts_in_units_of_what_classes_usually_do():
    usual = [spread(f"c{i}", i, 0.5, 1.0) for i in range(5)]
    order = ranking(*usual, spread("quiet", 5, 0.02, 0.002), spread("used", 6, 2.0, 1.0))
    assert order[0].name == "used"
    quiet = order.of("quiet")
    assert quiet.z == pytest.approx(0.02 / 0.1)  # a tenth of the median deviation, 1
    assert not quiet.material
    assert quiet.kind is VerdictKind.NO_RISE
    assert order.of("used").z == 2
    assert order.of("used").kind is VerdictKind.RAISES


def test_evidence_that_does_not_vary_is_said():
    order = ranking(spread("a", 0, 1.0, 1.0), spread("erased", 1, 1e-7, 2e-7))
    assert order.of("erased").kind is VerdictKind.UNVARYING
    assert abs(order.of("erased").z) < 1e-4


def test_the_order_says_whose_z_decides_where_other_clusters_are_shown():
    """A followed cluster has a z of its own, by which nothing is ordered: classes stay as `audit run` ranked them."""
    own = [replace(entry, judged=JUDGED) for entry in ranking(line("a", 0, 2.0), line("b", 1, 1.0))]
    assert Ranking(tuple(own)).order == "by the verdict of `audit quantify` and its harm, then by z of `audit run`"
    effect = ClusterEffect(shift=1.0, low=0.5, high=1.5, runner_up=0.0, z=3.0, rank=0, follows=0.5, stability=0.5)
    shown = Ranking((replace(own[0], z=0.1, effect=effect), own[1]))
    assert shown.order.endswith("; z shown is that of the group that the model follows")


def test_of_several_artifacts_the_images_that_are_shown_are_those_of_the_one_that_the_model_uses():
    (entry,) = ranking(line("a", 0, 1.0, rows=(1, 3, 4)))
    further = replace(JUDGED, artifactual=True, poisoned=True, rows=(5, 6, 7), members=("x", "y", "z"))
    found = replace(entry, judged=replace(JUDGED, artifactual=True, further=(further,)))
    assert found.kind is VerdictKind.POISONED
    assert found.as_named.rows == (5, 6, 7) and found.to_json()["members"] == ["x", "y", "z"]
    unused = replace(found, judged=replace(found.judged, further=(replace(further, poisoned=False),)))
    assert unused.kind is not VerdictKind.POISONED and unused.as_named.rows == JUDGED.rows


def test_the_members_that_are_shown_are_those_that_the_verdict_rests_on(capsys):
    """A cluster of three beside a detection of two: the figures of the cluster stay."""
    (entry,) = ranking(line("a", 0, 1.0, rows=(1, 3, 4)))
    found = replace(entry, judged=replace(JUDGED, artifactual=True))
    record = found.to_json()
    assert (found.as_named.rows, record["rows"], record["members"]) == (JUDGED.rows, JUDGED.rows, ["a", "b"])
    assert (record["size"], record["n"], record["prevalence"], record["z"]) == (2, 90, 2 / 90, 1.0)
    tables.ranking(Ranking((found,)), 5)
    assert "2 of 90" in capsys.readouterr().out and "2 of 90" in Ranking((found,))._repr_html_()
    for other in (replace(entry, judged=JUDGED), entry, replace(found, by_z=True)):  # no detector, or not asked for
        assert other.as_named is other and other.to_json()["members"] == ["1.png", "3.png", "4.png"]
