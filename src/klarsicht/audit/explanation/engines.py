"""Engines that run work units: processes of this machine, or a cluster of Dask, Ray or Spark, all through joblib."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib
from joblib._parallel_backends import PoolManagerMixin
from joblib.parallel import get_active_backend

from klarsicht.audit.explanation.settings import LOCAL_ENGINE, split_engine
from klarsicht.ground.errors import EngineFailed, KlarsichtError, MissingExtra, OutOfMemory, UsageError
from klarsicht.ground.machine.devices import select_device
from klarsicht.ground.optional import install_command

OF_JOBLIB = ("LokyBackend", "MultiprocessingBackend", "ThreadingBackend", "SequentialBackend")
RESUMES = "The same command resumes."
CONNECT_SECONDS = 30  # for the first answer of a scheduler
RETRIES = 3  # of a unit whose worker died, as Dask does it by default
WAIT_SECONDS = 600  # for the first worker, which a queue may keep waiting


@dataclass(frozen=True)
class Engine:
    """Place where work units run, by what stands after its name in the option."""

    address: str = ""

    def open(self, workers: int, on_gpu: bool) -> tuple[joblib.Parallel, int]:
        """Return what calls functions on the workers, with a GPU for each where the cluster has any and `on_gpu`, and
        how many run at once. Raises MissingExtra, EngineFailed."""
        raise NotImplementedError  # each engine has its own workers

    def share(self, content: bytes) -> Any:
        """Send bytes to the workers, once for each where the engine can; returns what a unit carries in their place."""
        return content


def make_parallel(backend: Any = None, **options: Any) -> joblib.Parallel:
    """Make joblib's caller for a backend, by default the one that is open; it yields results as they come, where the
    backend can, else all at the end."""
    with nullcontext() if backend is None else joblib.parallel_config(backend, **options):
        opened = get_active_backend()[0]
        how = "generator_unordered" if opened.supports_return_generator else "list"
        return joblib.Parallel(return_as=how, batch_size=1, pre_dispatch="2*n_jobs")


def parse_engine(text: str) -> Engine | None:
    """Return the engine of a text as the option `--engine` has it; None for the processes of this machine. A backend of
    joblib that the caller opened is taken in place of these. Raises UsageError: another text; MissingExtra: its package
    is not installed."""
    name, address = split_engine(text)
    if name == LOCAL_ENGINE:
        backend = get_active_backend()[0]
        return None if type(backend).__name__ in OF_JOBLIB else OpenBackend()
    return _engine(name, address)


@lru_cache
def _engine(name: str, address: str) -> Engine:
    """Make an engine, one for all steps, so that its connection is kept."""
    return ENGINES[name](address)


def require_package(name: str, remedy: str) -> Any:
    """Import an engine; raises MissingExtra with the remedy."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(f"{name} is not installed", remedy=f"{remedy}.") from error


@dataclass(frozen=True)
class OpenBackend(Engine):
    """Backend of joblib that the caller opened by `joblib.parallel_config`, as it is."""

    def open(self, workers: int, on_gpu: bool) -> tuple[joblib.Parallel, int]:
        backend, jobs = get_active_backend()
        return make_parallel(), int(backend.effective_n_jobs(jobs))


@dataclass(frozen=True)
class Dask(Engine):
    """Cluster of Dask: one that runs, by the address or file of its scheduler, or workers of this machine."""

    @property
    def client(self) -> Any:
        """Connection to the scheduler, a new one where the last one was lost."""
        known = self.__dict__.get("connection")
        if known is None or known.status != "running":
            known = self.__dict__["connection"] = connect_dask(self.address)
        return known

    def open(self, workers: int, on_gpu: bool) -> tuple[joblib.Parallel, int]:
        if not self.address:
            require_own_gpu(workers, on_gpu)
            self.__dict__["connection"] = start_dask(workers)
        client = self.client
        gpus = any("GPU" in one["resources"] for one in client.scheduler_info(-1)["workers"].values())
        options = {"resources": {"GPU": 1}} if gpus and on_gpu else {}
        with joblib.parallel_config("dask", client=client):
            kind = adapt_backend(type(get_active_backend()[0]))
        backend = kind(client=client, wait_for_workers_timeout=WAIT_SECONDS, **options)
        return make_parallel(backend), max(1, sum(client.nthreads().values()))

    def share(self, content: bytes) -> Any:
        return self.client.scatter(content, broadcast=True, hash=False)


