"""`klarsicht` and `python -m klarsicht`."""

from __future__ import annotations

import sys

from klarsicht.cli.limited_memory import run_limited
from klarsicht.cli.short_memory import end


def main() -> None:
    end(run_limited(_run))


def _run() -> int:
    from klarsicht.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    main()
