"""Runs that several processes share. Oracle: the same run of one process, bit by bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.audit.conftest import network, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.ground.errors import RunLocked, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import verify

ROOT = Path(__file__).parents[2]
MODEL = """
import os, sys, time
sys.path.insert(0, {root!r})
from tests.audit.conftest import network
from torch.nn.modules.module import register_module_forward_pre_hook
from pathlib import Path

def build():
    net = network()
    stuck = os.environ.get("STUCK_AFTER")
    if stuck:  # hangs in the unit after some units are done
        def hang(*_):
            while len([*Path("shared/done/attribution").glob("*.json")]) >= int(stuck):
                time.sleep(.05)
        register_module_forward_pre_hook(hang)  # of all modules: one of the network would make it another model
    return net
"""
OPTIONS = "--data {data} --unit 12 --batch 6 --neighbours 6 --metric concept --metric euclidean"


@pytest.fixture(scope="module", autouse=True)
def plain_layouts():
    """Pages have their own layouts: processes that know nothing of this file draw them, too."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus, a model, and the run `whole` of one process."""
    folder = tmp_path_factory.mktemp("shared")
    write_corpus(folder / "data")
    (folder / "net.py").write_text(MODEL.format(root=str(ROOT)))
    settings = AuditSettings(
        model="net.py:build", data=str(folder / "data"), unit=12, batch=6, neighbours=6, metric=("concept", "euclidean")
    )
    pipeline.run(settings, folder / "whole", classifier=load_model(network()))
    return folder


def started(place, command, **environment):
    words = [sys.executable, "-m", "klarsicht", "audit", *command.format(data=place / "data").split()]
    return subprocess.Popen(
        words, cwd=place, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


def files(run):
    """Every result by its bytes; what holds a date or a process is left out, and the date in the report."""
    date = RunStore.open(run).manifest["created"][:16].replace("T", " ").encode()
    aside = ("lock", "manifest.json", "checksums/manifest.json.json", "checksums/report.html.json")
    paths = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    return {name: path.read_bytes().replace(date, b"") for name, path in paths.items() if name not in aside}


def manifest(run):
    aside = ("created", "data", "model_notes", "code")  # where a model is built in Python, no code is named
    return {k: v for k, v in RunStore.open(run).manifest.items() if k not in aside}


def same(one, two):
    here, there = files(one), files(two)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    assert manifest(one) == manifest(two)


def wait_until(true, *running, seconds=300):
    """Wait for a condition as long as processes run that bring it about."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        assert [process.args for process in running if process.poll() is not None] == []
        time.sleep(0.05)


@pytest.mark.slow
def test_a_shard_that_is_killed_halfway_loses_its_units_to_the_other_and_the_result_is_that_of_one_process(place):
    done = place / "shared" / "done" / "attribution"
    common = f"run --model net.py:build {OPTIONS} --out shared"
    claims = place / "shared" / "claims"
    running = [victim := started(place, f"{common} --shard 1/2", STUCK_AFTER="3")]
    try:  # 15 units; the victim does three and hangs in one, the other process does the rest and waits for that one
        wait_until(lambda: len([*done.glob("*.json")]) == 3 and [*claims.glob("attribution.*[0-9]")], victim)
        running.append(other := started(place, f"{common} --shard 2/2"))
        wait_until(lambda: len([*done.glob("*.json")]) == 14, victim, other)
        wait_until(lambda: len([*claims.glob("attribution.*[0-9]")]) == 1, victim, other)
        with pytest.raises(RunLocked), RunStore.open(place / "shared").lock():
            pass
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        printed = ended(other)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert printed.splitlines()[-1] == "report: shared/report.html"
    same(place / "whole", place / "shared")
    assert verify(RunStore.open(place / "shared")).unverified == ()
    assert not (place / "shared" / "claims").exists()
    with RunStore.open(place / "shared").lock():
        pass


@pytest.mark.nightly  # eighteen processes
@pytest.mark.parametrize("seed", range(3))
def test_shards_killed_at_random_and_started_again_give_the_same_run_and_the_same_verdicts(place, seed):
    rng, out = np.random.default_rng(seed), f"random{seed}"
    for step, most in ((f"run --model net.py:build {OPTIONS} --out {out}", 12), (f"quantify {out}", 15)):
        running = {i: started(place, f"{step} --shard {i + 1}/3") for i in range(3)}
        for i in rng.permutation(3)[:2]:
            time.sleep(rng.uniform(2, most))
            running[i].send_signal(signal.SIGKILL)
            running[i].communicate()
            running[i] = started(place, f"{step} --shard {i + 1}/3")
        for process in running.values():
            ended(process)
    whole = place / f"whole{seed}"
    settings = AuditSettings.of_run(RunStore.open(place / "whole").manifest)
    pipeline.run(settings, whole, classifier=load_model(network()))
    quantify(whole, classifier=load_model(network()))
    same(whole, place / out)


@pytest.mark.slow
def test_a_shard_alone_does_everything_and_the_array_it_names_may_come_later(place, tmp_path):
    settings = AuditSettings.of_run(RunStore.open(place / "whole").manifest)
    for shard in ("2/7", "7/7"):
        store = pipeline.run(settings, tmp_path / "run", classifier=load_model(network()), shard=shard)
    same(place / "whole", store.path)
    found = [quantify(store, classifier=load_model(network()), shard=shard) for shard in ("1/3", None)]
    assert found[0].to_json() == found[1].to_json()
    with pytest.raises(UsageError, match="`shard` is not a shard"):
        pipeline.run(settings, tmp_path / "run", classifier=load_model(network()), shard="8/7")
