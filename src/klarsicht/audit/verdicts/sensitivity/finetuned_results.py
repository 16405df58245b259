"""Results of audits of fine-tuned copies: planted artifacts that were learned, and those called poisoned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from klarsicht.audit.results.power_rows import CourseRow, LearnedCounts, LearnedLine
from klarsicht.audit.verdicts.sensitivity import detection_limits


@dataclass(frozen=True)
class FinetunedResults:
    """Results of all courses of audit.verdicts.sensitivity.finetuned, for planted kinds and prevalences.

    A planted artifact is *used* when, on held-out images of other classes, it raises its class most or second most of
    all outputs, by half a logit, or with two of a hundred more images predicted as the class. It is *learned* when its
    effect exceeds that in the model before the fine-tuning by as much: a caption that hides a shoe speaks for a bag
    without any training."""

    trials: tuple[CourseRow, ...]
    kinds: tuple[str, ...]
    prevalences: tuple[float, ...]
    epochs: int
    rate: float

    def select(self, kind: str, prevalence: float) -> list[CourseRow]:
        """Select the rows of one kind and prevalence."""
        return [t for t in self.trials if t["kind"] == kind and t["prevalence"] == prevalence]

    def share(self, kind: str, prevalence: float) -> float:
        """Compute the share of learned artifacts that were called poisoned; NaN where none was learned."""
        called = [t["poisoned"] for t in self.select(kind, prevalence) if t["learned"]]
        return sum(called) / len(called) if called else float("nan")

    def limit(self, kind: str) -> float | None:
        """Compute the detection limit for *poisoned*; prevalences at which nothing was learned are ignored."""
        shares = {p: self.share(kind, p) for p in self.prevalences}
        return detection_limits.detection_limit({p: share for p, share in shares.items() if share == share})

    def format_limit(self, kind: str) -> str:
        """Format the detection limit of a kind."""
        learned = any(t["learned"] for p in self.prevalences for t in self.select(kind, p))
        return detection_limits.format_limit(self.limit(kind)) if learned else "not learned"

    def counts(self, kind: str, prevalence: float) -> LearnedCounts:
        """Count the planted, artifactual, used and learned artifacts, and the learned ones called poisoned."""
        mine = self.select(kind, prevalence)
        return {
            "planted": len(mine),
            "artifactual": sum(t["artifactual"] for t in mine),
            "used": sum(bool(t["used"]) for t in mine),
            "learned": sum(bool(t["learned"]) for t in mine),
            "poisoned": sum(t["poisoned"] and bool(t["learned"]) for t in mine),
        }

    def format_counts(self, kind: str, prevalence: float) -> str:
        """Format the counts as poisoned/learned of planted."""
        n = self.counts(kind, prevalence)
        return f"{n['poisoned']}/{n['learned']} of {n['planted']}"

    @property
    def clean(self) -> dict[str, int]:
        """Counts of classes without a planted artifact, once per copy, and of those called artifactual or poisoned."""
        mine = [t for t in self.trials if not t["kind"]]
        return {
            "classes": len(mine),
            "artifactual": sum(t["artifactual"] for t in mine),
            "poisoned": sum(t["poisoned"] for t in mine),
        }

    @property
    def unused(self) -> dict[str, int]:
        """Counts of planted artifacts that are not used, and of those called poisoned."""
        mine = [t for t in self.trials if t["kind"] and not t["used"]]
        return {"plants": len(mine), "poisoned": sum(t["poisoned"] for t in mine)}

    @property
    def used_before(self) -> int:
        """Number of planted artifacts that are used, and were used about as much before the fine-tuning."""
        return sum(bool(t["used"]) and not t["learned"] for t in self.trials if t["kind"])

    @property
    def accuracy(self) -> tuple[float, float]:
        """Mean accuracy on held-out images, of the model and of its copies."""
        by_course = {t["course"]: (t["accuracy_before"], t["accuracy"]) for t in self.trials}
        before, after = zip(*by_course.values(), strict=True) if by_course else ((float("nan"),),) * 2
        return sum(before) / len(before), sum(after) / len(after)

    def lines(self) -> list[LearnedLine]:
        """Collect one row per kind for the report."""
        return [
            {"kind": kind, "limit": self.format_limit(kind), "counts": [self.counts(kind, p) for p in self.prevalences]}
            for kind in self.kinds
        ]

    def notes(self) -> tuple[str, ...]:
        """Collect the caveats that a reader must know to interpret the figures."""
        clean, false, (before, after) = self.clean, self.unused, self.accuracy
        copies = len({t["course"] for t in self.trials})
        return (
            f"Copies of the model that were fine-tuned: {copies}, epochs of each: {self.epochs} (Adam, rate "
            f"{self.rate:g}). A fine-tuned copy is not your training: it starts from a model that has learned already.",
            f"Found to rely on an artifact: {false['poisoned']} of {false['plants']} plants that are not used, "
            f"{clean['poisoned']} of {clean['classes']} clean classes (an artifact in {clean['artifactual']}).",
            f"Plants that moved their class as much before the training, and count as neither: {self.used_before}.",
            f"Accuracy on held-out images: {before:.3f}, of the copies {after:.3f}.",
        )

    def to_json(self) -> dict[str, Any]:
        before, after = self.accuracy
        return {
            "epochs": self.epochs,
            "rate": self.rate,
            "limits": {kind: self.limit(kind) for kind in self.kinds},
            "clean": self.clean,
            "not_used": self.unused,
            "used_before": self.used_before,
            "accuracy_before": before,
            "accuracy": after,
            "trials": list(self.trials),
        }
