"""Natural classes told apart by own places and by surroundings, each alone: the null of a shortcut.

    python benchmarks/audit/natural_surroundings.py measure DATA --classes 2 --sets 39 --out pairs.jsonl
    python benchmarks/audit/natural_surroundings.py measure DATA --classes 10 --pictures 200 --sets 19 --out tens.jsonl
    python benchmarks/audit/natural_surroundings.py measure DATA --left --sets 30 --out left.jsonl
    python benchmarks/audit/natural_surroundings.py write pairs.jsonl fresh.jsonl --out natural_surroundings.json

DATA holds `train.tar` with classes of photographs at 32 px in folders. Pairs are made of the first classes of a
random order, none twice; sets of more classes are drawn anew of the same classes. `--left`: of the classes that are
left; the last line counts the sets that are called. A line is a set; what is there is not made again. `write` makes of
pairs the file that the audit includes, which ranks sets of any number of classes; `fresh.jsonl` are the pairs of seeds
30 to 102 of `natural_pairs.py --places`.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from klarsicht.audit.results.surroundings import SURROUNDINGS_LEVEL
from klarsicht.audit.verdicts.own_places.own_places import find_own_places
from klarsicht.audit.verdicts.quantification.natural_surroundings import rank_among_natural
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


def name_sets(archive: Path, classes: int, left: bool) -> Iterator[tuple[str, ...]]:
    """Name the classes of one set after the other."""
    order = order_classes(archive, 0)
    if classes == 2:
        pairs = zip(order[: 2 * PAIRS : 2], order[1 : 2 * PAIRS : 2], strict=True)
        yield from pair_in_turns(order[2 * PAIRS :]) if left else pairs
    rng, among = generator(0, "natural sets", classes), order[2 * PAIRS :] if left else order[: 2 * PAIRS]
    while classes != 2:
        yield tuple(among[i] for i in rng.permutation(len(among))[:classes])


def measure(archive: Path, names: tuple[str, ...], each: int) -> dict[str, object]:
    """Find own places in so many pictures of each of some classes, and return a line."""
    pictures = read_classes(archive, list(names), each)
    images, labels = np.concatenate([pictures[name] for name in names]), np.repeat(np.arange(len(names)), each)
    begun, found = time.process_time(), find_own_places(images, labels, 0)
    return {
        "names": names, "separate": round(found.separate, 4), "followed": found.followed, "told": found.told,
        "exceptions": float(found.exceptional.mean()), "CPU s": round(time.process_time() - begun, 1),
    }  # fmt: skip


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the sets that were measured."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("data", type=Path)
    one.add_argument("--classes", type=int, default=2)
    one.add_argument("--sets", type=int, default=PAIRS)
    one.add_argument("--pictures", type=int, default=PICTURES, help="of each class")
    one.add_argument("--left", action="store_true")
    one.add_argument("--out", type=Path, required=True)
    other = commands.add_parser("write")
    other.add_argument("lines", type=Path, nargs="+")
    other.add_argument("--out", type=Path, default=Path("natural_surroundings.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "write":
        lines = [line for path in given.lines for line in read_lines(path)]
        given.out.write_text(json.dumps({"separate": sorted(line["separate"] for line in lines)}) + "\n")
        return
    archive = given.data / "train.tar"
    made = [tuple(line["names"]) for line in read_lines(given.out)]
    with given.out.open("a") as out:
        for names in islice(name_sets(archive, given.classes, given.left), given.sets):
            if names not in made:
                out.write(json.dumps(measure(archive, names, given.pictures)) + "\n")
                out.flush()
    lines = read_lines(given.out)
    called = sum(rank_among_natural(line["separate"]) <= SURROUNDINGS_LEVEL for line in lines)
    print(f"{called} of {len(lines)} sets would be called")


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
