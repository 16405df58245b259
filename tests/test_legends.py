"""Letters of axes: shapes in docstrings of a wing use the letters that the docstring of the wing itself names."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "klarsicht"
SHAPE = re.compile(r"\(((?:[A-Z]|[a-z]|\d+)(?:, (?:[A-Z]|[a-z]|\d+))*,?)\)")


def legend(wing):
    return set(
        re.findall(
            r"^    ([A-Z])   \S", ast.get_docstring(ast.parse((SOURCE / wing / "__init__.py").read_text())), re.M
        )
    )


def docstrings(text):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def letters(text):
    """Capital letters of shapes such as (B, C, H, W); a call or a pair of points is none."""
    shapes = [found for found in SHAPE.findall(text) if "," in found]
    return {axis for shape in shapes for axis in re.findall("[A-Z]", shape)}


@pytest.mark.parametrize("wing", ["audit", "burst"])
def test_every_axis_in_a_docstring_stands_in_the_legend_of_its_wing_and_none_stands_there_for_nothing(wing):
    written = {}
    for file in (SOURCE / wing).rglob("*.py"):
        for text in docstrings(file.read_text()):
            for letter in letters(text):
                written.setdefault(letter, file.name)
    known = legend(wing)
    assert {letter: file for letter, file in written.items() if letter not in known} == {}
    assert known == set(written)


def test_letters_are_those_of_shapes():
    assert letters("maps (n, G, G), float (B, C, H, W), (K,); f(x, y), (2, 3), (No, this)") == set("GBCHWK")
