"""The loop against Adam written out by hand, and against itself killed, torn, poisoned and split in two."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from klarsicht.ground import fit as fit_module
from klarsicht.ground.errors import DiskFull, ModelError, RunLocked, RunMismatch, StoreError, UsageError
from klarsicht.ground.fit import Curve, Learner, Plan, fit, measure_step_seconds, prefetch
from klarsicht.ground.machine.devices import World

ROOT = Path(__file__).parents[2]


class Line(nn.Module):
    """y = a x + b."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.tensor(value)) for value in (0.5, 0.0))

    def forward(self, x):
        return self.a * x + self.b


class Regression:
    """Squares on points of y = 3 x - 1, drawn by step and rank."""

    def __init__(self, poisoned=None):
        self.poisoned, self.watched = poisoned, []

    def batch(self, step, rank):
        x = torch.from_numpy(np.random.default_rng([step, rank]).standard_normal(8).astype(np.float32))
        return x, 3 * x - 1

    def loss(self, model, batch, step):
        x, y = batch
        error = (model(x) - y).square().mean()
        return error / 0 if step == self.poisoned else error

    def validate(self, step, model):
        self.watched.append(step)
        return {"a": model.a.item()}


PLAN = Plan(40, rate=0.1, warmup=5, every=10, clip=1.0)


def by_hand(plan, task):
    """Adam of Kingma and Ba, algorithm 1, with the clipped gradient of the mean square, in double precision."""
    weights, m, v, losses = np.array([0.5, 0.0]), np.zeros(2), np.zeros(2), []
    average = weights.copy()
    for step in range(plan.steps):
        x, y = (values.double().numpy() for values in task.batch(step, 0))
        error = weights[0] * x + weights[1] - y
        losses.append(np.mean(error**2))
        g = np.array([np.mean(2 * error * x), np.mean(2 * error)])
        g = g * min(1, plan.clip / np.linalg.norm(g))
        falling = (1 - step / plan.steps) / (1 - plan.hold)
        rate = plan.rate * min(1, (step + 1) / plan.warmup) * min(1, max(0.01, falling))
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        t = step + 1
        weights = weights - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        memory = min(plan.memory, t / (9 + t))
        average = memory * average + (1 - memory) * weights
    return losses, average


def test_it_is_adam_with_a_clipped_gradient_and_a_moving_average(tmp_path):
    task = Regression()
    model = fit(Line(), task, PLAN, tmp_path)
    losses, average = by_hand(PLAN, task)
    written = [line["loss"] for line in Curve(tmp_path / "curve.jsonl").read() if "loss" in line]
    assert written == pytest.approx(losses, rel=1e-3, abs=1e-5)
    assert [model.a.item(), model.b.item()] == pytest.approx(average.tolist(), abs=1e-4)
    assert task.watched == [10, 20, 30, 40]


def test_the_rate_warms_up_stays_and_falls_to_a_hundredth():
    plan = Plan(1000, rate=1.0, warmup=10, hold=0.5)
    rates = [plan.rate_at(step) for step in (0, 4, 9, 500, 750, 999)]
    assert rates == pytest.approx([0.1, 0.5, 1, 1, 0.5, 0.01])


def curve_of(folder):
    return (folder / "curve.jsonl").read_bytes()


PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.ground.test_fit import PLAN, Line, Regression
from klarsicht.ground.fit import fit

class Slow(Regression):
    def loss(self, model, batch, step):
        print(step, flush=True)
        time.sleep(0.01)
        return super().loss(model, batch, step)

