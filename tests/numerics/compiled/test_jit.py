"""Source hashes tell one state of the sources from another; every part of a range is done once, and errors come out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from klarsicht.ground.errors import UsageError
from klarsicht.numerics.compiled import jit
from klarsicht.numerics.compiled.jit import SourceHash, compile_with, run_parallel

CALLER = """
import callee
from klarsicht.numerics.compiled.jit import SourceHash, compile_cached

@compile_cached
def add(source_hash, x):
    return callee.step(x)

print(add(SourceHash.of(__file__, callee.__file__), 1))
"""
CALLEE = (
    "from klarsicht.numerics.compiled.jit import compile_inlined\n@compile_inlined\ndef step(x):\n    return x + {}\n"
)


@pytest.mark.slow
def test_a_changed_callee_is_compiled_anew(tmp_path):
    """The trap: numba alone would answer 2 again, from the kernel kept for the caller's unchanged file."""
    (tmp_path / "caller.py").write_text(CALLER)
    env = dict(os.environ, NUMBA_CACHE_DIR=str(tmp_path / "kept"), PYTHONDONTWRITEBYTECODE="1")
    answers = []
    for step in (1, 10):
        (tmp_path / "callee.py").write_text(CALLEE.format(step))
        run = [sys.executable, "caller.py"]
        answers.append(subprocess.run(run, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout)
    assert answers == ["2\n", "11\n"]


def test_a_hash_is_known_by_its_sources(tmp_path):
    (tmp_path / "a").write_text("x")
    before = SourceHash.of(tmp_path / "a")
    assert before == SourceHash.of(tmp_path / "a")
    (tmp_path / "a").write_text("y")
    assert before != SourceHash.of(tmp_path / "a")


def test_a_kernel_whose_file_has_no_cache_is_compiled_all_the_same():
    """Numba refuses to cache it, as where no folder can be written."""
    function = eval("lambda x: x + 1")
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(function)
    assert compile_with(set())(function)(2) == 3


def test_all_kernels_are_cached_by_it():
    """Others would fail where no folder can be written."""
    files = [file for file in Path(jit.__file__).parents[2].rglob("*.py") if "cache=True" in file.read_text()]
    assert files == [Path(jit.__file__)]


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_every_part_is_done_once(threads, count):
    done = np.zeros(count, int)

    def job(first, last):
        done[first:last] += 1

    run_parallel(job, count, threads)
    np.testing.assert_array_equal(done, 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_errors_come_out(threads):
    def job(first, last):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_parallel(job, 9, threads)


def test_refuses_no_threads():
    with pytest.raises(UsageError, match="threads"):
        run_parallel(print, 3, 0)
