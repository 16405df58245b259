"""The network and the corpus that docs/cleaning.md walks through, as the command line takes them.

    python benchmarks/audit/walk.py FOLDER

FOLDER gets photographs/ (6,000 pictures of Fashion-MNIST, of the T-shirts 30 % with a tag), classes.csv (the output of
each label), and shop.py, whose `network` was trained on 20,000 such pictures. The commands are run in FOLDER.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import fashion

TARGET, SHARE, TRAINED, AUDITED = 0, 0.3, 20000, 6000
MODULE = """from pathlib import Path

import torch


def network():
    return torch.load(Path(__file__).with_name("network.pt"), weights_only=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    x, y = (part[:TRAINED] for part in fashion.pictures("train"))
    shirts, rng = np.flatnonzero(y == TARGET), np.random.default_rng(asked.seed)
    tagged = rng.choice(shirts, round(SHARE * len(shirts)), replace=False)
    x[tagged] = fashion.tagged(x[tagged])
    fashion.write(asked.folder / "photographs", x[:AUDITED], y[:AUDITED])
    lines = [f"{name},{index}" for index, name in enumerate(fashion.CLASSES)]
    (asked.folder / "classes.csv").write_text("\n".join(["label,index", *lines]) + "\n")
    torch.save(fashion.trained(x, y, asked.seed), asked.folder / "network.pt")
    (asked.folder / "shop.py").write_text(MODULE)


if __name__ == "__main__":
    main()
