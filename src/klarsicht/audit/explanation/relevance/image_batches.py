"""Batches of preprocessed images, read ahead by other threads while the network computes."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.pictures import FileReader
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.ground.errors import ImageError
from klarsicht.ground.pictures.images import notes_of

T = TypeVar("T")
Batch = tuple[list[int], Tensor]
"""Rows of B images, and the images (B, C, H, W)."""
Prepared = tuple[int, Tensor | ImageError, str]

BATCHES_AHEAD: Final = 2  # batches that are ready before the network asks for them
IMAGES_AHEAD: Final = 8  # images of each of several readers that wait to be put into a batch


@dataclass
class WaitingTime:
    """Seconds of a computation, and how many of them it waited for images."""

    seconds: float = 0.0
    waiting_seconds: float = 0.0

    def __add__(self, other: WaitingTime) -> WaitingTime:
        return WaitingTime(self.seconds + other.seconds, self.waiting_seconds + other.waiting_seconds)

    @property
    def share(self) -> float:
        return self.waiting_seconds / self.seconds if self.seconds else 0.0


class PendingBatch:
    """Buffer that collects images into batches by shape; without a resizing transform image shapes differ."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.by_shape: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}

    def add(self, row: int, image: Tensor) -> Batch | None:
        """Add an image; return (rows, images) when the batch of its shape is full."""
        shape = tuple(image.shape)
        self.by_shape.setdefault(shape, []).append((row, image))
        return self._batch(shape) if len(self.by_shape[shape]) == self.size else None

    def flush(self) -> Iterator[Batch]:
        """Yield the incomplete batches."""
        for shape in list(self.by_shape):
            yield self._batch(shape)

    def _batch(self, shape: tuple[int, ...]) -> Batch:
        rows, images = zip(*self.by_shape.pop(shape), strict=True)
        return list(rows), torch.stack(images)


@dataclass
class BatchReader:
    """Reader of the batches of some rows: reads, decodes and transforms images ahead of the network.

    Batches are the same whatever the number of readers, in the same order. With one reader a single thread touches
    corpus and transform; with several the transform of different images runs at the same time.

    Attributes:
        size: images in a batch, at most.
        readers: threads; 0: images are read when the network asks for them.
        threads: threads of torch inside each reader.
        time: adds up how long `batches` was waited for.
    """

    corpus: Corpus
    classifier: Classifier
    size: int
    readers: int = 0
    threads: int = 1
    time: WaitingTime = field(default_factory=WaitingTime)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def batches(self, rows: Iterable[int], facts: dict[int, dict[str, Any]]) -> Iterator[Batch]:
        """Yield batches of one image shape, in pinned memory where the network runs on a CUDA device.

        Args:
            facts: gets, by row, the notes of a picture, and why one cannot be used.
        """
        made = self._make_batches(rows, facts)
        ahead = read_ahead(made, BATCHES_AHEAD, self.threads) if self.readers else made
        began = last = time.perf_counter()
        for batch in ahead:
            self.time.waiting_seconds += time.perf_counter() - last
            yield batch
            last = time.perf_counter()
        ended = time.perf_counter()
        self.time.waiting_seconds += ended - last
        self.time.seconds += ended - began

    def _make_batches(self, rows: Iterable[int], facts: dict[int, dict[str, Any]]) -> Iterator[Batch]:
        pending, pinned = PendingBatch(self.size), self.classifier.device.type == "cuda"

        def place(batch: Batch) -> Batch:
            return (batch[0], batch[1].pin_memory()) if pinned else batch

        for row, prepared, noted in self._prepare_all(rows):
            if noted:
                facts[row] = {"noted": noted}
            if isinstance(prepared, Exception):
                facts[row] = {"skipped": str(prepared)}
            elif ready := pending.add(row, prepared):
                yield place(ready)
        yield from map(place, pending.flush())

    def _prepare_all(self, rows: Iterable[int]) -> Iterator[Prepared]:
        """Yield what `_prepare` returns for the rows, in their order; rows of one image are decoded together."""
        groups = (list(some) for _, some in groupby(rows, key=lambda row: self.corpus.paths[row]))
        if self.readers < 2:
            for group in groups:
                yield from self._prepare(group)
            return
        with ThreadPoolExecutor(self.readers, "reader", torch.set_num_threads, (self.threads,)) as pool:
            queue: deque[Future[list[Prepared]]] = deque()
            for group in groups:
                queue.append(pool.submit(self._prepare, group))
                if len(queue) > IMAGES_AHEAD * self.readers:
                    yield from queue.popleft().result()
            while queue:
                yield from queue.popleft().result()

    def _prepare(self, rows: list[int]) -> list[Prepared]:
        """Decode and transform the image of some rows: row, model input or error, and notes of the picture.

        Only image files are decoded by several threads at once: archives, tables and a user's function may not be.
        """
        shared = isinstance(self.corpus.reader, FileReader) and not self.corpus.decoder
        with nullcontext() if shared else self._one_at_a_time:
            pictures = list(decode_rows(self.corpus, rows))
        return [
            (row, picture, "") if isinstance(picture, ImageError)
            else (row, prepare(self.classifier, picture), "; ".join(notes_of(picture)))
            for row, picture in pictures
        ]  # fmt: skip


def read_ahead(items: Iterable[T], count: int, threads: int = 1) -> Iterator[T]:
    """Yield items that another thread makes, up to `count` of them before they are asked for.

    Where the items are not taken to their end, the thread stops after the item that it is making. An error of the
    thread is raised here.

    Args:
        threads: threads of torch inside the thread.
    """
    buffer: queue.Queue[tuple[str, Any]] = queue.Queue(count)
    ended = threading.Event()

    def hand_over(kind: str, value: Any) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                buffer.put((kind, value), timeout=0.1)
                return

    def make() -> None:
        torch.set_num_threads(threads)
        try:
            for item in items:
                hand_over("item", item)
                if ended.is_set():
                    return
            hand_over("end", None)
        except BaseException as error:
            hand_over("error", error)

    thread = threading.Thread(target=make, daemon=True, name="images")
    thread.start()
    try:
        while (got := buffer.get())[0] == "item":
            yield got[1]
        if got[0] == "error":
            raise got[1]
    finally:
        ended.set()
        thread.join()


def prepare(classifier: Classifier, picture: Any) -> Tensor | ImageError:
    """Preprocess a picture; return an ImageError where the transform fails."""
    try:
        return classifier.image(picture)
    except ImageError as error:
        return error
