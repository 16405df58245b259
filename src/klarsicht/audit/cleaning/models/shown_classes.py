"""Count the classes of which a correction's losses are measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.samples import Case


@dataclass(frozen=True)
class ShownClasses:
    """Number of classes of which there are clean images, beside that of the model's outputs: of other classes no loss
    can be measured.

    Attributes:
        classes, outputs: these numbers.
    """

    classes: int
    outputs: int

    @classmethod
    def of(cls, test: CorrectionTest, case: Case) -> ShownClasses:
        """Count both, of a case and of a test on its images."""
        known = case.labels[case.clean]
        return cls(len(np.unique(known[known >= 0])), test.plain.shape[1])

    @property
    def lacking(self) -> str:
        """State in words of which classes losses are not known; empty where there are images of all classes."""
        if self.classes >= self.outputs:
            return ""
        of = f"clean images are of {self.classes:,} of the model's {self.outputs:,} classes"
        return f"{of}: what is lost of others is not known"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return asdict(self)


UNCOUNTED: Final = ShownClasses(0, 0)
