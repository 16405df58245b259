"""The folder of a benchmark is where Python looks for modules first, so none may have the name of one that packages ask
for: numba imports `coverage` where there is one."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

FOLDERS = [Path(__file__).parents[1] / "benchmarks" / wing for wing in ("audit", "burst", "bridge")]
SCRIPTS = sorted(file for folder in FOLDERS for file in folder.glob("*.py"))
IMPORTABLE = sys.stdlib_module_names | packages_distributions().keys()


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.stem)
def test_no_benchmark_hides_an_installed_module(file):
    assert file.stem not in IMPORTABLE


def test_numba_is_imported_beside_the_benchmarks():
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in FOLDERS]!r}; import numba"
    subprocess.run([sys.executable, "-c", code], check=True)
