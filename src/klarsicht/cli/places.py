"""Checks of what a command names, made before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from klarsicht.audit.explanation.data.locations import require_place
from klarsicht.audit.explanation.models.specifications import check_model_of_run, check_specification
from klarsicht.audit.explanation.settings import LOCAL_ENGINE, AuditSettings, split_engine
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.run_folder.store import RunStore


def require_audit(settings: AuditSettings, out: Path | None = None) -> None:
    """Check that model and corpus are where the settings say, and that a run can be there. Raises UsageError: an
    unknown form of a model; CorpusError, ModelError: there is no corpus, or no model; StoreError: the run folder holds
    something else."""
    require_place(settings.data)
    require_model(settings.model)
    if out is not None:
        RunStore(out).require_own()


def require_model(spec: str) -> None:
    """Check a specification, unless it is a folder, which may be a correction. Raises UsageError, ModelError."""
    if not Path(spec).is_dir():
        check_specification(spec)


def require_run(run: Path, data: str | None = None, engine: str = LOCAL_ENGINE) -> None:
    """Check that there is a run, and a corpus where one is named, and that an engine is one. Raises InputError,
    StoreError, CorpusError, UsageError."""
    split_engine(engine)
    RunStore.open(run)
    if data is not None:
        require_place(data)


def require_run_with_model(run: Path, data: str | None = None, engine: str = LOCAL_ENGINE) -> None:
    """Check a run as `require_run` does, and that its model can be opened again. Raises UsageError, ModelError, too."""
    require_run(run, data, engine)
    settings = RunStore.open(run).manifest["settings"]
    if "model" not in settings:
        raise InputError(
            "these are copies of a corpus, and no audit", got=run, rule="a run folder of `klarsicht audit run`",
            remedy="Audit the corpus: `klarsicht audit run`.",
        )  # fmt: skip
    check_model_of_run(settings["model"])


def split_run(paths: Sequence[Path], run: Path | None) -> tuple[Path, list[Path]]:
    """Split paths into the run folder, which is the first unless an option names it, and the pictures. Raises
    UsageError where no run or no picture is named."""
    if run is not None:
        return run, list(paths)
    first, *pictures = paths
    if not RunStore(first).exists:
        rule, remedy = "the first path is the run", "Write klarsicht audit check RUN PICTURE, or name the run: --run."
        raise UsageError("no run folder of `audit run`", got=first, rule=rule, remedy=remedy)
    if not pictures:
        remedy = "Write klarsicht audit check RUN PICTURE."
        raise UsageError("no picture is named", got=first, rule="pictures stand after the run", remedy=remedy)
    return first, pictures


def require_table(groups: str | None) -> None:
    """Check that a table of groups is there, where its name is one. Raises InputError."""
    if groups is not None and Path(groups).suffix in (".csv", ".parquet") and not Path(groups).is_file():
        rule = "a table with the columns path,group, or a column of the corpus's table"
        raise InputError("no such table of groups", got=groups, rule=rule, remedy="Check the path.")
