"""Export of a run in formats of other programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from klarsicht.explorer import coco, export_fiftyone, export_images, export_page, export_tables, export_virelay
from klarsicht.explorer.explored_run import ExploredRun, open_explored_run
from klarsicht.ground.errors import CorpusError, InputError, UsageError, unknown_name
from klarsicht.ground.machine.disk import fill_folder, write_atomically
from klarsicht.ground.progress import note, track
from klarsicht.ground.user_arguments import check_arguments

Write = Callable[[ExploredRun, Sequence[int], Path], None]


@dataclass(frozen=True)
class ExportFormat:
    """Format of an export: default name of the file or folder, and the function that writes classes into it.
    has_pictures: whether it shows images, or measures in them."""

    name: str
    write: Write
    folder: bool = False
    has_pictures: bool = False


@check_arguments
def export_run(
    run: str | Path, to: str, out: str | Path | None = None, *, classes: Sequence[str] = (), data: str | None = None
) -> Path:
    """Export a run; returns the file or folder.

    Args:
        to: a name of EXPORTS.
        out: a new file or folder; by default in the working folder, by the format's own name.
        classes: names or outputs of classes; empty: all.
        data: where the corpus is now, if it moved.

    Raises:
        UsageError: an unknown format or class, or the run lacks something that the format needs.
        InputError: no run in the folder, or the output exists.
        StoreError: the relevance of the run is not computed yet.
        CorpusError: the format shows images, and their folder is not there.
        MissingExtra: a package of the format is not installed.
        DiskFull: no space is left.
    """
    if to not in EXPORTS:
        raise unknown_name("format", to, EXPORTS)
    kind = EXPORTS[to]
    opened_run = open_explored_run(run, "", data)
    targets = find_targets(opened_run, classes)
    if kind.has_pictures:
        require_images(opened_run)
    place = Path(out or kind.name)
    if place.exists() and not kind.folder:
        raise InputError("the output exists", got=place, remedy="Choose another --out.")
    with remove_on_failure(place), fill_folder(place) if kind.folder else nullcontext():
        kind.write(opened_run, targets, place)
    if failures := opened_run.pictures.describe_failures():
        note(failures)
    return place


def require_images(run: ExploredRun) -> None:
    """Check that the folder of the images is there, of a corpus in files. Raises CorpusError."""
    place = run.reader.images().data
    if place is not None and not place.exists() and ":" not in str(place):
        raise CorpusError(
            "the images of this run are not where they were", got=place, rule="this format shows them",
            remedy="Name their present place: --data.",
        )  # fmt: skip


@contextmanager
def remove_on_failure(place: Path) -> Iterator[None]:
    """Remove what is written at a path, with the folders that are made above it, where the body fails; what was there
    before stays."""
    whole = place.absolute()
    new_paths = [one for one in (whole, *whole.parents) if not one.exists()]
    is_empty = whole.is_dir() and not any(whole.iterdir())
    try:
        yield
    except BaseException:
        for left in new_paths[-1:] or (whole.iterdir() if is_empty else ()):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        raise


def find_targets(run: ExploredRun, classes: Sequence[str]) -> list[int]:
    """Return the outputs of classes by name, else by number, in the order of the list, all of no names;
    raises UsageError for an unknown class, or where no class is analysed."""
    lines = run.results.lines()
    if not lines:
        raise UsageError("no class is analysed yet", remedy="Wait for `klarsicht audit run`.")
    by_name = {str(target): target for target in lines} | {line.name: target for target, line in lines.items()}
    for name in classes:
        if name not in by_name:
            raise unknown_name("class", name, [line.name for line in lines.values()])
    wanted = {by_name[name] for name in classes}
    return [target for target in lines if not wanted or target in wanted]


def write_coco(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write members of artifacts as one COCO file: of the classes that a person decided to carry one, or where nobody
    decided, of those in which a detector found one; raises UsageError without either."""
    decisions = run.decisions.by_target()
    decided = [target for target in targets if target in decisions and decisions[target].is_artifact]
    found = [target for target in targets if run.results.line(target).by_detector]
    rows = decided or found
    if not rows:
        raise UsageError(
            "no class has an artifact", got=f"{len(targets)} classes",
            rule="one that a person decided, or else that a detector found",
            remedy="Decide in `klarsicht audit explore`, or run `klarsicht audit quantify`.",
        )  # fmt: skip
    content = coco.describe_classes(run, track(rows, len(rows), "export"))
    write_atomically(out, json.dumps(content).encode())


EXPORTS: Final[dict[str, ExportFormat]] = {
    "page": ExportFormat("explorer.html", export_page.write_page, has_pictures=True),
    "csv": ExportFormat("images.csv", export_tables.write_csv),
    "parquet": ExportFormat("images.parquet", export_tables.write_parquet),
    "datasets": ExportFormat("dataset.parquet", export_images.write_datasets, has_pictures=True),
    "cleanlab": ExportFormat("issues.csv", export_images.write_cleanlab),
    "coco": ExportFormat("artifacts.json", write_coco, has_pictures=True),
    "virelay": ExportFormat("virelay", export_virelay.write_virelay, folder=True, has_pictures=True),
    "fiftyone": ExportFormat("fiftyone", export_fiftyone.write_fiftyone, folder=True, has_pictures=True),
    "atlas": ExportFormat("atlas.parquet", export_tables.write_atlas),
}
