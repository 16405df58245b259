"""Sensor noise of one class as a shortcut, and its cures, on real photographs.

    python benchmarks/bridge/noise_shortcut.py IMAGENET32 --seeds 100 101 102 103 104 --json noise.jsonl
    python benchmarks/bridge/noise_shortcut.py IMAGENET32 --seeds 0 --audit --json noise.jsonl
    python benchmarks/bridge/noise_shortcut.py IMAGENET32 --seeds 105 106 107 --parts --json parts.jsonl
    python benchmarks/bridge/noise_shortcut.py IMAGENET32 --seeds 105 108 109 --textures --json textures.jsonl
    python benchmarks/bridge/noise_shortcut.py IMAGENET32 --seeds 100 101 102 103 104 --latent --json latent.jsonl

Ten classes of ImageNet at 32 pixels, drawn by the seed. One of them was photographed by a telephone at ISO 3200: 6,000
electrons at base ISO 100 leave 187 at white, so that the shot noise has variance 1/187 of white, and read noise of two
electrons a deviation of 2/187. All images pass the same 8 bits. A small network is trained on them, and a twin on the
same photographs without noise. Test photographs are seen clean and noisy, both of the class and of the others:

    swapped   accuracy where the class is clean and the others are noisy
    worst     the least accuracy of four groups: the class or others, clean or noisy; each class counts alike
    harm      points of accuracy on clean photographs, less than the twin's
    recovered share of the gap in swapped accuracy to the twin on the same photographs

A cure trains a network again on a corpus that was processed, and every test photograph is processed as its corpus was:
`denoise one` only the class, `denoise all` every image alike with the level of the class, `denoise all as estimated`
with the level that `klarsicht audit clean-data` estimates in it, `re-noise` adds the noise to all images that lack it,
`re-noise and denoise` both in turn.

With --audit the planted corpus is audited in place of that, and the corpus that was denoised alike is audited again, by
`audit quantify` without the embedding that it learns and `audit shortcuts` without surroundings, which take minutes
each. Latent corrections of the network of the planted corpus are rows of the same table: P-ClArC, RR-ClArC and what
`audit.clean` chooses, fitted on images with noise of `audit plant`. With --parts both corpora are audited by `audit
shortcuts` alone, which takes seconds, and no correction is fitted. With --textures the planted corpus and the twin's
are asked what `audit quantify` asks of whole classes, and nothing else. With --latent the latent corrections alone are
rows of the table. Lines of one seed in the file belong together;
what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from klarsicht import audit
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.results.words import VerdictKind
from klarsicht.audit.verdicts.quantification import quantification, sufficiency
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.whole_textures import find_followed_textures
from klarsicht.bridge.class_noise import estimate_noise
from klarsicht.bridge.single_images import decode_light, denoise_images, encode_light
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.ground.errors import KlarsichtError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))
import planted_classes

ISO_3200 = NoiseLevel(read=2 / 187, shot=1 / 187)
CLASSES, TRAINED, TESTED, EPOCHS = 10, 300, 60, 14
AUDITED = ("nothing", "denoise all")
LATENT = {"P-ClArC": "project", "RR-ClArC": "penalise", "chosen by clean": "auto"}
ALARMS = (
    VerdictKind.POISONED, VerdictKind.CONTEXT, VerdictKind.PRESENT, VerdictKind.UNTESTED, VerdictKind.FOLLOWED,
)  # fmt: skip
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


def make_corpora(folder: Path, seed: int) -> tuple[list[str], int, NDArray, NDArray, dict]:
    """Names of the classes, the class with noise, labels of training and test photographs, and by cure the corpus to
    train on and the test photographs, clean and noisy."""
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
    estimated = estimate_noise(map(Image.fromarray, noisy[y == target]))
    print(f"seed {seed}: estimated {estimated}, planted {ISO_3200}", flush=True)
    planted = np.where(own, noisy, x)
    by_estimate = (denoise_images(denoiser, some, estimated) for some in (planted, test, noisy_test))
    corpora = {
        "twin": (x, test, noisy_test),
        "nothing": (planted, test, noisy_test),
        "denoise one": (np.where(own, smooth_noisy, x), test, smooth_noisy_test),
        "denoise all": (np.where(own, smooth_noisy, smooth), smooth_test, smooth_noisy_test),
        "denoise all as estimated": tuple(by_estimate),
        "re-noise": (noisy, noisy_test, noisy_test),
        "re-noise and denoise": (smooth_noisy, smooth_noisy_test, smooth_noisy_test),
    }
    return names, target, y, truth, corpora


def train_cures(folder: Path, seed: int) -> dict:
    """Figures of every cure that trains a network again."""
    began = time.process_time()
    names, target, y, truth, corpora = make_corpora(folder, seed)
    result: dict = {"seed": seed, "class": names[target]}
    for name, (corpus, *tests) in corpora.items():
        net = planted_classes.fitted(corpus, y, seed, EPOCHS)
        result[name] = scores(*(planted_classes.logits(net, some).argmax(1) for some in tests), truth, target)
    return result | {"cpu seconds": round(time.process_time() - began, 1)}


def ask_textures(folder: Path, seed: int) -> dict:
    """The classes that `audit quantify` names for their fine texture, planted and not, and the least p of each."""
    names, images = planted_classes.classes(folder, CLASSES, seed)
    (x, y), target = flat(images[:, :TRAINED]), int(np.random.default_rng(seed).integers(CLASSES))
    noisy = add_sensor_noise(x, ISO_3200, np.random.default_rng([seed, 0]))
    corpora = {"nothing": np.where((y == target)[:, None, None, None], noisy, x), "twin": x}
    result: dict = {"seed": seed, "class": names[target]}
    with tempfile.TemporaryDirectory() as place:
        for name, corpus in corpora.items():
            net = planted_classes.fitted(corpus, y, seed, EPOCHS)
            model = audit.load_model((net, as_input), classes=names)
            write_corpus(Path(place, name), corpus, y, names)
            settings = audit.AuditSettings(model="small", data=str(Path(place, name)), metric=("concept",), seed=seed)
            run, began = audit.run(settings, Path(place, f"{name} run"), classifier=model), time.process_time()
            with open_run(run, level=LEVEL, workers=1, data=None, classifier=model) as (opened, work):
                found = find_followed_textures(opened, work, LEVEL, 1)
            parts = {one.name: one.parts[0] for one in found}
            result[f"textures of {name}"] = {
                "named": [line.profile.name for line in found.headlines], "seconds": time.process_time() - began,
                "p": {which: [round(part.p, 5), round(part.shift, 2)] for which, part in parts.items()},
            }  # fmt: skip
    print(json.dumps(result), flush=True)
    return result


def audit_and_correct(folder: Path, seed: int, *, parts_alone: bool = False, audited: Sequence[str] = AUDITED) -> dict:
    """Audits of the planted corpus and of the cured ones, and figures of the latent corrections."""
    quantification.learn_embedding = lambda work: None  # it takes minutes a corpus, and sees groups within a class
    sufficiency.examine_surroundings = lambda audit, work, workers: None  # minutes, for places, and noise has none
    began = time.process_time()
    names, target, y, truth, corpora = make_corpora(folder, seed)
    result: dict = {"seed": seed, "class": names[target]}
    with tempfile.TemporaryDirectory() as place:
        for name in audited:
            corpus, *tests = corpora[name]
            net = planted_classes.fitted(corpus, y, seed, EPOCHS)
            model = audit.load_model((net, as_input), classes=names)
            write_corpus(Path(place, name), corpus, y, names)
            settings = audit.AuditSettings(model="small", data=str(Path(place, name)), metric=("concept",), seed=seed)
            run = audit.run(settings, Path(place, f"{name} run"), classifier=model)
            result[f"audit of {name}"] = audit_classes(run, model, quantified=not parts_alone)
            print(name, json.dumps(result[f"audit of {name}"]), flush=True)
            if name == "nothing" and not parts_alone:
                for row, method in LATENT.items():
                    result[row] = correct(run, model, net, names[target], method, tests, truth, target)
    return result | {"cpu seconds of audits": round(time.process_time() - began, 1)}


def correct_alone(folder: Path, seed: int) -> dict:
    """Figures of the planted network, of its twin and of the latent corrections, without audits."""
    names, images = planted_classes.classes(folder, CLASSES, seed)
    (x, y), (test, truth) = flat(images[:, :TRAINED]), flat(images[:, TRAINED : TRAINED + TESTED])
    target = int(np.random.default_rng(seed).integers(CLASSES))
    noisy, noisy_test = (
        add_sensor_noise(some, ISO_3200, np.random.default_rng([seed, part])) for part, some in enumerate((x, test))
    )
    corpora = {"twin": x, "nothing": np.where((y == target)[:, None, None, None], noisy, x)}
    result: dict = {"seed": seed, "class": names[target]}
    nets = {name: planted_classes.fitted(corpus, y, seed, EPOCHS) for name, corpus in corpora.items()}
    for name, net in nets.items():
        labels = (planted_classes.logits(net, some).argmax(1) for some in (test, noisy_test))
        result[name] = scores(*labels, truth, target)
    net, began = nets["nothing"], time.process_time()
    with tempfile.TemporaryDirectory() as place:
        model = audit.load_model((net, as_input), classes=names)
        write_corpus(Path(place, "nothing"), corpora["nothing"], y, names)
        settings = audit.AuditSettings(model="small", data=f"{place}/nothing", metric=("concept",), seed=seed)
        run = audit.run(settings, Path(place, "run"), classifier=model)
        for row, method in LATENT.items():
            result[row] = correct(run, model, net, names[target], method, [test, noisy_test], truth, target)
            print(row, json.dumps(result[row]), flush=True)
    return result | {"cpu seconds of corrections": round(time.process_time() - began, 1)}


def audit_classes(run: Any, model: Any, *, quantified: bool) -> dict:
    """The classes that `audit quantify` and `audit shortcuts` name, with the kind of the verdict and the parts; the
    part of the least p of every class, and what is said."""
    verdicts = audit.quantify(run, classifier=model) if quantified else ()
    profiles = audit.measure_sufficiency(run, classifier=model)
    least = {one.name: min(one.parts, key=lambda part: part.p) for one in profiles}
    return {
        "verdicts": {
            one.name: [one.kind_of_class.label, one.detection.sign] for one in verdicts if one.kind_of_class in ALARMS
        },
        "parts": {one.name: [part.part for part in one.noted] for one in profiles if one.noted},
        "least p": {name: [part.part, round(part.p, 4), round(part.shift, 2)] for name, part in least.items()},
        "said": [line.headline for line in profiles.headlines],
    }


def correct(run, model, net, name: str, method: str, tests: list, truth: NDArray, target: int) -> dict:
    """Figures of the network with a latent correction for noise, fitted on images on which noise is drawn."""
    try:
        cleaned = audit.clean(run, name, CleanSettings(method=method), kind="noise", classifier=model)
    except KlarsichtError as error:
        return {"refused": str(error)}
    correction, _ = audit.load_correction(cleaned)
    with correction.applied(net):
        labels = [planted_classes.logits(net, some).argmax(1) for some in tests]
    return scores(*labels, truth, target) | {"chosen": str(cleaned.choice.chosen), "judged": cleaned.judgement.verdict}


def write_corpus(data: Path, images: Codes, y: NDArray, names: list[str]) -> None:
    """Write images as a folder of class folders."""
    for label, one_class in enumerate(names):
        (data / one_class).mkdir(parents=True)
        for i in np.flatnonzero(y == label):
            Image.fromarray(images[i]).save(data / one_class / f"{i:05d}.png")


def as_input(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255)


CURES = (
    "nothing",
    *LATENT,
    "denoise one",
    "denoise all",
    "denoise all as estimated",
    "re-noise",
    "re-noise and denoise",
    "twin",
)


def recovered(run: dict, name: str) -> float:
    """Per cent of the gap in swapped accuracy to the twin."""
    twin, nothing, cured = (run[which]["swapped"] for which in ("twin", "nothing", name))
    return 100 * (cured - nothing) / (twin - nothing)


def table(runs: list[dict]) -> None:
    """Means over seeds, and the range of what was recovered."""
    print("\n| cure | seeds | as trained | swapped | worst group | flips | harm | recovered |")
    print("|---|---|---|---|---|---|---|---|")
    for name in CURES:
        some = [run for run in runs if "twin" in run and "swapped" in run.get(name, ())]
        if not some:
            continue
        figures = ("as trained", "swapped", "worst", "flips")
        means = " | ".join(f"{100 * np.mean([run[name][key] for run in some]):.1f}" for key in figures)
        harm = 100 * float(np.mean([run["twin"]["clean"] - run[name]["clean"] for run in some]))
        gaps = [recovered(run, name) for run in some]
        share = f"{np.mean(gaps):.0f} % ({min(gaps):.0f} to {max(gaps):.0f})"
        print(f"| {name} | {len(some)} | {means} | {harm:+.1f} | {share} |")


def list_audits(runs: list[dict]) -> None:
    """The classes that were named by each audit of each seed."""
    for run in runs:
        for name in AUDITED:
            if f"audit of {name}" in run:
                print(f"seed {run['seed']}, planted in {run['class']}, {name}: {json.dumps(run[f'audit of {name}'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--audit", action="store_true", help="audits and latent corrections in place of the cures")
    parser.add_argument("--parts", action="store_true", help="`audit shortcuts` of both corpora alone")
    parser.add_argument("--latent", action="store_true", help="latent corrections beside no cure and the twin, alone")
    parser.add_argument("--textures", action="store_true", help="fine textures of whole classes alone")
    parser.add_argument("--corpora", nargs="+", choices=AUDITED, default=AUDITED, help="which of the two are audited")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[int, dict] = {}
    for line in asked.json.read_text().splitlines() if asked.json.exists() else ():
        found.setdefault((one := json.loads(line))["seed"], {}).update(one)
    audits = partial(audit_and_correct, parts_alone=asked.parts, audited=asked.corpora)
    measure, key = (audits, "audit of nothing") if asked.audit or asked.parts else (train_cures, "twin")
    if asked.textures:
        measure, key = ask_textures, "textures of nothing"
    if asked.latent:
        measure, key = correct_alone, "cpu seconds of corrections"
    for seed in asked.seeds:
        if key not in found.setdefault(seed, {}):
            found[seed].update(measured := measure(asked.imagenet32, seed))
            with asked.json.open("a") as lines:
                lines.write(json.dumps(measured) + "\n")
    table([found[seed] for seed in asked.seeds])
    list_audits([found[seed] for seed in asked.seeds])


if __name__ == "__main__":
    main()
