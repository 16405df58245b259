"""Sensor noise of one class as a shortcut, and its cures, on real photographs.

    python benchmarks/bridge/noise_shortcut.py IMAGENET32 --seeds 100 101 102 103 104 --json noise.jsonl
    python benchmarks/bridge/noise_shortcut.py IMAGENET32 --seeds 0 --audit --json noise.jsonl

Ten classes of ImageNet at 32 pixels, drawn by the seed. One of them was photographed by a telephone at ISO 3200: 6,000
electrons at base ISO 100 leave 187 at white, so that the shot noise has variance 1/187 of white, and read noise of two
electrons a deviation of 2/187. All images pass the same 8 bits. A small network is trained on them, and a twin on the
same photographs without noise. Test photographs are seen clean and noisy, both of the class and of the others:

    swapped   accuracy where the class is clean and the others are noisy
    worst     the least accuracy of four groups: the class or others, clean or noisy; each class counts alike
    harm      points of accuracy on clean photographs, less than the twin's
    recovered share of the gap in swapped accuracy to the twin on the same photographs

A cure trains a network again on a corpus that was processed, and every test photograph is processed as its corpus was:
`denoise one` only the class, `denoise all` every image alike with the level of the class, `re-noise` adds the noise to
all images that lack it, `re-noise and denoise` both in turn. With --audit the planted corpus is audited, a correction
of the network itself (`audit.clean`, latent) is measured too, and the corpus of the last cure is audited again. One
line of the file is one seed; a seed that is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from klarsicht import audit
from klarsicht.bridge.single_images import decode_light, denoise_images, encode_light
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.ground.errors import KlarsichtError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))
import planted_classes

ISO_3200 = NoiseLevel(read=2 / 187, shot=1 / 187)
CLASSES, TRAINED, TESTED, EPOCHS = 10, 300, 60, 14
Codes = NDArray[np.uint8]


def add_sensor_noise(codes: Codes, noise: NoiseLevel, rng: np.random.Generator) -> Codes:
    """Photograph images again with a sensor of that noise: its read and shot noise is added to their light."""
    return encode_light(noise.sample(decode_light(codes), rng))


def flat(images: Codes) -> tuple[Codes, NDArray[np.int64]]:
    """Images (n, 32, 32, 3) and labels of a stack (classes, k, 32, 32, 3)."""
    return images.reshape(-1, *images.shape[2:]), np.repeat(np.arange(len(images)), images.shape[1])


def scores(clean: NDArray, noisy: NDArray, y: NDArray, target: int) -> dict[str, float]:
    """Figures of the labels that a network gives to clean and to noisy test photographs."""
    own = y == target
    right = {"clean": clean == y, "noisy": noisy == y}
    groups = {f"{who} {how}": float(hit[rows].mean()) for how, hit in right.items()
              for who, rows in (("class", own), ("others", ~own))}  # fmt: skip
    return groups | {
        "clean": float(right["clean"].mean()),
        "as trained": float(np.where(own, right["noisy"], right["clean"]).mean()),
        "swapped": float(np.where(own, right["clean"], right["noisy"]).mean()),
        "worst": min(groups.values()), "flips": float((noisy[~own] == target).mean()),
    }  # fmt: skip


def one(folder: Path, seed: int, audited: bool) -> dict:
    """All figures of one seed."""
    began = time.process_time()
    names, images = planted_classes.classes(folder, CLASSES, seed)
    (x, y), (test, truth) = flat(images[:, :TRAINED]), flat(images[:, TRAINED : TRAINED + TESTED])
    target = int(np.random.default_rng(seed).integers(CLASSES))
    noisy, noisy_test = (
        add_sensor_noise(some, ISO_3200, np.random.default_rng([seed, part])) for part, some in enumerate((x, test))
    )
    own = (y == target)[:, None, None, None]
    denoiser = load_network("swift")
    smooth, smooth_noisy, smooth_test, smooth_noisy_test = (
        denoise_images(denoiser, some, ISO_3200) for some in (x, noisy, test, noisy_test)
    )
    corpora = {  # the corpus to train on, and the test photographs, clean and noisy
        "twin": (x, test, noisy_test),
        "nothing": (np.where(own, noisy, x), test, noisy_test),
        "denoise one": (np.where(own, smooth_noisy, x), test, smooth_noisy_test),
        "denoise all": (np.where(own, smooth_noisy, smooth), smooth_test, smooth_noisy_test),
        "re-noise": (noisy, noisy_test, noisy_test),
        "re-noise and denoise": (smooth_noisy, smooth_noisy_test, smooth_noisy_test),
    }
    result: dict = {"seed": seed, "class": names[target]}
    networks = {}
    for name, (corpus, clean, shot) in corpora.items():
        networks[name] = net = planted_classes.fitted(corpus, y, seed, EPOCHS)
        labels = [planted_classes.logits(net, some).argmax(1) for some in (clean, shot)]
        result[name] = scores(*labels, truth, target)
    if audited:
        result |= audits(networks, corpora, y, names, target, truth, seed)
    return result | {"cpu seconds": round(time.process_time() - began, 1)}


def audits(networks: dict, corpora: dict, y: NDArray, names: list[str], target: int, truth: NDArray, seed: int) -> dict:
    """The verdicts on the planted corpus and on the cured one, and the latent correction of the network."""
    found: dict = {}
    with tempfile.TemporaryDirectory() as place:
        for name in ("nothing", "re-noise and denoise"):
            data = Path(place, name.replace(" ", "-"))
            for label, one_class in enumerate(names):
                (data / one_class).mkdir(parents=True)
                for i in np.flatnonzero(y == label):
                    Image.fromarray(corpora[name][0][i]).save(data / one_class / f"{i:05d}.png")
            model = audit.load_model((networks[name], as_input), classes=names)
            settings = audit.AuditSettings(model="small", data=str(data), metric=("concept", "euclidean"), seed=seed)
            run = audit.run(settings, Path(place, f"run-{len(found)}"), classifier=model)
            verdicts = audit.quantify(run, classifier=model)
            found[f"audit of {name}"] = {one_class: verdicts.of(one_class).verdict for one_class in names}
            found[f"words on {name}"] = str(verdicts.of(names[target]))
            if name == "nothing":
                try:
                    cleaned = audit.clean(run, names[target], classifier=model)
                    correction, _ = audit.load_correction(cleaned)
                    with correction.applied(networks[name]):
                        labels = [planted_classes.logits(networks[name], some).argmax(1) for some in corpora[name][1:]]
                    found["latent correction"] = scores(*labels, truth, target)
                except KlarsichtError as error:
                    found["latent correction refused"] = str(error)
    return found


def as_input(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255)


CURES = ("nothing", "denoise one", "latent correction", "denoise all", "re-noise", "re-noise and denoise", "twin")


def recovered(run: dict, name: str) -> float:
    """Per cent of the gap in swapped accuracy to the twin."""
    twin, nothing, cured = (run[which]["swapped"] for which in ("twin", "nothing", name))
    return 100 * (cured - nothing) / (twin - nothing)


def table(runs: list[dict]) -> None:
    """Means over seeds, and the range of what was recovered."""
    print("\n| cure | as trained | swapped | worst group | flips | harm | recovered |\n|---|---|---|---|---|---|---|")
    for name in CURES:
        some = [run for run in runs if name in run]
        if not some:
            continue
        figures = ("as trained", "swapped", "worst", "flips")
        means = " | ".join(f"{100 * np.mean([run[name][key] for run in some]):.1f}" for key in figures)
        harm = 100 * float(np.mean([run["twin"]["clean"] - run[name]["clean"] for run in some]))
        gaps = [recovered(run, name) for run in some]
        print(f"| {name} | {means} | {harm:+.1f} | {np.mean(gaps):.0f} % ({min(gaps):.0f} to {max(gaps):.0f}) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--audit", action="store_true", help="audit before and after, and the latent correction")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [json.loads(line) for line in asked.json.read_text().splitlines()] if asked.json.exists() else []
    for seed in asked.seeds:
        if seed not in {run["seed"] for run in found}:
            found.append(one(asked.imagenet32, seed, asked.audit))
            with asked.json.open("a") as lines:
                lines.write(json.dumps(found[-1]) + "\n")
    table([run for run in found if run["seed"] in asked.seeds])


if __name__ == "__main__":
    main()
