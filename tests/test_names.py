"""Names and first words: a class has one meaning in a wing, a function is a verb or a term, no bare participle, and a
docstring begins with its term and not with a question."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

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
    "clustering", "embed", "embedding", "finetuned", "nothing", "opening", "ranking", "rendering", "ringing",
    "screening", "whitening",
}  # fmt: skip
KEPT = {
    "applied": "of a correction, which users write: `with correction.applied(module)`",
    "counted": "of a test within a class, whose words are being revised",
    "shared": "of selected detections, whose words are being revised",
    "_cleaning": "a section of the doctor",
    "_missing": "a section of the doctor",
    "_embedded": "a kernel that is cached by the hash of its source",
}

KEPT_QUESTIONS = {("src/klarsicht/audit/data_cleaning/data_artifacts.py", "carries")}  # is being revised


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


@pytest.mark.parametrize("wing", ["audit", "burst", "ground", "numerics", "explorer", "cli"])
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
    assert {place: word for place, word in words.items() if word in QUESTIONS and place not in KEPT_QUESTIONS} == {}


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
