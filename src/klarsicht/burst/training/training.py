"""Training of a network: photographs, synthetic bursts, alignment, network and loss, run by `ground.fit`.

NAME.safetensors                 the averaged network, written at each checkpoint
NAME.run/settings.toml           settings, with the number of steps resolved
NAME.run/photographs.json        names and SHA-256 of the training photographs
NAME.run/pictures/STEP.png       noisy reference, output and truth at gains 1, 2, 4 and 8
NAME.run/state.pt, curve.jsonl   see ground.fit
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self, cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from klarsicht.burst.data.cokriging import MOSAICS
from klarsicht.burst.network import checkpoints, pretrained, warm_start
from klarsicht.burst.network.unet import Network, NetworkSettings, build_network, one_of
from klarsicht.burst.synthesis.motion import MOTIONS, TRAINING_MOTIONS
from klarsicht.burst.synthesis.photographs import LEAVE_OUT, read_folder
from klarsicht.burst.synthesis.scenes import Geometry, Light, scenes
from klarsicht.burst.synthesis.synthesis import CAMERA_COLOURS, GREY_FROM_RGB, KINDS, NOISES, Recipe, SyntheticBurst
from klarsicht.burst.training.batches import TURNS, BatchStream, TrainingBatch, typical_steps, vary_recipe
from klarsicht.burst.training.losses import LOSSES, Annealing, ImageLoss, total_loss
from klarsicht.burst.training.previews import draw_examples, make_preview, preview_sheet
from klarsicht.ground import fit, ranges
from klarsicht.ground.config import PathText
from klarsicht.ground.errors import RunMismatch, UsageError
from klarsicht.ground.machine import devices
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.pictures.encoded_pictures import png_bytes
from klarsicht.ground.seeding import integer
from klarsicht.ground.user_arguments import check_arguments

STEPS = 20_000
FEWEST_FOR_PREVIEW = 4  # photographs from which on one is kept for previews


class TrainSettings(NetworkSettings):
    """Settings that determine a trained network, beside the photographs: those of the network and of its training.

    noise, motion, size, scale: of the bursts (synthesis.NOISES, motion.TRAINING_MOTIONS; side of a frame; pixels of the
    photograph to one of its). uses: steps that a batch serves. minutes: instead of steps, whose number is then
    determined by timing. every: steps between checkpoints. start: a network's file with the initial weights. loss: of
    losses.LOSSES. grey_too: of a network for rgb, every other batch is grey. smallest_scale: photographs too small for
    `scale` are used at the largest scale from this one on. textured: share of the bursts whose crop is the most
    textured of several. mosaics: of a network for rgb, the names (cokriging.MOSAICS) of the colour filters behind which
    frames are sampled, and from which they are interpolated, one a batch; empty: each pixel has all colours.
    """

    noise: Annotated[str, one_of("noise", NOISES)] = "kpn"
    motion: tuple[Annotated[str, one_of("motion", TRAINING_MOTIONS)], ...] = tuple(MOTIONS)
    size: int = Field(default=128, ge=32, le=1024)
    scale: int = Field(default=4, ge=1, le=64)
    batch: int = ranges.BURSTS_IN_STEP.field(4)
    rate: float = ranges.LEARNING_RATE.field(4e-4)
    steps: int | None = ranges.TRAINING_STEPS.field(None)
    minutes: float | None = ranges.TRAINING_MINUTES.field(None)
    uses: int = Field(default=2, ge=1, le=1000)
    every: int = ranges.TRAINING_STEPS.field(500)
    seed: int = ranges.SEED.field(0)
    start: PathText | None = None
    loss: Annotated[str, one_of("loss", LOSSES)] = "kpn"
    grey_too: bool = False
    smallest_scale: int | None = Field(default=None, ge=1, le=64)
    textured: float = Field(default=0.0, ge=0, le=1)
    mosaics: tuple[Annotated[str, one_of("mosaic", MOSAICS)], ...] = ()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.minutes is not None:
            raise UsageError(
                "two lengths of the training", got="--steps and --minutes", rule="one says when it ends",
                remedy="Leave out one of them.",
            )  # fmt: skip
        if self.grey_too and self.colour != "rgb":
            raise UsageError("grey_too", got=f"colour {self.colour}", rule="it is for networks that see rgb")
        if self.mosaics and (self.colour != "rgb" or self.grey_too):
            got = "grey_too" if self.grey_too else f"colour {self.colour}"
            raise UsageError("mosaics", got=got, rule="they are for networks that see rgb, and nothing else")
        return self

    @property
    def network(self) -> NetworkSettings:
        return NetworkSettings(preset=self.preset, width=self.width, colour=self.colour, frames=self.frames)

    @property
    def recipe(self) -> Recipe:
        """Recipe of the bursts; a mosaic's planes are `size` wide, too."""
        side = self.size * (2 if self.colour == "mosaic" else 1)
        return Recipe(
            kind=CAMERA_COLOURS if self.mosaics else KINDS[self.colour],
            mosaic=MOSAICS[self.mosaics[0]] if self.mosaics else None,
            noise=NOISES[self.noise],
            geometry=Geometry(self.scale, side, side),
            frames=self.frames,
            min_frames=self.frames,
            orientations=TURNS,
            smallest_scale=self.smallest_scale,
            textured=self.textured,
        )

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Recipes, of which one is drawn for each batch."""
        first = self.recipe
        if self.mosaics:
            varied = [replace(first, mosaic=MOSAICS[name]) for name in self.mosaics]
        else:
            varied = [first, replace(first, kind=GREY_FROM_RGB)] if self.grey_too else [first]
        return tuple(recipe for one in varied for recipe in vary_recipe(one, self.motion))

    @property
    def plan(self) -> fit.Plan:
        """Plan of the training. Raises UsageError where the number of steps is not resolved."""
        if self.steps is None:
            raise UsageError("number of steps", got="none", rule="it must be settled before training")
        return fit.Plan(self.steps, self.rate, every=self.every, bf16=devices.bf16_is_faster(devices.device()))


@dataclass(frozen=True)
class DenoisingTask:
    """Training task for ground.fit: batches, loss, and the files written at each checkpoint."""

    batches: BatchStream
    annealing: Annealing
    image_loss: ImageLoss
    preview_bursts: Mapping[int, SyntheticBurst]
    out: Path
    training: Mapping[str, object]

    def batch(self, step: int, rank: int) -> TrainingBatch:
        return self.batches.batch(step, rank)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], step: int) -> Tensor:
        given = TrainingBatch(*batch)
        out = model(given.frames, given.read, given.shot, given.valid, given.agreement)
        answer = (out.merged.float(), out.per_frame, given.truth, given.exposure, given.valid)
        return total_loss(*answer, self.annealing.weight(step), self.image_loss)

    def validate(self, step: int, model: nn.Module) -> dict[str, float]:
        """Measure the PSNR by gain; write the current network and preview pictures."""
        network = cast(Network, model)
        previews = {gain: make_preview(network, example) for gain, example in self.preview_bursts.items()}
        picture = png_bytes(preview_sheet(tuple(previews.values())))
        write_atomically(run_folder(self.out) / "pictures" / f"{step:07d}.png", picture)
        checkpoints.save_network(network, self.out, {**self.training, "step": step})
        return {f"psnr at gain {gain}": one.psnr for gain, one in previews.items()}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Scenes for training, scenes for previews, and the SHA-256 of every photograph by its name."""

    training_scenes: tuple[Light, ...]
    preview_scenes: tuple[Light, ...]
    hashes: Mapping[str, str]

    @classmethod
    def from_folder(cls, folder: Path, settings: TrainSettings) -> TrainingData:
        """Read the photographs of a folder. From four on, the one in the middle of their list is used for previews, not
        for training. Raises CorpusError, ImageError."""
        recipe = settings.recipe
        least = min(settings.smallest_scale or settings.scale, settings.scale)
        lower = f"Leave them out of the folder, or use them at a scale below {least}: smallest_scale."
        corpus = read_folder(folder, replace(recipe.geometry, scale=least), lower if least > 1 else LEAVE_OUT)
        library = scenes(corpus.photographs, recipe.kind.light)
        hashes = {name: hash_file(folder / name) for name in corpus.names}
        middle = len(library) // 2
        if len(library) < FEWEST_FOR_PREVIEW:
            return cls(library, library, hashes)
        return cls(library[:middle] + library[middle + 1 :], (library[middle],), hashes)

    def task(self, settings: TrainSettings, out: Path) -> DenoisingTask:
        """Build the training task."""
        turns = 1 if settings.colour == "mosaic" else TURNS  # rotated planes would be those of another colour filter
        batches = BatchStream(
            self.training_scenes, settings.recipes, settings.batch, settings.seed, settings.uses, turns
        )
        training = {
            "settings": settings.model_dump(mode="json", exclude={"start"}),
            "photographs": dict(self.hashes),
            "start": settings.start and hash_file(pretrained.resolve_checkpoint(settings.start)),
        }
        previews = draw_examples(self.preview_scenes, settings.recipe, settings.seed)
        steps = settings.plan.steps  # a network with initial weights already uses every frame
        annealing = Annealing(steps) if settings.start is None else Annealing(steps, beta=0.0)
        return DenoisingTask(batches, annealing, LOSSES[settings.loss], previews, out, training)


