"""Kernel-predicting U-Net: input transforms, encoder and decoder levels, and the presets that are compared.

The input is a burst X_1..X_N with its noise level; the output is one kernel for each pixel and frame, and Y = (1/N)
sum_i <k_i, V(X_i)> over the valid frames (KPN, arXiv 1712.02327; multi-kernel, arXiv 1902.05392), linear whatever the
input transform, and nothing is added. Except for the basis of `bpn`, no statistic of the whole image is used: a tile
with its halo gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d, interpolate, pad

from klarsicht.burst.network import heads
from klarsicht.burst.network.heads import Features, InputFrames, KernelHead, Kernels, scale_channels
from klarsicht.ground.config import PublicSettings
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.ground.ranges import NETWORK_WIDTH
from klarsicht.numerics.imaging.sensor_noise import deviation
from klarsicht.numerics.imaging.tone import stabilise
from klarsicht.numerics.pixel_kernels.apply import Filtered
from klarsicht.numerics.pixel_kernels.spec import KernelSpec
from klarsicht.numerics.pixel_kernels.unshuffle import InputPlanes, join_planes

COLOURS = {"grey": 1, "rgb": 3, "mosaic": 4}
"""Channels of a frame by colour; the channels of one frame share their kernels."""

COMPATIBLE_COLOURS = {"grey": ("grey",), "rgb": ("rgb", "grey"), "mosaic": ("mosaic",)}
"""Colours of the frames that a network accepts, by its own colour; grey frames are repeated to three equal channels."""

CONVOLUTIONS = 3  # of a level
MIN_SHOT = 1e-6  # variance coefficient below which the stabilising transform is linear

OptionalTensor = Tensor | None
Part = tuple[slice, slice]
WHOLE: Part = (slice(None), slice(None))
InputTransform = Callable[[InputFrames, Tensor, Tensor], tuple[Tensor, Tensor]]


def linear_input(burst: InputFrames, read: Tensor, shot: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames unchanged (B, N, C, H, W), and KPN's deviation map of the reference (B, C, H, W)."""
    return burst.frames, deviation(burst.frames[:, 0], read, shot)


def stabilised_input(burst: InputFrames, read: Tensor, shot: Tensor) -> tuple[Tensor, Tensor]:
    """Stabilise the noise variance: (f(X) - f(0)) / (f(1) - f(0)), black 0 and white 1. Returns the frames (B, N, C, H,
    W) and a map of the noise deviation (B, C, H, W), the same everywhere."""
    shot = shot.clamp_min(MIN_SHOT)
    black, white = (stabilise(torch.full_like(shot, x), read, shot) for x in (0.0, 1.0))
    scale = 1 / (white - black)
    there = (burst.valid > 0)[:, :, None, None, None] * scale[:, None]
    planes = torch.addcmul(-black[:, None] * there, stabilise(burst.frames, read[:, None], shot[:, None]), there)
    return planes, scale.expand_as(burst.frames[:, 0])


