"""Images of a run that were skipped: their count, and another try."""

from __future__ import annotations

from dataclasses import replace

from klarsicht.audit.explanation.data.skipped_images import SkippedImages
from klarsicht.audit.explanation.relevance.attribution import IMAGES, STEP, Attribution
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.ground.progress import note
from klarsicht.ground.run_folder.run_files import MANIFEST
from klarsicht.ground.run_folder.store import RunStore

OWN_STEPS = (STEP, "thumbnails", "copy_pairs")  # that do not depend on which images the model could use
OWN_FILES = (MANIFEST, "tables/corpus.parquet", "arrays.zarr", "duplicates.json", "tables/duplicates.parquet")


def read_skipped(store: RunStore) -> dict[int, str]:
    """Read the rows that finished units could not use, each with the reason."""
    parts = (part.to_pydict() for _, part in store.done_parts(IMAGES, STEP, ("row", "skipped")))
    lines = (line for part in parts for line in zip(part["row"], part.get("skipped", ()), strict=False))
    return {row: why for row, why in lines if why}


def require_readable(audit: Audit) -> None:
    """Check that few files of the corpus cannot be read, else raise TooManySkipped: while links lead to a disk that is
    away, a run would be of another corpus."""
    absent = {row: "it cannot be read" for row, path in enumerate(audit.corpus.paths) if path in audit.corpus.absent}
    SkippedImages(audit.corpus, audit.settings.max_skipped).add(absent)


def try_skipped_again(audit: Audit, store: RunStore, work: Attribution) -> None:
    """Try the images that finished units could not use. A unit with one that can be used now counts as never computed,
    and so does all that was made of the images since."""
    reasons = read_skipped(store)
    if not reasons:
        return
    usable = replace(work, classifier=audit.classifier).find_usable(list(reasons))
    if not usable:
        return
    note(f"{len(usable)} of {len(reasons)} skipped images can be used now: what was made without them is made again")
    forget_results(store)
    store.clear_markers(STEP, {row // audit.settings.unit for row in usable})


def forget_results(store: RunStore) -> None:
    """Remove what was computed of the relevance of all images."""
    later = store.begun_steps() - {*OWN_STEPS}
    for step in sorted(later):
        store.discard_step(step)
    store.update_manifest(steps={step: n for step, n in store.manifest["steps"].items() if step not in later})
    for name in store.recorded_files():
        if not name.startswith(OWN_FILES):
            store.remove_file(name)
