"""Write the certificate of corrections of several classes together.

OUT/certificate.json
OUT/certificate.html     one self-contained page
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from klarsicht import __version__
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS
from klarsicht.audit.cleaning.models.joint_judgement import ClassJudgement, JointJudgement
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.pages import load_template
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.numerics.statistics.intervals import Interval


def write_joint_certificate(found: JointJudgement, out: Path) -> None:
    """Write both files, each atomically."""
    with translate_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "certificate.html", render_joint_page(found).encode())
    write_atomically(out / "certificate.json", to_json({"klarsicht": __version__} | found.to_json()))


def render_joint_page(found: JointJudgement) -> str:
    """Render the page."""
    bounds = found.classes[0].together.bounds
    return load_template("klarsicht.audit", "joint_certificate.html.j2").render(
        version=__version__,
        verdict=found.verdict,
        clean=found.clean,
        overall=100 * bounds.overall,
        affected=100 * bounds.affected,
        lost=format_points(found.lost),
        answer={HARMLESS: "proven", HARMFUL: "broken"}.get(found.harm.answer, ""),
        trained=any(one.together.origin.trained_on for one in found.classes),
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
        "shown": one.shown,
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
