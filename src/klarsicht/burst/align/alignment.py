"""Alignment of a burst to its reference: whole frames first, then tiles.

Frames are variance-stabilised, averaged to grey and filtered by `matched_filter`. Whole frames are registered against
the reference, then each against the mean of the others as aligned so far, weighted by confidence. Tiles are aligned
around the whole frame's shift, with a prior that keeps a tile there where its content says little; then they are
regularised towards an affine field (`regularise`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from klarsicht.burst.align.correlation import best_shift, confidence, correlate, correlate_tiles, shift_prior
from klarsicht.burst.align.matched_filter import Spectrum, apply_matched_filter, estimate_spectrum
from klarsicht.burst.align.regularise import regularise_shifts
from klarsicht.burst.align.tile_grid import Mesh, fetch_shifted, inside_mask, warp
from klarsicht.burst.data.burst import REFERENCE
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.tone import stabilise

MOST_SHIFT = 64  # largest shift of a frame in pixels, at most a quarter of its side
COARSE = 512  # largest side at which whole frames are registered
SHORTEST_SIDE = 3  # pixels of frames, which are compared at shifts of up to 2
PASSES = 3  # over whole frames: one against the reference, the others against the mean
PRIOR = (4.0, 1.5)  # spread in pixels and strength of the prior for whole frames
TILE_REACH = 8  # largest shift in pixels of a tile relative to its frame
TILE_PRIOR = (1.0, 4.0)  # the same for tiles
DISAGREEMENT = 5.0  # deviations of pure noise above which a tile disagrees


@dataclass(frozen=True)
class GlobalShifts:
    """Shifts (B, N, 2) of whole frames; confidence (B, N), the probability of being right to a pixel."""

    shifts: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Alignment:
    """The alignment of a batch: aligned frames show at p what the frame shows at p + shift. whole: the shift of each
    frame. fine: (B, N, Y, X, 2), the shift of each tile; shifts: in whole pixels. confidence: (B, N, Y, X), the
    probability that a tile is right to a pixel. agrees: (B, N, Y, X), whether noise and half a pixel explain the
    difference from the reference."""

    whole: GlobalShifts
    fine: Tensor
    shifts: Tensor
    confidence: Tensor
    agrees: Tensor
    mesh: Mesh

    def apply(self, frames: Tensor) -> Tensor:
        """Align frames (B, N, C, H, W) with subpixel interpolation."""
        return warp(frames, self.fine, self.mesh)

    def apply_whole_pixels(self, frames: Tensor) -> Tensor:
        """Align frames (B, N, C, H, W) by whole pixels, which keeps their noise white."""
        return warp(frames, self.shifts, self.mesh)

    def agreement(self) -> Tensor:
        """Compute the agreement (B, N, H, W) in [0, 1]: `agrees`, blended from tile to tile, and 0 where a frame shows
        nothing."""
        return self.mesh.blend(self.agrees.float(), self.shifts)


def align(frames: Tensor, read: Tensor, shot: Tensor, valid: Tensor, tile: int = 64) -> Alignment:
    """Align linear frames (B, N, C, H, W) of noise levels read, shot (B,); valid (B, N) says which frames exist."""
    light = stabilised_grey(frames, read, shot)
    whole = align_whole_frames(light, valid)
    mesh = Mesh(frames.shape[-2], frames.shape[-1], tile)
    return align_tiles(light, valid, whole, mesh)


def stabilised_grey(frames: Tensor, read: Tensor, shot: Tensor) -> Tensor:
    """Average linear frames (B, N, C, H, W) to grey of about noise deviation 1, (B, N, H, W)."""
    C = frames.shape[2]
    read, shot = (level[:, None, None, None] for level in (read / C**0.5, (shot / C).clamp(min=1e-9)))
    return stabilise(frames.mean(2), read, shot)


def align_whole_frames(light: Tensor, valid: Tensor) -> GlobalShifts:
    """Estimate shifts of whole frames (B, N, H, W), reduced. Raises InputError for sides below SHORTEST_SIDE."""
    height, width = light.shape[-2:]
    if min(height, width) < SHORTEST_SIDE:
        got = f"{height} x {width} pixels of a frame, or of a plane of its mosaic"
        raise InputError("frames are too small to align", got=got, rule=f"sides of {SHORTEST_SIDE} pixels and more")
    shrink = 1
    while max(height, width) > COARSE * shrink and min(height, width) >= SHORTEST_SIDE * 2 * shrink:
        shrink *= 2
    small = avg_pool2d(light, shrink) * shrink  # the noise keeps deviation 1
    reach = max(2, min(MOST_SHIFT // shrink, min(small.shape[-2:]) // 4))
    coarse = _register(small, valid, reach)
    return GlobalShifts(coarse.shifts * shrink, coarse.confidence)


def _register(light: Tensor, valid: Tensor, reach: int) -> GlobalShifts:
    """Register frames (B, N, H, W) up to `reach` pixels against the reference, then against the mean of the others."""
    spectrum, prior = estimate_spectrum(light, valid), shift_prior(reach, *PRIOR, torch.zeros(2, device=light.device))
    filtered_light = apply_matched_filter(light, spectrum, torch.ones(len(light), device=light.device))
    fit = correlate(
        filtered_light[:, REFERENCE : REFERENCE + 1].expand_as(filtered_light), filtered_light, reach, prior
    )
    shifts = _subtract_reference(fit.best_shift(), valid)
    for _ in range(PASSES - 1):
        weights = fit.confidence.square().clamp(min=1e-3) * valid
        filtered_light = apply_matched_filter(light, spectrum, _mean_noise_variance(weights))
        template, offset = _means_of_others(filtered_light, shifts, weights)
        fit = correlate(template, filtered_light, reach, prior)
        update = fit.best_shift() + offset - shifts
        shifts = _subtract_reference(shifts + update * _own_error_share(weights), valid)
    return GlobalShifts(shifts, fit.confidence * valid)


def align_tiles(
    light: Tensor, valid: Tensor, whole: GlobalShifts, mesh: Mesh, as_taken: Tensor | None = None
) -> Alignment:
    """Estimate the shifts of the tiles of a mesh around those of whole frames. as_taken: (B, N), frames that were not
    read between pixels, whose noise is white; None: all."""
    spectrum = estimate_spectrum(light, valid if as_taken is None else valid & as_taken)
    weights = whole.confidence.square().clamp(min=1e-3) * valid
    n = _mean_noise_variance(weights)
    filtered_light, rho = apply_matched_filter(light, spectrum, n), spectrum.coherence(n)
    start = whole.shifts.round().long()
    shifted_frames = fetch_shifted(filtered_light, start) * inside_mask(filtered_light.shape, start)
    template, offset = _means_of_others(filtered_light, whole.shifts, weights)
    noise, pixels = spectrum.residual_noise(n)
    scene = _tile_signal_share(template, n * noise, pixels, mesh)
    expected = whole.shifts - start - offset
    found, sure = _tile_shifts(template, shifted_frames, scene, rho, expected, mesh)
    update = (found - expected[:, :, None, None]) * _own_error_share(weights)[:, :, None, None]
    fine = whole.shifts[:, :, None, None] + regularise_shifts(update - update[:, REFERENCE : REFERENCE + 1], sure)
    fine = fine * valid[:, :, None, None, None]
    shifts = fine.round().long()
    del filtered_light, shifted_frames, template
    detailed = spectrum.with_aliased()  # what moved may differ in fine detail alone
    compared = apply_matched_filter(light, detailed, n)
    agrees = _tile_agreement(warp(compared[:, :, None], shifts, mesh)[:, :, 0], detailed, n, mesh)
    return Alignment(whole, fine, shifts, sure, agrees & valid[:, :, None, None], mesh)


def _tile_signal_share(template: Tensor, noise: Tensor, pixels: Tensor, mesh: Mesh) -> Tensor:
    """Estimate the share (B, N, Y, X) of a tile's power beyond noise, by which its correlation counts."""
    noise_bound = _expand_axes(noise * (1 + 2 * _mean_square_deviation(pixels, mesh)))
    return (1 - noise_bound / _tile_means(template.square(), mesh).clamp(min=1e-12)).clamp(min=0)


