"""Filters that compute one picture of aligned frames: the kernels of a network, or without one the mean of frames that
agree. Weights are computed and applied in separate steps, and can be applied to noise alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.cokriging import Pattern
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.network.borders import border_factors, predict_kernels
from klarsicht.burst.network.heads import InputFrames, Kernels
from klarsicht.burst.network.unet import COLOURS, WHOLE, Network, Part, part_of_taps, upsample_twice
from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine.devices import bf16_is_faster
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

Agreement = npt.NDArray[np.float32]  # N H W
Centre = npt.NDArray[np.float32]  # H W

LEAST_PART = 0.02  # of the largest, singular values of a pattern that count


class PixelWeights(Protocol):
    """Weights on the pixels of frames, or of a part of them."""

    def centre_weights(self, frames: Sequence[int], pattern: Pattern | None = None) -> npt.NDArray[np.float32]:
        """Compute the factor on each pixel itself of some of the frames, (n, h, w); frame 0 is the reference. pattern:
        (L, L); factors on the pixels around are then added, each times the pattern there."""
        ...

    def crop(self, part: Part) -> PixelWeights:
        """Return the weights of rows and columns, the first ones even."""
        ...

    def __call__(self, frames: Frames | None = None) -> Planes:
        """Apply the weights to frames of that part, (N, C, h, w) to (C, h, w). None: those they were computed for."""
        ...


class Filter(Protocol):
    """Filter of aligned frames. frames: largest number at once. halo: distance in pixels at which frames influence a
    weight. reach: radius in pixels of the weights. name: for messages."""

    @property
    def frames(self) -> int: ...
    @property
    def halo(self) -> int: ...
    @property
    def reach(self) -> int: ...
    @property
    def name(self) -> str: ...

    def compute_weights(
        self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement, part: Part = WHOLE
    ) -> PixelWeights:
        """Compute the weights of aligned frames (N, C, H, W). agreement: (N, H, W). part: rows and columns wanted."""
        ...


@dataclass(frozen=True, eq=False)
class MeanWeights:
    """Weights of a mean. share: (N, h, w), of each frame, or (N, C, h, w), of each of its channels; they sum to 1.
    frames: those they were computed for."""

    share: Agreement
    frames: Frames

    @property
    def share_of_frames(self) -> Agreement:
        """Shares (N, h, w), in the mean over the channels."""
        return self.share if self.share.ndim == 3 else self.share.mean(1)

    def centre_weights(self, frames: Sequence[int], pattern: Pattern | None = None) -> Agreement:
        return self.share[list(frames)]

    def crop(self, part: Part) -> MeanWeights:
        return MeanWeights(self.share[..., *part], self.frames[..., *part])

    def __call__(self, frames: Frames | None = None) -> Planes:
        frames = self.frames if frames is None else frames
        return np.einsum("nhw,nchw->chw" if self.share.ndim == 3 else "nchw,nchw->chw", self.share, frames)


@dataclass(frozen=True)
class MeanFilter:
    """Mean of the frames, each weighted by its agreement with the reference."""

    frames: int = 8
    halo: int = 0
    reach: int = 0
    name: str = "the mean of the frames where they agree (no network)"

    def compute_weights(
        self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement, part: Part = WHOLE
    ) -> MeanWeights:
        """Compute the weights of aligned frames. agreement: (N, H, W), or of each channel (N, C, H, W). part: rows and
        columns wanted, which begin at even numbers."""
        agreed = agreement[..., *part]
        return MeanWeights(agreed / agreed.sum(0), frames[:, :, *part])


@dataclass(frozen=True, eq=False)
class NetworkWeights:
    """Kernels of a network, the agreement (N, h, w) of their frames with the reference, the factors (h, w) on the
    pixels, see `border_factors`, and the noise of the frames, one level a channel."""

    network: Network
    kernels: Kernels
    agreement: Agreement
    border: Centre
    noise: tuple[NoiseLevel, ...]

    def centre_weights(self, frames: Sequence[int], pattern: Pattern | None = None) -> Agreement:
        """Centres of the frames' kernels, plus that of the mean frame's kernel times each frame's share in it."""
        if not self.network.preset.mean_frame:
            return self.border * np.stack(kernel_centres(self.kernels, frames, pattern))
        *own, mean = kernel_centres(self.kernels, [*frames, -1], pattern)
        shares = self.agreement[list(frames)] / np.maximum(self.agreement.sum(0), np.float32(1e-6))
        return self.border * (np.stack(own) + mean * shares)

    def crop(self, part: Part) -> NetworkWeights:
        frames = self.kernels.frames
        taps, frames = self.kernels.taps[..., *part_of_taps(part, frames.shape[-2:])], frames[..., *part]
        kernels = self.kernels._replace(taps=taps.contiguous(memory_format=torch.channels_last), frames=frames)
        return NetworkWeights(self.network, kernels, self.agreement[:, *part], self.border[part], self.noise)

    def __call__(self, frames: Frames | None = None) -> Planes:
        kernels = self.kernels
        if frames is not None:
            kernels = kernels._replace(frames=prepare_frames(self.network, frames, self.agreement))
        return self.border * filter_frames(kernels)


