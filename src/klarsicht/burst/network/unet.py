"""The kernel-predicting U-Net, whole: what it sees, its levels, and the presets that are compared.

A burst X_1..X_N goes in with its noise level; out come kernels, one for each pixel and frame, and
Y = (1/N) sum_i <k_i, V(X_i)> over the valid frames (KPN, arXiv 1712.02327; multi-kernel, arXiv 1902.05392). Kernels
multiply linear frames, whatever the network saw, and nothing is added after them. But for the basis of `bpn`, no
statistic of the whole image is taken: a tile with its halo gives what the whole image gives.

Axes: B bursts, N frames, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from klarsicht.burst.network.heads import (
    BasisHead,
    DirectHead,
    Features,
    KernelHead,
    Kernels,
    Seen,
    Shape,
    UnitHead,
    narrowed,
)
from klarsicht.ground.config import Settings
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.numerics.imaging.sensor_noise import deviation
from klarsicht.numerics.imaging.tone import stabilise
from klarsicht.numerics.pixel_kernels.apply import Filtered
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

COLOURS = {"grey": 1, "rgb": 3, "mosaic": 4}
"""Channels of a frame; those of one frame share their kernels."""

SERVED = {"grey": ("grey",), "rgb": ("rgb", "grey"), "mosaic": ("mosaic",)}
"""The frames that a network takes, by its colour: grey ones are seen as three equal channels."""

CONVOLUTIONS = 3  # in a level
LEAST_SHOT = 1e-6  # variance coefficient: below it, the stabilising transform is a straight line

Given = Tensor | None
Part = tuple[slice, slice]
WHOLE: Part = (slice(None), slice(None))
Sight = Callable[[Seen, Tensor, Tensor], tuple[Tensor, Tensor]]


def linear(seen: Seen, read: Tensor, shot: Tensor) -> tuple[Tensor, Tensor]:
    """The frames as they are (B, N, C, H, W), and KPN's deviation map of the reference (B, C, H, W)."""
    return seen.frames, deviation(seen.frames[:, 0], read, shot)


def stabilised(seen: Seen, read: Tensor, shot: Tensor) -> tuple[Tensor, Tensor]:
    """(f(X) - f(0)) / (f(1) - f(0)): black is 0, white is 1, and the deviation of the noise is everywhere the same."""
    shot = shot.clamp_min(LEAST_SHOT)
    black, white = (stabilise(torch.full_like(shot, x), read, shot) for x in (0.0, 1.0))
    scale = 1 / (white - black)
    there = (seen.valid > 0)[:, :, None, None, None] * scale[:, None]
    planes = torch.addcmul(-black[:, None] * there, stabilise(seen.frames, read[:, None], shot[:, None]), there)
    return planes, scale.expand_as(seen.frames[:, 0])


