"""Reading of .npy files. Oracle: numpy.load."""

import io

import numpy as np
import pytest

from klarsicht.ground.errors import ImageError
from klarsicht.ground.pictures.images import decode, decode_bytes
from klarsicht.ground.pictures.npy_files import read_npy


def stored(array, version=None):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=version)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2", "<i4", "<f2", ">f4", "<f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(kind, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (5, 4, 3)).astype(kind), order=order)
    for version in ((1, 0), (2, 0)):
        content = stored(array, version)
        found = read_npy(io.BytesIO(content), 1)
        expected = np.load(io.BytesIO(content))
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (stored(np.zeros((4, 5)))[:-1], r"159 bytes for shape \(4, 5\)"),
        (stored(np.zeros((4, 5)))[:40], "cannot be read"),
        (stored(np.zeros(3, "U2")), "no numbers"),
        (stored(np.zeros(3, [("a", "i4")])), "no numbers"),
        (stored(np.zeros(3, "c8")), "no numbers"),
        (stored(np.zeros((1001, 1000, 3), "u1"))[:200], "too large.*Raise --megapixels"),
        (stored(np.zeros((4, 5))).replace(b"(4, 5)", b"(4,-5)"), "negative size"),
        (stored(np.zeros((4, 4, 9))).replace(b"(4, 4, 9), }", b"(9**9**9,)}"), "cannot be read"),
        (stored(np.zeros((4, 4, 9))).replace(b"(4, 4, 9), }        ", b"(900, 900, 900000000)}"), "too large"),
        (stored(np.zeros(3)).replace(b"NUMPY\x01", b"NUMPY\x09"), "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_before_memory_is_taken(content, words):
    with pytest.raises(ImageError, match=words):
        read_npy(io.BytesIO(content), 1)


def test_objects_are_never_unpickled(tmp_path):
    with pytest.raises(ImageError, match="no numbers"):
        np.save(tmp_path / "a.npy", np.array([print, None]), allow_pickle=True)
        decode(tmp_path / "a.npy")


def test_an_array_that_is_a_picture_is_decoded_as_one(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.npy")), pixels)
    codes = np.array([[0, 4095]], np.uint16)
    assert np.asarray(decode_bytes(stored(codes), "a", 4095)).tolist() == [[0, 255]]
    with pytest.raises(ImageError, match="not a picture"):
        decode_bytes(stored(np.zeros((5, 5, 7))), "a")
