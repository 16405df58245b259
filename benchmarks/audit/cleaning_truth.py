"""Held-out truth of `audit clean`, beside what the command says of itself: families of artifacts, three networks.

    python benchmarks/audit/cleaning_truth.py IMAGENET32 --folder truth --seeds 107 108
    python benchmarks/audit/cleaning_truth.py IMAGENET32 --folder truth --seeds 107 108 --table

A seed draws 40 ImageNet classes at 32 px, and plants eight artifacts in eight of them: what a family draws, on 30 % of
the class's images. At a *fixed place* lie `stripe` and `random-tag`; at a *varying place* `logo` and `caption`; over
the *full frame* `scan-lines` and `hue`; *placeless* are `defocus` and `grain`. No detector, and no way to put on images
what it finds, is made for `scan-lines` and `hue`.

Each network (convolutions alone; batch norm and skip connections; a vision transformer) is trained on 240 images a
class, and so is its twin, on the same images without artifacts. 210 other images of each planted class and of eight
more, with artifacts, are audited by `audit run` and `audit quantify`; `audit clean RUN --class C` cleans each planted
class, with the true carriers as --members where no detector called the class artifactual; with --listed they are
listed for all, and `audit quantify` is left out. Figures are of 4,000 further images, which nothing was trained,
fitted or chosen on, the true artifact put on those of the other classes:

    flips   of images not taken for the class, the share that is with the artifact on
    rise    of the class's centred logit by the artifact
    under   accuracy with the artifact on
    gap     (before - after) / (before - twin): 1 where as little is left as in the twin
    lost    points of accuracy on the clean images, with Tango's interval

What `clean` says is right or wrong by these figures:

    clean           half of the rise is gone, and at most half a point lost
    harmful         more than half a point is lost, or more than two of the class
    none helps      the `former` correction (below) leaves half of the rise, or loses more than half a point
    hardly used     the artifact turns at most two in a hundred more images than in the twin; the same of a refusal

Where `clean` says that an artifact is used by less than matters it corrects nothing; it is then run again with
`--least-effect 0`. Beside its choice stands the one that it would have made by the part `choose` alone (`former`).

One line of FOLDER/rows.jsonl is a network, a family and a seed; what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest
from torch import nn

from klarsicht.audit.cleaning.corrections import packages, selection
from klarsicht.audit.cleaning.corrections.activations import Correction, apply_correction
from klarsicht.audit.results import verdicts
from klarsicht.audit.results.correction_words import CleaningKind
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import PlantFunction
from klarsicht.cli import app
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.logits import centred_logit
from klarsicht.numerics.statistics.paired_loss import paired_loss

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes
import residual_networks

Pictures = NDArray[np.uint8]
Answers = tuple[NDArray[np.float32], NDArray[np.float32]]  # logits of plain images, and of marked ones
KINDS = {
    "stripe": "fixed", "random-tag": "fixed", "logo": "varying", "caption": "varying", "scan-lines": "full frame",
    "hue": "full frame", "defocus": "placeless", "grain": "placeless",
}  # fmt: skip
CLASSES, SEEN, SHARE = 40, 16, 0.3  # classes of the network, and of the audited corpus
TRAINED, AUDITED, HELD_OUT = 240, 210, 100  # images of a class
LEARNED = {"flips": 0.02, "rise": 0.25, "under": 0.01}  # difference to the twin below which there is no gap
WORSE, WORSE_OF_CLASS = 0.005, 0.02  # share of clean images, of all and of the class: a loss that is counted
CLOSED = 0.9  # share of the gap in flips: the aim
TRUE = ("chosen", "after", "lost", "lost of the class", "lost of audited classes", "accuracy")  # of a correction
FILE = """import sys
sys.path.insert(0, {benchmarks!r})
import cleaning_truth

def build():
    return cleaning_truth.read_network({network!r}, {weights!r})
