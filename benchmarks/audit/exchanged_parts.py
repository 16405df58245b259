"""Parts of other images in training: what it gains where every image of a class has a frame or a background.

    python benchmarks/audit/exchanged_parts.py measure IMAGENET32 --folder exchanged --seeds 115 116
    python benchmarks/audit/exchanged_parts.py table --folder exchanged --seeds 115 116

Of eight classes of 250 images at 32 px one has a frame on all of its images, another a background; a small network is
trained on them. `klarsicht audit run`, `shortcuts` and `clean --part` go through these images by the command line; the
part of a class is the strongest that `shortcuts` noted, or the border. Networks are trained again from the start, of
the same seed and length: on the images as they are, on those of `audit.exchange_parts`, which have a noted part of a
random other image, and, as twin, on images without the marks. Figures are of 100 images of each class that no network
was trained on: accuracy of the class without its mark, of other classes under it, the share of these taken for it, and
accuracy of all classes without marks. One line a seed goes to FOLDER/SEED.json. Seeds below 100 are to develop on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from klarsicht import audit
from klarsicht.audit.cleaning.corrections.packages import load_correction
from klarsicht.audit.cleaning.models.exchanged_parts import noted_parts
from klarsicht.cli.app import run as run_command
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics.intervals import student_quantile

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes as planted
import whole_class_shortcuts as marks

CLASSES, TRAINED, UNSEEN, EPOCHS, WIDTH = 8, 250, 100, 16, 16
MARKED = ("frame", "background")  # kinds of whole_class_shortcuts
METHODS = ("augment",)  # of `audit clean --part`
STEPS, RATE = 200, 0.003
NETWORK = "EXCHANGED_NETWORK"  # file of the weights that `network` loads


def network() -> planted.Net:
    """Load the network of a file, for the command line."""
    net = planted.Net(CLASSES, WIDTH)
    net.load_state_dict(torch.load(os.environ[NETWORK]))
    return net.eval()


def command(*words: str) -> tuple[int, float]:
    """Run `klarsicht audit ...` in this process; its exit code and CPU seconds."""
    clock = time.process_time()
    with redirect_stdout(io.StringIO()):
        code = run_command(["audit", *words])
    return code, time.process_time() - clock


def figures(net: torch.nn.Module, plain: np.ndarray, put: dict[int, np.ndarray]) -> dict:
    """Accuracy and flips on unseen images (CLASSES, UNSEEN, 32, 32, 3), and on these with the mark of each class."""
    truth = np.repeat(np.arange(len(plain)), plain.shape[1])
    told = planted.logits(net, plain.reshape(-1, *plain.shape[2:])).argmax(1)
    found: dict = {"accuracy": float((told == truth).mean())}
    for label, images in put.items():
        under = planted.logits(net, images.reshape(-1, *images.shape[2:])).argmax(1)
        others = truth != label
        free = others & (told != label)
        found[str(label)] = {
            "without": float((told == truth)[~others].mean()), "under": float((under == truth)[others].mean()),
            "taken": float((under[free] == label).mean()), "with": float((under == truth)[~others].mean()),
        }  # fmt: skip
    return found


def write_images(folder: Path, images: np.ndarray) -> list[tuple[Path, int]]:
    """Write images as a folder of classes; files and labels, in the order of the images."""
    listed = []
    for label, stack in enumerate(images):
        (folder / f"{label:03d}").mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(stack):
            file = folder / f"{label:03d}" / f"{i:03d}.png"
            if not file.exists():
                Image.fromarray(image).save(file, compress_level=1)
            listed.append((file, label))
    return listed


def exchanged(run: Path, listed: list[tuple[Path, int]], parts: tuple[str, ...], seed: int) -> np.ndarray:
    """Images of all epochs, uint8 (EPOCHS * n, 32, 32, 3), as the data set gives them."""
    pictures = [(Image.open(file).convert("RGB"), label) for file, label in listed]
    found = audit.exchange_parts(run, pictures, [label for _, label in listed], parts=parts)
    torch.manual_seed(seed)
    return np.stack([np.asarray(found[i][0]) for _ in range(EPOCHS) for i in range(len(found))])


def measure(data: Path, folder: Path, seed: int) -> dict:
    """Figures of each network of a seed."""
    place, clock = folder / f"seed-{seed}", time.process_time()
    place.mkdir(parents=True, exist_ok=True)
    _, images = planted.classes(data, CLASSES, seed)
    rng = np.random.default_rng([61, seed])
    labels = rng.choice(CLASSES, len(MARKED), replace=False).tolist()
    made = {label: marks.KINDS[kind](rng) for label, kind in zip(labels, MARKED, strict=True)}
    clean, unseen = images[:, :TRAINED], images[:, TRAINED : TRAINED + UNSEEN]
    marked = clean.copy()
    for label, mark in made.items():
        marked[label] = marks.put(mark, clean[label], rng)
    put = {
        label: marks.put(mark, unseen.reshape(-1, 32, 32, 3), rng).reshape(unseen.shape) for label, mark in made.items()
    }
    truth = np.repeat(np.arange(CLASSES), TRAINED)
    result: dict = {"seed": seed, "marked": dict(zip(map(str, labels), MARKED, strict=True))}

    def trained(levels: np.ndarray, name: str) -> planted.Net:
        """Train for EPOCHS * TRAINED * CLASSES images: one long epoch where each was drawn anew."""
        file, epochs = place / f"{name}.pt", EPOCHS if levels.ndim == 5 else 1
        net = planted.Net(CLASSES, WIDTH)
        if not file.is_file():
            flat = levels.reshape(-1, 32, 32, 3)
            net = planted.fitted(flat, np.tile(truth, len(flat) // len(truth)), seed, epochs, WIDTH)
            torch.save(net.state_dict(), file)
        net.load_state_dict(torch.load(file))
        result[name] = figures(net.eval(), unseen, put)
        print(
            f"seed {seed}, {time.process_time() - clock:.0f} CPU s, {name}: {result[name]}", file=sys.stderr, flush=True
        )
        return net

    net = trained(marked, "plain")
    listed, run = write_images(place / "train", marked), place / "run"
    os.environ[NETWORK] = str(place / "plain.pt")
    model = f"{Path(__file__).resolve()}:network"
    for words in (
        ("run", "--model", model, "--data", str(place / "train"), "--method", "HeadRelevance", "--out", str(run)),
        ("shortcuts", str(run), "--images", "40"),
    ):
        code, cpu = command(*words)
        print(f"seed {seed}, {words[0]}: exit {code}, {cpu:.0f} CPU s", file=sys.stderr, flush=True)
    parts: dict[int, tuple[str, ...]] = {}
    for label in labels:
        try:
            parts[label] = noted_parts(RunStore.open(run), f"{label:03d}")
        except UsageError:
            parts[label] = ()
    result["noted"] = {str(label): list(some) for label, some in parts.items()}
    for label in labels:
        for method in METHODS:
            out = place / f"{method}-{label}"
            asked = [f"--part={part}" for part in parts[label] or ("border",)]
            code, cpu = command("clean", str(run), "--class", f"{label:03d}", *asked, "--method", method, "--steps",
                                str(STEPS), "--rate", str(RATE), "--out", str(out))  # fmt: skip
            with ExitStack() as stack:
                corrected = stack.enter_context(load_correction(out)[0].applied(net))
                found = figures(corrected.eval(), unseen, {label: put[label]})
            result.setdefault(method, {})[str(label)] = found[str(label)] | {
                "accuracy": found["accuracy"], "exit": code, "cpu": cpu,
            }  # fmt: skip
            print(f"seed {seed}, {method}: {result[method][str(label)]}", file=sys.stderr, flush=True)
    every = tuple(dict.fromkeys(part for some in parts.values() for part in some)) or ("border",)
    trained(exchanged(run, listed, every, seed), "exchanged")
    trained(clean, "twin")
    return result


def mean(values: list[float]) -> str:
    """The mean in percent, with its 95 % interval of Student's t over networks, cut to 0 to 100, from two values on."""
    x = 100 * np.array(values)
    if len(x) < 2:
        return f"{x.mean():.0f}"
    half = student_quantile(len(x)) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():.0f} ({max(x.mean() - half, 0):.0f} to {min(x.mean() + half, 100):.0f})"


