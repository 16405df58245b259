"""Progress of long steps on standard error: a bar with rate and time left, or one closing line where no one watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")

LONG = 2.0  # seconds: steps that end sooner leave no line in a log


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
    """A function to call as the work goes on. `start` of `total` were done before (a resumed run)."""
    with _bar(label, total, start) if sys.stderr.isatty() else _line(label, total - start) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, start: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=start, rate="")

        def advance(amount: int = 1) -> None:
            bar.advance(task, amount)
            speed = bar.tasks[task].speed
            bar.update(task, rate=f"{speed:.1f}/s" if speed else "")

        yield advance


@contextmanager
def _line(label: str, todo: int) -> Iterator[Advance]:
    began, done = time.monotonic(), 0

    def advance(amount: int = 1) -> None:
        nonlocal done
        done += amount

    yield advance
    seconds = time.monotonic() - began
    if seconds > LONG:
        print(f"{label}: {done} of {todo} in {seconds:.0f} s ({done / seconds:.1f}/s)", file=sys.stderr)
