"""Peak memory of `audit run` against the number of images: it should be flat.

python benchmarks/audit/memory.py --images 2000 20000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

INNER = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {here!r})
import fashion
from klarsicht.audit.explanation import models, pipeline
from klarsicht.audit.explanation.settings import AuditSettings
torch.set_num_threads(1)
settings = AuditSettings(model="object", data={data!r}, metric=("euclidean", "concept"), batch=64, unit=256)
pipeline.run(settings, {out!r}, classifier=models.load(fashion.network(0).eval(), classes=fashion.CLASSES))
status = Path("/proc/self/status").read_text()  # not ru_maxrss: that survives exec, and would tell the parent's peak
print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


def peak(images: int) -> float:
    """MiB of a fresh process that audits so many pictures of ten classes."""
    import fashion

    with tempfile.TemporaryDirectory() as folder:
        x, y = fashion.pictures("train")
        fashion.write(Path(folder) / "data", x[:images], y[:images])
        code = INNER.format(here=str(Path(__file__).parent), data=f"{folder}/data", out=f"{folder}/run")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 20000])
    asked = parser.parse_args()
    print("| images | peak memory, MiB |\n|---|---|")
    for images in asked.images:
        print(f"| {images:,} | {peak(images):.0f} |", flush=True)


if __name__ == "__main__":
    main()
