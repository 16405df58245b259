"""ONNX: the file, run by another runtime, gives what the network gives, at sizes that were not exported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from klarsicht.burst.network import onnx_export
from klarsicht.burst.network.checkpoints import save_network
from klarsicht.burst.network.onnx_export import INPUTS, PARITY, applied, export
from klarsicht.burst.network.unet import COLOURS, NetworkSettings, build
from klarsicht.cli.app import run
from klarsicht.ground.errors import ModelError, UsageError
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

onnx = pytest.importorskip("onnx", reason="needs klarsicht[onnx]")
EXAMPLE = Path(__file__).parents[3] / "examples" / "onnx_without_torch.py"
runtime = pytest.importorskip("onnxruntime", reason="needs klarsicht[onnx]")


def network(tmp_path, preset, colour="grey", frames=3):
    net = build(NetworkSettings(preset=preset, width=0.125, colour=colour, frames=frames), seed=1).eval()
    with torch.no_grad():
        for parameter in net.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_network(net, tmp_path / "n.safetensors", {})
    return net, tmp_path / "n.safetensors"


@pytest.mark.parametrize(("preset", "colour"), [("swift", "mosaic"), ("kpn", "grey")])
def test_onnxruntime_gives_what_torch_gives(tmp_path, preset, colour):
    net, file = network(tmp_path, preset, colour)
    assert export(file, tmp_path / "n.onnx") <= PARITY
    onnx.checker.check_model(str(tmp_path / "n.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["klarsicht"])
    assert (about["stride"], about["halo"], about["settings"]["colour"]) == (net.preset.stride, net.preset.halo, colour)
    rng, C = np.random.default_rng(0), COLOURS[colour]
    for H, W in ((16, 32), (144, 48)):
        frames = rng.random((1, 3, C, H, W), np.float32)
        level = (np.full((1, C), 0.05, np.float32), np.full((1, C), 2e-2, np.float32))
        agreement = rng.random((1, 3, H, W), np.float32)
        given = (frames, *level, np.ones((1, 3), np.float32), agreement)
        (got,) = session.run(None, dict(zip(INPUTS, given, strict=True)))
        with torch.no_grad():
            wanted = net(*map(torch.from_numpy, given)).merged.numpy()
        np.testing.assert_allclose(got, wanted, atol=PARITY)
        assert np.abs(got - frames[:, 0]).max() > 100 * PARITY  # it does something


@pytest.mark.parametrize("spec", [KernelSpec((1, 3, 5)), KernelSpec((3,), separable=False, upscale=1, averaged=False)])
def test_plain_operators_filter_as_the_kernel_operator(spec):
    draw = torch.Generator().manual_seed(2)
    taps = torch.randn(1, 3 * spec.taps, 24 // spec.upscale, 32 // spec.upscale, generator=draw)
    frames = torch.rand(1, 3, 2, 24, 32, generator=draw)
    valid = torch.tensor([[1.0, 1, 0]])
    wanted = apply_kernels(taps, frames, spec, valid).merged
    torch.testing.assert_close(applied(taps, frames, spec, valid), wanted, atol=1e-5, rtol=1e-5)


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch, capsys):
    _, file = network(tmp_path, "kpn")
    monkeypatch.setattr(onnx_export, "parity", lambda *_: 2 * PARITY)
    with pytest.raises(ModelError, match="differs from the network"):
        export(file, tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


def test_mistakes_are_named(tmp_path, capsys):
    _, file = network(tmp_path, "direct")
    with pytest.raises(UsageError, match="predicts no kernels"):
        export(file, tmp_path / "n.onnx")
    assert run(["burst", "export", str(tmp_path / "none.safetensors"), "--onnx", str(tmp_path / "n.onnx")]) != 0
    assert "no such file" in capsys.readouterr().err


def test_the_example_needs_no_torch_and_gives_what_the_network_gives(tmp_path):
    """Two frames of an odd size for a network of three, in tiles; torch cannot be imported."""
    net, file = network(tmp_path, "swift", "mosaic")
    export(file, tmp_path / "n.onnx")
    frames = np.random.default_rng(0).random((2, 4, 83, 541), np.float32)
    np.save(tmp_path / "frames.npy", frames)
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    words = [str(tmp_path / name) for name in ("n.onnx", "frames.npy")]
    command = [sys.executable, str(EXAMPLE), *words, "0.02", "0.003", str(tmp_path / "picture.npy")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
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
