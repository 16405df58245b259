"""The speed command. Oracles: work that takes a known processor time, and ratios by hand."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed.py"


@pytest.fixture(scope="module")
def speed():
    spec = importlib.util.spec_from_file_location("speed_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["speed_script"] = module
    spec.loader.exec_module(module)
    return module


def spin(seconds):
    def work():
        began = time.process_time()
        while time.process_time() - began < seconds:
            pass

    return work


def test_a_ratio_is_that_of_processor_times(speed):
    comparison = speed.Comparison(spin(0.02), spin(0.01), factor=4, repeats=3)
    assert comparison.ratio() == pytest.approx(0.5, rel=0.2)


def test_a_planted_slowdown_of_a_third_is_named_and_one_of_a_tenth_is_not(speed, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(speed, "KEPT", tmp_path / "kept.json")
    (tmp_path / "kept.json").write_text('{"relevance": 1.0, "burst": 1.0}')
    slower = {"relevance": 1.34, "burst": 1.1, "kernels": 9.0}

    class Planted:
        def __init__(self, ratio):
            self.value = ratio

        def ratio(self):
            return self.value

    monkeypatch.setattr(speed, "COMPARISONS", {name: lambda name=name: Planted(slower[name]) for name in slower})
    monkeypatch.setattr(sys, "argv", ["speed.py"])
    assert speed.main() == 1
    shown = capsys.readouterr()
    assert shown.err == "relevance: 1.34 times the peer's time, 1 was kept\n"
    assert "| burst | 1.1 | 1 |" in shown.out
    monkeypatch.setattr(sys, "argv", ["speed.py", "--only", "burst", "kernels"])
    assert speed.main() == 0


@pytest.mark.slow
def test_a_slowdown_in_the_sources_is_found(speed, monkeypatch):
    """The graph of transport distances is computed twice: its ratio doubles."""
    comparison = speed.compare_transport()
    twice = speed.Comparison(lambda: (comparison.ours(), comparison.ours()), comparison.peer, comparison.factor, 3)
    ratio = speed.Comparison(comparison.ours, comparison.peer, comparison.factor, 3).ratio()
    assert [*speed.losses({"transport": twice.ratio()}, {"transport": ratio})]
