"""Damage a finished run in many ways, and see whether every command that reads it says so.

python benchmarks/audit/damage.py

For each damage: with which exit code `audit status --verify` and a command that reads the damaged file end, what the
latter says, and whether `audit run`, given again, names the file and makes results of the same bytes. A traceback, or
a command that succeeds on a damaged file, is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from PIL import Image

MODEL = "tests.audit.conftest:network"
REFUSED = (5, 10)  # exit codes that are right for a damaged run: not finished, damaged
SHARDS, IMAGES = "arrays.zarr/head/c.*", "tables/images/000*.parquet"


def flip(file: Path, at: float = 0.5) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 4
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def swap(one: Path, two: Path) -> None:
    other = one.with_name("other")
    one.rename(other)
    two.rename(one)
    other.rename(two)


def delete_eight(run: Path) -> None:
    for shard in sorted(run.glob(SHARDS))[:8]:
        shard.unlink()


def edit(file: Path, change: Callable[[object], object]) -> None:
    """Change the content of a JSON file, which stays a JSON file."""
    file.write_text(json.dumps(change(json.loads(file.read_bytes())), indent=1))


def reverse(file: Path) -> None:
    edit(file, lambda content: content[::-1])  # type: ignore[index] - JSON of any shape


def hide(file: Path) -> None:
    file.chmod(0)


@dataclass(frozen=True)
class Case:
    """A damage.

    Attributes:
        name: what is done.
        damage: the function that does it to a run.
        reader: the command that reads what is damaged.
        healed: whether `audit run` makes it again; a lost manifest, a folder in place of a file and a file that may not
            be written over must be put right by hand.
    """

    name: str
    damage: Callable[[Path], object]
    reader: str = "rank"
    healed: bool = True


CASES = (
    Case("8 shards of head deleted", delete_eight, "quantify"),
    Case("all shards of head deleted", lambda r: [s.unlink() for s in r.glob(SHARDS)], "quantify"),
    Case("a shard of maps deleted", lambda r: (r / "arrays.zarr/maps/c.2.0.0").unlink(), "quantify"),
    Case("a shard emptied", lambda r: (r / "arrays.zarr/maps/c.1.0.0").write_bytes(b""), "quantify"),
    Case("a shard cut in half", lambda r: cut(r / "arrays.zarr/maps/c.1.0.0"), "quantify"),
    Case("one bit of a shard flipped", lambda r: flip(r / "arrays.zarr/maps/c.1.0.0"), "quantify"),
    Case("last byte of a shard flipped", lambda r: flip(r / "arrays.zarr/maps/c.1.0.0", 0.9999), "quantify"),
    Case("two shards swapped", lambda r: swap(
        r / "arrays.zarr/maps/c.0.0.0", r / "arrays.zarr/maps/c.3.0.0"), "quantify"),
    Case("a shard replaced by a folder", lambda r: as_folder(r / "arrays.zarr/maps/c.1.0.0"), "quantify", healed=False),
    Case("the folder of an array deleted", lambda r: shutil.rmtree(r / "arrays.zarr/maps"), "quantify"),
    Case("metadata of an array deleted", lambda r: (r / "arrays.zarr/maps/zarr.json").unlink(), "quantify"),
    Case("metadata of an array: no JSON", lambda r: (r / "arrays.zarr/maps/zarr.json").write_text("{"), "quantify"),
    Case("metadata of an array: another shape", lambda r: edit(
        r / "arrays.zarr/maps/zarr.json", lambda c: c | {"shape": [7, *c["shape"][1:]]}), "quantify"),  # type: ignore - JSON of any shape
    Case("a part of a table deleted", lambda r: (r / "tables/images/00001.parquet").unlink(), "report"),
    Case("a part of a table emptied", lambda r: (r / "tables/images/00001.parquet").write_bytes(b""), "report"),
    Case("a part of a table cut in half", lambda r: cut(r / "tables/images/00001.parquet"), "report"),
    Case("one bit of a part flipped", lambda r: flip(r / "tables/images/00001.parquet"), "report"),
    Case("two parts swapped", lambda r: swap(
        r / "tables/images/00001.parquet", r / "tables/images/00002.parquet"), "report"),
    Case("a part in place of another", lambda r: shutil.copy(
        r / "tables/images/00001.parquet", r / "tables/images/00002.parquet"), "report"),
    Case("table corpus deleted", lambda r: (r / "tables/corpus.parquet").unlink()),
    Case("table corpus: garbage", lambda r: (r / "tables/corpus.parquet").write_bytes(b"PAR1 no PAR1")),
    Case("all tables deleted", lambda r: shutil.rmtree(r / "tables")),
    Case("a marker deleted", lambda r: (r / "done/attribution/00001.json").unlink(), "report"),
    Case("a marker emptied", lambda r: (r / "done/attribution/00001.json").write_bytes(b""), "report"),
    Case("a marker: garbage", lambda r: (r / "done/attribution/00001.json").write_bytes(b"\xff{}"), "report"),
    Case("a marker: JSON of something else", lambda r: (r / "done/attribution/00001.json").write_text("[]"), "report"),
    Case("a marker in place of another", lambda r: shutil.copy(
        r / "done/attribution/00001.json", r / "done/attribution/00002.json"), "report"),
    Case("all markers deleted", lambda r: shutil.rmtree(r / "done"), "report"),
    Case("ranking.json deleted", lambda r: (r / "ranking.json").unlink()),
    Case("ranking.json emptied", lambda r: (r / "ranking.json").write_bytes(b"")),
    Case("ranking.json cut in half", lambda r: cut(r / "ranking.json")),
    Case("ranking.json in another order", lambda r: reverse(r / "ranking.json")),
    Case("ranking.json of an older run", lambda r: shutil.copy(
        r.with_name("older") / "ranking.json", r / "ranking.json")),
    Case("ranking.json: not permitted to read", lambda r: hide(r / "ranking.json")),
    Case("a shard: not permitted to read", lambda r: hide(r / "arrays.zarr/maps/c.1.0.0"), "quantify"),
    Case("quantification.json: garbage", lambda r: (r / "quantification.json").write_text('{"classes": 1}')),
    Case("quantification.json deleted", lambda r: (r / "quantification.json").unlink()),
    Case("a picture deleted", lambda r: sorted((r / "pictures").iterdir())[0].unlink(), "report"),
    Case("one bit of a picture flipped", lambda r: flip(sorted((r / "pictures").iterdir())[0]), "report"),
    Case("report.html cut in half", lambda r: cut(r / "report.html"), "status --verify"),
    Case("all checksums deleted", lambda r: shutil.rmtree(r / "checksums"), healed=False),
    Case("manifest.json deleted", lambda r: (r / "manifest.json").unlink(), healed=False),
    Case("manifest.json emptied", lambda r: (r / "manifest.json").write_bytes(b""), healed=False),
    Case("manifest.json: another seed", lambda r: edit(
        r / "manifest.json", lambda c: c | {"settings": c["settings"] | {"seed": 9}}), healed=False),  # type: ignore - JSON of any shape
    Case("manifest.json of an older run", lambda r: shutil.copy(
        r.with_name("older") / "manifest.json", r / "manifest.json"), healed=False),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Exit code of a command, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.err

    @property
    def line(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def command(*words: object) -> Answer:
    """Run `klarsicht audit` in this process."""
    from klarsicht.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(["audit", *map(str, words)])
        except Exception:  # what a person would see as a traceback
            traceback.print_exc()
            code = 1
    return Answer(code, out.getvalue(), err.getvalue())


def audit(folder: Path, out: str, seed: int = 0) -> Answer:
    words = ("--model", MODEL, "--data", folder / "data", "--unit", 10, "--neighbours", 6, "--seed", seed)
    return command("run", *words, "--out", folder / out)


def without_rights_of_root() -> None:
    """Start this script again without the right to read what is not permitted, where root runs it."""
    if os.getuid() == 0 and "--weak" not in sys.argv:
        weak = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", sys.executable, *sys.argv, "--weak"]
        sys.exit(subprocess.run(weak).returncode)


def digest(run: Path) -> dict[str, str]:
    """Hash every result: arrays by content, other files by bytes."""
    found = {}
    for array in sorted(p for p in (run / "arrays.zarr").iterdir() if p.is_dir()):
        found[array.name] = hashlib.sha256(np.asarray(zarr.open_array(array)[:]).tobytes()).hexdigest()
    for path in sorted([run / "ranking.json", *run.rglob("*.parquet"), *run.rglob("*.jpg")]):
        found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def read_by(run: Path, reader: str) -> Answer:
    """Run the command that reads what is damaged."""
    return command(*reader.split(), run, *(["--json"] if reader == "quantify" else []))


def examine(folder: Path, case: Case, intact: dict[str, str], verdicts: str) -> tuple[bool, list[str]]:
    """Damage a copy of the finished run; return whether all is as promised, and a line of the table."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "whole", run)
    if case.reader == "quantify":  # its steps are computed again, from what is damaged
        forget(run, ("signs", "effects", "transplants", "evidence"))
    case.damage(run)
    checked, read = command("status", run, "--verify"), read_by(run, case.reader)
    again = audit(folder, "run")
    whole = command("status", run, "--verify")
    right = [checked.code in REFUSED, read.code in REFUSED, "got " in read.line]
    right += [not any(one.traceback for one in (checked, read, again, whole))]
    if case.healed:
        right += [again.code == 0, whole.code == 0, "damaged" in again.err]
        right += [command("quantify", run, "--json").out == verdicts, digest(run) == intact]
    else:
        right += [again.code in REFUSED]
    if not all(right):
        print(case.name, right, checked, read, again, whole, sep="\n  ", file=sys.stderr)
    told = read.line.split("; got ")[-1].split("; every file")[0].replace(str(folder), "")
    return all(right), [case.name, str(checked.code), f"{case.reader} {read.code}", str(again.code), told]


