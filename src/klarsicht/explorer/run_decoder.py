"""The user's function by which the corpus of a run was read, for pages that show its images."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import ImageError, ProgramFailed, Unreachable, UntrustedCode, UsageError
from klarsicht.ground.pictures.stored_images import call_decoder, load_decoder
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.trust import RecordedCode


@dataclass(frozen=True)
class RunDecoder:
    """Function from a file to a picture, called by one thread at a time: a user's code may know of no others.

    Attributes:
        spec: `package.module:callable` or `file.py:callable`; "" where files are decoded as they are.
        refusal: why it is not called: its code is not trusted. "" where it is called.
    """

    spec: str = ""
    refusal: str = ""
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, store: RunStore) -> RunDecoder:
        """Read the decoder of a run, and test once whether its code may run here, see `RecordedCode.require`."""
        spec = store.manifest["settings"].get("decode") or ""
        try:
            RecordedCode.of(store.path, store.manifest).require(spec or None)
        except UntrustedCode as error:
            return cls(spec, str(error))
        return cls(spec)

    def find_fault(self) -> str:
        """Import it, and return why images cannot be shown by it, "" where they can."""
        try:
            if self.spec and not self.refusal:
                load_decoder(self.spec)
        except UsageError as error:
            return str(error)
        return self.refusal

    def decode(self, file: Path) -> Any:
        """Return what it makes of a file, the file itself where there is none; raises ImageError where it fails, or may
        not be called."""
        if not self.spec:
            return file
        if self.refusal:
            raise ImageError(self.refusal)
        try:
            with self._turn:
                return call_decoder(self.spec, str(file), file.name)
        except (UsageError, Unreachable, ProgramFailed) as error:
            raise ImageError(error.what, got=error.got, rule=error.rule, remedy=error.remedy) from error
