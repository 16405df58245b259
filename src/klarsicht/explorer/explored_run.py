"""Access of the explorer to a run: lines, images, points and pictures, read again where a file of them changed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel

from klarsicht.explorer import thumbnails
from klarsicht.explorer.class_lines import (
    DETECTED_KINDS,
    RANKING_FILE,
    VERDICTS_FILE,
    ClassLine,
    read_class_lines,
)
from klarsicht.explorer.pixel_masks import (
    MASK_SOURCES,
    RELEVANCE,
    ExcessMasks,
    SeenMasks,
    WindowMasks,
    mask_in_file,
    read_saved_masks,
    saved_artifacts,
)
from klarsicht.explorer.point_clouds import PointCloud, membership_flags, read_point_cloud
from klarsicht.explorer.run_images import RunImages
from klarsicht.explorer.thumbnails import PictureCache, Window
from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints
from klarsicht.ground.config import require_shape
from klarsicht.ground.errors import StoreError, UsageError
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.pictures.seen_area import SeenArea, read_seen_area
from klarsicht.ground.run_folder.decisions import (
    ARTIFACT,
    DECISIONS_FILE,
    LEGITIMATE,
    Change,
    ClassDecision,
    DecisionLog,
)
from klarsicht.ground.run_folder.manifest import Manifest
from klarsicht.ground.run_folder.run_files import MANIFEST
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.stored_array import StoredArray
from klarsicht.ground.step_words import describe_step, is_measured_beside
from klarsicht.ground.user_arguments import check_arguments

CARRIES, OPEN, NOT_CARRYING = CARRIER_STATUSES = ("yes", "undecided", "no")
PICTURES = ("image", "relevance", "overlay", "window", "masked", "mask")
OF_A_CLASS = ("window", "masked", "mask")  # pictures that depend on the class whose artifact is shown
PLAIN_METRIC = "features"  # the baseline, whose embedding is stored in every run
ABSORBED_SHARE = 0.9  # median share of absorbed relevance above which maps are hints, as in the report
MEAN_MAPS = 2000  # relevance maps of which a mean is taken at most
BACKGROUND_MAPS, RUN_ROWS = 512, 64  # maps whose mean masks by relevance exceed, and those that are read together
T = TypeVar("T")


class AuditSettingsShape(BaseModel):
    """Shape of the settings of an audit, as far as pages read them."""

    model: str
    target: str
    metric: list[str]
    megapixels: float = 220
    white_level: int | None = None


@dataclass
class ExploredRun:
    """Run folder with a cache of what was read from it.

    Attributes:
        store: the run.
        author: who decides.
        data: where the corpus is now, if it moved.
        pictures: pictures drawn so far.
    """

    store: RunStore
    author: str = "unknown"
    data: str | None = None
    pictures: PictureCache = field(default_factory=PictureCache)
    _cache: dict[str, tuple[object, Any]] = field(default_factory=dict)
    _locks: defaultdict[str, threading.RLock] = field(default_factory=lambda: defaultdict(threading.RLock))

    @property
    def log(self) -> DecisionLog:
        """Records of decisions."""
        return DecisionLog(self.store.path)

    @property
    def revision(self) -> str:
        """Text that changes whenever results of the run change."""
        stamps = (self._stamp(RANKING_FILE), self._stamp(VERDICTS_FILE), self._analysed_units)
        return "-".join(map(str, stamps))

    @property
    def record_count(self) -> int:
        """Number of records of decisions: a page that knows as many, and wrote the next, has missed none."""
        return self._keep("records", self._decisions_stamp, lambda: len(self.log.records()))

    @property
    def _decisions_stamp(self) -> object:
        return self._stamp(DECISIONS_FILE)

    @property
    def _analysed_units(self) -> object:
        """Number of analysed units of a run that is not ranked yet; 0 afterwards."""
        if self._stamp(RANKING_FILE):
            return 0
        metrics = self.store.manifest["settings"].get("metric", ())
        return sum(self.store.count_units(f"spray-{metric}") for metric in metrics)

    def _stamp(self, name: str) -> object:
        try:
            known = (self.store.path / name).stat()
        except OSError:
            return 0
        return f"{known.st_mtime_ns:x}.{known.st_size}.{known.st_ino:x}"

    def _keep(self, name: str, stamp: object, read: Callable[[], T]) -> T:
        """Return what was read under this name and stamp; read it where the stamp changed."""
        with self._locks[name]:  # what takes long is read once, and nothing else waits for it
            if name not in self._cache or self._cache[name][0] != stamp:
                self._cache[name] = (stamp, read())
            value: T = self._cache[name][1]
            return value

    # What was read

    @property
    def manifest(self) -> dict[str, Any]:
        return self._keep("manifest", self._stamp(MANIFEST), self._read_manifest)

    def _read_manifest(self) -> Manifest:
        manifest = self.store.manifest
        with self.store.translate_parse_errors(MANIFEST):
            require_shape(manifest["settings"], AuditSettingsShape)
        return manifest

    @property
    def names(self) -> list[str]:
        """Names of the model's outputs."""
        return [str(name) for name in self.manifest.get("names", ())]

    def lines(self) -> dict[int, ClassLine]:
        """Return the lines of all classes by output, most urgent first."""
        stamp = (self._stamp(RANKING_FILE), self._stamp(VERDICTS_FILE), self._analysed_units)
        return self._keep("lines", stamp, lambda: {line.target: line for line in read_class_lines(self.store)})

    def line(self, target: int) -> ClassLine:
        """Return the line of a class.

        Raises:
            UsageError: the run has no such class.
        """
        if target not in self.lines():
            raise UsageError("the run has no such class", got=target, rule="the number of an output that was analysed")
        return self.lines()[target]

    def images(self) -> RunImages:
        """Return the images of the run.

        Raises:
            StoreError: their relevance is not computed yet.
        """
        return self._keep("images", 0, lambda: RunImages.of(self.store, self.data))

    def decisions(self) -> dict[int, ClassDecision]:
        """Return the decisions by output."""
        return self._keep("decisions", self._decisions_stamp, self.log.decisions)

    def metrics(self, target: int) -> list[str]:
        """Return the metrics of the run, that of the class's cluster first; a cluster that the model follows may be of
        another metric, whose embedding is not stored."""
        known = [str(metric) for metric in self.manifest["settings"].get("metric", ())]
        own = self.line(target).metric
        return sorted(known, key=lambda metric: metric != own)

    def points(self, target: int, metric: str = "") -> PointCloud:
        """Return the images of a class with their embedding under a metric, by default that of its cluster.

        Raises:
            UsageError: a metric that the run does not have.
        """
        known = [*self.metrics(target), PLAIN_METRIC]
        chosen_metric = metric or known[0]
        if chosen_metric not in known:
            raise UsageError("the run has no such metric", got=repr(metric), rule=", ".join(known))
        stamp = (target, chosen_metric)
        return self._keep("points", stamp, lambda: read_point_cloud(self.store, self.images(), target, chosen_metric))

    def point_bytes(self, target: int, metric: str = "") -> bytes:
        """Return the points of a class as bytes, see `point_clouds`."""
        cloud = self.points(target, metric)
        flags = membership_flags(cloud.rows, self.line(target), self.decisions().get(target))
        return cloud.to_bytes(self.images(), flags)

    def members(self, target: int) -> tuple[int, ...]:
        """Return the rows that carry the artifact of a class: those decided by a person, else those that were found."""
        decision = self.decisions().get(target)
        return self.line(target).found if decision is None or decision.members is None else decision.members

    def further_members(self, target: int) -> tuple[tuple[int, ...], ...]:
        """Return the rows that carry each further artifact of a class; none where a person decided that what its images
        share belongs to it."""
        decision = self.decisions().get(target)
        return () if decision is not None and decision.is_legitimate else self.line(target).further

    def carrier_status(self, target: int) -> str:
        """Return what is known of the members of a class, one of CARRIER_STATUSES: CARRIES where a person decided or a
        detector found that they carry an artifact, NOT_CARRYING where a person decided that what they share belongs to
        the class, else OPEN, as of a suspect cluster that nobody decided."""
        decision = self.decisions().get(target, ClassDecision(target, ""))
        if decision.decision:
            return {ARTIFACT: CARRIES, LEGITIMATE: NOT_CARRYING}.get(decision.decision, OPEN)
        by_person = decision.members is not None
        return CARRIES if by_person or self.line(target).kind in DETECTED_KINDS else OPEN

    def windows(self, target: int) -> dict[int, Window]:
        """Return the detected window of each row of the class's detection that has one."""
        return self._keep("windows", (target, self._stamp(VERDICTS_FILE)), lambda: self._read_windows(target))

    def _read_windows(self, target: int) -> dict[int, Window]:
        line = self.line(target)
        if not (line.by_detector and self.store.has_table("signs", "signs")):
            return {}
        signs = self._keep("signs", self._stamp(VERDICTS_FILE), lambda: self.store.table("signs", "signs").to_pylist())
        for sign in signs:
            if (sign["target"], sign["sign"]) == (target, line.sign) and len(sign["places"]) == 2 * len(sign["rows"]):
                places = np.array(sign["places"], float).reshape(-1, 2)
                return {
                    int(row): (float(top), float(left), float(sign["height"]), float(sign["width"]))
                    for row, (top, left) in zip(sign["rows"], places, strict=True)
                }
        return {}

    def masks(self, target: int) -> dict[str, SeenMasks]:
        """Return the masks of a class's artifact by their source, in the order of MASK_SOURCES; none where what the
        model sees of a file is not known."""
        if self.seen_area is None:
            return {}
        saved = tuple(str(folder) for folder in saved_artifacts(self.store.path))
        stamp = (target, self._stamp(VERDICTS_FILE), self._stamp(RANKING_FILE), self._decisions_stamp, saved)
        return self._keep("masks", stamp, lambda: self._read_masks(target))

    def _read_masks(self, target: int) -> dict[str, SeenMasks]:
        members = np.array(self.members(target), np.int64)
        maps = self.relevance_maps if self.has_maps else None
        masks = [read_saved_masks(self.store.path, target, maps)]
        if maps is not None and not (masks[0] and masks[0].source == RELEVANCE):
            others = np.setdiff1d(self.images().rows_of(target), members)
            masks.append(ExcessMasks.of(maps, members, choose_runs(others, BACKGROUND_MAPS)))
        if windows := self.windows(target):
            masks.append(WindowMasks(windows))
        by_source = {one.source: one for one in masks if one is not None}
        return {source: by_source[source] for source in MASK_SOURCES if source in by_source}

    def mask_of(self, target: int, row: int, size: tuple[int, int], source: str = "") -> tuple[str, Bools] | None:
        """Make the mask (h, w) of a class's artifact on a file of `size` (w, h), and name its source: the given one, by
        default the first that has a place in this image, without relevance where a detector found the artifact. None
        without one.

        Raises:
            UsageError: the class has no masks of the given source.
        """
        masks_by_source = self.masks(target)
        if source and source not in masks_by_source:
            none = "a window, relevance maps or a saved correction, of a model whose seen area is known"
            raise UsageError("no such masks of this class", got=repr(source), rule=", ".join(masks_by_source) or none)
        usual = [name for name in masks_by_source if name != RELEVANCE or not self.line(target).by_detector]
        for name, masks in masks_by_source.items():
            if name in ([source] if source else usual):
                mask = mask_in_file(masks, row, size, self.seen_area or SeenArea())
                if mask is not None:
                    return name, mask
        return None

    def keep_findings(self, targets: tuple[int, ...], compute: Callable[[], Doubles]) -> Doubles:
        """Return the likeness of classes, computed again where results or decisions changed."""
        stamp = (targets, self._stamp(RANKING_FILE), self._stamp(VERDICTS_FILE), self._decisions_stamp)
        return self._keep("likeness", stamp, compute)

    # Decisions

    def decide(
        self, target: int, *, decision: str | None = None, artifact: str | None = None, note: str | None = None,
        add: Sequence[int] = (), remove: Sequence[int] = (),
    ) -> int:  # fmt: skip
        """Record a decision on a class; returns the number of the record.

        A decision that the class carries an artifact, and each change of members, records the rows that the audit
        names, so that it stays as it is when the run is quantified again.

        Args:
            decision, artifact, note: see ClassDecision; None leaves the field as it is.
            add, remove: rows that carry the artifact after all, or do not.

        Raises:
            UsageError: no such class, or a row that is no image of the class.
        """
        line = self.line(target)
        self._require_images_of(target, [*add, *remove])
        base = line.found if add or remove or decision == ARTIFACT else None
        rows = {"add": tuple(sorted(set(add))), "remove": tuple(sorted(set(remove)))}
        return self.log.append(Change(target, line.name, decision, artifact, note, base, **rows), self.author)

    def _require_images_of(self, target: int, rows: Sequence[int]) -> None:
        """Check that rows are images of a class; raises UsageError."""
        if not rows:
            return
        known = np.isin(np.array(rows, np.int64), self.images().rows_of(target))
        if not known.all():
            raise UsageError("no image of this class", got=f"row {rows[int(np.argmin(known))]}")

    # Pictures

    def draw(self, row: int, kind: str = "image", side: int = 96, target: int | None = None, source: str = "") -> bytes:
        """Draw a picture of an image: one of PICTURES.

        Args:
            row: the image.
            side: pixels of its longer side; a mask has the size of the file.
            target: the class whose artifact is shown.
            source: of the mask, see `mask_of`.

        Raises:
            UsageError: no such image or picture, or the run has no relevance map, window or mask of it.
            ImageError: the image cannot be decoded, or is too large to be shown.
        """
        if kind not in PICTURES:
            raise UsageError("no such picture", got=repr(kind), rule=", ".join(PICTURES))
        self.images().require(row)
        stamps = (self._stamp(VERDICTS_FILE), self._decisions_stamp) if kind in OF_A_CLASS else ()
        name = (row, kind, side, target, source, stamps)
        return self.pictures.get_or_draw(name, lambda: self._draw(row, kind, side, target, source))

    def _draw(self, row: int, kind: str, side: int, target: int | None, source: str) -> bytes:
        if kind == "relevance":
            return thumbnails.draw_relevance(self.relevance_map(row), side)
        area = self.seen_area
        relevance = self.relevance_map(row) if kind == "overlay" else None
        picture = self.read_picture(row)
        if kind == "image":
            return thumbnails.draw_picture(picture, side)
        if area is None:
            raise UsageError(
                "where relevance lies on the file is not known",
                got="a transform that is no resize, crop and pad, or a run of an older version",
            )
        if relevance is not None:
            return thumbnails.draw_overlay(picture, area, relevance, side)
        if kind == "window":
            window = None if target is None else self.windows(target).get(row)
            return thumbnails.draw_window(picture, area, window, side)
        if target is None:
            raise UsageError("a mask is that of a class", rule="target: the number of an output")
        mask = self.mask_of(target, row, picture.size, source)
        if kind == "masked":
            return thumbnails.draw_masked(picture, area, mask[1] if mask else None, side)
        if mask is None:
            raise UsageError("the artifact has no mask on this image", got=row)
        return thumbnails.draw_mask(mask[1])

    def read_picture(self, row: int) -> Image.Image:
        """Decode an image of the corpus as a picture, RGB or grey.

        Raises:
            ImageError: see thumbnails.read_picture.
        """
        settings, file = self.manifest["settings"], self.images().file(row)
        known = settings.get("megapixels", 220.0), settings.get("white_level"), self.array_form
        return thumbnails.read_picture(file, *known)

    @property
    def array_form(self) -> ArrayForm | None:
        """Form of the arrays that the run's model takes; None: pictures."""
        known = self.manifest.get("array_form")
        return None if known is None else ArrayForm.from_json(known)

    @property
    def seen_area(self) -> SeenArea | None:
        """Part of a file that the model sees; None where it is not known."""
        return read_seen_area(self.manifest)

    @property
    def has_maps(self) -> bool:
        """Whether the run stores relevance maps."""
        return self.store.has_array("maps")

    @property
    def maps_are_hints(self) -> bool:
        """Whether so much relevance is absorbed on its way to the pixels that maps are hints only."""
        share = self.images().absorbed
        share = self.manifest.get("absorbed") if share is None else share
        return share is not None and abs(share) > ABSORBED_SHARE

    def _maps(self) -> StoredArray:
        if not self.has_maps:
            raise UsageError("the run has no relevance maps", rule="a method that makes maps, and one class as target")
        return self._keep("maps", 0, lambda: self.store.array("maps"))

    def relevance_map(self, row: int) -> Floats:
        """Return the relevance map (G, G) of an image.

        Raises:
            UsageError: the run has no maps.
        """
        return np.asarray(self.relevance_maps([row])[0])

    def relevance_maps(self, rows: Sequence[int] | Ints) -> Floats:
        """Return the relevance maps float32 (n, G, G) of n images.

        Raises:
            UsageError: the run has no maps.
        """
        return np.asarray(self._maps()[np.asarray(rows)], np.float32)

    def mean_relevance(self, rows: Sequence[int], side: int) -> tuple[bytes, int]:
        """Draw the mean relevance map of some images; of more than MEAN_MAPS it is that of as many, evenly chosen.

        Returns:
            The picture, and the number of maps.

        Raises:
            UsageError: no rows, a row that the run does not have, or no maps.
        """
        if not rows:
            raise UsageError("no images are selected")
        rows_drawn = choose_evenly(np.unique(np.array([self.images().require(row) for row in rows])), MEAN_MAPS)
        maps = self._maps()
        total = np.zeros(maps.shape[1:], np.float64)
        for start in range(0, len(rows_drawn), 256):
            total += np.asarray(maps[rows_drawn[start : start + 256]], np.float64).sum(0)
        return thumbnails.draw_relevance(np.asarray(total / len(rows_drawn), np.float32), side), len(rows_drawn)

    # Progress

    def progress(self) -> list[dict[str, Any]]:
        """Return the steps of the run with their done and total units, and whether results are written."""
        manifest = self.manifest
        finished = manifest.get("finished", ())
        steps = [
            {"name": name, "done": units if name in finished else self.store.count_units(name), "units": units}
            for name, units in manifest.get("steps", {}).items()
        ]
        steps.append({"name": "ranking", "done": int(bool(self._stamp(RANKING_FILE))), "units": 1})
        return [
            step | {"words": describe_step(step["name"]), "beside": is_measured_beside(step["name"])} for step in steps
        ]

    def require_ready(self) -> None:
        """Read the images of the run, where they can be read already; called early, so that no page waits for it."""
        try:
            self.images()
        except StoreError:
            return


def choose_evenly(rows: Ints, most: int) -> Ints:
    """Choose at most so many of some rows (n,), at equal steps."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def choose_runs(rows: Ints, most: int) -> Ints:
    """Choose at most so many of some ascending rows (n,), in runs of RUN_ROWS at equal steps: rows that lie together in
    the run's arrays are read at once."""
    if len(rows) <= most:
        return rows
    starts = np.linspace(0, len(rows) - RUN_ROWS, most // RUN_ROWS).astype(int)
    return rows[np.unique(starts[:, None] + np.arange(RUN_ROWS))]


@check_arguments
def open_explored_run(run: str | Path, author: str, data: str | None = None) -> ExploredRun:
    """Open a run to look at.

    Raises:
        InputError: no run in the folder.
        RunDamaged: its manifest is not as it was written.
    """
    return ExploredRun(RunStore.open(run), author, data)