fit(Line(), Slow(), PLAN, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_run_killed_at_any_step_ends_with_the_same_curve(tmp_path):
    fit(Line(), Regression(), PLAN, tmp_path / "undisturbed")
    program = PROGRAM.format(root=str(ROOT))
    command = [sys.executable, "-c", program, str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        for line in process.stdout:
            if int(line) == 17:
                process.send_signal(signal.SIGKILL)
                break
    assert len(curve_of(tmp_path / "killed").splitlines()) > 11
    again = fit(Line(), Regression(), PLAN, tmp_path / "killed")
    assert curve_of(tmp_path / "killed") == curve_of(tmp_path / "undisturbed")
    states = [(tmp_path / name / "state.pt").read_bytes() for name in ("killed", "undisturbed")]
    assert states[0] == states[1]
    whole = fit(Line(), Regression(), PLAN, tmp_path / "undisturbed")
    assert torch.equal(again.a, whole.a)


def test_a_finished_run_does_nothing_more(tmp_path):
    fit(Line(), Regression(), PLAN, tmp_path)
    before, task = curve_of(tmp_path), Regression()
    fit(Line(), task, PLAN, tmp_path)
    assert curve_of(tmp_path) == before
    assert task.watched == []


def test_half_a_line_of_the_curve_is_forgotten(tmp_path):
    curve = Curve(tmp_path / "curve.jsonl")
    for step in range(5):
        curve.add(step, {"loss": step / 2})
    with curve.path.open("a") as file:
        file.write('{"step": 5, "lo')
    curve.truncate(3)
    assert [json.loads(line) for line in curve.path.read_text().splitlines()] == [
        {"step": step, "loss": step / 2} for step in range(3)
    ]


def test_a_loss_that_is_not_finite_stops_and_the_last_checkpoint_stays(tmp_path):
    with pytest.raises(ModelError, match="step 25") as caught:
        fit(Line(), Regression(poisoned=25), PLAN, tmp_path)
    assert "inf" in str(caught.value)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 20
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_other_plans_models_files_and_processes_are_refused(tmp_path):
    fit(Line(), Regression(), PLAN, tmp_path)
    with pytest.raises(RunMismatch, match=r"rate was 0\.1, is now 0\.2"):
        fit(Line(), Regression(), Plan(40, rate=0.2, warmup=5, every=10), tmp_path)
    with pytest.raises(RunMismatch, match="another model"):
        fit(nn.Linear(2, 2), Regression(), PLAN, tmp_path)
    content = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="cannot resume"):
        fit(Line(), Regression(), PLAN, tmp_path)


def test_two_processes_cannot_write_one_run(tmp_path):
    class Nested(Regression):
        def validate(self, step, model):
            with pytest.raises(RunLocked):
                fit(Line(), Regression(), PLAN, tmp_path)
            return super().validate(step, model)

    task = Nested()
    fit(Line(), task, PLAN, tmp_path)
    assert task.watched


def test_batches_are_made_ahead_in_order_and_no_further_than_asked():
    made, caller = [], threading.get_ident()

    def make(step):
        assert threading.get_ident() != caller
        made.append(step)
        return step * step

    stream = prefetch(make, range(4, 100), workers=1)
    assert list(islice(stream, 5)) == [16, 25, 36, 49, 64]
    stream.close()
    assert made == list(range(4, 4 + len(made)))
    assert len(made) <= 5 + 3


def test_batches_are_made_while_the_network_works():
    """No one asks for the next batch, and yet it gets ready."""
    ready = threading.Event()

    def make(step):
        if step == 3:
            ready.set()
        return step

    stream = prefetch(make, range(10), workers=1)
    assert next(stream) == 0
    assert ready.wait(30)
    stream.close()


def test_what_fails_in_a_batch_fails_the_run(tmp_path):
    class Broken(Regression):
        def batch(self, step, rank):
            if step == 3:
                raise ModelError("no more data")
            return super().batch(step, rank)

    with pytest.raises(ModelError, match="no more data"):
        fit(Line(), Broken(), PLAN, tmp_path)


def test_timing_a_step_leaves_the_model_as_it_was(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(fit_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    class Slow(Regression):
        def loss(self, model, batch, step):
            clock[0] += 0.25
            return super().loss(model, batch, step)

    model = Line()
    assert measure_step_seconds(model, Slow(), PLAN, range(9)) == 0.25
    assert (model.a.item(), model.b.item()) == (0.5, 0.0)


def test_plans_that_cannot_be_are_refused():
    for wrong in ({"steps": 0}, {"steps": 5, "rate": 0.0}, {"steps": 5, "hold": 1.0}, {"steps": 5, "every": 0}):
        with pytest.raises(UsageError, match="plan"):
            Plan(**wrong)


PAIR = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.ground.test_fit import PLAN, Line, Regression
from klarsicht.ground.fit import fit
fit(Line(), Regression(), PLAN, Path(sys.argv[1]))
"""


def together(program, folder, processes=2):
    """Runs it as torchrun would: one environment for each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program).format(root=str(ROOT)), str(folder)]
    started = [
        subprocess.Popen(command, env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]
    assert [process.wait(120) for process in started] == [0] * processes


class Union(Regression):
    """One process with the batches of two, one after the other."""

    def batch(self, step, rank):
        both = [super(Union, self).batch(step, r) for r in range(2)]
        return tuple(torch.cat(parts) for parts in zip(*both, strict=True))


@pytest.mark.nightly
def test_two_processes_learn_what_one_learns_from_both_batches(tmp_path):
    together(PAIR, tmp_path / "two")
    fit(Line(), Union(), PLAN, tmp_path / "one")
    two, one = (Curve(tmp_path / name / "curve.jsonl").read() for name in ("two", "one"))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for a, b in zip(two, one, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".state.pt.4711.tmp").touch()
    fit(Line(), Regression(), PLAN, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "state.pt", "curve.jsonl"}


def test_a_disk_that_fills_while_the_state_is_saved_is_named_and_keeps_the_last_one(tmp_path):
    """A limit on the size of files, as the system sets it, between that of the curve and that of the state."""
    fit(Line(), Regression(), PLAN, tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    learner = Learner(Line(), Regression(), PLAN, World(0, 1, torch.device("cpu")))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(DiskFull, match=r"state\.pt.*resume"):
            learner.save(tmp_path / "state.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("line", ["not json", "[1]", '{"loss": 1}', '{"step": "x"}'])
def test_a_damaged_curve_is_named(tmp_path, line):
    fit(Line(), Regression(), PLAN, tmp_path)
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(StoreError, match=r"curve\.jsonl is damaged"):
        fit(Line(), Regression(), PLAN, tmp_path)
