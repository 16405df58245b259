"""`klarsicht` and `python -m klarsicht`."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from klarsicht.cli.limited_memory import run_limited
from klarsicht.cli.short_memory import end
from klarsicht.ground.machine.operating_system import address_space_limit
from klarsicht.ground.progress import end_silences


def main() -> None:
    end(run_limited(_run))


def _run() -> int:
    with nullcontext() if address_space_limit() else end_silences():  # a thread takes addresses
        from klarsicht.cli.app import run

        return run(sys.argv[1:])


if __name__ == "__main__":
    main()
