"""ONNX export of a network for one tile: stabilisation, U-Net and filtering, for any height and width that its stride
divides.

Inputs: frames (1, N, C, H, W), linear and aligned; read, shot (1, C), deviation and variance coefficient; valid (1, N),
1 or 0; agreement (1, N, H, W) in [0, 1]. Output: picture (1, C, H, W). Kernels are applied by elementary operators, a
shifted product for each entry.
"""

from __future__ import annotations

import json
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.unet import COLOURS, Network
from klarsicht.ground.errors import ModelError, UsageError
from klarsicht.ground.machine.disk import temporary_folder, write_atomically
from klarsicht.ground.optional import load
from klarsicht.ground.seeding import generator
from klarsicht.numerics.pixel_kernels import reference
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

INPUTS = ("frames", "read", "shot", "valid", "agreement")
OPSET = 17
PARITY = 1e-4  # largest difference between torch and onnxruntime
PROBES = ((64, 96), (112, 80))  # sizes at which parity is checked; not those of the export
TRACED = (96, 64)


class ExportedNetwork(nn.Module):
    """Network whose kernels are applied by elementary operators."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, read: Tensor, shot: Tensor, valid: Tensor, agreement: Tensor) -> Tensor:
        taps, seen, spec, weight = self.network.kernels(frames, read, shot, valid, agreement)
        return apply_kernels_plainly(taps.float(), seen, spec, weight)


def apply_kernels_plainly(taps: Tensor, frames: Tensor, spec: KernelSpec, valid: Tensor) -> Tensor:
    """Apply kernels by elementary operators, as `numerics.pixel_kernels` does: sum_i v_i sum_pq k_i[p, q] X_i(. +
    (p, q)) / sum v, (B, C, H, W), X zero outside."""
    fine = taps if spec.upscale == 1 else interpolate(taps, scale_factor=2.0, mode="bilinear", align_corners=False)
    by_frame, wide = torch.stack(torch.split(fine, spec.taps, 1), 1), pad(frames, [spec.radius] * 4)
    H, W, side = fine.shape[2], fine.shape[3], range(spec.side)  # indexed one by one, or they would be constants
    each: Any = sum(
        reference.fused_entry(by_frame, spec, p, q)[:, :, None] * wide[..., p : p + H, q : q + W]
        for p, q in product(side, side)
    )
    share = spec.gain * valid / valid.sum(1, keepdim=True)
    return (each * share[:, :, None, None, None]).sum(1)


def export(checkpoint: Path, out: Path) -> float:
    """Export a network to an ONNX file if it agrees with torch to PARITY; return the largest difference. Raises
    ModelError where it does not agree, or for a network without kernels; MissingExtra."""
    if out.suffix.lower() != ".onnx":
        raise UsageError(
            "file of the ONNX network", got=out, rule="its name ends in .onnx", remedy="Give it that ending."
        )
    load("onnx", "onnx")
    network = checkpoints.load_network(checkpoint)
    content = to_onnx(network)
    difference = measure_parity(network, content)
    if difference > PARITY:
        raise ModelError("the ONNX file differs from the network", got=f"{difference:.1e}", rule=f"at most {PARITY:g}")
    write_atomically(out, content)
    return difference


def to_onnx(network: Network) -> bytes:
    """Serialise a network to ONNX; settings, stride and halo are stored in its metadata."""
    import onnx

    axes = {"frames": {3: "H", 4: "W"}, "agreement": {2: "H", 3: "W"}, "picture": {2: "H", 3: "W"}}
    with temporary_folder() as folder:
        file = str(folder / "n.onnx")
        inputs = tuple(torch.from_numpy(x) for x in make_probe(network, TRACED, 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on branches by shape, which are the same for every size
            torch.onnx.export(
                ExportedNetwork(network).eval(),
                inputs,
                file,
                input_names=list(INPUTS),
                output_names=["picture"],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load(file)
    about = {"settings": network.settings.model_dump(), "stride": network.preset.stride, "halo": network.preset.halo}
    onnx.helper.set_model_props(model, {"klarsicht": json.dumps(about)})
    return model.SerializeToString()


def make_probe(network: Network, size: tuple[int, int], seed: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Draw test inputs: random texture, one frame missing, agreement of any value."""
    rng, settings = generator(seed, "onnx probe"), network.settings
    N, C, (H, W) = settings.frames, COLOURS[settings.colour], size
    frames = rng.random((1, N, C, H, W), np.float32)
    valid = np.ones((1, N), np.float32)
    if N > 1:
        valid[:, -1], frames[:, -1] = 0, 0
    agreement = rng.random((1, N, H, W), np.float32)
    agreement[:, 0] = 1
    return frames, np.full((1, C), 0.02, np.float32), np.full((1, C), 3e-3, np.float32), valid, agreement


@torch.no_grad()
def measure_parity(network: Network, content: bytes) -> float:
    """Measure the largest difference between onnxruntime and torch, at sizes that were not traced."""
    runtime = load("onnxruntime", "onnx")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, size in enumerate(PROBES):
        given = make_probe(network, size, seed + 1)
        (got,) = session.run(None, dict(zip(INPUTS, given, strict=True)))
        wanted = network(*(torch.from_numpy(x) for x in given)).merged.numpy()
        worst = max(worst, float(np.abs(got - wanted).max()))
    return worst
