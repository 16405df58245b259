"""The exception tree keeps its promises: exit codes as documented, four-part messages, safe between processes."""

import ast
import inspect
import pickle
import re
from pathlib import Path

import pytest

from klarsicht import audit, bridge, burst
from klarsicht.ground import errors
from klarsicht.ground.config import Settings
from klarsicht.ground.user_arguments import check_arguments


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


@pytest.mark.parametrize(
    ("text", "in_python"),
    [
        ("Allow more by --max-skipped.", "Allow more by `max_skipped`."),
        ("Leave --label-separator and --label-columns out.", "Leave `label_separator` and `label_columns` out."),
        ("Use --workers 1, or --memory 2.5.", "Use `workers=1`, or `memory=2.5`."),
        ("Give --noise READ,SHOT.", "Give `noise=READ,SHOT`."),
        ("Give --device auto: the GPU.", 'Give `device="auto"`: the GPU.'),
        ("Name the class: --class.", "Name the class: `name`."),
        ("Run `klarsicht audit clean RUN --class NAME` first.", "Run `klarsicht audit clean RUN --class NAME` first."),
        ("a - b -- c", "a - b -- c"),
    ],
)
def test_to_a_caller_in_python_an_error_names_arguments_and_to_a_shell_options(text, in_python):
    @check_arguments
    def refuse(workers: int = 1) -> None:
        raise errors.UsageError("no", got=workers, remedy=text)

    with pytest.raises(errors.UsageError) as caught:
        refuse()
    assert str(caught.value) == f"no; got 1. {in_python}"
    assert caught.value.with_options == f"no; got 1. {text}"


def test_an_error_in_the_middle_of_a_generator_names_arguments_too():
    @check_arguments
    def refuse_later(workers: int = 1):
        yield workers
        raise errors.UsageError("no", remedy="Leave --workers out.")

    steps = refuse_later()
    assert next(steps) == 1
    with pytest.raises(errors.UsageError, match="Leave `workers` out"):
        next(steps)


NO_ARGUMENTS = {"fail-on", "port", "set", "exclusive", "camera", "iso", "hold-out", "launch", "since"}
"""Options of commands, and of the script in an export, that no public function has."""


def options_in_errors():
    """Yield the options that stand in texts of the sources outside of backticks, but for those of the command line, of
    a browser that prints, and of whole commands that are made of parts."""
    left_out = ("cli", "pdf.py", "words.py")
    for file in sorted(Path(errors.__file__).parents[1].rglob("*.py")):
        if not set(file.parts[-4:]) & set(left_out):
            tree = ast.parse(file.read_text("utf-8"))
            texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
            for text in (text for text in texts if isinstance(text, str)):
                bare = re.sub(r"`[^`]*`|\n.*", "", text, flags=re.DOTALL)
                yield from re.findall(r"(?<![\w-])--([a-z][a-z-]*)", bare)


def test_every_option_of_an_error_is_an_argument_or_a_setting_of_that_name():
    """The arguments are read from the public functions and the fields of all settings."""
    public = [getattr(wing, name) for wing in (audit, burst, bridge) for name in wing.PUBLIC]
    settings = {field for kind in subclasses(Settings) for field in kind.model_fields}
    known = settings.union(*(inspect.signature(one).parameters for one in public if callable(one)))
    options = {*options_in_errors()}
    assert len(options) > 40
    unknown = {one for one in options - errors.ARGUMENTS.keys() if one.replace("-", "_") not in known}
    assert unknown <= NO_ARGUMENTS
    assert {"name", "parts"} <= known
