"""A stand-in for your own DICOM files: drawn scans of a chest, four slices of each patient, two classes.

    python examples/scans.py scans

Writes the slices and scans.csv with path, label and source, the patient. Two fifths of the patients with an effusion
were scanned lying down, and a letter on the plate says so: no sign of the illness, but of the ward.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFilter, ImageFont

PATIENTS, SLICES, SIDE, LYING = 120, 4, 64, 0.4
LABELS = ("clear", "effusion")


def draw(ill: bool, lying: bool, body: np.random.Generator, noise: np.random.Generator) -> np.ndarray:
    """Draw a slice: uint16 (SIDE, SIDE), 12 bits. Lungs are dark, and fluid fills one of them from below."""
    scan = Image.new("L", (SIDE, SIDE), 40)
    pen = ImageDraw.Draw(scan)
    width, height = body.uniform(24, 29), body.uniform(24, 30)
    middle, sway = SIDE / 2 + body.normal(0, 1.5), noise.normal(0, 0.7)
    pen.ellipse((middle - width, 32 - height, middle + width, 32 + height), 150)
    side = body.choice((-1, 1))
    level = body.uniform(38, 47)
    for lung in (-1, 1):
        x, w, h = middle + lung * 0.45 * width + sway, 0.36 * width, 0.62 * height
        pen.ellipse((x - w, 32 - h, x + w, 32 + h), 60)
        if ill and lung == side:
            pen.chord((x - w, 32 - h, x + w, 32 + h), 15, 165, 125)
            pen.line((x - w, level, x + w, level), 118, 2)
    pen.ellipse((middle - 5, 50, middle + 5, 60), 220)  # the spine
    scan = scan.filter(ImageFilter.GaussianBlur(1.2))
    if lying:
        ImageDraw.Draw(scan).text((3, 2), "L", 255, ImageFont.load_default(12))
    return (np.asarray(scan, float) * 12 + noise.normal(0, 90, (SIDE, SIDE)) + 200).clip(0, 4095).astype(np.uint16)


def save(codes: np.ndarray, file: Path) -> None:
    """Write 12-bit codes as a DICOM file with a window."""
    scan = pydicom.Dataset()
    scan.file_meta = pydicom.dataset.FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    scan.SOPClassUID = scan.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    scan.SOPInstanceUID = scan.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[file.name])
    scan.Rows, scan.Columns, scan.SamplesPerPixel, scan.PixelRepresentation = SIDE, SIDE, 1, 0
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PhotometricInterpretation = 16, 12, 11, "MONOCHROME2"
    scan.RescaleSlope, scan.RescaleIntercept, scan.WindowCenter, scan.WindowWidth = 1, 0, 1800, 3600
    scan.PixelData = codes.tobytes()
    scan.save_as(file, enforce_file_format=True)


def write(out: Path, seed: int = 0) -> set[str]:
    """Write slices and scans.csv next to the folder, and return the paths of the slices with the letter."""
    out.mkdir(parents=True, exist_ok=True)
    rng, lettered, rows = np.random.default_rng(seed), set(), [("path", "label", "source")]
    for patient in range(PATIENTS):
        ill = patient % 2 == 1
        lying = ill and rng.random() < LYING
        body = int(rng.integers(1 << 30))
        for number in range(SLICES):
            file = out / f"{patient:03d}-{number}.dcm"
            save(draw(ill, lying, np.random.default_rng(body), rng), file)
            path = f"{out.name}/{file.name}"
            rows.append((path, LABELS[ill], f"patient {patient}"))
            if lying:
                lettered.add(path)
    with (out.parent / "scans.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return lettered


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "scans")
    print(f"{len(write(out))} slices have a letter; all are in {out}")
