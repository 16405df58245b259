"""Where numbers are crunched: alone without torchrun's variables, and threads that are given back."""

import pytest
import torch

from klarsicht.ground.devices import bf16_is_faster, device, torch_threads, world


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
