"""Names, places and numbers that a quantified run cannot have, given to every function that takes a run."""

import pytest

from klarsicht import audit
from klarsicht.explorer.export import export_run
from klarsicht.ground.errors import KlarsichtError

PLACES = ("nowhere", "a" * 5000, "nowhere/" * 400)
NAMES = (*PLACES, "", "a\0b", "\ud800", "-1", "9" * 5000)
WRONG = {
    "name": NAMES, "names": [[name] for name in NAMES], "found_by": NAMES, "kind": NAMES, "kinds": [[n] for n in NAMES],
    "part": [[name] for name in NAMES], "parts": [[name] for name in NAMES], "device": (*NAMES, "cuda:7"),
    "shard": NAMES, "data": PLACES, "members": PLACES, "mask": PLACES, "correction": PLACES,
    "folder": PLACES, "pictures": [[place] for place in PLACES], "tables": NAMES, "action": NAMES, "to": NAMES,
    "classes": [[name] for name in NAMES], "level": (0, 1, -0.1), "workers": (0, -1, 10**6), "above": (0, 2),
    "seed": (-1, 2**32), "prevalences": ([0.0], [1], [-1]), "images": (0, -1), "train": (0, -1), "share": (0, 2),
}  # fmt: skip
TAKEN = {
    audit.check_pictures: ("pictures", "level", "data", "device"),
    audit.clean: ("name", "found_by", "members", "mask", "kind", "part", "data", "device"),
    audit.clean_classes: ("names", "found_by", "data", "device"),
    audit.clean_data: (
        "name",
        "found_by",
        "members",
        "mask",
        "correction",
        "action",
        "tables",
        "above",
        "seed",
        "data",
    ),
    audit.evaluate: ("folder", "data", "device"),
    audit.exchange_parts: ("parts", "share"),
    audit.measure_sufficiency: ("images", "level", "workers", "data", "device"),
    audit.power: ("kinds", "prevalences", "level", "workers", "train", "data", "device"),
    audit.quantify: ("level", "workers", "shard", "data", "device"),
    audit.screen: ("level", "workers", "shard", "data", "device"),
    export_run: ("to", "classes"),
}
GIVEN = {
    audit.check_pictures: {"pictures": []}, audit.clean: {"name": "c03"}, audit.clean_data: {"name": "c03"},
    audit.evaluate: {"folder": "nowhere"}, audit.exchange_parts: {"pictures": [0, 0], "labels": [0, 1]},
    export_run: {"to": "csv"},
}  # fmt: skip
ALONE = {"names": "name", "correction": "name"}  # arguments that exclude another


@pytest.mark.slow
@pytest.mark.parametrize("function", TAKEN, ids=lambda function: function.__name__)
def test_what_a_run_cannot_have_is_refused_in_one_line(quantified, tmp_path, monkeypatch, function):
    run, classifier, _ = quantified
    monkeypatch.chdir(tmp_path)
    model = {} if function in (audit.exchange_parts, export_run) else {"classifier": classifier}
    folder = {"out": "out"} if function in (audit.clean_data, export_run) else {}
    for argument in TAKEN[function]:
        given = {name: value for name, value in GIVEN.get(function, {}).items() if name != ALONE.get(argument)}
        for value in WRONG[argument]:
            with pytest.raises(KlarsichtError) as caught:
                function(run, **(model | folder | given | {argument: value}))
            assert "\n" not in str(caught.value), (argument, value)
