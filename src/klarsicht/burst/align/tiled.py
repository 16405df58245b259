"""Alignment of frames of any size in bounded memory, by `alignment`: whole frames at reduced size, then tiles, region
by region. The regions do not depend on the available memory, so the result does not either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from klarsicht.burst.align.alignment import COARSE, GlobalShifts, align_tiles, align_whole_frames, stabilised_grey
from klarsicht.burst.align.camera_motion import CameraMotion, fit_camera_motion
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.tile_grid import Mesh
from klarsicht.burst.align.warp_tiles import STEP, TILE_SIDE
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

REGION, REGION_MARGIN = 24 * STEP, 2 * STEP  # pixels: side of a region that is aligned at once, and its margin
REGION_FRAMES, MIN_REGION = 16, 4 * STEP  # frames of a full region; with more, regions shrink, down to this side


@dataclass(frozen=True)
class GreyFrames(FrameStore):
    """Means (N, 1, H, W) of the channels of another store's frames."""

    source: FrameStore

    @classmethod
    def of(cls, source: FrameStore) -> GreyFrames:
        N, _, H, W = source.shape
        return cls(source.path, (N, 1, H, W), source)

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        return self.source.read_inner_window(frame, inside).mean(0, keepdims=True)


def align_frames(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> Placement:
    """Align the frames of a store whose indices are given, the reference first. noise: of each frame of the store.
    Frames that are clearly turned, zoomed or tilted are first warped by their camera's motion."""
    if len(frames) == 1:
        return _unmoved_placement(1, spool.size)
    C = spool.shape[1]
    spool, noise = GreyFrames.of(spool), [NoiseLevel(level.read / C**0.5, level.shot / C) for level in noise]
    motion, confidence = estimate_motion(spool, noise, frames)
    guess, turned = _place_by_motion(motion, spool.size), ~motion.is_shift.numpy()
    whole = torch.from_numpy(guess.rest.astype(np.float32))[None]
    start = guess.shifts[:, 0, 0]
    fine, agrees = guess.fine.copy(), guess.agrees.copy()
    parts = regions(spool.size, len(frames))
    for region in track(parts, len(parts), "alignment"):
        outer = region.grow(REGION_MARGIN).clip_to(spool.size)
        light_of_tiles = (
            guess.select([k]).read_aligned(spool, [i], outer)[0]
            if turned[k]
            else spool.read_window(i, outer.translate(*start[k].tolist()))
            for k, i in enumerate(frames)
        )
        light = torch.stack([_guide(one, noise[i]) for one, i in zip(light_of_tiles, frames, strict=True)])[None]
        valid = torch.ones(light.shape[:2], dtype=torch.bool)
        as_taken, mesh = torch.from_numpy(~turned)[None], Mesh(*outer.size, TILE_SIDE)
        alignment = align_tiles(light, valid, GlobalShifts(whole, confidence), mesh, as_taken)
        here, there = _tiles_of(region, outer, spool.size)
        off = alignment.fine[0, :, *there].numpy()
        by_turn = np.einsum("nyxij,nyxj->nyxi", guess.turns[:, *here], off)
        base = np.where(turned[:, None, None, None], guess.fine[:, *here], start[:, None, None])
        fine[:, *here] = base + off + by_turn
        agrees[:, *here] = alignment.agrees[0, :, *there].numpy()
    return replace(guess, fine=fine, shifts=np.rint(fine).astype(np.int64), agrees=agrees)


def _unmoved_placement(count: int, size: tuple[int, int]) -> Placement:
    """Return the placement of frames that all lie where the reference does."""
    shape = (count, *Mesh(*size, TILE_SIDE).shape)
    nowhere = np.zeros((*shape, 2), np.int64)
    turns = np.zeros((*shape, 2, 2), np.float32)
    return Placement(nowhere.astype(np.float32), nowhere, np.ones(shape, bool), np.zeros((count, 2)), turns)


def _place_by_motion(motion: CameraMotion, size: tuple[int, int]) -> Placement:
    """Place frames by the motion of the camera alone. rest: of a frame that is shifted and no more; else 0."""
    Y, X = Mesh(*size, TILE_SIDE).shape
    y, x = (torch.arange(n, dtype=torch.float64) * STEP - 0.5 for n in (Y, X))
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)
    fine = motion.shifts(centres).numpy().astype(np.float32)
    shifts, turns = np.rint(fine).astype(np.int64), motion.turns(centres).numpy().astype(np.float32)
    rest = (fine - shifts)[:, 0, 0] * motion.is_shift.numpy()[:, None]
    return replace(
        _unmoved_placement(len(fine), size), fine=fine, shifts=shifts, turns=turns, rest=rest.astype(np.float64)
    )