"""


def residual() -> nn.Module:
    stem = nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
    stages = (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 64, 2)
    body = nn.Sequential(*(residual_networks.Block(*stage) for stage in stages))
    return nn.Sequential(*stem, body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


@dataclass(frozen=True)
class Recipe:
    """Network to build, with the highest rate and the epochs of its training."""

    build: Callable[[], nn.Module]
    rate: float
    epochs: int


NETWORKS = {
    "small": Recipe(lambda: planted_classes.Net(CLASSES, 16), 5e-3, 6),
    "residual": Recipe(residual, 5e-3, 6),
    "transformer": Recipe(
        lambda: torchvision.models.VisionTransformer(32, 8, 3, 4, 64, 128, num_classes=CLASSES), 2e-3, 10
    ),
}


def read_network(name: str, weights: str) -> nn.Module:
    net = NETWORKS[name].build()
    net.load_state_dict(torch.load(weights))
    return net.eval()


def train(name: str, levels: Pictures, seed: int) -> nn.Module:
    """Train on images (classes, n, 32, 32, 3): AdamW with a one-cycle rate, shifts of two pixels, in bfloat16."""
    torch.manual_seed(seed)
    how, n = NETWORKS[name], levels.shape[0] * levels.shape[1]
    net = how.build().train()
    x = planted_classes.prepared(levels.reshape(-1, *levels.shape[2:]))
    y = torch.arange(len(levels)).repeat_interleave(levels.shape[1])
    optimizer = torch.optim.AdamW(net.parameters(), how.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.rate, total_steps=how.epochs * (n // 100))
    for _ in range(how.epochs):
        for rows in torch.randperm(n)[: n // 100 * 100].view(-1, 100):
            with torch.autocast("cpu", torch.bfloat16):
                answer = net(torch.roll(x[rows], torch.randint(-2, 3, (2,)).tolist(), (2, 3)))
            loss = nn.functional.cross_entropy(answer.float(), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def logits(net: nn.Module, levels: Pictures, correction: Correction | None = None) -> NDArray[np.float32]:
    x = planted_classes.prepared(levels)
    with apply_correction(net, correction):
        return torch.cat([net(batch) for batch in x.split(200)]).numpy()


@dataclass(frozen=True)
class Plant:
    """An artifact in a class: its family, and the carriers among the images trained on and audited, bool (n,)."""

    family: str
    label: int
    artifact: PlantFunction
    trained: NDArray[np.bool_]
    audited: NDArray[np.bool_]

    def put(self, x: Pictures, seed: int, part: str) -> Pictures:
        """The artifact on all images (n, 32, 32, 3); what it draws anew for each is the same at every call."""
        drawn = (generator(seed, part, self.label, i) for i in range(len(x)))
        return np.stack([self.artifact(image, rng).pixels for image, rng in zip(x, drawn, strict=True)])


@dataclass(frozen=True)
class Case:
    """Images (classes, n, 32, 32, 3) of a seed, the classes that are audited, and its plants, which `trained` and
    `audited` carry."""

    seed: int
    names: tuple[str, ...]
    seen: tuple[int, ...]
    clean: Pictures
    trained: Pictures
    audited: Pictures
    held_out: Pictures
    plants: dict[str, Plant]

    def others(self, plant: Plant) -> tuple[Pictures, Pictures, NDArray[np.int64]]:
        """Held-out images of the other classes, without the artifact and with it, and their labels."""
        labels = np.delete(np.arange(CLASSES), plant.label)
        x = self.held_out[labels].reshape(-1, *self.held_out.shape[2:])
        return x, plant.put(x, self.seed, "held out"), np.repeat(labels, HELD_OUT)


def read_classes(folder: Path, seed: int) -> tuple[tuple[str, ...], Pictures]:
    """Names, and images (40, 550, 32, 32, 3) in an order of the seed."""
    files: dict[str, list[bytes]] = {}
    for archive in ("train.tar", "val.tar"):
        with tarfile.open(folder / archive) as tar:
            for m in sorted((m for m in tar if m.isfile()), key=lambda m: m.name):
                content = tar.extractfile(m)
                assert content is not None
                files.setdefault(m.name.split("/")[-2], []).append(content.read())
    rng, n = generator(seed, "images"), TRAINED + AUDITED + HELD_OUT
    names = tuple(str(name) for name in np.sort(rng.choice(sorted(files), CLASSES, replace=False)))
    stacks = []
    for name in names:
        chosen = (Image.open(io.BytesIO(files[name][k])) for k in rng.permutation(len(files[name]))[:n])
        stacks.append(np.stack([np.asarray(picture.convert("RGB")) for picture in chosen]))
    return names, np.stack(stacks)


def draw_artifact(family: str, seed: int) -> PlantFunction:
    """Draw an artifact; of families that may stay or move, the first one that does as its kind says."""
    for number in range(1000):
        found = FAMILIES[family](generator(seed, f"truth {family}", number))
        position = found.keywords.get("position")
        if position is None or position.moves == (KINDS[family] == "varying"):
            return found
    raise ValueError(family)


def make_case(folder: Path, seed: int) -> Case:
    names, images = read_classes(folder, seed)
    trained, audited, held_out = np.split(images, [TRAINED, TRAINED + AUDITED], axis=1)
    clean, trained, audited = trained.copy(), trained.copy(), audited.copy()
    rng, plants = generator(seed, "plants"), {}
    seen = rng.permutation(CLASSES)[:SEEN].tolist()
    for family, label in zip(KINDS, seen, strict=False):
        carries = [np.isin(np.arange(n), rng.permutation(n)[: round(SHARE * n)]) for n in (TRAINED, AUDITED)]
        plant = Plant(family, label, draw_artifact(family, seed), *carries)
        for part, name, rows in ((trained, "trained", carries[0]), (audited, "audited", carries[1])):
            part[label, rows] = plant.put(part[label, rows], seed, name)
        plants[family] = plant
    return Case(seed, names, tuple(sorted(seen)), clean, trained, audited, held_out, plants)


def network(case: Case, name: str, twin: bool, folder: Path) -> nn.Module:
    """A trained network; one that is in the folder is only read."""
    file = folder / f"{case.seed}-{name}-{'twin' if twin else 'planted'}.pt"
    if not file.is_file():
        began = time.process_time()
        net = train(name, case.clean if twin else case.trained, case.seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
        report(f"{file.stem}: trained in {time.process_time() - began:.0f} CPU s")
    return read_network(name, str(file))


def report(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def command(*arguments: object) -> tuple[int, str]:
    """Run `klarsicht ARGUMENTS` in this process: its exit code, and what it wrote to standard error."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = app.run([str(one) for one in arguments])
    return code, told.getvalue()


