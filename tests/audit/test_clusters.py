"""Audits on real clusters of Dask, Ray and Spark, whose workers have folders of their own and do not see that of the
run. Oracle: the same run of one process, byte by byte.

IMAGES_OF_CLUSTERS sets the images of the nightly ones, 5,000 by default, and SECONDS_BETWEEN_KILLS the pace, 20."""

import contextlib
import ctypes
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.audit.conftest import network, write_corpus
from tests.audit.test_shared_runs import same

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.engines import Spark
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.remote_units import run_on_engine
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.ground.errors import KlarsichtError, ModelError
from klarsicht.ground.run_folder.store import RunStore

C_LIBRARY, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
ROOT, WORKERS = Path(__file__).parents[2], 3
IMAGES, PACE = int(os.environ.get("IMAGES_OF_CLUSTERS", "5000")), float(os.environ.get("SECONDS_BETWEEN_KILLS", "20"))


@pytest.fixture(scope="module", autouse=True)
def plain_layouts():
    """Pages have their own layouts: processes that know nothing of this file draw them, too."""


def audited(place, name, engine, workers=1):
    """Run and quantify in a folder of that name, again after each error of the cluster; these errors."""
    settings = AuditSettings(
        model="here", data=str(place / "data"), unit=12, batch=6, neighbours=6, metric=("concept",), engine=engine
    )
    errors = []
    while True:
        try:
            store = pipeline.run(settings, place / "client" / name, classifier=load_model(network()), workers=workers)
            quantify(store, classifier=load_model(network()), engine=engine, workers=workers)
        except KlarsichtError as error:
            assert error.exit_code in (9, 14)
            errors.append(error)
            if len(errors) > 20:
                raise
        else:
            return errors


@pytest.mark.slow
def test_two_workers_of_dask_give_the_run_of_one_process(tmp_path):
    pytest.importorskip("distributed")
    write_corpus(tmp_path / "data", per_class=66)
    for name, engine in (("there", "dask"), ("here", "local")):
        assert audited(tmp_path, name, engine, workers=2 if name == "there" else 1) == []
    same(tmp_path / "client" / "here", tmp_path / "client" / "there")


def refuse(unit):
    raise ModelError("a layer without a rule", got=f"unit {unit.start}")


@pytest.mark.nightly
def test_two_workers_of_spark_give_the_run_of_one_process_and_raise_what_a_unit_raises(tmp_path):
    pytest.importorskip("joblibspark")
    write_corpus(tmp_path / "data", per_class=30)
    for name in ("spark", "local"):
        assert audited(tmp_path, name, name, workers=2 if name == "spark" else 1) == []
    same(tmp_path / "client" / "local", tmp_path / "client" / "spark")
    store = RunStore.open(tmp_path / "client" / "local")
    with pytest.raises(ModelError, match="a layer without a rule; got unit"):
        list(run_on_engine(Spark(), store, False, refuse, partition(4, 1), 2, 1))


