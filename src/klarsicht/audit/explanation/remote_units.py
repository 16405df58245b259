"""Work units on workers that see neither the disk of this process nor the run: all that a unit needs is sent to it, and
what it writes is sent back and written here.

The work travels once to each worker. What a unit reads of the run travels with it, where its step declares that, see
`list_reads`; else the unit ends where an answer is missing, and is sent again with it. An answer for several units
travels once to each worker, too."""

from __future__ import annotations

import atexit
import contextlib
import pickle
import sys
import sysconfig
import threading
import traceback
import uuid
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import joblib

from klarsicht.audit.explanation.engines import (
    RETRIES,
    Engine,
    explain_failure,
    is_of_engine,
    is_worker_lost,
    load_content,
)
from klarsicht.audit.explanation.executor import Work, limited_threads
from klarsicht.ground.errors import StoreError
from klarsicht.ground.machine import memory
from klarsicht.ground.machine.disk import temporary_folder
from klarsicht.ground.run_folder.remote_store import (
    Answers,
    Files,
    Read,
    ReadMissing,
    RemoteStore,
    keep_files,
    list_forms,
)
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.trust import is_trusted, set_trust

UNITS_A_WORKER = 4  # on their way at most, to the worker or back
IN_FLIGHT = 2 << 30  # bytes of results that wait to be written, where this is more


@dataclass(frozen=True)
class UnitResult:
    """Result of a unit and the files that it wrote, or the read whose answer was missing, or the error that it raised:
    Spark has errors of its own in place of those that are raised in its workers."""

    unit: range
    result: Any = None
    files: Files = field(default_factory=dict)
    request: Read | None = None
    error: Exception | None = None

    @property
    def size(self) -> int:
        return sum(len(content or b"") for content in self.files.values())


@dataclass(frozen=True)
class Parcel:
    """Bytes that travel once to each worker: their name, and what the engine has in their place."""

    name: str
    handle: Any

    @classmethod
    def of(cls, engine: Engine, content: bytes) -> Parcel:
        return cls(uuid.uuid4().hex, engine.share(content))


