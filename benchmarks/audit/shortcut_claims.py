"""Are the claims of `audit shortcuts` right in sign and size? Every printed number beside one by other code.

    python benchmarks/audit/shortcut_claims.py RUN --model chest.py:build --data pictures.csv --classes NORMAL PNEUMONIA

Nothing of the audit is used but its results in RUN/shortcuts.json. Pictures of the table (path,label[,source]) are read
by Pillow and the model's own transform. Parts are kept and exchanged here anew, on --pictures of each class (60) and
pairs drawn anew; areas are of scikit-learn's logistic regression, cross-validated with sources together. A claim agrees
where the two values differ by no more than both intervals allow, and have one sign where both are significant.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

BATCH = 32
Pixels = np.ndarray  # float (n, C, H, W), 0 to 1


class Network:
    """The user's network, from pixels to logits and to the input of its last linear layer."""

    def __init__(self, spec: str) -> None:
        file, _, name = spec.rpartition(":")
        module_spec = importlib.util.spec_from_file_location("own_model", file)
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        self.net, self.transform = getattr(module, name)()
        self.net.eval()
        last = [m for m in self.net.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.register_forward_hook(lambda m, inputs, out: self.seen.append(inputs[0].detach().numpy()))
        self.seen: list[np.ndarray] = []
        ends = [self.transform(Image.new("RGB", (300, 300), (v,) * 3)).mean((1, 2)).numpy() for v in (0, 255)]
        self.black, self.white = (end[:, None, None] for end in ends)

    def read(self, path: str) -> Pixels:
        image = self.transform(Image.open(path).convert("RGB")).numpy()
        return np.clip((image - self.black) / (self.white - self.black), 0, 1)

    @torch.no_grad()
    def show(self, pixels: Pixels) -> tuple[np.ndarray, np.ndarray]:
        """Logits and features of pixels."""
        self.seen, logits = [], []
        for start in range(0, len(pixels), BATCH):
            x = pixels[start : start + BATCH] * (self.white - self.black) + self.black
            logits.append(self.net(torch.from_numpy(x.astype(np.float32))).numpy())
        return np.concatenate(logits), np.concatenate(self.seen)


def border(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    near = np.minimum(np.minimum(y, shape[0] - 1 - y), np.minimum(x, shape[1] - 1 - x))
    return near < round(0.1 * min(shape))


def corner(low: bool, right: bool) -> Callable[[tuple[int, int]], np.ndarray]:
    def mask(shape: tuple[int, int]) -> np.ndarray:
        y, x = np.mgrid[: shape[0], : shape[1]]
        a, b = y < round(0.25 * shape[0]), x < round(0.25 * shape[1])
        return (a[::-1] if low else a) & (b[:, ::-1] if right else b)

    return mask


CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
MASKS = {"border": border, **{name: corner(*at) for name, at in CORNERS.items()}}
MASKS["corners"] = lambda shape: np.any([MASKS[name](shape) for name in CORNERS], 0)


def zoomed(pixels: Pixels, top: float, left: float, tall: float, wide: float) -> Pixels:
    """Resample a window by torch's bilinear grid, which shares no code with Pillow."""
    grid = torch.nn.functional.affine_grid(
        torch.tensor([[[wide, 0, 2 * left + wide - 1], [0, tall, 2 * top + tall - 1]]], dtype=torch.float32)
        .expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False,
    )  # fmt: skip
    x = torch.from_numpy(pixels.astype(np.float32))
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False).numpy()


FRAMES = {
    "enlarged": ((1 / 8, 1 / 8, 3 / 4, 3 / 4), None),
    "stretched in width": ((0, 1 / 8, 1, 3 / 4), None),
    "stretched in height": ((1 / 8, 0, 3 / 4, 1), None),
    "shifted up": ((1 / 4, 1 / 8, 3 / 4, 3 / 4), (1 / 8, 1 / 8, 3 / 4, 3 / 4)),
    "shifted down": ((0, 1 / 8, 3 / 4, 3 / 4), (1 / 8, 1 / 8, 3 / 4, 3 / 4)),
    "shifted left": ((1 / 8, 1 / 4, 3 / 4, 3 / 4), (1 / 8, 1 / 8, 3 / 4, 3 / 4)),
    "shifted right": ((1 / 8, 0, 3 / 4, 3 / 4), (1 / 8, 1 / 8, 3 / 4, 3 / 4)),
}


def exchange(part: str, images: Pixels, donors: Pixels) -> Pixels:
    """Give images the part of donors."""
    if part in MASKS:
        return np.where(MASKS[part](images.shape[2:]), donors, images)
    if part == "spectrum":
        phase, size = np.fft.fft2(images * 255), np.abs(np.fft.fft2(donors * 255))
        return np.clip(np.fft.ifft2(size * np.exp(1j * np.angle(phase))).real / 255, 0, 1)
    if part == "fine texture":
        shape = images.shape[2:]
        cycles = [np.minimum(np.arange(n), n - np.arange(n)) / n for n in shape]  # of a row, of a column
        fine = cycles[0][:, None] ** 2 + cycles[1][None, : shape[1] // 2 + 1] ** 2 >= 1 / 16
        given, own = np.fft.rfft2(donors), np.fft.rfft2(images)
        return np.clip(np.fft.irfft2(own + fine * (given - own), shape), 0, 1)
    if part == "colours":
        out = np.empty_like(images)
        for i, c in np.ndindex(images.shape[:2]):
            flat = images[i, c].ravel()
            ranks = np.empty(len(flat), int)
            ranks[np.argsort(flat, kind="stable")] = np.arange(len(flat))
            out[i, c] = np.sort(donors[i, c].ravel())[ranks].reshape(images.shape[2:])
        return out
    raise KeyError(part)


def keep(part: str, images: Pixels, fill: np.ndarray) -> Pixels | None:
    """Keep a part of images; None of parts whose rest is destroyed at random."""
    return np.where(MASKS[part](images.shape[2:]), images, fill[:, None, None]) if part in MASKS else None


def area_of(features: np.ndarray, own: np.ndarray, sources: np.ndarray) -> tuple[float, float]:
    """Area of a cross-validated logistic regression, and half of its 95 % interval (Hanley and McNeil)."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    score = cross_val_predict(model, features, own, groups=sources, cv=folds, method="decision_function")
    a, m, n = roc_auc_score(own, score), own.sum(), (~own).sum()
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    return a, 1.96 * float(np.sqrt((a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)))


def mean_of(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), 1.96 * float(values.std(ddof=1) / np.sqrt(len(values)))


def share_of(hits: np.ndarray) -> tuple[float, float]:
    """A share and half of its interval, of one success and one failure more."""
    p = (hits.sum() + 1) / (len(hits) + 2)
    return float(hits.mean()), 1.96 * float(np.sqrt(p * (1 - p) / len(hits)))


def agrees(printed: float, half: float, own: float, other: float) -> bool:
    """Whether two values differ by no more than both intervals allow, and not in sign where both are significant."""
    opposite = printed * own < 0 and abs(printed) > half and abs(own) > other
    return abs(printed - own) <= np.hypot(half, other) + 0.01 and not opposite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", nargs="+", required=True, help="labels, in the order of the outputs")
    parser.add_argument("--only", nargs="+", help="CLASS:PART, as 'glioma:border'; otherwise all claims are tried")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng, network = np.random.default_rng(given.seed), Network(given.model)
    lines = list(csv.DictReader(given.data.read_text().splitlines()))
    rows = [
        rng.permutation([i for i, line in enumerate(lines) if line["label"] == c])[: given.pictures]
        for c in given.classes
    ]
    images = [np.stack([network.read(lines[i]["path"]) for i in some]) for some in rows]
    sources = np.concatenate([[lines[i].get("source") or lines[i]["path"] for i in some] for some in rows])
    label, fill = (
        np.repeat(np.arange(len(rows)), [len(some) for some in rows]),
        np.mean([x.mean((0, 2, 3)) for x in images], 0),
    )
    found, claims = json.loads((given.run / "shortcuts.json").read_text()), []

    def centred(logits: np.ndarray, k: int) -> np.ndarray:
        return logits[:, k] - logits.mean(1)

    for profile in found["classes"]:
        k, n = profile["target"], profile["n"] // 2
        others = np.concatenate([x for j, x in enumerate(images) if j != k])
        other_class = np.concatenate([np.full(len(x), j) for j, x in enumerate(images) if j != k])
        for part in profile["parts"]:
            name = part["part"]
            if given.only and f"{profile['class']}:{name}" not in given.only:
                continue
            if name in FRAMES:
                window, control = FRAMES[name]
                shown = [zoomed(others, *window), zoomed(others, *control) if control else others]
                mine = [zoomed(images[k], *window), zoomed(images[k], *control) if control else images[k]]
            elif name in (*MASKS, "spectrum", "colours", "fine texture"):
                donors = images[k][rng.integers(len(images[k]), size=len(others))]
                fellows = np.stack([images[c][rng.integers(len(images[c]))] for c in other_class])
                shown = [exchange(name, others, donors), exchange(name, others, fellows)]
                mine = [
                    exchange(name, images[k], others[rng.integers(len(others), size=len(images[k]))]),
                    exchange(name, images[k], images[k][rng.permutation(len(images[k]))]),
                ]
            else:
                continue
            (given_part, _), (plain, _) = network.show(shown[0]), network.show(shown[1])
            rise = mean_of(centred(given_part, k) - centred(plain, k))
            claims.append(
                (profile["class"], name, "rise", part["shift"], (part["shift_high"] - part["shift_low"]) / 2, *rise)
            )
            for key, logits in (("taken", given_part), ("taken_control", plain)):
                half = 1.96 * np.sqrt((part[key] * n + 1) / (n + 2) * (1 - (part[key] * n + 1) / (n + 2)) / n)
                claims.append((profile["class"], name, key, part[key], half, *share_of(logits.argmax(1) == k)))
            for key, pixels in zip(("stays", "stays_control"), mine, strict=True):
                if part[key] is not None:
                    half = 1.96 * np.sqrt((part[key] * n + 1) / (n + 2) * (1 - (part[key] * n + 1) / (n + 2)) / n)
                    claims.append(
                        (
                            profile["class"],
                            name,
                            key,
                            part[key],
                            half,
                            *share_of(network.show(pixels)[0].argmax(1) == k),
                        )
                    )
            if name in MASKS:
                kept = np.concatenate([keep(name, x, fill) for x in images])
                area = area_of(network.show(kept)[1], label == k, sources)
                claims.append((profile["class"], name, "area", part["area"], (part["high"] - part["low"]) / 2, *area))
    right = [agrees(*claim[3:]) for claim in claims]
    for (name, part, key, printed, half, own, other), fits in zip(claims, right, strict=True):
        values = f"{printed:+7.2f} ± {half:.2f}   {own:+7.2f} ± {other:.2f}"
        print(f"{name:12} {part:20} {key:14} {values}   {'' if fits else 'DIFFERS'}")
    print(f"{sum(right)} of {len(right)} claims agree in sign and size")


if __name__ == "__main__":
    main()
