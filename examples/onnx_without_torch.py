"""A burst through an exported network, with onnxruntime and numpy alone: no torch, no klarsicht.

    klarsicht burst export network.safetensors --onnx network.onnx
    python examples/onnx_without_torch.py network.onnx frames.npy READ SHOT picture.npy

frames.npy holds (N, C, H, W) float32: linear light, 0 black and 1 white, laid over the first frame, which is the
reference. READ, SHOT: deviation of the read noise, and variance coefficient of the shot noise. The picture is made in
tiles that equal the whole, so that memory does not grow with it; sides that the network's stride does not divide are
filled up by repeating edges.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
import onnxruntime

SIDE = 512  # of a tile, about


def windows(length: int, side: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """Along one axis: what a tile gives, what it is given, and where the first lies in the second."""
    for start in range(0, length, side):
        stop, first = min(start + side, length), max(0, start - halo)
        last = min(length, start + side + halo)
        yield slice(start, stop), slice(first, last), slice(start - first, stop - first)


def denoise(session: onnxruntime.InferenceSession, frames: np.ndarray, read: float, shot: float) -> np.ndarray:
    """(C, H, W) of frames (n, C, H, W), n up to the network's N; missing ones are zero and not valid."""
    about = json.loads(session.get_modelmeta().custom_metadata_map["klarsicht"])
    N, stride = about["settings"]["frames"], about["stride"]
    n, C, H, W = frames.shape
    valid = (np.arange(N) < n).astype(np.float32)[None]
    level = {name: np.full((1, C), value, np.float32) for name, value in (("read", read), ("shot", shot))}
    whole = np.pad(frames, ((0, N - n), (0, 0), (0, -H % stride), (0, -W % stride)), "edge")
    whole[n:] = 0
    agreement = np.ones((1, N, *whole.shape[2:]), np.float32) * valid[..., None, None]
    side, halo = (-(-length // stride) * stride for length in (SIDE, about["halo"]))
    picture = np.empty(whole.shape[1:], np.float32)
    for rows, y, v in windows(whole.shape[2], side, halo):
        for columns, x, u in windows(whole.shape[3], side, halo):
            given = {"frames": whole[None, :, :, y, x], "valid": valid, "agreement": agreement[:, :, y, x], **level}
            (tile,) = session.run(None, given)
            picture[:, rows, columns] = tile[0, :, v, u]
    return picture[:, :H, :W]


if __name__ == "__main__":
    if len(sys.argv) != 6:
        raise SystemExit(__doc__)
    model, source, read, shot, out = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    np.save(out, denoise(session, np.load(source).astype(np.float32), float(read), float(shot)))
