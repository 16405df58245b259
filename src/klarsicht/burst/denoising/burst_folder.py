"""Denoising of each burst among many frames, one after the other, with a record of what was made of which frames."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from klarsicht.burst.denoising import work_folder
from klarsicht.burst.denoising.comparison_page import WeightPainter
from klarsicht.burst.denoising.outputs import (
    FURTHER,
    choose_outputs,
    complete_suffix,
    list_possible_files,
    write_outputs,
)
from klarsicht.burst.denoising.pipeline import DenoiseResult, DenoiseSettings, denoise_frames, fingerprint_settings
from klarsicht.burst.files import captures, reading
from klarsicht.burst.files.captures import Capture
from klarsicht.ground.errors import InputError, KlarsichtError, RunLocked, Unreachable, UsageError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.run_folder.manifest import to_json

NAME = "{}"  # in an output: the name of each burst
RECORD = ".klarsicht-bursts.json"
OF_ONE_BURST = (InputError, UsageError, RunLocked, Unreachable)  # errors that do not stop the other bursts


@dataclass(frozen=True)
class PlannedBurst:
    """A burst and its outputs. out: what was asked for, with its name. further: see denoise."""

    frames: tuple[Capture, ...]
    out: Path
    further: Mapping[str, Path | None]

    @classmethod
    def of(cls, frames: Sequence[Capture], name: str, out: Path, further: Mapping[str, Path | None]) -> PlannedBurst:
        """Put the name of a burst into its outputs."""
        named = {kind: path and _replace_name(path, name) for kind, path in further.items()}
        return cls(tuple(frames), _replace_name(out, name), named)

    @property
    def paths(self) -> list[Path]:
        return [one.path for one in self.frames]

    @property
    def outputs(self) -> dict[str, Path]:
        return choose_outputs(self.out, self.further)

    @property
    def description(self) -> str:
        """Number, time and exposure of the frames, for the user."""
        first = self.frames[0]
        count = len({one.seconds for one in self.frames}) if not first.is_exposed_like(self.frames[1]) else 1
        parts = [f"{len(self.frames)} frames", f"{first.time:%Y-%m-%d %H:%M:%S}"]
        parts += [f"{count} exposures"] if count > 1 else [_format_seconds(first.seconds)] if first.seconds else []
        return ", ".join([*parts, *([f"ISO {first.iso:.0f}"] if first.iso else [])])

    def digest(self, settings: DenoiseSettings) -> str:
        """Hash the frames, by name, size and modification time, and the settings."""
        stats = [(path.name, stat.st_size, stat.st_mtime_ns) for path in self.paths for stat in [path.stat()]]
        return hashlib.sha256(to_json({**fingerprint_settings(settings), "frames": stats})).hexdigest()


def denoise_bursts(
    files: Sequence[Path],
    folders: Sequence[Path],
    out: Path,
    further: Mapping[str, Path | None],
    settings: DenoiseSettings,
    pause: float,
    dry_run: bool,
    painter: WeightPainter | None,
) -> Iterator[str]:
    """Denoise each burst among the files into its outputs; yield a line for each. folders: those that hold the files.
    The other arguments are those of `denoise`.

    Raises InputError, UsageError, RunLocked, Unreachable: the first error of a burst or a file, after all others are
    done; InputError: there is no burst; and at once what `denoise` raises of the machine or the network."""
    for kind, path in further.items():
        if path is not None and NAME not in str(path):
            option = FURTHER[kind][0]
            raise UsageError(
                f"{option} is one file", got=path, rule="each burst has one", remedy=f"Put {{}} into {option}."
            )
    errors: list[KlarsichtError] = []
    alone = captures.select_raw_files(files)
    if pictures := len(files) - len(alone):
        yield f"left out: {pictures} pictures of the same name as a raw file"
    shots = []
    for file in alone:
        try:
            shots.append(captures.read_capture(file, settings.read_settings))
        except OF_ONE_BURST as error:
            errors.append(error)
            yield f"left out: {error}"
    groups = captures.group_captures(shots, pause)
    if single := [group[0].path.name for group in groups if len(group) == 1]:
        yield f"left out: {len(single)} single frame{'s' * (len(single) != 1)}: {_list_names(single)}"
    bursts = [group for group in groups if len(group) > 1]
    if not bursts:
        if errors:
            raise errors[0]
        rule, remedy = f"frames of a burst are at most {pause:g} s apart", "Lengthen --pause, or give -o without {}."
        raise InputError("no burst among the frames", got=f"{len(single)} single ones", rule=rule, remedy=remedy)
    names = captures.name_bursts(bursts)
    plan = [PlannedBurst.of(frames, name, out, further) for frames, name in zip(bursts, names, strict=True)]
    for burst in plan:
        work_folder.check_outputs(list_possible_files(burst.outputs), list(files), list(folders))
    record = BurstRecord.beside(out)
    yield f"{len(plan)} burst{'s' * (len(plan) != 1)} of {sum(len(burst.frames) for burst in plan)} frames"
    for burst in plan:
        try:
            exists = record.has(burst, settings)
            if exists or dry_run:
                yield f"{burst.outputs['photograph']}: {burst.description}{', made before' if exists else ''}"
            else:
                yield _denoise_one(burst, settings, record, painter if "page" in burst.outputs else None)
        except OF_ONE_BURST as error:
            errors.append(error)
            yield f"{burst.outputs['photograph']}: failed: {error}"
    if errors:
        error_kind, got = type(errors[0]), f"{len(errors)} bursts or files that could not be used"
        if dry_run:
            remedy = "Without --dry-run, all others are made."
            raise error_kind("not everything can be denoised", got=got, remedy=remedy)
        raise error_kind(
            "not everything was denoised", got=got, remedy="All others are done; the same command tries again."
        )


def _denoise_one(
    burst: PlannedBurst, settings: DenoiseSettings, record: BurstRecord, painter: WeightPainter | None
) -> str:
    """Denoise a burst and write its outputs; return its line."""
    digest = burst.digest(settings)
    with denoise_frames(burst.paths, burst.out, settings, observe=painter.observe if painter else None) as result:
        outputs = complete_suffix(burst.outputs, result.burst.header.is_raw)
        for _ in write_outputs(outputs, result, painter):
            pass
        record.add(burst, digest, outputs.values())
        return f"{outputs['photograph']}: {describe_result(result)}"


def describe_result(result: DenoiseResult) -> str:
    """Describe a result in one line: frames, share of the burst, reasons to drop frames, and warnings."""
    used, count = len(result.frame_numbers), len(result.burst.frames)
    notes = [*(f"dropped: {why}" for why in result.rejections), *result.warnings]
    return "; ".join([f"{used} of {count} frames, {100 * result.shares['burst']:.1f} % from all frames", *notes])


@dataclass(frozen=True)
class BurstRecord:
    """Record in a folder of outputs, of the digest and the files of each burst that was made."""

    folder: Path

    @classmethod
    def beside(cls, out: Path) -> BurstRecord:
        """Return the record in the lowest folder that all bursts have in common."""
        folder = out
        while NAME in str(folder):
            folder = folder.parent
        return cls(folder)

    def read(self) -> dict[str, dict[str, object]]:
        """Read the record; empty if there is none, or it is damaged."""
        try:
            content = json.loads((self.folder / RECORD).read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def has(self, burst: PlannedBurst, settings: DenoiseSettings) -> bool:
        """Tell whether all outputs of a burst are there, made of the same frames by the same settings."""
        entry = self.read().get(self._place(burst.out))
        if not isinstance(entry, dict) or entry.get("made of") != burst.digest(settings):
            return False
        files, asked = entry.get("files"), burst.outputs
        return isinstance(files, list) and any(
            all(path.exists() and self._place(path) in files for path in complete_suffix(asked, raw).values())
            for raw in (True, False)
        )

    def add(self, burst: PlannedBurst, digest: str, files: Iterable[Path]) -> None:
        """Write that a burst was made."""
        added = {self._place(burst.out): {"made of": digest, "files": sorted(map(self._place, files))}}
        write_atomically(self.folder / RECORD, to_json(self.read() | added))

    def _place(self, path: Path) -> str:
        return os.path.relpath(path, self.folder)


def _replace_name(path: Path, name: str) -> Path:
    return Path(str(path).replace(NAME, name))


def _format_seconds(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 0.3 else f"1/{1 / seconds:.0f} s"


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(names[: reading.NAMES_SHOWN]) + (", ..." if len(names) > reading.NAMES_SHOWN else "")
