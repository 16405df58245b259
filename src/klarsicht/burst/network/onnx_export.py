"""A network as an ONNX file for one tile: stabilise, U-Net and filter; any height and width that its stride divides.

Inputs: frames (1, N, C, H, W), linear and aligned; read, shot (1, C), deviation and variance coefficient; valid (1, N),
1 or 0; agreement (1, N, H, W) in [0, 1]. Output: picture (1, C, H, W). Alignment stays outside.

Kernels are applied by plain operators here, a shifted product for each entry: slower than `numerics.windows`, but every
runtime has them.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.unet import COLOURS, Network
from klarsicht.ground.disk import write_atomically
from klarsicht.ground.errors import ModelError
from klarsicht.ground.optional import load
from klarsicht.ground.seeding import generator
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

INPUTS = ("frames", "read", "shot", "valid", "agreement")
OPSET = 17
PARITY = 1e-4  # between torch and onnxruntime
PROBES = ((64, 96), (112, 80))  # sizes at which parity is checked; not those of the export
TRACED = (96, 64)


class ExportedNetwork(nn.Module):
    """The network with its kernels applied by plain operators."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, read: Tensor, shot: Tensor, valid: Tensor, agreement: Tensor) -> Tensor:
        taps, seen, spec, weight = self.network.kernels(frames, read, shot, valid, agreement)
        return applied(taps.float(), seen, spec, weight)


def applied(taps: Tensor, frames: Tensor, spec: KernelSpec, valid: Tensor) -> Tensor:
    """(B, C, H, W): sum_i v_i sum_pq k_i[p, q] X_i(. + (p, q)) / sum v, X zero outside; numerics.windows in plain
    operators."""
    fine = taps if spec.upscale == 1 else interpolate(taps, scale_factor=2.0, mode="bilinear", align_corners=False)
    N, T, R, share = frames.shape[1], spec.taps, spec.radius, valid / valid.sum(1, keepdim=True)
    total: Tensor | None = None
    for i in range(N):
        runs = torch.split(fine[:, i * T : (i + 1) * T], list(spec.lengths), 1)
        wide = pad(frames[:, i], (R, R, R, R))
        one = sum(entry(runs, spec, p, q) * shifted(wide, p, q, R) for p in range(spec.side) for q in range(spec.side))
        one = one * share[:, i, None, None, None] * spec.gain
        total = one if total is None else total + one
    assert total is not None
    return total


def entry(runs: tuple[Tensor, ...], spec: KernelSpec, p: int, q: int) -> Tensor:
    """(B, 1, H, W): entry (p, q) of the fused kernel, without its gain."""
    found = []
    for s, K in enumerate(spec.sizes):
        a, b = p - (spec.side - K) // 2, q - (spec.side - K) // 2
        if 0 <= a < K and 0 <= b < K:
            if spec.separable:
                found.append(runs[s][:, a : a + 1] * runs[len(spec.sizes) + s][:, b : b + 1])
            else:
                found.append(runs[s][:, a * K + b : a * K + b + 1])
    return torch.stack(found).sum(0) if len(found) > 1 else found[0]


def shifted(wide: Tensor, p: int, q: int, R: int) -> Tensor:
    """(B, C, H, W) of a frame padded by R: what lies (p - R, q - R) away."""
    return wide[:, :, p : wide.shape[2] - 2 * R + p, q : wide.shape[3] - 2 * R + q]


def export(checkpoint: Path, out: Path) -> float:
    """Writes the file, if it agrees with torch to PARITY; how well it does.

    Raises ModelError where it does not, or for a network without kernels; MissingExtra.
    """
    load("onnx", "onnx")
    network = checkpoints.load_network(checkpoint)
    content = to_onnx(network)
    apart = parity(network, content)
    if apart > PARITY:
        raise ModelError("the ONNX file differs from the network", got=f"{apart:.1e}", rule=f"at most {PARITY:g}")
    write_atomically(out, content)
    return apart


def to_onnx(network: Network) -> bytes:
    """The file's bytes; how to use them stands in its metadata."""
    import onnx

    axes = {"frames": {3: "H", 4: "W"}, "agreement": {2: "H", 3: "W"}, "picture": {2: "H", 3: "W"}}
    with tempfile.TemporaryDirectory(prefix="klarsicht-") as folder:
        file = str(Path(folder) / "n.onnx")
        given = tuple(torch.from_numpy(x) for x in probe(network, TRACED, 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of branches on shapes, that are the same for every size
            torch.onnx.export(
                ExportedNetwork(network).eval(),
                given,
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
    content: bytes = model.SerializeToString()
    return content


def probe(network: Network, size: tuple[int, int], seed: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Inputs as they may come: textured, noisy, one frame missing, agreement of any value."""
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
def parity(network: Network, content: bytes) -> float:
    """The largest difference from the network's own output, at sizes that were not traced."""
    runtime = load("onnxruntime", "onnx")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, size in enumerate(PROBES):
        given = probe(network, size, seed + 1)
        (got,) = session.run(None, dict(zip(INPUTS, given, strict=True)))
        wanted = network(*(torch.from_numpy(x) for x in given)).merged.numpy()
        worst = max(worst, float(np.abs(got - wanted).max()))
    return worst
