"""Tables that the command line prints, of results that are made by hand."""

from dataclasses import replace

from klarsicht.audit.results.ranking import ClusterEffect, Entry
from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.verdicts.quantification.screening import FOLLOWS, NO_USE, Screening
from klarsicht.cli import tables

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
    assert told[0] == f"carton: 2 of 8 images, by concept: {FOLLOWS}"
    assert "+2.50 (+1.50 to +3.50)" in told[1] and "+2.25" in told[1] and "0 of 1000 outputs" in told[1]
    assert "basket" in told[2] and "+0.25 (-0.50 to +1.00)" in told[2]
    assert "31.4 times" in told[3] and "1.5 times" in told[3]
    assert "3 of 1000" in told[4] and "+2.12" in told[4] and "monitor with +2.62" in told[4]
    assert told[5:] == ["p 0.004; the claim at 0.05", "their labels: pier 1"]


def test_a_run_that_an_earlier_version_screened_goes_by_its_cluster_alone(capsys):
    told = printed(capsys, Screening(replace(ENTRY, effect=replace(ENTRY.effect, rank=99)), (("pier", 2),), 1000, 0.05))
    assert told[0].endswith(NO_USE) and told[2:] == ["p 0.100; the claim at 0.05", "their labels: pier 2"]
