"""What a run says of its classes: their lines, and the windows in which a detector saw an artifact."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from klarsicht.explorer.class_lines import RANKING_FILE, VERDICTS_FILE, ClassLine, read_class_lines
from klarsicht.explorer.run_reader import RunReader
from klarsicht.explorer.thumbnails import Window
from klarsicht.ground.errors import UsageError

SIGNS = "signs"  # the table of detections, and its step


@dataclass(frozen=True)
class ClassResults:
    """Rankings and verdicts of a run, or where it is not ranked yet, what is analysed."""

    reader: RunReader

    @property
    def stamp(self) -> tuple[Hashable, ...]:
        """Value that changes whenever results of the run change."""
        return (*self.reader.stamp(RANKING_FILE, VERDICTS_FILE), self._analysed_units)

    @property
    def revision(self) -> str:
        """The stamp as a text."""
        return "-".join(map(str, self.stamp))

    @property
    def _analysed_units(self) -> int:
        """Number of analysed units of a run that is not ranked yet; 0 afterwards."""
        if self.reader.store.has_file(RANKING_FILE):
            return 0
        return sum(self.reader.store.count_units(f"spray-{metric}") for metric in self.reader.metrics)

    def lines(self) -> dict[int, ClassLine]:
        """Return the lines of all classes by output, most urgent first."""
        read = self.reader.store
        return self.reader.keep("lines", self.stamp, lambda: {line.target: line for line in read_class_lines(read)})

    def line(self, target: int) -> ClassLine:
        """Return the line of a class.

        Raises:
            UsageError: the run has no such class.
        """
        if target not in self.lines():
            raise UsageError("the run has no such class", got=target, rule="the number of an output that was analysed")
        return self.lines()[target]

    def metrics(self, target: int) -> list[str]:
        """Return the metrics of the run, that of the class's cluster first; a cluster that the model follows may be of
        another metric, whose embedding is not stored."""
        own = self.line(target).metric
        return sorted(self.reader.metrics, key=lambda metric: metric != own)

    def windows(self, target: int) -> dict[int, Window]:
        """Return the detected window of each row of the class's detection that has one."""
        return self.reader.keep("windows", (target, self.stamp), lambda: self._read_windows(target))

    def _read_windows(self, target: int) -> dict[int, Window]:
        line, store = self.line(target), self.reader.store
        if not (line.by_detector and store.has_table(SIGNS, SIGNS)):
            return {}
        signs = self.reader.keep(SIGNS, self.stamp, lambda: store.table(SIGNS, SIGNS).to_pylist())
        for sign in signs:
            if (sign["target"], sign["sign"]) == (target, line.sign) and len(sign["places"]) == 2 * len(sign["rows"]):
                places = np.array(sign["places"], float).reshape(-1, 2)
                return {
                    int(row): (float(top), float(left), float(sign["height"]), float(sign["width"]))
                    for row, (top, left) in zip(sign["rows"], places, strict=True)
                }
        return {}
