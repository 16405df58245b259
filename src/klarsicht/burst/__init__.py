"""Burst denoising: many short noisy exposures become one clean photograph.

Axes of arrays, in every docstring of this wing (a small letter is a count that the docstring names):

    B   bursts of a batch
    N   frames of a burst
    C   channels: 1 grey, 3 RGB, 4 planes of a mosaic
    H   rows of pixels, downwards
    W   columns of pixels, to the right
    Y   rows of tiles
    X   columns of tiles
    K   side of a square kernel, odd
    T   taps of all kernels of a pixel, or samples along a tile's side
    G   groups of channels that share kernels
    S   kernel sizes, or pixels of one block
    D   shifts along one axis that are tried, or blocks of one frame
    F   frequencies
    R   rows of tiles of the HDR+ merge
    Q   columns of tiles of the HDR+ merge
    M   points of a curve of noise
    L   levels of light
"""
