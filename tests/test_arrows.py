"""The architecture: arrows point down, the wings never meet, nothing runs in a circle, and looking stays light.

    4   cli, __main__        explorer (ground only)
    3          bridge
    2       audit        burst
    1          numerics
    0           ground

Every import statement counts, wherever it stands: at the top, in a function, under TYPE_CHECKING, or as a constant
handed to importlib. Each rule has a small package that breaks it, so that no rule can fall silent.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "klarsicht"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

WORKSHOP = {"ground", "numerics", "audit", "burst", "bridge"}
ARROWS = {  # what each room may import, besides itself; the version stands in the package's own __init__
    "": set(),
    "ground": {""},
    "numerics": {"", "ground"},
    "audit": {"", "ground", "numerics"},
    "burst": {"", "ground", "numerics"},
    "bridge": {"", *WORKSHOP},
    "explorer": {"", "ground"},
    "cli": {"", *WORKSHOP, "explorer"},
    "__main__": {"", *WORKSHOP, "explorer", "cli"},
}


@dataclass(frozen=True)
class Arrow:
    """One import: the modules it joins, its line, and whether it stands inside a function."""

    source: str
    target: str
    line: int
    hidden: bool

    def __str__(self) -> str:
        place = " inside a function" if self.hidden else ""
        return f"{self.source}:{self.line} imports {self.target}{place}"


def module_name(file: Path, root: Path) -> str:
    parts = (PACKAGE, *file.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path) -> dict[str, Path]:
    return {module_name(file, root): file for file in sorted(root.rglob("*.py"))}


def arrows(root: Path) -> list[Arrow]:
    """All imports of the package's modules among themselves."""
    known = modules(root)
    return [arrow for name, file in known.items() for arrow in _arrows_of(name, file, known)]


def _arrows_of(name: str, file: Path, known: dict[str, Path]) -> list[Arrow]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: list[Arrow] = []

    def visit(node: ast.AST, hidden: bool) -> None:
        own = [target for target in _targets(node, package) if target.split(".")[0] == PACKAGE]
        found.extend(Arrow(name, _module_of(target, known), node.lineno, hidden) for target in own)
        inside = hidden or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(file.read_text("utf-8")), hidden=False)
    return found


