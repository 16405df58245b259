"""The exception tree: every error that a user can cause, and the exit code the command line gives it.

    KlarsichtError                   exit
    ├── UsageError                    2    an argument or a setting is off
    ├── InputError                    3    a file or folder is not what it should be
    │   ├── ImageError                3    one image cannot be decoded (a corpus skips, counts and names it)
    │   └── CorpusError               3    no usable images, or labels the model does not know
    ├── ModelError                    4    the model cannot be loaded or explained
    │   ├── InputRefused              4    the model fails on an image (a corpus skips, counts and names it)
    │   ├── UnsupportedLayer          4    a layer without a relevance rule
    │   └── NotConserving             4    relevance appears or vanishes that no formula accounts for
    ├── StoreError                    5    the run folder
    │   ├── RunLocked                 5    another process writes to it
    │   ├── RunMismatch               5    it was made with other settings, another corpus or another model
    │   └── DiskFull                  5    no space left: what is complete is kept, the command resumes
    ├── MissingExtra                  6    an optional package is not installed
    ├── HarmExceeded                  7    a correction harms more than its bound allows
    └── EffectRemains                 8    a correction leaves more than half of what the artifact does

A message has four parts: *what* is wrong, what was *got*, the *rule*, the *remedy*. Ctrl-C exits 130.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KlarsichtError(Exception):
    """An error with what, got, rule and remedy; the command line prints it as one line."""

    exit_code = 1

    def __init__(self, what: str, *, got: object = None, rule: str = "", remedy: str = "") -> None:
        self.what, self.got, self.rule, self.remedy = what, got, rule, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.what]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.rule:
            parts.append(self.rule)
        return "; ".join(parts) + (f". {self.remedy}" if self.remedy else "")

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword-only fields survive the journey between worker processes."""
        return (_rebuild, (type(self), self.what, self.got, self.rule, self.remedy))


def _rebuild(kind: type[KlarsichtError], what: str, got: object, rule: str, remedy: str) -> KlarsichtError:
    return kind(what, got=got, rule=rule, remedy=remedy)


class UsageError(KlarsichtError):
    exit_code = 2


class InputError(KlarsichtError):
    exit_code = 3


class ImageError(InputError):
    pass


class CorpusError(InputError):
    pass


class ModelError(KlarsichtError):
    exit_code = 4


class InputRefused(ModelError):
    pass


class UnsupportedLayer(ModelError):
    pass


class NotConserving(ModelError):
    pass


class StoreError(KlarsichtError):
    exit_code = 5


class RunLocked(StoreError):
    pass


class RunMismatch(StoreError):
    pass


class DiskFull(StoreError):
    pass


class MissingExtra(KlarsichtError):
    exit_code = 6


class HarmExceeded(KlarsichtError):
    exit_code = 7


class EffectRemains(KlarsichtError):
    exit_code = 8


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error of a failed look-up: lists near matches, else all the known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
    return UsageError(f"unknown {kind}", got=repr(name), remedy=remedy)
