"""Keep learned embeddings in the user's cache folder, so that a further run on the same images learns none.

The name of a file is the hash of all that a training depends on: images, families, seed and steps, the weights that it
begins with, the sources of training and families, and the version of torch. Its content begins with a hash of the rest;
a file that is damaged counts as none."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import torch

from klarsicht.audit.verdicts.detectors.artifact_embedding import EmbeddingTraining, training_sources
from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.machine.operating_system import user_folder

MOST_KEPT = 20  # files, of 1.4 MB each; beyond these, those that were used longest ago are removed
DIGEST = 32  # bytes of a hash


def cache_folder() -> Path | None:
    """Return the folder of kept embeddings; None for a user without a home folder."""
    caches = user_folder("XDG_CACHE_HOME", ".cache")
    return None if caches is None else caches / "klarsicht" / "embeddings"


def cache_key(training: EmbeddingTraining) -> str:
    """Hash what a training that has not begun depends on."""
    facts = (torch.__version__, training.images.shape, training.families, training.seed, training.steps)
    known = hashlib.blake2b(repr(facts).encode(), digest_size=DIGEST)
    for part in (*map(Path.read_bytes, training_sources()), training.images.tobytes(), training.state()):
        known.update(hashlib.blake2b(part, digest_size=DIGEST).digest())
    return known.hexdigest()


def read_cached(key: str) -> bytes | None:
    """Read the state of a training that ended; None where it is not kept, or damaged."""
    if (folder := cache_folder()) is None:
        return None
    file = folder / f"{key}.pt"
    with suppress(OSError):
        content = file.read_bytes()
        digest, state = content[:DIGEST], content[DIGEST:]
        if digest == hashlib.blake2b(state, digest_size=DIGEST).digest():
            file.touch()
            return state
    return None


def keep_cached(key: str, state: bytes) -> None:
    """Keep the state of a training that ended, where the folder can be written, and the MOST_KEPT newest files."""
    if (folder := cache_folder()) is None:
        return
    with suppress(OSError, KlarsichtError):
        write_atomically(folder / f"{key}.pt", hashlib.blake2b(state, digest_size=DIGEST).digest() + state)
        for file in sorted(folder.glob("*.pt"), key=lambda file: file.stat().st_mtime)[:-MOST_KEPT]:
            file.unlink(missing_ok=True)