def _targets(node: ast.AST, package: str) -> list[str]:
    """Dotted names that a statement imports; of `from a import b` it is a.b, be b a module or not."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        start = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{start}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in IMPORTERS:
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return []


IMPORTERS = {"import_module", "__import__"}


def _module_of(target: str, known: dict[str, Path]) -> str:
    """The longest known beginning: klarsicht.ground.errors of klarsicht.ground.errors.UsageError."""
    while target not in known and "." in target:
        target = target.rpartition(".")[0]
    return target


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def broken_arrows(root: Path) -> list[str]:
    """Imports that go up, or from wing to wing, or out of a room that nobody drew."""
    return [f"{arrow}: {_breach(arrow)}" for arrow in arrows(root) if _breach(arrow)]


def _breach(arrow: Arrow) -> str:
    here, there = room(arrow.source), room(arrow.target)
    if here == there or there in ARROWS.get(here, set()):
        return ""
    if here not in ARROWS or there not in ARROWS:
        return "an unknown room"
    if {here, there} == {"audit", "burst"}:
        return "the wings never meet"
    return "only ground may be seen from there" if here == "explorer" else "arrows point down"


def circle(root: Path) -> list[str]:
    """Modules that import each other in a circle, or nothing."""
    graph: dict[str, set[str]] = {name: set() for name in modules(root)}
    for arrow in arrows(root):
        if arrow.source != arrow.target:
            graph[arrow.source].add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def imported(code: str, source: Path) -> set[str]:
    """Names of the modules in a fresh interpreter after some code, with this source tree in front."""
    told = f"import sys\ntry:\n exec({code!r})\nexcept SystemExit: pass\nprint('\\n' + ' '.join(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", told],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source.parent)},
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


def load_all(root: Path, part: str) -> str:
    """Code that imports every module of a room."""
    return "\n".join(f"import {name}" for name in modules(root) if room(name) == part)


HEAVY = {"torch", "torchvision", "numba", "sklearn", "zennit"}


# This house


def test_arrows_point_down_and_the_wings_never_meet():
    assert broken_arrows(SOURCE) == []


def test_nothing_runs_in_a_circle():
    assert circle(SOURCE) == []


def test_explorer_starts_without_torch():
    assert not HEAVY & imported(load_all(SOURCE, "explorer"), SOURCE)


def test_help_answers_without_heavy_libraries():
    code = f"sys.argv = ['{PACKAGE}', '--help']; from {PACKAGE}.__main__ import main; main()"
    assert not (HEAVY | {"zarr", "pyarrow", "scipy"}) & imported(code, SOURCE)


# Houses that break one rule each


def built(root: Path, **files: str) -> Path:
    """A package of the given modules: audit__report="..." is audit/report.py."""
    for name, text in {"__init__": "", **files}.items():
        file = root / PACKAGE / f"{name.replace('__', '/') if not name.startswith('__') else name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text)
    return root / PACKAGE


SOUND = {
    "ground__errors": "",
    "ground__store": "from klarsicht import __version__\nfrom klarsicht.ground.errors import StoreError",
    "numerics__spectral": "from ..ground import errors",
    "audit__spray": "from klarsicht.numerics.spectral import embed",
    "burst__network": "import klarsicht.numerics.spectral",
    "bridge__strategies": "from klarsicht.audit import spray\nfrom klarsicht.burst import network",
    "explorer__app": "from klarsicht.ground.store import RunStore",
    "cli__app": "def run():\n    from klarsicht.bridge import strategies\n    from klarsicht.explorer import app",
}


def test_a_sound_house_passes(tmp_path):
    root = built(tmp_path, **SOUND)
    assert broken_arrows(root) == []
    assert circle(root) == []
    assert len(arrows(root)) == 10


@pytest.mark.parametrize(
    ("module", "text", "told"),
    [
        ("ground__store", "from klarsicht.numerics import spectral", "arrows point down"),
        ("numerics__spectral", "import klarsicht.audit.spray as s", "arrows point down"),
        ("audit__spray", "from klarsicht.bridge.strategies import x", "arrows point down"),
        ("audit__spray", "from ..cli import app", "arrows point down"),
        ("bridge__strategies", "from klarsicht.explorer import app", "arrows point down"),
        ("audit__spray", "from klarsicht.burst.network import Net", "the wings never meet"),
        ("burst__network", "from ..audit import spray", "the wings never meet"),
        ("burst__network", "from klarsicht import audit", "the wings never meet"),
        ("explorer__app", "from klarsicht.numerics import spectral", "only ground"),
        (
            "audit__spray",
            "def f():\n    from klarsicht.burst import network",
            "inside a function: the wings never meet",
        ),
        ("audit__spray", "f = lambda: __import__('klarsicht.burst')", "inside a function: the wings never meet"),
        ("audit__spray", "import importlib\nimportlib.import_module('klarsicht.cli.app')", "arrows point down"),
        ("audit__spray", "if TYPE_CHECKING:\n    from klarsicht.burst import network", "the wings never meet"),
        (
            "audit__spray",
            "class A:\n    async def f(self):\n        import klarsicht.burst.network",
            "inside a function",
        ),
        ("attic__box", "from klarsicht.ground import errors", "unknown room"),
        ("__init__", "from klarsicht.ground import errors", "arrows point down"),
    ],
)
def test_a_broken_arrow_is_found(tmp_path, module, text, told):
    (found,) = broken_arrows(built(tmp_path, **SOUND | {module: text}))
    assert told in found
    assert f"{PACKAGE}.{module.replace('__', '.')}".removesuffix(".init.") in found


@pytest.mark.parametrize(
    "files",
    [
        {"audit__a": "from klarsicht.audit import b", "audit__b": "from klarsicht.audit.a import x"},
        {"audit__a": "from . import b", "audit__b": "def f():\n    from .a import x"},
        {"audit__a": "from .b import x", "audit__b": "from .c import x", "audit__c": "from .a import x"},
        {"audit____init__": "from klarsicht.audit.a import x", "audit__a": "import klarsicht.audit"},
    ],
)
def test_a_circle_is_found(tmp_path, files):
    root = built(tmp_path, **SOUND)
    for name, text in files.items():
        (root / f"{name.replace('____init__', '/__init__').replace('audit__', 'audit/')}.py").write_text(text)
    assert len(circle(root)) >= 3  # its first module again at its end


def test_an_explorer_that_pulls_in_torch_is_found(tmp_path):
    (tmp_path / "torch.py").touch()
    root = built(
        tmp_path, ground__fit="def step():\n    import torch\nstep()", explorer__app="from klarsicht.ground import fit"
    )
    assert "torch" in imported(load_all(root, "explorer"), root)


def test_a_help_that_pulls_in_torch_is_found(tmp_path):
    (tmp_path / "torch.py").touch()
    root = built(tmp_path, __main__="def main():\n    import torch\n    raise SystemExit(0)")
    assert "torch" in imported(f"from {PACKAGE}.__main__ import main; main()", root)
