"""A run with known content and the application about it, for tests of what the explorer answers."""

import pytest
from tests.explorer.made_run import write_run

from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.run_folder.decisions import DECISIONS_FILE


@pytest.fixture(scope="package")
def whole_run(tmp_path_factory):
    """Run that is only read, but for its decisions, which `app` takes away."""
    return write_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def app(whole_run):
    yield make_app(ExploredRun.of(whole_run, "ada"))
    (whole_run.path / DECISIONS_FILE).unlink(missing_ok=True)


@pytest.fixture
def explored(tmp_path):
    """Run of its own, that may be changed."""
    return ExploredRun.of(write_run(tmp_path), "ada")
