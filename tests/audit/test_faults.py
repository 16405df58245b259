"""Faults in mid-run of every command that reads images: the place, the network, its transform and a decoder fail from a
call on. Oracle: the folders of the same commands undisturbed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.audit import faulty
from tests.audit.conftest import in_brief, write_corpus
from tests.marks import slow_but_first

from klarsicht.cli.app import run
from klarsicht.ground.errors import DiskFull, ProgramFailed, Unreachable
from klarsicht.ground.run_folder.store import RunStore

ROOT = Path(__file__).parents[2]
RUN = "--model tests.audit.faulty:network --data ../data --unit 16 --batch 4 --neighbours 6"
EACH = 20  # images of a class


@dataclass(frozen=True)
class Command:
    """A command line, in a folder that holds a corpus as ../data, and what it needs.

    Attributes:
        after: the command whose folder it is given.
        out: whether it writes files that are compared.
    """

    line: str
    after: str = ""
    out: bool = True


COMMANDS = {
    "run": Command(f"run {RUN} --metric euclidean --out run"),
    "run --target all": Command(f"run {RUN} --target all --out screen"),
    "doctor": Command("doctor --model tests.audit.faulty:network --data ../data", out=False),
    "duplicates": Command("duplicates run", "run"),
    "shortcuts": Command("shortcuts run --images 8", "run"),
    "clean": Command("clean run --class b --method oblique --layer last --images 16 --found-by cluster --out c", "run"),
    "evaluate": Command("evaluate run --correction c --overall 1 --affected 1 --images 16", "clean"),
    "clean-data": Command("clean-data run --class b --action inpaint --out d --found-by cluster", "run"),
    "plant": Command("plant ../data --out p --kind tag --share 0.3"),
    "quantify": Command("quantify run", "run"),
    "check": Command("check ../data/b/000.png ../data/a/000.png --run run", "quantify", out=False),
    "power": Command("power run --kind tag --prevalence 0.2 --classes 1", "quantify"),
}
WITH_MODEL = [name for name in COMMANDS if name not in ("duplicates", "plant")]
CODES = {0, 7, 8}  # of a command that wrote all it had to


class Bench:
    """Folders of undisturbed commands, made when they are asked for, with how often each calls a place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, {}
        write_corpus(folder / "data", per_class=EACH, share=0.3)

    def begin(self, name: str) -> Path:
        """Copy the folder that a command begins with."""
        work, after = self.folder / "work", COMMANDS[name].after
        before = self.undisturbed(after) if after else None
        shutil.rmtree(work, ignore_errors=True)
        if before is None:
            work.mkdir()
        else:
            shutil.copytree(before, work)
        return work

    def undisturbed(self, name: str) -> Path:
        done = self.folder / name.replace(" ", "")
        if name not in self.calls:
            work = self.begin(name)
            with faulty.fault("none", KeyError(), 1) as calls:
                assert self.give(name, work) in CODES
            self.calls[name] = dict(calls)
            shutil.copytree(work, done)
        return done

    def give(self, name: str, work: Path) -> int:
        """Give a command in a folder, whose openings of images are counted."""
        with pytest.MonkeyPatch.context() as patch, faulty.files_that_fail(self.folder / "data"):
            patch.syspath_prepend(ROOT)
            patch.chdir(work)
            return run(["audit", *COMMANDS[name].line.split()])


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    torch.set_num_threads(1)
    with in_brief(60):
        yield Bench(tmp_path_factory.mktemp("faults"))


def disturb(bench, name, place, error, capsys, share=0.6):
    """Give a command of which a place fails from a share of its calls on; return the folder, exit code and lines."""
    bench.undisturbed(name)
    calls = bench.calls[name][place]
    work = bench.begin(name)
    capsys.readouterr()
    with faulty.fault(place, error, max(1, int(share * calls))):
        code = bench.give(name, work)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("klarsicht:", "Traceback"))]
    return work, code, told[-1:]


def some_slow(slow, names=COMMANDS):
    """Names of commands, of which some take above a second."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


@pytest.mark.parametrize("kind", slow_but_first(faulty.KINDS))
@pytest.mark.parametrize("place", ["forward", "transform"])
@pytest.mark.parametrize("name", some_slow({*WITH_MODEL} - {"run", "check"}, WITH_MODEL))
def test_code_that_fails_from_a_call_on_ends_the_command(bench, name, place, kind, capsys):
    _, code, told = disturb(bench, name, place, faulty.KINDS[kind], capsys)
    assert told and told[0].startswith("klarsicht:") and kind in told[0]
    assert code == ProgramFailed.exit_code or (place, code) == ("forward", 4)


@pytest.mark.parametrize("number", slow_but_first(faulty.NUMBERS))
@pytest.mark.parametrize("share", [0.2, 0.9])  # while the corpus is hashed, and while its images are read
@pytest.mark.parametrize("name", some_slow({"quantify", "power", "run --target all"}))
def test_files_that_do_not_answer_from_one_on_end_the_command(bench, name, number, share, capsys):
    _, code, told = disturb(bench, name, "file", faulty.system_error(number), capsys, share)
    assert code == Unreachable.exit_code
    assert told and "out of reach" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name, command in COMMANDS.items() if command.out
     for place in ("file", *(("forward", "transform") if name in WITH_MODEL else ()))],
)  # fmt: skip
def test_the_same_command_without_the_fault_ends_as_an_undisturbed_one(bench, name, place, share, capsys):
    """A fault of the network while it is loaded may leave nothing behind."""
    error = faulty.system_error("ESTALE") if place == "file" else faulty.KINDS["CUDA"]
    work, code, _ = disturb(bench, name, place, error, capsys, share)
    wanted = faulty.digest(bench.undisturbed(name))
    assert code not in CODES or faulty.digest(work) == wanted
    assert bench.give(name, work) in CODES
    assert faulty.digest(work) == wanted


@pytest.mark.parametrize("kind", slow_but_first(faulty.KINDS))
def test_a_decoder_that_fails_from_a_call_on_ends_the_run(bench, kind, capsys):
    line = f"run {RUN} --target all --decode tests.audit.faulty:decode --out decoded"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMMANDS, "decode", Command(line))
        _, code, told = disturb(bench, "decode", "decode", faulty.KINDS[kind], capsys)
    assert code == ProgramFailed.exit_code
    assert "--decode fails on other images" in told[0] or kind == "CUDA"
    assert kind in told[0]


@pytest.mark.parametrize("number", slow_but_first(faulty.NUMBERS))
def test_what_the_system_does_not_give_a_network_ends_the_run(bench, number, capsys):
    _, code, told = disturb(bench, "run", "forward", faulty.system_error(number), capsys)
    assert code == Unreachable.exit_code and "test_faults" not in told[0]


@pytest.mark.slow
def test_a_step_that_ended_and_was_not_recorded_is_recorded_by_the_same_command(bench):
    """As after a disk that refused to write the manifest, when all units had their markers."""
    wanted = faulty.digest(bench.undisturbed("shortcuts"))
    work = bench.begin("shortcuts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunStore, "finish_step", lambda *_: (_ for _ in ()).throw(DiskFull("no space left")))
        assert bench.give("shortcuts", work) == DiskFull.exit_code
    assert bench.give("shortcuts", work) == 0
    assert faulty.digest(work) == wanted
