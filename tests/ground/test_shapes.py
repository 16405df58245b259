"""The axis legend. Oracles: jaxtyping with beartype, and an interpreter in which jaxtyping cannot be imported."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from klarsicht.ground import shapes


@jaxtyped(typechecker=beartype)
def pooled(maps: shapes.Maps, picture: shapes.Picture) -> shapes.Points:
    return np.zeros((len(maps), 2), np.float32)


def test_names_are_checked_where_a_test_asks():
    picture = np.zeros((4, 5, 3), np.uint8)
    assert pooled(np.zeros((7, 8, 8), np.float16), picture).shape == (7, 2)
    for maps, given in [
        (np.zeros((7, 8, 9), np.float16), picture),
        (np.zeros((7, 8, 8), np.int64), picture),
        (np.zeros((7, 8, 8)), picture[..., 0]),
        (np.zeros((7, 8, 8)), picture.astype(np.float32)),
    ]:
        with pytest.raises(TypeCheckError):
            pooled(maps, given)


def test_without_jaxtyping_they_are_numpy_arrays_and_nothing_heavy_is_imported():
    code = (
        "import sys; sys.modules['jaxtyping'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'jaxtyping' else find(name, *rest)\n"
        "import numpy; from klarsicht.ground import shapes as s\n"
        "assert s.Picture is s.Frames is s.Maps is s.Points is numpy.ndarray\n"
        "print([m for m in ('torch', 'jax', 'zarr', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_every_axis_of_a_name_stands_in_the_legend():
    tree = ast.parse(Path(shapes.__file__).read_text())
    written = [
        n.slice.elts[1].value for n in ast.walk(tree) if isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Tuple)
    ]
    axes = {axis for text in written if isinstance(text, str) for axis in text.split() if not axis.isdigit()}
    assert axes
    assert axes <= shapes.LEGEND.keys()
