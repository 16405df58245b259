"""Natural classes told apart by own places and by surroundings, each alone: the null of a shortcut.

    python benchmarks/audit/natural_surroundings.py IMAGENET32 --pairs 39 --out natural_surroundings.json

IMAGENET32 holds `train.tar` with classes of photographs at 32 px in folders. Pairs of classes are drawn without
replacement by the seed; of each class PICTURES images are looked at, as a run would. `natural_pairs.py --kind left`
counts how many pairs of the classes that are left are called.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from klarsicht.audit.verdicts.own_places.own_places import find_own_places
from klarsicht.ground.seeding import generator

PICTURES = 400  # of each class
PAIRS = 39


def read_classes(archive: Path, names: list[str], most: int = PICTURES) -> dict[str, np.ndarray]:
    """Read the first pictures of classes, uint8 (n, 32, 32, 3) each."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).parent.name
            if member.isfile() and len(found.get(name, [0] * most)) < most:
                content = tar.extractfile(member)
                assert content is not None
                found[name].append(np.asarray(Image.open(io.BytesIO(content.read())).convert("RGB")))
    return {name: np.stack(pictures) for name, pictures in found.items()}


def list_classes(archive: Path) -> list[str]:
    """List the classes of an archive, sorted."""
    with tarfile.open(archive) as tar:
        return sorted({Path(member.name).parent.name for member in tar if member.isfile()})


def order_classes(archive: Path, seed: int) -> list[str]:
    """Put the classes of an archive into the random order in which pairs are made."""
    names = list_classes(archive)
    return [names[i] for i in generator(seed, "natural pairs").permutation(len(names))]


def read_left_pair(archive: Path, number: int, most: int) -> list[np.ndarray]:
    """Read the first pictures, uint8 (n, 32, 32, 3), of two classes that made none of the PAIRS of seed 0."""
    pair = pair_in_turns(order_classes(archive, 0)[2 * PAIRS :])[number]
    pictures = read_classes(archive, list(pair), most)
    return [pictures[name] for name in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("natural_surroundings.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    archive = given.data / "train.tar"
    order = order_classes(archive, given.seed)
    pairs = list(zip(order[: 2 * given.pairs : 2], order[1 : 2 * given.pairs : 2], strict=True))
    pictures, shares = read_classes(archive, sorted({one for pair in pairs for one in pair})), []
    for one, other in pairs:
        images = np.concatenate([pictures[one], pictures[other]])
        found = find_own_places(images, np.repeat([0, 1], [len(pictures[one]), len(pictures[other])]), given.seed)
        shares.append(round(found.separate, 4))
        odd = found.exceptional.mean()
        print(f"{one} {other}: {found.followed:.2f} follow, {found.told:.2f} told, {odd:.2f} exceptions", flush=True)
        given.out.write_text(json.dumps({"separate": sorted(shares)}) + "\n")


def pair_in_turns(names: list[str]) -> list[tuple[str, str]]:
    """Pair an even number of names, round after round, each with another one in every round: none twice."""
    first, *ring = names
    rounds = []
    for turn in range(len(ring)):
        circle = [first, *ring[turn:], *ring[:turn]]
        rounds += [(circle[i], circle[-1 - i]) for i in range(len(circle) // 2)]
    return rounds


if __name__ == "__main__":
    main()
