"""Six kinds of artifact in six of the ten classes of Fashion-MNIST: which classes are called, and for which images?

    python benchmarks/audit/six_kinds.py --seeds 0 1 2
    python benchmarks/audit/six_kinds.py --seeds 0 --trained

A tag, a caption, a border, noise, a blur and a brighter light are planted in a class each, drawn by the seed; the other
four classes stay as they are. Detectors look at images only; --trained also trains a small network on all 60,000
pictures, audits it, and says of each artifact whether it is used: whether the real one, put on test pictures of the
other nine classes, raises its class most of all, by half a logit or with two more of a hundred taken for the class.
F1 is that of the images that the strongest sign names, with nothing set by hand. The rank of a planted class is one
more than the number of clean classes before it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.results.logit_effect import LogitEffect, matters
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.numerics.statistics.logits import centre_logits

sys.path.insert(0, str(Path(__file__).parent))
import fashion
from quantify_imagenet32 import audited, looked, share

SHARES = (0.3, 0.1, 0.05, 0.02, 0.01)


def plant(kind: str) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda x, rng: artifacts.PLANTS[kind](x, rng).pixels


KINDS = {kind: plant(kind) for kind in ("tag", "text", "border", "noise", "blur", "cast")}


def planted(images: np.ndarray, part: float, rng: np.random.Generator) -> tuple[np.ndarray, dict[int, tuple]]:
    """Classes (10, n, 28, 28) with six plants, and for each planted class its kind and which images carry it (n,)."""
    out, plants = images.copy(), {}
    for kind, label in zip(KINDS, rng.permutation(len(images)), strict=False):
        carries = rng.permutation(images.shape[1]) < round(part * images.shape[1])
        for row in np.flatnonzero(carries):
            out[label, row] = KINDS[kind](out[label, row], rng)
        plants[int(label)] = (kind, carries)
    return out, plants


def seen(images: np.ndarray, seed: int) -> list[dict]:
    """What detectors say of images (10, n, 28, 28)."""
    return looked(images[..., None], seed)


def judged(images: np.ndarray, net: torch.nn.Module, seed: int) -> list[dict]:
    """What an audit of the network says of them."""
    with tempfile.TemporaryDirectory() as folder:
        found, _, _ = audited(images, net, Path(folder), seed)
    names = ("p", "p_own", "sign", "artifactual", "poisoned", "tried", "z", "p_use", "low", "flips")
    return [
        {name: getattr(found[k], name) for name in names}
        | {"members": np.array([int(Path(m).stem) for m in found[k].members])}
        for k in range(len(images))
    ]


def use(net: torch.nn.Module, kind: str, label: int, rng: np.random.Generator) -> dict:
    """What the real artifact does on test pictures of the other classes."""
    x, y = fashion.pictures("t10k")
    x = x[y != label][::10]
    marked = np.stack([KINDS[kind](one, rng) for one in x])
    with torch.no_grad():
        plain, under = (net(torch.from_numpy(some)[:, None].float() / 255).numpy() for some in (x, marked))
    rise = (centre_logits(under) - centre_logits(plain)).mean(0)
    flips = float((under.argmax(1) == label).mean() - (plain.argmax(1) == label).mean())
    used = rise[label] == rise.max() and matters(LogitEffect.of_values(rise[label], flips), "value")
    return {"rise": float(rise[label]), "more": int((rise > rise[label]).sum()), "turned": flips, "used": bool(used)}


def network(images: np.ndarray, seed: int, file: Path | None) -> torch.nn.Module:
    """Trained on classes (10, n, 28, 28); one that was kept is not trained again."""
    if file and file.is_file():
        net = fashion.network(seed)
        net.load_state_dict(torch.load(file))
        return net.eval()
    net = fashion.trained(images.reshape(-1, 28, 28), np.repeat(np.arange(10), images.shape[1]), seed)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), file)
    return net


def one(part: float, seed: int, each: int, trained: bool, kept: Path | None) -> list[dict]:
    rng = np.random.default_rng(seed)
    x, y = fashion.pictures("train")
    images = np.stack([x[rng.permutation(np.flatnonzero(y == k))] for k in range(10)])
    images, plants = planted(images, part, rng)
    net = network(images, seed, kept / f"six-{part:g}-{seed}.pt" if kept else None) if trained else None
    lines = []
    for label, told in enumerate(judged(images[:, :each], net, seed) if net else seen(images[:, :each], seed)):
        kind, carries = plants.get(label, ("", np.zeros(each, bool)))
        members, rows = told.pop("members"), np.flatnonzero(carries[:each])
        f1 = 2 * len(np.intersect1d(members, rows)) / max(len(members) + len(rows), 1)
        line = {"seed": seed, "share": part, "class": fashion.CLASSES[label], "kind": kind, "f1": f1} | told
        lines.append(line | (use(net, kind, label, rng) if net and kind else {}))
    order = sorted(lines, key=lambda li: (not li.get("poisoned"), not li["artifactual"], li["extended"], li["p_own"]))
    clean = [position for position, li in enumerate(order) if not li["kind"]]
    return [li | {"rank": 1 + sum(c < order.index(li) for c in clean)} for li in lines]


def cell(mine: list[dict]) -> str:
    """Called of planted; for each its rank, its F1, and whether it is used, and called poisoned."""
    each = []
    for li in mine:
        word = " used" * li.get("used", False) + " poisoned" * li.get("poisoned", False)
        each.append(f"{li['rank']}, {li['f1']:.2f}{word}")
    return f"{sum(li['artifactual'] for li in mine)}/{len(mine)} ({'; '.join(each)})"


def told(lines: list[dict]) -> str:
    shares = sorted({li["share"] for li in lines}, reverse=True)
    out = ["| kind | " + " | ".join(f"{part:.0%}" for part in shares) + " |", "|---" * (len(shares) + 1) + "|"]
    for kind in KINDS:
        cells = [cell([li for li in lines if (li["kind"], li["share"]) == (kind, part)]) for part in shares]
        out.append(f"| {kind} | " + " | ".join(cells) + " |")
    clean = [li for li in lines if not li["kind"]]
    out.append(f"clean classes called artifactual: {share([li['artifactual'] for li in clean])}")
    out += [f"  {li['class']}, {li['sign']}, {li['extended']:.4f}" for li in clean if li["artifactual"]]
    trained = [li for li in lines if "poisoned" in li]
    for name, some in (
        ("clean classes", [li for li in trained if not li["kind"]]),
        ("classes whose artifact is used", [li for li in trained if li.get("used")]),
        ("classes whose artifact is not used", [li for li in trained if li["kind"] and not li["used"]]),
    ):
        out += [f"{name} called poisoned: {share([li['poisoned'] for li in some])}"] if trained else []
    return "\n".join(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--each", type=int, default=1200, help="images a class that are audited")
    parser.add_argument("--trained", action="store_true", help="train a network for each share, and audit it")
    parser.add_argument("--nets", type=Path, help="a folder to keep trained networks in")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    every: list[dict] = []
    for number in given.seeds:
        for portion in given.shares:
            every += one(portion, number, given.each, given.trained, given.nets)
            print(told(every[-10:]), file=sys.stderr)
            if given.json:
                given.json.write_text(json.dumps(every, indent=1))
    print(told(every))
