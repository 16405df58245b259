"""`klarsicht` and `python -m klarsicht`."""

from __future__ import annotations

import sys

from klarsicht.cli.app import run


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
