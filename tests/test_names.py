"""Names and first words: a class has one meaning in a wing, a function is a verb or a term, no bare participle, and a
docstring begins with its term and not with a question."""

import ast
import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest

from klarsicht import audit, bridge, burst

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "klarsicht"
QUESTIONS = {"how", "what", "where", "when", "which", "who", "whose", "why"}

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

IRREGULAR = {
    "apart", "born", "broken", "built", "chosen", "done", "drawn", "felt", "found", "frozen", "given", "gone", "heard",
    "held", "kept", "known", "left", "lost", "made", "meant", "met", "said", "seen", "sent", "shown", "spent", "taken",
    "thought", "told", "torn", "won", "worn", "written",
}  # fmt: skip
TERMS = {
    "annealing", "clustering", "drawing", "embed", "embedding", "finding", "finetuned", "inpainting", "logging", "need",
    "nothing", "opening", "ranking", "red", "rendering", "ring", "ringing", "rounding", "screening", "seed", "setting",
    "speed", "string", "training", "typing", "whitening",
}  # fmt: skip
LONG = 4  # lines from the first to the last use of a variable that a noun must name
KEPT_NAMES = {  # what is still named by a bare participle, with its number, which may fall and not rise
    "arguments": (191, "options and public keywords; masks and parts of arrays; `*.cleaning`, `*.corrections`"),
    "fields": (190, "columns, JSON keys and settings, whose names are stored; flags and parts of arrays"),
    "variables": (269, "renamed where their function is changed"),
}
PUBLIC_ARGUMENTS = {
    "affected": "of clean and evaluate: an option",
    "balanced": "of clean_surroundings and evaluate_surroundings: an option",
    "cleaned": "of training_weights and weighted_sampler: users write it",
    "observed": "of rank: users write it",
    "shown": "of ArrayTransform: users write it",
    "textured": "of TrainSettings: an option",
}
KEPT = {
    "applied": "of a correction, which users write: `with correction.applied(module)`",
    "_cleaning": "a section of the doctor",
    "_missing": "a section of the doctor",
}


def classes(code: str) -> list[str]:
    return [node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]


def repeated(root: Path) -> dict[str, list[str]]:
    """Files by the class names that more than one of them defines."""
    where = defaultdict(list)
    for file in sorted(root.rglob("*.py")):
        for name in classes(file.read_text()):
            where[name].append(str(file.relative_to(root)))
    return {name: files for name, files in where.items() if len(files) > 1}


def is_participle(name: str) -> bool:
    word = name.strip("_")
    return word not in TERMS and (word in IRREGULAR or re.fullmatch("[a-z]+(ed|ing)", word) is not None)


def participles(code: str) -> list[str]:
    """Functions of a module and methods of its classes that are named by a bare participle; no properties."""
    body = ast.parse(code).body
    members = [inner for node in body if isinstance(node, ast.ClassDef) for inner in node.body]
    functions = [node for node in (*body, *members) if isinstance(node, ast.FunctionDef)]
    return [
        one.name
        for one in functions
        if is_participle(one.name) and not any("property" in ast.unparse(mark) for mark in one.decorator_list)
    ]


def first_words(code: str, deep: bool) -> dict[str, str]:
    """First words, in lower case, of the docstring of a module, and where `deep` of its classes and functions."""
    tree = ast.parse(code)
    nodes = [tree, *(ast.walk(tree) if deep else ())]
    named = {getattr(node, "name", ""): ast.get_docstring(node) for node in nodes if isinstance(node, DOCUMENTED)}
    return {name: match[1].lower() for name, text in named.items() if (match := re.match(r"\W*(\w+)", text or ""))}


def participle_names(code: str) -> dict[str, list[str]]:
    """Arguments, fields and properties of classes, and variables of at least LONG lines, named by a bare participle."""
    found = defaultdict(list)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.arguments):
            every = (*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg)
            found["arguments"] += [one.arg for one in every if one is not None]
        elif isinstance(node, ast.ClassDef):
            fields = (one.target for one in node.body if isinstance(one, ast.AnnAssign))
            found["fields"] += [one.id for one in fields if isinstance(one, ast.Name)]
        elif isinstance(node, ast.FunctionDef):
            if any("property" in ast.unparse(mark) for mark in node.decorator_list):
                found["fields"].append(node.name)
            found["variables"] += long_variables(node)
    return {kind: [name for name in names if is_participle(name)] for kind, names in found.items()}


