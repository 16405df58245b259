"""Examples are few and the same in each run, so that a change is judged by what it changes; `make test-all` draws more,
nightly runs new ones.

The memory that a process of the tests holds is counted as that of a fresh process (`memory_of_a_fresh_process`).
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from tests.kept import KeptFolders

from klarsicht.audit.explanation.data.label_order import Order
from klarsicht.audit.verdicts.quantification import embedding_cache
from klarsicht.burst.data import photograph
from klarsicht.burst.denoising import pipeline
from klarsicht.ground.machine.memory import resident_bytes

ROOT = Path(__file__).parents[1]
FIRST_STATES = {}  # of the generators of modules, as importing a module leaves them
FRESH = 0.6e9  # bytes that a process of its own holds, torch and a network included

settings.register_profile("small", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("large", derandomize=True, deadline=None, max_examples=200)
settings.register_profile("new", print_blob=True, deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "small"))


@pytest.fixture(autouse=True, scope="session")
def memory_of_a_fresh_process():
    """Count what earlier tests left in this process as no more than FRESH bytes: the command has a process of its own.

    The scope is the session: a fixture of a module runs the command before any fixture of a single test is set up.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, photograph):
            patch.setattr(module, "resident_bytes", lambda: min(resident_bytes(), FRESH))
        yield


@pytest.fixture(autouse=True, scope="session")
def labels_in_any_order():
    """Let runs accept permuted labels: networks of the tests have random weights, and some permute labels by chance.

    The tests of `label_order` take the check back.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Order, "require_given", lambda order, names: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def cache_of_nobody(tmp_path_factory):
    """Keep embeddings in a folder of this test run."""
    folder = tmp_path_factory.mktemp("embeddings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_cache, "cache_folder", lambda: folder)
        yield


@pytest.fixture(autouse=True)
def numbers_of_its_own(request):
    """Let each test draw from its module's generator as the first one does, whatever the order of tests."""
    generator = getattr(request.module, "RNG", None)
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = FIRST_STATES.setdefault(request.module.__name__, bits.state)


@pytest.fixture(scope="session")
def kept(request):
    """Folders that outlive this test run."""
    root = request.config.rootpath / ".pytest_cache" / "d" / "kept"
    root.mkdir(parents=True, exist_ok=True)
    return KeptFolders(root)


def pytest_addoption(parser):
    parser.addoption(
        "--recent-first",
        action="store_true",
        help="run tests of the files that were changed last first: they fail first",
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--recent-first"):
        changes = times_of_changes()
        items.sort(key=lambda item: -max(changes.get(file, 0) for file in (item.path, module_of(item.path))))


def times_of_changes():
    """Return the time of the last commit that changed a file, by path; nothing without a repository."""
    command = ["git", "log", "--format=%x00%ct", "--name-only", "-n", "500"]
    log = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    changes = {}
    for commit in log.split("\0")[1:]:
        time, *names = commit.split("\n")
        for name in filter(None, names):
            changes.setdefault(ROOT / name, int(time))
    return changes


def module_of(test):
    """Return the path of the module that a file of tests mirrors: tests/a/test_b.py is of src/klarsicht/a/b.py."""
    inside = test.relative_to(ROOT / "tests")
    return ROOT / "src" / "klarsicht" / inside.with_name(inside.name.removeprefix("test_"))
