"""Compare the effect of a class's cluster with the effects on all other outputs of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from klarsicht.audit.results.rows import FollowedRow, SpecificityColumns
from klarsicht.audit.results.words import format_p


@dataclass(frozen=True)
class Specificity:
    """Comparison of a class with the output that rises most with it, and with all outputs searched in the same way.

    Attributes:
        runner: the other output that the class's cluster raises most.
        margin, margin_low, margin_high: by how much the class rises more, with the 95 % interval.
        uplift, uplift_control: ratio of the class's probability after to before, with the regions and with the control.
        own: the effect of the class, found by the search that `interventions.output_effects` makes for all outputs.
        peer, peer_effect: the other output of largest effect, each with images of its own.
        ahead: number of other outputs whose effect is larger than that of the class.
    """

    runner: str
    margin: float
    margin_low: float
    margin_high: float
    uplift: float
    uplift_control: float
    own: float
    peer: str
    peer_effect: float
    ahead: int

    @classmethod
    def from_row(cls, row: FollowedRow) -> Specificity:
        """Read a row of the table `followed` of a run that audits a single class."""
        known: dict[str, Any] = {**row}
        return cls(**{name: known[name] for name in cls.__dataclass_fields__})

    def columns(self) -> SpecificityColumns:
        """Return the comparison as columns of the table `followed`."""
        return cast(SpecificityColumns, asdict(self))

    def describe(self, outputs: int) -> tuple[str, ...]:
        """Return sentences for a model of so many outputs."""
        return (
            f"Of the other outputs, {self.runner} rises most with it. {self._describe_margin()}",
            f"In the median image, the class becomes {self.uplift:.3g} times as probable. With the same places of "
            f"other images, it becomes {self.uplift_control:.3g} times as probable.",
            f"For every output, a group was searched for in the same way. By this search, the class rises by "
            f"{self.own:.2f} logits. {self.ahead} of {outputs:,} outputs rise more; of the others, {self.peer} rises "
            f"most, by {self.peer_effect:.2f} logits.",
        )

    def _describe_margin(self) -> str:
        """Say by how much the class rises more, or less, than the output that rises most with it."""
        value, *ends = (self.margin, self.margin_low, self.margin_high)
        if value < 0:
            value, ends = -value, [-end for end in reversed(ends)]
        size = f"{value:z.2f} logits {'less' if self.margin < 0 else 'more'} ({ends[0]:z.2f} to {ends[1]:z.2f})"
        sure = "" if self.margin_low * self.margin_high > 0 else ", which may be chance"
        return f"The class rises by {size}{sure}."


def describe_screening(content: Mapping[str, Any]) -> str:
    """Say in two sentences what a screening for one class found, from the content of screening.json."""
    entry, follows = content["entry"], content["p"] <= content["level"] and content["entry"]["effect_low"] > 0
    verdict = "the model follows this group" if follows else "that the model follows this group is not shown"
    return (
        f"{entry['size']} of {entry['n']} images form a group. What they share, inserted into the other images, adds "
        f"{entry['effect']:.1f} logits ({entry['effect_low']:.1f} to {entry['effect_high']:.1f}) to {entry['class']}, "
        f"p {format_p(content['p'])}: {verdict}. Look at the pictures: it may be an artifact, or belong to the class."
    )


NO_COMPARISON = SpecificityColumns(
    runner=None, margin=None, margin_low=None, margin_high=None, uplift=None, uplift_control=None, own=None, peer=None,
    peer_effect=None, ahead=None,
)  # fmt: skip
"""Of a run of several classes, of which each is compared with the others."""