def forget(run: Path, steps: tuple[str, ...]) -> None:
    """Make steps of a run count as never begun."""
    from klarsicht.ground.run_folder.store import RunStore

    store = RunStore.open(run)
    for step in steps:
        store.discard_step(step)
    store.update_manifest(steps={name: n for name, n in store.manifest["steps"].items() if name not in steps})


def write_pictures(folder: Path) -> None:
    """Write three classes of 80 pictures, of which a fifth of class b carry a white corner."""
    rng = np.random.default_rng(0)
    for label, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(80):
            pixels = rng.integers(0, 60, (12, 12, 3)).astype(np.uint8)
            pixels[..., label] += 100
            if name == "b" and i < 16:
                pixels[:4, :4] = 255
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Only the damages with this in their name.")
    parser.add_argument("--weak", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    without_rights_of_root()
    sys.path.insert(0, str(Path(__file__).parents[2]))  # for MODEL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "data")
        for out, seed in (("older", 1), ("whole", 0)):
            made = audit(folder, out, seed)
            assert made.code == 0, made
        quantified = command("quantify", folder / "whole", "--json")
        assert quantified.code == 0, quantified
        intact = digest(folder / "whole")
        lines, good = [], True
        for case in CASES:
            if asked.only in case.name:
                right, line = examine(folder, case, intact, quantified.out)
                good &= right
                lines.append([*line, "" if right else "FAILED"])
                print("  ".join(lines[-1]), flush=True)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(*("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines), sep="\n")
    print(f"{sum(line[-1] == '' for line in lines)} of {len(lines)} as promised")
    sys.exit(not good)


if __name__ == "__main__":
    main()
