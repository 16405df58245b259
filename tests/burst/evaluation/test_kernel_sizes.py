"""Kernels whose sizes, energies, ranks and costs are known, and sums written out."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from klarsicht.burst.evaluation import kernel_sizes
from klarsicht.burst.evaluation.kernel_sizes import (
    analyse_sizes,
    count_multiply_adds,
    effective_rank,
    effective_ranks,
    energy_maps,
    energy_shares,
    filter_frames,
    match_brightness,
    measure_seconds,
    remove_size,
    size_losses,
)
from klarsicht.burst.network.heads import Kernels
from klarsicht.burst.network.kernel_field import KernelField
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

SIZE = (26, 30)
SPECS = [
    KernelSpec((1, 3, 5)),
    KernelSpec((1, 3, 5), averaged=False),
    KernelSpec((3, 7), upscale=1),
    KernelSpec((3, 5), separable=False, upscale=1),
    KernelSpec((5,), separable=False),
]


def field(spec, N=2, size=SIZE):
    shape = N * spec.taps, *(spec.coarse(side) for side in size)
    return KernelField(torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), spec, size)


def planted(spec, N=1, **runs):
    """Constant taps; runs: size -> (column, row), the others 0."""
    taps = torch.zeros(spec.taps, dtype=torch.float64)
    for name, (column, row) in runs.items():
        s = spec.sizes.index(int(name[1:]))
        for j, vector in ((s, column), (s + len(spec.sizes), row)):
            taps[spec.starts[j] : spec.starts[j] + spec.lengths[j]] = torch.tensor(vector, dtype=torch.float64)
    grid = [spec.coarse(side) for side in SIZE]
    return KernelField(taps.repeat(N)[:, None, None].expand(-1, *grid).contiguous(), spec, SIZE)


def frames(N=2):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.uniform(0, 1, (N, 1, *SIZE)))


@pytest.mark.parametrize("spec", SPECS)
def test_energies_add_up_to_the_fused_kernels(spec):
    K = field(spec)
    maps = energy_maps(K)
    assert maps.shape == (len(spec.sizes), 2, *SIZE)
    for y, x in ((0, 0), (5, 8), (25, 29)):
        torch.testing.assert_close(
            maps[:, :, y, x].sum(0), K.kernel_at(y, x).square().sum((1, 2)), rtol=1e-4, atol=1e-5
        )
    assert sum(energy_shares(K).values()) == pytest.approx(1)


@pytest.mark.parametrize("spec", SPECS)
def test_the_energy_of_a_size_is_its_product_with_the_whole(spec):
    """Kernel by kernel: the size alone, padded, times the fused kernel."""
    K = field(spec)
    y, x = 7, 11
    whole = K.kernel_at(y, x)
    for s, side in enumerate(spec.sizes):
        own = K.select_size(side).kernel_at(y, x) * (spec.gain if spec.averaged else 1.0)
        r = (spec.side - side) // 2
        product = (own * whole[:, r : r + side, r : r + side]).sum((1, 2))
        torch.testing.assert_close(energy_maps(K)[s, :, y, x], product, rtol=1e-4, atol=1e-5)


def test_energies_of_sizes_that_do_not_meet():
    """1 x 1 of weight 3 at the centre; 3 x 3 of weight 4 in a corner: 9 and 16 parts of 25."""
    K = planted(KernelSpec((1, 3)), k1=([3.0], [1.0]), k3=([4.0, 0, 0], [1.0, 0, 0]))
    assert energy_shares(K) == {1: pytest.approx(9 / 25), 3: pytest.approx(16 / 25)}


def test_a_size_may_work_against_the_others():
    K = planted(KernelSpec((1, 3)), k1=([-1.0], [1.0]), k3=([0, 3.0, 0], [0, 1.0, 0]))
    assert energy_shares(K) == {1: pytest.approx(-2 / 4), 3: pytest.approx(6 / 4)}


def test_without_a_size_the_others_remain():
    """What the sizes give alone adds up (another way to filter), and what remains is the sum of the others."""
    spec = KernelSpec((1, 3, 5))
    K, X = field(spec), frames()
    alone = {k: filter_frames(K.select_size(k), X) / 3 for k in spec.sizes}
    np.testing.assert_allclose(filter_frames(remove_size(K, 3), X), alone[1] + alone[5], atol=1e-4)
    with pytest.raises(UsageError, match="7"):
        remove_size(K, 7)


def test_losing_an_idle_size_costs_nothing_and_losing_the_only_one_everything():
    spec = KernelSpec((1, 3), averaged=False)
    K, X = planted(spec, 2, k3=([0, 1.0, 0], [0, 1.0, 0])), frames()
    truth = filter_frames(K, X) + 0.01
    found = size_losses(K, X, truth, 1.0)
    assert found[1].plain == 0 and found[1].brightness_restored == pytest.approx(0, abs=1e-4)
    assert found[3].plain > 20


def test_brightness_restored_forgives_a_factor_alone():
    """Two sizes, each half a delta: without one the picture is half as bright, and otherwise the same."""
    spec = KernelSpec((1, 3), averaged=False)
    K, X = planted(spec, 2, k1=([0.5], [1.0]), k3=([0, 0.5, 0], [0, 1.0, 0])), frames()
    truth = filter_frames(K, X) + 0.01
    found = size_losses(K, X, truth, 1.0)
    assert found[1].plain > 10 and found[1].brightness_restored == pytest.approx(0, abs=1e-3)
    image = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(match_brightness(image / 3, image), image, rtol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "rank"),
    [
        (np.pad([[1.0]], 3), 1),  # a delta
        (np.outer([1, 2, 3], [4, 5, 6]), 1),
        (np.eye(5), 5),
        (np.diag([3.0, 1.0]), np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))),
    ],
)
def test_effective_rank_of_known_kernels(kernel, rank):
    assert float(effective_rank(torch.tensor(np.asarray(kernel, float)))) == pytest.approx(rank)


@pytest.mark.parametrize("spec", SPECS)
def test_ranks_on_a_grid_are_those_of_the_kernels_there(spec):
    K = field(spec)
    found = effective_ranks(K, every=8)
    assert found.shape == (2, 3, 4)
    for i, j in np.ndindex(3, 4):
        torch.testing.assert_close(found[:, i, j], effective_rank(K.kernel_at(4 + 8 * i, 4 + 8 * j)), rtol=1e-4, atol=0)


def test_fusion_of_separable_sizes_has_at_most_their_number():
    assert float(effective_ranks(field(KernelSpec((1, 3, 5)))).max()) <= 3


def counted(spec, channels, fuse):
    """Multiply-adds of one pixel and frame, by a loop that makes them."""
    made = 0
    kernel = np.zeros((spec.side, spec.side))
    for K in spec.sizes:
        offset = (spec.side - K) // 2
        for i in range(K):
            for j in range(K):
                if fuse:
                    kernel[offset + i, offset + j] += 1.0 * 1.0  # a[i] b[j]
                    made += spec.separable
                else:
                    made += channels  # b[j] X[i, j], or k[i, j] X[i, j]
            if not fuse and spec.separable:
                made += channels  # a[i] times the sum of its row
    return made + channels * kernel.size if fuse else made


@pytest.mark.parametrize(
    "spec", [KernelSpec((1, 3, 5, 7, 9)), KernelSpec((1, 3, 7)), KernelSpec((3, 5), separable=False)]
)
def test_the_cost_table_counts_what_a_loop_makes(spec):
    for row in count_multiply_adds(spec, (1, 4)):
        assert row.fused == counted(spec, row.channels, fuse=True)
        assert row.separate == counted(spec, row.channels, fuse=False)


def test_fusion_of_sizes_1_to_9_pays_from_two_channels_on():
    rows = count_multiply_adds(KernelSpec(), (1, 2, 4))
    assert [(row.fused, row.separate) for row in rows] == [(246, 190), (327, 380), (489, 760)]


def test_seconds_are_a_megapixel_s(monkeypatch):
    """On a clock that ticks once a look, every run takes one second."""
    monkeypatch.setattr(kernel_sizes, "time", SimpleNamespace(process_time=count(step=1.0).__next__))
    monkeypatch.setattr(kernel_sizes, "filter_frames", lambda field, frames: None)
    (row,) = measure_seconds(KernelSpec((1, 3)), (2,), side=64, frames=2)
    assert row.fused == row.separate == pytest.approx(1e6 / (2 * 64 * 64))


def test_frames_that_are_not_valid_do_not_count():
    """A network's kernels for one burst: of two frames, the second is not there."""
    spec = KernelSpec((1, 3))
    K, X = planted(spec, k1=([1.0], [1.0]), k3=([0, 1.0, 0], [0, 1.0, 0])), frames(1)
    taps = torch.cat([K.taps, torch.randn_like(K.taps)])[None]
    both = torch.cat([X, torch.zeros_like(X)])[None]
    truth = filter_frames(K, X) + 0.01
    found = analyse_sizes(Kernels(taps, both, spec, torch.tensor([[1.0, 0.0]])), truth, 1.0)
    assert found.energy == {1: pytest.approx(0.5), 3: pytest.approx(0.5)}
    assert found.rank == pytest.approx(1)
    for side, loss in size_losses(K, X, truth, 1.0).items():
        assert found.loss[side].plain == pytest.approx(loss.plain, abs=1e-4)
