"""Read slices of NIfTI volumes for `klarsicht audit`: a manifest names each as SCAN.nii.gz#NUMBER.

klarsicht audit run --data slices.csv --decode examples/read_nifti.py:axial ...
"""

from functools import lru_cache

import nibabel
import numpy as np


def axial(path: str) -> np.ndarray:
    """Return an axial slice (H, W), float32 in [0, 1], between the 1st and the 99th percentile of its volume."""
    file, _, number = path.rpartition("#")
    volume, low, high = read(file)
    shown = np.clip((volume[:, :, int(number)] - low) / max(high - low, 1e-6), 0, 1)
    return np.rot90(shown).astype(np.float32)


@lru_cache(maxsize=2)
def read(file: str) -> tuple[np.ndarray, float, float]:
    """Return a volume with its axes to the right, to the front and upwards, and the ends of its window."""
    volume = nibabel.as_closest_canonical(nibabel.load(file)).get_fdata(dtype=np.float32)
    low, high = np.percentile(volume, (1, 99))
    return volume, float(low), float(high)
