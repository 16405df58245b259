"""Standard output and standard error that may fail: a full disk, a closed pipe, or a stream that was never opened."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

from klarsicht.ground.errors import OutputClosed
from klarsicht.ground.machine.disk import translate_write_errors


class GuardedStream:
    """Text stream that hands the system's first error to the function `fail`, at every write from then on."""

    def __init__(self, stream: TextIO, fail: Callable[[OSError], None]) -> None:
        self.stream, self.fail = stream, fail
        self._error: OSError | None = None

    def write(self, text: str) -> int:
        self._guard(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._guard(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _guard(self, act: Callable[[], object]) -> None:
        if self._error is None:
            try:
                act()
            except OSError as error:
                self._error = error
                self._discard()
        if self._error is not None:  # again at every write: typer tries a stream first, and drops what that raises
            self.fail(self._error)

    def _discard(self) -> None:
        """Send what is buffered nowhere: the interpreter writes it once more when it ends."""
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), self.stream.fileno())


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard both streams inside the context. Work goes on where only standard error fails: nobody is there to be told.
    Raises OutputClosed: the reader of standard output has ended; DiskFull, StoreError: standard output cannot be
    written."""
    with Path(os.devnull).open("w") as nowhere:
        output = GuardedStream(_as_unicode(sys.stdout or nowhere), refuse_output)
        errors = GuardedStream(_as_unicode(sys.stderr or nowhere), lambda _: None)
        with redirect_stdout(cast(TextIO, output)), redirect_stderr(cast(TextIO, errors)):
            yield


def _as_unicode(stream: TextIO) -> TextIO:
    """Write UTF-8 to a stream that is said to take ASCII alone, as in the locale C: typer would write such a stream
    past its guard, by a stream of its own, in UTF-8 as well. What another encoding lacks, as Latin-1 lacks the name of
    a class in Chinese, is escaped."""
    if isinstance(stream, TextIOWrapper):
        encoding = codecs.lookup(stream.encoding).name
        if encoding == "ascii":
            stream.reconfigure(encoding="utf-8", errors="replace")
        elif not encoding.startswith("utf"):
            stream.reconfigure(errors="backslashreplace")
    return stream


def refuse_output(error: OSError) -> None:
    """Raise the error of standard output that says what to do, see `guarded_streams`."""
    if isinstance(error, BrokenPipeError):
        raise OutputClosed("standard output was closed before all was written; what is complete is kept") from error
    with translate_write_errors(Path("standard output")):
        raise error
