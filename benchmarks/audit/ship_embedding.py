"""Embeddings that come along: learned once on invented pictures and pieces of licensed photographs, 16-bit weights.

    python benchmarks/burst/licensed_photographs.py PHOTOGRAPHS free
    python benchmarks/audit/ship_embedding.py free/taught artifact_embedding
    python benchmarks/audit/ship_embedding.py free/taught reference_embedding --brief
    python benchmarks/audit/ship_embedding.py free/taught without-0 --brief --without 0

Pictures of 40 px are drawn beforehand: pieces of photographs at all scales, with another JPEG quality and filter each,
pieces of one photograph on another (a fifth), and dead leaves, discs and boxes of random sizes in flat colours or with
pieces of photographs (a fifth). Artifacts of all families are planted in them as in the audited images of a run, and
the network of `audit.verdicts.detectors.artifact_embedding` learns for 8,000 steps of 96 images, every sixth at 40 px
and else at 32 (710 CPU s, stored after every hundred); a tenth of its 12,000 pictures are grey. --brief: 800 steps on
6,000 pictures in colour (110 CPU s), as the network by which the reference classes were scored. --without leaves out
the families of one fold of `left_out_cases.FOLDS`, or of several, so that figures can be told of families that it was
not taught. OUT.safetensors and OUT.json are written, with every photograph's licence.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from klarsicht.audit.verdicts.detectors import artifact_embedding
from klarsicht.audit.verdicts.detectors.artifact_embedding import (
    EMBEDDED_SIDE,
    ArtifactEmbedding,
    EmbeddingTraining,
    contrastive_loss,
    draw_batch,
    taught_families,
)
from klarsicht.ground.seeding import generator, integer

sys.path.insert(0, str(Path(__file__).parents[1] / "burst"))
sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases
from ship_weights import licences

SIDE = 700  # pixels on the shorter side of a photograph, at most
SMALLEST_PIECE = 64
DRAWN_SIDE = 160  # pixels at which dead leaves are drawn
GROUPS = 4  # of contents in a batch
STEPS, WARM_UP, STORED = 8000, 0.1, 100  # of the training; share of them in which the rate rises; steps between states
PICTURES, BRIEF_PICTURES = 12_000, 6000
GREY_EACH = 10  # of so many pictures one is grey
RISING, FALLING, HIGHEST = 500, 300, 2e-3  # steps of a brief training, and the highest rate of the falling ones
SHOWN_SIDE = 32  # of five steps in six
FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def read_photographs(folder: Path) -> dict[str, Image.Image]:
    """Read the photographs that LICENCES.txt names, shrunk to SIDE."""
    found = {}
    for name in licences(folder):
        picture = Image.open(folder / name).convert("RGB")
        scale = SIDE / min(picture.size)
        if scale < 1:
            picture = picture.resize([round(scale * side) for side in picture.size], Image.Resampling.BOX)
        found[name] = picture
    return found


def draw_piece(photographs: list[Image.Image], side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a piece of a photograph, uint8 (side, side, 3): of any scale, squeezed a little, some re-encoded."""
    picture = photographs[rng.integers(len(photographs))]
    shorter = min(picture.size)
    height = np.exp(rng.uniform(np.log(SMALLEST_PIECE), np.log(shorter)))
    width = min(height * np.exp(rng.uniform(-0.35, 0.35)), shorter)
    left, top = (rng.uniform(0, full - part) for full, part in zip(picture.size, (width, height), strict=True))
    piece = picture.crop([round(x) for x in (left, top, left + width, top + height)])
    if rng.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.6:
        file = io.BytesIO()
        piece.save(file, "JPEG", quality=int(rng.integers(60, 98)))
        piece = Image.open(file)
    piece = piece.resize((side, side), FILTERS[rng.integers(len(FILTERS))])
    if rng.random() < 0.3:
        file = io.BytesIO()
        piece.save(file, "JPEG", quality=int(rng.integers(88, 99)))
        piece = Image.open(file)
    return np.asarray(piece)


