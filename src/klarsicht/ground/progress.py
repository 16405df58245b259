"""Progress of long steps: a bar with rate and remaining time on a terminal, a bar below the cell of a notebook, else a
few log lines on standard error."""

from __future__ import annotations

import gc
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from html import escape
from importlib import import_module
from inspect import CO_GENERATOR
from operator import itemgetter
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

MIN_SECONDS = 2.0  # seconds: steps that end sooner write no line to a log
# The next log line of a step follows after three times the time so far, but within ten seconds (a tick and more
# less here), and once it has taken ten minutes, after a minute: logs of a day stay short.
INTERVAL_GROWTH, MAX_INTERVAL, LONG_STEP, LONG_INTERVAL = 3, 8, 600, 60
SILENT_SECONDS = 9.5  # after which a command that prints nothing between its steps says that it is at work
LOADING_SECONDS = 1.2  # after which a command that has printed nothing says that it is loading
LOADING_OBJECTS = 200_000  # new objects before garbage is looked for: libraries are many objects, and none is garbage
FORETOLD = 10  # items that one item foretells
FORETELLING_SECONDS = 10.0  # in which any number of items foretells all others
REDRAWING_SECONDS = 0.2  # between two states of a notebook's bar
MARKING_SECONDS = 0.5  # after which it is noted again how many items are done
TICK = 1.0  # seconds after which it is seen whether a line is due, where no item is done
TRANSPARENT = (__name__, "contextlib")  # modules whose frames open steps for others
_current_display: ContextVar[Progress | None] = ContextVar("_current_display", default=None)
_hidden: ContextVar[bool] = ContextVar("_hidden", default=False)
_count_rows: ContextVar[Callable[[int], None] | None] = ContextVar("_count_rows", default=None)


class Advance(Protocol):
    """Callback that reports `amount` further items as done."""

    def __call__(self, amount: int = 1) -> None: ...


class _Silence:
    """Silence of a command: a thread ends it by a line on standard error where no bar shows progress.

    Attributes:
        latest: when something was printed last; spoken: whether anything was.
        bars: how many are shown; loads: whether the command has no step yet.
    """

    def __init__(self, first: float, longest: float) -> None:
        self.first, self.longest, self.ended = first, longest, threading.Event()
        self.latest, self.spoken, self.bars, self.loads = 0.0, False, 0, True
        self.thresholds = gc.get_threshold()

    def begin(self) -> None:
        """Begin to count the seconds, with few searches for garbage while libraries are loaded."""
        self.latest = time.monotonic()
        gc.set_threshold(LOADING_OBJECTS, *self.thresholds[1:])
        with suppress(RuntimeError):  # no memory for a thread
            threading.Thread(target=self.tick, daemon=True, name="silence").start()

    def end_loading(self) -> None:
        """Note that the command is at work."""
        if self.loads:
            self.loads = False
            gc.set_threshold(*self.thresholds)

    def tick(self) -> None:
        """Write lines that are due."""
        began = self.latest
        while not self.ended.wait(max(self.due - time.monotonic(), min(self.first, TICK) / 4)):
            if self.bars or time.monotonic() < self.due:
                continue
            elapsed = timedelta(seconds=round(time.monotonic() - began))
            with suppress(OSError, ValueError):  # standard error was closed
                print(f"{'loading' if self.loads else 'at work'}: {elapsed} so far", file=sys.stderr, flush=True)
            self.latest, self.spoken = time.monotonic(), True
            if self.latest - began > LONG_STEP:  # as lines of steps come less often by then
                self.longest = max(self.longest, SILENT_SECONDS + LONG_INTERVAL - MAX_INTERVAL)

    @property
    def due(self) -> float:
        """The time at which a line is due if nothing is printed until then."""
        return self.latest + (self.longest if self.spoken else self.first)


_silences: list[_Silence] = []


