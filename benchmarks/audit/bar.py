"""Networks for BAR (six actions in their usual places), trained on `train` alone: see lab/benchmarks/bar.md.

    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py train DATA --folder bar --seeds 0 1 2 3 4
    PYTHONPATH=NETWORKS BAR_NETWORK=bar/network-0.pt klarsicht audit run --model benchmarks/audit/bar.py:network \
        --data bar/train.csv --out run
    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py exchange DATA --folder bar --run run --seeds 0 1 2 3 4
    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py defaults DATA --folder bar --run run --seeds 0 1
    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py weigh DATA --folder bar --cleaned new --seeds 0 1 2 3 4
    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py test DATA --folder bar --also run/corrections/NAME
    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py train DATA --folder five --least 100 --seeds 5 6 7
    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py surroundings DATA --folder five --least 100 --seeds 5 6 7
    PYTHONPATH=NETWORKS python benchmarks/audit/bar.py test DATA --folder five --least 100

DATA holds train|test/ACTION/. NETWORKS holds `networks.py`, whose `mobilenet` is MobileNetV2 with weights of ImageNet.
Its blocks stay as they are; the last convolution and a new head are trained on their outputs at 128 px, on four fifths
of `train`. `bar/train.csv` lists all of `train` and says which images were held out by seed 0.

`exchange` trains again, on images of which half have border or background of another one: of another action (`others`),
or of the same action for comparison (`own`). `defaults` does so as `audit.exchange_parts` does by default: all images
have the part of a random image of any action, drawn VERSIONS times; the border (`border`), or border and background of
one image (`both`); `half-border` and `half-both` change half of the images. `weigh` trains again with the weights that
`audit clean-data` wrote. `surroundings` audits each network on the images that trained it, and cleans it as `audit
clean --part surroundings` does; `whole` is the change without a bound. That command examines actions of 100 images:
`--least` leaves others out. `test` is read by the last command alone, which tells every network in the folder, and
prints what each row gains beside the plain networks of the same seeds, with an interval over pictures and seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision import transforms

from klarsicht.audit.cleaning.corrections.corrected_model import corrected_classifier
from klarsicht.audit.cleaning.data.training_weights import training_weights
from klarsicht.audit.cleaning.models import exchanged_parts
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.composite_training import train_on_composites
from klarsicht.audit.cleaning.models.group_accuracy import OwnImages
from klarsicht.audit.cleaning.models.surroundings_correction import (
    bound_change,
)
from klarsicht.audit.cleaning.models.teaching_images import require_own_places
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.surroundings import read_surroundings
from klarsicht.audit.verdicts.interventions.image_parts import IMAGE_PARTS, PartImages, background_masks
from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency
from klarsicht.ground.errors import UsageError
from klarsicht.ground.progress import track
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator, integer

SIDE, HELD_OUT = 128, 0.2
EPOCHS, BATCH, RATE, DECAY = 20, 32, 1e-3, 1e-2
EXCHANGED = ("border", "background")
DEFAULTS = {
    "border": (("border",), 1.0),
    "both": (EXCHANGED, 1.0),
    "half-border": (("border",), 0.5),
    "half-both": (EXCHANGED, 0.5),
}
VERSIONS = 2  # draws of a part for each picture
CLEANING = CleanSettings(batch=32, rate=5e-4, steps=100)
CLEANED = ("surroundings", "whole")  # rows whose blocks were trained, too
SHOWN = 8  # images of each action from which parts are measured; surroundings are of all
TRANSFORM = transforms.Compose(
    [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
)


def blank_network(actions: int) -> nn.Module:
    """Make the network with ImageNet's weights and a new head of `actions` outputs."""
    import networks

    net, _ = networks.mobilenet()
    net.classifier = nn.Linear(net.classifier.in_features, actions)
    return net.eval()


def network() -> tuple[nn.Module, object]:
    """Load the network whose trained weights are in the file BAR_NETWORK, with its transform."""
    return read_network(Path(os.environ["BAR_NETWORK"])), TRANSFORM


def read_network(file: Path) -> nn.Module:
    """Read a network whose trained weights were saved."""
    state = torch.load(file, weights_only=True)
    net = blank_network(len(state["classifier.weight"]))
    net.load_state_dict(state, strict=False)
    return net


def list_pictures(data: Path, split: str, least: int = 0) -> tuple[list[str], np.ndarray, list[Path]]:
    """List the actions that have so many pictures to train on, the label of each picture, int (n,), and the pictures of
    a split."""
    of = {path.name: sum(1 for _ in path.iterdir()) for path in (data / "train").iterdir() if path.is_dir()}
    actions = sorted(name for name, count in of.items() if count >= least)
    found = [(k, file) for k, name in enumerate(actions) for file in sorted((data / split / name).iterdir())]
    return actions, np.array([k for k, _ in found]), [file for _, file in found]


