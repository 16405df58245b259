"""Tiles, fades and fetched frames against pixel-by-pixel rewrites."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from klarsicht.burst.align.tile_grid import Mesh, fetch_shifted, inside_mask, warp
from klarsicht.ground.errors import UsageError


def frames(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def literal_warp(frame, shifts, side):
    """One frame (H, W): every tile's shifted copy, weighed by its own window, tile after tile."""
    H, W = frame.shape
    out, total, step = np.zeros((H, W)), np.zeros((H, W)), side // 2
    for Y in range(shifts.shape[0]):
        for X in range(shifts.shape[1]):
            dy, dx = shifts[Y, X]
            for i in range(side):
                for j in range(side):
                    y, x = (Y - 1) * step + i, (X - 1) * step + j
                    if 0 <= y < H and 0 <= x < W:
                        w = math.sin(math.pi * (i + 0.5) / side) ** 2 * math.sin(math.pi * (j + 0.5) / side) ** 2
                        out[y, x] += w * frame[min(max(y + dy, 0), H - 1), min(max(x + dx, 0), W - 1)]
                        total[y, x] += w
    return out, total


@pytest.mark.parametrize(("height", "width", "side"), [(16, 24, 8), (13, 9, 6), (5, 21, 12)])
def test_warp_is_the_sum_over_windowed_tiles(height, width, side):
    mesh, picture = Mesh(height, width, side), frames(1, 1, 1, height, width)
    shifts = np.random.default_rng(0).integers(-5, 6, (*mesh.shape, 2))
    expected, total = literal_warp(picture[0, 0, 0].numpy(), shifts, side)
    np.testing.assert_allclose(total, 1)
    ours = warp(picture, torch.from_numpy(shifts)[None, None], mesh)
    np.testing.assert_allclose(ours[0, 0, 0], expected, atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 10, 16]))
def test_a_value_common_to_all_tiles_is_spread_evenly(height, width, side):
    mesh = Mesh(height, width, side)
    still = torch.zeros(2, *mesh.shape, 2, dtype=torch.long)
    blended = mesh.blend(torch.full((2, *mesh.shape), 3.0), still)
    np.testing.assert_allclose(blended, np.full((2, height, width), 3), rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "side"), [(16, 24, 8), (13, 9, 6)])
def test_values_count_where_their_tile_reads_the_frame(height, width, side):
    """As the warp of a picture by each tile's shift, of which the pixels beyond its border are 0."""
    mesh, rng, margin = Mesh(height, width, side), np.random.default_rng(1), 8
    shifts, values = rng.integers(-5, 6, (*mesh.shape, 2)), rng.random(mesh.shape)
    expected = np.zeros((height, width))
    for Y, X in np.ndindex(*mesh.shape):
        seen = np.zeros((height + 2 * margin, width + 2 * margin))
        seen[margin:-margin, margin:-margin] = 1
        for y, x in np.ndindex(height, width):
            i, j = y - (Y - 1) * side // 2, x - (X - 1) * side // 2
            if 0 <= i < side and 0 <= j < side:
                weight = math.sin(math.pi * (i + 0.5) / side) ** 2 * math.sin(math.pi * (j + 0.5) / side) ** 2
                dy, dx = shifts[Y, X]
                expected[y, x] += weight * values[Y, X] * seen[y + dy + margin, x + dx + margin]
    blended = mesh.blend(torch.from_numpy(values).float(), torch.from_numpy(shifts))
    np.testing.assert_allclose(blended, expected, atol=1e-6)


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_fetching_reads_at_p_plus_d(dy, dx):
    picture = frames(2, 3, 7, 8)
    shifts = torch.zeros(2, 3, 2, dtype=torch.long)
    shifts[1, 2] = torch.tensor([dy, dx])
    rows, columns = np.clip(np.arange(7) + dy, 0, 6), np.clip(np.arange(8) + dx, 0, 7)
    got = fetch_shifted(picture, shifts)
    assert torch.equal(got[0], picture[0])
    np.testing.assert_array_equal(got[1, 2], picture[1, 2].numpy()[rows][:, columns])
    there = [[0 <= y + dy < 7 and 0 <= x + dx < 8 for x in range(8)] for y in range(7)]
    np.testing.assert_array_equal(inside_mask(picture.shape, shifts)[1, 2], np.array(there, np.float32))


def test_equal_shifts_are_one_fetch():
    """Channels move together; no interpolation, so noise keeps its variance."""
    mesh, picture = Mesh(20, 30, 8), frames(1, 2, 4, 20, 30)
    shifts = torch.tensor([[3, -2], [0, 5]])[None, :, None, None].expand(1, 2, *mesh.shape, 2)
    moved = warp(picture, shifts, mesh)
    for c in range(4):
        np.testing.assert_allclose(moved[:, :, c], fetch_shifted(picture[:, :, c], shifts[:, :, 0, 0]), rtol=1e-5)


def test_between_pixels_is_the_sum_of_tiles_of_keys_cubic():
    """Each tile against Pillow, whose BICUBIC resizes by Keys' cubic with a = -1/2."""
    mesh, picture = Mesh(24, 40, 16), frames(1, 1, 1, 24, 40)
    shifts = torch.rand(1, 1, *mesh.shape, 2, generator=torch.Generator().manual_seed(1)) * 9 - 4.5
    shifts[0, 0, 0, 0] = torch.tensor([2.0, -3.0])
    wide = Image.fromarray(np.pad(picture[0, 0, 0].numpy(), 16, mode="edge"))
    expected = np.zeros((24, 40))
    for below, right, weight in mesh.layers(torch.device("cpu")):
        for y in range(24):
            for x in range(40):
                dy, dx = shifts[0, 0, y // 8 + below, x // 8 + right].tolist()
                u, v = x + 16 + dx, y + 16 + dy
                read = wide.resize((1, 1), Image.Resampling.BICUBIC, (u, v, u + 1, v + 1)).getpixel((0, 0))
                expected[y, x] += weight[y, x].item() * read
    np.testing.assert_allclose(warp(picture, shifts, mesh)[0, 0, 0], expected, atol=2e-5)


def test_whole_shifts_are_copies_between_pixels_too():
    mesh, picture = Mesh(21, 30, 8), frames(2, 2, 3, 21, 30)
    shifts = torch.randint(-6, 7, (2, 2, *mesh.shape, 2), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(warp(picture, shifts.float(), mesh), warp(picture, shifts, mesh), rtol=0, atol=1e-6)


def test_odd_tiles_are_refused():
    with pytest.raises(UsageError, match="even"):
        Mesh(10, 10, 7)