@contextmanager
def end_silences(first: float = LOADING_SECONDS, longest: float = SILENT_SECONDS) -> Iterator[None]:
    """Let `begin_loading` end every silence of a command by a line on standard error: the first after `first` seconds,
    as libraries, model and corpus are loaded before there is a step to count, later ones after `longest`."""
    silence = _Silence(first, longest)
    _silences.append(silence)
    try:
        yield
    finally:
        silence.ended.set()
        silence.end_loading()
        _silences.remove(silence)


def begin_loading() -> None:
    """Say from here on that the command is loading, where the process says it."""
    for silence in _silences:
        silence.begin()


@contextmanager
def announce_loading() -> Iterator[None]:
    """Say on standard error that libraries are loaded inside, if that takes seconds and no command says it."""
    if _silences or _hidden.get():
        yield
        return
    with end_silences(first=MIN_SECONDS):
        begin_loading()
        yield


def begin_serving() -> None:
    """Keep silent from here on: the command waits for its user."""
    for silence in _silences:
        silence.ended.set()


def hear() -> None:
    """Let silences know that something is printed."""
    for silence in _silences:
        silence.latest, silence.spoken = time.monotonic(), True
        silence.end_loading()


def note(message: str) -> None:
    hear()
    print(f"klarsicht: {message}", file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items while showing progress: `for x in track(items, len(items), "relevance")`."""
    with progress(label, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def progress(label: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Show the progress of a step; yields the callback that advances it. total: items of the whole step. start: items
    that were done before, in a run that is resumed."""
    if _hidden.get():
        yield lambda amount=1: None
        return
    show = _notebook_bar if is_notebook() else _bar if sys.stderr.isatty() else _lines
    for silence in _silences:
        silence.end_loading()
        silence.bars += show is not _lines
    try:
        with show(label, total, start) as advance:
            yield advance
    finally:
        for silence in _silences:
            silence.bars -= show is not _lines


@contextmanager
def whole_step(label: str) -> Iterator[None]:
    """Show a step of one item: that it takes its time, and how far the steps inside it are."""
    with progress(label, 1) as advance:
        yield
        advance()


def track_inside(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items while showing progress as part of the step that is shown; where none is, show nothing."""
    open_steps = (_current_display.get(), _open_logs.__dict__.get("logs"), _open_steps.__dict__.get("steps"))
    return track(items, total, label) if any(open_steps) else iter(items)


@contextmanager
def hide_progress() -> Iterator[None]:
    """Show no progress of the steps inside: another process shows that of their work unit."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


def count_rows(rows: int) -> None:
    """Show rows of a work unit as done before the unit ends, where it runs in the process that shows its progress."""
    if (count := _count_rows.get()) is not None:
        count(rows)


@contextmanager
def counted_rows(advance: Advance) -> Iterator[Callable[[range], None]]:
    """Let `count_rows` advance a step of work units; yields the function that ends a unit, which advances the step by
    the rows of it that were not counted."""
    counted = 0

    def count(rows: int) -> None:
        nonlocal counted
        counted += rows
        advance(rows)

    def end_unit(unit: range) -> None:
        nonlocal counted
        advance(len(unit) - counted)
        counted = 0

    token = _count_rows.set(count)
    try:
        yield end_unit
    finally:
        _count_rows.reset(token)


def is_notebook() -> bool:
    """Say whether a notebook's kernel runs this process."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _find_owner() -> int:
    """Find the function that opened a step, the identity of its frame: generators may stop between two items."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_code.co_flags & CO_GENERATOR or frame.f_globals["__name__"] in TRANSPARENT):
        frame = frame.f_back
    return id(frame)


def _is_running(owner: int) -> bool:
    """Say whether a function that opened a step is on the stack: if not, it failed, and its exception keeps the step
    from being closed."""
    frame: FrameType | None = sys._getframe(1)
    while frame and id(frame) != owner:
        frame = frame.f_back
    return frame is not None


@contextmanager
def _notebook_bar(label: str, total: int, start: int) -> Iterator[Advance]:
    """Show a progress bar in the output of a cell; that of a step inside another one is part of the outer step's."""
    steps: list[_NotebookStep] = _open_steps.__dict__.setdefault("steps", [])
    steps[:] = (step for step in steps if _is_running(step.owner))
    step = _NotebookStep(label, total, start)
    steps.append(step)
    display = _NotebookDisplay(steps) if len(steps) == 1 else _open_steps.display
    _open_steps.display = display

    def advance(amount: int = 1) -> None:
        step.done += amount
        display.redraw_if_due()

    try:
        yield advance
    finally:
        if steps == [step]:
            display.redraw()
        if step in steps:
            steps.remove(step)


class _NotebookStep:
    """Step whose progress a notebook shows."""

    def __init__(self, label: str, total: int, start: int) -> None:
        self.label, self.total, self.done, self.owner = label, total, start, _find_owner()

    def __str__(self) -> str:
        return f"{self.label}: {self.done} of {self.total}"


class _NotebookDisplay:
    """Bars of a step and of the steps inside it, in the output of a cell."""

    def __init__(self, steps: list[_NotebookStep]) -> None:
        self.steps, self.began = steps, time.monotonic()
        self.drawn = self.began
        self.handle: Any = import_module("IPython.display").display(self, display_id=True)

    def redraw_if_due(self) -> None:
        """Show the present state, unless one was shown just now."""
        if time.monotonic() >= self.drawn + REDRAWING_SECONDS:
            self.redraw()

    def redraw(self) -> None:
        self.drawn = time.monotonic()
        self.handle.update(self)

    def __repr__(self) -> str:
        inside = f" ({self.steps[-1]})" if len(self.steps) > 1 else ""
        return f"{self.steps[0]}{inside}, {timedelta(seconds=round(self.drawn - self.began))}"

    def _repr_html_(self) -> str:
        first = self.steps[0]
        return f'<progress max="{first.total}" value="{first.done}"></progress> {escape(repr(self))}'


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
    """Write progress as log lines. A step inside another one writes none of its own: the lines of the outer step say
    how far it is."""
    logs: list[_Log] = _open_logs.__dict__.setdefault("logs", [])
    for stale in [log for log in logs if not _is_running(log.owner)]:
        stale.ended.set()
        logs.remove(stale)
    log = _Log(label, total, start, outer=logs[0] if logs else None)
    logs.append(log)
    try:
        with log.outer.hold_inner_step(log) if log.outer else log.tick():
            yield log.advance
    finally:
        if log in logs:
            logs.remove(log)


class _Log:
    """Progress of a step as log lines, at growing intervals.

    A thread writes a line where no item is done in time. The first items do not count in the remaining time: they load
    what all share. So may the second; of few items in a short time the remaining time is not foretold. Those that count
    foretell by the latter half of their time, for later items may be dearer than earlier ones. While an item takes
    longer than any before it, and than the time to go by the others, no time to go is told. Until the second is done,
    a first item that took long is what all are compared with, since loading is little of it.
    """

    def __init__(self, label: str, total: int, start: int, outer: _Log | None) -> None:
        self.label, self.total, self.start, self.done, self.outer = label, total, start, start, outer
        self.began, self.due = time.monotonic(), MIN_SECONDS
        self.first: tuple[int, float] | None = None  # items that were done at the first report, and its time
        self.latest, self.longest = 0.0, 0.0  # when an item was done last, and the longest time that one took
        self.marks: list[tuple[int, float]] = []  # items that were done, and when, since the first report
        self.told, self.foretold = 0.0, False  # when the last line was written, and whether one had a time to go
        self.inside: list[_Log] = []  # steps inside this one, the innermost last
        self.lock, self.ended, self.owner = threading.Lock(), threading.Event(), _find_owner()

    def advance(self, amount: int = 1) -> None:
        """Count items as done, and write a line where one is due."""
        self.done += amount
        if self.outer:
            self.outer.write_if_due()
            return
        if amount:  # a unit whose rows were all counted ends without another item
            self.mark_items()
        if self.done < self.total:
            self.write_if_due()

    def mark_items(self) -> None:
        """Note when items were done, for the time to go."""
        before, self.latest = self.latest, time.monotonic() - self.began
        if self.first is None:
            self.first = self.done, self.latest
            self.marks.append(self.first)
            return
        self.longest = max(self.longest, self.latest - before)
        if self.latest >= self.marks[-1][1] + MARKING_SECONDS:
            self.marks.append((self.done, self.latest))
        if not self.foretold and self.foretells:
            self.due = min(self.due, self.told + MIN_SECONDS)

    @property
    def foretells(self) -> bool:
        """Whether items that count were enough, for those left or by their time, to foretell the remaining time."""
        if self.first is None or self.done <= self.first[0]:
            return False
        enough = self.total - self.done <= FORETOLD * (self.done - self.first[0])
        return enough or self.latest - self.first[1] >= FORETELLING_SECONDS

    def time_to_go(self, seconds: float) -> float | None:
        """Foretell the remaining seconds, so many after the beginning; None where nothing is known."""
        if self.first is None or not self.foretells:
            return None
        half = (self.first[1] + self.latest) / 2
        done, when = self.marks[max(0, bisect_right(self.marks, half, key=itemgetter(1)) - 1)]
        open_item = seconds - self.latest
        left = max((self.latest - when) / (self.done - done) * (self.total - self.done) - open_item, 0)
        return None if open_item > max(self.longest, left) else left

    def time_by_first(self, seconds: float) -> float | None:
        """Compute the remaining seconds, so many after the beginning, if each item takes as long as the first; None
        where others are done, where the first was short, and where the open one takes longer."""
        if self.first is None or self.done > self.first[0] or self.first[1] < FORETELLING_SECONDS:
            return None
        each = self.first[1] / (self.first[0] - self.start)
        open_item = seconds - self.latest
        return None if open_item > each else each * (self.total - self.done) - open_item

    def write_if_due(self) -> None:
        with self.lock:
            seconds = time.monotonic() - self.began
            if seconds <= self.due:
                return
            line = f"{self.label}: {self.done} of {self.total}"
            longest = MAX_INTERVAL if seconds < LONG_STEP else LONG_INTERVAL
            self.due = min(INTERVAL_GROWTH * seconds, seconds + longest)
            if (left := self.time_to_go(seconds)) is not None:
                line += f", about {timedelta(seconds=round(left))} to go"
                self.foretold = True
            elif (by_first := self.time_by_first(seconds)) is not None:
                line += f", {timedelta(seconds=round(by_first))} to go if each takes as long"
            elif self.told:
                line += f" after {timedelta(seconds=round(seconds))}"
            self.told = seconds
            if self.inside:
                line += f" ({self.inside[-1].label}: {self.inside[-1].done} of {self.inside[-1].total})"
            print(line, file=sys.stderr)
            hear()

    @contextmanager
    def hold_inner_step(self, log: _Log) -> Iterator[None]:
        """Hold a step inside this one while it runs."""
        self.inside.append(log)
        try:
            yield
        finally:
            self.inside.remove(log)

    @contextmanager
    def tick(self) -> Iterator[None]:
        """Write lines that are due while no item is done, and the last one."""

        def tick() -> None:
            while not self.ended.wait(TICK):
                with suppress(OSError, ValueError):  # standard error was closed: the step finds out by itself
                    self.write_if_due()

        # without memory for a thread, lines come with items only
        with suppress(RuntimeError):
            threading.Thread(target=tick, daemon=True, name="progress").start()
        try:
            yield
        finally:
            left_open = self.ended.is_set()
            self.ended.set()
            if (seconds := time.monotonic() - self.began) > MIN_SECONDS and not left_open:
                own, elapsed = self.done - self.start, timedelta(seconds=round(seconds))
                slow = f"{seconds / own:.1f} s each" if own else "none done"
                rate = f"{own / seconds:.1f}/s" if own >= seconds else slow
                print(f"{self.label}: {self.done} of {self.total} in {elapsed} ({rate})", file=sys.stderr)
                hear()


_open_logs, _open_steps = threading.local(), threading.local()
