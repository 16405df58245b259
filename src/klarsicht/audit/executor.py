"""Execution of work units by joblib: in this process, in local processes, or on a Ray or Dask cluster.

Results do not depend on the place of execution.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import joblib

from klarsicht.ground import memory
from klarsicht.ground.disk import translate_write_errors
from klarsicht.ground.errors import MissingExtra, OutOfMemory, UsageError, unknown_name
from klarsicht.ground.operating_system import end_with_parent
from klarsicht.ground.progress import progress
from klarsicht.ground.ranges import WORKERS

R = TypeVar("R")
Work = Callable[[range], R]
Results = Generator[tuple[range, R], None, None]


def partition(n: int, unit: int) -> list[range]:
    """Partition rows 0 .. n-1 into consecutive units of `unit` rows; the last may be shorter.

    Raises:
        UsageError: `unit` is below 1.
    """
    if unit < 1:
        raise UsageError("a work unit needs rows", got=unit, rule="at least 1")
    return [range(start, min(start + unit, n)) for start in range(0, n, unit)]


def run_units(
    work: Work[R],
    units: Sequence[range],
    *,
    workers: int = 1,
    threads: int = 1,
    label: str = "units",
    on_done: Callable[[range, R], None],
    backend: str = "loky",
    admit: Callable[[range], bool] | None = None,
) -> None:
    """Run every unit and call `on_done` in this process as each one finishes, so that an interrupted run keeps it.

    Args:
        work: work function, called once per unit; picklable if workers > 1.
        workers: number of processes; with 1 the units run in this process, one after another.
        threads: threads of numerical libraries in each worker.
        backend: a name of BACKENDS, used with more than one worker.
        admit: asked right before a unit begins; one that is not admitted is left out.

    Raises:
        UsageError: workers out of range, or an unknown backend.
        KlarsichtError: the first error of a unit, as it was raised; units that finished before are reported to
            `on_done`.
        OutOfMemory: a worker process died, which is what a system does that runs short of memory.
        MissingExtra: the backend's package is not installed.
    """
    WORKERS.require("workers", workers)
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    alone = workers == 1 or len(units) < 2
    admitted = AdmittedUnits(units, admit)
    results = (
        _run_in_process(work, admitted, threads)
        if alone
        else _run_in_workers(work, admitted, workers, threads, backend)
    )
    with closing(results), progress(label, sum(map(len, units))) as advance:
        for unit, result in results:
            on_done(unit, result)
            advance(len(unit))
    admitted.raise_error()


class AdmittedUnits:
    """Iterable of the units that are admitted, each asked for when it is reached.

    joblib reaches them in threads of its own, where an error would be lost: it ends the iteration and is kept.
    """

    def __init__(self, units: Sequence[range], admit: Callable[[range], bool] | None) -> None:
        self.units, self.admit = units, admit
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[range]:
        for unit in self.units:
            try:
                admitted = self.admit is None or self.admit(unit)
            except Exception as error:
                self.error = error
                return
            if admitted:
                yield unit

    def raise_error(self) -> None:
        """Raise the error that ended the iteration, if one did."""
        if self.error is not None:
            raise self.error


def _run_in_process(work: Work[R], units: Iterable[range], threads: int) -> Results[R]:
    with limited_threads(threads):
        yield from ((unit, work(unit)) for unit in units)


def _run_in_workers(work: Work[R], units: Iterable[range], workers: int, threads: int, backend: str) -> Results[R]:
    with BACKENDS[backend](work, threads) as sent, warnings.catch_warnings():
        # expected after an error, since the remaining units are cancelled
        warnings.filterwarnings("ignore", ".*tasks which were still being processed.*")
        calls = (joblib.delayed(_in_worker)(sent, unit, threads) for unit in units)
        try:
            yield from (_run_in_rounds if backend == "ray" else _run_unordered)(calls, workers)
        except BrokenProcessPool as error:
            raise OutOfMemory(
                "a worker process died",
                got=str(error).splitlines()[0],
                rule="its finished units are kept",
                remedy="Often memory ran out: run the same command again with fewer --workers.",
            ) from error


def _run_unordered(calls: Iterable[Any], workers: int) -> Iterator[Any]:
    parallel = joblib.Parallel(workers, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
    yield from parallel(calls)


def _run_in_rounds(calls: Iterable[Any], workers: int) -> Iterator[Any]:
    """Run as many units as workers in each joblib call, since Ray's backend returns results only at the end."""
    left = iter(calls)
    while some := list(islice(left, workers)):
        yield from joblib.Parallel(workers, batch_size=1)(some)


