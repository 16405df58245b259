"""Multiply-adds of the benchmark of kernel sizes, beside a loop that makes them."""

import numpy as np
import pytest
from tests.test_training_photographs import script

from klarsicht.numerics.pixel_kernels.spec import KernelSpec


def counted(spec, channels, fused):
    """Multiply-adds of one pixel and frame."""
    made, kernel = 0, np.zeros((spec.side, spec.side))
    for K in spec.sizes:
        offset = (spec.side - K) // 2
        for i in range(K):
            for j in range(K):
                if fused:
                    kernel[offset + i, offset + j] += 1.0 * 1.0  # a[i] b[j]
                made += 1 if fused else channels  # b[j] X[i, j]
            made += 0 if fused else channels  # a[i] times the sum of its row
    return made + channels * kernel.size if fused else made


@pytest.mark.parametrize("sizes", [(1, 3, 5, 7, 9), (1, 3, 7)])
def test_the_formula_counts_what_a_loop_makes(sizes):
    spec, count = KernelSpec(sizes), script("kernel_filtering").multiply_adds
    for channels in (1, 4):
        for fused in (True, False):
            assert count(spec, channels, fused=fused) == counted(spec, channels, fused)