def _mean_square_deviation(pixels: Tensor, mesh: Mesh) -> Tensor:
    """Compute the relative deviation (B,) of the mean square of noise over a tile, one value per `pixels`."""
    return (2 * pixels / mesh.side**2).sqrt()


def _tile_shifts(
    template: Tensor, shifted_frames: Tensor, scene: Tensor, rho: Tensor, expected: Tensor, mesh: Mesh
) -> tuple[Tensor, Tensor]:
    """Estimate the shifts (B, N, Y, X, 2) of tiles towards the template, and their confidence, a row of tiles at a
    time. A tile is four cells, whose correlations add up; a cell is in four tiles. expected: (B, N, 2), the shift if
    only the whole frame moved."""
    prior = shift_prior(TILE_REACH, *TILE_PRIOR, expected[:, :, None])
    shifts, sure, above = [], [], None
    for row, (small, large) in enumerate(_rows_of_cells(template, shifted_frames, mesh)):
        cells = correlate_tiles(small, large, rho[:, None, None, None, None])
        pairs = cells[:, :, :-1] + cells[:, :, 1:]
        if above is not None:
            score = scene[:, :, row - 1, :, None, None] * (above + pairs) + prior
            shifts.append(best_shift(score))
            sure.append(confidence(score))
        above = pairs
    return torch.stack(shifts, 2), torch.stack(sure, 2)


