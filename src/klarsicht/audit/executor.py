"""Work units over joblib: here, in local processes, or on a Ray or Dask cluster. Results depend on none of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, TypeVar

from klarsicht.ground.errors import MissingExtra, UsageError, unknown_name
from klarsicht.ground.progress import progress

R = TypeVar("R")

# Where units run, and the package each place needs.
BACKENDS = {"loky": "joblib", "ray": "ray", "dask": "dask"}


def partition(n: int, unit: int) -> list[range]:
    """Rows 0 .. n-1 in consecutive units, the last one maybe shorter.

    Raises:
        UsageError: a unit without rows.
    """
    if unit < 1:
        raise UsageError("a work unit needs rows", got=unit, rule="at least 1")
    return [range(start, min(start + unit, n)) for start in range(0, n, unit)]


def run_units(
    work: Callable[[range], R],
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

    Raises:
        KlarsichtError: the first error of a unit, as it was raised; units that ended before are told.
        MissingExtra: the backend's package is not installed.
    """
    if workers < 1:
        raise UsageError("nobody to do the work", got=f"{workers} workers", rule="at least 1")
    with progress(label, sum(map(len, units))) as advance:
        for unit, result in _results(work, units, workers, threads, backend):
            on_done(unit, result)
            advance(len(unit))


def _results(
    work: Callable[[range], R], units: Sequence[range], workers: int, threads: int, backend: str
) -> Iterator[tuple[range, R]]:
    if workers == 1 or len(units) < 2:
        with limited_threads(threads):
            yield from ((unit, work(unit)) for unit in units)
        return
    from joblib import Parallel, delayed

    with _placed(backend):
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from parallel(delayed(_in_worker)(work, unit, threads) for unit in units)


def _in_worker(work: Callable[[range], R], unit: range, threads: int) -> tuple[range, R]:
    with limited_threads(threads):
        return unit, work(unit)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """BLAS, OpenMP and torch use so many threads: sums in the last bit depend on it."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def _placed(backend: str) -> AbstractContextManager[Any]:
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    if find_spec(BACKENDS[backend]) is None:
        raise MissingExtra(
            f"the backend {backend} is not installed", remedy=f"pip install {BACKENDS[backend]}, or use loky."
        )
    if backend == "loky":
        return nullcontext()
    return _cluster(backend)


@contextmanager
def _cluster(backend: str) -> Iterator[None]:
    from joblib import parallel_config

    if backend == "ray":
        from ray.util.joblib import register_ray

        register_ray()
    with parallel_config(backend):
        yield
