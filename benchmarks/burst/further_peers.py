"""Methods without a network that are never the best of the protocol, for its tables: means of frames
aligned otherwise."""

from __future__ import annotations

import numpy as np
import torch

from klarsicht.burst.align.alignment import align_whole_frames, stabilised_grey
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.evaluation import phase_correlation
from klarsicht.burst.evaluation.classical import Merged, picture_of, with_bm3d


def align_whole_mean(burst: Burst) -> Merged:
    """Average the frames aligned by phase correlation, by whole pixels."""
    shifts = np.rint(phase_correlation.estimate_shifts(burst))
    return phase_correlation.aligned_mean(burst, shifts), burst.noise.average_frames(burst.count)


def register_mean(burst: Burst) -> Merged:
    """Average the frames aligned globally by the networks' aligner, to a fraction of a pixel."""
    frames = torch.from_numpy(burst.frames[burst.valid])[None]
    light = stabilised_grey(frames, torch.tensor([burst.noise.read]), torch.tensor([burst.noise.shot]))
    shifts = np.zeros((len(burst.frames), 2))
    shifts[burst.valid] = align_whole_frames(light, torch.ones(light.shape[:2], dtype=torch.bool)).shifts[0].numpy()
    return phase_correlation.aligned_mean(burst, shifts), burst.noise.average_frames(burst.count)


PEERS = {
    "align-whole+mean": picture_of(align_whole_mean),
    "align-whole+mean+bm3d": with_bm3d(align_whole_mean),
    "register+mean": picture_of(register_mean),
    "register+mean+bm3d": with_bm3d(register_mean),
}
