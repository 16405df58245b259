"""Memory that runs short for a moment: no image is dropped for it, nothing is marked done, and a rerun is whole."""

import numpy as np
import pytest
import torch
from pyarrow import ArrowException
from tests.audit.conftest import Marked, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.cli.app import run as command
from klarsicht.ground.errors import InputRefused, OutOfMemory
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.run_folder.store import RunStore

TEXT = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 9"


class Short(Marked):
    """A network for which memory suffices for so many images at once, and for a time for none."""

    most, calls, short = 10**9, 0, range(0)

    def forward(self, x):
        Short.calls += 1
        if len(x) > Short.most or Short.calls in Short.short:
            raise RuntimeError(TEXT)
        return super().forward(x)


def network():
    return Short().eval()


@pytest.fixture(autouse=True)
def enough():
    Short.most, Short.calls, Short.short = 10**9, 0, range(0)


def audited(folder, out):
    write_corpus(folder / "data") if not (folder / "data").exists() else None
    settings = AuditSettings(model="short", data=str(folder / "data"), unit=60, neighbours=6)
    return pipeline.run(settings, folder / out, classifier=load_model(network(), classes=["a", "b", "c"]))


@pytest.mark.slow
def test_a_batch_is_halved_until_memory_suffices_and_no_image_is_skipped(tmp_path):
    whole = audited(tmp_path, "whole")
    Short.most = 3
    halved = audited(tmp_path, "halved")
    assert set(halved.table("images", "attribution")["skipped"].to_pylist()) == {""}
    for name in ("maps", "logits", "head"):
        np.testing.assert_allclose(halved.array(name)[:], whole.array(name)[:], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_where_one_image_is_too_much_it_stops_with_one_line_and_resumes_whole(tmp_path, monkeypatch, capsys):
    whole = audited(tmp_path, "whole")
    Short.calls, Short.short = 0, range(2 * Short.calls // 3, 10**9)
    with pytest.raises(OutOfMemory, match="not marked done"):
        audited(tmp_path, "run")
    run = RunStore.open(tmp_path / "run")
    assert len(run.finished_units("attribution")) < 3
    Short.short = range(0)
    again = audited(tmp_path, "run")
    assert set(again.table("images", "attribution")["skipped"].to_pylist()) == {""}
    assert (again.array("maps")[:] == whole.array("maps")[:]).all()


def test_the_command_exits_with_a_code_of_its_own(tmp_path, monkeypatch, capsys):
    audited(tmp_path, "whole")
    Short.calls, Short.short = 0, range(2 * Short.calls // 3, 10**9)
    monkeypatch.setattr("klarsicht.audit.explanation.steps.audit_inputs.load_model",
                        lambda *_, **__: load_model(network(), classes=["a", "b", "c"]))  # fmt: skip
    out, named = str(tmp_path / "run"), tmp_path / "short.py"
    named.write_text("")  # names are looked at before a model is loaded
    assert command(["audit", "run", "--model", f"{named}:build", "--data", str(tmp_path / "data"), "--out", out]) == 9
    assert capsys.readouterr().err.splitlines()[-1].startswith("klarsicht: memory ran short")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(TEXT), True), (MemoryError(), True), (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("can't start new thread"), True), (OutOfMemory("x"), True),
        (RuntimeError("could not create a primitive"), True),
        (ArrowException("Unknown error: Failed to launch worker thread"), True), (ArrowException("no footer"), False),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False), (InputRefused("the model fails"), False), (KeyError("memory"), False),
    ],
)  # fmt: skip
def test_what_says_that_memory_is_short(error, told):
    assert is_out_of_memory(error) == told
