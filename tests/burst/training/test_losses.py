"""The loss against a literal numpy rewrite of the paper, pixel by pixel, and its laws."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from klarsicht.burst.training.losses import (
    Annealing,
    crop_border,
    detail_loss,
    frame_loss,
    gradient,
    image_loss,
    lost_contrast,
    psnr_loss,
    tone_map,
    total_loss,
)
from klarsicht.ground.errors import UsageError


def literal_curve(x, b=0.0031308, a=0.0557170, k0=12.71171, slope=0.439882):
    if x < b:
        return k0 * x
    return (1 + a) * x ** (1 / 2.4) - a if x <= 1 else 1 + slope * (x - 1)


def literal_loss(A, B, w):
    """l(A, B) of one image (C, H, W)."""
    a, b = ([[[literal_curve(x / w) for x in row[8:-8]] for row in plane[8:-8]] for plane in image] for image in (A, B))
    C, H, W = np.shape(a)
    squares = [(a[c][y][x] - b[c][y][x]) ** 2 for c in range(C) for y in range(H) for x in range(W)]
    edges = []
    for c in range(C):
        for y in range(H - 1):
            for x in range(W - 1):
                for dy, dx in ((0, 1), (1, 0)):
                    edge_a = 0.5 * (a[c][y + dy][x + dx] - a[c][y][x])
                    edge_b = 0.5 * (b[c][y + dy][x + dx] - b[c][y][x])
                    edges.append(abs(edge_a - edge_b))
    return np.mean(squares) + np.mean(edges)


@pytest.fixture(scope="module")
def batch():
    """Two bursts of three frames, light from -.1 to 1.5 so that all branches of G are met."""
    rng = np.random.default_rng(0)
    frames, truth = (rng.uniform(-0.1, 1.5, shape) for shape in ((2, 3, 2, 21, 23), (2, 2, 21, 23)))
    return frames, truth, np.array([0.3, 1.0])


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_image_loss_is_the_papers(batch):
    frames, truth, w = batch
    expected = np.mean([literal_loss(frames[b, 0], truth[b], w[b]) for b in range(2)])
    assert image_loss(*tensors(frames[:, 0], truth, w)).item() == pytest.approx(expected, rel=1e-5)


def test_psnr_loss_falls_by_the_same_for_each_decibel(batch):
    frames, truth, w = batch
    curve = np.vectorize(literal_curve)
    pictures = [
        (curve(image[:, 8:-8, 8:-8] / at), curve(target[:, 8:-8, 8:-8] / at))
        for image, target, at in zip(frames[:, 0], truth, w, strict=True)
    ]
    decibels = [peak_signal_noise_ratio(target, image, data_range=1.0) for image, target in pictures]
    expected = -np.log(10) / 10 * np.mean(decibels)
    assert psnr_loss(*tensors(frames[:, 0], truth, w)).item() == pytest.approx(expected, abs=1e-3)


def test_psnr_loss_pulls_a_clean_burst_as_hard_as_a_noisy_one():
    truth = torch.full((2, 1, 20, 20), 0.5, dtype=torch.float64)
    errors = torch.tensor([0.05, 0.5], dtype=torch.float64).reshape(2, 1, 1, 1)
    size = torch.ones_like(errors, requires_grad=True)  # of the error, relative to itself
    psnr_loss(truth + size * errors, truth, torch.ones(2)).backward()
    quiet, loud = size.grad.flatten().tolist()
    assert 0.9 < quiet / loud < 1.6  # but for the bend of the tone curve; of the mean of errors it is a fiftieth


def test_total_is_the_papers_and_skips_missing_frames(batch):
    frames, truth, w = batch
    valid = np.array([[True, True, False], [True, True, True]])
    each = sum(literal_loss(frames[b, i], truth[b], w[b]) for b in range(2) for i in range(3) if valid[b, i]) / 2
    mean = np.mean([literal_loss(frames[b].mean(0), truth[b], w[b]) for b in range(2)])
    ours = total_loss(*tensors(frames.mean(1), frames, truth, w, valid), weight=7.0)
    assert ours.item() == pytest.approx(mean + 7 * each, rel=1e-5)
    assert torch.equal(
        total_loss(*tensors(frames.mean(1), frames, truth, w, valid), weight=0.0),
        image_loss(*tensors(frames.mean(1), truth, w)),
    )


def test_exposure_cancels(batch):
    """A scene twice as bright at twice the exposure looks the same."""
    frames, truth, w = batch
    once = image_loss(*tensors(frames[:, 1], truth, w))
    assert image_loss(*tensors(2 * frames[:, 1], 2 * truth, 2 * w)).item() == pytest.approx(once.item(), rel=1e-12)


def test_signs_of_gradients_matter():
    """Edges of equal height in opposite directions are not alike: |dx| + |dy| would call them so."""
    ramp = torch.linspace(0, 1, 20).repeat(20, 1)[None, None]
    assert gradient(ramp)[0].mean().item() == pytest.approx(0.5 / 19, rel=1e-5)
    assert gradient(ramp)[1].abs().max() == 0
    assert image_loss(ramp.flip(-1) + 0.1, ramp + 0.1, torch.ones(1)) > 0.01


def test_border_and_missing_frames_have_no_gradient(batch):
    frames, truth, w = batch
    Y, target, exposure = tensors(frames, truth, w)
    Y.requires_grad_()
    valid = torch.tensor([[True, False, True], [True, True, True]])
    frame_loss(Y, target, exposure, valid).backward()
    assert (Y.grad[0, 1] == 0).all() and Y.grad[0, 0].any()
    assert crop_border(Y.grad).abs().sum() == pytest.approx(Y.grad.abs().sum().item())


def test_gradient_is_right(batch):
    frames, truth, w = batch
    Y = torch.from_numpy(frames[:1, 0].copy()).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: image_loss(y, *tensors(truth[:1], w[:1])), (Y,), atol=1e-6)


def test_annealing_is_the_published_one_at_its_length():
    schedule = Annealing(steps=500_000)
    assert schedule.weight(0) == 100
    assert schedule.weight(10_000) == pytest.approx(100 * 0.9998**10_000)


@pytest.mark.parametrize("steps", [100, 3000, 500_000])
def test_annealing_is_over_within_a_tenth(steps):
    schedule = Annealing(steps)
    assert schedule.weight(steps // 10) == 0 < schedule.weight(steps // 20)


def test_impossible_arguments_are_refused():
    with pytest.raises(UsageError, match="at least 18"):
        crop_border(torch.zeros(1, 1, 17, 40))
    with pytest.raises(UsageError, match="annealing"):
        Annealing(steps=0)


def test_lost_contrast_is_what_regression_on_the_truth_explains():
    """The explained sum of squares of each block of 8 x 8, by numpy's least squares."""
    rng = np.random.default_rng(3)
    truth, d = rng.random((2, 1, 2, 19, 26))
    explained = []
    for c in range(2):
        for y in (0, 8):
            for x in (0, 8, 16):
                h, r = (image[0, c, y : y + 8, x : x + 8].ravel() for image in (truth, d))
                h = h - h.mean()
                (slope,), *_ = np.linalg.lstsq(h[:, None], r, rcond=None)
                explained.append(np.mean((slope * h) ** 2))
    assert lost_contrast(*tensors(d, truth)).item() == pytest.approx(np.mean(explained))


