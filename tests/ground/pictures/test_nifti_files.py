"""NIfTI maps. Oracle: nibabel reads them, and the world coordinates of what was written."""

import nibabel
import numpy as np
import pytest

from klarsicht.ground.errors import UnreadableFile, UsageError
from klarsicht.ground.pictures.nifti_files import write_nifti

AFFINE = np.array([[-0.9, 0.1, 0, 80], [0, 1.1, 0.2, -90], [0.05, 0, 2.0, -40], [0, 0, 0, 1]])


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((16, 24, 8), np.float32), AFFINE), path)
    return path


def centre_of_mass(image):
    values = image.get_fdata()
    voxels = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
    return nibabel.affines.apply_affine(image.affine, (values[..., None] * voxels).sum((0, 1, 2)) / values.sum())


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_what_is_written_lies_where_it_was_in_the_volume(tmp_path, volume, ratio):
    fine = np.zeros((16, 24, 8))
    fine[4:8, 8:16, 4:8] = 1
    coarse = fine[::ratio, ::ratio, ::ratio]
    write_nifti(coarse, tmp_path / "map.nii.gz", volume)
    found = nibabel.load(tmp_path / "map.nii.gz")
    assert found.shape == coarse.shape and found.get_data_dtype() == np.float32
    np.testing.assert_array_equal(found.get_fdata(), coarse)
    want = centre_of_mass(nibabel.Nifti1Image(fine, AFFINE))
    np.testing.assert_allclose(centre_of_mass(found), want, atol=1e-4)


def test_corners_of_the_box_stay(tmp_path, volume):
    write_nifti(np.ones((5, 7, 3)), tmp_path / "map.nii", volume)
    found = nibabel.load(tmp_path / "map.nii").affine
    for corner in ([-0.5] * 3, [15.5, 23.5, 7.5]):
        scaled = (np.array(corner) + 0.5) / (16, 24, 8) * (5, 7, 3) - 0.5
        np.testing.assert_allclose(
            nibabel.affines.apply_affine(found, scaled), nibabel.affines.apply_affine(AFFINE, corner), atol=1e-4
        )


def test_what_cannot_be_written_is_refused(tmp_path, volume):
    with pytest.raises(UsageError, match=r"another ending; got map\.png"):
        write_nifti(np.ones((2, 2, 2)), tmp_path / "map.png", volume)
    with pytest.raises(UnreadableFile, match="no NIfTI volume"):
        write_nifti(np.ones((2, 2, 2)), tmp_path / "map.nii", tmp_path / "nowhere.nii")
    (tmp_path / "text.nii").write_text("no volume")
    with pytest.raises(UnreadableFile, match="no NIfTI volume"):
        write_nifti(np.ones((2, 2, 2)), tmp_path / "map.nii", tmp_path / "text.nii")
    with pytest.raises(UsageError, match="2 and 3 axes"):
        write_nifti(np.ones((2, 2)), tmp_path / "map.nii", volume)
