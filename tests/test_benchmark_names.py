"""The folder of a benchmark is where Python looks for modules first, so none may have the name of one that packages ask
for: numba imports `coverage` where there is one."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_no_benchmark_hides_an_installed_module(file):
    assert file.stem not in sys.stdlib_module_names | packages_distributions().keys()


def test_numba_is_imported_beside_the_benchmarks():
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import numba"
    subprocess.run([sys.executable, "-c", code], check=True)