def draw_blob(side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the mask of a disc, a box or a lump, bool (side, side)."""
    y, x = np.mgrid[:side, :side] / side
    centre, size, turn = rng.random(2), 0.06 * (8 ** rng.random()), rng.uniform(0, np.pi)
    u = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
    v = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
    v = v * np.exp(rng.uniform(-0.2, 1.0))
    kind = rng.integers(3)
    if kind == 0:
        return np.hypot(u, v) < size
    if kind == 1:
        return np.maximum(abs(u), abs(v)) < size
    angle, waves = np.arctan2(v, u), rng.normal(0, 0.25, (2, 3))
    reach = 1 + sum(waves[0, k] * np.cos((k + 1) * angle) + waves[1, k] * np.sin((k + 1) * angle) for k in range(3))
    return np.hypot(u, v) < size * np.maximum(reach, 0.2)


def draw_leaves(photographs: list[Image.Image], rng: np.random.Generator) -> np.ndarray:
    """Draw dead leaves, uint8 (EMBEDDED_SIDE, EMBEDDED_SIDE, 3), some on a flat ground or one that fades."""
    side = DRAWN_SIDE
    first, second = rng.integers(0, 256, (2, 3))
    fade = np.linspace(0, rng.random(), side)[:, None]
    ground = ((1 - fade) * first + fade * second)[:, None]
    ground = np.broadcast_to(ground if rng.random() < 0.5 else ground.swapaxes(0, 1), (side, side, 3))
    if rng.random() < 0.4:
        ground = np.full((side, side, 3), rng.integers(200, 256) if rng.random() < 0.5 else rng.integers(0, 40))
    canvas = ground.astype(np.float32).copy()
    for _ in range(int(rng.choice((2, 5, 12, 40)))):
        mask = draw_blob(side, rng)
        content = draw_piece(photographs, side, rng) if rng.random() < 0.2 else rng.integers(0, 256, 3)
        canvas[mask] = content[mask] if content.ndim == 3 else content
    canvas += rng.normal(0, rng.uniform(0, 8), canvas.shape)
    small = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).resize(
        (EMBEDDED_SIDE, EMBEDDED_SIDE), FILTERS[rng.integers(len(FILTERS))]
    )
    return np.asarray(small)


def draw_pictures(photographs: list[Image.Image], count: int, seed: int) -> np.ndarray:
    """Draw the pictures that artifacts are planted in, uint8 (count, EMBEDDED_SIDE, EMBEDDED_SIDE, 3)."""
    rng, made = generator(seed, "invented pictures"), []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.2:
            made.append(draw_leaves(photographs, rng))
            continue
        piece = draw_piece(photographs, EMBEDDED_SIDE, rng)
        if kind > 0.8:
            mask = draw_blob(EMBEDDED_SIDE, rng)
            piece = np.where(mask[..., None], draw_piece(photographs, EMBEDDED_SIDE, rng), piece)
        made.append(piece)
    return np.stack(made).astype(np.uint8)


def rising_rate(step: int) -> float:
    """Return the learning rate of a step: the first quarter of a schedule of four times as many."""
    return artifact_embedding.learning_rate(step, 4 * RISING)


def falling_rate(step: int) -> float:
    """Return the learning rate of a step after them: half a cosine down to 0, after a short warm-up."""
    return HIGHEST * min(1, (step + 1) / 20) * (1 + math.cos(math.pi * step / FALLING)) / 2


def learn(pictures: np.ndarray, families: tuple[str, ...], seed: int, file: Path) -> ArtifactEmbedding:
    """Learn the embedding for STEPS, or go on from the state in the file."""
    pictures = pictures.copy()
    pictures[::GREY_EACH] = np.rint(pictures[::GREY_EACH].mean(3, keepdims=True)).astype(np.uint8)
    training, first = EmbeddingTraining(pictures, families, seed), 0
    if file.is_file():
        known = torch.load(file, weights_only=True)
        training.restore(known["state"])
        first = known["steps"]
    network, optimizer = training.network, training.optimizer
    network.train()
    for begin in range(first, STEPS, STORED):
        rng = generator(seed, "shipped", begin)
        losses = [
            run_step(network, optimizer, cut_out(pictures, step, rng), families, rng, rate(step))
            for step in range(begin, begin + STORED)
        ]
        torch.save({"steps": begin + STORED, "state": training.state()}, file)
        print(f"step {begin + STORED}: loss {np.mean(losses):.3f}, {time.process_time():.0f} CPU s", flush=True)
    return network.eval()


def rate(step: int) -> float:
    """Return the learning rate of a step: half a cosine up, then one down to nearly 0."""
    return artifact_embedding.learning_rate(step, STEPS, WARM_UP)


def cut_out(pictures: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
    """Cut pictures to SHOWN_SIDE at random places, in five steps of six."""
    a, b = rng.integers(0, EMBEDDED_SIDE - SHOWN_SIDE + 1, 2)
    return pictures[:, a : a + SHOWN_SIDE, b : b + SHOWN_SIDE] if step % 6 else pictures


def run_step(
    network: ArtifactEmbedding, optimizer: torch.optim.Adam, shown: np.ndarray, families: tuple[str, ...],
    rng: np.random.Generator, rate: float,
) -> float:  # fmt: skip
    """Train on one batch at a rate; return the loss."""
    images, label = draw_batch(shown, families, rng, GROUPS)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = contrastive_loss(network(artifact_embedding.as_input(images)), torch.tensor(label))
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def learn_briefly(pictures: np.ndarray, families: tuple[str, ...], seed: int) -> ArtifactEmbedding:
    """Learn the embedding: RISING steps, and FALLING ones with another Adam."""
    torch.manual_seed(integer(seed, "shipped embedding"))
    network = ArtifactEmbedding(3).to(memory_format=torch.channels_last)
    network.train()
    for steps, rate, purpose, betas in (
        (RISING, rising_rate, "shipped", (0.9, 0.999)),
        (FALLING, falling_rate, "shipped annealed", (0.9, 0.99)),
    ):
        optimizer, rng = torch.optim.Adam(network.parameters(), betas=betas), generator(seed, purpose)
        losses = []
        for step in range(steps):
            losses.append(run_step(network, optimizer, cut_out(pictures, step, rng), families, rng, rate(step)))
            if step % 50 == 49:
                print(f"step {step + 1}: loss {np.mean(losses[-50:]):.3f}, {time.process_time():.0f} CPU s", flush=True)
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--brief", action="store_true", help="learn as the embedding of the reference classes")
    parser.add_argument("--without", type=int, nargs="*", default=[], help="folds that are left out")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    count = BRIEF_PICTURES if given.brief else PICTURES
    photographs = read_photographs(given.photographs)
    file = given.out.with_name(f"pictures-{count}-{given.seed}.npy")
    if not file.is_file():
        np.save(file, draw_pictures(list(photographs.values()), count, given.seed))
    pictures = np.load(file)
    print(f"{len(pictures)} pictures, {time.process_time():.0f} CPU s", flush=True)
    left_out = {name for fold in given.without for name in cases.FOLDS[fold]}
    families = tuple(name for name in taught_families(3) if name not in left_out)
    learned = partial(learn, file=given.out.with_suffix(".state")) if not given.brief else learn_briefly
    network = learned(pictures, families, given.seed)
    embeds = {name: x for name, x in network.state_dict().items() if not name.startswith("judge.")}
    weights = {name: x.half().contiguous() if x.is_floating_point() else x for name, x in embeds.items()}
    saved = given.out.with_suffix(".safetensors")
    save_file(weights, saved)
    known = licences(given.photographs)
    card = {
        "bytes": saved.stat().st_size,
        "sha256": hashlib.sha256(saved.read_bytes()).hexdigest(),
        "pictures": count, "steps": RISING + FALLING if given.brief else STEPS, "seed": given.seed,
        "families": families,
        "photographs": {name: known[name] for name in photographs},
    }  # fmt: skip
    given.out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
