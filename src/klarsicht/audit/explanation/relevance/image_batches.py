"""Batches of preprocessed images, read ahead by other threads while the network computes, and their size."""

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
from torch import Tensor, nn

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.pictures import FileReader
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import temporary_hooks
from klarsicht.ground.errors import ImageError
from klarsicht.ground.pictures.images import notes_of

T = TypeVar("T")
Batch = tuple[list[int], Tensor]
"""Rows of B images, and the images (B, C, H, W)."""
Prepared = tuple[int, Tensor | ImageError, str]

BATCHES_AHEAD: Final = 2  # batches that are ready before the network asks for them
LARGEST_BATCH: Final = 256
HELD_ACTIVATIONS: Final = 4  # times the bytes of all activations that relevance propagation holds at its peak, measured
GIGABYTE: Final = 1e9
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
    """Reader of the batches of some rows: `readers` threads, each with some `threads` of torch, read, decode and
    transform at most `size` images ahead of the network; with 0 images are read when they are asked for. Batches and
    their order do not depend on it; `time` adds up the time spent waiting for them."""

    corpus: Corpus
    classifier: Classifier
    size: int
    readers: int = 0
    threads: int = 1
    time: WaitingTime = field(default_factory=WaitingTime)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def batches(self, rows: Iterable[int], facts: dict[int, dict[str, Any]]) -> Iterator[Batch]:
        """Yield batches of one image shape, in pinned memory where the network runs on a CUDA device. `facts` gets, by
        row, the notes of a picture, and why one cannot be used."""
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
        """Decode and transform the image of some rows: row, model input or error, and notes of the picture. Only image
        files are decoded by several threads at once: archives, tables and a user's function may not be."""
        shared = isinstance(self.corpus.reader, FileReader) and not self.corpus.decoder
        with nullcontext() if shared else self._one_at_a_time:
            pictures = list(decode_rows(self.corpus, rows))
        return [
            (row, picture, "") if isinstance(picture, ImageError)
            else (row, prepare(self.classifier, picture), "; ".join(notes_of(picture)))
            for row, picture in pictures
        ]  # fmt: skip


def read_ahead(items: Iterable[T], count: int, threads: int = 1) -> Iterator[T]:
    """Yield items that another thread with some threads of torch makes, up to `count` of them before they are asked
    for. If the items are not read to their end, the thread stops after the current one. An error of the thread is
    raised here."""
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


def choose_batch_size(classifier: Classifier, image: Tensor, memory: float) -> int:
    """Choose the largest power of two of images (C, H, W) whose relevance is computed within a bound on memory in GB,
    at least 1. It follows from the shapes of activations, so that every machine chooses the same: results of different
    batch sizes differ in last bits."""
    each = HELD_ACTIVATIONS * activation_bytes(classifier, image)
    size = 1
    while 2 * size <= LARGEST_BATCH and 2 * size * each <= memory * GIGABYTE:
        size *= 2
    return size


def activation_bytes(classifier: Classifier, image: Tensor) -> int:
    """Add up the bytes of the input and of what each layer without layers inside returns, for one image (C, H, W);
    raises InputRefused where the model fails on it."""
    total = image.numel() * image.element_size()

    def count(layer: nn.Module, inputs: object, answer: object) -> None:
        nonlocal total
        if isinstance(answer, Tensor):
            total += answer.numel() * answer.element_size()

    layers = [layer for layer in classifier.module.modules() if next(layer.children(), None) is None]
    hooks = temporary_hooks(layer.register_forward_hook(count) for layer in layers)
    with hooks, evaluation_mode(classifier.module), torch.no_grad():
        classifier.logits(image[None])
    return total


def first_image(corpus: Corpus, classifier: Classifier, most: int) -> Tensor | None:
    """Read the first usable image of a corpus as a model input (C, H, W); None where none of the first `most` is."""
    batches = BatchReader(corpus, classifier, 1).batches(range(min(most, len(corpus))), {})
    return next((images[0] for _, images in batches), None)