def audit(case: Case, name: str, folder: Path, quantified: bool) -> Path:
    """The run folder of a network, audited, and quantified where that is asked for."""
    data, run = folder / f"{case.seed}-data", folder / f"{case.seed}-{name}"
    for label in case.seen:
        (data / case.names[label]).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(case.audited[label]):
            if not (picture := data / case.names[label] / f"{i:03d}.png").exists():
                Image.fromarray(image).save(picture, compress_level=1)
    file, weights = folder / f"{case.seed}-{name}.py", folder / f"{case.seed}-{name}-planted.pt"
    here = str(Path(__file__).parent)
    file.write_text(FILE.format(benchmarks=here, network=name, weights=str(weights)))
    began = time.process_time()
    names = folder / f"{case.seed}-classes.csv"
    names.write_text("\n".join(["label,index", *(f"{one},{number}" for number, one in enumerate(case.names))]))
    asked = ("--model", f"{file}:build", "--data", data, "--class-map", names, "--seed", case.seed)
    asked += ("--method", "HeadRelevance")
    for arguments in (("run", *asked, "--out", run), *([("quantify", run)] if quantified else [])):
        code, told = command("audit", *arguments)
        if code:
            raise RuntimeError(f"audit {arguments[0]}: exit code {code}: {told[-2000:]}")
    report(f"{run.name}: audited in {time.process_time() - began:.0f} CPU s")
    return run


