"""Read a DICOM file for `klarsicht audit`: its own window, as PS3.3 C.11.2.1.2 says, as numbers in [0, 1].

klarsicht audit run --data scans.csv --decode examples/read_dicom.py:window ...
"""

import numpy as np
import pydicom


def window(path: str) -> np.ndarray:
    """Return the image (H, W), float32 in [0, 1], light where the window is high."""
    file = pydicom.dcmread(path)
    values = file.pixel_array * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0))
    centre, width = first(file.get("WindowCenter")), first(file.get("WindowWidth"))
    if centre is None or width is None:
        centre, width = (values.max() + values.min() + 1) / 2, values.max() - values.min() + 1
    shown = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    return (1 - shown if file.PhotometricInterpretation == "MONOCHROME1" else shown).astype(np.float32)


def first(number) -> float | None:
    """Return a number, or the first of several windows."""
    if number is None:
        return None
    return float(number[0] if isinstance(number, pydicom.multival.MultiValue) else number)
