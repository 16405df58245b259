"""Declared lower bounds: none admits a version whose fault is known, and nightly, none lags behind its patches."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
DEVELOPMENT = {"test", "docs", "bench"}  # extras that users do not install
CALENDAR = 2000  # a first number above is a year: such a version has no patches
FEATURES = {"timm"}  # packages whose third number counts releases of all kinds


def bounds():
    """Least declared version of each package that users install."""
    listed = [*PROJECT["dependencies"]]
    listed += [
        line for extra, lines in PROJECT["optional-dependencies"].items() if extra not in DEVELOPMENT for line in lines
    ]
    found = {}
    for requirement in map(Requirement, listed):
        if requirement.name == PROJECT["name"]:  # an extra of others
            continue
        least = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        assert len(least) == 1, f"{requirement} has no lower bound"
        found.setdefault(requirement.name, []).append(least[0])
    return {name: max(versions) for name, versions in found.items()}


@pytest.mark.parametrize(
    ("package", "mended"),
    [
        ("torch", "2.6"),  # CVE-2025-32434: torch.load(weights_only=True) runs code
        ("torch", "2.10"),  # CVE-2026-24747: it writes out of bounds
        ("transformers", "5.3"),  # CVE-2026-4372: a config.json names a kernel that is fetched and run
        ("pillow", "12.1.1"),  # CVE-2026-25990: a PSD file writes out of bounds
        ("rawpy", "0.27"),  # the first with LibRaw 0.22.1
        ("jinja2", "3.1.6"),  # CVE-2025-27516
    ],
)
def test_no_bound_admits_a_version_whose_fault_is_known(package, mended):
    """Oracle: the versions that the advisories name."""
    assert bounds()[package] >= Version(mended)


def test_torchvision_is_that_of_torch():
    """torchvision 0.(15 + n) is built for torch 2.n, as its table of releases says."""
    declared = bounds()
    assert declared["torchvision"].minor == declared["torch"].minor + 15


def test_rawpy_brings_the_libraw_that_its_bound_promises():
    rawpy = pytest.importorskip("rawpy")
    assert rawpy.libraw_version >= (0, 22, 1)


def newest_patch(package, least):
    """The newest release of the series of a version, X.Y.*, by pip."""
    command = [sys.executable, "-m", "pip", "index", "versions", package, "--disable-pip-version-check"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    released = re.search(r"^Available versions: (.+)$", printed, re.M)[1].split(", ")
    series = [v for v in map(Version, released) if not v.local and v.release[:2] == (least.major, least.minor)]
    return max(series, default=least)


@pytest.mark.nightly
@pytest.mark.parametrize(("package", "least"), sorted(bounds().items()))
def test_a_bound_is_the_newest_patch_of_its_series(package, least):
    """Faults are mended in patches; a bound that lags admits them. Asks the index that pip is configured for."""
    if package in FEATURES or least.major > CALENDAR:
        pytest.skip("its versions are no patches")
    assert least >= newest_patch(package, least)
