"""Documentation that fails the build: every command, option, metric, method and setting is described, links lead
somewhere, and what the README tells to type is what the code takes."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
from tests.test_benchmarks import missing

from klarsicht.audit.explanation.relevance.explainer import METHODS
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.analysis import METRICS
from klarsicht.audit.results.verdict_lines import VERDICT_COLUMNS
from klarsicht.audit.results.words import NEXT, VerdictKind
from klarsicht.audit.verdicts.synthetic.artifacts import PLANTS
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.cli.app import ClickException, app
from klarsicht.ground.errors import UsageError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MANUAL = "\n".join(page.read_text() for page in PAGES)


COMMAND = typer.main.get_command(app)


def commands(node=COMMAND, path=("klarsicht",)):
    """(words, parameters) of every command."""
    if hasattr(node, "commands"):
        for name, child in node.commands.items():
            yield from commands(child, (*path, name))
    else:
        yield path, node.params


COMMANDS = list(commands())


@pytest.mark.parametrize(("path", "parameters"), [pytest.param(*one, id=" ".join(one[0])) for one in COMMANDS])
def test_every_command_and_option_is_documented(path, parameters):
    assert f"`{' '.join(path)}`" in MANUAL
    for parameter in parameters:
        for option in (o for o in parameter.opts if o.startswith("--")):
            assert f"`{option}" in MANUAL, f"{option} of {' '.join(path)}"


@pytest.mark.parametrize("name", [*METRICS, *METHODS, *PLANTS, *FAMILIES, *AuditSettings.model_fields])
def test_every_name_that_can_be_chosen_is_documented(name):
    assert f"`{name}`" in MANUAL


def anchors(page):
    """Anchors of a page: of its headings, as GitHub makes them, and those that it names itself."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(
        re.findall(r'<a id="([^"]+)">', text)
    )


def leads_somewhere(target, page):
    """Whether a link of a page, with or without an anchor, leads to a file and a heading of it."""
    path, _, anchor = target.partition("#")
    to = page.parent / path if path else page
    return to.exists() and (not anchor or anchor in anchors(to))


def test_every_column_and_verdict_of_a_class_is_explained():
    terms = {one.heading for one in VERDICT_COLUMNS.values() if one.heading not in ("class", "verdict")}
    terms |= {kind.label for kind in VerdictKind if kind in NEXT or kind is VerdictKind.NOTHING}
    explained = re.findall(r"^\| ([^|]+) \|", MANUAL, re.M)
    words = {part.strip() for row in explained for part in (row, *row.split(";"))}
    assert terms - words == set()


def test_every_term_of_the_glossary_is_one_that_klarsicht_uses():
    files = (file for file in (ROOT / "src").rglob("*") if file.suffix in (".py", ".j2", ".js"))
    sources = "\n".join(file.read_text() for file in files).lower()
    cells = re.findall(r"^\| ([^|]+) \| (?!---)", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    terms = {re.sub(r" \(.*", "", term).lower() for cell in cells for term in cell.split(", ")}
    assert len(terms) > 25 and {term for term in terms if term not in sources} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        assert "://" in target or leads_somewhere(target, page), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_definitions_that_a_page_shows_are_there(page):
    for path in re.findall(r"^::: klarsicht\.(\S+)$", page.read_text(), re.M):
        module, _, name = f"klarsicht.{path}".rpartition(".")
        assert hasattr(import_module(module), name), path


def test_the_site_leads_to_every_page():
    """The navigation names each page of the documentation once."""
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


def fenced(page, language):
    """Blocks of code of a page in one language."""
    return re.findall(rf"^```{language}\n(.+?)^```", page.read_text(), re.M | re.S)


def parse(line):
    """Parse a command line as the command itself would: names of options, numbers of arguments, types and ranges.

    Raises:
        ClickException, UsageError: it would be refused.
    """
    command, words, context = COMMAND, shlex.split(line, comments=True)[1:], None
    while hasattr(command, "commands"):
        context = command.make_context("klarsicht", [], parent=context, resilient_parsing=True)
        command = command.commands[words.pop(0)]
    command.make_context(line, words, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_those_that_klarsicht_takes(page):
    for line in re.findall(r"^klarsicht .+$", "\n".join(fenced(page, "sh")), re.M):
        parse(line)


@pytest.mark.parametrize("line", ["rank", "rank run --top some", "rank run --topp 3", "quantify run --level 2", "no"])
def test_other_commands_are_refused(line):
    with pytest.raises((ClickException, UsageError, KeyError)):
        parse(f"klarsicht audit {line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_a_page_takes_names_that_are_there(page):
    for block in fenced(page, "python"):
        assert missing(block) == []


def test_the_readme_names_the_targets_that_the_makefile_has():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()
