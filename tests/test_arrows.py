"""The architecture: rooms, and what each may import.

A room is a folder of modules, or one module that stands alone. The audit has four storeys of rooms, `STOREYS`, each of
which sees only those below it. `ARROWS` below lists every room with the rooms and storeys that it may import, lowest
first; a room imports nothing that stands below it in the table, so nothing runs in a circle of rooms. A module outside
every room fails, and so does an import that the table does not allow: change the table with the code, and say why in a
decision note.

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

ARROWS = {
    "": (),
    # infrastructure of both wings; errors, the machine and what stands directly in `ground` are COMMON to all rooms
    "ground.errors": (),
    "ground.machine": (),
    "ground": (),
    "ground.pictures": (),
    "ground.run_folder": ("",),
    # pure functions of arrays, each with an oracle from outside
    "numerics": (),
    "numerics.statistics": (),
    "numerics.compiled": (),
    "numerics.erasure": (),
    "numerics.imaging": ("ground.pictures", "numerics.compiled"),
    "numerics.pixel_kernels": ("numerics.compiled",),
    "numerics.search": ("numerics.compiled",),
    "numerics.transport": ("numerics.compiled", "numerics.search"),
    "numerics.metrics": ("numerics.search", "numerics.transport"),
    "numerics.neighbours": ("numerics.search", "numerics.transport", "numerics.metrics"),
    "numerics.clustering": ("numerics.neighbours",),
    # the audit, in four storeys, each of which imports only those above it in this table
    # what was found: records, tables, words; knows no torch, no model, no image
    "audit.results": ("", "ground.pictures", "ground.run_folder", "numerics.statistics"),
    # from images to maps, clusters and a ranking
    "audit.explanation": (),
    "audit.explanation.data": ("ground.pictures",),
    "audit.explanation.file_rules": ("numerics.statistics", "audit.results", "audit.explanation.data"),
    "audit.explanation.networks": (),
    "audit.explanation.settings": (),
    "audit.explanation.engines": ("audit.explanation.settings",),
    "audit.explanation.executor": (),
    "audit.explanation.remote_units": ("ground.run_folder", "audit.explanation.engines", "audit.explanation.executor"),
    "audit.explanation.status": ("ground.run_folder",),
    "audit.explanation.models": ("ground.pictures", "audit.explanation.data", "audit.explanation.networks"),
    "audit.explanation.relevance": (
        "ground.pictures", "ground.run_folder", "numerics.imaging", "audit.explanation.data",
        "audit.explanation.networks", "audit.explanation.settings", "audit.explanation.models",
    ),
    "audit.explanation.spectral": (
        "ground.run_folder", "numerics.statistics", "numerics.imaging", "numerics.search",
        "numerics.transport", "numerics.neighbours", "numerics.clustering", "audit.results",
        "audit.explanation.data", "audit.explanation.settings", "audit.explanation.models",
    ),
    "audit.explanation.report": (
        "ground.pictures", "ground.run_folder", "audit.results", "audit.explanation.data",
        "audit.explanation.settings", "audit.explanation.models", "audit.explanation.relevance",
        "audit.explanation.spectral",
    ),
    "audit.explanation.steps": (
        "ground.run_folder", "audit.explanation.data", "audit.explanation.networks",
        "audit.explanation.settings", "audit.explanation.engines", "audit.explanation.executor",
        "audit.explanation.remote_units", "audit.explanation.models", "audit.explanation.relevance",
        "audit.explanation.spectral",
    ),
    "audit.explanation.doctor": (
        "ground.pictures", "numerics.statistics", "audit.results", "audit.explanation.data",
        "audit.explanation.file_rules", "audit.explanation.networks", "audit.explanation.settings",
        "audit.explanation.models", "audit.explanation.relevance", "audit.explanation.spectral",
        "audit.explanation.steps",
    ),
    "audit.explanation.pipeline": (
        "ground.run_folder", "audit.results", "audit.explanation.data", "audit.explanation.settings",
        "audit.explanation.engines", "audit.explanation.executor", "audit.explanation.models",
        "audit.explanation.relevance", "audit.explanation.spectral", "audit.explanation.report",
        "audit.explanation.steps",
    ),
    "audit.explanation.duplicates": (
        "ground.pictures", "ground.run_folder", "numerics.imaging", "audit.results", "audit.explanation.data",
        "audit.explanation.settings", "audit.explanation.engines", "audit.explanation.executor",
        "audit.explanation.report", "audit.explanation.steps",
    ),
    "audit.explanation.name_groups": (
        "ground.pictures", "ground.run_folder", "audit.results", "audit.explanation.data", "audit.explanation.models",
        "audit.explanation.steps",
    ),
    # is there an artifact, and does the model use it
    "audit.verdicts": (),
    "audit.verdicts.synthetic": ("ground.pictures", "audit.explanation"),
    "audit.verdicts.detectors": (
        "numerics.statistics", "numerics.imaging", "audit.results", "audit.explanation", "audit.verdicts.synthetic",
    ),
    "audit.verdicts.own_places": ("audit.explanation",),
    "audit.verdicts.pixel_changes": ("audit.explanation", "audit.verdicts.synthetic"),
    "audit.verdicts.interventions": (
        "ground.pictures", "numerics.statistics", "numerics.imaging", "audit.results", "audit.explanation",
        "audit.verdicts.synthetic", "audit.verdicts.detectors", "audit.verdicts.pixel_changes",
    ),
    "audit.verdicts.quantification": (
        "ground.pictures", "ground.run_folder", "numerics.statistics", "numerics.imaging",
        "numerics.clustering", "audit.results", "audit.explanation", "audit.verdicts.detectors",
        "audit.verdicts.own_places", "audit.verdicts.pixel_changes", "audit.verdicts.interventions",
    ),
    "audit.verdicts.content": (
        "ground.pictures", "ground.run_folder", "numerics.statistics", "numerics.imaging", "numerics.clustering",
        "audit.results", "audit.explanation", "audit.verdicts.interventions", "audit.verdicts.quantification",
    ),
    "audit.verdicts.forecast": (
        "ground.run_folder", "audit.results", "audit.explanation", "audit.verdicts.detectors",
        "audit.verdicts.quantification",
    ),
    "audit.verdicts.sensitivity": (
        "ground.run_folder", "audit.results", "audit.explanation",
        "audit.verdicts.synthetic", "audit.verdicts.detectors", "audit.verdicts.interventions",
        "audit.verdicts.quantification",
    ),
    # take it out, and prove it
    "audit.cleaning": (),
    "audit.cleaning.corrections": (
        "ground.run_folder", "numerics.statistics", "numerics.erasure", "numerics.neighbours",
        "audit.results", "audit.explanation", "audit.verdicts",
    ),
    "audit.cleaning.artifacts": (
        "ground.pictures", "ground.run_folder", "numerics.statistics", "numerics.imaging", "audit.results",
        "audit.explanation", "audit.verdicts", "audit.cleaning.corrections",
    ),
    "audit.cleaning.models": (
        "", "ground.pictures", "ground.run_folder", "numerics.statistics", "numerics.erasure", "numerics.clustering",
        "audit.results", "audit.explanation", "audit.verdicts", "audit.cleaning.corrections",
        "audit.cleaning.artifacts",
    ),
    "audit.cleaning.data": (
        "ground.pictures", "ground.run_folder", "numerics.imaging", "audit.results", "audit.explanation",
        "audit.verdicts",
        "audit.cleaning.corrections", "audit.cleaning.artifacts", "audit.cleaning.models",
    ),
    # the demonstration, and the public names, imported when they are asked for
    "audit.demo": (
        "numerics.statistics", "audit.results", "audit.explanation", "audit.verdicts",
        "audit.cleaning",
    ),
    "audit": ("audit.results", "audit.explanation", "audit.verdicts", "audit.cleaning"),
    # the burst: from raw frames to one clean photograph
    "burst.data": ("ground.pictures", "numerics.imaging"),
    "burst.align": ("numerics.compiled", "numerics.imaging", "burst.data"),
    "burst.files": ("", "ground.pictures", "numerics.imaging", "burst.data"),
    "burst.synthesis": ("ground.pictures", "numerics.compiled", "numerics.imaging", "burst.data"),
    "burst.quality": ("numerics.imaging", "burst.synthesis"),
    "burst.noise": ("numerics.imaging", "burst.data", "burst.align", "burst.files"),
    "burst.network": ("numerics.imaging", "numerics.pixel_kernels", "burst.data", "burst.align"),
    "burst.merging": (
        "numerics.compiled", "numerics.imaging", "numerics.pixel_kernels", "burst.data", "burst.align", "burst.noise",
        "burst.network",
    ),
    "burst.resolution": ("numerics.compiled", "numerics.imaging", "burst.data", "burst.align"),
    "burst.denoising": (
        "", "ground.pictures", "ground.run_folder", "numerics.compiled", "numerics.imaging", "burst.data",
        "burst.align", "burst.files", "burst.noise", "burst.network", "burst.merging", "burst.resolution",
    ),
    "burst.evaluation": (
        "ground.pictures", "numerics.compiled", "numerics.imaging", "burst.data", "burst.synthesis", "burst.quality",
        "burst.network",
    ),
    "burst.training": (
        "ground.pictures", "numerics.imaging", "burst.data", "burst.align", "burst.synthesis", "burst.quality",
        "burst.network",
    ),
    "burst": ("numerics.imaging", "burst.data", "burst.network", "burst.denoising", "burst.training"),
    # between the wings and the command line: a denoiser is audited, a corpus is denoised
    "bridge": (
        "", "ground.pictures", "ground.run_folder", "numerics.statistics", "numerics.imaging", "numerics.pixel_kernels",
        "numerics.clustering", "audit.results", "audit.explanation", "audit.cleaning", "burst.data", "burst.align",
        "burst.files", "burst.noise", "burst.network", "burst.merging", "burst.denoising",
    ),
    # the pages that only look; the command line
    "explorer": ("ground.pictures", "ground.run_folder", "numerics.imaging", "audit.results"),
    "cli": (
        "", "ground.run_folder", "numerics.statistics", "audit.results", "audit.explanation", "audit.verdicts",
        "audit.cleaning", "audit.demo", "burst.files", "burst.synthesis", "burst.noise", "burst.network",
        "burst.denoising", "burst.evaluation", "burst.training", "bridge", "explorer",
    ),
    "__main__": ("cli",),
}  # fmt: skip

STOREYS = ("audit.results", "audit.explanation", "audit.verdicts", "audit.cleaning")  # each sees only those before it
COMMON = ("ground.errors", "ground.machine", "ground")  # every room that stands below one of these may import it


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
    """The room of a module: the longest beginning of its name that the table has; "" for the package itself.

    A module that stands directly in `audit`, `burst` or `numerics` is in no room unless the table has its own name.
    """
    inside = module.partition(".")[2]
    if inside in ARROWS:
        return inside
    above = inside.rpartition(".")[0]
    while above and above not in ARROWS:
        above = above.rpartition(".")[0]
    return f"{inside} (no room)" if not above or above in ("audit", *STOREYS[1:], "burst", "numerics") else above


def broken_arrows(root: Path) -> list[str]:
    """Imports that the table does not allow, and modules outside every room."""
    stray = [f"{name}: in no room" for name in modules(root) if room(name).endswith("(no room)")]
    return stray + [f"{arrow}: {_breach(arrow)}" for arrow in arrows(root) if _breach(arrow)]


def allowed(here: str, there: str) -> bool:
    """Whether the table lets a room import another; the name of a wing stands for all of its rooms."""
    order = list(ARROWS)
    if there in COMMON and here in order:
        return order.index(there) < order.index(here)
    return any(there == one or (one and there.startswith(f"{one}.")) for one in ARROWS.get(here, ()))


def storey(name: str) -> int | None:
    """The number of the storey that a room of the audit is in, None of other rooms."""
    return next((i for i, one in enumerate(STOREYS) if name == one or name.startswith(f"{one}.")), None)


def _breach(arrow: Arrow) -> str:
    here, there = room(arrow.source), room(arrow.target)
    if here == there:
        return ""
    if (storey(there) or 0) > (storey(here) or 0) and storey(here) is not None:
        return "a storey sees only those below it"
    if allowed(here, there):
        return ""
    if here not in ARROWS or there not in ARROWS:
        return "an unknown room"
    if {here.split(".")[0], there.split(".")[0]} == {"audit", "burst"}:
        return "the wings never meet"
    if here == "explorer":
        return "only ground, numerics.imaging and audit.results may be seen from there"
    order = list(ARROWS)
    return "arrows point down" if order.index(there) > order.index(here) else f"{here} may not import {there}"


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
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(source.parent), os.environ.get("PYTHONPATH", "")])},
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


def load_all(root: Path, part: str) -> str:
    """Code that imports every module of a room."""
    names = [name for name in modules(root) if f"{name}.".startswith(f"{PACKAGE}.{part}.")]
    return "\n".join(f"import {name}" for name in names)


HEAVY = {"torch", "torchvision", "numba", "sklearn", "zennit"}


# This house


@pytest.mark.slow
def test_arrows_point_down_and_the_wings_never_meet():
    assert broken_arrows(SOURCE) == []


@pytest.mark.slow
def test_nothing_runs_in_a_circle():
    assert circle(SOURCE) == []


@pytest.mark.slow
def test_the_table_points_down_and_allows_nothing_that_nobody_needs():
    order = list(ARROWS)
    assert [
        (here, there) for here, some in ARROWS.items() for there in some if order.index(there) >= order.index(here)
    ] == []
    used = {(room(arrow.source), room(arrow.target)) for arrow in arrows(SOURCE)}
    used |= {(here, STOREYS[i]) for here, there in used if (i := storey(there)) is not None}
    assert [(a, b) for a, some in ARROWS.items() for b in some if (a, b) not in used] == []


def test_explorer_starts_without_torch():
    assert not HEAVY & imported(load_all(SOURCE, "explorer"), SOURCE)


def test_help_answers_without_heavy_libraries():
    code = f"sys.argv = ['{PACKAGE}', '--help']; from {PACKAGE}.__main__ import main; main()"
    assert not (HEAVY | {"zarr", "pyarrow", "scipy"}) & imported(code, SOURCE)


@pytest.mark.slow
def test_an_audit_loads_neither_verdicts_nor_cleaning():
    loaded = imported(f"import {PACKAGE}.audit.explanation.pipeline", SOURCE)
    above = tuple(f"{PACKAGE}.{name}" for name in STOREYS[2:])
    assert f"{PACKAGE}.audit.explanation.pipeline" in loaded
    assert [name for name in loaded if name.startswith(above)] == []


def test_results_are_read_without_torch():
    assert not HEAVY & imported(load_all(SOURCE, "audit.results"), SOURCE)


# Houses that break one rule each


def built(root: Path, **files: str) -> Path:
    """A package of the given modules: audit__report="..." is audit/report.py."""
    for name, text in {"__init__": "", **files}.items():
        file = root / PACKAGE / f"{name.replace('__', '/') if not name.startswith('__') else name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in {file.parent, *file.parents} & {root / PACKAGE, *(root / PACKAGE).rglob("*")}:
            (folder / "__init__.py").touch()
        file.write_text(text)
    return root / PACKAGE


SOUND = {
    "ground__errors": "",
    "ground__run_folder__store": "from klarsicht import __version__\nfrom klarsicht.ground.errors import StoreError",
    "numerics__erasure": "from ..ground import errors",
    "audit__explanation__spectral__clustering": "from klarsicht.numerics.clustering.spectral import embed",
    "numerics__clustering__spectral": "from klarsicht.ground import errors",
    "burst__network__unet": "import klarsicht.numerics.imaging.tone",
    "numerics__imaging__tone": "",
    "explorer__app": "from klarsicht.ground.run_folder.store import RunStore",
    "audit__cleaning__models__probes": "from klarsicht.audit.explanation.spectral import clustering",
    "audit__verdicts__quantification__units": "",
    "audit__explanation__networks__hooks": "",
    "cli__app": "def run():\n    from klarsicht.burst.network import unet",
}


def test_a_sound_house_passes(tmp_path):
    root = built(tmp_path, **SOUND)
    assert broken_arrows(root) == []
    assert circle(root) == []
    assert len(arrows(root)) == 9


@pytest.mark.parametrize(
    ("module", "text", "told"),
    [
        ("ground__run_folder__store", "from klarsicht.numerics import erasure", "arrows point down"),
        ("numerics__erasure", "import klarsicht.audit.explanation.spectral.clustering as s", "arrows point down"),
        ("numerics__erasure", "from klarsicht.numerics.imaging import tone", "arrows point down"),
        ("numerics__imaging__tone", "from klarsicht.numerics import erasure", "may not import"),
        ("audit__explanation__spectral__clustering", "from ....cli import app", "arrows point down"),
        ("audit__verdicts__quantification__units", "from klarsicht.audit.cleaning.models import probes", "a storey"),
        (
            "audit__explanation__spectral__clustering",
            "from klarsicht.audit.verdicts.quantification import units",
            "a storey",
        ),
        (
            "audit__explanation__spectral__clustering",
            "from klarsicht.audit.explanation.networks import x",
            "may not import",
        ),
        (
            "audit__explanation__spectral__clustering",
            "from klarsicht.burst.network.unet import Net",
            "the wings never meet",
        ),
        ("burst__network__unet", "from ...audit.spray import clustering", "the wings never meet"),
        ("burst__network__unet", "from klarsicht import audit", "the wings never meet"),
        ("explorer__app", "from klarsicht.numerics import erasure", "only ground"),
        ("explorer__app", "from klarsicht.audit.explanation.networks import hooks", "only ground"),
        (
            "audit__explanation__spectral__clustering",
            "def f():\n    from klarsicht.burst.network import unet",
            "inside a function: the wings never meet",
        ),
        (
            "audit__explanation__spectral__clustering",
            "f = lambda: __import__('klarsicht.burst')",
            "inside a function: the wings never meet",
        ),
        (
            "audit__explanation__spectral__clustering",
            "import importlib\nimportlib.import_module('klarsicht.cli.app')",
            "arrows point down",
        ),
        (
            "audit__explanation__spectral__clustering",
            "if TYPE_CHECKING:\n    from klarsicht.burst.network import unet",
            "the wings never meet",
        ),
        (
            "audit__explanation__spectral__clustering",
            "class A:\n    async def f(self):\n        import klarsicht.burst.network.unet",
            "inside a function",
        ),
        ("attic__box", "", "in no room"),
        ("audit__box", "", "in no room"),
        ("audit__explanation__box", "", "in no room"),
        ("audit__attic__box", "", "in no room"),
        ("__init__", "from klarsicht.ground import errors", "arrows point down"),
    ],
)
def test_a_broken_arrow_is_found(tmp_path, module, text, told):
    *others, found = broken_arrows(built(tmp_path, **SOUND | {module: text}))
    assert told in found
    assert all("in no room" in one for one in others)  # the folder of a stray module is in no room either
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
