"""Models on a device that is not the CPU. Oracle: the same model on the CPU; the fake device refuses to mix the two."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
BEGIN = """
import sys; sys.path.insert(0, {root!r})
from tests import fake_device
fake_device.register()
import numpy as np, torch
from tests.audit.conftest import network, write_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import METHODS, explain
from klarsicht.ground.machine import devices
x, t = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
"""


def run(code):
    """In a process of its own: torch keeps a device that it was given."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN.format(root=str(ROOT)) + code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_method_gives_on_a_device_what_it_gives_on_the_cpu():
    run("""
for method in METHODS:
    here, there = (explain(load_model(network(), device=place), x, t, method=method) for place in ("cpu", "fake"))
    for name in ("maps", "head", "logits", "features", "concepts", "absorbed", "total"):
        assert np.array_equal(getattr(here, name), getattr(there, name), equal_nan=True), (method, name)
""")


@pytest.mark.slow
def test_a_device_without_float64_agrees_up_to_rounding():
    run("""
expected = {method: explain(load_model(network()), x, t, method=method) for method in METHODS}
fake_device.REFUSED.add(torch.float64)
devices.NARROW = ("fake",)
for method in METHODS:
    found = explain(load_model(network(), device="fake"), x, t, method=method)
    assert np.abs(found.maps - expected[method].maps).max() < 1e-5 * np.abs(expected[method].maps).max(), method
    assert np.allclose(found.absorbed, expected[method].absorbed, atol=1e-5, equal_nan=True)
""")


@pytest.mark.slow
def test_a_fake_device_refuses_what_a_gpu_refuses():
    """The test of the tests: a tensor that was left on the CPU is noticed."""
    told = run("""
try:
    torch.ones(3, device="fake") + torch.ones(3)
except RuntimeError as error:
    print(error)
""")
    assert "of the CPU in one computation" in told


@pytest.mark.slow
def test_a_run_and_its_quantification_on_a_device_are_those_on_the_cpu(tmp_path):
    """Whole commands by the option --device; the name of the device is let through, as if it were a GPU."""
    run(f"""
from pathlib import Path
from klarsicht.audit.explanation.steps import audit_inputs
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.audit.explanation.settings import AuditSettings
folder = Path({str(tmp_path)!r})
write_corpus(folder / "data", per_class=25)
chosen = audit_inputs.select_device
audit_inputs.select_device = lambda name: torch.device("fake") if name == "cuda:1" else chosen(name)
stores = []
for device in ("cpu", "cuda:1"):
    settings = AuditSettings(model="tests.audit.conftest:network", data=str(folder / "data"), unit=40, neighbours=6,
                             device=device)
    audit = audit_inputs.Audit.of(settings)
    assert audit.classifier.device.type == ("cpu" if device == "cpu" else "fake")
    stores.append(pipeline.run(settings, folder / device.replace(":", "-")))
    quantification.quantify(stores[-1].path, device=device)
one, other = stores
assert fake_device.COPIES["fake"] > 10 and fake_device.COPIES["cpu"] > 10
assert (one.manifest["device"], other.manifest["device"]) == ("cpu", "fake")
assert {{"device", "readers", "data"}}.isdisjoint(other.manifest["settings"])
for name in ("logits", "maps", "features"):
    assert (one.array(name)[:] == other.array(name)[:]).all()
for name in ("ranking.json", "quantification.json"):
    assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
""")


@pytest.mark.parametrize("name", ["quantify", "shortcuts", "power", "check", "clean", "evaluate", "clean-data", "run"])
def test_every_command_that_runs_the_model_has_the_option(name, capsys):
    from klarsicht.cli.app import run as run_command

    assert run_command(["audit", name, "--help"]) == 0
    assert "--device" in capsys.readouterr().out
