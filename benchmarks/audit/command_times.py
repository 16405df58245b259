"""Cost of the commands of an audit over one explained pass of its pictures, and how long each is silent.

    python benchmarks/audit/command_times.py IMAGENET32 FOLDER [--only two ten many] [--commands NAME ...] [--rounds 5]

Three corpora of photographs of 32 px, enlarged to 64, with a tag of 10 x 10 px on a quarter of the first class: two
classes of 400, ten of 150, 75 of 40. A ResNet-18 of torchvision is trained on each for three epochs. Commands run as a
shell starts them: one thread, one process, empty caches. With --rounds all is done again, the run too, and the caches
of the first round stay, so that what it learned is not learned again; medians are printed. CPU seconds, which other
work on the machine hardly changes, are of the whole command and until its first line; the longest silence is on the
clock. The ratio is to the explanation of all pictures in a process that is already started.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes

CORPORA = {"two": (2, 400), "ten": (10, 150), "many": (75, 40)}  # classes, pictures of each
SHARE, SEED, EPOCHS = 0.25, 0, 3
TICKS = os.sysconf("SC_CLK_TCK")
ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
NETWORK = """
import torch
from torchvision.models import resnet18
from torchvision.transforms.functional import pil_to_tensor


def build():
    network = resnet18(num_classes={classes})
    network.load_state_dict(torch.load({weights!r}))
    network.classes = {names!r}
    network.transform = lambda picture: pil_to_tensor(picture.convert("RGB").resize((64, 64))).float() / 255
    return network
"""


@dataclass(frozen=True)
class Cost:
    """Cost of a command in CPU seconds, and its longest silence in seconds of the clock."""

    corpus: str
    command: str
    total: float
    first_line: float
    longest_silence: float
    before_silence: str
    exit_code: int
    ratio: float = float("nan")


def write_corpus(imagenet32: Path, place: Path, classes: int, count: int) -> list[str]:
    """Write the pictures as PNG, one folder a class, train the network on them, and return the classes."""
    names, images = planted_classes.classes(imagenet32, classes, SEED)
    images, patch = images[:, :count].copy(), planted_classes.tag(SEED)
    images[0, : round(SHARE * count), 26:31, 26:31] = patch
    images = images.repeat(2, 2).repeat(2, 3)
    for name, pictures in zip(names, images, strict=True):
        (place / "pictures" / name).mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(place / "pictures" / name / f"{i:04d}.png")
    torch.manual_seed(SEED)
    network = resnet18(num_classes=classes)
    train(network, images)
    torch.save(network.state_dict(), place / "weights.pt")
    text = NETWORK.format(classes=classes, weights=str(place / "weights.pt"), names=[*map(str, names)])
    (place / "network.py").write_text(text)
    return [str(name) for name in names]


def train(network: nn.Module, images: np.ndarray) -> None:
    """Train on images uint8 (classes, n, S, S, 3)."""
    x = torch.from_numpy(images.reshape(-1, *images.shape[2:])).permute(0, 3, 1, 2).float() / 255
    y = torch.arange(len(images)).repeat_interleave(images.shape[1])
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network.train()(x[rows]), y[rows]).backward()
            optimiser.step()


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and of those of its children that ended; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS


def meter(corpus: str, command: str, arguments: list[str], environment: dict[str, str], log: Path) -> Cost:
    """Run a command and note CPU seconds at each of its lines."""
    before = sum(os.times()[2:4])
    started = subprocess.Popen(
        [sys.executable, "-m", "klarsicht", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
    )  # fmt: skip
    marks, first = [(time.monotonic(), "start")], 0.0
    assert started.stdout is not None
    with selectors.DefaultSelector() as selector, log.open("wb", buffering=0) as file:
        selector.register(started.stdout, selectors.EVENT_READ)
        while True:
            selector.select()
            if not (chunk := os.read(started.stdout.fileno(), 1 << 16)):
                break
            file.write(chunk)
            first = first or cpu_seconds(started.pid)
            marks.append((time.monotonic(), chunk.decode(errors="replace").strip().rpartition("\n")[2]))
    code = started.wait()
    total = sum(os.times()[2:4]) - before
    marks.append((time.monotonic(), "end"))
    longest, text = max((later - now, text) for (now, text), (later, _) in pairwise(marks))
    return Cost(corpus, command, round(total, 1), round(first, 1), round(longest, 1), text[:90], code)


def commands(place: Path, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each command and its arguments."""
    run, model = str(place / "run"), f"{place / 'network.py'}:build"
    yield "run", ["audit", "run", "--model", model, "--data", str(place / "pictures"), "--out", run, "--workers", "1"]
    yield "shortcuts", ["audit", "shortcuts", run, "--workers", "1"]
    yield "quantify", ["audit", "quantify", run, "--workers", "1"]
    yield "check", ["audit", "check", "--run", run, str(place / "pictures" / names[0] / "0000.png")]
    yield "clean", ["audit", "clean", run, "--class", names[0]]


