"""A certificate as one HTML page that needs nothing else: a line a correction, each figure with its interval drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from klarsicht import __version__
from klarsicht.audit.clean.certificate import Certificate, CertificateRow
from klarsicht.numerics.statistics.intervals import Interval

MARGIN = 0.05  # of a scale, on both sides of what it shows


@dataclass(frozen=True)
class Column:
    """A figure on a scale that all lines share, in percent.

    Attributes:
        figure: a name of certificate.FIGURES.
        bound: what it may be at most, or None.
        before: of the model as it is.
        low, high: ends of the scale.
    """

    title: str
    figure: str
    bound: float | None
    before: Interval
    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a share lies on the scale, 0 to 100."""
        return min(max(100 * (100 * value - self.low) / (self.high - self.low), 0), 100)

    def cell(self, line: CertificateRow) -> Cell | None:
        found = line.figures[self.figure]
        if not found.n:
            return None
        broken = self.bound is not None and found.value > self.bound + 1e-12
        text, ends = f"{100 * found.value:z.1f}", f"{100 * found.low:z.1f} to {100 * found.high:z.1f}"
        low, value, high = (self.at(end) for end in (found.low, found.value, found.high))
        return Cell(text, ends, low, value, high, broken, self.bound is not None and found.high <= self.bound)


@dataclass(frozen=True)
class Cell:
    """A figure and its interval, in words and on the scale.

    Attributes:
        broken: beyond its bound. proven: the whole interval is within it.
    """

    text: str
    ends: str
    low: float
    value: float
    high: float
    broken: bool
    proven: bool


def rendered(found: Certificate) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("klarsicht.audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return pages.get_template("certificate.html.j2").render(**contents(found))


def contents(found: Certificate) -> dict[str, Any]:
    """What the template is given."""
    shown = (found.before, *found.lines)
    over, own = found.bounds.overall, found.bounds.affected
    asked = (
        ("loss, clean images", "harm", over),
        ("loss, clean images of the class", "harm_affected", own),
        ("flips to the class under the artifact", "flips", None),
        ("accuracy, worst group", "worst", None),
        ("accuracy of others under the artifact", "under", None),
    )
    columns = [column(title, figure, bound, shown) for title, figure, bound in asked]
    return {
        "name": found.name,
        "version": __version__,
        "overall": 100 * over,
        "affected": 100 * own,
        "columns": [one for one in columns if one is not None],
        "lines": shown,
        "clean": [one.name for one in found.lines if one.clean == one.seeds],
        "seeds": max(one.seeds for one in found.lines),
        "evaluations": found.evaluations,
        "percent": percent,
    }


def column(title: str, figure: str, bound: float | None, lines: Sequence[CertificateRow]) -> Column | None:
    """A figure's column; None where no line has it."""
    known = [line.figures[figure] for line in lines if line.figures[figure].n]
    if not known:
        return None
    ends = [100 * end for found in known for end in (found.low, found.high)] + [0.0]
    ends += [] if bound is None else [200 * bound]
    room = MARGIN * (max(ends) - min(ends)) or 1.0
    return Column(title, figure, bound, lines[0].figures[figure], min(ends) - room, max(ends) + room)


def percent(found: Interval) -> tuple[str, str]:
    """A share and its interval; empty where there is none."""
    return (f"{100 * found.value:.0f}", f"{100 * found.low:.0f} to {100 * found.high:.0f}") if found.n else ("", "")
