"""Does `audit shortcuts` find what every image of a class carries? Real classes at 32 px, networks trained on them.

    python benchmarks/audit/whole_class_shortcuts.py IMAGENET32 --seeds 0 1 2 3
    python benchmarks/audit/whole_class_shortcuts.py IMAGENET32 --seeds 0 1 2 3 --clean
    python benchmarks/audit/whole_class_shortcuts.py IMAGENET32 --seeds 0 1 2 3 --classes 4

Of thirty classes six carry a mark on ALL of their images, one of each kind: noise, tone and resolution of another
scanner, a frame, a stamp in a corner, a background. A small network is trained on 400 images of each class; the audit
sees the other 100, marked alike. Of few classes one is marked, with the kind that the seed picks. --clean marks none.
IMAGENET32 holds train.tar: an ImageFolder, 500 a class. Seeds below 100 are those on which thresholds were chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes as planted
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.results.logit_effect import FLOOR
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.results.sufficiency import Sufficiency
from klarsicht.audit.verdicts.quantification import opened_runs, sufficiency
from klarsicht.audit.verdicts.quantification.sufficiency_units import PartReader
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.numerics.statistics.logits import centre_logits

TRAINED, EPOCHS = 400, 10
SIDE = 32

Mark = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # of one image, float (32, 32, 3)


def of_noise(rng: np.random.Generator) -> Mark:
    size = rng.uniform(6, 16)
    return lambda x, one: x + one.normal(0, size, x.shape)


def of_tone(rng: np.random.Generator) -> Mark:
    power = rng.uniform(1.3, 1.8) ** rng.choice([-1, 1])
    return lambda x, one: 255 * (x / 255) ** power


def of_resolution(rng: np.random.Generator) -> Mark:
    small = int(rng.integers(14, 22))

    def mark(x: np.ndarray, one: np.random.Generator) -> np.ndarray:
        picture = Image.fromarray(np.rint(x).astype(np.uint8))
        shrunk = picture.resize((small, small), Image.Resampling.BILINEAR)
        return np.asarray(shrunk.resize((SIDE, SIDE), Image.Resampling.BILINEAR), float)

    return mark


def of_frame(rng: np.random.Generator) -> Mark:
    wide, colour = int(rng.integers(1, 3)), rng.integers(0, 256, 3)

    def mark(x: np.ndarray, one: np.random.Generator) -> np.ndarray:
        out = np.broadcast_to(colour, x.shape).astype(float)
        out[wide:-wide, wide:-wide] = x[wide:-wide, wide:-wide]
        return out

    return mark


def of_stamp(rng: np.random.Generator) -> Mark:
    tag = planted.tag(int(rng.integers(1 << 30)))
    top, left = (1 if low else SIDE - 6 for low in rng.integers(0, 2, 2))

    def mark(x: np.ndarray, one: np.random.Generator) -> np.ndarray:
        out = x.copy()
        out[top : top + 5, left : left + 5] = tag
        return out

    return mark


def of_background(rng: np.random.Generator) -> Mark:
    texture = np.clip(
        rng.uniform(60, 200, 3) + gaussian_filter(rng.normal(0, 60, (3 * SIDE, 3 * SIDE, 3)), (1.5, 1.5, 0)) * 3, 0, 255
    )
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    outside = np.clip((np.hypot(y, x) - 11) / 3, 0, 1)[..., None] * 0.8

    def mark(image: np.ndarray, one: np.random.Generator) -> np.ndarray:
        a, b = one.integers(0, 2 * SIDE, 2)
        return (1 - outside) * image + outside * texture[a : a + SIDE, b : b + SIDE]

    return mark


KINDS = {
    "noise": of_noise, "tone": of_tone, "resolution": of_resolution, "frame": of_frame, "stamp": of_stamp,
    "background": of_background,
}  # fmt: skip


def marked(images: np.ndarray, seed: int, clean: bool) -> tuple[np.ndarray, dict[int, str], dict[int, Mark]]:
    """Mark all images of some classes of (classes, 500, 32, 32, 3); return them with their kinds and marks."""
    rng, kinds = np.random.default_rng([7, seed]), list(KINDS)
    if clean:
        return images, {}, {}
    few = len(images) <= 6
    labels = rng.choice(len(images), 1 if few else len(kinds), replace=False)
    chosen = [kinds[seed % len(kinds)]] if few else kinds
    out, marks = images.copy(), {}
    for label, kind in zip(labels.tolist(), chosen, strict=True):
        marks[label] = KINDS[kind](rng)
        out[label] = put(marks[label], out[label], rng)
    return out, dict(zip(labels.tolist(), chosen, strict=True)), marks


def put(mark: Mark, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mark images uint8 (n, 32, 32, 3)."""
    return np.stack([np.clip(np.rint(mark(x.astype(float), rng)), 0, 255).astype(np.uint8) for x in images])


def true_rise(net: planted.Net, images: np.ndarray, label: int, mark: Mark) -> float:
    """Measure the rise of a class's centred logit when its real mark is put on unseen images of other classes."""
    others = np.concatenate([stack[TRAINED : TRAINED + 10] for k, stack in enumerate(images) if k != label])
    before, after = (
        centre_logits(planted.logits(net, x)) for x in (others, put(mark, others, np.random.default_rng(0)))
    )
    return float((after - before)[:, label].mean())


