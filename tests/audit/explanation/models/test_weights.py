"""Files of weights as people have them, and numbers that no audit can use."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from klarsicht.audit.explanation.models import weights
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.ground.errors import ModelError


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()


def squeezed():
    return torchvision.models.squeezenet1_1(weights=None, num_classes=7)


def written(folder: Path, kind: str) -> Path:
    path, state = folder / f"{kind}.pt", squeezed().state_dict()
    if kind == "scripted":
        torch.jit.script(nn.Sequential(nn.Linear(2, 2))).save(path)
    elif kind == "whole":
        torch.save(nn.Linear(2, 2), path)
    elif kind == "other":
        torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=7).state_dict(), path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "number":
        torch.save(state | {"classifier.1.weight": torch.tensor(3.0)}, path)
    elif kind == "broken":
        path = folder / "broken.safetensors"
        path.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    else:
        torch.save(state, path)
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "html": b"<!doctype html>"}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("scripted", "TorchScript.*Build the network"),
        ("whole", "safely.*other things than tensors.*Save the weights alone"),
        ("other", r"classifier\.1\.weight missing.*Name the architecture"),
        ("folder", "is a folder"),
        ("number", r"classifier\.1\.weight is of shape \(\)"),
        ("empty", "is empty.*0 bytes"),
        ("truncated", r"cut short.*\d+ bytes.*Copy it again"),
        ("html", "safely"),
        ("broken", "safely"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_of_weights_that_is_none_is_told_in_one_line_with_its_name(tmp_path, kind, told):
    path = written(tmp_path, kind)
    with pytest.raises(ModelError, match=told) as caught:
        load_model(f"torchvision:squeezenet1_1@{path}")
    assert path.name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()


def test_safetensors_are_read_as_pickles_are(tmp_path):
    state = squeezed().state_dict()
    save_file(state, tmp_path / "net.safetensors")
    read = load_model(f"torchvision:squeezenet1_1@{tmp_path / 'net.safetensors'}").module.state_dict()
    assert all(torch.equal(read[key], value) for key, value in state.items())


# numbers


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("0.weight", torch.nan, "0.weight holds 1 NaN of 108 numbers"),
        ("5.bias", torch.inf, "5.bias holds 1 infinite of 5 numbers"),
        ("1.running_var", -torch.inf, "1.running_var holds 1 infinite of 4"),
    ],
)
def test_a_weight_that_is_not_finite_is_named(key, value, told):
    net = network()
    net.state_dict()[key].view(-1)[1] = value
    with pytest.raises(ModelError, match="not finite") as caught:
        load_model(net)
    assert told in str(caught.value)


def test_a_mask_may_be_infinite_and_a_count_is_no_weight():
    net = network()
    net.register_buffer("mask", torch.full((2, 2), -torch.inf))
    assert load_model(net).module is net
    net.mask[0, 0] = torch.nan
    with pytest.raises(ModelError, match="mask holds 1 NaN"):
        load_model(net)


@pytest.mark.parametrize("net", [nn.LazyLinear(3), nn.Linear(2, 3, device="meta")])
def test_weights_that_do_not_exist_are_named(net):
    with pytest.raises(ModelError, match=r"do not exist yet; got object:.*weight and 1 more"):
        load_model(nn.Sequential(nn.Flatten(), net))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single_in_a_copy(kind):
    net = network().to(kind)
    classifier = load_model(net)
    assert {value.dtype for value in classifier.module.parameters()} == {torch.float32}
    assert {value.dtype for value in net.parameters()} == {kind}
    x = torch.rand(2, 3, 8, 8)
    wide = network()
    wide.load_state_dict({key: value.float() for key, value in net.state_dict().items()})
    assert torch.equal(classifier.logits(x), wide(x))


def test_single_and_double_precision_are_kept():
    for net in (network(), network().double()):
        assert weights.in_float32(net) is net
