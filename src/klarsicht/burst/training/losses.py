"""Training losses of a kernel-predicting network: that of KPN (arXiv 1712.02327, section 4.2), or its PSNR.

Images are linear; losses compare them as displayed, through the tone curve G, at the exposure w of the scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.tone import tone_curve

BORDER = 8  # pixels cropped on each side, where a kernel or an aligned frame may lack input
PUBLISHED_STEPS = 500_000
MIN_WEIGHT = 1e-2  # a term with less weight is omitted
ERROR_FLOOR = 1e-5  # mean squared error (50 dB) below which a burst has less and less weight in psnr_loss

DETAIL_BLOCK = 8  # pixels: side of a block whose contrast is compared
DETAIL_WEIGHT = 0.25  # of lost contrast, beside the whole squared error that holds it already

ImageLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def crop_border(image: Tensor) -> Tensor:
    """Crop the border of an image (..., H, W). Raises UsageError where nothing would remain."""
    height, width = image.shape[-2:]
    if min(height, width) < 2 * BORDER + 2:
        rule = f"both sides must be at least {2 * BORDER + 2}, as {BORDER} pixels are cut on each side"
        raise UsageError("image for the loss", got=f"{height} x {width}", rule=rule)
    return image[..., BORDER:-BORDER, BORDER:-BORDER]


def tone_map(image: Tensor, w: Tensor) -> Tensor:
    """Compute G(x / w) of an image (B, ..., C, H, W) at exposures w (B,)."""
    return tone_curve(image / w.reshape(-1, *[1] * (image.ndim - 1)))


def gradient(image: Tensor) -> Tensor:
    """Compute half the signed forward differences along x and y, (2, ..., H - 1, W - 1)."""
    here = image[..., :-1, :-1]
    return torch.stack((image[..., :-1, 1:] - here, image[..., 1:, :-1] - here)) / 2


def basic_loss(a: Tensor, b: Tensor) -> Tensor:
    """Compute mean (a - b)^2 + mean |grad a - grad b| over the last three axes."""
    d = a - b
    return d.square().mean((-3, -2, -1)) + gradient(d).abs().mean((0, -3, -2, -1))


def image_loss(Y: Tensor, truth: Tensor, w: Tensor) -> Tensor:
    """Compute l(Y, Y*), the mean over a batch (B, C, H, W)."""
    return basic_loss(tone_map(crop_border(Y), w), tone_map(crop_border(truth), w)).mean()


def psnr_loss(Y: Tensor, truth: Tensor, w: Tensor) -> Tensor:
    """Compute ln (mean (Y - Y*)^2 + ERROR_FLOOR), the mean over a batch (B, C, H, W): the negative PSNR, but for a
    factor. A mean of errors is dominated by the noisiest bursts; here a decibel counts the same in each."""
    error = (tone_map(crop_border(Y), w) - tone_map(crop_border(truth), w)).square().mean((-3, -2, -1))
    return (error + ERROR_FLOOR).log().mean()


def lost_contrast(d: Tensor, truth: Tensor) -> Tensor:
    """Compute the part of the squared error d^2 that is lost or added contrast, (...), of images (..., C, H, W): d
    projected on the truth's deviation h from its mean, sum(d h)^2 / sum(h^2), in every block."""
    d, truth = (split_blocks(x) for x in (d, truth))
    h = truth - truth.mean(-1, keepdim=True)
    lost = (d * h).sum(-1).square() / (h.square().sum(-1) + torch.finfo(h.dtype).tiny)
    return lost.mean((-2, -1)) / DETAIL_BLOCK**2


def split_blocks(image: Tensor) -> Tensor:
    """Split images (..., C, H, W) into blocks, (..., C, blocks, pixels of a block); what fills no block is left out."""
    side = DETAIL_BLOCK
    height, width = (length // side for length in image.shape[-2:])
    cut = image[..., : height * side, : width * side]
    blocks = cut.reshape(*cut.shape[:-2], height, side, width, side).transpose(-3, -2)
    return blocks.reshape(*cut.shape[:-2], height * width, side * side)


def detail_loss(Y: Tensor, truth: Tensor, w: Tensor) -> Tensor:
    """Compute ln (mean (Y - Y*)^2 + DETAIL_WEIGHT lost_contrast + ERROR_FLOOR), the mean over a batch (B, C, H, W):
    `psnr_loss`, to which contrast that smoothing takes counts more than noise."""
    shown = tone_map(crop_border(truth), w)
    d = tone_map(crop_border(Y), w) - shown
    error = d.square().mean((-3, -2, -1)) + DETAIL_WEIGHT * lost_contrast(d, shown)
    return (error + ERROR_FLOOR).log().mean()


LOSSES: dict[str, ImageLoss] = {"kpn": image_loss, "psnr": psnr_loss, "detail": detail_loss}


def frame_loss(frames: Tensor, truth: Tensor, w: Tensor, valid: Tensor) -> Tensor:
    """Compute sum_i l(Y_i, Y*), the mean over a batch (B, N, C, H, W); valid (B, N) says which frames count."""
    each = basic_loss(tone_map(crop_border(frames), w), tone_map(crop_border(truth), w).unsqueeze(1))
    return torch.where(valid, each, 0.0).sum(1).mean()


@dataclass(frozen=True)
class Annealing:
    """Weight beta alpha^t of the per-frame loss: at first every frame must be denoised by itself, so that the network
    learns to use all. alpha is of a run of 500,000 steps and scaled to this one: the weight falls from 100 to .01, and
    from there to 0, within the first tenth of any run."""

    steps: int
    beta: float = 100.0
    alpha: float = 0.9998

    def __post_init__(self) -> None:
        if self.steps < 1 or self.beta < 0 or not 0 < self.alpha < 1:
            rule = "steps must be positive, beta not negative, alpha between 0 and 1"
            raise UsageError("annealing", got=self, rule=rule)

    def weight(self, t: int) -> float:
        """Compute the weight of the per-frame term at step t, counted from 0."""
        weight = self.beta * self.alpha ** (t * PUBLISHED_STEPS / self.steps)
        return weight if weight >= MIN_WEIGHT else 0.0


def total_loss(
    Y: Tensor,
    frames: Tensor,
    truth: Tensor,
    w: Tensor,
    valid: Tensor,
    weight: float,
    of_image: ImageLoss = image_loss,
) -> Tensor:
    """Compute L(t) = l(Y, Y*) + beta alpha^t sum_i l(Y_i, Y*), with weight = beta alpha^t; of_image: another l(Y, Y*).
    Y: (B, C, H, W), the mean of the filtered frames Y_i (B, N, C, H, W). truth: (B, C, H, W). w: (B,) exposures. valid:
    (B, N)."""
    loss = of_image(Y, truth, w)
    return loss + weight * frame_loss(frames, truth, w, valid) if weight else loss
