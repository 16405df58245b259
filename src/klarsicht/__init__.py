"""klarsicht: see which pixels a vision model used, find the ones it should not have used, clean them up."""

__version__ = "0.1.0"