class Plain(nn.Sequential):
    """Three 3 x 3 convolutions, each with ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        widths = (inputs, *[outputs] * CONVOLUTIONS)
        super().__init__(*(layer for i, o in pairwise(widths) for layer in (convolution(i, o), nn.ReLU(inplace=True))))


class Residual(nn.Module):
    """A 3 x 3 convolution with ReLU, then two more beside the identity."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second, self.third = (convolution(i, outputs) for i in (inputs, outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.first(x))
        return torch.relu_(x + self.third(torch.relu_(self.second(x))))


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class UNet(nn.Module):
    """Average pooling down; bilinear upsampling and concatenated skips up, as far as the decoder goes."""

    def __init__(
        self, inputs: int, encoder: tuple[int, ...], decoder: tuple[int, ...], level: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(level(i, o) for i, o in pairwise((inputs, *encoder)))
        above, skips = (encoder[-1], *decoder), encoder[-2::-1]
        self.up = nn.ModuleList(level(a + s, o) for a, s, o in zip(above, skips, decoder, strict=False))

    @property
    def alive(self) -> float:
        """Numbers a pixel of the input that a level holds at once, about: what it is given, and three of its own."""
        scales = [*range(len(self.down)), *range(len(self.down) - 2, -1, -1)]
        first = [next(m for m in level.modules() if isinstance(m, nn.Conv2d)) for level in (*self.down, *self.up)]
        alive = [(layer.in_channels + 3 * layer.out_channels) / 4.0**s for layer, s in zip(first, scales, strict=False)]
        return float(max(alive))

    def forward(self, x: Tensor) -> Features:
        return self.upwards(self.downwards(x))

    def downwards(self, x: Tensor) -> list[Tensor]:
        """Levels, the finest first."""
        levels: list[Tensor] = []
        for level in self.down:
            levels.append(level(avg_pool2d(levels[-1], 2) if levels else x))
        return levels

    def upwards(self, levels: list[Tensor]) -> Features:
        x, *skips = reversed(levels)
        for level, skip in zip(self.up, skips, strict=False):
            x = level(torch.cat([upsampled(x), skip], 1))
        return Features(x, levels[-1])


def upsampled(x: Tensor) -> Tensor:
    """Twice the resolution: bilinear, half-pixel centres, edges repeated."""
    return interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Preset:
    """A network but for its width, colour and number of frames: its sizes, and the steps in which presets differ.

    encoder, decoder: channels of the levels, but for the decoder's last. last: that one's; None: as many as the taps
    at full width (the published layout), as its skip has when narrowed. entry: 2 where planes come in as four at half
    the resolution. mean_frame: whether the mean of the valid frames is one more frame.
    """

    spec: KernelSpec
    encoder: tuple[int, ...] = (64, 128, 256, 512, 512)
    decoder: tuple[int, ...] = (512, 256)
    last: int | None = None
    entry: int = 1
    mean_frame: bool = False
    sight: Sight = linear
    level: type[Plain] | type[Residual] = Plain
    head: type[KernelHead] | type[BasisHead] | type[DirectHead] = KernelHead

    def last_at(self, width: float, frames: int) -> int:
        """Channels of the finest level of the decoder."""
        if self.last is None and width >= 1:
            return frames * self.spec.taps
        return narrowed(self.last or self.encoder[1], width)

    @property
    def stride(self) -> int:
        """An image is padded to its multiples, and tiles must begin at them."""
        return int(self.entry * 2 ** (len(self.encoder) - 1))

    @property
    def halo(self) -> int:
        """How far from a pixel of the output, in pixels, the input has a say in it."""
        inputs = {pixel: self._inputs(pixel) for pixel in range(self.stride)}
        return max(max(pixel - first, last - pixel) for pixel, (first, last) in inputs.items())

    def _inputs(self, pixel: int) -> tuple[int, int]:
        """The first and the last input pixel along an axis that an output pixel depends on."""
        first = last = pixel
        for _ in range(len(self.decoder) + 2):  # up to the taps, up to the decoder's levels, up to the coarsest
            first, last = (first - 1) // 2 - CONVOLUTIONS, (last + 1) // 2 + CONVOLUTIONS
        for _ in self.encoder[1:]:
            first, last = 2 * first - CONVOLUTIONS, 2 * last + 1 + CONVOLUTIONS
        return self.entry * first, self.entry * (last + 1) - 1


PRESETS = {
    "mkpn": Preset(KernelSpec((1, 3, 5, 7, 9))),
    "kpn": Preset(KernelSpec((5,), separable=False)),
    "kpn-separable": Preset(KernelSpec((5,))),
    "bpn": Preset(KernelSpec((15,), separable=False), last=128, head=BasisHead),
    "direct": Preset(KernelSpec((1,)), last=128, head=DirectHead),
    "swift": Preset(
        KernelSpec((1, 5, 15)),
        encoder=(32, 64, 128, 192),
        decoder=(128, 64),
        last=48,
        entry=2,
        mean_frame=True,
        sight=stabilised,
        level=Residual,
        head=UnitHead,
    ),
}
"""One code, so that comparisons are controlled. `swift` is for use on a processor: it works at half the resolution."""


class NetworkSettings(Settings):
    """What a network is, but for its weights. width: share of the preset's channels. frames: N at most."""

    preset: str = "swift"
    width: float = Field(default=1.0, gt=0, le=4)
    colour: str = "grey"
    frames: int = Field(default=8, ge=1, le=8)

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name: str) -> str:
        return among("preset", name, PRESETS)

    @field_validator("colour")
    @classmethod
    def _known_colour(cls, name: str) -> str:
        return among("colour", name, COLOURS)


def among(kind: str, name: str, known: Iterable[str]) -> str:
    """The name. Raises UsageError where it is not known."""
    if name not in known:
        raise unknown_name(kind, name, known)
    return name


