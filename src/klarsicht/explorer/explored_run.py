"""A run as the explorer and the exports see it: what they read of it, one record for each kind of file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from klarsicht.explorer.artifact_masks import ArtifactMasks
from klarsicht.explorer.class_decisions import ClassDecisions
from klarsicht.explorer.class_results import ClassResults
from klarsicht.explorer.relevance_maps import RelevanceMaps
from klarsicht.explorer.run_decoder import RunDecoder
from klarsicht.explorer.run_pictures import RunPictures
from klarsicht.explorer.run_reader import RunReader
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments


@dataclass(frozen=True)
class ExploredRun:
    """Run that is looked at: its folder, the rankings and verdicts of its classes, the decisions of people on them, the
    relevance of its images, the masks of artifacts, and pictures; and an earlier run to compare it with, or None."""

    reader: RunReader
    results: ClassResults
    decisions: ClassDecisions
    maps: RelevanceMaps
    masks: ArtifactMasks
    pictures: RunPictures
    earlier: RunStore | None = None

    @classmethod
    def of(
        cls, store: RunStore, author: str = "unknown", data: str | None = None, earlier: RunStore | None = None
    ) -> ExploredRun:
        """Look at a run as an author; `data` is where the corpus is now, if it moved."""
        reader = RunReader(store, data)
        results, maps = ClassResults(reader), RelevanceMaps(reader)
        decisions = ClassDecisions(reader, results, author)
        masks = ArtifactMasks(reader, decisions, maps)
        pictures = RunPictures(reader, maps, masks, RunDecoder.of(store))
        return cls(reader, results, decisions, maps, masks, pictures, earlier)


@check_arguments
def open_explored_run(
    run: str | Path, author: str, data: str | None = None, since: str | Path | None = None
) -> ExploredRun:
    """Open a run to look at, and an earlier one to compare it with; raises InputError where there is none, RunDamaged
    where its manifest is altered."""
    return ExploredRun.of(RunStore.open(run), author, data, None if since is None else RunStore.open(since))
