"""The exception tree: every error that a user can cause, with its exit code (docs/exit-codes.md). A message has four
parts: *what* is wrong, what was *got*, the *rule*, the *remedy*. It names settings as options, as `--max-skipped`; to a
caller in Python it names the arguments, as `max_skipped`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final


class KlarsichtError(Exception):
    """Base error with the parts what, got, rule and remedy.

    Attributes:
        in_python: whether it names settings as arguments: it has left a public function, see `check_arguments`.
    """

    exit_code = 1
    in_python = False

    def __init__(self, what: str, *, got: object = None, rule: str = "", remedy: str = "") -> None:
        self.what, self.got, self.rule, self.remedy = what, got, rule, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        return as_arguments(self.with_options) if self.in_python else self.with_options

    @property
    def with_options(self) -> str:
        """The message in one line, as the command line prints it."""
        parts = [self.what]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.rule:
            parts.append(self.rule)
        text = "; ".join(parts)
        end = "" if text.endswith(".") and not text.endswith("...") else "."  # a quoted error may end in a full stop
        return f"{text}{end} {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        """Make the error picklable: the keyword-only parts are kept when it passes between worker processes."""
        return (_rebuild, (type(self), self.what, self.got, self.rule, self.remedy))


def _rebuild(kind: type[KlarsichtError], what: str, got: object, rule: str, remedy: str) -> KlarsichtError:
    return kind(what, got=got, rule=rule, remedy=remedy)


class UsageError(KlarsichtError):
    """Invalid argument or setting."""

    exit_code = 2


class InputError(KlarsichtError):
    """File or folder that is not of the expected kind."""

    exit_code = 3


class ImageError(InputError):
    """Image that cannot be decoded."""


class UnreadableFile(ImageError):
    """File of an image that the system does not give, which says nothing of its content."""


class ImageRefused(ImageError):
    """Image on which a user's code fails: a transform or a decoder."""


class CorpusError(InputError):
    """Corpus without usable images, or with labels that the model does not know."""


class ModelError(KlarsichtError):
    """Model that cannot be loaded or explained."""

    exit_code = 4


class InputRefused(ModelError):
    """Image on which the model fails."""


class UntrustedCode(ModelError):
    """Code of somebody else that would run unasked."""


class UnsupportedLayer(ModelError):
    """Layer without a relevance rule."""


class NotConserving(ModelError):
    """Relevance that is not conserved and that no formula accounts for."""


class StoreError(KlarsichtError):
    """Error of the run folder."""

    exit_code = 5


class RunLocked(StoreError):
    """Run that another process is writing to."""


class RunMismatch(StoreError):
    """Run that was made with other settings, another corpus or another model."""


class DiskFull(StoreError):
    """No space left on the disk."""


class RunDamaged(StoreError):
    """Run with a file that is missing, altered or unreadable since it was written."""

    exit_code = 10


class MissingExtra(KlarsichtError):
    """Optional package that is not installed."""

    exit_code = 6


class HarmExceeded(KlarsichtError):
    """Correction that harms more than its bound allows."""

    exit_code = 7


class EffectRemains(KlarsichtError):
    """Artifact, or reliance on surroundings, that is not shown to be used, or that no correction takes away."""

    exit_code = 8


class OutOfMemory(KlarsichtError):
    """Memory that ran short; says nothing of the image or the model at hand."""

    exit_code = 9


class Unreachable(KlarsichtError):
    """Image that was there when its corpus was opened, and that its disk or store does not give now."""

    exit_code = 11


class ProgramFailed(KlarsichtError):
    """Code of a user, or its device, that fails on a test image or one that worked before, too."""

    exit_code = 12


class TooManySkipped(KlarsichtError):
    """More images without a result than may be."""

    exit_code = 13


class AlarmRaised(KlarsichtError):
    """Finding for which a pipeline stops; the exit code is that of its cause, from 20."""

    exit_code = 20

    def __init__(
        self, what: str, *, got: object = None, rule: str = "", remedy: str = "", exit_code: int = 20
    ) -> None:  # fmt: skip
        super().__init__(what, got=got, rule=rule, remedy=remedy)
        self.exit_code = exit_code


class EngineFailed(KlarsichtError):
    """Cluster whose scheduler does not answer, or no longer."""

    exit_code = 14


class ShareMade(KlarsichtError):
    """Share of a step that is made, while those of other shards are not; no fault."""

    exit_code = 0


class OutputClosed(KlarsichtError):
    """Standard output whose reader has ended; the exit code is the one that a shell tells of SIGPIPE, 128 + 13."""

    exit_code = 141


VALUE: Final = r"\d+(?:\.\d+)?|[A-Z]+(?:[,/][A-Z]+)*\b|auto|drop|label|predicted|concept|euclidean"
OPTION: Final = re.compile(rf"(`[^`]*`)|(?<![\w-])--([a-z][a-z-]*)(?: ({VALUE}))?")
"""A command in backticks, or an option, with its value where one follows."""
ARGUMENTS: Final = {"class": "name", "no-parts": "parts=False", "trust": "with audit.trusted_code():"}
"""Options whose argument in Python has another name."""


def as_arguments(text: str) -> str:
    """Name the options in a text as arguments in Python: "lower --max-skipped" becomes "lower `max_skipped`". What
    stands in backticks is a whole command, and stays."""

    def replace(match: re.Match[str]) -> str:
        command, option, value = match.groups()
        if command is not None:
            return str(command)
        name = ARGUMENTS.get(option, option.replace("-", "_"))
        if value is None:
            return f"`{name}`"
        return f'`{name}="{value}"`' if value.islower() else f"`{name}={value}`"

    return OPTION.sub(replace, text)


@contextmanager
def naming_arguments() -> Iterator[None]:
    """Let errors that leave the context name arguments, for a caller in Python."""
    try:
        yield
    except KlarsichtError as error:
        error.in_python = True
        raise


FEW_NAMES: Final = 8  # known names that are all listed


def unknown_name(kind: str, name: str, candidates: Iterable[str]) -> UsageError:
    """Make the error of a failed look-up; it lists names that are part of this one and near matches, and all known
    names where these are few or none is near."""
    names = sorted(set(candidates))
    parts = [known for known in names if len(known) > 3 and known in name]
    near = list(dict.fromkeys((*parts, *difflib.get_close_matches(name, names, n=3, cutoff=0.5))))[:3]
    questions = [f"Did you mean {' or '.join(near)}?"] if near else []
    remedy = " ".join([*questions, f"Known: {', '.join(names)}."] if len(names) <= FEW_NAMES or not near else questions)
    return UsageError(f"unknown {kind}", got=repr(name), remedy=remedy)