@dataclass(frozen=True, eq=False)
class NetworkFilter:
    """Kernel-predicting network. One for grey frames filters colours, too: its input is their mean, and all channels
    share its kernels. exact: kernels are predicted in float32; they are applied in float32 in any case."""

    network: Network
    name: str = "a network"
    exact: bool = True

    @property
    def frames(self) -> int:
        return self.network.settings.frames

    @property
    def halo(self) -> int:
        return self.network.preset.halo

    @property
    def reach(self) -> int:
        return self.network.preset.spec.radius

    @property
    def value_bytes(self) -> int:
        """Bytes of a number that the network computes: 2 in bfloat16, where that is faster, else 4."""
        device = next(self.network.parameters()).device
        return 2 if not self.exact and bf16_is_faster(device) else 4

    @torch.no_grad()
    def compute_weights(
        self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement, part: Part = WHOLE
    ) -> NetworkWeights:
        """Predict the kernels of aligned frames. Raises UsageError for a network that predicts no kernels."""
        light, level = frames, noise
        if guided := self.network.settings.colour == "grey" and frames.shape[1] > 1:
            light, level = frames.mean(1, keepdims=True), (mean_noise(noise),)
        X, trust = (to_tensor(self.network, x)[None] for x in (light, agreement))
        read, shot = (torch.tensor([[getattr(n, k) for n in level]], device=X.device) for k in ("read", "shot"))
        with torch.autocast(X.device.type, torch.bfloat16, enabled=self.value_bytes == 2):
            kernels = predict_kernels(self.network, X, read, shot, None, trust, part)
        kernels = kernels._replace(frames=kernels.frames.float())
        agreed = agreement[:, *part]
        if guided:
            kernels = kernels._replace(frames=prepare_frames(self.network, frames[:, :, *part], agreed))
        return NetworkWeights(self.network, kernels, agreed, border_factors(kernels)[0].cpu().numpy(), tuple(noise))


def prepare_frames(network: Network, frames: Frames, agreement: Agreement) -> torch.Tensor:
    """Convert frames (n, C, h, w) to the tensor that the network's kernels multiply, (1, N, C, h, w): their mean is
    appended where the network has a mean frame."""
    X, trust = (to_tensor(network, x)[None] for x in (frames, agreement[:, None]))
    inputs = InputFrames(X, X.new_ones(1, len(frames)), trust)
    return (inputs.append_mean() if network.preset.mean_frame else inputs).frames


