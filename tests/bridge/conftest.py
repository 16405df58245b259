"""Fixtures of the burst's tests."""

from tests.burst.conftest import plain_kernels

__all__ = ["plain_kernels"]
