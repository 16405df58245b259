"""The examples run, and what they print is true of what they made."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_tag_on_the_threes_is_found(tmp_path):
    command = [sys.executable, str(EXAMPLES / "clever_hans_digits.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    cluster, tags = (int(share) for share in re.search(r"tag: (\d+)% .* and (\d+)%", done.stdout).groups())
    assert cluster >= 90
    assert tags >= 90
    assert (tmp_path / "run" / "report.html").is_file()