def end_with_test():
    """Ask the kernel to kill this process when the test that started it ends, in whatever way that does."""
    C_LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def started(place, number, *words):
    """Start a program in a folder of its own, with a mount of its own where the client's folder is empty, if this
    process may make one. It ends with this process."""
    own = place / f"worker{number}"
    own.mkdir(exist_ok=True)
    hide = f"mount -t tmpfs none '{place / 'client'}'"
    apart = subprocess.run(["unshare", "-m", "sh", "-c", hide], capture_output=True).returncode == 0
    command = ["unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "-", *words] if apart else words
    environment = os.environ | {
        "TMPDIR": str(own),
        "RAY_worker_niceness": "0",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
    }
    with (own / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=own, env=environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_test
        )


def processes():
    """Number, parent and command of the processes of this machine."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rsplit(")")[-1].split()[1])
            yield int(entry.name), parent, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def descendants(numbers, word=""):
    """Numbers of the processes that those of these numbers started, by a word of their command."""
    known, found = {number: (parent, command) for number, parent, command in processes()}, []
    for number, (parent, command) in known.items():
        while parent > 1:
            if parent in numbers:
                found += [number] * (word in command)
                break
            parent = known.get(parent, (0, ""))[0]
    return found


@contextlib.contextmanager
def dask_cluster(place):
    """A scheduler and three workers; yields the option and how to find the processes that run units."""
    file = place / "scheduler.json"
    module = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    running = [started(place, 0, *module, "--port", "0", "--scheduler-file", str(file), "--no-dashboard")]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1"]
    worker += ["--death-timeout", "60"]
    running += [started(place, number, *worker, "--no-dashboard") for number in range(1, WORKERS + 1)]
    try:
        wait_for(file.exists)
        yield f"dask:{file}", lambda: descendants({one.pid for one in running[1:]}, "spawn_main")
    finally:
        end(running)


@contextlib.contextmanager
def ray_cluster(place):
    """A head without workers and a node for each worker, which share a token of this test."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    port = "6399"
    head = ["--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false"]
    running = [started(place, 0, *ray, *head, "--temp-dir", str(place / "ray"))]
    time.sleep(10)
    running += [
        started(place, n, *ray, "--address", f"127.0.0.1:{port}", "--num-cpus", "1") for n in range(1, WORKERS + 1)
    ]
    try:
        yield f"ray:127.0.0.1:{port}", lambda: [n for n, _, command in processes() if "ray::PoolActor" in command]
    finally:
        end(running)


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end(running):
    """End processes and all that they started; nothing is left of them."""
    numbers = {one.pid for one in running}
    left = descendants(numbers)
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()
    for number in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@contextlib.contextmanager
def killing(find, rng):
    """Kill one of the processes that run units at a steady pace; yields the list of those killed."""
    ended, killed = threading.Event(), []

    def kill():
        while not ended.wait(PACE):
            if found := find():
                victim = rng.choice(found)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, and its run of one process."""
    folder = tmp_path_factory.mktemp("clusters")
    write_corpus(folder / "data", per_class=IMAGES // 3)
    (folder / "client").mkdir()
    audited(folder, "whole", "local")
    return folder


CLUSTERS = {"distributed": dask_cluster, "ray": ray_cluster}
CLIENT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.audit.test_clusters import audited
audited(Path({place!r}), {name!r}, {engine!r})
"""


def start_client(place, name, engine):
    """Audit in a process of its own, since Ray reads its token once, when it is imported."""
    code = CLIENT.format(root=str(ROOT), place=str(place), name=name, engine=engine)
    with (place / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", code], stderr=log, preexec_fn=end_with_test)


@pytest.mark.nightly
@pytest.mark.parametrize("package", CLUSTERS)
def test_three_workers_one_of_which_is_killed_every_20_seconds_give_the_run_of_one_process(place, package):
    pytest.importorskip(package)
    with CLUSTERS[package](place) as (engine, find), killing(find, random.Random(0)) as killed:
        assert start_client(place, package, engine).wait() == 0, (place / "log").read_text()
    assert killed
    same(place / "client" / "whole", place / "client" / package)
    shutil.rmtree(place / "client" / package)


@pytest.mark.nightly
@pytest.mark.parametrize("package", CLUSTERS)
def test_a_client_and_a_scheduler_that_are_killed_lose_nothing(place, package):
    pytest.importorskip(package)
    run = place / "client" / "client"

    def done():
        return len([*(run / "done" / "attribution").glob("*.json")])

    with CLUSTERS[package](place) as (engine, _), start_client(place, "client", engine) as client:
        wait_for(lambda: done() >= 3 or client.poll() is not None, 900)
        client.kill()
    assert done() >= 3
    with CLUSTERS[package](place) as (engine, _):  # the scheduler of before is gone
        assert start_client(place, "client", engine).wait() == 0, (place / "log").read_text()
    same(place / "client" / "whole", run)
    shutil.rmtree(run)
