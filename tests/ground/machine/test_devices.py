"""Devices and processes: a single process without torchrun's variables, and threads that are given back."""

import pytest
import torch

from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine.devices import bf16_is_faster, device, select_device, torch_threads, widest_float, world


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with world() as here:
        assert (here.rank, here.size) == (0, 1)
        assert here.mean(torch.tensor(2.5)) == 2.5
        model = torch.nn.Linear(1, 1)
        assert here.wrap_model(model) is model


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="stop"), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError("stop")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("flags", "gains"),
    [
        ("vendor_id : GenuineIntel flags : fpu avx2 avx512f", False),
        ("vendor_id : GenuineIntel flags : fpu avx512_bf16 x", False),
        ("vendor_id : GenuineIntel flags : amx_bf16 amx_tile", True),
        ("vendor_id : AuthenticAMD flags : fpu avx512_bf16 x", True),
        ("vendor_id : AuthenticAMD flags : fpu avx2 avx512f", False),
    ],
)
def test_bfloat16_gains_where_the_processor_has_instructions_for_it(flags, gains, monkeypatch):
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: flags)
    assert bf16_is_faster(torch.device("cpu")) is gains


def test_without_a_list_of_flags_it_does_not(monkeypatch):
    def absent(self):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", absent)
    assert bf16_is_faster(torch.device("cpu")) is False
    assert device().type in ("cpu", "cuda")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(
    ("name", "rank", "selected"),
    [("auto", "", "cuda:0"), ("auto", "1", "cuda:1"), ("cuda", "1", "cuda:1"), ("cuda:1", "", "cuda:1"),
     ("cpu", "1", "cpu")],
)  # fmt: skip
def test_a_device_is_selected_by_its_name(name, rank, selected, two_gpus, monkeypatch):
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(select_device(name)) == selected


@pytest.mark.parametrize("name", ["cuda:2", "cuda:-1", "mps", "gpu", "", "meta", "cuda:1x"])
def test_another_device_is_one_error_that_lists_those_there_are(name, two_gpus, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"auto, cpu, cuda:0, cuda:1"):
        select_device(name)


def test_apples_gpu_is_there_where_torch_sees_it_and_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device("mps") == torch.device("mps")
    assert widest_float(torch.device("mps")) == torch.float32
    assert widest_float(torch.device("cuda")) == widest_float(torch.device("cpu")) == torch.float64


@pytest.mark.parametrize(("name", "selected"), [("xpu", "xpu:1"), ("xpu:0", "xpu:0"), ("auto", "cpu")])
def test_intels_gpus_are_selected_by_their_name_only(name, selected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(select_device(name)) == selected
    assert widest_float(torch.device("xpu")) == torch.float32
    with pytest.raises(UsageError, match="auto, cpu, xpu:0, xpu:1"):
        select_device("xpu:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "xpu"])
def test_a_gpu_that_is_not_there_is_an_error(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="does not have that --device"):
        select_device(name)
