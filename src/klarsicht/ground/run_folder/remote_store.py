"""Store of a run for workers that do not see its folder: what a unit reads is sent to it, and back what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from klarsicht.ground.machine.disk import translate_write_errors
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.run_arrays import GROUP, metadata_file
from klarsicht.ground.run_folder.store import RunStore

Answers = dict[str, Any]
"""What reads of a run gave, by their keys."""
Files = dict[str, bytes | None]
"""Content of the files that a unit wrote, by path inside the run; None: the file must not exist."""


@dataclass(frozen=True)
class Read:
    """Read of a run: a method of `RunStore` with its arguments, or rows or the form of an array."""

    method: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, name: str, rows: ArrayLike) -> Read:
        """Make the read of rows of an array, each once."""
        return cls("rows", (name, np.unique(np.asarray(rows, np.intp))))

    @property
    def key(self) -> str:
        """Hash by which equal reads are known in every process."""
        return str(joblib.hash((self.method, self.arguments, dict(self.options))))

    def answer(self, store: RunStore) -> Any:
        """Read from the run itself. Raises as the method does."""
        if self.method == "rows":
            name, rows = self.arguments
            return RowBlock(name, rows, store.array(name)[rows])
        if self.method == "form":
            array = store.array(*self.arguments)
            return array.shape, array.dtype
        value = getattr(store, self.method)
        answered = value(*self.arguments, **self.options) if callable(value) else value
        return list(answered) if isinstance(answered, Iterator) else answered


@dataclass(frozen=True)
class RowBlock:
    """Rows of an array of a run, in ascending order, and their values."""

    name: str
    rows: NDArray[np.intp]
    values: NDArray[Any]


def list_forms(store: RunStore) -> list[Read]:
    """List reads that units of any step may ask for: the manifest, and the forms of all arrays."""
    reads = [Read("manifest", ()), Read("array_names", ())]
    for name in store.array_names():
        files = (Read("read_bytes", (file,)) for file in (GROUP, metadata_file(name)))
        reads += [Read("form", (name,)), Read("is_created", (name,)), *files]
    return reads


class ReadMissing(BaseException):
    """Read whose answer this worker does not have. No `except Exception` on the way may stop it."""

    def __init__(self, read: Read) -> None:
        super().__init__(read)
        self.read = read


def _forward(method: str) -> Any:
    """Make a method that is answered from what was sent along."""

    def read(store: RemoteStore, *arguments: Any, **options: Any) -> Any:
        return store.ask(method, *arguments, **options)

    return read


@dataclass(frozen=True)
class RemoteStore(RunStore):
    """Stand-in for the store of a run. What is read are answers that came from the client; a read without one raises
    ReadMissing. What is written goes to a folder of the worker, `path`, by the code of every run, and `take_files`
    hands it over. common: answers for all units; own: those for the unit at hand."""

    common: Answers = field(default_factory=dict, compare=False)
    own: Answers = field(default_factory=dict, compare=False)
    outputs: Written = field(default_factory=dict, compare=False)

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return the answer to a read; raises ReadMissing."""
        read = Read(method, arguments, options)
        for answers in (self.own, self.common):
            if read.key in answers:
                return answers[read.key]
        raise ReadMissing(read)

    @property
    def manifest(self) -> Any:
        return self.ask("manifest")

    has_file = _forward("has_file")
    array_names = _forward("array_names")
    has_table = _forward("has_table")
    is_done = _forward("is_done")
    is_finished = _forward("is_finished")
    done_units = _forward("done_units")
    done_parts = _forward("done_parts")
    part = _forward("part")
    read_bytes = _forward("read_bytes")
    read_unit_file = _forward("read_unit_file")
    table = _forward("table")
    texts = _forward("texts")

    def has_array(self, name: str) -> bool:
        return name in self.array_names()

    def is_created(self, name: str) -> bool:
        return self.has_array(name) and self.ask("is_created", name)

    def list_blocks(self, name: str) -> list[RowBlock]:
        """List the rows of an array that came, those for the unit at hand first."""
        answers = [*self.own.values(), *self.common.values()]
        return [one for one in answers if isinstance(one, RowBlock) and one.name == name]

    def array(self, name: str) -> Any:
        return RemoteArray(self, name)

    def write_unit_file(self, name: str, content: bytes) -> Written:
        written = super().write_unit_file(name, content)
        self.outputs.update(written)
        return written

    def write_rows(self, name: str, start: int, values: ArrayLike) -> Written:
        for file in (GROUP, metadata_file(name)):
            if not self.inside(file).exists():
                self.inside(file).parent.mkdir(parents=True, exist_ok=True)
                self.inside(file).write_bytes(self.ask("read_bytes", file))
        written = super().write_rows(name, start, values)
        self.outputs.update(written)
        return written

    @contextmanager
    def with_answers(self, answers: Answers) -> Iterator[None]:
        """Give the unit at hand its own answers; what it left unfinished is removed."""
        self.own.update(answers)
        try:
            yield
        finally:
            self.own.clear()
            self.take_files()

    def take_files(self) -> Files:
        """Return the files written since the last call, and remove them from this worker."""
        files: Files = {}
        with translate_write_errors(self.path):
            for name, checksum in self.outputs.items():
                files[name] = None if checksum is None else self.inside(name).read_bytes()
                self.inside(name).unlink(missing_ok=True)
        self.outputs.clear()
        return files


@dataclass(frozen=True)
class RemoteArray:
    """Array of a run that this worker does not see; see `StoredArray`."""

    store: RemoteStore
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.store.ask("form", self.name)[0]
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.store.ask("form", self.name)[1]
        return dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        numbers = np.arange(len(self))[rows]
        for block in self.store.list_blocks(self.name):
            if np.isin(numbers, block.rows).all():
                values: NDArray[Any] = block.values[np.searchsorted(block.rows, numbers)]
                return values
        raise ReadMissing(Read.of_rows(self.name, numbers))


def keep_files(store: RunStore, files: Files) -> None:
    """Write the files of a unit that a worker sent into the run. Raises DiskFull, StoreError."""
    for name, content in files.items():
        if content is not None:
            store.write_unit_file(name, content)
            continue
        with translate_write_errors(store.path):
            store.inside(name).unlink(missing_ok=True)
