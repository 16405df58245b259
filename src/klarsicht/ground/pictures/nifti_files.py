"""Maps of volumes, written as NIfTI in the space of the volume they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from klarsicht.ground import optional
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import UnreadableFile, UsageError

ENDINGS = (".nii", ".nii.gz")


def write_nifti(values: Floats, path: Path, like: Path) -> None:
    """Write values (D, H, W) in the space of the NIfTI file `like`, whose three first axes have the same order. Where
    they have other numbers of voxels, both fill the same box, so that voxels are larger or smaller by that ratio.
    Raises UsageError, UnreadableFile and MissingExtra, see `Relevance.save_nifti`."""
    nibabel = optional.load("nibabel", "nifti")
    if not path.name.endswith(ENDINGS):
        raise UsageError("a NIfTI file has another ending", got=path.name, rule=" or ".join(ENDINGS))
    try:
        volume = nibabel.load(like)
        shape, affine = volume.shape[:3], np.asarray(volume.affine, np.float64)
    except (OSError, ValueError, AttributeError, nibabel.filebasedimages.ImageFileError) as error:
        raise UnreadableFile("no NIfTI volume to take the space from", got=f"{like}: {error}") from error
    if len(shape) != values.ndim:
        raise UsageError("a map and its volume", got=f"{values.ndim} and {len(shape)} axes", rule="three each")
    ratio = np.array(shape) / values.shape
    box = np.eye(4)
    box[:3, :3], box[:3, 3] = np.diag(ratio), (ratio - 1) / 2  # centres of larger voxels lie between those of smaller
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine @ box), path)