def is_held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw a fifth of the pictures of each action, bool (n,)."""
    held, rng = np.zeros(len(labels), bool), generator(seed, "bar held out")
    for k in np.unique(labels):
        rows = np.flatnonzero(labels == k)
        held[rng.choice(rows, round(HELD_OUT * len(rows)), replace=False)] = True
    return held


def shrink(files: list[Path]) -> np.ndarray:
    """Read pictures and shrink them, uint8 (n, SIDE, SIDE, 3)."""
    resize = TRANSFORM.transforms[0]
    return np.stack([np.asarray(resize(Image.open(file).convert("RGB"))) for file in files])


@torch.no_grad()
def block_outputs(net: nn.Module, pictures: np.ndarray) -> Tensor:
    """Compute what the blocks answer for pictures (n, SIDE, SIDE, 3), float32 (n, 320, 4, 4)."""
    parts = [pictures[i : i + 16] for i in range(0, len(pictures), 16)]
    return torch.cat(
        [
            net.blocks(net.bn1(net.conv_stem(torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1)))
            for part in track(parts, len(parts), "pictures through the blocks, sixteen at a time")
        ]
    )


def last_stage(net: nn.Module, seen: Tensor) -> Tensor:
    """Compute logits (B, K) from what the blocks answer."""
    return net.forward_head(net.bn2(net.conv_head(seen)))


def train_last_stage(
    seen: Tensor, labels: np.ndarray, seed: int, *, weights: np.ndarray | None = None, changed: Tensor | None = None,
    often: float = 0.5,
) -> nn.Module:  # fmt: skip
    """Train last convolution and head.

    Args:
        seen: what the blocks answer, (n, 320, 4, 4).
        weights: images are drawn by these, (n,); without, each is shown once an epoch.
        changed: the same of changed versions of the images, (v, n, 320, 4, 4), one of which is shown in their place.
        often: share of the images in whose place one is.
    """
    torch.manual_seed(integer(seed, "bar network"))
    net, rng, truth = blank_network(int(labels.max()) + 1), generator(seed, "bar batches"), torch.from_numpy(labels)
    trained = [*net.conv_head.parameters(), *net.bn2.parameters(), *net.classifier.parameters()]
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=DECAY)
    steps = len(seen) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * steps)
    share = None if weights is None else weights / weights.sum()
    for _ in range(EPOCHS):
        order = rng.permutation(len(seen)) if share is None else rng.choice(len(seen), len(seen), p=share)
        for step in range(steps):
            rows = torch.from_numpy(order[step * BATCH : (step + 1) * BATCH])
            shown = seen[rows]
            if changed is not None:
                version, some = rng.integers(len(changed), size=BATCH), torch.from_numpy(rng.random(BATCH) < often)
                shown = torch.where(some[:, None, None, None], changed[torch.from_numpy(version), rows], shown)
            loss = cross_entropy(last_stage(net, shown), truth[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def right(net: nn.Module, seen: Tensor, labels: np.ndarray) -> np.ndarray:
    """Say which images are predicted as their label, bool (n,)."""
    return np.concatenate([last_stage(net, part).argmax(1).numpy() for part in seen.split(256)]) == labels


def save(net: nn.Module, file: Path) -> None:
    """Save what was trained."""
    kept = ("conv_head", "bn2", "classifier")
    torch.save({name: value for name, value in net.state_dict().items() if name.startswith(kept)}, file)


def cached(net: nn.Module, pictures: np.ndarray, file: Path) -> Tensor:
    """Read what the blocks answer, or compute and keep it."""
    if not file.is_file():
        torch.save(block_outputs(net, pictures), file)
    return torch.load(file, weights_only=True)


def rates(hits: np.ndarray, labels: np.ndarray, actions: list[str]) -> dict[str, float]:
    """Compute the share that is right of each action, and of all as `all`."""
    return {name: float(hits[labels == k].mean()) for k, name in enumerate(actions)} | {"all": float(hits.mean())}


def write_manifest(file: Path, files: list[Path], names: list[str], held: np.ndarray) -> None:
    """Write paths, labels and whether an image was held out."""
    lines = [(str(f.resolve()), n, "held out" if h else "train") for f, n, h in zip(files, names, held, strict=True)]
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label", "split"), *lines])


def exchange_parts(run: Path, files: list[Path], labels: np.ndarray, own: bool) -> np.ndarray:
    """Exchange a part of each picture with that of a picture of another action, or of its own.

    Args:
        run: of `audit run`; its relevance maps say what background is.

    Returns:
        uint8 (2, n, SIDE, SIDE, 3): with another border, and with another background.
    """
    store, rng = RunStore.open(run), generator(0, "bar exchange", int(own))
    row_of = {Path(path).resolve(): row for row, path in enumerate(store.table("corpus")["path"].to_pylist())}
    rows = [row_of[file.resolve()] for file in files]
    pictures = shrink(files)
    background = background_masks(np.asarray(store.array("maps"))[rows].astype(np.float32), (SIDE, SIDE))
    donors = np.array([rng.choice(np.flatnonzero((labels == k) == own)) for k in labels])
    images, others = PartImages(pictures, background), PartImages(pictures[donors], background[donors])
    return np.stack([IMAGE_PARTS[part].exchange(images, others) for part in EXCHANGED])


def draw_parts(run: Path, files: list[Path], labels: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
    """Exchange parts of each picture with those of a random one of any action.

    Returns:
        uint8 (VERSIONS, n, SIDE, SIDE, 3).
    """
    pictures = [(Image.fromarray(one), int(k)) for one, k in zip(shrink(files), labels, strict=True)]
    found = exchanged_parts.exchange_parts(run, pictures, labels, files, parts=parts)
    torch.manual_seed(integer(0, "bar defaults", len(parts)))
    return np.stack([[np.asarray(found[i][0]) for i in range(len(found))] for _ in range(VERSIONS)])


def train(data: Path, folder: Path, seeds: list[int], row: str, given: argparse.Namespace) -> None:
    """Train a network a seed, and write the manifest and the share right of held-out images.

    Args:
        row: `plain`, `others`, `own`, `weighed`, or a name of DEFAULTS, which has parts and share of the images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    actions, labels, files = list_pictures(data, "train", given.least)
    blank = blank_network(len(actions))
    seen = cached(blank, shrink(files), folder / "blocks-train.pt")
    changed, weights, often = None, None, 0.5
    if row in ("others", "own"):
        pictures = exchange_parts(given.run, files, labels, row == "own").reshape(-1, SIDE, SIDE, 3)
        changed = cached(blank, pictures, folder / f"blocks-{row}.pt").unflatten(0, (len(EXCHANGED), -1))
    if row in DEFAULTS:
        parts, often = DEFAULTS[row]
        drawn = draw_parts(given.run, files, labels, parts).reshape(-1, SIDE, SIDE, 3)
        changed = cached(blank, drawn, folder / f"blocks-all-{'-'.join(parts)}.pt").unflatten(0, (VERSIONS, -1))
    if row == "weighed":
        weights = training_weights(given.cleaned, files)
    for seed in seeds:
        held, file = (
            is_held_out(labels, seed),
            folder / (f"network-{seed}.pt" if row == "plain" else f"{row}-{seed}.pt"),
        )
        if row == "plain" and seed == 0:
            write_manifest(folder / "train.csv", files, [actions[k] for k in labels], held)
        if file.is_file():
            continue
        some, of = ~held, torch.from_numpy(~held)
        net = train_last_stage(
            seen[of], labels[some], seed, weights=None if weights is None else weights[some],
            changed=None if changed is None else changed[:, of], often=often,
        )  # fmt: skip
        save(net, file)
        write_rates(
            folder / "held-out.jsonl", row, seed, rates(right(net, seen[~of], labels[held]), labels[held], actions)
        )


