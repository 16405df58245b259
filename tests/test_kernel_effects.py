"""Kernels whose sizes, energies and ranks are known, and sums written out."""

import numpy as np
import pytest
import torch
from tests.test_training_photographs import script
from torch.nn.functional import interpolate

from klarsicht.burst.network.heads import Kernels
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

effects = script("kernel_effects")
SIZE = (26, 30)
SPECS = [KernelSpec((1, 3, 5)), KernelSpec((1, 3, 5), averaged=False), KernelSpec((3, 7), upscale=1)]


def kernels(taps, spec, N):
    frames = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (1, N, 1, *SIZE)))
    return Kernels(taps[None], frames, spec, torch.ones(1, N))


def drawn(spec, N=2):
    shape = N * spec.taps, *(spec.coarse(side) for side in SIZE)
    return kernels(torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), spec, N)


def planted(spec, N=1, **runs):
    """Constant taps; runs: size -> (column, row), the others 0."""
    taps = torch.zeros(spec.taps, dtype=torch.float64)
    for name, (column, row) in runs.items():
        s = spec.sizes.index(int(name[1:]))
        for j, vector in ((s, column), (s + len(spec.sizes), row)):
            taps[spec.starts[j] : spec.starts[j] + spec.lengths[j]] = torch.tensor(vector, dtype=torch.float64)
    grid = [spec.coarse(side) for side in SIZE]
    return kernels(taps.repeat(N)[:, None, None].expand(-1, *grid).contiguous(), spec, N)


def written_out(K):
    """Every kernel of every size, multiplied out and padded: (S, N, H, W, K, K), the gain in it."""
    spec, N = K.spec, K.frames.shape[1]
    fine = K.taps if spec.upscale == 1 else interpolate(K.taps, scale_factor=2, mode="bilinear")
    runs = fine[0, :, : SIZE[0], : SIZE[1]].reshape(N, spec.taps, *SIZE).split(list(spec.lengths), 1)
    made = torch.zeros(len(spec.sizes), N, *SIZE, spec.side, spec.side, dtype=torch.float64)
    for s, side in enumerate(spec.sizes):
        r = (spec.side - side) // 2
        product = torch.einsum("nahw,nbhw->nhwab", runs[s], runs[s + len(spec.sizes)])
        made[s, ..., r : r + side, r : r + side] = product * spec.gain
    return made


@pytest.mark.parametrize("spec", SPECS)
def test_the_energy_of_a_size_is_its_product_with_the_whole(spec):
    K = drawn(spec)
    each = written_out(K)
    shares = (each * each.sum(0)).sum((1, 2, 3, 4, 5)) / each.sum(0).square().sum()
    assert effects.energy_shares(K) == pytest.approx(dict(zip(spec.sizes, shares.tolist(), strict=True)), rel=1e-9)
    assert sum(effects.energy_shares(K).values()) == pytest.approx(1)


def test_energies_of_sizes_that_do_not_meet():
    """1 x 1 of weight 3 at the centre; 3 x 3 of weight 4 in a corner: 9 and 16 parts of 25."""
    K = planted(KernelSpec((1, 3)), k1=([3.0], [1.0]), k3=([4.0, 0, 0], [1.0, 0, 0]))
    assert effects.energy_shares(K) == {1: pytest.approx(9 / 25), 3: pytest.approx(16 / 25)}


def test_a_size_may_work_against_the_others():
    K = planted(KernelSpec((1, 3)), k1=([-1.0], [1.0]), k3=([0, 3.0, 0], [0, 1.0, 0]))
    assert effects.energy_shares(K) == {1: pytest.approx(-2 / 4), 3: pytest.approx(6 / 4)}


def test_without_a_size_the_others_remain():
    """What the sizes give alone adds up (another way to filter), and what remains is the sum of the others."""
    spec = KernelSpec((1, 3, 5))
    K = drawn(spec)
    runs = K.taps.unflatten(1, (2, spec.taps)).split(list(spec.lengths), 2)
    alone = {
        k: apply_kernels(torch.cat([runs[s], runs[s + 3]], 2).flatten(1, 2), K.frames, KernelSpec((k,))).merged[0] / 3
        for s, k in enumerate(spec.sizes)
    }
    np.testing.assert_allclose(effects.filter_frames(effects.remove_size(K, 3)), alone[1] + alone[5], atol=1e-9)


def test_losing_an_idle_size_costs_nothing_and_losing_the_only_one_everything():
    K = planted(KernelSpec((1, 3), averaged=False), 2, k3=([0, 1.0, 0], [0, 1.0, 0]))
    found = effects.size_losses(K, effects.filter_frames(K) + 0.01, 1.0)
    assert found[1].plain == 0 and found[1].brightness_restored == pytest.approx(0, abs=1e-4)
    assert found[3].plain > 20


def test_brightness_restored_forgives_a_factor_alone():
    """Two sizes, each half a delta: without one the picture is half as bright, and otherwise the same."""
    K = planted(KernelSpec((1, 3), averaged=False), 2, k1=([0.5], [1.0]), k3=([0, 0.5, 0], [0, 1.0, 0]))
    found = effects.size_losses(K, effects.filter_frames(K) + 0.01, 1.0)
    assert found[1].plain > 10 and found[1].brightness_restored == pytest.approx(0, abs=1e-3)
    image = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(effects.match_brightness(image / 3, image), image, rtol=1e-5)


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
    assert float(effects.effective_rank(torch.tensor(np.asarray(kernel, float)))) == pytest.approx(rank)


@pytest.mark.parametrize("spec", SPECS)
def test_ranks_on_a_grid_are_those_of_the_kernels_there(spec):
    K = drawn(spec)
    every = written_out(K).sum(0)[
        :, effects.RANK_STEP // 2 :: effects.RANK_STEP, effects.RANK_STEP // 2 :: effects.RANK_STEP
    ]
    torch.testing.assert_close(effects.effective_ranks(K), effects.effective_rank(every), rtol=1e-6, atol=0)


def test_fusion_of_separable_sizes_has_at_most_their_number():
    assert float(effects.effective_ranks(drawn(KernelSpec((1, 3, 5)))).max()) <= 3


def test_frames_that_are_not_valid_do_not_count():
    """A network's kernels for one burst: of two frames, the second is not there."""
    spec = KernelSpec((1, 3))
    K = planted(spec, k1=([1.0], [1.0]), k3=([0, 1.0, 0], [0, 1.0, 0]))
    taps = torch.cat([K.taps, torch.randn_like(K.taps)], 1)
    both = torch.cat([K.frames, torch.zeros_like(K.frames)], 1)
    truth = effects.filter_frames(K) + 0.01
    found = effects.analyse_sizes(Kernels(taps, both, spec, torch.tensor([[1.0, 0.0]])), truth, 1.0)
    assert found.energy == {1: pytest.approx(0.5), 3: pytest.approx(0.5)}
    assert found.rank == pytest.approx(1)
    for side, loss in effects.size_losses(K, truth, 1.0).items():
        assert found.loss[side].plain == pytest.approx(loss.plain, abs=1e-4)
