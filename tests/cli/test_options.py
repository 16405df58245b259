"""Options made from settings: what help says is what the settings and the registries hold."""

import inspect
import re
from typing import get_args, get_type_hints

import pytest
from typer.models import ArgumentInfo

from klarsicht.audit.cleaning.corrections.closed_form import CLOSED
from klarsicht.audit.cleaning.corrections.directions import DIRECTIONS
from klarsicht.audit.cleaning.models.clean_settings import CLOSED_NAMES, DIRECTION_NAMES, RETRAINED_NAMES, CleanSettings
from klarsicht.audit.cleaning.models.correction_choice import CORRECTION_METHODS as CORRECTIONS
from klarsicht.audit.explanation.relevance.explainer import METHODS
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE, METHOD_NAMES, METRIC_NAMES, AuditSettings
from klarsicht.audit.explanation.spectral.analysis import METRICS
from klarsicht.cli.app import app, run


def test_names_told_without_torch_are_those_of_the_registries():
    assert set(METRIC_NAMES) == set(METRICS)
    assert set(METHOD_NAMES) == {*METHODS, HEAD_RELEVANCE}
    assert tuple(CLOSED) == CLOSED_NAMES
    assert {*CLOSED_NAMES, *RETRAINED_NAMES} == set(CORRECTIONS)
    assert tuple(DIRECTIONS) == DIRECTION_NAMES


@pytest.mark.parametrize(("command", "settings"), [("run", AuditSettings), ("clean", CleanSettings)])
def test_help_tells_every_setting_with_its_default(command, settings, capsys):
    assert run(["audit", command, "--help"]) == 0
    printed = re.sub(r"\s+", "", capsys.readouterr().out)
    for name, field in settings.model_fields.items():
        told, _, bracket = re.sub(r"\s+", "", field.description).partition(".[")
        told = told.removesuffix(".") + "."
        assert told in printed and bracket in printed, name
        limits = {k: getattr(m, k) for m in field.metadata for k in ("ge", "gt", "le", "lt") if hasattr(m, k)}
        if limits:
            least, most = (f"{limits[end]:.10g}" for end in ("gt" if "gt" in limits else "ge", "le"))
            told += f"Range:above{least},atmost{most}." if "gt" in limits else f"Range:{least}to{most}."
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert f"{told}[{field.default}]" in printed, name


def numeric_options():
    """All options of all commands that take a number: words of the command, its required words, flag, help, kind."""
    found = []
    groups = [([], app), *(([group.name], group.typer_instance) for group in app.registered_groups)]
    for words, command in [(words, command) for words, group in groups for command in group.registered_commands]:
        name = command.name or command.callback.__name__.replace("_", "-")
        signature = inspect.signature(command.callback)
        hints, needed, numbers = get_type_hints(command.callback, include_extras=True), [], []
        for parameter in signature.parameters.values():
            kind, option = get_args(hints[parameter.name])[:2]
            words_given = (*(getattr(option, "param_decls", None) or ()), option.default)  # typer takes the first apart
            given = [word for word in words_given if isinstance(word, str) and word.startswith("--")]
            flag = given[-1] if given else f"--{parameter.name.replace('_', '-')}"
            if parameter.default is parameter.empty:
                needed += ["x"] if isinstance(option, ArgumentInfo) else [flag, "x"]
            words_of_kind = {one.__name__ for one in {kind, *get_args(kind), *sum(map(get_args, get_args(kind)), ())}
                             if isinstance(one, type)}  # fmt: skip
            if words_of_kind & {"int", "float"}:
                numbers.append((flag, option.help, "float" if "float" in words_of_kind else "int"))
        found += [([*words, name], needed, *number) for number in numbers]
    return found


def test_there_are_numbers_to_test():
    """As many as the help pages show."""
    assert len(numeric_options()) == 100


@pytest.mark.parametrize(("words", "needed", "flag", "told", "kind"), numeric_options())
def test_a_number_has_a_range_in_its_help_and_beyond_it_is_one_line(
    words, needed, flag, told, kind, tmp_path, monkeypatch, capsys
):
    """The ends are read from the help; no command gets as far as to look at its files, which do not exist."""
    monkeypatch.chdir(tmp_path)
    closed, above = (
        re.search(r" Range: ([\d.]+) to ([\d.]+)\.", told),
        re.search(r" Range: above ([\d.]+), (at most|below) ([\d.]+)\.", told),
    )
    assert closed or above, told
    least, most = (closed or above)[1], (closed or above)[closed.lastindex if closed else 3]
    lower = f"{int(least) - 1}" if closed and kind == "int" else f"{float(least) - 1e-3}" if closed else least
    upper = f"{int(most) + 1}" if kind == "int" else most if above and above[2] == "below" else f"{float(most) * 1.001}"
    for value in (lower, upper, *(["nan"] if kind == "float" else ["1" + "0" * 40])):
        assert run([*words, f"{flag}={value}", *needed]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1
        assert flag in printed.err and most in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bare", [[], ["audit"], ["burst"]])
def test_a_bare_command_prints_its_help_line_by_line(bare, capsys):
    assert run(bare) == 0
    bare_help = capsys.readouterr()
    assert run([*bare, "--help"]) == 0
    assert bare_help.out.splitlines()[1:] == capsys.readouterr().out.splitlines()[1:]
    assert len(bare_help.out.splitlines()) > 8 and bare_help.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), 9), (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 9), (KeyError(), 1)],
)
def test_memory_that_runs_short_anywhere_is_one_line(monkeypatch, capsys, error, code):
    def fail():
        raise error

    monkeypatch.setattr("klarsicht.burst.network.pretrained.list_networks", fail)
    if code == 1:
        with pytest.raises(KeyError):
            run(["burst", "weights"])
        return
    assert run(["burst", "weights"]) == code
    assert capsys.readouterr().err.startswith("klarsicht: memory ran short; got")