@dataclass
class RemoteUnits:
    """Units of one step on an engine. common: answers for all units; reads: those for one unit alone, by its start."""

    engine: Engine
    store: RunStore
    work: bytes
    threads: int
    common: Answers = field(default_factory=dict)
    reads: dict[int, dict[str, Read]] = field(default_factory=dict)
    largest: int = 1  # bytes of what one unit wrote
    n_sent: int = 0
    n_received: int = 0
    parcel: Parcel | None = None
    error: Exception | None = None

    def run(self, units: Sequence[range], workers: int, on_gpu: bool) -> Generator[tuple[range, Any], None, None]:
        """Run units, and write what they wrote; yield each with its result. Where workers die with a unit, it is sent
        again, at most RETRIES times in which no other comes to something. Raises as `run_on_engine`."""
        rest, stuck = {unit.start: unit for unit in units}, 0
        self.share_reads()
        while rest:
            before, reads = len(rest), self.count_reads()
            try:
                parallel, jobs = self.engine.open(workers, on_gpu)
                with closing(self.send([*rest.values()], parallel, jobs)) as outcomes:
                    for outcome in outcomes:
                        if outcome.error is not None:
                            raise outcome.error
                        if outcome.request is not None:
                            self.note_read(outcome.unit, outcome.request)
                            continue
                        keep_files(self.store, outcome.files)
                        del rest[outcome.unit.start]
                        self.reads.pop(outcome.unit.start, None)
                        yield outcome.unit, outcome.result
            except Exception as error:
                if not is_of_engine(error):
                    raise
                stuck = stuck + 1 if (before, reads) == (len(rest), self.count_reads()) else 0
                if stuck > RETRIES or not is_worker_lost(error):
                    raise explain_failure(error) from error
                self.parcel = None  # it may be lost with the worker
            self.share_reads()

    def send(self, units: Sequence[range], parallel: joblib.Parallel, jobs: int) -> Generator[UnitResult, None, None]:
        """Send units, and yield what comes back. Fewer than all are sent where results wait to be written."""
        work = self.parcel = self.parcel or Parcel.of(self.engine, self.work)
        common, self.n_received, self.n_sent = Parcel.of(self.engine, pickle.dumps(self.common)), 0, 0
        most = UNITS_A_WORKER * jobs
        calls = self.calls(units if parallel.return_generator else units[:most], work, common, most)
        with warnings.catch_warnings():
            # expected after an error, since the remaining units are cancelled
            warnings.filterwarnings("ignore", ".*tasks which were still being processed.*")
            warnings.filterwarnings("ignore", ".*[Ll]arge graph.*")  # answers for one unit
            for outcome in parallel(calls):
                self.largest = max(self.largest, outcome.size)
                yield outcome
                self.n_received += 1
        if self.error is not None:
            raise self.error

    def calls(self, units: Sequence[range], work: Parcel, common: Parcel, most: int) -> Iterator[Any]:
        """Yield the calls of units, each with its own answers. joblib asks for them in threads of its own, where an
        error would be lost: it ends the iteration and is kept."""
        for unit in units:
            if self.n_sent - self.n_received >= max(most, IN_FLIGHT // self.largest):
                return
            try:
                own = {key: read.answer(self.store) for key, read in self.reads.get(unit.start, {}).items()}
            except Exception as error:
                self.error = error
                return
            self.n_sent += 1
            yield joblib.delayed(run_remotely)(
                work.name, work.handle, common.name, common.handle, unit, pickle.dumps(own), self.threads
            )

    def note_read(self, unit: range, read: Read) -> None:
        """Note what a unit asked for; raises StoreError where it has the answer, since it would ask forever."""
        asked = self.reads.setdefault(unit.start, {})
        if read.key in asked or read.key in self.common:
            raise StoreError("a worker asks again for a part of the run that it got", got=read.method)
        asked[read.key] = read

    def share_reads(self) -> None:
        """Move what several units asked for to the answers for all."""
        counts = Counter(key for asked in self.reads.values() for key in asked)
        for asked in self.reads.values():
            for key in [key for key in asked if counts[key] > 1]:
                read = asked.pop(key)
                if key not in self.common:
                    self.common[key] = read.answer(self.store)

    def count_reads(self) -> int:
        return len(self.common) + sum(map(len, self.reads.values()))


def run_on_engine(
    engine: Engine, store: RunStore, on_gpu: bool, work: Work[Any], units: Sequence[range], workers: int, threads: int
) -> Generator[tuple[range, Any], None, None]:
    """Run units on the workers of an engine, and write what they wrote into the run; yield each with its result as it
    finishes. Raises KlarsichtError: the first error of a unit, as it was raised; OutOfMemory: workers died at the same
    units; EngineFailed: the cluster was lost."""
    packed, declare = pickle_work(work), getattr(work, "list_reads", lambda unit: ())  # packed before it fills caches
    common = {read.key: read.answer(store) for read in list_forms(store)}
    reads = {unit.start: {read.key: read for read in declare(unit)} for unit in units}
    return RemoteUnits(engine, store, packed, threads, common, reads).run(units, workers, on_gpu)


# In the worker

_ALONE = threading.Lock()  # threads of a model, hooks and the folder belong to the whole process


def run_remotely(
    name: str, work: Any, common_name: str, common: Any, unit: range, own: bytes, threads: int
) -> UnitResult:  # fmt: skip
    """Run a unit in a worker of an engine, one at a time in each process. Nested calls of joblib stay in it."""
    memory.keep_freed_memory()
    with _ALONE, joblib.parallel_config("sequential", n_jobs=1), limited_threads(threads):
        job = load_work(name, work, common_name, common)
        with job.settle(), job.store.with_answers(pickle.loads(own)):
            try:
                result = job.work(unit)
            except ReadMissing as missing:
                return UnitResult(unit, request=missing.read)
            except Exception as error:
                error.add_note(f"In a worker:\n{traceback.format_exc()}")  # else lost with the process
                return UnitResult(unit, error=error)
            return UnitResult(unit, result, job.store.take_files())


@dataclass(frozen=True)
class LoadedWork:
    """Work function in a worker, with the stand-in for its store, and folder and trust of the process that sent it."""

    work: Work[Any]
    store: RemoteStore
    folder: Path
    trust: bool

    @contextmanager
    def settle(self) -> Iterator[None]:
        """Work in the folder of the process that sent it, where this machine has it, and with its trust."""
        before = is_trusted()
        set_trust(self.trust)
        try:
            with ExitStack() as stack:
                with suppress(OSError):
                    stack.enter_context(contextlib.chdir(self.folder))
                yield
        finally:
            set_trust(before)


_STAND_IN: list[RemoteStore] = []  # for the work that is being unpickled


def _stand_in() -> RemoteStore:
    return _STAND_IN[-1]


class WorkPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickler that leaves the store of the run out, which a worker does not see."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, RunStore):
            return _stand_in, ()
        return super().reducer_override(obj)


def pickle_work(work: Work[Any]) -> bytes:
    """Pickle a work function for workers that have this package and those installed here: what is defined in a notebook
    or a file of the user travels by value."""
    own = [module for module in [*sys.modules.values()] if _is_of_user(module)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        file = BytesIO()
        WorkPickler(file).dump((work, Path.cwd(), is_trusted()))
        return file.getvalue()
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _is_of_user(module: ModuleType) -> bool:
    """Test for a module that is neither installed nor of Python nor of this package."""
    file, name = getattr(module, "__file__", None), getattr(module, "__name__", "")
    if not file or name == "__main__" or name.partition(".")[0] == __name__.partition(".")[0]:
        return False
    parts, standard = {*Path(file).parts}, {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return not parts & {"site-packages", "dist-packages"} and not file.startswith(tuple(standard))


@lru_cache(maxsize=1)
def _scratch() -> Path:
    """Make a folder for what units write in this process, which ends with it."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(temporary_folder())


@dataclass
class _Kept:
    """The work and answers that were last sent to this process, by name."""

    work_name: str = ""
    work: LoadedWork | None = None
    common_name: str = ""


_KEPT = _Kept()


def load_work(name: str, handle: Any, common_name: str, common: Any) -> LoadedWork:
    """Unpickle the work and the answers for all units, once in this process."""
    if _KEPT.work is None or _KEPT.work_name != name:
        _STAND_IN[:] = [RemoteStore(_scratch() / name)]
        work, folder, trust = pickle.loads(load_content(handle))
        _KEPT.work, _KEPT.work_name = LoadedWork(work, _STAND_IN.pop(), folder, trust), name
    if _KEPT.common_name != common_name:
        _KEPT.work.store.common.update(pickle.loads(load_content(common)))
        _KEPT.common_name = common_name
    return _KEPT.work