class Network(nn.Module):
    """frames (B, N, C, H, W), aligned, linear, of any size, and N up to the settings'; read, shot: the noise, (B,) or
    (B, C).

    valid: (B, N), which frames exist; the reference must, and what does not is expected to be zero. agreement:
    (B, N, H, W) in [0, 1], how far a frame shows there what the reference shows (alignment.Alignment.agreement);
    the network is told, and its mean frame is weighted by it. None of either: all.

    Gives Filtered(each Y_i (B, N, C, H, W), merged Y (B, C, H, W)). Raises UsageError for shapes that do not fit.
    """

    def __init__(self, settings: NetworkSettings, preset: Preset | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.preset = preset = preset or PRESETS[settings.preset]
        channels, frames = COLOURS[settings.colour], settings.frames + preset.mean_frame
        encoder, middle = (tuple(narrowed(c, settings.width) for c in w) for w in (preset.encoder, preset.decoder))
        last = preset.last_at(settings.width, frames)
        inputs = preset.entry**2 * frames * channels + channels + settings.frames
        self.body = UNet(inputs, encoder, (*middle, last), preset.level)
        self.head = preset.head(Shape(last, encoder[-1], frames, channels, settings.width), preset.spec)

    @property
    def served(self) -> tuple[str, ...]:
        """Colours of the frames that it takes. A picture that is predicted itself has the channels it was made with."""
        colour = self.settings.colour
        return SERVED[colour] if issubclass(self.preset.head, KernelHead | BasisHead) else (colour,)

    def forward(
        self, frames: Tensor, read: Tensor, shot: Tensor, valid: Given = None, agreement: Given = None
    ) -> Filtered:
        out: Filtered = self.head(*self._features(self._filled(frames, valid, agreement), read, shot))
        return Filtered(out.each[:, : frames.shape[1]], out.merged)

    def kernels(
        self,
        frames: Tensor,
        read: Tensor,
        shot: Tensor,
        valid: Given = None,
        agreement: Given = None,
        part: Part = WHOLE,
    ) -> Kernels:
        """What is applied, and to what, the mean frame and missing ones included: apply_kernels(*kernels) gives Y.

        part: rows and columns, the first ones even, of which kernels are wanted; what lies around is only looked at.
        """
        features, seen = self._features(self._filled(frames, valid, agreement), read, shot)
        taps = tuple(slice(p.start and p.start // 2, p.stop and -(-p.stop // 2)) for p in part)
        fine = features.fine[:, :, *taps]
        near = Seen(seen.frames[..., *part], seen.valid, seen.trust)
        return self.head.kernels(Features(fine, features.deep), near)

    def _features(self, given: Seen, read: Tensor, shot: Tensor) -> tuple[Features, Seen]:
        H, W = given.frames.shape[-2:]
        seen = given.with_mean() if self.preset.mean_frame else given
        levels = self.body.downwards(self._entered(given, seen, read, shot))  # what entered is let go of
        fine, deep = self.body.upwards(levels)
        return Features(fine[..., : -(-H // 2), : -(-W // 2)], deep), seen

    def _entered(self, given: Seen, seen: Seen, read: Tensor, shot: Tensor) -> Tensor:
        """(B, c, h, w), channels last: what the first level sees, four pixels as one where it enters at half."""
        B, _, _, H, W = given.frames.shape
        planes, noise = self.preset.sight(seen, *(level.float().reshape(B, -1, 1, 1) for level in (read, shot)))
        planes, noise = (x.expand(*x.shape[:-3], COLOURS[self.settings.colour], H, W) for x in (planes, noise))
        known = torch.cat([noise, given.trust[:, :, 0].expand(-1, -1, H, W)], 1)
        planes, known = (padded(x, self.preset.stride) for x in (planes.flatten(1, 2), known))
        planes, known = gathered(planes, self.preset.entry), avg_pool2d(known, self.preset.entry)
        return torch.cat([x.contiguous(memory_format=torch.channels_last) for x in (planes, known)], 1)

    def _filled(self, frames: Tensor, valid: Given, agreement: Given) -> Seen:
        """With zero frames that are not valid until there are N."""
        channels, most = [COLOURS[colour] for colour in self.served], self.settings.frames
        if frames.ndim != 5 or frames.shape[2] not in channels or not 1 <= frames.shape[1] <= most:
            planes = " or ".join(map(str, channels))
            rule = f"this network ({self.settings.colour}) takes (B, N, {planes}, H, W) with 1 to {most} frames"
            raise UsageError("frames", got=tuple(frames.shape), rule=rule)
        weight = frames.new_ones(frames.shape[:2]) if valid is None else valid.to(frames.dtype)
        trust = weight[:, :, None, None, None] * (1 if agreement is None else agreement[:, :, None])
        if frames.shape[1] == most:
            return Seen(frames, weight, trust)
        missing = (0, 0) * 3 + (0, most - frames.shape[1])
        return Seen(pad(frames, missing), pad(weight, missing[-2:]), pad(trust, missing))


def gathered(x: Tensor, side: int) -> Tensor:
    """pixel_unshuffle, channels last: (B, c, H, W) to (B, c side^2, H / side, W / side)."""
    B, c, H, W = x.shape
    blocks = x.reshape(B, c, H // side, side, W // side, side).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(B, H // side, W // side, -1).permute(0, 3, 1, 2)


def padded(x: Tensor, stride: int) -> Tensor:
    """Edges repeated below and to the right, until both sides are multiples of the stride."""
    below, right = (-side % stride for side in x.shape[-2:])
    return pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def build(settings: NetworkSettings, seed: int) -> Network:
    """A network whose first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(settings).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
