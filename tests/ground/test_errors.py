"""The exception tree keeps its promises: exit codes as documented, four-part messages, safe between processes."""

import pickle
import re
from pathlib import Path

import pytest

from klarsicht.ground import errors


def subclasses(kind):
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in subclasses(child))]


TREE = {kind.__name__: kind for kind in subclasses(errors.KlarsichtError) if kind.__module__ == errors.__name__}


def test_every_exit_code_is_the_one_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text("utf-8")
    documented: dict[str, int] = {}
    for code, names in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", page, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            documented.setdefault(name, int(code))
    del documented["KeyboardInterrupt"]
    assert documented == {name: kind.exit_code for name, kind in TREE.items() if name != "KlarsichtError"}


def test_message_is_what_got_rule_remedy():
    error = errors.UsageError("kernel size", got=4, rule="must be odd", remedy="Try 3 or 5.")
    assert str(error) == "kernel size; got 4; must be odd. Try 3 or 5."
    assert str(errors.UsageError("no more to say")) == "no more to say"


def test_got_may_be_zero():
    assert str(errors.UsageError("workers", got=0)) == "workers; got 0"


@pytest.mark.parametrize("kind", TREE.values(), ids=TREE)
def test_survives_the_journey_between_processes(kind):
    error = kind("a", got=1, rule="b", remedy="c")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.what, copy.got, copy.rule, copy.remedy) == ("a", 1, "b", "c")
    assert str(copy) == str(error)


def test_an_error_that_is_quoted_brings_no_second_full_stop():
    told = errors.InputError("none can be used", got="no array. Scale it.", remedy="Check the data.")
    assert str(told) == "none can be used; got no array. Scale it. Check the data."


def test_unknown_name_lists_near_matches_else_all():
    assert str(errors.unknown_name("metric", "sinkorn", ["sinkhorn", "sliced"])).endswith(
        "Did you mean sinkhorn? Known: sinkhorn, sliced."
    )
    many = [f"metric{i}" for i in range(9)]
    assert str(errors.unknown_name("metric", "metric", many)).endswith("?")
    assert str(errors.unknown_name("metric", "xyz", ["b", "a"])).endswith("Known: a, b.")


def test_a_name_that_is_known_twice_is_proposed_once():
    assert str(errors.unknown_name("class", "redfox", ["red fox", "dam", "red fox"])) == (
        "unknown class; got 'redfox'. Did you mean red fox? Known: dam, red fox."
    )
