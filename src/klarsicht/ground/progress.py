"""Progress of long steps on standard error: a bar with rate and remaining time on a terminal, else a few log lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

MIN_SECONDS = 2.0  # seconds: steps that end sooner write no line to a log
# The next log line of a step follows after ten times the time so far, but after ten minutes at the latest.
INTERVAL_GROWTH, MAX_INTERVAL = 10, 600
_current_display: ContextVar[Progress | None] = ContextVar("_current_display", default=None)


class Advance(Protocol):
    """Callback that reports `amount` further items as done."""

    def __call__(self, amount: int = 1) -> None: ...


def note(message: str) -> None:
    """Print a line on standard error."""
    print(f"klarsicht: {message}", file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items while showing progress: `for x in track(items, len(items), "relevance")`."""
    with progress(label, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def progress(label: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Show the progress of a step; yields the callback that advances it.

    Args:
        total: items of the whole step.
        start: items that were done before, in a run that is resumed.
    """
    with (_bar if sys.stderr.isatty() else _lines)(label, total, start) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, start: int) -> Iterator[Advance]:
    """Show a progress bar in a terminal; a bar inside another step's is removed when its step ends."""
    inside_another = _current_display.get() is not None
    with _display() as display:
        task = display.add_task(label, total=total, completed=start, rate="")

        def advance(amount: int = 1) -> None:
            display.advance(task, amount)
            speed = next(t.speed for t in display.tasks if t.id == task)
            display.update(task, rate=f"{speed:.1f}/s" if speed else "")

        yield advance
        if inside_another:  # a thousand inner steps must not leave a thousand bars
            display.remove_task(task)


@contextmanager
def _display() -> Iterator[Progress]:
    """Yield the display of the enclosing step, or else a new one: a terminal can hold only one."""
    from rich import progress as rich
    from rich.console import Console

    if (outer := _current_display.get()) is not None:
        yield outer
        return
    numbers = (rich.MofNCompleteColumn(), rich.TextColumn("{task.fields[rate]}"))
    times = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn())
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), *numbers, *times)
    with rich.Progress(*columns, console=Console(stderr=True)) as display:
        token = _current_display.set(display)
        try:
            yield display
        finally:
            _current_display.reset(token)


@contextmanager
def _lines(label: str, total: int, start: int) -> Iterator[Advance]:
    """Write progress as log lines, at growing intervals.

    The first items do not count in the remaining time: they load what all share.
    """
    began, done, due = time.monotonic(), start, MIN_SECONDS
    first: tuple[int, float] | None = None  # items that were done at the first report, and its time

    def advance(amount: int = 1) -> None:
        nonlocal done, due, first
        done += amount
        seconds = time.monotonic() - began
        if first is None:
            first = done, seconds
        if seconds > due and start < done < total:
            if done == first[0]:
                print(f"{label}: {done} of {total}", file=sys.stderr)
                due = seconds + MIN_SECONDS
                return
            left = timedelta(seconds=round((seconds - first[1]) * (total - done) / (done - first[0])))
            print(f"{label}: {done} of {total}, about {left} to go", file=sys.stderr)
            due = min(INTERVAL_GROWTH * seconds, seconds + MAX_INTERVAL)

    try:
        yield advance
    finally:
        if (seconds := time.monotonic() - began) > MIN_SECONDS:
            rate, taken = (done - start) / seconds, timedelta(seconds=round(seconds))
            print(f"{label}: {done} of {total} in {taken} ({rate:.1f}/s)", file=sys.stderr)
