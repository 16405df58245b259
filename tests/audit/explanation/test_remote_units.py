"""Work units on an engine. Oracle: the same run, and the same units, in this process; clusters of Dask and Ray are in
`tests/audit/test_clusters.py`."""

import os
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pytest
from joblib.parallel import ThreadingBackend
from tests.audit.conftest import network, write_corpus
from tests.audit.test_shared_runs import same

from klarsicht.audit.explanation import pipeline, remote_units
from klarsicht.audit.explanation.duplicates import find_duplicates
from klarsicht.audit.explanation.engines import RETRIES, Dask, OpenBackend
from klarsicht.audit.explanation.executor import partition, run_units
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.specifications import names_files
from klarsicht.audit.explanation.remote_units import RemoteUnits, run_on_engine
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency
from klarsicht.audit.verdicts.sensitivity.power import power
from klarsicht.ground.errors import ModelError, OutOfMemory, StoreError
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.run_folder.store import RunStore

UNITS = partition(22, 4)


class InThreads(ThreadingBackend):
    """Backend of threads that counts as a caller's own: work is pickled and sent as to another machine."""


@pytest.fixture
def threads():
    with joblib.parallel_config(InThreads(), n_jobs=2):
        yield


@pytest.fixture
def store(tmp_path):
    """A run with rows to read and a table."""
    made = RunStore.create(tmp_path / "run", settings={}, identity={})
    made.create_array("values", (22, 3), np.float64, 4, "made")
    for i, unit in enumerate(UNITS):
        made.mark_done(
            "made", i, made.write_rows("values", unit.start, np.random.default_rng(i).random((len(unit), 3)))
        )
    made.write_table("names", {"name": ["a", "b"]})
    return made


