"""Execution of work units by joblib: in this process, or in local processes. Results do not depend on the place. Other
machines take part by an engine, see `remote_units`, or by shards of a run, see `ground.run_folder.shards`."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import joblib

from klarsicht.ground.errors import OutOfMemory, UsageError
from klarsicht.ground.machine import memory
from klarsicht.ground.machine.disk import temporary_folder, translate_write_errors
from klarsicht.ground.machine.operating_system import end_with_parent
from klarsicht.ground.progress import counted_rows, hide_progress, progress
from klarsicht.ground.ranges import WORKERS
from klarsicht.ground.trust import is_trusted, set_trust

R = TypeVar("R")
Work = Callable[[range], R]
Results = Generator[tuple[range, R], None, None]


def partition(n: int, unit: int) -> list[range]:
    """Partition rows 0 .. n-1 into consecutive units of `unit` rows; the last may be shorter. Raises UsageError where
    `unit` is below 1."""
    if unit < 1:
        raise UsageError("a work unit needs rows", got=unit, rule="at least 1")
    return [range(start, min(start + unit, n)) for start in range(0, n, unit)]


def run_here(work: Work[R], units: Sequence[range], workers: int, threads: int) -> Results[R]:
    """Run units in this process, or where there are several workers in processes of this machine; yield each with its
    result. Raises as `run_units`."""
    alone = workers == 1 or len(units) < 2
    return _run_in_process(work, units, threads) if alone else _run_in_workers(work, units, workers, threads)


def run_units(
    work: Work[R], units: Sequence[range], *, workers: int = 1, threads: int = 1, label: str = "units",
    on_done: Callable[[range, R], None], run: Callable[..., Results[Any]] = run_here,
) -> None:  # fmt: skip
    """Run every unit and call `on_done` in this process as each one finishes, so that an interrupted run keeps it.
    work: work function, called once per unit; picklable if it does not stay in this process. threads: threads of
    numerical libraries in each worker. run: where units run, as `run_here`. Raises KlarsichtError: the first error of a
    unit, as it was raised, or UsageError for workers out of range; OutOfMemory: a worker process died, often because
    the system ran short of memory."""
    WORKERS.require("workers", workers)
    results = run(work, units, workers=workers, threads=threads)
    with closing(results), progress(label, sum(map(len, units))) as advance, counted_rows(advance) as end_unit:
        for unit, result in results:
            on_done(unit, result)
            end_unit(unit)


def _run_in_process(work: Work[R], units: Iterable[range], threads: int) -> Results[R]:
    with limited_threads(threads):
        yield from ((unit, work(unit)) for unit in units)


def _run_in_workers(work: Work[R], units: Iterable[range], workers: int, threads: int) -> Results[R]:
    with _open_processes(work, threads) as sent, warnings.catch_warnings():
        # expected after an error, since the remaining units are cancelled
        warnings.filterwarnings("ignore", ".*tasks which were still being processed.*")
        calls = (joblib.delayed(_in_worker)(sent, unit, threads) for unit in units)
        try:
            parallel = joblib.Parallel(workers, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
            yield from parallel(calls)
        except BrokenProcessPool as error:
            got, rule = str(error).splitlines()[0], "its finished units are kept"
            remedy = "Often memory ran out: run the same command again with fewer --workers."
            raise OutOfMemory("a worker process died", got=got, rule=rule, remedy=remedy) from error


def _in_worker(work_file: PickledWork, unit: range, threads: int) -> tuple[range, Any]:
    memory.keep_freed_memory()
    work = work_file.load()
    with limited_threads(threads), hide_progress():
        return unit, work(unit)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit the threads of BLAS, OpenMP, torch and numba, on which the last bit of sums depends; torch and numba only
    if they are imported already."""
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


@dataclass(frozen=True)
class PickledWork:
    """Work function pickled to a file once: units carry only the file name, and each worker loads it once, in the
    current folder of this process, where relative paths name models and functions, and with its trust in code of
    others."""

    file: Path
    folder: Path
    trust: bool

    @classmethod
    def of(cls, work: Work[Any], folder: Path) -> PickledWork:
        one = cls(folder / "work", Path.cwd(), is_trusted())
        # definitions of a notebook are pickled by value, those of a module by name
        with translate_write_errors(one.file):
            one.file.write_bytes(pickle.dumps(joblib.wrap_non_picklable_objects(work, keep_wrapper=False)))
        return one

    def load(self) -> Work[Any]:
        os.chdir(self.folder)
        set_trust(self.trust)
        return _load_pickled(self.file)


@lru_cache(maxsize=1)
def _load_pickled(file: Path) -> Work[Any]:
    work: Work[Any] = pickle.loads(file.read_bytes())
    return work


@contextmanager
def _open_processes(work: Work[R], threads: int) -> Iterator[PickledWork]:
    """Start processes that end with this one. Those that another thread than the main one started are not used again
    by the main one: see `end_with_parent`."""
    of_main_thread = threading.current_thread() is threading.main_thread()
    ending = {"initializer": end_with_parent, "initargs": (os.getpid(), of_main_thread)}
    with (
        temporary_folder() as folder,
        joblib.parallel_config("loky", inner_max_num_threads=threads, **ending),
    ):
        yield PickledWork.of(work, folder)