def adapt_backend(kind: Any) -> Any:
    """Derive a backend of Dask that counts one worker as two, since joblib does the work of one in the client, and that
    raises the error of a unit that was cancelled, which joblib takes for its result."""

    def count_jobs(backend: Any, jobs: int) -> int:
        return max(2, int(kind.effective_n_jobs(backend, jobs)))

    def retrieve(backend: Any, result: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return kind.retrieve_result_callback(backend, result)

    return type(kind.__name__, (kind,), {"effective_n_jobs": count_jobs, "retrieve_result_callback": retrieve})


def require_own_gpu(workers: int, on_gpu: bool) -> None:
    """Check that workers that Dask starts here would not share a GPU unasked; raises UsageError."""
    if on_gpu and workers > 1 and select_device().type == "cuda":
        rule, remedy = "one worker for each GPU", "Give --workers 1, --engine ray, or --device cuda:0 to share it."
        raise UsageError("workers of Dask would share a GPU", got=f"{workers} workers", rule=rule, remedy=remedy)


def connect_dask(address: str) -> Any:
    """Connect to a scheduler of Dask by its address or file; raises MissingExtra, EngineFailed."""
    dask = require_package("distributed", install_command("dask"))
    place = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        return dask.Client(**place, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise EngineFailed("no scheduler of Dask answers", got=address, remedy=RESUMES) from error


@lru_cache(maxsize=1)
def start_dask(workers: int) -> Any:
    """Start workers of Dask on this machine, which end with this process."""
    dask = require_package("distributed", install_command("dask"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = dask.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None,
            silence_logs=50,
        )  # fmt: skip
        return dask.Client(cluster, set_as_default=False)


@dataclass(frozen=True)
class Ray(Engine):
    """Cluster of Ray: one that runs, by its address or `auto`, or workers of this machine."""

    @cached_property
    def ray(self) -> Any:
        return require_package("ray", install_command("ray"))

    def open(self, workers: int, on_gpu: bool) -> tuple[joblib.Parallel, int]:
        if not self.ray.is_initialized():
            start_ray(self.ray, self.address, workers)
            self.__dict__.pop("pool", None)
        has = self.ray.cluster_resources()
        gpus = int(has.get("GPU", 0)) if on_gpu else 0
        jobs = gpus or int(has.get("CPU", 1))
        if self.__dict__.get("pool", (None, 0, 0))[1:] != (jobs, gpus):
            pool = start_actors(jobs, gpus)
            self.__dict__["pool"] = (pool, jobs, gpus)
        return self.__dict__["pool"][0], jobs

    def share(self, content: bytes) -> Any:
        return RayObject(self.ray.put(content))


def start_actors(jobs: int, gpus: int) -> joblib.Parallel:
    """Start actors of Ray that stay until this process ends. One that dies is started again, and its unit is done
    again."""
    backend = import_module("ray.util.joblib.ray_backend").RayBackend
    # results come one by one from any backend that calls back; joblib's own of processes switches it off
    kind = type("ActorsBackend", (backend,), {"supports_return_generator": True})
    options = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "max_restarts": -1, "max_task_retries": RETRIES}
    parallel = make_parallel(kind(ray_remote_args=options), n_jobs=jobs)
    parallel.__enter__()
    return parallel


@dataclass(frozen=True)
class RayObject:
    """Bytes in the object store of Ray."""

    reference: Any


def load_content(handle: Any) -> bytes:
    """Return, in a worker, the bytes that `Engine.share` sent; Dask has put them in their place already."""
    content: bytes = import_module("ray").get(handle.reference) if isinstance(handle, RayObject) else handle
    return content


def start_ray(ray: Any, address: str, workers: int) -> None:
    """Connect to a cluster of Ray, or start one on this machine, which ends with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers are no background jobs
    size = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **size)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise EngineFailed("no cluster of Ray answers", got=address or "local", remedy=RESUMES) from error


@dataclass(frozen=True)
class Spark(Engine):
    """Cluster of Spark, as the environment of this process names it."""

    def open(self, workers: int, on_gpu: bool) -> tuple[joblib.Parallel, int]:
        require_package("joblibspark", "pip install joblibspark")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else another Python than this may answer to `python3`
        backend = import_module("joblibspark.backend").SparkDistributedBackend
        # as joblib's pools of processes, after which it is made: it would take the error of a unit for its result
        way = {"retrieve_result_callback": PoolManagerMixin.retrieve_result_callback}
        kind = type("SparkBackend", (backend,), {"supports_retrieve_callback": True} | way)
        return make_parallel(kind(), n_jobs=workers), workers


ENGINES = {"dask": Dask, "ray": Ray, "spark": Spark}
OF_ENGINES = ("distributed", "ray", "concurrent.futures", "py4j", "pyspark")
WORKER_LOST = (
    "KilledWorker",
    "Cancelled",
    "Actor",
    "WorkerCrashed",
    "NodeDied",
    "OutOfMemory",
    "ObjectLost",
    "OwnerDied",
)
"""Beginnings of the names of errors of Dask and Ray that tell of a worker, and none of the scheduler."""


def is_of_engine(error: BaseException) -> bool:
    """Test whether the engine failed, and not the work, whose errors of connections are ours."""
    own = any(kind.__module__.startswith(OF_ENGINES) for kind in type(error).__mro__[:-3])
    return own or isinstance(error, ConnectionError | TimeoutError)


def is_worker_lost(error: BaseException) -> bool:
    """Test for the end of a worker."""
    return is_of_engine(error) and any(name in type(error).__name__ for name in WORKER_LOST)


def explain_failure(error: BaseException) -> KlarsichtError:
    """Put an error of an engine into words of ours."""
    got = f"{type(error).__name__}: {error}".split("\n")[0]
    if is_worker_lost(error):
        rule = "its finished units are kept"
        remedy = "Often memory ran out: give workers more, or --unit less. The same command resumes."
        return OutOfMemory("workers died at the same work unit again and again", got=got, rule=rule, remedy=remedy)
    return EngineFailed("the cluster was lost", got=got, rule="finished units are kept", remedy=RESUMES)
