"""Documentation that fails the build: every command, option, metric, method and setting is described, links lead
somewhere, and what the README tells to type is what the code takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from klarsicht.audit.explanation.relevance.explainer import METHODS
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.analysis import METRICS
from klarsicht.audit.verdicts.synthetic.artifacts import PLANTS
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MANUAL = "\n".join(page.read_text() for page in PAGES)


def commands(node=None, path=("klarsicht",)):
    """(words, parameters) of every command."""
    node = node or typer.main.get_command(app)
    if hasattr(node, "commands"):
        for name, child in node.commands.items():
            yield from commands(child, (*path, name))
    else:
        yield path, node.params


@pytest.mark.parametrize(("path", "parameters"), [pytest.param(*one, id=" ".join(one[0])) for one in commands()])
def test_every_command_and_option_is_documented(path, parameters):
    assert f"`{' '.join(path)}`" in MANUAL
    for parameter in parameters:
        for option in (o for o in parameter.opts if o.startswith("--")):
            assert f"`{option}" in MANUAL, f"{option} of {' '.join(path)}"


@pytest.mark.parametrize("name", [*METRICS, *METHODS, *PLANTS, *FAMILIES, *AuditSettings.model_fields])
def test_every_name_that_can_be_chosen_is_documented(name):
    assert f"`{name}`" in MANUAL


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_site_leads_to_every_page():
    """The navigation names each page of the documentation once."""
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


def test_commands_in_the_documentation_are_commands():
    known = {path[1:] for path, _ in commands()}
    fenced = "\n".join(re.findall(r"^```sh\n(.+?)^```", MANUAL, re.M | re.S))
    for line in re.findall(r"^klarsicht .+$", fenced, re.M):
        words = tuple(shlex.split(line)[1:3])
        assert words in known or words[:1] in known, line


def test_the_readme_names_the_targets_that_the_makefile_has():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()
