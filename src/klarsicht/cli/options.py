"""Options of the command line made from settings: name, help, range and default stand once, in the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.ground.config import Settings
from klarsicht.ground.ranges import LINES, WORKERS, Range, range_of
from klarsicht.ground.run_folder.shards import SHARD_HELP
from klarsicht.ground.trust import trusted_code

TRUST_HELP = "Run code inside a model file, run or correction from somebody else: pickles, programs, functions."


def option(settings: type[Settings], name: str, *flags: str, default: str | None = None) -> Any:
    """Make the option of one field, with other flags if given: its description, and its default, or another."""
    field = settings.model_fields[name]
    usual = default if default is not None else "" if field.is_required() else _format_default(field.default)
    told, interval = f"{field.description} [{usual}]" if usual else str(field.description), range_of(settings, name)
    if interval is not None:
        return number(interval, told, *flags)
    return typer.Option(*flags, help=told, show_default=not usual)


def number(interval: Range, description: str, *flags: str) -> Any:
    """Make the option of numbers in a range, told in the help; a number beyond it is an error that names the option."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else () if value is None else (value,):
            interval.require(param.opts[-1], one)
        return value

    text, bracket, default = description.partition(" [")
    told = f"{text} Range: {interval}.{bracket}{default}"
    return typer.Option(*flags, help=told, callback=check, show_default=not bracket)


def _format_default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


Command = Callable[..., Any]


def add_options(options: Mapping[str, Any], make: Callable[[dict[str, Any]], Any]) -> Callable[[Command], Command]:
    """Make a decorator that adds options to a command. options: annotations by name; an option that is not given is
    None. make: function of the given values whose result becomes the command's keyword argument `settings`."""

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        further = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in options.items()
        ]

        @wraps(command)
        def complete_command(*arguments: Any, **values: Any) -> Any:
            given = {name: values.pop(name, None) for name in options}
            return command(*arguments, settings=make(given), **values)

        parameters = [*(one for one in own if one.name != "settings"), *further]
        complete_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        complete_command.__annotations__ = {one.name: one.annotation for one in parameters}
        return complete_command

    return decorate


def add_settings(
    settings: type[Settings],
    names: Sequence[str],
    flags: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """Make a decorator that adds options of settings to a command, and one of their TOML file. names: the fields.
    flags, defaults: by field, see `option`."""
    flags, defaults = flags or {}, defaults or {}
    options = {
        name: Annotated[
            _option_type(settings.model_fields[name].annotation) | None,
            option(settings, name, *((flags[name],) if name in flags else ()), default=defaults.get(name)),
        ]
        for name in names
    }

    def read(given: dict[str, Any]) -> Settings:
        file = given.pop("settings")
        return settings.read(file, {name: None if value in ([], ()) else value for name, value in given.items()})

    return add_options({**options, "settings": SettingsFile}, read)


def _option_type(annotation: Any) -> Any:
    """Return the type of an option's value: a list where a field holds several, and none of its validators."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kind = next(one for one in kinds if one is not NoneType)
    if get_origin(kind) is Annotated:
        return get_args(kind)[0]
    return list[_option_type(get_args(kind)[0])] if get_origin(kind) is tuple else kind  # type: ignore[misc]


def _trust(context: typer.Context, value: bool) -> bool:
    """Trust code until the command ends."""
    if value:
        context.with_resource(trusted_code())
    return value


Trust = Annotated[bool, typer.Option("--trust", help=TRUST_HELP, callback=_trust)]
"""Option of the commands that load a model or decode images; its callback is what it does."""
SettingsFile = Annotated[Path | None, typer.Option(help="A TOML file of settings; options override it.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder written by `audit run`.")]
Data = Annotated[str | None, typer.Option(help="Present place of the corpus, if it moved.")]
Since = Annotated[Path | None, typer.Option(help="An earlier run: show which findings are new, gone or the same.")]
Workers = Annotated[int, number(WORKERS, "Processes; results do not depend on it.")]
ShardText = Annotated[str | None, typer.Option(help=SHARD_HELP)]
EngineText = Annotated[str, option(AuditSettings, "engine")]
Device = Annotated[str, option(AuditSettings, "device")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Top = Annotated[int, number(LINES, "Rows to print.")]
