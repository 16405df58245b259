"""Burst: many short noisy exposures become one clean photograph."""
