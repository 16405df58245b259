"""Laws and a literal rewrite of per-pixel kernels, in float64 (torch) and in float32 and bfloat16 (compiled)."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.marks import slow_but_first

from klarsicht.ground.errors import UsageError
from klarsicht.numerics.pixel_kernels import load, reference
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

MANY = KernelSpec()
FULL = KernelSpec((5,), separable=False)
FINE = KernelSpec((1, 3), upscale=1)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def case(
    spec: KernelSpec, size: tuple[int, ...] = (1, 2, 2, 11, 9), dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random taps and frames; size is (B, N, C, H, W)."""
    B, N, _, H, W = size
    taps = numbers(B, N * spec.taps, spec.coarse(H), spec.coarse(W), dtype=dtype)
    return taps, numbers(*size, seed=1, dtype=dtype)


def delta(spec: KernelSpec, size: tuple[int, ...], shift: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Taps whose every kernel is one at the shift from the centre (sizes that hold it), zero elsewhere."""
    B, N, _, H, W = size
    taps = torch.zeros(B, N, spec.taps, spec.coarse(H), spec.coarse(W), dtype=torch.float64)
    for s, K in enumerate(spec.sizes):
        y, x = shift[0] + K // 2, shift[1] + K // 2
        if 0 <= y < K and 0 <= x < K:
            taps[:, :, spec.starts[s] + y] = 1
            taps[:, :, spec.starts[s + len(spec.sizes)] + x] = 1
    return taps.flatten(1, 2)


def bilinear(row: np.ndarray, axis: int) -> np.ndarray:
    """Twice the samples: output n looks at (n + 1/2) / 2 - 1/2, edges repeated."""
    count = row.shape[axis]
    at = np.clip((np.arange(2 * count) + 0.5) / 2 - 0.5, 0, count - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, count - 1)
    part = (at - low).reshape([-1 if k == axis else 1 for k in range(row.ndim)])
    return np.take(row, low, axis) * (1 - part) + np.take(row, high, axis) * part


def kernels(numbers: Iterator[float], spec: KernelSpec) -> list[np.ndarray]:
    """One frame's channels at one pixel: columns of every size, rows of every size; or entries of every size."""
    if not spec.separable:
        return [np.array(list(islice(numbers, K * K))).reshape(K, K) for K in spec.sizes]
    a, b = ([list(islice(numbers, K)) for K in spec.sizes] for _ in range(2))
    return [np.outer(*pair) for pair in zip(a, b, strict=True)]


def literally(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec) -> np.ndarray:
    """The model pixel by pixel, with nothing shared: k = mean of padded a b^T, Y_i[p] = sum k[d] X[p + d]."""
    X = frames.double().numpy()
    B, N, _, H, W = X.shape
    fine = taps.double().numpy()
    if spec.upscale == 2:
        fine = bilinear(bilinear(fine, 2), 3)
    fine = fine[:, :, :H, :W].reshape(B, N, -1, H, W)
    big = max(spec.sizes)
    r = big // 2
    padded = np.pad(X, ((0, 0), (0, 0), (0, 0), (r, r), (r, r)))
    Y = np.zeros_like(X)
    for b, i, y, x in np.ndindex(B, N, H, W):
        k = sum(np.pad(kernel, (big - len(kernel)) // 2) for kernel in kernels(iter(fine[b, i, :, y, x]), spec))
        Y[b, i, :, y, x] = (padded[b, i, :, y : y + big, x : x + big] * k / len(spec.sizes)).sum((-2, -1))
    return Y


def scale(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """What rounding errors are relative to: sum |a| |b| |X|."""
    return reference.apply(taps.double().abs(), frames.double().abs(), spec)


@pytest.mark.parametrize("spec", [MANY, FULL, FINE, KernelSpec((3, 5), separable=False)])
def test_torch_equals_the_literal_model(spec):
    taps, X = case(spec)
    np.testing.assert_allclose(apply_kernels(taps, X, spec).per_frame, literally(taps, X, spec), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [MANY, FULL, FINE])
def test_compiled_equals_the_literal_model(spec):
    taps, X = case(spec, dtype=torch.float32)
    assert load.supports(taps, X)
    gap = apply_kernels(taps, X, spec).per_frame - torch.from_numpy(literally(taps, X, spec))
    assert (gap.abs() / scale(taps, X, spec)).max() < 1e-6


def test_fused_is_the_mean_of_separate_filterings():
    taps, X = case(MANY)
    parts = taps.unflatten(1, (2, MANY.taps))
    separate, half = [], len(MANY.sizes)
    for s, K in enumerate(MANY.sizes):
        runs = [parts[:, :, MANY.starts[j] : MANY.starts[j] + K] for j in (s, s + half)]
        separate.append(apply_kernels(torch.cat(runs, 2).flatten(1, 2), X, KernelSpec((K,))).per_frame)
    torch.testing.assert_close(apply_kernels(taps, X, MANY).per_frame, sum(separate) / half, rtol=0, atol=1e-12)
    summed = replace(MANY, averaged=False)
    torch.testing.assert_close(apply_kernels(taps, X, summed).per_frame, sum(separate), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", slow_but_first([torch.float64, torch.float32]))
def test_delta_returns_the_frame(dtype):
    size = (1, 2, 2, 11, 9)
    X = numbers(*size, dtype=dtype)
    Y = apply_kernels(delta(MANY, size).to(dtype), X, MANY).per_frame
    torch.testing.assert_close(Y, X, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)


@given(st.integers(-4, 4), st.integers(-4, 4))
def test_shifted_delta_shifts(dy, dx):
    size, spec = (1, 1, 1, 12, 13), KernelSpec((9,))
    X = numbers(*size)
    Y = apply_kernels(delta(spec, size, (dy, dx)), X, spec).per_frame
    beyond = torch.nn.functional.pad(X, (4, 4, 4, 4))
    torch.testing.assert_close(Y, beyond[..., 4 + dy : 16 + dy, 4 + dx : 17 + dx], rtol=0, atol=1e-12)


def test_size_one_is_a_gain():
    spec = KernelSpec((1,), upscale=1)
    taps, X = case(spec)
    gain = (taps[:, 0::2] * taps[:, 1::2])[:, :, None]
    torch.testing.assert_close(apply_kernels(taps, X, spec).per_frame, gain * X, rtol=0, atol=1e-12)


def test_taps_are_multiplied_out_after_upsampling():
    """Kernels multiplied out first and upsampled then are another operator; where taps are constant the two agree."""
    spec, full = KernelSpec((3,)), KernelSpec((3,), separable=False)
    taps, X = case(spec, (1, 1, 1, 8, 8))
    flat = taps[:, :, :1, :1].expand_as(taps)
    for t, differs in ((taps, True), (flat, False)):
        early = torch.einsum("byhw,bxhw->byxhw", t[:, :3], t[:, 3:]).flatten(1, 2)
        gap = (apply_kernels(t, X, spec).per_frame - apply_kernels(early, X, full).per_frame).abs().max()
        assert (gap > 0.1) == differs


def test_not_two_passes():
    """A row pass, then a column pass mixes the rows of neighbours: the same only where taps do not vary."""
    spec = KernelSpec((3,), upscale=1)
    taps, X = case(spec, (1, 1, 1, 8, 8))
    flat = taps[:, :, :1, :1].expand_as(taps)
    one = torch.zeros_like(taps)
    one[:, 1] = 1
    for t, differs in ((taps, True), (flat, False)):
        across = torch.cat([one[:, :3], t[:, 3:]], 1)
        down = torch.cat([t[:, :3], one[:, :3]], 1)
        passes = apply_kernels(down, apply_kernels(across, X, spec).per_frame, spec).per_frame
        assert ((passes - apply_kernels(t, X, spec).per_frame).abs().max() > 0.1) == differs


@pytest.mark.parametrize("spec", [KernelSpec((1, 3)), KernelSpec((3,), separable=False), FINE])
def test_gradients_by_finite_differences(spec):
    taps, X = (x.requires_grad_() for x in case(spec, (1, 2, 1, 5, 3)))
    validity = torch.tensor([[1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t, x, v: tuple(apply_kernels(t, x, spec, v)), (taps, X, validity))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "size"), [(MANY, (2, 2, 2, 21, 161)), (FULL, (1, 3, 2, 40, 35)), (FINE, (1, 4, 2, 9, 70))]
)
def test_compiled_equals_torch(spec, size):
    """Both outputs and all gradients, with a loss on Y and on every Y_i; odd sizes, two strips, leftover taps."""
    results = []
    taps, X = case(spec, size)
    validity = torch.arange(1.0, 1 + size[1]).expand(size[:2])
    for dtype in (torch.float32, torch.float64):
        t, x = (v.to(dtype).requires_grad_() for v in (taps, X))
        each, merged = apply_kernels(t, x, spec, validity)
        (each.sin().sum() + merged.square().sum()).backward()
        results.append((each, merged, t.grad, x.grad))
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).abs().max() < 3e-6 * exact.abs().max()


@pytest.mark.slow
def test_compiled_reads_and_writes_bfloat16():
    """Taps and frames are rounded once on the way in, the gradient once on the way out: half a unit in 2^-8."""
    size = (1, 2, 1, 33, 140)
    t, x = (v.requires_grad_() for v in case(MANY, size, torch.bfloat16))
    t64, x64 = (v.detach().double().requires_grad_() for v in (t, x))
    G = numbers(*size, seed=2)
    each, exact = apply_kernels(t, x, MANY).per_frame, apply_kernels(t64, x64, MANY).per_frame
    assert each.dtype == torch.float32
    assert ((each - exact).abs() / scale(t.detach(), x.detach(), MANY)).max() < 1e-6
    each.backward(G.float())
    exact.backward(G)
    for ours, right in ((t.grad, t64.grad), (x.grad, x64.grad)):
        assert ours.dtype == torch.bfloat16
        assert ((ours - right).abs() <= right.abs() * 2**-8 + 1e-6 * right.abs().max()).all()


@pytest.mark.parametrize("spec", slow_but_first([KernelSpec((1, 3)), MANY]))
def test_adjointness_compiled(spec):
    """<A(t) x, y> = <x, A(t)* y>, and the gradient in the columns of taps is homogeneous of degree one."""
    taps, X = case(spec, (1, 2, 2, 23, 37), torch.float32)
    y = numbers(1, 2, 2, 23, 37, seed=5, dtype=torch.float32)
    Y = load.apply(taps, X, spec)
    d_taps, d_frames = load.gradients(taps, X, spec, y, (True, True))
    inner = (Y.double() * y).sum()
    torch.testing.assert_close((d_frames.double() * X).sum(), inner, rtol=1e-5, atol=1e-4)
    columns = (d_taps.double() * taps).unflatten(1, (2, spec.taps))[:, :, : sum(spec.sizes)].sum()
    torch.testing.assert_close(columns, inner, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_layouts_and_threads_do_not_matter():
    taps, X = case(FULL, (2, 2, 2, 150, 20), torch.float32)
    y = numbers(*X.shape, seed=3, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads, layout in ((1, torch.contiguous_format), (2, torch.channels_last)):
            torch.set_num_threads(threads)
            t = taps.contiguous(memory_format=layout)
            results.append((load.apply(t, X, FULL), *load.gradients(t, X, FULL, y, (True, True))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.slow
def test_more_planes_than_registers():
    """Six planes are filtered in groups: the same as plane by plane."""
    taps, X = case(FULL, (1, 1, 6, 16, 18), torch.float32)
    alone = torch.cat([load.apply(taps, X[:, :, c : c + 2], FULL) for c in (0, 2, 4)], 2)
    torch.testing.assert_close(load.apply(taps, X, FULL), alone, rtol=0, atol=1e-5)
    d_taps, _ = load.gradients(taps, X, FULL, X, (True, False))
    exact, _ = reference.gradients(taps.double(), X.double(), FULL, X.double(), (True, False))
    assert (d_taps - exact).abs().max() < 3e-6 * exact.abs().max()


def test_bands_do_not_matter(monkeypatch):
    taps, X = case(MANY, (1, 2, 1, 14, 9))
    whole = reference.apply(taps, X, MANY), *reference.gradients(taps, X, MANY, X, (True, True))
    monkeypatch.setattr(reference, "BUDGET", 3 * taps.shape[1] * 9)
    banded = reference.apply(taps, X, MANY), *reference.gradients(taps, X, MANY, X, (True, True))
    for a, b in zip(whole, banded, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_cuda_equals_cpu():
    taps, X = case(MANY, dtype=torch.float32)
    gap = apply_kernels(taps.cuda(), X.cuda(), MANY).per_frame.cpu() - reference.apply(taps.double(), X.double(), MANY)
    assert (gap.abs() / scale(taps, X, MANY)).max() < 1e-6


def test_mean_over_valid_frames():
    taps, X = case(MANY, (2, 3, 1, 6, 6))
    each, merged = apply_kernels(taps, X, MANY)
    torch.testing.assert_close(merged, each.mean(1))
    valid = torch.tensor([[True, False, True], [True, True, False]])
    picked = torch.stack([each[0, [0, 2]].mean(0), each[1, [0, 1]].mean(0)])
    torch.testing.assert_close(apply_kernels(taps, X, MANY, valid).merged, picked)
    plane = torch.zeros(2, 3, 1, 6, 6)
    plane[:, 1, :, :3] = 1
    by_pixel = apply_kernels(taps, X, MANY, plane).merged
    torch.testing.assert_close(by_pixel[:, :, :3], each[:, 1, :, :3])
    assert (by_pixel[:, :, 3:] == 0).all()


@pytest.mark.parametrize("sizes", [(), (2,), (3, 1), (3, 3), (33,), (-1,)])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(UsageError, match="odd"):
        KernelSpec(sizes)


def test_shapes_that_do_not_fit_are_refused():
    taps, X = case(MANY)
    with pytest.raises(UsageError, match=r"need \(1, 100, 6, 5\)"):
        apply_kernels(taps[..., :-1], X, MANY)
    with pytest.raises(UsageError, match="shapes of taps and frames"):
        apply_kernels(taps, X[0], MANY)
    with pytest.raises(UsageError, match="resolution"):
        KernelSpec(upscale=4)