def write_rates(file: Path, row: str, seed: int, found: dict[str, float]) -> None:
    """Append the shares that are right to a table of lines."""
    with file.open("a") as out:
        out.write(json.dumps({"row": row, "seed": seed} | found) + "\n")
    print(f"{row}, seed {seed}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)


def crossed_interval(gains: np.ndarray) -> tuple[float, float, float]:
    """Compute the mean of gains (seeds, pictures) and its 95 % interval over both.

    Its variance is that of the means of seeds over their number plus that of the means of pictures over theirs; either
    holds the variance of single answers, so that the interval is a little wide. Degrees of freedom are those of
    Satterthwaite.
    """
    shares = [gains.mean(1 - axis).var(ddof=1) / gains.shape[axis] for axis in (0, 1)]
    variance = sum(shares)
    if variance == 0:
        return (float(gains.mean()),) * 3
    freedom = variance**2 / sum(share**2 / (n - 1) for share, n in zip(shares, gains.shape, strict=True))
    reach = float(student.ppf(0.975, freedom) * variance**0.5)
    return float(gains.mean()), float(gains.mean()) - reach, float(gains.mean()) + reach


def print_gains(found: dict[str, dict[int, np.ndarray]]) -> None:
    """Print what each row gains on the same pictures beside the row `plain`, seed by seed."""
    for row, hits in found.items():
        seeds = sorted(set(hits) & set(found.get("plain", {})))
        if row != "plain" and len(seeds) > 1:
            gains = np.stack([100.0 * hits[k] - 100.0 * found["plain"][k] for k in seeds])
            mean, low, high = crossed_interval(gains)
            print(f"{row} beside plain, {len(seeds)} seeds: {mean:+.1f} points ({low:+.1f} to {high:+.1f})", flush=True)


def clean_networks(data: Path, folder: Path, seeds: list[int], least: int) -> None:
    """Audit networks on the images that trained them, clean them of surroundings, and save all weights."""
    actions, labels, files = list_pictures(data, "train", least)
    for seed in seeds:
        held, net = is_held_out(labels, seed), read_network(folder / f"network-{seed}.pt")
        taught, run, manifest = np.flatnonzero(~held), folder / f"run-{seed}", folder / f"taught-{seed}.csv"
        write_manifest(manifest, [files[i] for i in taught], [actions[labels[i]] for i in taught], held[taught])
        classifier = load_model((net, TRANSFORM), classes=actions)
        settings = AuditSettings(model="object", data=str(manifest), method="GradientTimesInput", batch=32, seed=seed)
        pipeline.run(settings, run, classifier=classifier, accept_labels=True)
        measure_sufficiency(run, classifier=classifier, images=SHOWN)
        found = read_surroundings(run)
        print(f"seed {seed}: smaller share {found.separate:.2f}, p {found.p:.3f}.", *found.describe(), sep="\n")
        own_images = OwnImages.of(AuditedRun.of(run, None, classifier, "cpu"), seed, with_bound=not found.found)
        try:
            require_own_places(own_images, found.describe()[0])
        except UsageError as error:
            print(error, flush=True)
            continue
        rows = {"whole": train_on_composites(classifier, own_images, CLEANING)}
        if not found.found:
            rows["surroundings"], change = bound_change(classifier, rows["whole"], own_images, CLEANING.overall)
            print(change.describe(), flush=True)
        for row, correction in rows.items():
            with correction.applied(net):
                torch.save(net.state_dict(), folder / f"{row}-{seed}.pt")


def test(data: Path, folder: Path, also: list[Path], least: int) -> None:
    """Tell every network of the folder, and the first one under corrections of `audit clean`, on `test`."""
    found: dict[str, dict[int, np.ndarray]] = {}
    actions, labels, files = list_pictures(data, "test", least)
    pictures, out = shrink(files), folder / "test.jsonl"
    seen = cached(blank_network(len(actions)), pictures, folder / "blocks-test.pt")
    for file in sorted(folder.glob("*-[0-9].pt")):
        row, seed = file.stem.rsplit("-", 1)
        net = read_network(file)
        hits = right(net, block_outputs(net, pictures) if row in CLEANED else seen, labels)
        row = "plain" if row == "network" else row
        found.setdefault(row, {})[int(seed)] = hits
        write_rates(out, row, int(seed), rates(hits, labels, actions))
    print_gains(found)
    classifier = load_model(network(), classes=actions) if also else None
    inputs = torch.stack([TRANSFORM(Image.open(file).convert("RGB")) for file in files]) if also else None
    for place in also:
        module = corrected_classifier(classifier, place).module.eval()
        with torch.no_grad():
            answers = torch.cat([module(part).argmax(1) for part in inputs.split(32)]).numpy()
        write_rates(out, place.name, 0, rates(answers == labels, labels, actions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "exchange", "defaults", "weigh", "surroundings", "test"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("bar"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--run", type=Path, default=Path("run"), help="of audit run, whose maps say what background is")
    parser.add_argument("--cleaned", type=Path, default=Path("new"), help="a folder of audit clean-data")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="folders of audit clean, for BAR_NETWORK")
    parser.add_argument("--least", type=int, default=0, help="pictures of an action to train on; others are left out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = {"train": ("plain",), "exchange": ("others", "own"), "defaults": tuple(DEFAULTS), "weigh": ("weighed",)}
    if given.command == "test":
        test(given.data, given.folder, given.also, given.least)
    if given.command == "surroundings":
        clean_networks(given.data, given.folder, given.seeds, given.least)
    for row in rows.get(given.command, ()):
        train(given.data, given.folder, given.seeds, row, given)


if __name__ == "__main__":
    main()
