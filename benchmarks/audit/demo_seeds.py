"""`klarsicht demo` over several seeds: rank of "carton", F1, uplift before and after, agreement; every run reported.

python benchmarks/audit/demo_seeds.py --seeds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from klarsicht.audit import demo


def one(seed: int, images: int, workers: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        for _ in demo.run_demo(Path(folder), seed=seed, images=images, workers=workers):
            pass
        return json.loads((Path(folder) / "demo.json").read_text())


def line(story: dict) -> str:
    a, b = story["audit"], story["baseline"]
    effect = {e["correction"]: e for e in story["effects"]}
    kept = effect["project"]
    return (
        f"| {story['seed']} | {a['rank']} | {a['z']:.1f} | {a['runner_up']} {a['runner_up_z']:.1f} | {a['f1']:.2f} "
        f"| {b['rank']} / {b['f1']:.2f} | {effect['nothing']['uplift']:.1f} | {kept['uplift']:.1f} "
        f"| {effect['random direction']['uplift']:.1f} | {effect['wrong cluster']['uplift']:.1f} "
        f"| {kept['agreement']:.3f} ({kept['agreement_low']:.3f} to {kept['agreement_high']:.3f}) "
        f"| {story['seconds']:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    print(
        "| seed | rank | z | next class, its z | F1 | baseline rank / F1 | uplift before | projected "
        "| random direction | wrong cluster | agreement (95 %) | s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    stories = []
    for seed in range(asked.seeds):
        stories.append(one(seed, asked.images, asked.workers))
        print(line(stories[-1]), flush=True)
    f1 = [story["audit"]["f1"] for story in stories]
    after = [e["uplift"] for story in stories for e in story["effects"] if e["correction"] == "project"]
    print(f"\nmedian rank {statistics.median(s['audit']['rank'] for s in stories)}, ", end="")
    print(f"F1 median {statistics.median(f1):.2f}, worst {min(f1):.2f}; ", end="")
    print(f"uplift after: median {statistics.median(after):.2f}")
    if asked.json:
        asked.json.write_text(json.dumps(stories, indent=2))


if __name__ == "__main__":
    main()