def to_tensor(network: Network, values: npt.NDArray[np.float32]) -> torch.Tensor:
    """Copy an array to the device of the network."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(next(network.parameters()).device)


def mean_noise(noise: Sequence[NoiseLevel]) -> NoiseLevel:
    """Compute the noise level of the mean of channels with independent noise."""
    C = len(noise)
    return NoiseLevel(float(np.sqrt(sum(n.read**2 for n in noise))) / C, sum(n.shot for n in noise) / C**2)


@torch.no_grad()
def filter_frames(kernels: Kernels) -> Planes:
    """Apply kernels to their frames, (C, h, w)."""
    return apply_kernels(*kernels).merged[0].float().cpu().numpy()


@torch.no_grad()
def kernel_centres(kernels: Kernels, frames: Sequence[int], pattern: Pattern | None = None) -> list[Centre]:
    """Compute the centre of the kernels of some frames in the mean over all, (H, W) each. pattern: (L, L), with which
    all entries around the centre are multiplied before they are added; None: 1 at the centre, 0 elsewhere."""
    spec, (_, N, _, H, W) = kernels.spec, kernels.frames.shape
    taps = kernels.taps[0].reshape(N, spec.taps, *kernels.taps.shape[-2:])
    patterns = torch.from_numpy(entry_patterns(spec, pattern)).to(taps.device)
    centres = []
    for i in frames:
        sums = torch.tensordot(patterns, taps[i % N].float(), 1)
        total = torch.zeros(H, W, device=sums.device)
        for one in sums.split(2 if spec.separable else 1):
            fine = upsample_twice(one[None])[0, :, :H, :W] if spec.upscale > 1 else one
            total += fine.prod(0)
        centres.append((total * (spec.gain / kernels.valid.sum())).float().cpu().numpy())
    return centres


def entry_patterns(spec: KernelSpec, pattern: Pattern | None) -> npt.NDArray[np.float32]:
    """Compute factors (p, T) on the taps of a frame that sum all entries of its kernels, each times the pattern (L, L)
    at its place. Those of separable kernels follow one another as column and row, whose sums are to be multiplied: the
    pattern as a sum of outer products, of singular values of LEAST_PART of the largest at least."""
    pattern = np.ones((1, 1)) if pattern is None else pattern
    S, rows = len(spec.sizes), []
    if not spec.separable:
        for s, K in enumerate(spec.sizes):
            row = np.zeros(spec.taps, np.float32)
            row[spec.starts[s] : spec.starts[s] + K * K] = centre_entries(centre_entries(pattern, K, 0), K, 1).ravel()
            rows.append(row)
        return np.stack(rows)
    u, size, v = np.linalg.svd(pattern)
    for s, K in enumerate(spec.sizes):
        for k in np.flatnonzero(size >= LEAST_PART * size[0]):
            for run, factors in ((s, size[k] * u[:, k]), (S + s, v[k])):
                row = np.zeros(spec.taps, np.float32)
                row[spec.starts[run] : spec.starts[run] + K] = centre_entries(factors, K, 0)
                rows.append(row)
    return np.stack(rows)


def centre_entries(values: npt.NDArray[np.float64], K: int, axis: int) -> npt.NDArray[np.float64]:
    """Return K values around the middle of an axis of odd length, 0 where there are none."""
    missing = max(0, (K - values.shape[axis] + 1) // 2)
    wide = np.pad(values, [(missing, missing) if k == axis else (0, 0) for k in range(values.ndim)])
    first = (wide.shape[axis] - K) // 2
    return wide.take(range(first, first + K), axis)


def check_colour(network: Network, colour: str) -> None:
    """Check that a network can filter frames of a colour. Raises UsageError."""
    if colour not in network.compatible_colours and network.settings.colour != "grey":
        rule = f"a network for {network.settings.colour} frames cannot filter {colour} ones"
        remedy = f"Train one with --colour {colour}, or leave --checkpoint out."
        raise UsageError("network", got=f"{colour} frames ({COLOURS[colour]} channels)", rule=rule, remedy=remedy)


def split_groups(denoiser: Filter, count: int) -> list[list[int]]:
    """Split the frame numbers into balanced groups of as many as the filter takes, the reference (0) in each."""
    others, room = list(range(1, count)), max(1, denoiser.frames - 1)
    groups = -(-len(others) // room)
    return [[0, *others[k::groups]] for k in range(groups)] or [[0]]
