"""How a network is trained: photographs, synthetic bursts, alignment, network and loss, wired into `ground.fit`.

NAME.safetensors                 the averaged network, written at each checkpoint
NAME.run/settings.toml           with the number of steps settled
NAME.run/photographs.json        names and SHA-256 of what it is taught on
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
from typing import Self, cast

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from klarsicht.burst.network import checkpoints, pretrained, warm_start
from klarsicht.burst.network.unet import Network, NetworkSettings, among, build
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry, Light, scenes
from klarsicht.burst.synthesis.synthesis import GREYED, KINDS, NOISES, Recipe, SyntheticBurst
from klarsicht.burst.train.batches import TURNS, Aligned, BatchStream, typical, variety
from klarsicht.burst.train.losses import LOSSES, Annealing, ImageLoss, total_loss
from klarsicht.burst.train.previews import examples, sheet, show
from klarsicht.ground import devices, fit
from klarsicht.ground.disk import write_atomically
from klarsicht.ground.errors import RunMismatch, UsageError
from klarsicht.ground.images import png_bytes
from klarsicht.ground.seeding import integer

STEPS = 20_000
SPARED = 4  # photographs from which on one is kept for looking at


class TrainSettings(NetworkSettings):
    """What decides a trained network, beside the photographs: what it is, and how it is taught.

    noise, motion, size, scale: of the bursts (synthesis.NOISES, motion.MOTIONS; side of a frame; pixels of the
    photograph to one of its). batch, rate, steps, uses: of the training; uses: steps that a batch serves. minutes:
    instead of steps, which are then settled by the clock at the start. every: steps between checkpoints. start: a
    network's file to begin with. loss: of objectives.LOSSES. grey_too: of a network for rgb, every other batch is grey.
    """

    noise: str = "kpn"
    motion: tuple[str, ...] = tuple(MOTIONS)
    size: int = Field(default=128, ge=32)
    scale: int = Field(default=4, ge=1)
    batch: int = Field(default=4, ge=1)
    rate: float = Field(default=4e-4, gt=0)
    steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    uses: int = Field(default=2, ge=1)
    every: int = Field(default=500, ge=1)
    seed: int = Field(default=0, ge=0)
    start: str | None = None
    loss: str = "kpn"
    grey_too: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.minutes is not None:
            raise UsageError("length of the training", got="steps and minutes", rule="give one of them")
        if self.grey_too and self.colour != "rgb":
            raise UsageError("grey_too", got=f"colour {self.colour}", rule="it is for networks that see rgb")
        return self

    @field_validator("noise")
    @classmethod
    def _known_noise(cls, name: str) -> str:
        return among("noise", name, NOISES)

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, name: str) -> str:
        return among("loss", name, LOSSES)

    @field_validator("motion")
    @classmethod
    def _known_motion(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(among("motion", name, MOTIONS) for name in names)

    @property
    def network(self) -> NetworkSettings:
        return NetworkSettings(preset=self.preset, width=self.width, colour=self.colour, frames=self.frames)

    @property
    def recipe(self) -> Recipe:
        """Of bursts; a mosaic's planes are `size` wide, too."""
        side = self.size * (2 if self.colour == "mosaic" else 1)
        return Recipe(
            kind=KINDS[self.colour],
            noise=NOISES[self.noise],
            geometry=Geometry(self.scale, side, side),
            frames=self.frames,
            fewest=self.frames,
            orientations=TURNS,
        )

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """One of them is drawn for each batch."""
        kinds = (KINDS[self.colour], GREYED) if self.grey_too else (KINDS[self.colour],)
        return tuple(r for kind in kinds for r in variety(replace(self.recipe, kind=kind), self.motion))

    @property
    def plan(self) -> fit.Plan:
        """Raises UsageError where the steps are not settled."""
        if self.steps is None:
            raise UsageError("number of steps", got="none", rule="it must be settled before training")
        return fit.Plan(self.steps, self.rate, every=self.every, bf16=devices.bf16_gains(devices.device()))