def _in_worker(work: Work[R], unit: range, threads: int) -> tuple[range, R]:
    memory.keep_freed_memory()
    if isinstance(work, PickledWork):
        work = work.load()
    with limited_threads(threads):
        return unit, work(unit)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit the threads of BLAS, OpenMP, torch and numba, on which the last bit of sums depends.

    torch and numba are limited only if already imported; a worker process imports them under the same limit.
    """
    from threadpoolctl import threadpool_limits

    torch, numba = sys.modules.get("torch"), sys.modules.get("numba")
    with ExitStack() as given_back:
        if torch is not None:
            given_back.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        if numba is not None:
            given_back.callback(numba.set_num_threads, numba.get_num_threads())
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        given_back.enter_context(threadpool_limits(threads))
        yield


# Backends: context managers of (work, threads) that yield the work in the form in which it is sent to workers.


@dataclass(frozen=True)
class PickledWork:
    """Work function pickled to a file once: units carry only the file name, and each worker loads it once."""

    file: Path

    @classmethod
    def of(cls, work: Work[Any], folder: str) -> PickledWork:
        pickled = cls(Path(folder) / "work")
        # definitions of a notebook are pickled by value, those of a module by name
        with translate_write_errors(pickled.file):
            pickled.file.write_bytes(pickle.dumps(joblib.wrap_non_picklable_objects(work, keep_wrapper=False)))
        return pickled

    def load(self) -> Work[Any]:
        return _load_pickled(self.file)


@lru_cache(maxsize=1)
def _load_pickled(file: Path) -> Work[Any]:
    work: Work[Any] = pickle.loads(file.read_bytes())
    return work


@contextmanager
def _loky(work: Work[R], threads: int) -> Iterator[PickledWork]:
    """Start processes that end with this one. Those that another thread than the main one started are not used again
    by the main one: see `end_with_parent`."""
    of_main_thread = threading.current_thread() is threading.main_thread()
    ending = {"initializer": end_with_parent, "initargs": (os.getpid(), of_main_thread)}
    with (
        tempfile.TemporaryDirectory() as folder,
        joblib.parallel_config("loky", inner_max_num_threads=threads, **ending),
    ):
        yield PickledWork.of(work, folder)


@contextmanager
def _ray(work: Work[R], threads: int) -> Iterator[Work[R]]:
    _import_extra("ray.util.joblib").register_ray()
    with joblib.parallel_config("ray"):
        yield work


@contextmanager
def _dask(work: Work[R], threads: int) -> Iterator[Work[R]]:
    """Use the cluster that DASK_SCHEDULER_ADDRESS names, else start a local one."""
    with _import_extra("distributed").Client(), joblib.parallel_config("dask"):
        yield work


def _import_extra(module: str) -> Any:
    package = {"distributed": "dask"}.get(module, module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if memory.is_out_of_memory(error):
            raise
        raise MissingExtra(
            f"the backend {package} is not installed", remedy=f"pip install 'klarsicht[{package}]', or use loky."
        ) from error


BACKENDS: dict[str, Callable[[Work[Any], int], AbstractContextManager[Any]]] = {
    "loky": _loky,
    "ray": _ray,
    "dask": _dask,
}
