"""Examples are the same in each run, so that a change is judged by what it changes; nightly runs draw new ones.

The memory that a process of the tests holds is counted as that of a fresh process (`memory_of_a_fresh_process`).
"""

import os

import pytest
from hypothesis import settings

from klarsicht.burst.data import photograph
from klarsicht.burst.denoising import pipeline
from klarsicht.ground.machine.memory import resident_bytes

FRESH = 0.6e9  # bytes that a process of its own holds, torch and a network included

settings.register_profile("same", derandomize=True)
settings.register_profile("new", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True, scope="session")
def memory_of_a_fresh_process():
    """Count what earlier tests left in this process as no more than FRESH bytes: the command has a process of its own.

    The scope is the session: a fixture of a module runs the command before any fixture of a single test is set up.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, photograph):
            patch.setattr(module, "resident_bytes", lambda: min(resident_bytes(), FRESH))
        yield
