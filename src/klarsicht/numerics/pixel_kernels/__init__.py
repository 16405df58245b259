"""Per-pixel kernels: gather, weigh, sum; forward and exactly backward. Start at `windows.door`."""