def _rows_of_cells(template: Tensor, frames: Tensor, mesh: Mesh) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows of the cells (B, N, X + 1, T / 2, T / 2) that tiles are made of, of the template, and of the frames,
    larger by TILE_REACH on every side."""
    side, r, (Y, X) = mesh.step, TILE_REACH, mesh.shape
    below, right = Y * side - mesh.height, X * side - mesh.width
    first = pad(template, (side, right, side, below))
    second = pad(frames, (side + r, right + r, side + r, below + r))
    for y in range(0, (Y + 1) * side, side):
        small = first[..., y : y + side, :].unfold(-1, side, side).transpose(-3, -2)
        large = second[..., y : y + side + 2 * r, :].unfold(-1, side + 2 * r, side).transpose(-3, -2)
        yield small, large


def _tile_agreement(aligned: Tensor, spectrum: Spectrum, n: Tensor, mesh: Mesh) -> Tensor:
    """Test for each tile (B, N, Y, X) whether noise and half a pixel explain its difference from the reference."""
    reference = aligned[:, REFERENCE : REFERENCE + 1]
    noise = _expand_axes(spectrum.residual_noise(n)[0])
    limit = 2 * noise * (1 + DISAGREEMENT * _expand_axes(_mean_square_deviation(spectrum.residual_noise(n)[1], mesh)))
    along_x, along_y = reference.diff(dim=-1), reference.diff(dim=-2)
    gradient_power = pad(along_x.square(), (0, 1)) + pad(along_y.square(), (0, 0, 0, 1))
    slack = (_tile_means(gradient_power, mesh) - 4 * noise).clamp(min=0) / 3  # at most (|gy| + |gx|)^2 / 4
    return _tile_means((aligned - reference).square(), mesh) <= limit + slack


def _tile_means(values: Tensor, mesh: Mesh) -> Tensor:
    """Compute means (B, N, Y, X) over the part of each tile that lies inside the frame."""
    Y, X = mesh.shape
    below, right = Y * mesh.step - mesh.height, X * mesh.step - mesh.width
    around = (mesh.step, right, mesh.step, below)
    total = avg_pool2d(pad(values, around), mesh.side, mesh.step)
    return total / avg_pool2d(pad(torch.ones_like(values[:1, :1]), around), mesh.side, mesh.step)


def _means_of_others(frames: Tensor, shifts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weighted mean (B, N, H, W) of each frame's others, as shifted, and its rounding error (B, N, 2)."""
    whole = shifts.round()
    there = inside_mask(frames.shape, whole.long()) * _expand_axes(weights)
    placed = fetch_shifted(frames, whole.long()) * there
    mean = (placed.sum(1, keepdim=True) - placed) / (there.sum(1, keepdim=True) - there).clamp(min=1e-3)
    rest = (shifts - whole) * weights[..., None]
    others = (weights.sum(1, keepdim=True) - weights).clamp(min=1e-3)
    return mean, (rest.sum(1, keepdim=True) - rest) / others[..., None]


def _own_error_share(weights: Tensor) -> Tensor:
    """Compute the share (B, N, 1) of a correction that is a frame's own error, 1 - w_i / W, as w_i is in the mean."""
    total = weights.sum(1, keepdim=True)
    return ((total - weights) / total)[..., None]


def _mean_noise_variance(weights: Tensor) -> Tensor:
    """Compute the variance (B,) of a weighted mean of all but one frame, relative to a frame's."""
    return (weights.square().sum(1) / weights.sum(1).square() * weights.shape[1] / (weights.shape[1] - 1 + 1e-6)).clamp(
        max=1
    )


def _subtract_reference(shifts: Tensor, valid: Tensor) -> Tensor:
    """Subtract the reference's shift from all shifts; missing frames stay at zero."""
    return (shifts - shifts[:, REFERENCE : REFERENCE + 1]) * valid[..., None]


def _expand_axes(values: Tensor) -> Tensor:
    """Reshape (B,) or (B, N) to broadcast with frames (B, N, H, W)."""
    return values.reshape(*values.shape, *[1] * (4 - values.ndim))
