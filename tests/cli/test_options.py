"""Options made from settings: what help says is what the settings and the registries hold."""

import re

import pytest

from klarsicht.audit.cleaning.clean_model import CORRECTION_METHODS as CORRECTIONS
from klarsicht.audit.cleaning.clean_settings import CLOSED_NAMES, DIRECTION_NAMES, RETRAINED_NAMES, CleanSettings
from klarsicht.audit.corrections.closed_form import CLOSED
from klarsicht.audit.corrections.directions import DIRECTIONS
from klarsicht.audit.relevance.explainer import METHODS
from klarsicht.audit.settings import HEAD_RELEVANCE, METHOD_NAMES, METRIC_NAMES, AuditSettings
from klarsicht.audit.spectral.analysis import METRICS
from klarsicht.cli.app import run


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
        told = re.sub(r"\s+", "", field.description)
        assert told in printed, name
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert f"{told}[{field.default}]" in printed, name


@pytest.mark.parametrize("bare", [[], ["audit"], ["burst"]])
def test_a_bare_command_prints_its_help_line_by_line(bare, capsys):
    assert run(bare) == 0
    bare_help = capsys.readouterr()
    assert run([*bare, "--help"]) == 0
    assert bare_help.out.splitlines()[1:] == capsys.readouterr().out.splitlines()[1:]
    assert len(bare_help.out.splitlines()) > 8 and bare_help.err == ""
