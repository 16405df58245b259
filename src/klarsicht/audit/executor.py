"""Work units over joblib: here, in local processes, or on a Ray or Dask cluster. Results depend on none of these."""

from __future__ import annotations

import importlib
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import joblib

from klarsicht.ground import memory
from klarsicht.ground.errors import KlarsichtError, MissingExtra, UsageError, unknown_name
from klarsicht.ground.progress import progress

R = TypeVar("R")
Work = Callable[[range], R]
Results = Generator[tuple[range, R], None, None]


def partition(n: int, unit: int) -> list[range]:
    """Rows 0 .. n-1 in consecutive units, the last one maybe shorter.

    Raises:
        UsageError: a unit without rows.
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
) -> None:
    """Runs every unit and tells `on_done` in this process as each one ends, so that an interrupted run keeps it.

    Args:
        work: picklable when workers > 1; called once a unit.
        workers: processes; with 1 the units run in this one, one after another.
        threads: of numerical libraries in each worker.
        backend: where more than one worker runs, a name of BACKENDS.

    Raises:
        KlarsichtError: the first error of a unit, as it was raised; units that ended before are told.
        MissingExtra: the backend's package is not installed.
    """
    if workers < 1:
        raise UsageError("nobody to do the work", got=f"{workers} workers", rule="at least 1")
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    alone = workers == 1 or len(units) < 2
    results = _here(work, units, threads) if alone else _spread(work, units, workers, threads, backend)
    with closing(results), progress(label, sum(map(len, units))) as advance:
        for unit, result in results:
            on_done(unit, result)
            advance(len(unit))


def _here(work: Work[R], units: Sequence[range], threads: int) -> Results[R]:
    with limited_threads(threads):
        yield from ((unit, work(unit)) for unit in units)


def _spread(work: Work[R], units: Sequence[range], workers: int, threads: int, backend: str) -> Results[R]:
    with BACKENDS[backend](work, threads) as sent, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tasks which were still being processed.*")  # we know: we stopped them
        calls = [joblib.delayed(_in_worker)(sent, unit, threads) for unit in units]
        try:
            yield from (_rounds if backend == "ray" else _stream)(calls, workers)
        except BrokenProcessPool as error:
            raise KlarsichtError(
                "a worker process died",
                got=str(error).splitlines()[0],
                rule="its finished units are kept",
                remedy="Often memory ran out: run the same command again with fewer --workers.",
            ) from error


def _stream(calls: Sequence[Any], workers: int) -> Iterator[Any]:
    parallel = joblib.Parallel(workers, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
    yield from parallel(calls)


def _rounds(calls: Sequence[Any], workers: int) -> Iterator[Any]:
    """Ray's backend gives no result before the last: so one call for as many units as there are workers."""
    for start in range(0, len(calls), workers):
        yield from joblib.Parallel(workers, batch_size=1)(calls[start : start + workers])


def _in_worker(work: Work[R], unit: range, threads: int) -> tuple[range, R]:
    memory.keep()
    if isinstance(work, Parcel):
        work = work.opened()
    with limited_threads(threads):
        return unit, work(unit)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """BLAS, OpenMP, torch and numba use so many threads: a sum's last bit depends on it.

    Of torch and numba only what is imported by now; a worker process imports the rest under the same limit.
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


# Where units run. Each place takes (work, threads) and gives the work in the form in which it travels.


@dataclass(frozen=True)
class Parcel:
    """Work pickled to a file, once: a unit carries only its name, and a worker opens it once, not for every unit."""

    file: Path

    @classmethod
    def of(cls, work: Work[Any], folder: str) -> Parcel:
        parcel = cls(Path(folder) / "work")
        # what a notebook defines travels by value, what a module defines by name
        parcel.file.write_bytes(pickle.dumps(joblib.wrap_non_picklable_objects(work, keep_wrapper=False)))
        return parcel

    def opened(self) -> Work[Any]:
        return _opened(self.file)


@lru_cache(maxsize=1)
def _opened(file: Path) -> Work[Any]:
    work: Work[Any] = pickle.loads(file.read_bytes())
    return work


@contextmanager
def _loky(work: Work[R], threads: int) -> Iterator[Parcel]:
    with tempfile.TemporaryDirectory() as folder, joblib.parallel_config("loky", inner_max_num_threads=threads):
        yield Parcel.of(work, folder)


@contextmanager
def _ray(work: Work[R], threads: int) -> Iterator[Work[R]]:
    _extra("ray.util.joblib").register_ray()
    with joblib.parallel_config("ray"):
        yield work


@contextmanager
def _dask(work: Work[R], threads: int) -> Iterator[Work[R]]:
    """On the cluster that DASK_SCHEDULER_ADDRESS names, else on one made here."""
    with _extra("distributed").Client(), joblib.parallel_config("dask"):
        yield work


def _extra(module: str) -> Any:
    package = {"distributed": "dask"}.get(module, module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"the backend {package} is not installed", remedy=f"pip install 'klarsicht[{package}]', or use loky."
        ) from error


BACKENDS: dict[str, Callable[[Work[Any], int], AbstractContextManager[Any]]] = {
    "loky": _loky,
    "ray": _ray,
    "dask": _dask,
}
