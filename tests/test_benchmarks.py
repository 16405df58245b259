"""Scripts of `benchmarks/` run by hand only: whatever they take from klarsicht must be there, after any renaming."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").rglob("*.py"))
MODULE = "klarsicht"


def is_there(module, name):
    inside = hasattr(module, "__path__") and find_spec(f"{module.__name__}.{name}") is not None
    return inside or hasattr(module, name)


def missing(text):
    """Names that a script imports from klarsicht, or reads from a module of it, and that are not there."""
    tree, modules, lost = ast.parse(text), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == MODULE:
            if find_spec(node.module) is None:
                lost.append(node.module)
                continue
            origin = import_module(node.module)
            for alias in node.names:
                if not is_there(origin, alias.name):
                    lost.append(f"{node.module}.{alias.name}")
                elif isinstance(found := getattr(origin, alias.name, None), ModuleType) or found is None:
                    modules[alias.asname or alias.name] = import_module(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if not is_there(module, node.attr):
                lost.append(f"{module.__name__}.{node.attr}")
    return lost


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_takes_from_klarsicht_is_there(script):
    assert missing(script.read_text()) == []


def test_lost_names_are_found():
    text = "from klarsicht.ground import seeding, lost_module\nfrom klarsicht.ground.seeding import generator, lost\n"
    assert missing(f"{text}seeding.generator\nseeding.gone\n") == [
        "klarsicht.ground.lost_module",
        "klarsicht.ground.seeding.lost",
        "klarsicht.ground.seeding.gone",
    ]
    assert missing("from klarsicht.nowhere import x") == ["klarsicht.nowhere"]