def regions(size: tuple[int, int], frames: int) -> list[Window]:
    """Return windows over a picture that hold about as many pixels of all frames together for any number of them."""
    outer = (REGION + 2 * REGION_MARGIN) * min(1.0, REGION_FRAMES / frames) ** 0.5
    (H, W), side = size, max(MIN_REGION, int(outer - 2 * REGION_MARGIN) // STEP * STEP)
    return [Window(y, min(y + side, H), x, min(x + side, W)) for y in range(0, H, side) for x in range(0, W, side)]


def _tiles_of(region: Window, outer: Window, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the tiles of the whole mesh that a region determines (its first ones, the last region also
    the last), and their slices in the outer window's own mesh."""
    here, there = [], []
    for start, stop, first, end in (
        (region.y0, region.y1, outer.y0, size[0]),
        (region.x0, region.x1, outer.x0, size[1]),
    ):
        a, b = start // STEP, -(-stop // STEP) + (stop == end)
        here.append(slice(a, b))
        there.append(slice(a - first // STEP, b - first // STEP))
    return (here[0], here[1]), (there[0], there[1])


def whole_shifts(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> GlobalShifts:
    """Estimate the shifts of whole frames at a reduced size. noise: of each frame of the store, selected or not."""
    shrink, small = _reduced_guides(spool, noise, frames)
    whole = align_whole_frames(small[None], torch.ones(1, len(small), dtype=torch.bool))
    return GlobalShifts(whole.shifts * shrink, whole.confidence)


def estimate_motion(
    spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]
) -> tuple[CameraMotion, Tensor]:
    """Estimate the motion of the camera in the same way, and the confidence (1, N) in the shifts of whole frames."""
    shrink, small = _reduced_guides(spool, noise, frames)
    whole = align_whole_frames(small[None], torch.ones(1, len(small), dtype=torch.bool))
    return fit_camera_motion(small, whole.shifts[0] * shrink, shrink, spool.size), whole.confidence


def _reduced_guides(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> tuple[int, Tensor]:
    """Return a factor at which no side is longer than COARSE, and the guides (N, h, w) reduced by it."""
    shrink = 1
    while max(spool.size) > COARSE * shrink:
        shrink *= 2
    return shrink, torch.stack([_shrunk_guide(spool, i, noise[i], shrink) for i in frames])


def _shrunk_guide(spool: FrameStore, frame: int, noise: NoiseLevel, shrink: int) -> Tensor:
    """Return a reduced grey picture (h, w) with noise of deviation 1, without a remainder at the right and bottom."""
    parts = [_guide(light, noise) for _, light in spool.read_strips(frame, shrink)]
    return torch.cat([avg_pool2d(part[None], shrink)[0] * shrink for part in parts if len(part) >= shrink])


def _guide(light: npt.NDArray[np.float32], noise: NoiseLevel) -> Tensor:
    """Convert (C, h, w) to one grey picture (h, w) with noise of deviation 1."""
    read, shot = torch.tensor([max(noise.read, 1e-6)]), torch.tensor([max(noise.shot, 1e-9)])
    return stabilised_grey(torch.from_numpy(light)[None, None], read, shot)[0, 0]
