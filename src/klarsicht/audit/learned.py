"""What fine-tuned copies of a model learned to use of what was planted, and what of that was called poisoned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from klarsicht.audit import limits

Line = dict[str, Any]


@dataclass(frozen=True)
class Learned:
    """Lines of audit.poisoning, of all courses.

    A plant is *learned* when it raises its class first or second of all outputs on held-out images of other classes,
    by half a logit, or with two of a hundred more taken for the class. Only of what was learned can *poisoned* be true.
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
        return limits.limit({p: share for p, share in shares.items() if share == share})

    def told(self, kind: str) -> str:
        learned = any(t["learned"] for p in self.prevalences for t in self.of(kind, p))
        return limits.told(self.limit(kind)) if learned else "not learned"

    def counts(self, kind: str, prevalence: float) -> dict[str, int]:
        """Plants, those called artifactual, those learned, those of these called poisoned, and others called so."""
        mine = self.of(kind, prevalence)
        return {
            "planted": len(mine),
            "artifactual": sum(t["artifactual"] for t in mine),
            "learned": sum(t["learned"] for t in mine),
            "poisoned": sum(t["poisoned"] and t["learned"] for t in mine),
            "unlearned_poisoned": sum(t["poisoned"] and not t["learned"] for t in mine),
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
        """Plants that were not learned, and those of them that were called poisoned."""
        mine = [t for t in self.trials if t["kind"] and not t["learned"]]
        return {"plants": len(mine), "poisoned": sum(t["poisoned"] for t in mine)}

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
            f"Copies of the model that were fine-tuned: {copies}, for {self.epochs} epochs each (Adam, rate "
            f"{self.rate:g}). A fine-tuned copy is not your training: it starts from a model that has learned already.",
            f"Called poisoned: {false['poisoned']} of {false['plants']} plants that were not learned, "
            f"{clean['poisoned']} of {clean['classes']} clean classes ({clean['artifactual']} called artifactual).",
            f"Accuracy on held-out images: {before:.3f}, of the copies {after:.3f}.",
        )

    def to_json(self) -> dict[str, Any]:
        before, after = self.accuracy
        return {
            "epochs": self.epochs,
            "rate": self.rate,
            "limits": {kind: self.limit(kind) for kind in self.kinds},
            "clean": self.clean,
            "not_learned": self.false,
            "accuracy_before": before,
            "accuracy": after,
            "trials": list(self.trials),
        }