def test_detail_loss_counts_faded_detail_more_than_noise():
    """Contrast faded by c costs ln (1 + 1/4) more than the same squared error at random, which costs what psnr says."""
    rng = np.random.default_rng(4)
    blocks = rng.random((1, 1, 8, 8))
    truth = torch.from_numpy(0.3 + 0.3 * np.pad(np.tile(blocks, (1, 1, 2, 2)), ((0, 0), (0, 0), (8, 8), (8, 8))))
    w = torch.ones(1, dtype=torch.float64)
    shown = crop_border(tone_map(truth, w))
    mean = torch.from_numpy(shown.numpy().reshape(2, 8, 2, 8).mean((1, 3)).repeat(8, 0).repeat(8, 1))
    faded = shown - 0.5 * (shown - mean)
    squared = (faded - shown).square().mean()
    loss = detail_loss_of_shown(faded, shown)
    assert loss == pytest.approx(np.log(1.25 * squared.item() + 1e-5))
    noise = torch.from_numpy(rng.standard_normal(shown.shape)) * squared.sqrt()
    assert detail_loss_of_shown(shown + noise, shown) == pytest.approx(
        np.log(noise.square().mean().item() + 1e-5), abs=0.03
    )


def detail_loss_of_shown(picture, truth):
    """The loss of pictures that are tone-mapped already: their light is found by bisection."""
    light = [np.pad(inverse_curve(x.numpy()), ((0, 0), (0, 0), (8, 8), (8, 8))) for x in (picture, truth)]
    return detail_loss(*tensors(*light), torch.ones(1, dtype=torch.float64)).item()


def inverse_curve(shown):
    low, high = np.full_like(shown, -1.0), np.full_like(shown, 3.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = tone_map(torch.from_numpy(middle), torch.ones(1)).numpy() < shown
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low
