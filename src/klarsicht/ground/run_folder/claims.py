"""Claims of processes on units of work in a shared folder: one process holds a claim, and a dead process loses it.

    FOLDER/<name>              a claim, created by an exclusive open: names the process that holds it, by a token
    FOLDER/<name>.done         the work of that name is complete
    FOLDER/pulses/<token>      a count that a living process raises every BEAT seconds
    FOLDER/takeover            locked while a claim of a dead process is taken over

A process counts as dead where it ended on this machine, or where its count did not change for EXPIRY seconds of the
observer's own clock: clocks of machines may differ."""

from __future__ import annotations

import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from klarsicht.ground.machine.disk import hold_lock, read_regular_file, translate_write_errors, write_atomically
from klarsicht.ground.machine.operating_system import machine_name, process_exists

BEAT = 10.0  # seconds between two counts of a process
EXPIRY = 120.0  # seconds; a network file system may show an old count for 60
DONE = ".done"


class Claims:
    """Claims of this process in a folder; `heartbeat` must be open while claims are held. A process whose count does
    not change for `expiry` seconds is dead."""

    def __init__(self, folder: Path, expiry: float = EXPIRY) -> None:
        self.folder, self.expiry, self.token = folder, expiry, uuid.uuid4().hex
        self._own = json.dumps({"token": self.token, "machine": machine_name(), "process": os.getpid()}).encode()
        self._held: set[str] = set()
        self._seen: dict[str, tuple[bytes, float]] = {}  # counts of other processes, and since when

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Raise this process's count while the context is open, then give its claims back. Raises DiskFull,
        StoreError."""
        pulse, ended = self.folder / "pulses" / self.token, threading.Event()
        with translate_write_errors(pulse):
            pulse.parent.mkdir(parents=True, exist_ok=True)
            pulse.write_bytes(b"0")

        def beat() -> None:
            count = 0
            while not ended.wait(min(BEAT, self.expiry / 4)):
                count += 1
                with suppress(OSError):  # a full disk or a lost connection may pass
                    pulse.write_bytes(str(count).encode())

        thread = threading.Thread(target=beat, daemon=True, name="pulse")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for name in [*self._held]:
                self.release(name)
            with suppress(OSError):
                pulse.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Take a claim that nobody holds, or a dead process held; tell whether this process holds it now. Raises
        DiskFull, StoreError: the folder cannot be written."""
        path = self.folder / name
        with translate_write_errors(path):
            try:
                with path.open("xb") as file:
                    file.write(self._own)
                is_taken = True
            except FileExistsError:
                is_taken = self._take_over(path)
        if is_taken:
            self._held.add(name)
        return is_taken

    def holds(self, name: str) -> bool:
        """Tell whether this process still holds a claim: another one may have taken this process for dead."""
        return name in self._held and self._read(self.folder / name) == self._own

    def release(self, name: str) -> None:
        """Give a claim back, where this process still holds it."""
        if self.holds(name):
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        self._held.discard(name)

    def finish(self, name: str) -> None:
        """Record that the work of a claim is complete."""
        write_atomically(self.folder / f"{name}{DONE}", b"")

    def is_finished(self, name: str) -> bool:
        return (self.folder / f"{name}{DONE}").exists()

    def _take_over(self, path: Path) -> bool:
        if not self._is_dead(path):
            return False
        with hold_lock(self.folder / "takeover", patience=math.inf):
            if not self._is_dead(path):  # another process was faster
                return False
            write_atomically(path, self._own)
        return True

    def _is_dead(self, path: Path) -> bool:
        """Tell whether the holder of a claim is dead; not where the claim was given back meanwhile."""
        content = self._read(path)
        if content is None:
            return False
        try:
            holder = json.loads(content)
            token, machine, process = str(holder["token"]), str(holder["machine"]), int(holder["process"])
        except (ValueError, TypeError, LookupError):  # not written to its end
            return self._is_unchanged(path.name, content)
        if machine == machine_name() and not process_exists(process):
            return True
        return self._is_unchanged(token, self._read(self.folder / "pulses" / token) or b"")

    def _is_unchanged(self, key: str, now: bytes) -> bool:
        """Tell whether a count did not change for `expiry` seconds of looks at it."""
        before, since = self._seen.get(key, (None, 0.0))
        if before != now:
            self._seen[key] = (now, time.monotonic())
            return False
        return time.monotonic() - since > self.expiry

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            return read_regular_file(path)
        except OSError:
            return None
