"""The examples run, and what they print is true of what they made."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from klarsicht.audit.explanation.data.corpus_formats import open_corpus

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_the_tag_on_the_threes_is_found(tmp_path):
    command = [sys.executable, str(EXAMPLES / "clever_hans_digits.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    cluster, tags = (int(share) for share in re.search(r"tag: (\d+)% .* and (\d+)%", done.stdout).groups())
    assert cluster >= 90
    assert tags >= 90
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_dicom_file_is_read_through_its_window(tmp_path):
    """The oracle is pydicom's own window; one file is inverted, and one says no window."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels import apply_modality_lut, apply_windowing

    codes = np.random.default_rng(0).integers(0, 4096, (6, 5), np.uint16)
    lines = ["path,label"]
    for i, kind in enumerate(("MONOCHROME2", "MONOCHROME1")):
        file = pydicom.Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        file.Rows, file.Columns, file.SamplesPerPixel, file.PixelRepresentation = 6, 5, 1, 0
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PhotometricInterpretation = 16, 12, 11, kind
        file.RescaleSlope, file.RescaleIntercept, file.WindowCenter, file.WindowWidth = 1, -1024, [40, 300], [400, 2000]
        file.VOILUTFunction, file.PixelData = "LINEAR", codes.tobytes()
        file.save_as(tmp_path / f"{i}.dcm", enforce_file_format=True)
        lines.append(f"{i}.dcm,a")
    (tmp_path / "scans.csv").write_text("\n".join(lines))
    corpus = open_corpus(tmp_path / "scans.csv", decoder=f"{EXAMPLES}/read_dicom.py:window")
    shown = apply_windowing(apply_modality_lut(codes, file), file)
    shown = (shown - shown.min()) / (shown.max() - shown.min())
    for row, wanted in enumerate((shown, 1 - shown)):
        assert np.abs(np.asarray(corpus.decode(row)) / 255 - wanted).max() < 0.003


def test_slices_of_a_nifti_volume_are_read_by_their_number(tmp_path):
    """A volume whose first axis runs to the left is turned, so that the right side is where it is in the others."""
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((8, 6, 4), np.float32)
    volume[0, 0, 2] = 1  # left, behind
    names = {"ras": np.diag([1.0, 1, 1, 1]), "las": np.diag([-1.0, 1, 1, 1])}
    for name, affine in names.items():
        data = volume if name == "ras" else volume[::-1]
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(data), affine), tmp_path / f"{name}.nii.gz")
    (tmp_path / "slices.csv").write_text("path,label\nras.nii.gz#2,a\nlas.nii.gz#2,a\nras.nii.gz#1,a\n")
    corpus = open_corpus(tmp_path / "slices.csv", decoder=f"{EXAMPLES}/read_nifti.py:axial")
    right_side_up = np.zeros((6, 8), np.uint8)
    right_side_up[5, 0] = 255
    assert [np.asarray(corpus.decode(row)).tolist() == right_side_up.tolist() for row in range(3)] == [
        True,
        True,
        False,
    ]
