"""What fine-tuned copies of a model learned to use of what was planted, and what of that was called poisoned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from klarsicht.audit.sensitivity import detection_limits

Line = dict[str, Any]


@dataclass(frozen=True)
class Learned:
    """Lines of audit.sensitivity.finetuned, of all courses.

    A plant is *used* when it raises its class first or second of all outputs on held-out images of other classes, by
    half a logit, or with two of a hundred more taken for the class; it is *learned* when by so much more than in the
    model before the training. A caption that hides a shoe speaks for a bag without any training.
    """

    trials: tuple[Line, ...]
    kinds: tuple[str, ...]
    prevalences: tuple[float, ...]
    epochs: int
    rate: float

    def of(self, kind: str, prevalence: float) -> list[Line]:
        return [t for t in self.trials if t["kind"] == kind and t["prevalence"] == prevalence]

    def share(self, kind: str, prevalence: float) -> float:
        """Of the plants that were learned, those called poisoned; not a number where none was learned."""
        called = [t["poisoned"] for t in self.of(kind, prevalence) if t["learned"]]
        return sum(called) / len(called) if called else float("nan")

    def limit(self, kind: str) -> float | None:
        """The smallest prevalence at which half of what was learned is called; where nothing was, it says nothing."""
        shares = {p: self.share(kind, p) for p in self.prevalences}
        return detection_limits.limit({p: share for p, share in shares.items() if share == share})

    def told(self, kind: str) -> str:
        learned = any(t["learned"] for p in self.prevalences for t in self.of(kind, p))
        return detection_limits.told(self.limit(kind)) if learned else "not learned"

    def counts(self, kind: str, prevalence: float) -> dict[str, int]:
        """Plants, those called artifactual, those used and learned, and of the learned those called poisoned."""
        mine = self.of(kind, prevalence)
        return {
            "planted": len(mine),
            "artifactual": sum(t["artifactual"] for t in mine),
            "used": sum(t["used"] for t in mine),
            "learned": sum(t["learned"] for t in mine),
            "poisoned": sum(t["poisoned"] and t["learned"] for t in mine),
        }

    def cell(self, kind: str, prevalence: float) -> str:
        n = self.counts(kind, prevalence)
        return f"{n['poisoned']}/{n['learned']} of {n['planted']}"

    @property
    def clean(self) -> dict[str, int]:
        """Classes without a plant, each counted once for each copy, and those of them that were called."""
        mine = [t for t in self.trials if not t["kind"]]
        return {"classes": len(mine)} | {name: sum(t[name] for t in mine) for name in ("artifactual", "poisoned")}

    @property
    def false(self) -> dict[str, int]:
        """Plants that are not used, and those of them that were called poisoned."""
        mine = [t for t in self.trials if t["kind"] and not t["used"]]
        return {"plants": len(mine), "poisoned": sum(t["poisoned"] for t in mine)}

    @property
    def natural(self) -> int:
        """Plants that are used, and were about as much before the training."""
        return sum(t["used"] and not t["learned"] for t in self.trials if t["kind"])

    @property
    def accuracy(self) -> tuple[float, float]:
        """On held-out images, of the model and of its copies, on average."""
        by_course = {t["course"]: (t["accuracy_before"], t["accuracy"]) for t in self.trials}
        before, after = zip(*by_course.values(), strict=True) if by_course else ((float("nan"),),) * 2
        return sum(before) / len(before), sum(after) / len(after)

    def lines(self) -> list[Line]:
        """One line a kind, for the page."""
        return [
            {"kind": kind, "limit": self.told(kind), "counts": [self.counts(kind, p) for p in self.prevalences]}
            for kind in self.kinds
        ]

    def notes(self) -> tuple[str, ...]:
        """What must be known before the figures are believed."""
        clean, false, (before, after) = self.clean, self.false, self.accuracy
        copies = len({t["course"] for t in self.trials})
        return (
            f"Copies of the model that were fine-tuned: {copies}, epochs of each: {self.epochs} (Adam, rate "
            f"{self.rate:g}). A fine-tuned copy is not your training: it starts from a model that has learned already.",
            f"Called poisoned: {false['poisoned']} of {false['plants']} plants that are not used, "
            f"{clean['poisoned']} of {clean['classes']} clean classes ({clean['artifactual']} called artifactual).",
            f"Plants that moved their class as much before the training, and count as neither: {self.natural}.",
            f"Accuracy on held-out images: {before:.3f}, of the copies {after:.3f}.",
        )

    def to_json(self) -> dict[str, Any]:
        before, after = self.accuracy
        return {
            "epochs": self.epochs,
            "rate": self.rate,
            "limits": {kind: self.limit(kind) for kind in self.kinds},
            "clean": self.clean,
            "not_used": self.false,
            "used_before": self.natural,
            "accuracy_before": before,
            "accuracy": after,
            "trials": list(self.trials),
        }
