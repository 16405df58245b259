"""A new run folder."""

import pytest

from klarsicht.ground.run_folder.store import RunStore

SETTINGS = {"top": 3, "metric": {"name": "sliced", "scales": (1, 2)}}
IDENTITY = {"corpus": "c0", "model": "m0"}


@pytest.fixture
def store(tmp_path):
    return RunStore.create(tmp_path / "run", settings=SETTINGS, identity=IDENTITY, partition=4, threads=1)
