"""A constant of a module has a name of its own in its wing, so that it says what it bounds wherever it is read."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "klarsicht"


def constants(text: str) -> list[str]:
    """Names in capitals that a module assigns; type variables of one letter are none."""
    found = []
    for node in ast.parse(text).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        found += [name for name in names if name.isupper() and len(name) > 1]
    return found


def repeated(root: Path) -> dict[str, list[str]]:
    """Files by the constants that more than one of them defines."""
    where = defaultdict(list)
    for file in sorted(root.rglob("*.py")):
        for name in constants(file.read_text()):
            where[name].append(str(file.relative_to(root)))
    return {name: files for name, files in where.items() if len(files) > 1}


@pytest.mark.parametrize("wing", ["audit", "burst"])
def test_no_constant_has_two_values_in_a_wing(wing):
    assert repeated(SOURCE / wing) == {}


def test_a_name_of_two_constants_is_found(tmp_path):
    (tmp_path / "a.py").write_text("FEWEST, MOST = 2, 3\nT = TypeVar('T')\nlower = 1\n")
    (tmp_path / "b.py").write_text("FEWEST: Final = 5\nT = TypeVar('T')\nlower = 2\n\ndef f():\n    MOST = 1\n")
    assert repeated(tmp_path) == {"FEWEST": ["a.py", "b.py"]}
