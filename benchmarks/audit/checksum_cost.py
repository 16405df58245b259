"""Time that checksums take of an audit: computed for what is written, compared for what is read, and their own files.

python benchmarks/audit/checksum_cost.py FOLDER_OF_PHOTOGRAPHS --target tench

Audits EfficientNet-Lite0 on the photographs, quantifies, and gives the same `audit run` again, which compares every
file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from klarsicht.ground.run_folder import checksums, markers, run_arrays, run_markers, store, verification

spent: Counter[str] = Counter()
running: list[str] = []


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Add up the time of the outermost calls."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if running:
            return function(*args, **kwargs)
        running.append(name)
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            running.pop()
            spent[name] += time.perf_counter() - began

    return call


@contextlib.contextmanager
def instrumented() -> Iterator[None]:
    """Time every function that exists only for checksums."""
    checksums.Checksum.of = timed("computing", checksums.Checksum.of)  # type: ignore[method-assign]
    checksums.Checksum.of_file = timed("computing", checksums.Checksum.of_file)  # type: ignore[method-assign]
    for module in (run_arrays, run_markers):
        module.find_damage = timed("comparing", module.find_damage)
    verification.find_damage = timed("comparing", verification.find_damage)
    markers.Marker.read = timed("reading markers", markers.Marker.read)  # type: ignore[method-assign]
    for name in ("_admit", "_read_admitted", "finish_step"):
        setattr(store.RunStore, name, timed("their own files", getattr(store.RunStore, name)))
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--target", default="tench")
    parser.add_argument("--images", type=int, default=500)
    asked = parser.parse_args()
    from klarsicht.cli.app import run

    with tempfile.TemporaryDirectory() as name, instrumented():
        folder = Path(name)
        some = sorted(asked.photographs.glob("*"))[: asked.images]
        rows = [f"{photograph.resolve()},photograph" for photograph in some]
        (folder / "all.csv").write_text("\n".join(["path,label", *rows]))
        options = ["--model", "efficientnet-lite0", "--data", folder / "all.csv", "--target", asked.target]
        audit = ["audit", "run", *map(str, options), "--unit", "32", "--out", str(folder / "run")]
        for words in (
            audit,
            ["audit", "quantify", str(folder / "run")],
            audit,
            ["audit", "status", "--verify", audit[-1]],
        ):
            spent.clear()
            began = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                assert run(words) == 0
            whole = time.perf_counter() - began
            parts = ", ".join(f"{part} {seconds:.3f}" for part, seconds in sorted(spent.items()))
            told = f"checksums {spent.total():.3f} s ({spent.total() / whole:.2%}): {parts}"
            print(f"audit {words[1]}: {whole:.1f} s, {told}")
        size = sum(file.stat().st_size for file in (folder / "run").rglob("*") if file.is_file())
        print(f"{size / 2**20:.1f} MiB in the run folder")


if __name__ == "__main__":
    main()
