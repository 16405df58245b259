"""Numbers in texts: those of digits are parsed, all others are none."""

import pytest
from tests.audit.conftest import network

from klarsicht.audit.explanation.data import groups
from klarsicht.audit.explanation.models.classifier import label_indices, load_model
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum
from klarsicht.burst.files import loading
from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.ranges import parse_digits
from klarsicht.ground.run_folder.shards import Shard

LONG = "1" * 5000  # more digits than Python parses


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("0012", 12), ("9" * 18, 10**18 - 1), (LONG, None), ("", None), ("-1", None),
                         ("²", None), ("٣", None), ("1.0", None), (" 1", None), ("1\n", None), ("1_0", None)],
)  # fmt: skip
def test_digits_are_parsed(text, number):
    assert parse_digits(text) == number


def test_thousands_of_digits_are_no_number_of_anything():
    assert ResidualSum.parse(f"layer:sum{LONG}") is None
    for refused in (
        lambda: groups.find_artifact(LONG, ["a", "b"], {}),
        lambda: groups.find_artifact(f"a (artifact {LONG})", ["a", "b"], {}),
        lambda: label_indices(["a", LONG], load_model(network(), classes=["a", "b", "c"])),
        lambda: Shard.parse(f"1/{LONG}"),
        lambda: Shard.parse("auto", {"RANK": LONG, "WORLD_SIZE": LONG}),
        lambda: loading.find_named_frame(["a"], LONG, "--reference"),
    ):
        with pytest.raises(KlarsichtError):
            refused()