class PlainBlock(nn.Sequential):
    """Three 3 x 3 convolutions, each followed by ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        widths = (inputs, *[outputs] * CONVOLUTIONS)
        super().__init__(*(layer for i, o in pairwise(widths) for layer in (convolution(i, o), nn.ReLU(inplace=True))))


class ResidualBlock(nn.Module):
    """A 3 x 3 convolution with ReLU, followed by two more with an identity shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second, self.third = (convolution(i, outputs) for i in (inputs, outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.first(x))
        return torch.relu_(x + self.third(torch.relu_(self.second(x))))


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Build a 3 x 3 convolution with Kaiming-normal weights and zero bias."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class UNet(nn.Module):
    """U-Net: average pooling in the encoder; bilinear upsampling and concatenated skips in the decoder, which may end
    above the input's resolution. encoder, decoder: channels of the levels. block: builds the layers of one level."""

    def __init__(
        self, inputs: int, encoder: tuple[int, ...], decoder: tuple[int, ...], block: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(block(i, o) for i, o in pairwise((inputs, *encoder)))
        above, skips = (encoder[-1], *decoder), encoder[-2::-1]
        self.up = nn.ModuleList(block(a + s, o) for a, s, o in zip(above, skips, decoder, strict=False))

    @property
    def inputs(self) -> int:
        """Channels of the input."""
        return next(m for m in self.down[0].modules() if isinstance(m, nn.Conv2d)).in_channels

    @property
    def peak_values_per_pixel(self) -> float:
        """Approximate peak of activations per input pixel: the input of a level and three activations of its own."""
        scales = [*range(len(self.down)), *range(len(self.down) - 2, -1, -1)]
        first = [next(m for m in level.modules() if isinstance(m, nn.Conv2d)) for level in (*self.down, *self.up)]
        alive = [(layer.in_channels + 3 * layer.out_channels) / 4.0**s for layer, s in zip(first, scales, strict=False)]
        return float(max(alive))

    def forward(self, x: Tensor) -> Features:
        return self.decode(self.encode(x))

    def encode(self, x: Tensor, channels: list[int] | None = None) -> list[Tensor]:
        """Compute the feature maps of the encoder levels, the finest first. channels: numbers of the input's channels
        that x holds, where the others are 0; None: x holds all."""
        first, *others = self.down
        if channels is None or len(channels) == self.inputs:
            levels = [first(x)]
        else:
            name, weight = next(first.named_parameters())
            levels = [functional_call(first, {name: weight[:, channels]}, (x,))]
        for level in others:
            levels.append(level(avg_pool2d(levels[-1], 2)))
        return levels

    def decode(self, levels: list[Tensor]) -> Features:
        """Decode the feature maps of the encoder levels, given the finest first."""
        x, *skips = reversed(levels)
        for level, skip in zip(self.up, skips, strict=False):
            x = level(torch.cat([upsample_twice(x), skip], 1))
        return Features(x, levels[-1])

    def decode_part(self, levels: list[Tensor], part: Part) -> Tensor:
        """Decode rows and columns of the finest features. Of each level only what they depend on is computed."""
        x, *skips = reversed(levels)
        skips = skips[: len(self.up)]
        parts = [part]
        for skip in reversed(skips):
            parts.insert(0, coarse_part(block_part(parts[0], skip), skip))
        x = x[..., *parts[0]]
        for level, skip, (above, below) in zip(self.up, skips, pairwise(parts), strict=True):
            read = block_part(below, skip)
            wide = upsample_twice(x)[..., *place_in(read, [slice(2 * s.start, 2 * s.stop) for s in above])]
            x = level(torch.cat([wide, skip[..., *read]], 1))[..., *place_in(below, read)]
        return x


def block_part(part: Part, x: Tensor) -> Part:
    """Return the part of an input, x, on which a part of a level's output depends."""
    rows, columns = (
        slice(max(0, s.start - CONVOLUTIONS), min(length, s.stop + CONVOLUTIONS))
        for s, length in zip(part, x.shape[-2:], strict=True)
    )
    return rows, columns


def coarse_part(part: Part, x: Tensor) -> Part:
    """Return the part at half the resolution on which a part of an upsampled x depends."""
    rows, columns = (
        slice(max(0, (s.start - 1) // 2), min(length // 2, s.stop // 2 + 1))
        for s, length in zip(part, x.shape[-2:], strict=True)
    )
    return rows, columns


def place_in(part: Part, whole: Sequence[slice]) -> Part:
    """Return where a part lies in one that contains it."""
    rows, columns = (slice(s.start - w.start, s.stop - w.start) for s, w in zip(part, whole, strict=True))
    return rows, columns


def upsample_twice(x: Tensor) -> Tensor:
    """Double the resolution: bilinear, half-pixel centres, edges repeated."""
    return interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Preset:
    """Architecture of a network except its width, colour and number of frames. encoder, decoder: channels of the
    levels, without the last one of the decoder. last: channels of that one; None: as many as the taps at full width
    (the published layout), as many as its skip at less. unshuffle: 2 where each plane enters as four at half the
    resolution. mean_frame: whether the mean of the valid frames is one more frame. input_transform: maps frames and
    noise to network inputs. block: layers of a level."""

    spec: KernelSpec
    encoder: tuple[int, ...] = (64, 128, 256, 512, 512)
    decoder: tuple[int, ...] = (512, 256)
    last: int | None = None
    unshuffle: int = 1
    mean_frame: bool = False
    input_transform: InputTransform = linear_input
    block: type[PlainBlock] | type[ResidualBlock] = PlainBlock
    head: type[KernelHead] | type[heads.DirectHead] = KernelHead

    def last_at(self, width: float, frames: int) -> int:
        """Compute the channels of the finest level of the decoder."""
        if self.last is None and width >= 1:
            return frames * self.spec.taps
        return scale_channels(self.last or self.encoder[1], width)

    @property
    def stride(self) -> int:
        """Multiple to which images are padded, and at which tiles must begin."""
        return int(self.unshuffle * 2 ** (len(self.encoder) - 1))

    @property
    def halo(self) -> int:
        """Largest distance in pixels at which the input influences a pixel of the output."""
        inputs = {pixel: self._receptive_field(pixel) for pixel in range(self.stride)}
        return max(max(pixel - first, last - pixel) for pixel, (first, last) in inputs.items())

    def _receptive_field(self, pixel: int) -> tuple[int, int]:
        """Compute the first and the last input pixel along an axis on which an output pixel depends."""
        first = last = pixel
        for _ in range(len(self.decoder) + 2):  # up to the taps, up to the decoder's levels, up to the coarsest
            first, last = (first - 1) // 2 - CONVOLUTIONS, (last + 1) // 2 + CONVOLUTIONS
        for _ in self.encoder[1:]:
            first, last = 2 * first - CONVOLUTIONS, 2 * last + 1 + CONVOLUTIONS
        return self.unshuffle * first, self.unshuffle * (last + 1) - 1


def one_of(kind: str, names: Iterable[str]) -> AfterValidator:
    """Build the check that a setting is one of these names, which raises UsageError."""

    def check(name: str) -> str:
        if name not in names:
            raise unknown_name(kind, name, names)
        return name

    return AfterValidator(check)


PRESETS = {
    "mkpn": Preset(KernelSpec((1, 3, 5, 7, 9))),
    "kpn": Preset(KernelSpec((5,), separable=False)),
    "kpn-separable": Preset(KernelSpec((5,))),
    "bpn": Preset(KernelSpec((15,), separable=False), last=128, head=heads.BasisHead),
    "direct": Preset(KernelSpec((1,)), last=128, head=heads.DirectHead),
    "swift": Preset(
        KernelSpec((1, 5, 15)),
        encoder=(32, 64, 128, 192),
        decoder=(128, 64),
        last=48,
        unshuffle=2,
        mean_frame=True,
        input_transform=stabilised_input,
        block=ResidualBlock,
        head=heads.UnitHead,
    ),
}
"""All presets share this code, so that comparisons are controlled. `swift` is for processors: it works at half the
resolution."""


class NetworkSettings(PublicSettings):
    """Configuration of a network without its weights. width: factor on the preset's channels. frames: N at most."""

    preset: Annotated[str, one_of("preset", PRESETS)] = "swift"
    width: float = NETWORK_WIDTH.field(1.0)
    colour: Annotated[str, one_of("colour", COLOURS)] = "grey"
    frames: int = Field(default=8, ge=1, le=8)


class Network(nn.Module):
    """Network from aligned, noisy frames to filtered frames and their mean.

    frames: (B, N, C, H, W), linear, of any size, and N up to the settings'. read, shot: the noise, (B,) or (B, C).
    valid: (B, N), which frames exist; the reference must, and missing ones are zero. agreement: (B, N, H, W) in [0, 1],
    how well a frame agrees with the reference there. None of either: all are valid, or agree.

    Returns Filtered(each Y_i (B, N, C, H, W), merged Y (B, C, H, W)). Raises UsageError for shapes that do not fit.
    """

    MADE_BY: ClassVar = 'burst.load_network("swift") returns one.'

    def __init__(self, settings: NetworkSettings, preset: Preset | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.preset = preset = preset or PRESETS[settings.preset]
        channels, frames = COLOURS[settings.colour], settings.frames + preset.mean_frame
        encoder, middle = (
            tuple(scale_channels(c, settings.width) for c in w) for w in (preset.encoder, preset.decoder)
        )
        last = preset.last_at(settings.width, frames)
        inputs = preset.unshuffle**2 * frames * channels + channels + settings.frames
        self.body = UNet(inputs, encoder, (*middle, last), preset.block)
        shape = heads.HeadShape(last, encoder[-1], frames, channels, settings.width, preset.mean_frame)
        self.head = preset.head(shape, preset.spec)

    @property
    def compatible_colours(self) -> tuple[str, ...]:
        """Colours of the frames that the network accepts; without kernels only its own."""
        colour = self.settings.colour
        return COMPATIBLE_COLOURS[colour] if issubclass(self.preset.head, KernelHead) else (colour,)

    def forward(
        self, frames: Tensor, read: Tensor, shot: Tensor, valid: OptionalTensor = None, agreement: OptionalTensor = None
    ) -> Filtered:
        burst = self._weigh_frames(frames, valid, agreement)
        out: Filtered = self.head(self._compute_features(burst, read, shot), self._append_mean(burst))
        return Filtered(out.per_frame[:, : frames.shape[1]], out.merged)

    def kernels(
        self,
        frames: Tensor,
        read: Tensor,
        shot: Tensor,
        valid: OptionalTensor = None,
        agreement: OptionalTensor = None,
        part: Part = WHOLE,
    ) -> Kernels:
        """Predict the kernels, with the frames that they multiply, including the mean frame. part: rows and columns,
        the first ones even, of which kernels are wanted; the surroundings are only input."""
        burst = self._weigh_frames(frames, valid, agreement)
        fine, deep = self._compute_features(burst, read, shot, part)
        trust = burst.trust.expand(-1, -1, -1, *frames.shape[-2:])
        wanted = InputFrames(burst.frames[..., *part], burst.valid, trust[..., *part])
        return self.head.kernels(Features(fine, deep), self._append_mean(wanted))

    def _append_mean(self, burst: InputFrames) -> InputFrames:
        return burst.append_mean() if self.preset.mean_frame else burst

    def _compute_features(self, burst: InputFrames, read: Tensor, shot: Tensor, part: Part = WHOLE) -> Features:
        """Compute the features; the fine ones of a part of the pixels."""
        N, _, H, W = burst.frames.shape[1:]
        levels = self.body.encode(self._build_input(burst, read, shot), self._input_channels(N))  # the input is freed
        if part != WHOLE:
            return Features(self.body.decode_part(levels, part_of_taps(part, (H, W))), levels[-1])
        fine, deep = self.body.decode(levels)
        return Features(fine[..., : -(-H // 2), : -(-W // 2)], deep)

    def _input_channels(self, count: int) -> list[int]:
        """List the numbers of the input's channels that so many frames fill: their own, those of their mean, of the
        noise, and of the trust in them."""
        channels, preset = COLOURS[self.settings.colour], self.preset
        width = channels * preset.unshuffle**2
        slots = [*range(count), *([self.settings.frames] if preset.mean_frame else [])]
        first = width * (self.settings.frames + preset.mean_frame)
        return [width * slot + c for slot in slots for c in range(width)] + [*range(first, first + channels + count)]

    def _build_input(self, burst: InputFrames, read: Tensor, shot: Tensor) -> Tensor:
        """Build the first level's input (B, c, h, w), channels last, in the type in which the network computes."""
        device = burst.frames.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else burst.frames.dtype
        count = len(self._input_channels(burst.frames.shape[1]))
        return join_planes(self._make_planes(burst, read, shot), count, dtype)

    def _make_planes(self, burst: InputFrames, read: Tensor, shot: Tensor) -> Iterator[InputPlanes]:
        """Make the planes of the input frame by frame, of which four pixels become one with pixel unshuffling, and then
        those of the noise and of the trust."""
        B, N, _, H, W = burst.frames.shape
        levels = [level.float().reshape(B, -1, 1, 1) for level in (read, shot)]
        channels, stride, side = COLOURS[self.settings.colour], self.preset.stride, self.preset.unshuffle
        frames = [InputFrames(burst.frames[:, i : i + 1], burst.valid[:, i : i + 1], burst.trust) for i in range(N)]
        if self.preset.mean_frame:
            frames.append(InputFrames(burst.mean[:, None], torch.ones_like(burst.valid[:, :1]), burst.trust))
        noise = None
        for frame in frames:
            planes, level = self.preset.input_transform(frame, *levels)
            yield InputPlanes(pad_to_stride(planes.flatten(1, 2).expand(-1, channels, H, W), stride), side)
            noise = level if noise is None else noise
        assert noise is not None
        maps = torch.cat([noise.expand(-1, channels, H, W), burst.trust[:, :, 0].expand(-1, -1, H, W)], 1)
        yield InputPlanes(avg_pool2d(pad_to_stride(maps, stride), side), 1)

    def check_frames(self, shape: Sequence[int], axes: str = "N") -> None:
        """Check the shape of frames: axes before the channels, channels, height, width. Raises UsageError."""
        channels, most = [COLOURS[colour] for colour in self.compatible_colours], self.settings.frames
        batch = axes.count(",")
        if len(shape) != batch + 4 or shape[batch + 1] not in channels or not 1 <= shape[batch] <= most:
            planes = " or ".join(map(str, channels))
            rule = f"this network ({self.settings.colour}) takes ({axes}, {planes}, H, W) with 1 to {most} frames"
            has_axes = len(shape) == batch + 4
            remedy = ""
            if has_axes and shape[-1] in channels and shape[batch + 1] not in channels:
                remedy = "Put the channels before height and width."
            elif has_axes and shape[batch + 1] in COLOURS.values() and shape[batch + 1] not in channels:
                remedy = "`load_network` loads one for other channels: swift for 3 or 1, swift-raw for 4."
            elif has_axes and shape[batch] > most:
                remedy = f"Leave frames out: frames[:{most}]."
            raise UsageError("frames", got=tuple(shape), rule=rule, remedy=remedy)

    def _weigh_frames(self, frames: Tensor, valid: OptionalTensor, agreement: OptionalTensor) -> InputFrames:
        """Return frames with their weights."""
        self.check_frames(frames.shape, "B, N")
        weight = frames.new_ones(frames.shape[:2]) if valid is None else valid.to(frames.dtype)
        trust = weight[:, :, None, None, None] * (1 if agreement is None else agreement[:, :, None])
        return InputFrames(frames, weight, trust)


def part_of_taps(part: Part, size: Sequence[int]) -> Part:
    """Return the rows and columns of taps, at half the resolution, of a part of the pixels of a picture of that size,
    whose first ones are even."""
    ends = [p.indices(length) for p, length in zip(part, size, strict=True)]
    rows, columns = (slice(first // 2, -(-stop // 2)) for first, stop, _ in ends)
    return rows, columns


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """Repeat the lower and right edges until both sides are multiples of the stride."""
    below, right = (-side % stride for side in x.shape[-2:])
    return pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def build_network(settings: NetworkSettings, seed: int) -> Network:
    """Build a network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(settings).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
