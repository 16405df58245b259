"""Runs of which several processes each make a share. Oracle: the same run of one process, bit by bit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.audit.conftest import network, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.status import read_progress
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.ground.errors import RunLocked, ShareMade, UsageError
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
    return out, err


def files(run):
    """Every result by its bytes; what holds a date or a process is left out, and the date in the report."""
    date = RunStore.open(run).manifest["created"][:16].replace("T", " ").encode()
    aside = ("lock", "checksums/lock", "manifest.json", "checksums/manifest.json.json", "checksums/report.html.json")
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


@pytest.mark.slow
def test_shares_in_any_order_and_one_killed_halfway_give_the_run_of_one_process_and_status_names_what_is_missing(place):
    """15 units: the share that is killed has made some of its five, and the last command makes the rest."""
    common = f"run --model net.py:build {OPTIONS} --out shared"
    assert "share 3/3" in ended(started(place, f"{common} --shard 3/3"))[1]
    victim = started(place, f"{common} --shard 1/3", STUCK_AFTER="7")
    while len([*(place / "shared" / "done" / "attribution").glob("*.json")]) < 7:
        assert victim.poll() is None
        time.sleep(0.05)
    with pytest.raises(RunLocked), RunStore.open(place / "shared").lock():
        pass
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    (step,) = [step for step in read_progress(place / "shared") if step.name == "attribution"]
    command = f"klarsicht audit {common.format(data=place / 'data')}"
    assert (step.done, step.shares, step.commands) == (
        7, 3, tuple(f"{command} --shard {one}/3" for one in (1, 2)),
    )  # fmt: skip
    assert ended(started(place, common))[0].splitlines()[-1] == "report: shared/report.html"
    same(place / "whole", place / "shared")
    assert verify(RunStore.open(place / "shared")).unverified == ()
    assert all(step.commands == () for step in read_progress(place / "shared"))


def shared_alone(action, count):
    """Do a call for each of so many shares until one comes to its end; the shares that ended before."""
    made = []
    while True:
        for number in range(count):
            try:
                return action(f"{number + 1}/{count}"), made
            except ShareMade as share:
                assert share.exit_code == 0
                made.append(str(share).split(";")[0])


@pytest.mark.slow
def test_shares_of_every_step_make_the_run_and_the_verdicts(place, tmp_path):
    settings, model = AuditSettings.of_run(RunStore.open(place / "whole").manifest), load_model(network())
    store, made = shared_alone(lambda shard: pipeline.run(settings, tmp_path / "run", classifier=model, shard=shard), 2)
    assert made[0] == "share 1/2 of attribution is made"
    same(place / "whole", store.path)
    found, made = shared_alone(lambda shard: quantify(store, classifier=model, shard=shard), 3)
    assert made[:2] == ["share 1/3 of signs is made", "share 2/3 of signs is made"]
    whole = tmp_path / "whole"
    shutil.copytree(place / "whole", whole)
    assert found.to_json() == quantify(whole, classifier=model).to_json()
    same(whole, store.path)
    with pytest.raises(UsageError, match=r"shard`? is not a shard"):
        pipeline.run(settings, tmp_path / "run", classifier=model, shard="8/7")