@dataclass(frozen=True)
class HeldOut:
    """Held-out images of a case with and without a plant, and what a network answers to them."""

    case: Case
    plant: Plant

    @cached_property
    def plain(self) -> tuple[Pictures, NDArray[np.int64]]:
        return self.case.held_out.reshape(-1, 32, 32, 3), np.repeat(np.arange(CLASSES), HELD_OUT)

    @cached_property
    def marked(self) -> Pictures:
        return self.case.others(self.plant)[1]

    def answers(self, net: nn.Module, correction: Correction | None = None) -> Answers:
        return logits(net, self.plain[0], correction), logits(net, self.marked, correction)

    def effect(self, found: Answers) -> dict[str, float]:
        """Flips, rise and accuracy under the artifact, on images of the other classes."""
        label, truth = self.plant.label, self.plain[1]
        others = truth != label
        plain, under = found[0][others], found[1]
        free = plain.argmax(1) != label
        return {
            "flips": float((under.argmax(1)[free] == label).mean()),
            "rise": float((centred_logit(under, label) - centred_logit(plain, label)).mean()),
            "under": float((under.argmax(1) == truth[others]).mean()),
        }

    def loss(self, before: Answers, after: Answers) -> dict[str, Any]:
        """Loss of accuracy on all clean images, on those of the class and of all audited classes, with Tango's
        intervals."""
        truth = self.plain[1]
        was, right = (answers[0].argmax(1) == truth for answers in (before, after))
        kinds = {
            "lost": np.ones(len(truth), bool),
            "lost of the class": truth == self.plant.label,
            "lost of audited classes": np.isin(truth, self.case.seen),
        }
        told = {}
        for what, rows in kinds.items():
            found = paired_loss(was[rows], right[rows])
            told[what] = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
        return told | {"accuracy": float(was.mean())}


@contextlib.contextmanager
def former_choices() -> Iterator[tuple[list[selection.Choice], list[float]]]:
    """Inside, the choices that would be made by the part `choose` alone, and the CPU seconds that more images cost."""
    choose, found, seconds = selection.choose_least_loss, [], []

    def both(*asked: Any) -> selection.Choice:
        found.append(selection.choose_best(asked[0]))
        began = time.process_time()
        choice = choose(*asked)
        seconds.append(time.process_time() - began)
        return choice

    selection.choose_least_loss = both
    try:
        yield found, seconds
    finally:
        selection.choose_least_loss = choose


def one(case: Case, name: str, family: str, run: Path, folder: Path) -> dict[str, Any]:
    """The row of a network and a family."""
    plant, net, twin = case.plants[family], network(case, name, False, folder), network(case, name, True, folder)
    label = case.names[plant.label]
    row: dict[str, Any] = {"seed": case.seed, "network": name, "family": family, "drawn": repr(plant.artifact)}
    held_out = HeldOut(case, plant)
    before = held_out.answers(net)
    row |= {"before": held_out.effect(before), "twin": held_out.effect(held_out.answers(twin))}

    def truth(choice: dict[str, Any], correction: Correction) -> dict[str, Any]:
        if row.get("chosen") == choice:  # the same correction
            return {key: row[key] for key in TRUE}
        after = held_out.answers(net, correction)
        return {"chosen": choice, "after": held_out.effect(after)} | held_out.loss(before, after)

    def read_truth(folder: Path) -> dict[str, Any]:
        choice = json.loads((folder / "correction.json").read_text())["choice"]
        correction, _ = packages.load_correction(folder)
        return truth(choice["chosen"], correction) | {"tried": len(choice["tried"]), "reason": choice["reason"]}

    carriers, found = set(np.flatnonzero(plant.audited)), False
    if verdicts.is_quantified(store := RunStore.open(run)):
        verdict = verdicts.read_verdicts(store).of(label)
        named, found = {int(Path(m).stem) for m in verdict.members}, verdict.artifactual
        row |= {"verdict of the audit": verdict.verdict, "f1": 2 * len(carriers & named) / (len(carriers) + len(named))}
    members: tuple[object, ...] = ()
    if not found:
        listed = folder / f"{case.seed}-{family}.txt"
        listed.write_text("\n".join(f"{label}/{i:03d}.png" for i in sorted(carriers)))
        members = ("--members", listed)
    out = run / "corrections" / family
    asked = ("clean", run, "--class", label, "--seed", case.seed, *members)
    began, clock = time.process_time(), time.perf_counter()
    with former_choices() as (former, extra):
        code, told = command("audit", *asked, "--out", out)
        row |= {"listed": bool(members), "exit": code, "cpu": time.process_time() - began}
        row["seconds"] = time.perf_counter() - clock
        if code not in (0, 7, 8):
            return row | {"refused": told.strip().splitlines()[-1].removeprefix("klarsicht: ")}
        record = json.loads((out / "correction.json").read_text())
        row["said"] = record["shown"] | {"how": record["artifact"]["how"], "origin": record["artifact"]["origin"]}
        row |= read_truth(out)
        if row["said"]["below the least effect"] and row["chosen"]["method"] == "nothing":
            forced = out.with_name(f"{family}-all")
            row["forced"] = {"exit": command("audit", *asked, "--least-effect", 0, "--out", forced)[0]}
            row["forced"] |= read_truth(forced)
    if former:
        row["former"] = truth(former[-1].to_json()["chosen"], former[-1].correction)
        row["cpu of losses"] = sum(extra)
    return row