def explained_pass(place: Path) -> float:
    """CPU seconds of explaining all pictures of a corpus, without loading."""
    from klarsicht.audit.explanation.models.classifier import load_model
    from klarsicht.audit.explanation.relevance.explainer import Explainer

    classifier = load_model(f"{place / 'network.py'}:build")
    folders = sorted((place / "pictures").iterdir())
    pictures = [(i, file) for i, folder in enumerate(folders) for file in sorted(folder.iterdir())]
    x = torch.stack([classifier.image(Image.open(file)) for _, file in pictures])
    targets = torch.tensor([i for i, _ in pictures])
    with Explainer(classifier, "EpsilonPlusFlat") as explainer:
        explainer(x[:8], targets[:8])
        began = time.process_time()
        for rows in torch.arange(len(x)).split(64):
            explainer(x[rows], targets[rows])
    return time.process_time() - began


def measure_round(corpus: str, place: Path, names: list[str], asked: Sequence[str]) -> Iterator[Cost]:
    """Yield the costs of an explained pass and of the commands that are asked, on a new run."""
    shutil.rmtree(place / "run", ignore_errors=True)
    base = explained_pass(place)
    yield Cost(corpus, "explained pass", round(base, 1), 0.0, 0.0, "", 0, 1.0)
    environment = os.environ | ONE | {"XDG_CACHE_HOME": str(place / "cache"), "PYTHONUNBUFFERED": "1"}
    for command, arguments in commands(place, names):
        if command in asked:
            cost = meter(corpus, command, arguments, environment, place / f"{command}.log")
            yield replace(cost, ratio=round(cost.total / base, 1))


def tell(cost: Cost) -> str:
    """Write a line of the table."""
    return (
        f"| {cost.corpus} | {cost.command} | {cost.total:.1f} | {cost.ratio:.1f} | {cost.first_line:.1f} "
        f"| {cost.longest_silence:.1f} | {cost.before_silence} (exit {cost.exit_code}) |"
    )


def tell_medians(costs: Sequence[Cost]) -> Iterator[str]:
    """Write medians over rounds, with the least and the most."""
    for command in dict.fromkeys(cost.command for cost in costs):
        mine = [cost for cost in costs if cost.command == command]
        cells = []
        for value in ("total", "ratio", "first_line", "longest_silence"):
            values = [getattr(cost, value) for cost in mine]
            cells.append(f"{np.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        yield f"| {mine[0].corpus} | {command} | {' | '.join(cells)} | {len(mine)} rounds |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("folder", type=Path, help="an empty folder; what is in it already is used again")
    parser.add_argument("--only", nargs="+", choices=CORPORA, default=[*CORPORA])
    parser.add_argument("--commands", nargs="+", default=["run", "shortcuts", "quantify", "check", "clean"])
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| corpus | command | CPU s | over an explained pass | first line | longest silence | after |")
    print("|---|---|---|---|---|---|---|")
    for corpus in asked.only:
        place = asked.folder / corpus
        place.mkdir(parents=True, exist_ok=True)
        if (place / "network.py").exists():
            names = sorted(folder.name for folder in (place / "pictures").iterdir())
        else:
            names = write_corpus(asked.imagenet32, place, *CORPORA[corpus])
        costs = []
        for _ in range(asked.rounds):
            for cost in measure_round(corpus, place, names, asked.commands):
                costs.append(cost)
                with (asked.folder / "costs.jsonl").open("a") as file:
                    file.write(json.dumps(asdict(cost)) + "\n")
                print(tell(cost), flush=True)
        if asked.rounds > 1:
            print("\n".join(tell_medians(costs)), flush=True)


if __name__ == "__main__":
    main()
