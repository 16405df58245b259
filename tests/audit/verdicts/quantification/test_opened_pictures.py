"""Pictures to check, by their files and folders, and decoded as those of a run."""

from types import SimpleNamespace

import numpy as np
import pytest

from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.quantification.check_pictures import check_one
from klarsicht.audit.verdicts.quantification.opened_pictures import list_pictures, open_pictures
from klarsicht.ground.errors import InputError


def test_of_a_folder_images_are_listed_and_other_files_are_noted(tmp_path, capsys):
    """As `audit run` leaves files out by their ending; one that is named alone stays, and so do all for a decoder."""
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "several.npz", "inner/c.webp", "inner/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    images = [str(tmp_path / name) for name in ("a.jpg", "b.PNG", "inner/c.webp", "several.npz")]
    assert list(list_pictures([tmp_path], any_ending=False)) == images
    assert f"left out of {tmp_path}: 2 files" in capsys.readouterr().err
    assert list(list_pictures([tmp_path / "notes.txt"], any_ending=False)) == [str(tmp_path / "notes.txt")]
    assert len(list(list_pictures([tmp_path], any_ending=True))) == 6
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_bytes(b"")
    with pytest.raises(InputError, match="no picture in this folder"):
        list(list_pictures([tmp_path / "empty"], any_ending=False))


def halve(path):
    """Decoder of a run: a picture stored at half its light."""
    return np.load(path) * 2


def test_pictures_are_decoded_as_those_of_the_run(tmp_path):
    """The run's decoder, white level and form; a picture that it cannot decode says so."""
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    np.save(tmp_path / "a.npy", pixels)
    (tmp_path / "b.npy").write_bytes(b"no array")
    settings = AuditSettings(model="m", data="d", decode=f"{__name__}:halve")
    first, second = open_pictures([str(tmp_path / "a.npy"), str(tmp_path / "b.npy")], settings, None)
    np.testing.assert_array_equal(np.asarray(first.corpus.decode(first.row)), 2 * pixels)
    unchecked = SimpleNamespace(check=lambda *_: pytest.fail("checked"), has_verdicts=False)
    unread = check_one(unchecked, second, None)
    assert "halve" in unread.why and not unread.has_verdicts