def measure(asked: argparse.Namespace) -> None:
    file = asked.folder / "rows.jsonl"
    asked.folder.mkdir(parents=True, exist_ok=True)
    done = {(row["seed"], row["network"], row["family"]) for row in read(file)}
    for seed in asked.seeds:
        case = None
        for name in asked.networks:
            todo = [family for family in asked.families if (seed, name, family) not in done]
            if not todo:
                continue
            case = case or make_case(asked.imagenet32, seed)
            for twin in (False, True):
                network(case, name, twin, asked.folder)
            if asked.train:
                continue
            run = audit(case, name, asked.folder, not asked.listed)
            for family in todo:
                row = one(case, name, family, run, asked.folder)
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                report(f"{seed} {name} {family}: exit code {row['exit']}, {row['cpu']:.0f} CPU s")


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def gap(row: dict[str, Any], what: str, by: str = "") -> float | None:
    """Share of the gap to the twin that is closed, by the correction or by the `former` one; None where the network had
    not learned the artifact."""
    before, after, twin = row["before"][what], (row[by] if by else row)["after"][what], row["twin"][what]
    learned = (before - twin) * (-1 if what == "under" else 1) > LEARNED[what]
    return (before - after) / (before - twin) if learned else None


def percent(value: float | None) -> str:
    return "not learned" if value is None else f"{100 * value:.0f}"


def points(lost: dict[str, float]) -> str:
    return f"{100 * lost['value']:z.2f} ({100 * lost['low']:z.2f} to {100 * lost['high']:z.2f})"


def print_header(header: Sequence[str]) -> None:
    """Print the first two lines of a table in Markdown."""
    print(f"\n| {' | '.join(header)} |\n{'|---' * len(header)}|")


def table(rows: list[dict[str, Any]]) -> None:
    """Print one line for each network, family and seed."""
    header = (
        "network, artifact, seed", "flips before, after, twin", "gap closed: flips, rise, under", "lost (95 %)",
        "of audited classes", "left: said (true)", "lost: said", "verdict", "chosen; how the artifact is put on",
        "former: gap in flips, lost (95 %)",
    )  # fmt: skip
    print_header(header)
    for row in sorted(rows, key=lambda row: (list(NETWORKS).index(row["network"]), list(KINDS).index(row["family"]))):
        name = f"{row['network']}, {row['family']} ({KINDS[row['family']]}), {row['seed']}"
        flips = [f"{100 * row[who]['flips']:.1f}" for who in ("before", "after", "twin") if who in row]
        if "after" not in row:
            print(f"| {name} | {', '.join(flips)} | | | | | | refused: {row['refused'].split(';')[0]} | | |")
            continue
        said, former = row["said"], row.get("former")
        left = abs(row["after"]["rise"]) / max(abs(row["before"]["rise"]), 1e-9)
        one = row["chosen"]
        chosen = f"{one['method']} at {one['layer']}, {one['directions']}, {one['strength']:g}" if one["layer"] else "-"
        print(
            f"| {name} | {', '.join(flips)} | {', '.join(percent(gap(row, what)) for what in LEARNED)} "
            f"| {points(row['lost'])} | {points(row['lost of audited classes'])} "
            f"| {100 * said['remaining']:.0f} ({100 * left:.0f}) | {100 * said['after']['harm']['value']:z.2f} "
            f"| {said['verdict'].split(' (')[0]} | {chosen}; {said['how']} "
            f"| {percent(gap(row, 'flips', 'former')) + ', ' + points(former['lost']) if former else '-'} |"
        )


def formerly(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row["former"] for row in rows if "former" in row]


def spread(lost: list[float]) -> str:
    if not lost:
        return ""
    median, least, most = (100 * one for one in (np.median(lost), min(lost), max(lost)))
    return f"{median:z.2f} ({least:z.2f} to {most:z.2f}); {sum(one > WORSE for one in lost)} of {len(lost)}"


