"""Cleaning three ImageNet networks of marks that no image carries: `audit clean --kind` for classes beside "carton".

    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_cleaning.py PHOTOGRAPHS --out OUT --choose
    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_cleaning.py PHOTOGRAPHS --out OUT

PHOTOGRAPHS and NETWORKS as in `imagenet_carton.py`. --choose puts a draw of every family of `audit plant` on
photographs of one half, and names the class whose ratio (its median uplift to that of the middle class) is largest by
the second largest of the three networks; written to OUT/chosen.json, strongest families first. Then, per chosen pair
and network, the correction is fitted and chosen on that half by the command, and measured once on the other half: with
the draw that was fitted, and with another draw of the same family. A network is audited once for all families; what
OUT/measured.jsonl holds is printed and not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import special

sys.path.insert(0, str(Path(__file__).parent))
import imagenet_carton
import imagenet_marks as marks
from imagenet_artifacts import NETWORKS, halves
from imagenet_carton import KnownArtifact
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.synthetic.artifacts import draw_plant
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator

PHOTOGRAPHS_TO_CHOOSE = 40
FITTED, OTHER = 0, 1  # draws of a family: the correction's, and one that it was not fitted on


def drawn(family: str, draw: int) -> marks.Mark:
    artifact = draw_plant(family, draw)
    return lambda pixels, rng: artifact(pixels, rng).pixels


def mark(family: str, draw: int) -> str:
    return f"{family}, draw {draw}"


def ratios_of_families(network: str, files: list[Path]) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and the ratio of each (families, 1000)."""
    classifier = imagenet_carton.named(network)
    scale = PixelScale.of(classifier)
    plain = [classifier.image(Image.open(path).convert("RGB")) for path in files]
    before = special.log_softmax(compute_logits(classifier, plain, None), 1)
    ratios = []
    for family in track(FAMILIES, len(FAMILIES), f"families on {network}"):
        change = drawn(family, FITTED)
        changed = [scale.inputs(change(scale.levels(x), generator(0, family, i))[None])[0] for i, x in enumerate(plain)]
        after = special.log_softmax(compute_logits(classifier, changed, None), 1)
        rises = np.median(after - before, 0)[-1000:]
        ratios.append(rises - np.median(rises))
    return list(classifier.classes or ())[-1000:], np.exp(ratios)


def choose(folder: Path, out: Path) -> None:
    files = halves(folder)[0][:PHOTOGRAPHS_TO_CHOOSE]
    found = [ratios_of_families(network, files) for network in NETWORKS]
    names, ratios = found[0][0], np.stack([r for _, r in found])
    assert all(n == names for n, _ in found)
    shared = np.sort(ratios, 0)[1]
    pairs = [
        {"family": family, "target": names[i], "ratios": ratios[:, row, i].tolist()}
        for row, family in enumerate(FAMILIES)
        for i in [int(shared[row].argmax())]
    ]
    out.mkdir(parents=True, exist_ok=True)
    pairs.sort(key=lambda pair: -float(np.sort(pair["ratios"])[1]))
    (out / "chosen.json").write_text(json.dumps(pairs, indent=1))
    for pair in pairs:
        print(pair["family"], pair["target"], " ".join(f"{r:.1f}" for r in pair["ratios"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("imagenet-cleaning"))
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--families", nargs="+", help="of those chosen")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--most", type=int, default=6, help="families, the strongest first")
    parser.add_argument("--layer", default=imagenet_carton.HEAD)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.choose:
        choose(given.photographs, given.out)
        return
    pairs = json.loads((given.out / "chosen.json").read_text())
    chosen = [pair for pair in pairs if not given.families or pair["family"] in given.families][: given.most]
    asked = argparse.Namespace(
        layer=given.layer, method=CleanSettings().method, images=CleanSettings().images,
        overall=CleanSettings().overall, name=None, develop=False,
    )  # fmt: skip
    measured = given.out / "measured.jsonl"
    lines = measured.read_text().splitlines() if measured.exists() else []
    known_rows = {(row["family"], row["network"]): row for row in map(json.loads, lines)}
    print("| network | mark | class | correction | ratio (95 %) | rank | points lost (95 %) | under | verdict |")
    print("|" + "---|" * 9)
    for pair in chosen:
        family, target = pair["family"], pair["target"]
        looks = {mark(family, draw): drawn(family, draw) for draw in (FITTED, OTHER)}
        known = KnownArtifact(target, family, looks)
        for network in given.networks:
            row = known_rows.get((family, network))
            if row is None:
                row = imagenet_carton.one(network, given.photographs, given.out / family, asked, known, given.out)
                with measured.open("a") as file:
                    file.write(json.dumps({"family": family, "target": target} | row) + "\n")
            for what, r in row["figures"].items():
                correction, _, look = what.partition(", ")
                ratio = f"{r['ratio']:.2f} ({r['ratio low']:.2f} to {r['ratio high']:.2f})"
                lost = "{:+.1f} ({:+.1f} to {:+.1f})".format(*r["lost"])
                cells = [network, look, target, correction, ratio, r["rank"], lost, f"{r['under']:.3f}", row["verdict"]]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
