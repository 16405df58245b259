"""Settings of `audit clean`, and the names of its methods, without torch."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from klarsicht.ground.config import PublicSettings
from klarsicht.ground.errors import UsageError, unknown_name

CLOSED_NAMES = ("nothing", "project", "oblique", "reactive", "reactive-class", "restore", "inpaint", "random")
RETRAINED_NAMES = ("augment", "augment-latent", "penalise", "fine-tune", "dfr", "group-dro")
DIRECTION_NAMES = ("pattern", "svm", "logistic", "ridge")
"""Names of the registries of corrections and directions, available without torch; a test compares them with the
registries."""

AUTOMATIC = "auto"  # method: all in closed form are tried
CORRECTION_HELP = (
    f"{AUTOMATIC}: the best of those in closed form. In closed form: {', '.join(CLOSED_NAMES)}; "
    f"by training: {', '.join(RETRAINED_NAMES)}."
)
IMAGES_HELP = (
    "Most images of each kind (with the artifact, clean, clean of the class) to fit on, and to choose on. Losses are "
    "measured on ten times as many."
)
FEWEST_HELP = "Fewest clean images of the class to compare images with the artifact with."
LEAST_HELP = (
    "With auto: smallest effect worth correcting, in units of 0.5 logits, or 2 % of other images predicted as the "
    "class. Free corrections are always made. 0 corrects any effect that is used."
)
USUAL_RATE, ATTENTION_RATE = 3e-4, 1e-4  # of a training, and of a network with attention on other surroundings
RATE_HELP = (
    f"Highest learning rate of a training. By default {USUAL_RATE:g}; with --part surroundings {ATTENTION_RATE:g} for "
    "a network that computes attention."
)
LESSONS_HELP = "Most images of each kind to train on."


class CleanSettings(PublicSettings):
    """Settings of `audit clean`; each field has its description. Layer, directions and strength are swept where they
    are None."""

    method: Annotated[str, Field(description=CORRECTION_HELP)] = AUTOMATIC
    train: Annotated[bool, Field(description="With auto: methods that train are tried as well.")] = False
    direction: Annotated[
        str, Field(description=f"Estimate of the artifact's direction: {', '.join(DIRECTION_NAMES)}.")
    ] = "pattern"
    layer: Annotated[str | None, Field(description="Correct the input of this layer, or a sum: MODULE:sumN.")] = None
    directions: Annotated[int | None, Field(ge=1, le=4096, description="Number of directions to erase.")] = None
    strength: Annotated[
        float | None, Field(gt=0, le=1000, description="Strength of the correction; 1 erases completely.")
    ] = None
    pooled: Annotated[bool, Field(description="Erase the mean over positions instead of each position.")] = False
    overall: Annotated[
        float, Field(ge=0, le=1, description="Accuracy that may be lost on clean images, as a share.")
    ] = 0.005
    affected: Annotated[
        float, Field(ge=0, le=1, description="Accuracy that may be lost on clean images of the class, or of another.")
    ] = 0.02
    least_effect: Annotated[float, Field(ge=0, le=1000, description=LEAST_HELP)] = 1.0
    images: Annotated[int, Field(ge=8, le=1_000_000, description=IMAGES_HELP)] = 400
    fewest_clean: Annotated[int, Field(ge=1, le=1_000_000, description=FEWEST_HELP)] = 5
    lessons: Annotated[int, Field(ge=8, le=1_000_000, description=LESSONS_HELP)] = 2000
    steps: Annotated[int, Field(ge=1, le=1_000_000, description="Steps of a training.")] = 300
    batch: Annotated[int, Field(ge=2, le=4096, description="Images in a step of a training.")] = 64
    rate: Annotated[float | None, Field(gt=0, le=1, description=RATE_HELP)] = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="Seed of parts, samples and training.")] = 0

    @model_validator(mode="after")
    def require_known_names(self) -> Self:
        """Check that method and direction are known; torch is not needed for it. Raises UsageError: one is not; the
        message lists near matches."""
        known = (AUTOMATIC, *CLOSED_NAMES, *RETRAINED_NAMES)
        if self.method not in known:
            raise unknown_name("correction", self.method, known)
        if self.train and self.method != AUTOMATIC:
            raise UsageError("--train with a method", got=self.method, rule="it adds methods that train to auto")
        if self.direction not in DIRECTION_NAMES:
            raise unknown_name("direction", self.direction, DIRECTION_NAMES)
        return self
