"""Render a certificate as one self-contained HTML page: a row for each correction, figures with drawn intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from klarsicht import __version__
from klarsicht.audit.cleaning.models.certificate import Certificate, CertificateRow
from klarsicht.ground.pages import load_template
from klarsicht.numerics.statistics.intervals import Interval

MARGIN = 0.05  # share of a scale, on both sides of its values


@dataclass(frozen=True)
class Column:
    """Figure on a scale that all rows share, in percent.

    Attributes:
        title: heading.
        figure: a name of certificate.FIGURES.
        bound: its largest permitted value, or None.
        before: of the unchanged model.
        low, high: ends of the scale.
    """

    title: str
    figure: str
    bound: float | None
    before: Interval
    low: float
    high: float

    def position(self, value: float) -> float:
        """Return the position of a share on the scale, 0 to 100."""
        return min(max(100 * (100 * value - self.low) / (self.high - self.low), 0), 100)

    def cell(self, line: CertificateRow) -> Cell | None:
        """Make the cell of a row; None where the row lacks the figure."""
        found = line.figures[self.figure]
        if not found.n:
            return None
        broken = self.bound is not None and found.low > self.bound
        text, ends = f"{100 * found.value:z.1f}", f"{100 * found.low:z.1f} to {100 * found.high:z.1f}"
        low, value, high = (self.position(end) for end in (found.low, found.value, found.high))
        proven = self.bound is not None and found.high <= self.bound and not line.trained_on
        return Cell(text, ends, low, value, high, broken, proven)


@dataclass(frozen=True)
class Cell:
    """Figure and interval, in words and on the scale.

    Attributes:
        text, ends: value and interval in words.
        low, value, high: positions on the scale.
        broken: whether the whole interval is beyond the bound.
        proven: whether the whole interval is within the bound.
    """

    text: str
    ends: str
    low: float
    value: float
    high: float
    broken: bool
    proven: bool


def render_page(found: Certificate) -> str:
    """Render the page."""
    return load_template("klarsicht.audit", "certificate.html.j2").render(**template_context(found))


def template_context(found: Certificate) -> dict[str, Any]:
    """Return the variables of the template."""
    shown = (found.before, *found.rows)
    over, own = found.bounds.overall, found.bounds.affected
    asked = (
        ("loss, clean images", "harm", over),
        ("loss, clean images of the class", "harm_affected", own),
        ("flips to the class under the artifact", "flips", None),
        ("accuracy, worst group", "worst", None),
        ("accuracy of others under the artifact", "under", None),
    )
    columns = [make_column(title, figure, bound, shown) for title, figure, bound in asked]
    return {
        "name": found.name,
        "version": __version__,
        "overall": 100 * over,
        "affected": 100 * own,
        "columns": [one for one in columns if one is not None],
        "lines": shown,
        "clean": [one.name for one in found.rows if one.clean == one.seeds],
        "trained": [one.name for one in found.rows if one.trained_on],
        "seeds": max(one.seeds for one in found.rows),
        "evaluations": found.evaluations,
        "percent": format_percent,
    }


def make_column(title: str, figure: str, bound: float | None, lines: Sequence[CertificateRow]) -> Column | None:
    """Make the column of a figure; None where no row has it."""
    known = [line.figures[figure] for line in lines if line.figures[figure].n]
    if not known:
        return None
    ends = [100 * end for found in known for end in (found.low, found.high)] + [0.0]
    ends += [] if bound is None else [200 * bound]
    room = MARGIN * (max(ends) - min(ends)) or 1.0
    return Column(title, figure, bound, lines[0].figures[figure], min(ends) - room, max(ends) + room)


def format_percent(found: Interval) -> tuple[str, str]:
    """Format a share and its interval in percent; empty strings without an interval."""
    return (f"{100 * found.value:.0f}", f"{100 * found.low:.0f} to {100 * found.high:.0f}") if found.n else ("", "")
