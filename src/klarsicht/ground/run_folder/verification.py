"""Comparison of all files of a run with their checksums; what is damaged can be made to count as never written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import RunDamaged
from klarsicht.ground.machine.disk import translate_write_errors
from klarsicht.ground.run_folder.checksums import find_damage
from klarsicht.ground.run_folder.decisions import DECISIONS_FILE, DECISIONS_LOCK
from klarsicht.ground.run_folder.markers import COMPUTE_AGAIN
from klarsicht.ground.run_folder.store import RunStore

ASIDE = ("lock", "done", "checksums", "turn", "corrections", "certificate", DECISIONS_FILE, DECISIONS_LOCK)
"""Not written by a step: markers and checksums, folders with checksums of their own, and decisions of a person."""


@dataclass(frozen=True)
class Damage:
    """File of a run that is not as it was written, what is wrong, and the marker or checksum file that names it."""

    name: str
    what: str
    keeper: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}" + (f" ({self.keeper})" if self.keeper != self.name else "")


@dataclass(frozen=True)
class Verification:
    """Result of comparing all files of a run with their checksums: the number of those that are as they were written,
    those that are not, and those that no checksum is known of."""

    files: int
    damaged: tuple[Damage, ...]
    unverified: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        damaged = [{"file": one.name, "damage": one.what} for one in self.damaged]
        return {"verified": self.files, "damaged": damaged, "unverified": list(self.unverified)}

    def require_intact(self) -> None:
        """Raise RunDamaged where a file is damaged; it names the first."""
        if self.damaged:
            what, rule = f"damaged files of the run: {len(self.damaged)}", "every file as it was written"
            raise RunDamaged(what, got=self.damaged[0], rule=rule, remedy=COMPUTE_AGAIN)


def verify(store: RunStore) -> Verification:
    """Compare every file of a run with its checksum. Raises RunDamaged: the manifest, which lists them, is damaged."""
    _ = store.manifest
    comparisons = [*_compare_units(store), *_compare_files(store)]
    named = {one.name for one in comparisons}
    others = [file for file in _list_files(store.path) if file not in named and file.split("/")[0] not in ASIDE]
    damaged = tuple(one for one in comparisons if one.what)
    return Verification(len(comparisons) - len(damaged), damaged, tuple(others))


def forget_damaged(store: RunStore) -> tuple[Damage, ...]:
    """Make every damaged file count as never written, and return these: its unit loses the marker, so that it is
    computed again. Only the holder of the run's lock may call it. Raises RunDamaged: the manifest is damaged."""
    damaged = verify(store).damaged
    with translate_write_errors(store.path):
        for one in damaged:
            (store.path / one.keeper).unlink(missing_ok=True)
            if one.keeper.startswith("checksums/"):
                (store.path / one.name).unlink(missing_ok=True)
    lost = {one.keeper.split("/")[1] for one in damaged if one.keeper.startswith("done/")}
    if finished := store.manifest["finished"]:
        store.update_manifest(finished=[step for step in finished if step not in lost])
    return damaged


def _compare_units(store: RunStore) -> Iterator[Damage]:
    """Compare the files of all units with their markers; those as written have nothing wrong."""
    finished = {step: range(store.manifest["steps"][step]) for step in store.manifest["finished"]}
    folders = sorted(file.name for file in (store.path / "done").glob("*"))
    for step in dict.fromkeys([*finished, *folders]):
        units = {int(file.stem) for file in (store.path / "done" / step).glob("*") if file.stem.isdecimal()}
        for unit in sorted(units | set(finished.get(step, ()))):
            marker = f"done/{step}/{unit:05d}.json"
            try:
                files = store.marker(step, unit).files
            except RunDamaged as error:
                yield Damage(marker, str(error.got).removeprefix(f"{marker}: "), marker)
                continue
            yield from (Damage(name, find_damage(store.path / name, one), marker) for name, one in files.items())


def _compare_files(store: RunStore) -> Iterator[Damage]:
    """Compare the files that no unit wrote with their checksums; those as written have nothing wrong."""
    for record in _list_files(store.path / "checksums", "*.json"):  # beside temporary files of a killed process
        name, keeper = record.removesuffix(".json"), f"checksums/{record}"
        try:
            if store.has_file(name):
                store.read_bytes(name)
            what = ""
        except RunDamaged as error:
            what = str(error.got).removeprefix(f"{name}: ")
        yield Damage(name, what, keeper)


def _list_files(folder: Path, pattern: str = "*") -> list[str]:
    """List the files below a folder, and pipes and devices, by their paths inside it."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob(pattern) if not file.is_dir())
