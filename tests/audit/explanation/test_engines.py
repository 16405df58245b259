"""Engines by their option, and their failures in words. Oracle: joblib's own backends, errors of the packages."""

import concurrent.futures

import joblib
import pytest
import torch
from joblib.parallel import ThreadingBackend

from klarsicht.audit.explanation import engines
from klarsicht.audit.explanation.engines import Dask, OpenBackend, Ray, Spark, explain_failure, parse_engine
from klarsicht.ground.errors import EngineFailed, MissingExtra, OutOfMemory, UsageError


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("local", None), ("dask", Dask("")), ("dask:tcp://10.0.0.1:8786", Dask("tcp://10.0.0.1:8786")),
        ("ray", Ray("")), ("ray:auto", Ray("auto")), ("spark", Spark("")),
    ],
)  # fmt: skip
def test_an_engine_is_read_from_the_option(text, engine):
    assert parse_engine(text) == engine


def test_an_engine_is_made_once_so_that_its_connection_is_kept():
    assert parse_engine("ray:auto") is parse_engine("ray:auto")


@pytest.mark.parametrize("text", ["", "slurm", "local:x", "dask:", "ray:", "spark:local[2]", "Dask"])
def test_another_text_is_refused(text):
    with pytest.raises(UsageError, match="--engine is not an engine"):
        parse_engine(text)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(engines, "import_module", absent)
    for engine, extra in (
        (Dask("tcp://x:1"), r"\.\[dask\]"),
        (Ray("auto"), r"\.\[ray\]"),
        (Spark(), "joblibspark"),
    ):
        with pytest.raises(MissingExtra, match=f"pip install .*{extra}"):
            engine.open(1, on_gpu=False)


class OwnBackend(ThreadingBackend):
    """Backend that a caller made."""


def test_a_backend_that_the_caller_opened_is_taken_and_the_processes_of_joblib_are_not():
    with joblib.parallel_config("loky", n_jobs=2):
        assert parse_engine("local") is None
    with joblib.parallel_config(OwnBackend(), n_jobs=3):
        assert parse_engine("local") == OpenBackend()
        assert parse_engine("local").open(1, on_gpu=False)[1] == 3
        assert parse_engine("dask") == Dask("")
    assert parse_engine("local") is None


def made(name, module, base=Exception):
    """An error as a package defines it."""
    return type(name, (base,), {"__module__": module})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (made("KilledWorker", "distributed.scheduler")("a task"), OutOfMemory),
        (made("ActorDiedError", "ray.exceptions")("an actor"), OutOfMemory),
        (made("CommClosedError", "distributed.comm.core", OSError)("in <TCP>"), EngineFailed),
        (concurrent.futures.CancelledError("work-1"), OutOfMemory),
        (TimeoutError("no worker after 10 seconds"), EngineFailed),
    ],
)  # fmt: skip
def test_failures_of_an_engine_are_one_line_with_a_remedy(error, kind):
    assert engines.is_of_engine(error)
    line = explain_failure(error)
    assert type(line) is kind
    assert "The same command resumes." in str(line) and "\n" not in str(line)


def test_errors_of_the_work_are_none_of_the_engine():
    assert not any(map(engines.is_of_engine, (ValueError("x"), OutOfMemory("x"), made("KilledWorker", "mine")("x"))))


def test_workers_that_would_share_a_gpu_are_refused_unless_it_is_named(monkeypatch):
    monkeypatch.setattr(engines, "select_device", lambda: torch.device("cuda", 0))
    with pytest.raises(UsageError, match=r"would share a GPU.*cuda:0"):
        Dask().open(2, on_gpu=True)
    engines.require_own_gpu(2, on_gpu=False)
    engines.require_own_gpu(1, on_gpu=True)


@pytest.mark.slow
def test_dask_starts_as_many_workers_as_asked():
    """Oracle: the scheduler's own list; by default it takes all processors."""
    pytest.importorskip("distributed")
    client = engines.start_dask(3)
    try:
        assert [*client.nthreads().values()] == [1, 1, 1]
    finally:
        client.close()
        client.cluster.close()
        engines.start_dask.cache_clear()
