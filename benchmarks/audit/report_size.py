"""Size of the static report of a run of many noted classes, and the time until a browser shows it.

python benchmarks/audit/report_size.py --folder DIR [--classes 1000] [--each 1300] [--carriers 65] [--photographs DATA]

The run is written without a model (tests/explorer/made_run.py); every class is noted and has three small pictures; the
first twelve and six have the larger ones of artifacts and of clusters. Pictures are cut from the photographs in
DATA, or else from those of scikit-image, with noise as relevance over them. Needs playwright and Debian's chromium.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.explorer.made_run import verdict_of, write_run

from klarsicht.audit.explanation.report.figures import (
    CLASSES_ILLUSTRATED,
    MAX_POINTS,
    PICTURES,
    encode_jpeg,
    encode_small,
)
from klarsicht.audit.explanation.report.noted_classes import SMALL, SMALL_DRAWN
from klarsicht.audit.explanation.report.page import write_report
from klarsicht.audit.explanation.report.views import EVIDENCE, VIEWS
from klarsicht.audit.verdicts.quantification.figures import CARRIERS_DRAWN, CLASSES_DRAWN, OTHERS_DRAWN
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.pictures.colour_maps import overlay
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.store import RunStore

CROP = 224  # pixels of a picture's side


def read_photographs(folder: Path | None) -> list[Pixels]:
    """Read the photographs (H, W, 3) of a folder, or those of scikit-image."""
    if folder is not None:
        return [np.asarray(Image.open(file).convert("RGB")) for file in sorted(folder.rglob("*.png"))[:24]]
    from skimage import data

    return [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]


def cut(photographs: list[Pixels], rng: np.random.Generator) -> Pixels:
    """Cut a random window with some relevance over it."""
    whole = photographs[rng.integers(len(photographs))]
    top, left = (int(rng.integers(0, size - CROP + 1)) for size in whole.shape[:2])
    return overlay(whole[top : top + CROP, left : left + CROP], rng.normal(size=(8, 8)).astype(np.float32))


def note_all(store: RunStore, names: list[str], each: int, carriers: int) -> None:
    """Write verdicts by which every class has an artifact."""
    paths = store.table("corpus")["path"].to_pylist()
    found = []
    for k, name in enumerate(names):
        rows = range(k * each, k * each + carriers)
        found.append(verdict_of(k, name, rows, [paths[row] for row in rows], each, True))
    store.write_json("quantification.json", {"floor": 0.05, "level": 0.05, "skipped": [], "classes": found})


def draw_pictures(store: RunStore, count: int, each: int, carriers: int, photographs: list[Pixels]) -> None:
    """Write the pictures that `audit run` and `audit quantify` would, with their tables."""
    rng = np.random.default_rng(0)
    paths = store.table("corpus")["path"].to_pylist()
    evidence, views, written = [], [], {EVIDENCE: Written(), VIEWS: Written()}
    for k in range(count):
        large = k < CLASSES_DRAWN
        rows = [*range(CARRIERS_DRAWN), *range(carriers, carriers + OTHERS_DRAWN)] if large else range(SMALL_DRAWN)
        for row in (k * each + i for i in rows):
            name = f"pictures/sign-{k}-{row}{'' if large else SMALL}.jpg"
            content = encode_jpeg(cut(photographs, rng)) if large else encode_small(cut(photographs, rng))
            written[EVIDENCE] |= store.write_unit_file(name, content)
            member = row < k * each + carriers
            evidence.append({"target": k, "row": row, "member": member, "path": paths[row], "picture": name})
    for k in range(min(CLASSES_ILLUSTRATED, count)):
        pictured = [*range(PICTURES), *range(carriers, carriers + PICTURES)]
        for i in range(min(each, MAX_POINTS)):
            row, name = k * each + i, f"pictures/{k}-{k * each + i}" if i in pictured else ""
            if name:
                for end in (".jpg", "-relevance.jpg"):
                    written[VIEWS] |= store.write_unit_file(name + end, encode_jpeg(cut(photographs, rng)))
            x, y = rng.uniform(14, 386, 2)
            views.append(
                {"target": k, "row": row, "path": paths[row], "member": i < carriers, "x": x, "y": y, "picture": name}
            )
    for table, records in ((EVIDENCE, evidence), (VIEWS, views)):
        store.write_table(table, {name: [record[name] for record in records] for name in records[0]})
        store.mark_done(table, 0, written[table])
        store.finish_step(table, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--each", type=int, default=1300)
    parser.add_argument("--carriers", type=int, default=65)
    parser.add_argument("--photographs", type=Path)
    asked = parser.parse_args()
    if not (asked.folder / "run").exists():
        names = [f"n{k + 1440764:08d}" for k in range(asked.classes)]
        store = write_run(asked.folder, names, asked.each, asked.carriers, images=False, maps=False, embedded=[])
        note_all(store, names, asked.each, asked.carriers)
        draw_pictures(store, asked.classes, asked.each, asked.carriers, read_photographs(asked.photographs))
    begun = time.perf_counter()
    page = write_report(asked.folder / "run")
    told: dict[str, object] = {"written, s": round(time.perf_counter() - begun, 2)}
    told["size, MB"] = round(page.stat().st_size / 1e6, 2)
    text = page.read_text()
    told["classes with all members"] = text.count("<pre id=")
    told["pictures"] = text.count("data:image/jpeg")
    told["pictures, MB"] = round(sum(len(part.split('"', 1)[0]) for part in text.split('src="data:')[1:]) / 1e6, 2)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1280, "height": 800})
        begun = time.perf_counter()
        shown.goto(page.absolute().as_uri())
        shown.wait_for_selector("button.sort")
        told["opens, s"] = round(time.perf_counter() - begun, 2)
        begun = time.perf_counter()
        shown.locator("button.sort").nth(2).click()
        shown.wait_for_selector("th[aria-sort]")
        told["sorted, s"] = round(time.perf_counter() - begun, 2)
        browser.close()
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
