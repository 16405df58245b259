"""Alarms of a run beside those of an earlier one, for a page of the explorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from klarsicht.audit.results.alarms import CAUSES, Alarm, compare_runs
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.run_images import RunImages
from klarsicht.ground.errors import InputError, StoreError

MOST_SHOWN: Final = 12  # images of an alarm
NOT_NAMED: Final = "No earlier run was named: klarsicht audit explore RUN --since EARLIER compares two runs."


def list_comparison(run: ExploredRun) -> dict[str, Any]:
    """List the alarms that a run has and an earlier run has not, those that are gone, and those of both, each with some
    of its images that this run has; or say why none are listed."""
    earlier = run.earlier
    lists: dict[str, list[dict[str, Any]]] = {"new": [], "gone": [], "same": []}
    if earlier is None:
        return {"sentence": NOT_NAMED, "before": "", **lists}
    try:
        comparison, images = compare_runs(earlier, run.reader.store), run.reader.images()
    except (InputError, StoreError) as error:
        return {"sentence": str(error), "before": str(earlier.path), **lists}
    targets = {line.name: target for target, line in run.results.lines().items()}
    lists = {
        state: [_describe_alarm(alarm, targets.get(alarm.subject), images) for alarm in alarms]
        for state, alarms in comparison.by_state().items()
    }
    return {"sentence": comparison.describe(), "before": str(earlier.path), **lists}


def _describe_alarm(alarm: Alarm, target: int | None, images: RunImages) -> dict[str, Any]:
    return {
        "cause": CAUSES[alarm.cause].text, "subject": alarm.subject, "target": target, "message": alarm.message,
        "accepted_by": alarm.accepted_by, "images": len(alarm.images),
        "rows": find_rows(images, alarm.images[:MOST_SHOWN]),
    }  # fmt: skip


def find_rows(images: RunImages, keys: Sequence[str]) -> list[int]:
    """Find the first row of each image by its name; images that the run has not are left out."""
    import pyarrow as pa
    from pyarrow import compute

    found = compute.index_in(pa.array(keys, images.keys.type), value_set=images.keys)
    return [row for row in found.to_pylist() if row is not None]
