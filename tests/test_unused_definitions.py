"""Every definition of the sources is used there, is public, or stands in the docs: what only tests use goes.

Names are counted, not bindings: a name that stands anywhere outside its own definition counts as used, in texts too,
for registries and templates look names up.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from klarsicht import audit, bridge, burst

ROOT = Path(__file__).parents[1]
PLAIN = {"abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "dataclass", "lru_cache",
         "no_grad", "override", "property", "staticmethod", "total_ordering", "check_arguments", "setter"}  # fmt: skip
"""Decorators that hand a definition to nobody; another one registers it, as a command or a validator."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(tree: ast.Module, own_classes: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """Functions, classes, methods, and constants of a module, but for those that a decorator registers, and methods of
    a class of another library's, which asks for them by their names."""
    for node in tree.body:
        if isinstance(node, Definition):
            yield from _of_definition(node, own_classes)
        for name in _assigned(node):
            yield name, node


def _of_definition(node: Definition, own_classes: set[str]) -> Iterator[tuple[str, ast.AST]]:
    if {_last_name(one) for one in node.decorator_list} <= PLAIN:
        yield node.name, node
    if isinstance(node, ast.ClassDef) and {_last_name(base) for base in node.bases} <= own_classes:
        for inner in node.body:
            if isinstance(inner, Definition):
                yield from _of_definition(inner, own_classes)


def _last_name(node: ast.expr) -> str:
    """The name of a decorator or base class: c of a.b.c(d) and of c[d]."""
    return re.findall(r"\w+", re.split(r"[([]", ast.unparse(node))[0])[-1]


def _assigned(node: ast.AST) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def uses(tree: ast.AST) -> Counter[str]:
    """Count the names that some code reads, and the words of its texts; docstrings are none."""
    told = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found[node.id] += 1
        elif isinstance(node, ast.Attribute):
            found[node.attr] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told:
            found.update(re.findall(r"\w+", node.value))
    return found


def unused(root: Path, known: set[str]) -> list[str]:
    """Definitions below a folder that no other code there reads, by file and name.

    Args:
        known: names that others may read.
    """
    trees = {file: ast.parse(file.read_text("utf-8")) for file in sorted(root.rglob("*.py"))}
    pages = (file.read_text("utf-8") for ending in ("j2", "html", "js") for file in root.rglob(f"*.{ending}"))
    total = sum(map(uses, trees.values()), Counter(re.findall(r"\w+", "\n".join(pages))))
    classes = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return [
        f"{file.relative_to(root)}: {name}"
        for file, tree in trees.items()
        for name, node in definitions(tree, classes)
        if total[name] == uses(node)[name] and name not in known and not re.fullmatch("__.*__", name)
    ]


def public_names() -> set[str]:
    """Names that the wings hand out, and the members of the classes among them."""
    things = [getattr(wing, name) for wing in (audit, burst, bridge) for name in wing.PUBLIC]
    return {name for one in things for name in (one.__name__, *(dir(one) if isinstance(one, type) else ()))}


def documented_names() -> set[str]:
    """Words in code of the docs."""
    pages = "\n".join(page.read_text("utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    return set(re.findall(r"\w+", "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`|^::: .*?$", pages, re.M | re.S))))


@pytest.mark.slow
def test_every_definition_is_used():
    assert unused(ROOT / "src" / "klarsicht", public_names() | documented_names() | {"_repr_html_"}) == []


CODE = '''
import typer

LIMIT, OTHER = 1, 2
app = typer.Typer()

def recursive(n):
    """Call recursive and LIMIT."""
    return recursive(n - 1) + OTHER

@app.command()
def serve():
    return Handler, Shown().area, getattr(app, "by_name")

class Handler(typer.Thing):
    def asked_for(self):
        return 1

class Shown:
    @property
    def area(self):
        return 1

    def rest(self):
        return 2

def by_name(): ...
'''


@pytest.mark.parametrize(
    ("known", "left"), [(set(), ["LIMIT", "recursive", "rest"]), ({"rest"}, ["LIMIT", "recursive"])]
)
def test_what_nothing_else_reads_is_found(tmp_path, known, left):
    (tmp_path / "a.py").write_text(CODE)
    assert unused(tmp_path, known) == [f"a.py: {name}" for name in left]
