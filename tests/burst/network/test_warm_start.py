"""A network that begins with another's weights does what that one did, as long as it is shown no more than that one."""

import pytest
import torch

from klarsicht.burst.network import checkpoints, warm_start
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.ground.errors import ModelError

READ, SHOT = torch.tensor([0.02, 0.05]), torch.tensor([0.004, 0.01])


def settings(colour, preset="swift", **changes):
    return NetworkSettings(preset=preset, colour=colour, width=0.125, frames=3, **changes)


def trained(colour, preset, tmp_path):
    """A network whose kernels differ from pixel to pixel, and its file."""
    network = build_network(settings(colour, preset), 1).eval()
    torch.nn.init.normal_(network.head.taps.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    checkpoints.save_network(network, tmp_path / "before.safetensors", {})
    return network, tmp_path / "before.safetensors"


def light(channels):
    return torch.rand(2, 3, channels, 32, 48, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("preset", ["swift", "mkpn", "kpn"])
@pytest.mark.parametrize(("before", "now", "planes"), [
    ("grey", "grey", [0]), ("grey", "rgb", [0, 0, 0]), ("grey", "mosaic", [0] * 4), ("rgb", "mosaic", [0, 1, 1, 2]),
])  # fmt: skip
def test_kernels_are_those_of_the_network_it_began_with(before, now, planes, preset, tmp_path):
    old, file = trained(before, preset, tmp_path)
    new = build_network(settings(now, preset), 7).eval()
    warm_start.load_initial_weights(new, file)
    frames = light(1 if before == "grey" else 3)
    with torch.no_grad():
        expected = old.kernels(frames, READ, SHOT).taps
        got = new.kernels(frames[:, :, planes], READ, SHOT).taps
    assert expected.std() > 0.05
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_network_of_another_kind_is_refused_by_the_setting_that_differs(tmp_path):
    _, file = trained("rgb", "swift", tmp_path)
    for other, named in ((settings("rgb", "kpn"), "preset"), (settings("grey"), "colour"),
                         (settings("rgb").model_copy(update={"width": 0.25}), "width")):  # fmt: skip
        with pytest.raises(ModelError, match=named):
            warm_start.load_initial_weights(build_network(other, 0), file)
    with pytest.raises(ModelError, match="no such file"):
        warm_start.load_initial_weights(build_network(settings("rgb"), 0), tmp_path / "absent.safetensors")
