"""ONNX: the file, run by another runtime, gives what the network gives, at sizes that were not exported."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.marks import slow

from klarsicht.burst.network import onnx_export
from klarsicht.burst.network.checkpoints import save_network
from klarsicht.burst.network.onnx_export import INPUTS, PARITY, apply_kernels_plainly, export
from klarsicht.burst.network.unet import COLOURS, PRESETS, NetworkSettings, build_network
from klarsicht.cli.app import run
from klarsicht.ground.errors import ModelError, UsageError
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

onnx = pytest.importorskip("onnx", reason="needs klarsicht[onnx]")
EXAMPLE = Path(__file__).parents[3] / "examples" / "onnx_without_torch.py"
runtime = pytest.importorskip("onnxruntime", reason="needs klarsicht[onnx]")


def network(tmp_path, preset, colour="grey", frames=3):
    net = build_network(NetworkSettings(preset=preset, width=0.125, colour=colour, frames=frames), seed=1).eval()
    with torch.no_grad():
        for parameter in net.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_network(net, tmp_path / "n.safetensors", {})
    return net, tmp_path / "n.safetensors"


def exported(folder, preset, colour="grey", frames=3):
    net, file = network(folder, preset, colour, frames)
    assert export(file, folder / "n.onnx") <= PARITY
    return net, folder / "n.onnx"


@pytest.fixture(scope="module")
def swift_of_three(tmp_path_factory):
    """Three frames and their mean; with kernels of 5 x 5, since the export takes time and room for each of their
    entries and frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "swift", replace(PRESETS["swift"], spec=KernelSpec((5,))))
        return exported(tmp_path_factory.mktemp("swift"), "swift", "mosaic")


@pytest.mark.slow
def test_onnxruntime_gives_what_torch_gives_for_swift(swift_of_three):
    check(*swift_of_three)


@pytest.mark.parametrize(("preset", "colour", "frames"), [slow("swift", "mosaic", 1), ("kpn", "grey", 3)])
def test_onnxruntime_gives_what_torch_gives(tmp_path, preset, colour, frames):
    """swift with all its entries, for one frame and the mean."""
    check(*exported(tmp_path, preset, colour, frames))


def check(net, file):
    onnx.checker.check_model(str(file))
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["klarsicht"])
    colour, N = net.settings.colour, net.settings.frames
    assert (about["stride"], about["halo"], about["settings"]["colour"]) == (net.preset.stride, net.preset.halo, colour)
    rng, C = np.random.default_rng(0), COLOURS[colour]
    for H, W in ((16, 32), (144, 48)):
        frames = rng.random((1, N, C, H, W), np.float32)
        level = (np.full((1, C), 0.05, np.float32), np.full((1, C), 2e-2, np.float32))
        agreement = rng.random((1, N, H, W), np.float32)
        given = (frames, *level, np.ones((1, N), np.float32), agreement)
        (got,) = session.run(None, dict(zip(INPUTS, given, strict=True)))
        with torch.no_grad():
            wanted = net(*map(torch.from_numpy, given)).merged.numpy()
        np.testing.assert_allclose(got, wanted, atol=PARITY)
        assert np.abs(got - frames[:, 0]).max() > 100 * PARITY  # it does something


@pytest.mark.slow
@pytest.mark.parametrize("spec", [KernelSpec((1, 3, 5)), KernelSpec((3,), separable=False, upscale=1, averaged=False)])
def test_plain_operators_filter_as_the_kernel_operator(spec):
    draw = torch.Generator().manual_seed(2)
    taps = torch.randn(1, 3 * spec.taps, 24 // spec.upscale, 32 // spec.upscale, generator=draw)
    frames = torch.rand(1, 3, 2, 24, 32, generator=draw)
    valid = torch.tensor([[1.0, 1, 0]])
    wanted = apply_kernels(taps, frames, spec, valid).merged
    torch.testing.assert_close(apply_kernels_plainly(taps, frames, spec, valid), wanted, atol=1e-5, rtol=1e-5)


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch, capsys):
    _, file = network(tmp_path, "kpn")
    monkeypatch.setattr(onnx_export, "measure_parity", lambda *_: 2 * PARITY)
    with pytest.raises(ModelError, match="differs from the network"):
        export(file, tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


def test_another_ending_than_that_of_the_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"got .*a\.foo; its name ends in \.onnx"):
        export("swift", tmp_path / "a.foo")
    assert not list(tmp_path.iterdir())


def test_mistakes_are_named(tmp_path, capsys):
    _, file = network(tmp_path, "direct")
    with pytest.raises(UsageError, match="predicts no kernels"):
        export(file, tmp_path / "n.onnx")
    assert run(["burst", "export", str(tmp_path / "none.safetensors"), "--onnx", str(tmp_path / "n.onnx")]) != 0
    assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_example_needs_no_torch_and_gives_what_the_network_gives(tmp_path, swift_of_three):
    """Two frames of an odd size for a network of three, in tiles; torch cannot be imported."""
    net, file = swift_of_three
    frames = np.random.default_rng(0).random((2, 4, 83, 541), np.float32)
    np.save(tmp_path / "frames.npy", frames)
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    words = [str(EXAMPLE), str(file), str(tmp_path / "frames.npy"), "0.02", "0.003", str(tmp_path / "picture.npy")]
    subprocess.run([sys.executable, *words], check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    with torch.no_grad():
        level = (torch.full((1, 4), x) for x in (0.02, 0.003))
        wanted = net(torch.from_numpy(frames)[None], *level).merged[0].numpy()
    got = np.load(tmp_path / "picture.npy")
    assert got.shape == wanted.shape
    inner = (
        slice(None),
        slice(None, -8),
        slice(None, -8),
    )  # the script repeats edges, beyond which our kernels see nothing
    np.testing.assert_allclose(got[inner], wanted[inner], atol=PARITY)