@dataclass(frozen=True)
class Denoising:
    """The task of ground.fit: batches, loss, and what is kept at each checkpoint."""

    supply: BatchStream
    annealing: Annealing
    of_image: ImageLoss
    shown: Mapping[int, SyntheticBurst]
    out: Path
    training: Mapping[str, object]

    def batch(self, step: int, rank: int) -> Aligned:
        return self.supply.batch(step, rank)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], step: int) -> Tensor:
        given = Aligned(*batch)
        out = model(given.frames, given.read, given.shot, given.valid, given.agreement)
        answer = (out.merged.float(), out.each, given.truth, given.exposure, given.valid)
        return total_loss(*answer, self.annealing.weight(step), self.of_image)

    def watch(self, step: int, model: nn.Module) -> dict[str, float]:
        """PSNR by gain; writes the network as it is, and pictures."""
        network = cast(Network, model)
        shown = {gain: show(network, example) for gain, example in self.shown.items()}
        picture = png_bytes(sheet(tuple(shown.values())))
        write_atomically(run_folder(self.out) / "pictures" / f"{step:07d}.png", picture)
        checkpoints.save_network(network, self.out, {**self.training, "step": step})
        return {f"psnr at gain {gain}": one.psnr for gain, one in shown.items()}


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is taught: scenes, those kept for looking at, and the SHA-256 of every photograph by its name."""

    taught: tuple[Light, ...]
    spared: tuple[Light, ...]
    hashes: Mapping[str, str]

    @classmethod
    def from_folder(cls, folder: Path, settings: TrainSettings) -> Lesson:
        """From four photographs on, the one in the middle of their list is not taught but shown.

        Raises CorpusError, ImageError.
        """
        shelf = read_folder(folder, settings.recipe.geometry)
        library = scenes(shelf.photographs, settings.recipe.kind.light)
        hashes = {name: sha256(folder / name) for name in shelf.names}
        middle = len(library) // 2
        if len(library) < SPARED:
            return cls(library, library, hashes)
        return cls(library[:middle] + library[middle + 1 :], (library[middle],), hashes)

    def task(self, settings: TrainSettings, out: Path) -> Denoising:
        turns = 1 if settings.colour == "mosaic" else TURNS  # planes, turned, would be those of another filter
        supply = BatchStream(self.taught, settings.recipes, settings.batch, settings.seed, settings.uses, turns)
        training = {
            "settings": settings.model_dump(mode="json", exclude={"start"}),
            "photographs": dict(self.hashes),
            "start": settings.start and sha256(pretrained.resolved(settings.start)),
        }
        shown = examples(self.spared, settings.recipe, settings.seed)
        steps = settings.plan.steps  # who starts from another network has learned to use every frame
        annealing = Annealing(steps) if settings.start is None else Annealing(steps, beta=0.0)
        return Denoising(supply, annealing, LOSSES[settings.loss], shown, out, training)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def train(settings: TrainSettings, photographs: Path, out: Path, threads: int = 1) -> Path:
    """Trains, or goes on where the same training was stopped; returns `out`, the network's file.

    threads: of the network; the other cores make bursts. Under torchrun, each process draws its own batches.

    Raises:
        UsageError: an unknown name, or a file that does not end in .safetensors.
        CorpusError, ImageError: the photographs.
        ModelError: the loss is not finite, and the last network stays; or `start` holds no network that fits.
        RunMismatch, RunLocked, StoreError, DiskFull: the run folder.
    """
    if out.suffix != ".safetensors":
        raise UsageError("file of the network", got=out, rule="its name must end in .safetensors")
    lesson = Lesson.from_folder(photographs, settings)
    workers = max(1, (os.cpu_count() or 1) - threads)
    with devices.threads(threads):
        network = build(settings.network, integer(settings.seed, "init"))
        if settings.start is not None:
            warm_start.begin(network, Path(settings.start))
        steps = settings.steps or earlier_steps(out) or affordable(network, lesson, settings, workers)
        settled = settings.model_copy(update={"steps": steps, "minutes": None})
        remember(settled, lesson, run_folder(out))
        fit.fit(network, lesson.task(settled, out), settled.plan, run_folder(out), workers)
    return out


def earlier_steps(out: Path) -> int | None:
    """How long the run that is found there was settled to be."""
    written = run_folder(out) / "settings.toml"
    return TrainSettings.from_toml(written).steps if written.exists() else None


def affordable(network: Network, lesson: Lesson, settings: TrainSettings, workers: int) -> int:
    """Steps that fit into the minutes, by trial."""
    if settings.minutes is None:
        return STEPS
    trial = settings.model_copy(update={"steps": STEPS})
    tried = typical(settings.uses)
    seconds = fit.seconds_a_step(network, lesson.task(trial, Path("none")), trial.plan, tried, workers)
    return max(1, int(60 * settings.minutes / seconds))


def remember(settings: TrainSettings, lesson: Lesson, folder: Path) -> None:
    """Writes down what decides the run. Raises RunMismatch where the folder holds another; names what differs."""
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
