"""A run folder with known content, written without a model: for tests of what only looks at runs, and to measure it.

Class k has `each` images. In class 0 the first `carriers` images carry a white square that a detector found, and class
1 has a cluster that was only observed. Vectors of carriers lie apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from klarsicht.ground.pictures.seen_area import SeenArea
from klarsicht.ground.run_folder.store import RunStore

SIDE, TAG, D, G, FEATURES = 24, 6, 4, 8, 12
UNIT = 256
EACH, CARRIERS = 24, 6  # images of a class, and those that carry the artifact, unless a test asks for others
EIGENVALUES = [0.0, 0.01, 0.4, 0.5]
WINDOW = (0.25, 0.5, 0.25, 0.25)  # top, left, height, width in shares


def vectors_of(n: int, carriers: int, rng: np.random.Generator) -> np.ndarray:
    found = rng.normal(0, 0.05, (n, D))
    found[:carriers, 0] += 1
    found[carriers:, 1] += 1
    return found.astype(np.float32)


def embedding_part(rows: Sequence[int], vectors: np.ndarray) -> pa.Table:
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = {
        "row": pa.array(np.asarray(rows, np.int64)),
        "vector": values,
        "component": pa.array([0] * len(rows), pa.int32()),
    }
    return pa.table(columns).replace_schema_metadata({"eigenvalues": json.dumps(EIGENVALUES)})


SOUND = {"absorbed": 0.02, "residual": 0.0, "noise": 1.0, "noted": ""}  # of every image


def verdict_of(target: int, name: str, rows: Sequence[int], keys: Sequence[str], n: int, found: bool) -> dict:
    return {
        "class": name,
        "target": target,
        "n": n,
        "repeats": 0,
        "rows": list(rows),
        "members": list(keys),
        "artifactual": found,
        "poisoned": found,
        "shared": False,
        "used": found,
        "followed": False,
        "sign": "texture 6 0.9",
        "resembles": ["logo"] if found else [],
        "score": 3.0,
        "level": 2.0,
        "p_rank": 0.001 if found else 0.7,
        "q": 0.01,
        "p_own": 0.0001,
        "tried": "texture 6 0.9" if found else "",
        "how": "own place",
        "shift": 2.0,
        "low": 1.5,
        "high": 2.5,
        "z": 4.0,
        "p_use": 0.001,
        "rank": 0,
        "flips": 0.5,
        "flips_control": 0.0,
        "flips_low": 0.4,
        "p_tiles": 0.01,
        "change": "patch",
        "covered": None,
        "explained": None,
        "recognition": None,
        "remainder": None,
        "separation": None,
        "size": len(rows),
        "prevalence": len(rows) / n,
        "matters": True,
        "tested": True,
        "verdict": "poisoned: an artifact, and the model uses it" if found else "nothing found",
        "p": 0.001 if found else 0.7,
        "further": [],
    }


def write_images(data: Path, names: Sequence[str], each: int, carriers: int, rng: np.random.Generator) -> None:
    for k, name in enumerate(names):
        (data / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8)
            if k == 0 and i < carriers:
                top, left = int(WINDOW[0] * SIDE), int(WINDOW[1] * SIDE)
                pixels[top : top + TAG, left : left + TAG] = 255
            Image.fromarray(pixels).save(data / name / f"{i:05d}.png")


def write_run(
    folder: Path,
    names: Sequence[str] = ("tagged", "observed", "plain"),
    each: int = EACH,
    carriers: int = CARRIERS,
    *,
    quantified: bool = True,
    images: bool = True,
    maps: bool = True,
    embedded: Sequence[int] | None = None,
    feature_axes: Sequence[int] = (0, 0),
) -> RunStore:
    """Write a run and its corpus into folder/run and folder/data.

    Args:
        images: whether the corpus has files.
        embedded: classes whose embedding is stored; None: all.
        feature_axes: 0 or 1 for each of the first classes: its carriers have more of the even or of the odd features;
            without any, no features are stored.
    """
    rng = np.random.default_rng(0)
    data = folder / "data"
    if images:
        write_images(data, names, each, carriers, rng)
    n = each * len(names)
    keys = [f"{name}/{i:05d}.png" for name in names for i in range(each)]
    paths = [str(data / key) for key in keys]
    labels = [name for name in names for _ in range(each)]
    target_of = np.repeat(np.arange(len(names)), each)
    store = RunStore.create(
        folder / "run",
        settings={
            "model": "made",
            "target": "label",
            "metric": ["concept"],
            "method": "auto",
            "megapixels": 220.0,
            "white_level": None,
        },
        identity={"corpus": "0" * 64, "model": "1" * 64},
        index={name: k for k, name in enumerate(names)},
        independent=False,
    )
    store.write_table("corpus", {"key": keys, "path": paths, "label": labels, "source": [""] * n, "split": [""] * n})
    store.update_manifest(data=str(data), names=list(names), left_out=[], seen=SeenArea().to_json())
    predicted = np.where(np.arange(n) % 11 == 5, (target_of + 1) % len(names), target_of)
    units = range(-(-n // UNIT))
    if maps:
        store.create_array("maps", (n, G, G), np.float16, UNIT, "attribution")
    if feature_axes:
        store.create_array("features", (n, FEATURES), np.float32, UNIT, "attribution")
    for unit in units:
        rows = np.arange(unit * UNIT, min(n, (unit + 1) * UNIT))
        part = {"row": rows.tolist(), "skipped": [""] * len(rows), "predicted": predicted[rows].tolist()}
        part |= {name: [value] * len(rows) for name, value in SOUND.items()}
        written = store.write_part("images", unit, part)
        if maps:
            values = np.zeros((len(rows), G, G), np.float16)
            values[rows < carriers, 2, 4] = 1 + rows[rows < carriers] % 2  # on the white square
            values[rows >= carriers, 5, 1] = 1
            written |= store.write_rows("maps", unit * UNIT, values)
        if feature_axes:
            values = rng.normal(0, 0.1, (len(rows), FEATURES)).astype(np.float32)
            for k, axis in enumerate(feature_axes):
                values[(rows >= k * each) & (rows < k * each + carriers), axis::2] += 3
            written |= store.write_rows("features", unit * UNIT, values)
        store.mark_done("attribution", unit, written)
    store.finish_step("attribution", len(units))
    ranking, plain = [], []
    for k, name in enumerate(names):
        rows = np.arange(k * each, (k + 1) * each)
        members = rows[:carriers].tolist()
        z = 5.0 if k == 0 else 3.0 if k == 1 else 0.5
        suspect = {
            "class": name,
            "target": k,
            "metric": "concept",
            "n": each,
            "skipped": "",
            "aside": "",
            "proposal": "kmeans k=2",
            "rows": members,
            "parts": [],
            "tau": 2.0,
            "rho2": 0.6,
            "d2": 9.0,
            "shift": 1.0,
            "z": z,
            "deviation": 0.3,
            "rounding": 0.0,
        }
        written = store.write_part("suspects-concept", k, pa.Table.from_pylist([suspect]))
        if embedded is None or k in embedded:
            written |= store.write_part("embedding-concept", k, embedding_part(rows, vectors_of(each, carriers, rng)))
        store.mark_done("spray-concept", k, written)
        words = "raises the target (observational)" if k < 2 else "no cluster clearly raises the target"
        plain.append(suspect)
        ranking.append(
            suspect
            | {
                "size": carriers,
                "members": [paths[r] for r in members],
                "floor": 0.0,
                "verdict": words,
                "prevalence": carriers / each,
            }
        )
    store.finish_step("spray-concept", len(names))
    store.write_json("ranking.json", ranking)
    store.write_table(
        "suspects-features", pa.Table.from_pylist([one | {"metric": "features", "rows": []} for one in plain])
    )
    if quantified:
        verdicts = []
        for k, name in enumerate(names):
            members = list(range(k * each, k * each + carriers)) if k == 0 else []
            verdicts.append(verdict_of(k, name, members, [paths[r] for r in members], each, k == 0))
        signs = [
            {
                "target": 0,
                "sign": "texture 6 0.9",
                "score": 3.0,
                "rows": list(range(carriers)),
                "places": list(WINDOW[:2]) * carriers,
                "height": WINDOW[2],
                "width": WINDOW[3],
            }
        ]
        store.mark_done("signs", 0, store.write_part("signs", 0, pa.Table.from_pylist(signs)))
        store.finish_step("signs", 1)
        store.write_json("quantification.json", {"floor": 0.05, "level": 0.05, "skipped": [], "classes": verdicts})
    return store
