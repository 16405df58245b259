"""Clean a corpus of an artifact: write a new manifest beside the original files, which are never changed.

    OUT/cleaning.json     action and images; a folder that was begun with other content is refused
    OUT/images/           new files: inpainted, or returned by a callable
    OUT/quarantine/       copies of the images put aside, with quarantine.csv, a manifest
    OUT/record.csv        one line an image, and a manifest of the original corpus
    OUT/manifest.csv      the new corpus: path, label, source, split, weight; written last

The tables are .parquet files where that format is requested. Each file is written atomically, and an existing one is
kept: after an interruption, the same call continues.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from klarsicht.audit.cleaning.artifacts import masks
from klarsicht.audit.cleaning.artifacts.artifact import CARRIES, Artifact
from klarsicht.audit.cleaning.artifacts.found_artifact import MemberList
from klarsicht.audit.cleaning.corrections import samples
from klarsicht.audit.cleaning.data import data_record, image_actions
from klarsicht.audit.cleaning.data.data_artifacts import build_artifacts, leave_removed, read_artifacts
from klarsicht.audit.cleaning.data.data_record import TABLES, ImageRecord
from klarsicht.audit.cleaning.data.evidence_left import measure_evidence_left
from klarsicht.audit.cleaning.data.image_actions import INPAINT, Action
from klarsicht.audit.cleaning.models.audited_run import AuditedRun, find_classes_to_clean
from klarsicht.audit.explanation.data.corpus import Corpus, out_of_reach
from klarsicht.audit.explanation.data.locations import is_url
from klarsicht.audit.explanation.data.pictures import FileReader, file_of
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results.correction_words import describe_counts
from klarsicht.audit.results.words import format_share
from klarsicht.ground.arrays import Bools, Floats
from klarsicht.ground.errors import (
    EffectRemains,
    ImageError,
    InputError,
    RunMismatch,
    UsageError,
    naming_arguments,
    unknown_name,
)
from klarsicht.ground.machine.disk import hold_lock, remove_leftovers, translate_write_errors, write_atomically
from klarsicht.ground.pictures import notebook
from klarsicht.ground.pictures.encoded_pictures import png_bytes
from klarsicht.ground.pictures.npy_files import NPY, npy_bytes
from klarsicht.ground.pictures.stored_images import DecodedImage
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import SEED, SHARE
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.imaging.relevance_masks import PEAK_SHARE

KEEP, SKIP = "keep", "skip"
PEAK_SHARES: Final = (PEAK_SHARE, 0.25, 0.1)  # of the largest relevance, above which a pixel is filled
ENOUGH_LEFT: Final = 0.05  # share of the evidence that filled images may keep before a larger mask is tried
MOST_LEFT: Final = 0.2  # share above which a network trained on filled images learns the artifact again


@dataclass(frozen=True)
class CleanedCorpus:
    """Record of the actions, or in a dry run of the planned ones; `facts` is the content of cleaning.json."""

    folder: Path
    facts: dict[str, Any]
    lines: tuple[ImageRecord, ...]

    def __repr__(self) -> str:
        left = "".join(f", {words}" for words in self.describe_left())
        return f"CleanedCorpus({str(self.folder)!r}, {describe_counts(self.counts)}{left})"

    def __fspath__(self) -> str:
        return str(self.folder)

    def _repr_html_(self) -> str:
        counts = [(name, f"{number:,} images") for name, number in self.counts.items()]
        left = [("evidence left", words) for words in self.describe_left()]
        return notebook.facts([("class", ", ".join(self.classes)), *counts, *left, ("folder", self.folder)])

    def describe_left(self) -> tuple[str, ...]:
        """Say what inpainted images keep of each artifact."""
        left = self.facts.get("evidence left", {})
        return tuple(
            f"filled images keep {format_share(share)} of the evidence for {name}" for name, share in left.items()
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes whose artifacts the corpus is cleaned of."""
        several = self.facts.get("classes", ())
        return tuple(one["class"] for one in several) or tuple(filter(None, (self.facts.get("class"),)))

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(class, reason) of classes in which no artifact was found."""
        return tuple((name, why) for name, why in self.facts.get("left out", ()))

    @naming_arguments()
    def check(self) -> None:
        """Check that the corpus was cleaned of everything that was asked for. Raises EffectRemains if no artifact was
        found in one of the classes."""
        if self.left_out:
            raise EffectRemains(
                "artifacts stay in the corpus", got="; ".join(f"{name}: {why}" for name, why in self.left_out),
                rule="of these classes nothing was found that could be taken out",
                remedy="Name images that carry it: --class and --members.",
            )  # fmt: skip

    @property
    def manifest(self) -> Path:
        """File of the new manifest."""
        return self.folder / f"manifest.{self.facts['tables']}"

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by action; those that cannot be decoded under "skip"."""
        return dict(Counter(line.action for line in self.lines))

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of images that cannot be decoded."""
        return tuple((line.path, line.why) for line in self.lines if line.action == SKIP)

    def to_json(self) -> dict[str, Any]:
        """Return facts, counts and changed images as JSON values."""
        changed = [asdict(line) for line in self.lines if line.action != KEEP]
        return self.facts | {"folder": str(self.folder), "counts": self.counts, "changed": changed}


@check_arguments
def clean_data(
    run: str | Path | RunStore, out: str | Path, action: str | Action = "drop", *,
    name: str | Sequence[str] | None = None, correction: str | Path | None = None, above: float = CARRIES,
    weight: float | None = None, label: str | None = None, found_by: str | None = None,
    members: MemberList | None = None, mask: Path | None = None, seed: int = 0, tables: str = "csv",
    dry_run: bool = False, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CleanedCorpus:  # fmt: skip
    """Clean the corpus of a run of the artifact of a class, or of several classes at once.

    Args:
        out: the folder of the cleaned corpus.
        action: a name of image_actions.ACTIONS, or an action such as image_actions.make_pass_action(callable, method).
        name: the class, or classes; None without `correction`: all that clean_model.clean_classes takes.
        correction: a folder of `audit clean`, whose artifacts are meant.
        above: an image with at least this probability counts as a carrier, and so does every member; one that a person
            took out of the members does not.
        weight, label: see image_actions.make_action.
        tables: "csv" or "parquet".
        dry_run: only return the planned actions; write nothing.
        found_by, members, mask, seed, data, classifier, device: see clean_model.clean.

    Raises:
        UsageError: both a class and a correction, members or a mask without one class, no class relies on an artifact;
            or as image_actions.make_action.
        InputError, RunMismatch: as clean_model.clean and clean_corpus.
        EffectRemains: inpainted images would still show the artifact.
    """
    names = (name,) if isinstance(name, str) else tuple(name or ())
    if names and correction is not None:
        raise UsageError("which artifact?", got=f"class {names[0]}, correction {correction}", rule="one of the two")
    if correction is not None and (members or mask or found_by):
        raise UsageError(
            "a correction has its own images and its own mask", rule="--found-by, --members and --mask go with --class"
        )
    if (members or mask) and len(names) != 1:
        raise UsageError(
            "images or a mask without one class", got=members or mask, rule="they are of one class's artifact",
            remedy="Name the class: --class.",
        )  # fmt: skip
    SHARE.require("probability", above)
    SEED.require("seed", seed)
    if isinstance(action, str):
        image_actions.check_action(action, weight=weight, label=label)
    audited_run = AuditedRun.of(run, data, classifier, device)
    if correction is not None:
        artifacts = read_artifacts(audited_run, Path(correction), above)
    else:
        names = names or find_classes_to_clean(audited_run)
        artifacts = build_artifacts(
            audited_run, names, above, found_by=found_by, members=members, mask=mask, seed=seed
        )  # fmt: skip
    if not (members or found_by):
        artifacts = leave_removed(audited_run, artifacts)
    facts = artifacts.to_json()
    if isinstance(action, str):
        actions = [_make_action(action, audited_run, one, weight, label) for one in artifacts.artifacts]
        called = (one.name for one in artifacts.artifacts)
        left = {name: share for name, (_, share) in zip(called, actions, strict=True) if share is not None}
        _require_taken_out(left)
        facts |= {"evidence left": left} if left else {}
        # each image under the masks of all artifacts that it carries
        action = image_actions.combine_actions([one for one, _ in actions], artifacts.carries)
    return clean_corpus(
        audited_run.audit.corpus, np.any(artifacts.carries, axis=0), action, Path(out), facts=facts,
        tables=tables, dry_run=dry_run, owners=artifacts.owners, reasons=artifacts.reasons,
    )  # fmt: skip


def _make_action(
    name: str, run: AuditedRun, artifact: Artifact, weight: float | None, label: str | None
) -> tuple[Action, float | None]:  # fmt: skip
    """Make an action for an artifact, with the share of its evidence that repaired images keep; None where nothing is
    repaired. Where masks follow from relevance, the smallest is taken that leaves ENOUGH_LEFT, else the one that leaves
    least: the highest relevance may lie on a part of the artifact alone."""
    place, attempts = artifact.place, []
    varies = name == INPAINT and place is not None and place.background is not None
    for share in PEAK_SHARES if varies else PEAK_SHARES[:1]:
        action = image_actions.make_action(
            name, weight=weight, label=label, place=place, maps=partial(_map, run, artifact.target),
            classifier=run.audit.classifier, share=share,
        )  # fmt: skip
        left = measure_evidence_left(run, artifact, action)
        attempts.append((action, None if left is None else round(max(left, 0.0), 2)))
        if left is None or left <= ENOUGH_LEFT:
            break
    return min(attempts, key=lambda one: -1.0 if one[1] is None else one[1])


def _require_taken_out(left: dict[str, float]) -> None:
    """Check that repaired images keep little of each artifact. Raises EffectRemains: they keep more than MOST_LEFT, so
    that a network trained on them would learn it again."""
    much = {name: share for name, share in left.items() if share > MOST_LEFT}
    if much:
        raise EffectRemains(
            "the inpainted images would still show the artifact",
            got=", ".join(f"{format_share(share)} of its evidence left in {name}" for name, share in much.items()),
            rule=f"at most {format_share(MOST_LEFT)}, by the last features of the audited model",
            remedy="Leave these images out (--action drop), or draw all places at which the artifact lies: --mask.",
        )  # fmt: skip


def _map(run: AuditedRun, target: int, row: int) -> Floats:
    """Return the relevance (G, G) of an image for a class."""
    audit, store, rows = run.audit, run.store, np.array([row])
    images = [] if store.has_array("maps") else samples.read_images(audit.corpus, audit.classifier, rows)[0]
    return np.asarray(masks.relevance_maps(store, audit.classifier, target, rows, images)[0])


def clean_corpus(
    corpus: Corpus, carries: Bools, action: Action, out: Path, *, facts: dict[str, Any] | None = None,
    tables: str = "csv", dry_run: bool = False, owners: Sequence[str] = (), reasons: Sequence[str] = (),
) -> CleanedCorpus:  # fmt: skip
    """Apply an action to the images that carry an artifact, bool (N,), and write the resulting corpus. facts: further
    content of cleaning.json. owners, reasons: for each image the classes whose artifact it carries, and why it counts
    as a carrier, for the record; or empty. Raises UsageError: unknown tables, images that are no files on this machine
    or cannot be written back; InputError: `out` has other content, or an image cannot be repaired; RunMismatch: `out`
    was begun for other images or another action; RunLocked: another process writes there."""
    if tables not in TABLES:
        raise unknown_name("kind of table", tables, TABLES)
    _require_writable(corpus, action)
    chosen = hashlib.sha256(np.packbits(carries).tobytes()).hexdigest()
    whole = {"corpus": corpus.hash, "images": len(corpus), "chosen": chosen, "tables": tables}
    record = (facts or {}) | action.to_json() | whole
    if dry_run:
        return CleanedCorpus(out, record, _lines(corpus, carries, action, out, owners, reasons, dry_run=True))
    text = json.dumps(record, indent=1)
    _check(out, text)
    with translate_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with hold_lock(out / ".lock"):
        _check(out, text)
        write_atomically(out / "cleaning.json", text.encode())
        remove_leftovers(out)
        lines = _lines(corpus, carries, action, out, owners, reasons, dry_run=False)
        data_record.write_tables(out, lines, tables)
    return CleanedCorpus(out, record, lines)


def _require_writable(corpus: Corpus, action: Action) -> None:
    """Check that the new manifest can name the images, and that the action can write its new files."""
    if not isinstance(corpus.reader, FileReader) or any(map(is_url, corpus.paths)):
        raise UsageError(
            "this corpus cannot be cleaned yet", got="images that are no files on this machine",
            rule="a manifest names files", remedy="Write the images to files, and audit these.",
        )  # fmt: skip
    if action.repair is not None and corpus.decoder:
        raise UsageError(
            "a changed image cannot be written as your files are", got=f"{action.name}, --decode {corpus.decoder}",
            rule="it becomes a PNG or .npy file, which that function need not read",
            remedy="Give --action drop, weigh, move or quarantine, or audit PNG or .npy files without --decode.",
        )  # fmt: skip
    if action.folder and (part := next((path for path in corpus.paths if file_of(path) != path), None)):
        raise UsageError(
            "a part of a file cannot be copied", got=f"{action.name}, {part}", rule="only whole files are copied",
            remedy="Give --action drop, weigh or move.",
        )  # fmt: skip


def _lines(
    corpus: Corpus, carries: Bools, action: Action, out: Path, owners: Sequence[str], reasons: Sequence[str], *,
    dry_run: bool,
) -> tuple[ImageRecord, ...]:  # fmt: skip
    """Apply the action to the images that carry an artifact; keep the others."""
    rows = track(range(len(corpus)), len(corpus), "corpus")
    lines = [_act(corpus, row, action if carries[row] else None, out, dry_run) for row in rows]
    nothing = [""] * len(corpus)
    facts = zip(lines, owners or nothing, reasons or nothing, corpus.white_levels or nothing, strict=True)
    return tuple(
        replace(one, artifact_of=owner, why=one.why or why, white_level=str(level or ""))
        for one, owner, why, level in facts
    )


def _act(corpus: Corpus, row: int, action: Action | None, out: Path, dry_run: bool) -> ImageRecord:
    file, label = Path(corpus.paths[row]), corpus.labels[row]
    source, split = (column[row] if column else "" for column in (corpus.sources, corpus.splits))
    path = Path(os.path.relpath(file.resolve(), out.resolve())).as_posix()
    try:
        picture = corpus.decode(row)
    except ImageError as error:
        return ImageRecord(
            path, label, source, split, _sha256(corpus, row), SKIP, "", label, 0, " ".join(str(error).split())
        )
    sha256 = _sha256(corpus, row)
    if action is None:
        return ImageRecord(path, label, source, split, sha256, KEEP, path, label, 1)
    new = path
    if action.folder:
        new = f"{action.folder}/{row:07d}{file.suffix if action.repair is None else NPY if corpus.form else '.png'}"
        if not dry_run and not (out / new).is_file():
            write_atomically(out / new, _content(corpus, picture, action, row))
    elif not action.weight:
        new = ""
    return ImageRecord(path, label, source, split, sha256, action.name, new, action.label or label, action.weight)


def _content(corpus: Corpus, picture: DecodedImage, action: Action, row: int) -> bytes:
    """Return the bytes of a new file: the original ones, a PNG of the repaired picture, or the repaired array, in
    uint16 codes where a white level is stated. Raises InputError: the picture cannot be repaired, or a callable returns
    no picture, or an array of another form; Unreachable: the file cannot be read any more."""
    file, form = Path(corpus.paths[row]), corpus.form
    if action.repair is None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise out_of_reach(corpus.paths[row], error) from error
    try:
        picture_after = action.repair(picture, row)
    except InputError as error:
        raise InputError(f"{file}: {error.what}", got=error.got, rule=error.rule, remedy=error.remedy) from error
    if form is not None:
        numbers = form.of_array(np.asarray(picture_after), f"what {action.name} makes of {file}", channels_last=True)
        white = corpus.white_levels[row] if corpus.white_levels and form.dtype == "uint16" else 0
        return npy_bytes(np.rint(form.to_share(numbers) * white).astype(np.uint16) if white else numbers)
    if not isinstance(picture_after, Image.Image):
        raise InputError(f"{file}: a callable gives no picture", got=type(picture_after).__name__, rule="a PIL.Image")
    return png_bytes(np.asarray(picture_after))


def _sha256(corpus: Corpus, row: int) -> str:
    """Return the SHA-256 of the file of a row, or "" where it could not be read when the corpus was hashed. Raises
    Unreachable if it could, and cannot be read now."""
    path = corpus.paths[row]
    try:
        with Path(file_of(path)).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        if path in corpus.absent:
            return ""
        raise out_of_reach(path, error) from error


def _check(out: Path, text: str) -> None:
    """Check, before anything is written, that a folder is empty or was begun with the same content."""
    file = out / "cleaning.json"
    if file.is_file():
        if file.read_text(encoding="utf-8") != text:
            raise RunMismatch(
                "the folder was begun for other images or another action", got=out,
                rule="the same command resumes", remedy="Choose another --out.",
            )  # fmt: skip
    elif out.is_file() or (out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir())):
        raise InputError("the output folder is not empty", got=out, remedy="Choose another --out.")