def table(results: list[dict]) -> str:
    names = {
        "plain": "as it is",
        "augment": "`clean --part --method augment`",
        "exchanged": "trained again with `exchange_parts`",
        "twin": "trained without the marks",
    }
    told = [f"{len(results)} networks; noted: {[one['noted'] for one in results]}"]
    for kind in MARKED:
        told += [
            f"\n{kind}",
            "| network | class, without the mark | each | others, under it | taken for it | all, clean |",
        ]
        told.append("|---|---|---|---|---|---|")
        for name, words in names.items():
            cells: dict[str, list[float]] = {what: [] for what in ("without", "under", "taken", "accuracy")}
            for one in results:
                (label,) = (label for label, of in one["marked"].items() if of == kind)
                for what, values in cells.items():
                    values.append(one[name][label].get(what, one[name].get("accuracy")))
            each = ", ".join(f"{100 * value:.0f}" for value in cells["without"])
            told.append(f"| {words} | {mean(cells['without'])} | {each} | "
                        + " | ".join(mean(cells[what]) for what in ("under", "taken", "accuracy")) + " |")  # fmt: skip
    return "\n".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "table"))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--folder", type=Path, default=Path("exchanged"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in given.seeds if given.command == "measure" else ():
        file = given.folder / f"{seed}.json"
        if not file.is_file():
            result = measure(given.data, given.folder, seed)
            file.write_text(json.dumps(result))
    print(table([json.loads((given.folder / f"{seed}.json").read_text()) for seed in given.seeds]))


if __name__ == "__main__":
    main()
