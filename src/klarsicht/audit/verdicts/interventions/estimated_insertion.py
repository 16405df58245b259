"""Insert an artifact by a named way of `audit quantify`, estimated anew from examples that are kept with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.words import describe_insertion
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.corruption import KINDS, Corruption
from klarsicht.audit.verdicts.interventions.frame_changes import FrameChange
from klarsicht.audit.verdicts.interventions.insertion import CHANGES, Insertion
from klarsicht.audit.verdicts.interventions.shared_content import SharedContent

KEPT_EXAMPLES: Final = 128  # carriers, and others, that a way is estimated from


@dataclass(frozen=True)
class EstimatedInsertion:
    """Insertion by a way, estimated from examples; an `Insertion`, with the control of that way. how: name of the way,
    see `words.PUT_ON`; a way with a size in its name is estimated at the size that the examples show. change: kind of
    the way, a name of `insertion.CHANGES`."""

    how: str
    change: str
    examples: ArtifactExamples
    pixel_scale: PixelScale

    @classmethod
    def of(cls, how: str, change: str, examples: ArtifactExamples, pixel_scale: PixelScale) -> Self | None:
        """Estimate a way from at most KEPT_EXAMPLES carriers and others; None where they show nothing to put on."""
        few = replace(
            examples, carriers=examples.carriers[:KEPT_EXAMPLES], others=examples.others[:KEPT_EXAMPLES],
            places=examples.places[:KEPT_EXAMPLES],
        )  # fmt: skip
        made = cls(how, change, few, pixel_scale)
        return made if made.way is not None else None

    @cached_property
    def way(self) -> Insertion | None:
        """The estimate; None where the examples show nothing to put on."""
        ways: Mapping[str, Insertion] = CHANGES[self.change](self.examples, self.pixel_scale)
        if not ways:
            ways = SharedContent.ways(self.examples, self.pixel_scale, np.random.default_rng(0), (self.how,))
        return ways.get(self.how) or next(iter(ways.values()), None)

    def fits(self, image: Tensor) -> bool:
        return self.examples.has_shape(image)

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Put the artifact and its control on images (n, C, H, W), given and returned as model inputs."""
        assert self.way is not None
        return self.way.put(images, rng)

    def __str__(self) -> str:
        return describe_insertion(self.how, None)

    def to_json(self) -> dict[str, Any]:
        """Return all but the images as JSON values."""
        return {"how": self.how, "change": self.change, "extent": self.examples.extent} | self.pixel_scale.to_json()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the images by name, and the places of the artifact in the carriers."""
        return {f"{name}_of_way": getattr(self.examples, name) for name in ("carriers", "others", "places")}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read a record of `to_json`, and its arrays among others; raises KeyError where one lacks a key."""
        carriers, others, places = (arrays[f"{name}_of_way"] for name in ("carriers", "others", "places"))
        height, width = record["extent"]
        examples = ArtifactExamples(carriers, others, places, (height, width))
        return cls(record["how"], record["change"], examples, PixelScale.from_json(record))


Imitation = Corruption | FrameChange | EstimatedInsertion  # of an artifact that has no place of its own


def read_imitation(record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Imitation:
    """Read the record of an imitation, and its arrays among others; raises KeyError for an unknown kind or missing
    key."""
    if "how" in record:
        return EstimatedInsertion.from_json(record, arrays)
    return Corruption.from_json(dict(record)) if record["kind"] in KINDS else FrameChange.from_json(record, arrays)
