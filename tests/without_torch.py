"""The command line in a process in which every import of torch fails, for commands that need none."""

import sys

_CODE = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise SystemError(f"{name} is imported")

sys.meta_path.insert(0, Refusal())
from klarsicht.__main__ import main
main()
"""
WITHOUT_TORCH = (sys.executable, "-c", _CODE)
"""Words before those of a command; an import of torch ends it with a traceback, even one that forgives ImportError."""