@dataclass(frozen=True)
class Sums:
    """Sums of the rows of a unit, written as a part of a table."""

    store: RunStore

    def __call__(self, unit):
        names = self.store.table("names")["name"].to_pylist()
        sums = self.store.array("values")[unit.start : unit.stop].sum(1)
        return self.store.write_part("sums", unit.start // 4, pa.table({names[0]: sums})), os.getpid()


def collected(work, store, units=UNITS):
    done = {}
    run = lambda *arguments, **options: run_on_engine(OpenBackend(), store, False, *arguments, **options)  # noqa: E731
    run_units(work, units, on_done=lambda unit, result: done.update({unit: result}), run=run)
    return done


def test_units_that_read_and_write_do_on_an_engine_what_they_do_here(store, threads):
    there = collected(Sums(store), store)
    files = {name: store.inside(name).read_bytes() for written, _ in there.values() for name in written}
    assert len(files) == len(UNITS)
    here = {unit: Sums(store)(unit) for unit in UNITS}
    assert there == here
    assert files == {name: store.inside(name).read_bytes() for name in files}


def test_work_and_what_several_units_read_are_sent_once(store, threads, monkeypatch):
    sent = []
    monkeypatch.setattr(OpenBackend, "share", lambda self, content: sent.append(len(content)) or content)
    collected(Sums(store), store)
    work, _, *rounds = sent
    assert len(rounds) == 2  # the table, then the rows: each unit is asked what it lacks
    assert sent.count(work) == 1


class DeclaredSums(Sums):
    """Sums whose units say what they read, some of it in vain."""

    def list_reads(self, unit):
        yield Read("table", ("names",))
        yield Read.of_rows("values", [0, *unit])


def test_a_unit_that_declares_what_it_reads_is_sent_once(store, threads, monkeypatch):
    sent = []
    monkeypatch.setattr(OpenBackend, "share", lambda self, content: sent.append(content) or content)
    there = collected(DeclaredSums(store), store)
    assert len(sent) == 2  # the work, and what all units read
    assert there == {unit: Sums(store)(unit) for unit in UNITS}


@dataclass(frozen=True)
class Failing:
    """Unit 8 has no result."""

    store: RunStore

    def __call__(self, unit):
        if unit.start == 8:
            raise ModelError("layer", got="Attention", rule="has no rule", remedy="Use gradients.")
        return unit.start


def test_an_error_comes_out_as_it_was_raised(store, threads):
    with pytest.raises(ModelError, match=r"layer; got Attention; has no rule. Use gradients."):
        collected(Failing(store), store)


class Lost(Exception):
    """A worker that died."""


Lost.__module__, Lost.__name__ = "ray.exceptions", "WorkerCrashedError"


@dataclass(frozen=True)
class Dying:
    """Work whose worker dies the first `deaths` times with unit 8; a file in the folder counts each."""

    folder: Path
    deaths: int

    def __call__(self, unit):
        if unit.start == 8 and (died := len([*self.folder.iterdir()])) < self.deaths:
            (self.folder / str(died)).touch()
            raise Lost("killed")
        return unit.start


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_unit_whose_worker_died_is_sent_again(store, threads, tmp_path, deaths):
    (tmp_path / "deaths").mkdir()
    assert collected(Dying(tmp_path / "deaths", deaths), store) == {unit: unit.start for unit in UNITS}


def test_workers_that_die_of_nothing_but_one_unit_are_an_error_with_a_remedy(store, threads, tmp_path):
    (tmp_path / "deaths").mkdir()
    with pytest.raises(OutOfMemory, match=r"died at the same work unit.*The same command resumes"):
        collected(Dying(tmp_path / "deaths", 10**6), store)
    assert len([*(tmp_path / "deaths").iterdir()]) >= RETRIES


@dataclass(frozen=True)
class Unread:
    """Work that reads what the run does not have."""

    store: RunStore

    def __call__(self, unit):
        return self.store.table("nothing")


def test_what_a_unit_reads_and_the_run_does_not_have_is_the_error_of_the_run(store, threads):
    with pytest.raises(StoreError, match="no table 'nothing'"):
        collected(Unread(store), store)


def test_fewer_units_are_sent_where_results_wait_to_be_written(store, threads, monkeypatch):
    """Results of a byte are too many from the fifth on: all units are done all the same."""
    monkeypatch.setattr(remote_units, "IN_FLIGHT", 0)
    monkeypatch.setattr(remote_units, "UNITS_A_WORKER", 1)
    assert set(collected(Sums(store), store, partition(22, 4))) == set(UNITS)


@pytest.mark.slow
def test_a_run_and_its_verdicts_are_those_of_this_process_to_the_byte(tmp_path, threads, monkeypatch):
    """Each unit is sent once: none lacks anything."""
    again = []
    note = RemoteUnits.note_read
    monkeypatch.setattr(RemoteUnits, "note_read", lambda self, *which: again.append(which) or note(self, *which))
    write_corpus(tmp_path / "data", per_class=30)
    settings = AuditSettings(
        model="here", data=str(tmp_path / "data"), unit=12, batch=6, neighbours=6, metric=("concept", "euclidean")
    )
    for name, backend in (("there", InThreads()), ("here", "loky")):
        with joblib.parallel_config(backend, n_jobs=2):
            store = pipeline.run(settings, tmp_path / name, classifier=load_model(network()))
            quantify(store, classifier=load_model(network()))
            measure_sufficiency(store, classifier=load_model(network()))
            power(store, classifier=load_model(network()), kinds=["border"], prevalences=[0.2], classes=2)
            find_duplicates(store)
    same(tmp_path / "here", tmp_path / "there")
    assert not again


def name_of_worker(unit):
    from distributed import get_worker

    return get_worker().name


@pytest.mark.slow
@pytest.mark.parametrize("on_gpu", [True, False])
def test_units_that_want_a_gpu_run_on_the_workers_of_dask_that_have_one(store, on_gpu):
    """Oracle: the names of the workers; one of three says that it has a GPU."""
    distributed = pytest.importorskip("distributed")
    workers = {
        name: {"cls": distributed.Worker, "options": {"name": name, "nthreads": 1, "resources": resources}}
        for name, resources in (("gpu", {"GPU": 1}), ("one", {}), ("two", {}))
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard": False, "port": 0}}
    with distributed.SpecCluster(workers, scheduler, name="of GPUs") as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(3)
        results = run_on_engine(Dask(cluster.scheduler_address), store, on_gpu, name_of_worker, UNITS, 1, 1)
        names = {name for _, name in results}
    assert names == {"gpu"} if on_gpu else len(names) > 1


def test_workers_run_the_model_on_the_kind_of_device_that_it_has_here(tmp_path, threads):
    write_corpus(tmp_path / "data", per_class=2)
    settings = AuditSettings(model="here", data=str(tmp_path / "data"))
    audit = Audit.of(settings, load_model(network()))
    assert audit.on_engine("local").settings.device == "cpu"  # the backend of the caller is an engine
    with joblib.parallel_config("loky"):
        assert audit.on_engine("local").settings.device == "auto"
    named = Audit.of(settings.with_values(device="cpu"), load_model(network()))
    assert not named.on_engine("ray").settings.may_take_gpu
    assert named.settings.with_values(device="cuda").may_take_gpu
    assert not named.settings.with_values(device="cuda:1").may_take_gpu


@pytest.mark.parametrize(
    ("spec", "travels"),
    [
        ("torchvision:resnet50@weights.pt", True), ("hf:folder", True), ("net.py:build", True),
        ("package.module:build", False), ("efficientnet-lite0", False), ("model.pt2", False),
    ],
)  # fmt: skip
def test_a_model_travels_by_value_where_it_is_of_files(spec, travels):
    assert names_files(spec) == travels
