"""Per-pixel convolution kernels applied to images, with exact gradients. Entry point: `apply.apply_kernels`."""
