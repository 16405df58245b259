"""Points inside a lasso, by the page's own script in Node.js, against the angle that the path winds around them."""

import json
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no Node.js")
def test_points_inside_are_those_that_the_path_winds_around():
    """A simple closed path winds once around the points inside it, and not at all around the others."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = 0.5 + 0.3 * np.sin(5 * angles)  # a star: not convex
    path = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
    points = rng.uniform(-1, 1, (2000, 2))
    ends = path[None] - points[:, None]
    turn = np.angle(np.exp(1j * np.diff(np.angle(ends @ [1, 1j]), axis=1, append=np.angle(ends[:, :1] @ [1, 1j]))))
    wanted = np.flatnonzero(np.abs(turn.sum(1)) > np.pi)
    script = files("klarsicht.explorer") / "static" / "lasso.js"
    code = (
        f"import {{ inside }} from {json.dumps('data:text/javascript;base64,' + _base64(script.read_bytes()))};"
        "let text = ''; for await (const part of process.stdin) text += part; const [points, path] = JSON.parse(text);"
        "console.log(JSON.stringify([inside(points, path), inside(points, path.slice(0, 2))]))"
    )
    told = subprocess.run(
        [NODE, "--input-type=module", "-e", code],
        input=json.dumps([points.ravel().tolist(), path.tolist()]),
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    found, nothing = json.loads(told.stdout)
    assert found == wanted.tolist() and nothing == []


def _base64(content):
    import base64

    return base64.b64encode(content).decode()
