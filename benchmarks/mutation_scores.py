"""Mutation scores of the quick tests and of all tests, on modules drawn at random over rooms.

    python -m pytest -m "not nightly" --cov=klarsicht --cov-context=test     # writes .coverage; pytest-cov
    python benchmarks/mutation_scores.py .coverage --seconds tests.json --out mutants.json    # cosmic-ray, coverage

A mutant is one change of one operator, constant or branch (operators of cosmic-ray; annotations are left out, which
nothing runs). It is met with the tests that run its line: the quick ones first, the slow ones where it survives those.
The sources are changed in a copy of the repository; each mutant has a process of its own, forked from one that has
imported the libraries. A mutant that takes LIMIT times the seconds of its tests counts as killed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAST_LINES = 60  # of a module that is drawn
LIMIT = 6
MOST = {"quick": 250, "slow": 40}  # tests that one mutant is met with, cheapest first


@dataclass(frozen=True)
class Mutant:
    """One occurrence of one operator in a module."""

    module: str
    operator: str
    occurrence: int
    line: int


def draw_modules(count: int, seed: int) -> list[str]:
    """Draw one module of each of `count` rooms, paths relative to the root."""
    rooms = defaultdict(list)
    for file in sorted((ROOT / "src/klarsicht").rglob("*.py")):
        if len(file.read_text().splitlines()) >= LEAST_LINES:
            rooms[file.parent].append(str(file.relative_to(ROOT)))
    rng = random.Random(seed)
    return [rng.choice(rooms[room]) for room in rng.sample(sorted(rooms), count)]


def lines_of_annotations(source: str) -> set[tuple[int, int]]:
    """Positions (line, column) of all nodes inside annotations."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.AST):
                found |= {(inner.lineno, inner.col_offset) for inner in ast.walk(part) if hasattr(inner, "lineno")}
                found |= {(part.lineno, column) for column in range(part.col_offset, part.end_col_offset)}
    return found


def list_mutants(module: str) -> list[Mutant]:
    """List all mutants of a module but those of annotations."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import Visitor, get_ast

    source = (ROOT / module).read_text()
    annotations = lines_of_annotations(source)

    class Positions(Visitor):
        def __init__(self, operator):
            self.operator, self.found = operator, []

        def visit(self, node):
            self.found += [start for start, _ in self.operator.mutation_positions(node)]
            return node

    mutants = []
    for name in sorted(plugins.operator_names()):
        if "Variable" in name:
            continue
        positions = Positions(plugins.get_operator(name)())
        positions.walk(get_ast(source))
        mutants += [Mutant(module, name, k, at[0]) for k, at in enumerate(positions.found) if at not in annotations]
    return mutants


def tests_by_line(coverage_file: str, module: str) -> dict[int, set[str]]:
    """Return the tests that run each line of a module."""
    import coverage

    data = coverage.CoverageData(coverage_file)
    data.read()
    file = next(name for name in data.measured_files() if name.endswith(module))
    return {line: {c.split("|")[0] for c in contexts if c} for line, contexts in data.contexts_by_lineno(file).items()}


def collect_tests(marks: str) -> set[str]:
    """Return the tests that a mark expression chooses."""
    addopts = "addopts=--import-mode=importlib"  # of the project say -q, and twice means no names
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", addopts, "-m", marks]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line for line in listing.splitlines() if "::" in line}


def meet(copy: Path, tests: Iterable[str], seconds: float) -> bool:
    """Run tests in a forked process; return whether one fails, or the process does not come to its end in time."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (int(20 + LIMIT * seconds),) * 2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest

        os.chdir(copy)
        sys.path[:0] = [str(copy / "src"), str(copy)]
        os.environ["PYTHONPATH"] = str(copy / "src")
        with contextlib.suppress(BaseException):
            os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
        os._exit(1)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (1, 2, 3)  # 2: the module cannot be imported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("coverage", help="coverage file with a context for each test")
    parser.add_argument("--seconds", type=Path, required=True, help="JSON: CPU seconds by test")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON lines: one for each mutant; continued where it exists"
    )
    parser.add_argument("--modules", type=int, default=10)
    parser.add_argument("--mutants", type=int, default=15, help="of a module")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    import numpy  # noqa: F401 - imported once, before the forks
    import pytest  # noqa: F401
    import torch
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    torch.set_num_threads(1)
    seconds = json.loads(asked.seconds.read_text())
    quick, all_tests = collect_tests("not slow and not nightly"), collect_tests("not nightly")
    copy = asked.out.with_suffix(".copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", ".pytest_cache", "*.egg-info"))
    known = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    met = {(one["module"], one["operator"], one["occurrence"]) for one in known}

    for module in draw_modules(asked.modules, asked.seed):
        mutants = list_mutants(module)
        by_line = tests_by_line(asked.coverage, module)
        everyone = set().union(*by_line.values())
        own = f"tests/{module.removeprefix('src/klarsicht/')}".replace(Path(module).name, f"test_{Path(module).name}")
        for mutant in random.Random(asked.seed).sample(mutants, min(asked.mutants, len(mutants))):
            if (module, mutant.operator, mutant.occurrence) in met:
                continue
            source = (ROOT / module).read_text()
            changed = mutate_code(source, plugins.get_operator(mutant.operator)(), mutant.occurrence)
            (copy / module).write_text(changed)
            running = sorted(
                (by_line.get(mutant.line) or everyone) & all_tests,
                key=lambda test: (not test.startswith(own), seconds.get(test, 1.0)),
            )
            killed = ""
            for kind in ("quick", "slow"):
                tests = [test for test in running if (test in quick) == (kind == "quick")][: MOST[kind]]
                if tests and meet(copy, tests, sum(seconds.get(test, 1.0) for test in tests)):
                    killed = kind
                    break
            (copy / module).write_text(source)
            with asked.out.open("a") as out:
                out.write(json.dumps(vars(mutant) | {"killed": killed}) + "\n")

    counts = defaultdict(Counter)
    for one in map(json.loads, asked.out.read_text().splitlines()):
        counts[one["module"]][one["killed"] or "nobody"] += 1
    for module, count in {**counts, "all": sum(counts.values(), Counter())}.items():
        n = count.total()
        print(f"{module}: {n} mutants; quick {count['quick'] / n:.2f}, all {(count['quick'] + count['slow']) / n:.2f}")


if __name__ == "__main__":
    main()