def network(images: np.ndarray, seed: int, kept: Path | None) -> planted.Net:
    """Train on the first images of each class, or load what was trained before."""
    if kept and kept.is_file():
        net = planted.Net(len(images))
        net.load_state_dict(torch.load(kept))
        return net.eval()
    shown = images[:, :TRAINED]
    net = planted.fitted(
        shown.reshape(-1, *shown.shape[2:]), np.repeat(np.arange(len(images)), TRAINED), seed,
        EPOCHS * (2 if len(images) <= 6 else 1),
    )  # fmt: skip
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), kept)
    return net


def audited(images: np.ndarray, net: planted.Net, seed: int, shown: int) -> tuple[Sufficiency, float]:
    """Profiles of the unseen images of each class, and the CPU seconds that they took."""
    names = [f"{k:03d}" for k in range(len(images))]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, stack in zip(names, images, strict=True):
            (folder / "data" / name).mkdir(parents=True)
            for i, image in enumerate(stack[TRAINED:]):
                Image.fromarray(image).save(folder / "data" / name / f"{i:03d}.png")
        settings = AuditSettings(model="object", data=str(folder / "data"), batch=64, unit=4096, seed=seed)
        classifier = load_model(net, classes=names)
        audit = audit_inputs.Audit.of(settings, classifier)
        store = pipeline.open_run(audit, folder / "run")
        with store.lock():
            relevance_step.attribute(audit, store, workers=1, own=classifier)
            groups = opened_runs.class_groups(audit, store)
            reader = PartReader(
                DetectionUnits(store, audit.corpus, settings, groups, classifier.identity, classifier), shown
            )
            began = time.process_time()
            answers = sufficiency.run_units(audit, reader, LEVEL, workers=1)
            return sufficiency.make_sufficiency(answers, {}), time.process_time() - began


def one(folder: Path, seed: int, count: int, clean: bool, shown: int, kept: Path | None) -> list[dict]:
    """A line for each class of one network."""
    _, plain = planted.classes(folder, count, seed)
    images, kinds, marks = marked(plain, seed, clean)
    net = network(images, seed, kept)
    right = planted.logits(net, images[:, TRAINED:].reshape(-1, SIDE, SIDE, 3)).argmax(1) == np.repeat(
        np.arange(count), 500 - TRAINED
    )
    found, cpu = audited(images, net, seed, shown)
    print(f"seed {seed}: accuracy {right.mean():.3f}, {cpu:.0f} CPU s", file=sys.stderr, flush=True)
    return [
        {
            "seed": seed,
            "kind": kinds.get(profile.target, ""),
            "rise": true_rise(net, plain, profile.target, marks[profile.target]) if profile.target in marks else 0.0,
            "noted": [part.part for part in profile.noted],
            "strongest": profile.strongest.part,
            "area": profile.strongest.area,
            "shift": profile.strongest.shift,
            "p": min((part.p for part in profile.parts if part.p is not None), default=None),
        }
        for profile in found
    ]


def share(hits: list[bool]) -> str:
    """k of n, with the 95 % interval of Wilson."""
    if not hits:
        return "none of 0"
    found = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{sum(hits)} of {len(hits)} ({found.low:.2f} to {found.high:.2f})"


def told(lines: list[dict]) -> str:
    """Rates of detection by kind and of false alarms, as text."""
    out = []
    for kind in KINDS:
        mine = [li for li in lines if li["kind"] == kind]
        cells = [
            f"{li['rise']:+.1f}: {'noted ' + ', '.join(li['noted']) if li['noted'] else 'not noted'}" for li in mine
        ]
        out.append(f"{kind:10} {share([bool(li['noted']) for li in mine])}; rise of the real mark: {'; '.join(cells)}")
    used = [li for li in lines if li["kind"] and li["rise"] >= FLOOR]
    out.append(
        f"marked, where the real mark raises its class by {FLOOR:g}: {share([bool(li['noted']) for li in used])}"
    )
    clean = [li for li in lines if not li["kind"]]
    out.append(f"clean classes: {share([bool(li['noted']) for li in clean])}")
    for li in clean:
        if li["noted"]:
            area = "" if li["area"] is None else f"{li['area']:.2f} "  # a framing has none
            out.append(f"  {li['seed']}: {', '.join(li['noted'])} {area}{li['shift']:+.1f}")
    return "\n".join(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103])
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--out", type=Path, help="a folder for one JSON a seed; seeds that are there are not run again")
    parser.add_argument("--nets", type=Path, help="a folder to keep trained networks in")
    given = parser.parse_args()
    torch.set_num_threads(1)
    every = []
    for seed in given.seeds:
        name = f"{given.classes}-{'clean' if given.clean else 'marked'}-{seed}"
        kept = given.out / f"{name}.json" if given.out else None
        if kept and kept.is_file():
            every += json.loads(kept.read_text())
            continue
        net = given.nets / f"{name}.pt" if given.nets else None
        lines = one(given.data, seed, given.classes, given.clean, given.images, net)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(lines, indent=1))
        every += lines
    print(told(every))
