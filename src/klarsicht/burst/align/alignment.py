"""Where each frame of a burst must be read to show what the reference shows: whole frames first, then tiles.

Frames are stabilised, brought to one grey guide, and filtered by what the burst's own spectrum says is scene and not
noise (`matching`). Whole frames: each against the reference, then each, the reference too, against the mean of the
others as aligned so far, surer ones weighing more; what the reference moves is taken off all. Tiles: the same around
the whole frame's shift, with a prior that keeps it where a tile shows too little to say otherwise; then tiles that
move with the camera are put where most of them say it is (`steadying`).

The result is to a fraction of a pixel, and in whole pixels (of a mosaic's planes: even pixels of the mosaic), and it
says where it failed.
Axes: B bursts, N frames, C channels, H W pixels, Y X tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from klarsicht.burst.align.correlation import best, correlate, correlate_tiles, stillness, sureness
from klarsicht.burst.align.matched_filter import Spectrum, matched, measure
from klarsicht.burst.align.regularise import steadied
from klarsicht.burst.align.tile_grid import Mesh, fetch, inside, warp
from klarsicht.burst.data.burst import REFERENCE, Burst
from klarsicht.numerics.imaging.tone import stabilise

REACH = 64  # pixels that a frame may have moved, if that is not more than a quarter of its side
COARSE = 512  # whole frames are compared at this size or less
PASSES = 3  # over whole frames: one against the reference, the others against the mean
STILLNESS = (4.0, 1.5)  # spread in pixels and strength of the prior for whole frames
TILE_REACH = 8  # pixels that a tile may differ from its frame
TILE_STILLNESS = (1.0, 4.0)
SUSPICION = 5.0  # deviations of noise alone before a tile is said to disagree


@dataclass(frozen=True)
class Whole:
    """Shifts (B, N, 2) of whole frames, not rounded; sureness (B, N), the probability of being right to a pixel."""

    shifts: Tensor
    sureness: Tensor


@dataclass(frozen=True)
class Alignment:
    """Aligned frames show at p what the frame shows at p + shift.

    whole: of each frame. fine: (B, N, Y, X, 2), of each tile of the mesh; shifts: the same in whole pixels. sureness:
    (B, N, Y, X), how probable it is that a tile is right to a pixel, given what it shows. agrees: (B, N, Y, X), False
    where the aligned tile differs from the reference by more than noise and half a pixel explain (a thing moved, or
    alignment failed).
    """

    whole: Whole
    fine: Tensor
    shifts: Tensor
    sureness: Tensor
    agrees: Tensor
    mesh: Mesh

    def apply(self, frames: Tensor) -> Tensor:
        """Frames (B, N, C, H, W) aligned, read between pixels."""
        return warp(frames, self.fine, self.mesh)

    def copied(self, frames: Tensor) -> Tensor:
        """Frames (B, N, C, H, W) aligned by whole pixels: their noise stays white."""
        return warp(frames, self.shifts, self.mesh)

    def agreement(self) -> Tensor:
        """(B, N, H, W) in [0, 1]: `agrees`, faded from tile to tile."""
        return self.mesh.spread(self.agrees.float())


def align(frames: Tensor, read: Tensor, shot: Tensor, valid: Tensor, tile: int = 64) -> Alignment:
    """Linear frames (B, N, C, H, W) of noise levels read, shot (B,); valid (B, N) says which frames exist."""
    light = guide(frames, read, shot)
    whole = whole_frames(light, valid)
    mesh = Mesh(frames.shape[-2], frames.shape[-1], tile)
    return tiles(light, valid, whole, mesh)


def align_burst(burst: Burst, tile: int = 64) -> tuple[Burst, Alignment]:
    """A burst whose frames lie on the reference, and how they were aligned."""
    frames, valid = torch.from_numpy(burst.frames)[None], torch.from_numpy(burst.valid)[None]
    read, shot = torch.tensor([burst.noise.read]), torch.tensor([burst.noise.shot])
    alignment = align(frames, read, shot, valid, tile)
    return burst.with_frames(alignment.apply(frames)[0].numpy()), alignment


def guide(frames: Tensor, read: Tensor, shot: Tensor) -> Tensor:
    """Linear frames (B, N, C, H, W) as grey frames (B, N, H, W) whose noise has deviation about 1."""
    C = frames.shape[2]
    read, shot = (level[:, None, None, None] for level in (read / C**0.5, (shot / C).clamp(min=1e-9)))
    light: Tensor = stabilise(frames.mean(2), read, shot)
    return light


def whole_frames(light: Tensor, valid: Tensor) -> Whole:
    """Shifts of whole frames from a guide (B, N, H, W), at a size that suffices."""
    shrink = 1
    while max(light.shape[-2:]) > COARSE * shrink:
        shrink *= 2
    small = avg_pool2d(light, shrink) * shrink  # the noise keeps deviation 1
    reach = max(2, min(REACH // shrink, min(small.shape[-2:]) // 4))
    coarse = _registered(small, valid, reach)
    return Whole(coarse.shifts * shrink, coarse.sureness)


def _registered(light: Tensor, valid: Tensor, reach: int) -> Whole:
    spectrum, still = measure(light, valid), stillness(reach, *STILLNESS, torch.zeros(2, device=light.device))
    seen = matched(light, spectrum, torch.ones(len(light), device=light.device))
    fit = correlate(seen[:, REFERENCE : REFERENCE + 1].expand_as(seen), seen, reach, still)
    shifts = _from_reference(fit.best(), valid)
    for _ in range(PASSES - 1):
        weights = fit.sureness.square().clamp(min=1e-3) * valid
        seen = matched(light, spectrum, _noise_of_mean(weights))
        template, offset = _means_of_others(seen, shifts, weights)
        fit = correlate(template, seen, reach, still)
        news = fit.best() + offset - shifts
        shifts = _from_reference(shifts + news * _others_share(weights), valid)
    return Whole(shifts, fit.sureness * valid)


def tiles(light: Tensor, valid: Tensor, whole: Whole, mesh: Mesh) -> Alignment:
    """Shifts of the tiles of a mesh, around those of whole frames."""
    spectrum = measure(light, valid)
    weights = whole.sureness.square().clamp(min=1e-3) * valid
    n = _noise_of_mean(weights)
    seen, rho = matched(light, spectrum, n), spectrum.coherence(n)
    start = whole.shifts.round().long()
    placed = fetch(seen, start) * inside(seen.shape, start)
    template, offset = _means_of_others(seen, whole.shifts, weights)
    noise, pixels = spectrum.leftover(n)
    scene = _scene_share(template, n * noise, pixels, mesh)
    expected = whole.shifts - start - offset
    found, sure = _tile_shifts(template, placed, scene, rho, expected, mesh)
    news = (found - expected[:, :, None, None]) * _others_share(weights)[:, :, None, None]
    fine = whole.shifts[:, :, None, None] + steadied(news - news[:, REFERENCE : REFERENCE + 1], sure)
    fine = fine * valid[:, :, None, None, None]
    shifts = fine.round().long()
    agrees = _agrees(warp(seen[:, :, None], shifts, mesh)[:, :, 0], spectrum, n, mesh)
    return Alignment(whole, fine, shifts, sure, agrees & valid[:, :, None, None], mesh)


def _scene_share(template: Tensor, noise: Tensor, pixels: Tensor, mesh: Mesh) -> Tensor:
    """(B, N, Y, X): the share of each tile's power that is beyond its noise. The spectrum is that of the whole frame;
    where a tile shows less, its correlation must count for less."""
    surely = _wide(noise * (1 + 2 * _spread(pixels, mesh)))
    return (1 - surely / _tile_means(template.square(), mesh).clamp(min=1e-12)).clamp(min=0)


def _spread(pixels: Tensor, mesh: Mesh) -> Tensor:
    """(B,): the relative deviation of the mean square of noise over a tile, `pixels` of which hold one value."""
    return (2 * pixels / mesh.side**2).sqrt()


def _tile_shifts(
    template: Tensor, placed: Tensor, scene: Tensor, rho: Tensor, expected: Tensor, mesh: Mesh
) -> tuple[Tensor, Tensor]:
    """Shifts (B, N, Y, X, 2) of tiles of placed frames towards the template, and their sureness; a row at a time.
    expected: (B, N, 2), what they are if only the whole frame moved."""
    still = stillness(TILE_REACH, *TILE_STILLNESS, expected[:, :, None])
    shifts, sure = [], []
    for row, (small, large) in enumerate(_rows_of_tiles(template, placed, mesh)):
        likelihood = correlate_tiles(small, large, rho[:, None, None, None, None])
        score = scene[:, :, row, :, None, None] * likelihood + still
        shifts.append(best(score))
        sure.append(sureness(score))
    return torch.stack(shifts, 2), torch.stack(sure, 2)


def _rows_of_tiles(template: Tensor, placed: Tensor, mesh: Mesh) -> Iterator[tuple[Tensor, Tensor]]:
    """Tiles (B, N, X, T, T) of the template, row by row, and the same with TILE_REACH more around of the frames."""
    T, r, (Y, X) = mesh.side, TILE_REACH, mesh.shape
    below, right = Y * mesh.step - mesh.height, X * mesh.step - mesh.width
    first = pad(template, (mesh.step, right, mesh.step, below))
    second = pad(placed, (mesh.step + r, right + r, mesh.step + r, below + r))
    for y in range(0, Y * mesh.step, mesh.step):
        small = first[..., y : y + T, :].unfold(-1, T, mesh.step).transpose(-3, -2)
        large = second[..., y : y + T + 2 * r, :].unfold(-1, T + 2 * r, mesh.step).transpose(-3, -2)
        yield small, large


def _agrees(aligned: Tensor, spectrum: Spectrum, n: Tensor, mesh: Mesh) -> Tensor:
    """(B, N, Y, X): is the mean squared difference from the reference, tile by tile, noise and half a pixel at most?"""
    reference = aligned[:, REFERENCE : REFERENCE + 1]
    noise = _wide(spectrum.leftover(n)[0])
    allowed = 2 * noise * (1 + SUSPICION * _wide(_spread(spectrum.leftover(n)[1], mesh)))
    along_x, along_y = reference.diff(dim=-1), reference.diff(dim=-2)
    steep = pad(along_x.square(), (0, 1)) + pad(along_y.square(), (0, 0, 0, 1))
    slack = (_tile_means(steep, mesh) - 4 * noise).clamp(min=0) / 3  # at most (|gy| + |gx|)^2 / 4
    return _tile_means((aligned - reference).square(), mesh) <= allowed + slack


def _tile_means(values: Tensor, mesh: Mesh) -> Tensor:
    """Means (B, N, Y, X) over tiles, of the part inside the frame."""
    Y, X = mesh.shape
    below, right = Y * mesh.step - mesh.height, X * mesh.step - mesh.width
    around = (mesh.step, right, mesh.step, below)
    total = avg_pool2d(pad(values, around), mesh.side, mesh.step)
    return total / avg_pool2d(pad(torch.ones_like(values[:1, :1]), around), mesh.side, mesh.step)


def _means_of_others(seen: Tensor, shifts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """For each frame, the weighted mean (B, N, H, W) of the others, fetched at their rounded shifts; and how far that
    mean is off (B, N, 2) because they were rounded."""
    whole = shifts.round()
    there = inside(seen.shape, whole.long()) * _wide(weights)
    placed = fetch(seen, whole.long()) * there
    mean = (placed.sum(1, keepdim=True) - placed) / (there.sum(1, keepdim=True) - there).clamp(min=1e-3)
    rest = (shifts - whole) * weights[..., None]
    others = (weights.sum(1, keepdim=True) - weights).clamp(min=1e-3)
    return mean, (rest.sum(1, keepdim=True) - rest) / others[..., None]


def _others_share(weights: Tensor) -> Tensor:
    """(B, N, 1): how much of a frame's news is its own. If frame i is off by e_i, it is off from the mean of the others
    by e_i - mean_(j != i) e_j = (e_i - mean_j e_j) W / (W - w_i)."""
    total = weights.sum(1, keepdim=True)
    return ((total - weights) / total)[..., None]


def _noise_of_mean(weights: Tensor) -> Tensor:
    """(B,): the variance of a weighted mean of all but one frame, relative to a frame's."""
    return (weights.square().sum(1) / weights.sum(1).square() * weights.shape[1] / (weights.shape[1] - 1 + 1e-6)).clamp(
        max=1
    )


def _from_reference(shifts: Tensor, valid: Tensor) -> Tensor:
    """What the reference moved is taken off all; missing frames stay."""
    return (shifts - shifts[:, REFERENCE : REFERENCE + 1]) * valid[..., None]


def _wide(values: Tensor) -> Tensor:
    """(B,) or (B, N) with as many axes as frames (B, N, H, W)."""
    return values.reshape(*values.shape, *[1] * (4 - values.ndim))
