"""Progress of long steps on standard error: a bar with rate and time left, or a few lines where no one watches."""

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

LONG = 2.0  # seconds: steps that end sooner leave no line in a log
RARELY, SELDOM = 10, 600  # a log hears of a step again after ten times as long, and every ten minutes at last
_shown: ContextVar[Progress | None] = ContextVar("_shown", default=None)


class Advance(Protocol):
    def __call__(self, amount: int = 1) -> None: ...


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """The items themselves, with progress: `for x in track(items, len(items), "relevance")`."""
    with progress(label, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def progress(label: str, total: int, start: int = 0) -> Iterator[Advance]:
    """A function to call as the work goes on. ``start`` of ``total`` were done before (a resumed run)."""
    with (_bar if sys.stderr.isatty() else _lines)(label, total, start) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, start: int) -> Iterator[Advance]:
    inside_another = _shown.get() is not None
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
    """The display of the step around this one, else a new one: a terminal holds only one."""
    from rich import progress as rich
    from rich.console import Console

    if (outer := _shown.get()) is not None:
        yield outer
        return
    numbers = (rich.MofNCompleteColumn(), rich.TextColumn("{task.fields[rate]}"))
    times = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn())
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), *numbers, *times)
    with rich.Progress(*columns, console=Console(stderr=True)) as display:
        token = _shown.set(display)
        try:
            yield display
        finally:
            _shown.reset(token)


@contextmanager
def _lines(label: str, total: int, start: int) -> Iterator[Advance]:
    began, done, due = time.monotonic(), start, LONG

    def advance(amount: int = 1) -> None:
        nonlocal done, due
        done += amount
        seconds = time.monotonic() - began
        if seconds > due and start < done < total:
            left = timedelta(seconds=round(seconds * (total - done) / (done - start)))
            print(f"{label}: {done} of {total}, about {left} to go", file=sys.stderr)
            due = min(RARELY * seconds, seconds + SELDOM)

    try:
        yield advance
    finally:
        if (seconds := time.monotonic() - began) > LONG:
            rate, taken = (done - start) / seconds, timedelta(seconds=round(seconds))
            print(f"{label}: {done} of {total} in {taken} ({rate:.1f}/s)", file=sys.stderr)