def summary(rows: list[dict[str, Any]]) -> None:
    """Print the median and range of the gap closed, and how often more than half a point is lost, for each kind."""
    header = (
        "kind", "rows", "learned, of these cleaned, closed by nine tenths", "gap closed, median (range): flips",
        "rise", "under", "lost, median (range); above .5", "refused", "left as it is",
        "former: lost, median (range); above .5",
    )  # fmt: skip
    print_header(header)
    for kind in (*dict.fromkeys(KINDS.values()), "all"):
        some = [row for row in rows if kind in (KINDS[row["family"]], "all")]
        if not some:
            continue
        learned = [row for row in some if row["before"]["flips"] - row["twin"]["flips"] > LEARNED["flips"]]
        tried = [row for row in some if "after" in row and row["chosen"]["method"] != "nothing"]
        cells = []
        for what in LEARNED:
            found = [one for row in tried if (one := gap(row, what)) is not None]
            ends = f"{100 * np.median(found):.0f} ({100 * min(found):.0f} to {100 * max(found):.0f})" if found else ""
            cells.append(f"{ends}, n {len(found)}")
        lost, former = ([one["lost"]["value"] for one in some] for some in (tried, formerly(some)))
        refused = sum("after" not in row for row in some)
        cleaned = sum(row in tried for row in learned)
        closed = sum("after" in row and (gap(row, "flips") or 0) >= CLOSED for row in learned)
        print(
            f"| {kind} | {len(some)} | {len(learned)}, {cleaned}, {closed} | {' | '.join(cells)} "
            f"| {spread(lost)} | {refused} | {len(some) - len(tried) - refused} | {spread(former)} |"
        )


def is_unlearned(row: dict[str, Any]) -> bool:
    return bool(row["before"]["flips"] - row["twin"]["flips"] <= LEARNED["flips"])


def leaves_half(row: dict[str, Any], by: dict[str, Any]) -> bool:
    return bool(abs(by["after"]["rise"]) > 0.5 * abs(row["before"]["rise"]))


def is_right(row: dict[str, Any]) -> tuple[str, bool | None]:
    """Return the verdict of a row in words, and whether it is right, see the module; None: nothing to compare with."""
    if "after" not in row:
        return "refused: images like the others of the class", is_unlearned(row)
    kind, lost = CleaningKind(row["said"]["kind"]), row["lost"]["value"]
    if kind == CleaningKind.HARMFUL:
        return kind.label, lost > WORSE or row["lost of the class"]["value"] > WORSE_OF_CLASS
    if kind in (CleaningKind.CLEAN, CleaningKind.UNPROVEN):
        return kind.label, not leaves_half(row, row) and lost <= WORSE
    if row["said"]["refused"]:
        former = row.get("former")
        return "none helps", None if former is None else leaves_half(row, former) or former["lost"]["value"] > WORSE
    return kind.label, is_unlearned(row)


def table_of_verdicts(rows: list[dict[str, Any]]) -> None:
    """Print the share of each verdict that is right, with Wilson's interval."""
    found: dict[str, list[bool]] = {}
    for row in rows:
        words, right = is_right(row)
        found.setdefault(words, []).extend([] if right is None else [right])
    print("\n| said | times | right | share (95 %) |\n|---|---|---|---|")
    for words, answers in sorted(found.items()):
        n, hits = len(answers), sum(answers)
        interval = binomtest(hits, n).proportion_ci(method="wilson") if n else ()
        ends = " to ".join(f"{100 * end:.0f}" for end in interval)
        print(f"| {words} | {n} | {hits} | {f'{100 * hits / n:.0f} ({ends})' if n else ''} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[107])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--families", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--listed", action="store_true", help="no `audit quantify`: the true carriers are listed")
    parser.add_argument("--train", action="store_true", help="only train the networks")
    parser.add_argument("--table", action="store_true", help="print what is there, and measure nothing")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.table:
        measure(asked)
    rows = [row for row in read(asked.folder / "rows.jsonl") if row["seed"] in asked.seeds]
    table(rows)
    summary(rows)
    table_of_verdicts(rows)


if __name__ == "__main__":
    main()
