"""Chinese characters as straight strokes (x0, y0, x1, y1) on the unit square, y down. No font is needed."""

from __future__ import annotations

Strokes = tuple[tuple[float, float, float, float], ...]

CHARACTERS: dict[str, Strokes] = {
    "木": ((0, 0.3, 1, 0.3), (0.5, 0, 0.5, 1), (0.5, 0.3, 0.08, 0.85), (0.5, 0.3, 0.92, 0.85)),
    "王": ((0.05, 0.05, 0.95, 0.05), (0.12, 0.5, 0.88, 0.5), (0, 0.97, 1, 0.97), (0.5, 0.05, 0.5, 0.97)),
    "田": (
        (0.05, 0.05, 0.95, 0.05), (0.05, 0.95, 0.95, 0.95), (0.05, 0.05, 0.05, 0.95),
        (0.95, 0.05, 0.95, 0.95), (0.5, 0.05, 0.5, 0.95), (0.05, 0.5, 0.95, 0.5),
    ),
    "目": (
        (0.15, 0, 0.85, 0), (0.15, 1, 0.85, 1), (0.15, 0, 0.15, 1),
        (0.85, 0, 0.85, 1), (0.15, 0.33, 0.85, 0.33), (0.15, 0.66, 0.85, 0.66),
    ),
    "米": (
        (0, 0.5, 1, 0.5), (0.5, 0, 0.5, 1), (0.5, 0.5, 0.1, 0.95),
        (0.5, 0.5, 0.9, 0.95), (0.2, 0.1, 0.4, 0.4), (0.8, 0.1, 0.6, 0.4),
    ),
    "中": (
        (0.08, 0.2, 0.92, 0.2), (0.08, 0.7, 0.92, 0.7), (0.08, 0.2, 0.08, 0.7),
        (0.92, 0.2, 0.92, 0.7), (0.5, 0, 0.5, 1),
    ),
    "工": ((0.1, 0.05, 0.9, 0.05), (0.5, 0.05, 0.5, 0.95), (0, 0.95, 1, 0.95)),
    "人": ((0.5, 0, 0.05, 1), (0.45, 0.3, 0.95, 1)),
    "手": ((0.2, 0.1, 0.8, 0), (0.05, 0.35, 0.95, 0.35), (0, 0.65, 1, 0.65), (0.5, 0.05, 0.5, 1)),
    "走": (
        (0.15, 0.2, 0.85, 0.2), (0.5, 0, 0.5, 0.45), (0, 0.45, 1, 0.45), (0.5, 0.45, 0.5, 0.8),
        (0.5, 0.65, 0.85, 0.65), (0.3, 0.55, 0.05, 1), (0.2, 0.8, 1, 1),
    ),
    "不": ((0, 0.05, 1, 0.05), (0.5, 0.05, 0.05, 0.7), (0.5, 0.3, 0.5, 1), (0.55, 0.4, 0.95, 0.7)),
    "口": ((0.1, 0.1, 0.9, 0.1), (0.1, 0.9, 0.9, 0.9), (0.1, 0.1, 0.1, 0.9), (0.9, 0.1, 0.9, 0.9)),
}  # fmt: skip


def _scale_strokes(strokes: Strokes, x0: float, y0: float, x1: float, y1: float) -> Strokes:
    """Scale strokes of the unit square into a box."""
    w, h = x1 - x0, y1 - y0
    return tuple((x0 + w * a, y0 + h * b, x0 + w * c, y0 + h * d) for a, b, c, d in strokes)


def compose_left_right(left: str, right: str) -> Strokes:
    """Compose a character from two components side by side."""
    return _scale_strokes(CHARACTERS[left], 0, 0, 0.42, 1) + _scale_strokes(CHARACTERS[right], 0.52, 0, 1, 1)


def compose_above_below(top: str, bottom: str) -> Strokes:
    """Compose a character from two components one above the other."""
    return _scale_strokes(CHARACTERS[top], 0.1, 0, 0.9, 0.45) + _scale_strokes(CHARACTERS[bottom], 0, 0.53, 1, 1)


def compose_enclosed(inner: str) -> Strokes:
    """Compose a character from a component and a square around it."""
    frame = ((0, 0, 1, 0), (1, 0, 1, 1), (0, 0, 0, 1), (0, 1, 1, 1))
    return frame + _scale_strokes(CHARACTERS[inner], 0.2, 0.17, 0.8, 0.84)


GLYPHS: tuple[Strokes, ...] = (
    compose_left_right("手", "走"), compose_left_right("木", "田"), compose_left_right("人", "中"),
    compose_left_right("米", "目"), compose_left_right("手", "目"),
    compose_above_below("田", "木"), compose_above_below("王", "米"), compose_above_below("不", "口"),
    compose_enclosed("王"), compose_enclosed("木"),
)  # fmt: skip
