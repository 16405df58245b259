"""Render a certificate as one self-contained HTML page, and write it.

OUT/certificate.json
OUT/certificate.html     a row for each correction, with drawn intervals; or for each class of a joint correction
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klarsicht import __version__
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS
from klarsicht.audit.cleaning.models.certificate import Certificate, CertificateRow
from klarsicht.audit.cleaning.models.judgement import ClassJudgement, JointJudgement
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.pages import load_template
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.numerics.statistics.intervals import Interval

MARGIN = 0.05  # share of a scale, on both sides of its values


@dataclass(frozen=True)
class Column:
    """Figure of certificate.FIGURES on a scale that all rows share, in percent, with its largest permitted value and
    that of the unchanged model (`before`)."""

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
        text, ends = format_points(found)
        low, value, high = (self.position(end) for end in (found.low, found.value, found.high))
        proven = self.bound is not None and found.high <= self.bound and not line.trained_on
        return Cell(text, ends, low, value, high, broken, proven)


@dataclass(frozen=True)
class Cell:
    """Figure and interval, in words and as positions on the scale, and whether the whole interval is beyond or within
    the bound."""

    text: str
    ends: str
    low: float
    value: float
    high: float
    broken: bool
    proven: bool


def render_page(found: Certificate) -> str:
    """Render the certificate of one class."""
    return load_template("klarsicht.audit", "certificate.html.j2").render(**template_context(found))


def template_context(found: Certificate) -> dict[str, Any]:
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


def render_joint_page(found: JointJudgement) -> str:
    """Render the certificate of several classes."""
    bounds = found.classes[0].together.bounds
    return load_template("klarsicht.audit", "joint_certificate.html.j2").render(
        version=__version__,
        verdict=found.verdict,
        clean=found.clean,
        overall=100 * bounds.overall,
        affected=100 * bounds.affected,
        lost=format_points(found.lost.measured),
        answer={HARMLESS: "proven", HARMFUL: "broken"}.get(found.harm.answer, ""),
        trained=found.lost.trained_on,
        lines=[describe_class(one) for one in found.classes],
        lacking=found.shown_classes.lacking,
        left_out=found.left_out,
        orders=found.orders,
    )


def describe_class(one: ClassJudgement) -> dict[str, Any]:
    """Return the figures of a class, before, alone and together, as the page shows them."""
    before, alone, together = one.alone.before, one.alone.after, one.together.after
    return {
        "name": one.name,
        "setting": one.setting,
        "shown": one.together.shown,
        "left": [f"{100 * look.remaining:.0f}" if look.is_used else "" for look in (one.alone, one.together)],
        "flips": [format_points(look.flips) for look in (before, alone, together)],
        "under": [format_points(look.under) for look in (before, alone, together)],
        "lost": [format_points(look.harm) for look in (alone, together)],
        "own": [format_points(look.harm_affected) for look in (alone, together)],
        "verdict": one.together.verdict,
    }


def format_points(found: Interval) -> tuple[str, str]:
    """Format a share and its interval in percent, to a tenth; empty strings without an interval."""
    if not found.n:
        return "", ""
    return f"{100 * found.value:z.1f}", f"{100 * found.low:z.1f} to {100 * found.high:z.1f}"


def write_certificate(out: Path, page: str, facts: dict[str, Any]) -> None:
    """Write the page and its figures, each atomically."""
    with translate_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "certificate.html", page.encode())
    write_atomically(out / "certificate.json", to_json(facts))