def hash_file(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@check_arguments
def train(settings: TrainSettings, photographs: str | Path, out: str | Path, threads: int = 1) -> Path:
    """Train a network, or resume the same training; return `out`, the network's file. threads: of the network; the
    other cores make bursts. Under torchrun, each process draws its own batches.

    Raises UsageError for an unknown name, or a file that does not end in .safetensors; CorpusError, ImageError for the
    photographs; ModelError where the loss is not finite, and the last network stays, or `start` holds no network that
    fits; RunMismatch, RunLocked, StoreError, DiskFull for the run folder.
    """
    ranges.THREADS.require("threads", threads)
    photographs, out = Path(photographs), Path(out)
    if out.suffix != ".safetensors":
        raise UsageError("file of the network", got=out, rule="its name ends in .safetensors", remedy="Rename --out.")
    lesson = TrainingData.from_folder(photographs, settings)
    workers = max(1, (os.cpu_count() or 1) - threads)
    with devices.torch_threads(threads):
        network = build_network(settings.network, integer(settings.seed, "init"))
        if settings.start is not None:
            warm_start.load_initial_weights(network, Path(settings.start))
        steps = (
            settings.steps or read_settled_steps(out) or estimate_affordable_steps(network, lesson, settings, workers)
        )
        settled_settings = settings.model_copy(update={"steps": steps, "minutes": None})
        record_settings(settled_settings, lesson, run_folder(out))
        fit.fit(network, lesson.task(settled_settings, out), settled_settings.plan, run_folder(out), workers)
    return out


def read_settled_steps(out: Path) -> int | None:
    """Read the number of steps that an earlier run in that folder resolved; None if there is none."""
    written = run_folder(out) / "settings.toml"
    return TrainSettings.from_toml(written).steps if written.exists() else None


def estimate_affordable_steps(network: Network, lesson: TrainingData, settings: TrainSettings, workers: int) -> int:
    """Estimate, by timing, the number of steps that fit into the minutes."""
    if settings.minutes is None:
        return STEPS
    trial = settings.model_copy(update={"steps": STEPS})
    trial_steps = typical_steps(settings.uses)
    seconds = fit.measure_step_seconds(network, lesson.task(trial, Path("none")), trial.plan, trial_steps, workers)
    return max(1, int(60 * settings.minutes / seconds))


def record_settings(settings: TrainSettings, lesson: TrainingData, folder: Path) -> None:
    """Write the settings and photographs of the run. Raises RunMismatch where the folder holds another run."""
    now = {"settings.toml": settings.to_toml(), "photographs.json": json.dumps(lesson.hashes, indent=1) + "\n"}
    for name, text in now.items():
        path = folder / name
        before = path.read_text() if path.exists() else text
        if before != text:
            lines = sorted(set(before.splitlines()) ^ set(text.splitlines()))
            got = f"{name} differs in {lines[0].strip()}"
            raise RunMismatch(f"{folder} holds another training", got=got, remedy="Choose another --out.")
        write_atomically(path, text.encode())


def run_folder(out: Path) -> Path:
    return out.with_suffix(".run")
