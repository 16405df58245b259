"""Help: whole summaries, every option once, examples that the commands take, near names, shell completion."""

import re
import shlex

import pytest
import typer

from klarsicht.cli.app import app, run
from klarsicht.cli.help_pages import EXAMPLES, OPTION_GROUPS


def commands(group=None, words=()):
    """Yield every command with its words, walked in typer's own tree."""
    for name, one in (group or typer.main.get_command(app)).commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*words, name))
        else:
            yield " ".join((*words, name)), one


COMMANDS = dict(commands())


def test_each_command_has_an_example_and_each_example_a_command():
    assert list(EXAMPLES) == list(COMMANDS)


@pytest.mark.parametrize("words", EXAMPLES)
def test_the_command_takes_its_example(words):
    """Parsed by typer, the example gives every word to an argument or an option."""
    name, *arguments = shlex.split(EXAMPLES[words])
    assert name == "klarsicht" and arguments[: len(words.split())] == words.split()
    command = COMMANDS[words]
    given = command.make_context(words, arguments[len(words.split()) :]).params
    texts = [text for value in given.values() for text in (value if isinstance(value, list | tuple) else [value])]
    for word in arguments[len(words.split()) :]:
        assert word.startswith("-") or any(str(text) in {word, word.rstrip("/"), f"{word}.0"} for text in texts), word


@pytest.mark.parametrize("words", EXAMPLES)
def test_help_shows_every_option_once_and_then_the_example(words, capsys):
    assert run([*words.split(), "-h"]) == 0
    short = capsys.readouterr().out
    assert run([*words.split(), "--help"]) == 0
    assert capsys.readouterr().out == short
    *_, example = short.splitlines()
    assert example.strip() == EXAMPLES[words]
    body = short[: short.index("Example:")]
    assert not re.search(r"\]\s+\[default:", body)  # a default stands once
    assert {*re.findall(r"(?<= )<(.*?)>(?= |$)", body, re.MULTILINE)} <= {"text", "integer", "number", "path"}
    for param in COMMANDS[words].params:
        for flag in (*param.opts, *param.secondary_opts):
            if flag.startswith("--"):
                assert len(re.findall(rf"^  (?:-\w, )?(?:--[\w-]+ / )?{flag}(?![\w-])", body, re.MULTILINE)) == 1, flag


def test_no_group_lists_an_option_that_no_command_has_or_twice():
    known = {flag for command in COMMANDS.values() for param in command.params for flag in param.opts}
    flags = [flag for group in OPTION_GROUPS.values() for flag in group]
    own = {"--help", "--version", "--install-completion", "--show-completion"}  # of the whole program
    assert set(flags) <= known | own and len(flags) == len(set(flags))


@pytest.mark.parametrize("group", [[], ["audit"], ["burst"]])
def test_no_summary_is_cut(group, capsys):
    assert run([*group, "--help"]) == 0
    summaries = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(summaries) >= 3 and all(line.endswith(".") and not line.endswith("...") for line in summaries)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["denoise"], ["burst denoise"]),
        (["audit", "denoise"], ["burst denoise"]),
        (["audit", "quantfy"], ["audit quantify"]),
        (["check"], ["audit check", "burst check"]),
        (["burts"], ["burst"]),
    ],
)
def test_a_wrong_command_is_answered_by_the_nearest(words, meant, capsys):
    assert run(words) == 2
    printed = capsys.readouterr().err
    assert f"Did you mean {' or '.join(map(repr, meant))}? See " in printed and printed.count("\n") == 1


def test_a_word_like_no_command_is_not_answered_by_one(capsys):
    assert run(["xyzzy"]) == 2
    assert "mean" not in capsys.readouterr().err


def test_a_shell_completes_commands_and_options(monkeypatch, capsys):
    """As bash asks: the words so far and the place of the cursor in the environment."""
    monkeypatch.setattr("sys.argv", ["klarsicht"])
    monkeypatch.setenv("_KLARSICHT_COMPLETE", "complete_bash")
    for typed, completions in (
        ("klarsicht audit q", ["quantify"]),
        ("klarsicht audit run --met", ["--metric", "--method"]),
    ):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
        assert run([]) == 0
        assert capsys.readouterr().out.split() == completions
