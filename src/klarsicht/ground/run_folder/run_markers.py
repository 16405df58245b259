"""Markers of the finished work units of a run, and the files that units wrote, compared with the markers' checksums."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import RunDamaged, StoreError
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.machine.operating_system import sync
from klarsicht.ground.run_folder.checksums import Checksum, Written, describe_difference, find_damage
from klarsicht.ground.run_folder.markers import Marker, damage_error
from klarsicht.ground.run_folder.run_files import RunFiles, check_name


@dataclass(frozen=True)
class RunMarkers(RunFiles):
    """Markers of a run folder, by step and unit, and files whose checksums stand in them; a marker is written last."""

    def mark_done(self, step: str, unit: int, written: Written | None = None, **facts: Any) -> None:
        """Write the marker of a unit, last of all, with the checksums that the writing methods returned."""
        write_atomically(self._marker(step, unit), Marker(step, unit, written or {}, facts).to_json())

    def is_done(self, step: str, unit: int) -> bool:
        return self._marker(step, unit).is_file()

    def done_units(self, step: str) -> set[int]:
        return set(self._units(step))

    def marker(self, step: str, unit: int) -> Marker:
        """Read the marker of a unit. Raises RunDamaged: it is damaged or lost; StoreError: the unit is not done."""
        try:
            return Marker.read(self._marker(step, unit), step, unit)
        except FileNotFoundError:
            raise self._undone(step, unit) from None

    def markers(self, step: str) -> dict[int, Marker]:
        """Read the markers of a step, in the order of the units. Raises RunDamaged: one is damaged, or missing from a
        step that was finished; StoreError: a unit of the step is not done."""
        units = range(self.manifest["steps"].get(step, 0))
        return {unit: self.marker(step, unit) for unit in sorted(self._units(step).keys() | set(units))}

    def finished_units(self, step: str) -> dict[int, dict[str, Any]]:
        """Read the facts in the markers of a step's finished units, in the order of the units. Raises RunDamaged: a
        marker is damaged, or missing from a step that was finished."""
        manifest = self.manifest
        all_of_them = range(manifest["steps"][step]) if step in manifest["finished"] else ()
        return {unit: dict(self.marker(step, unit).facts) for unit in sorted({*self._units(step), *all_of_them})}

    def count_units(self, step: str) -> int:
        """Count the units of a step that have their marker, without reading it."""
        return len(self._units(step))

    def finish_step(self, step: str, units: int) -> None:
        """Record that all units of a step are done: a marker that is missing from now on is damage."""
        manifest = self.manifest
        finished = sorted({*manifest["finished"], step})
        self.update_manifest(steps=manifest["steps"] | {step: units}, finished=finished)

    def forget_unfinished(self, beginnings: tuple[str, ...]) -> None:
        """Drop steps that are not finished from the list of the run, by the beginnings of their names; what their units
        wrote stays, for a later call that takes them up again."""
        manifest = self.manifest
        steps, finished = manifest["steps"], manifest["finished"]
        kept = {name: n for name, n in steps.items() if name in finished or not name.startswith(beginnings)}
        if kept != steps:
            self.update_manifest(steps=kept)

    def is_finished(self, step: str) -> bool:
        return step in self.manifest["finished"]

    def begun_steps(self) -> set[str]:
        return {*self.manifest["steps"], *(folder.name for folder in (self.path / "done").glob("*"))}

    def discard_step(self, step: str) -> None:
        """Remove the markers of a step, and then the files that they name."""
        names: set[str] = set()
        for unit in self._units(step):
            with suppress(RunDamaged):
                names |= self.marker(step, unit).files.keys()
        self.clear_markers(step)
        with translate_write_errors(self.path):
            for name in names:
                self.inside(name).unlink(missing_ok=True)

    def clear_markers(self, step: str, units: Collection[int] | None = None) -> None:
        """Remove the markers of a step, or of some of its units, so that these are computed again."""
        finished = self.manifest["finished"]
        if step in finished:
            self.update_manifest(finished=[one for one in finished if one != step])
        folder = self.path / "done" / check_name(step)
        with translate_write_errors(folder):
            for unit, marker in self._units(step).items():
                if units is None or unit in units:
                    marker.unlink(missing_ok=True)
            if folder.is_dir():
                sync(folder)

    def _units(self, step: str) -> dict[int, Path]:
        return files_by_unit(self.path / "done" / check_name(step))

    def _marker(self, step: str, unit: int) -> Path:
        return self.inside(_marker(step, unit))

    def _undone(self, step: str, unit: int) -> StoreError:
        if self.is_finished(step):
            return damage_error(_marker(step, unit), "missing")
        got = f"no marker of unit {unit} of step {step} in {self.path}"
        remedy = "Repeat the command that began it: it computes what is missing."
        return StoreError("the run is not finished", got=got, remedy=remedy)

    # Files of units: their checksums stand in the unit's marker

    def write_unit_file(self, name: str, content: bytes) -> Written:
        """Write a file of a work unit; returns its checksum, for the marker."""
        write_atomically(self.inside(name), content)
        return {name: Checksum.of(content)}

    def read_unit_file(self, name: str, step: str, unit: int = 0) -> bytes:
        """Read a file that a unit wrote. Raises RunDamaged: it is lost, altered or unnamed; StoreError: the unit is not
        done."""
        marker = self.marker(step, unit)
        if not self.inside(name).exists():
            self._check_unit_file(marker, name, find_damage)
        content = self._read(name)
        self._check_unit_file(marker, name, lambda _, expected: describe_difference(Checksum.of(content), expected))
        return content

    def _check_unit_file(self, marker: Marker, name: str, difference: Callable[[Path, Checksum | None], str]) -> None:
        """Compare a file with the marker of its unit; raises RunDamaged."""
        if name not in marker.files:
            raise damage_error(name, f"its checksum is missing from {_marker(marker.step, marker.unit)}")
        if what := difference(self.inside(name), marker.files[name]):
            raise damage_error(name, what)


def _marker(step: str, unit: int) -> str:
    return f"done/{check_name(step)}/{unit:05d}.json"


def files_by_unit(folder: Path) -> dict[int, Path]:
    return {int(p.stem): p for p in folder.glob("*") if p.stem.isdecimal()}