def long_variables(function: ast.FunctionDef) -> list[str]:
    """Variables of a function, without those of functions inside it, that are used over at least LONG lines."""
    lines, stored, nodes = defaultdict(list), set(), list(ast.iter_child_nodes(function))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name):
            lines[node.id].append(node.lineno)
            stored |= {node.id} if isinstance(node.ctx, ast.Store) else set()
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            nodes += ast.iter_child_nodes(node)
    return [name for name in sorted(stored) if max(lines[name]) - min(lines[name]) >= LONG]


@pytest.mark.parametrize("wing", ["audit", "burst", "bridge", "ground", "numerics", "explorer", "cli"])
def test_no_class_name_has_two_meanings_in_a_wing(wing):
    assert repeated(SOURCE / wing) == {}


def test_functions_are_named_by_verbs_or_terms():
    files = [file.relative_to(SOURCE) for file in SOURCE.rglob("*.py")]
    found = {name: str(file) for file in files for name in participles((SOURCE / file).read_text())}
    assert {name: file for name, file in found.items() if name not in KEPT} == {}
    assert KEPT.keys() <= found.keys(), "a name that is gone need not be kept"


@pytest.mark.parametrize(("folder", "deep"), [("src/klarsicht", True), ("tests", False), ("benchmarks", False)])
def test_no_docstring_begins_with_a_question(folder, deep):
    """Predicates may begin with "whether"; of tests and benchmarks only modules are read."""
    files = (ROOT / folder).rglob("*.py")
    words = {(str(f.relative_to(ROOT)), name): w for f in files for name, w in first_words(f.read_text(), deep).items()}
    assert {place: word for place, word in words.items() if word in QUESTIONS} == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KEPT_NAMES)
def test_fewer_and_fewer_names_are_bare_participles(kind):
    names = {file: participle_names(file.read_text()).get(kind, []) for file in SOURCE.rglob("*.py")}
    listed = [f"{file.relative_to(SOURCE)}: {name}" for file, some in sorted(names.items()) for name in some]
    most, reason = KEPT_NAMES[kind]
    assert len(listed) <= most, f"name it by its noun; kept are {reason}\n" + "\n".join(listed)


def test_arguments_of_public_functions_are_nouns():
    found = set()
    for wing in (audit, burst, bridge):
        for name in wing.PUBLIC:
            if callable(thing := getattr(wing, name)):
                found |= {one for one in inspect.signature(thing).parameters if is_participle(one)}
    assert found == PUBLIC_ARGUMENTS.keys()


def test_what_breaks_the_rules_is_found(tmp_path):
    (tmp_path / "a.py").write_text("class Answers: pass\nclass A: pass\n")
    (tmp_path / "b.py").write_text("def f():\n    class A: pass\nclass Answers: pass\n")
    assert repeated(tmp_path) == {"Answers": ["a.py", "b.py"]}
    code = "def told(): pass\ndef read_told(): pass\nclass A:\n    def _merged(self): pass\n"
    code += "    @property\n    def used(self): pass\ndef embedding(): pass\ndef read():\n    def kept(): pass\n"
    assert participles(code) == ["told", "_merged"]
    code = '"""`How` it is."""\nclass A:\n    """Term."""\n    def f(self):\n        """Why."""\n'
    assert first_words(code, deep=True) == {"": "how", "A": "term", "f": "why"}
    assert first_words(code, deep=False) == {"": "how"}
    code = "def f(told, *, x):\n    kept = found = 1\n    def g(held): pass\n\n    return lambda seen: kept\n"
    code += "class A:\n    drawn: int\n    seed: int\n    @property\n    def marked(self): pass\n"
    assert participle_names(code) == {
        "arguments": ["told", "held", "seen"], "fields": ["drawn", "marked"], "variables": [],
    }  # fmt: skip
    assert participle_names(code.replace("\n\n", "\n\n\n"))["variables"] == ["kept"]
