"""A network, its transform, a decoder and files that fail from a call on, as a dead device and a lost mount do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.audit.conftest import Marked

from klarsicht.audit.explanation.models.transforms import plain_transform
from klarsicht.ground.run_folder.checksums import Checksum

KINDS = {
    "KeyError": KeyError("logit"),
    "AttributeError": AttributeError("no such part"),
    "EOFError": EOFError("no more input"),
    "StopIteration": StopIteration(),
    "RecursionError": RecursionError("maximum recursion depth exceeded"),
    "SystemExit": SystemExit(0),
    "CUDA": RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA"),
}
NUMBERS = ("ENOENT", "EIO", "ESTALE", "ENOTCONN", "EACCES")
CALLS: Counter[str] = Counter()  # of each place since the fault was set
FAULT: dict[str, Any] = {}


def call(place: str) -> None:
    """Count a call of a place, and raise the fault that is set for it from its call on."""
    CALLS[place] += 1
    if place == FAULT.get("place") and FAULT["first"] <= CALLS[place] <= FAULT["last"]:
        raise FAULT["error"]


@contextmanager
def fault(place: str, error: BaseException, first: int, last: int = 1 << 30) -> Iterator[Counter[str]]:
    """Let a place fail from its `first` call on, until its `last`."""
    CALLS.clear()
    FAULT.update(place=place, error=error, first=first, last=last)
    try:
        yield CALLS
    finally:
        FAULT.clear()


class Failing(Marked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        call("forward")
        return super().forward(x)


def network() -> Any:
    module = Failing().eval()
    plain = plain_transform(module)

    def transform(picture: Image.Image) -> torch.Tensor:
        call("transform")
        return plain(picture)

    return module, transform


def decode(path: str) -> Image.Image:
    call("decode")
    return Image.open(path).convert("RGB")


@contextmanager
def files_that_fail(folder: Path) -> Iterator[None]:
    """Count the openings of files below a folder as calls of the place `file`."""
    opened = pathlib.Path.open

    def failing_open(path: Path, *args: Any, **kwargs: Any) -> Any:
        if folder in path.resolve().parents:
            call("file")
        return opened(path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.Path, "open", failing_open)
        yield


def system_error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


def digest(folder: Path) -> dict[str, str]:
    """Hash every file below a folder but locks and the date of a run; of a checksum of a file with a date, whether it
    admits this file."""
    hashes, dates = {}, [json.loads(file.read_bytes())["created"] for file in folder.rglob("manifest.json")]
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("lock", ".lock")):
        content = path.read_bytes()
        if path.parent.name == "checksums" and path.stem in ("manifest.json", "report.html"):
            content = repr(
                json.loads(content) == [Checksum.of_file(path.parent.with_name(path.stem)).to_json()]
            ).encode()
        for date in dates:
            content = content.replace(date.encode(), b"").replace(date[:16].replace("T", " ").encode(), b"")
        hashes[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return hashes
