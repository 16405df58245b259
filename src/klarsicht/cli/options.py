"""Options of the command line made from settings: name, help, range and default stand once, in the settings."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from klarsicht.ground.config import Settings
from klarsicht.ground.ranges import Range, range_of
from klarsicht.ground.trust import trusted_code

TRUST_HELP = "Run code inside a model file, run or correction from somebody else: pickles, programs, functions."


def _trust(context: typer.Context, value: bool) -> bool:
    """Trust code until the command ends."""
    if value:
        context.with_resource(trusted_code())
    return value


Trust = Annotated[bool, typer.Option("--trust", help=TRUST_HELP, callback=_trust)]
"""Option of the commands that load a model or decode images; its callback is what it does."""


def option(settings: type[Settings], name: str, *flags: str, default: str | None = None) -> Any:
    """Make the option of one field: its description, and its default in brackets.

    Args:
        flags: in place of the field's own name.
        default: what stands in brackets in place of the field's default.
    """
    field = settings.model_fields[name]
    shown = default if default is not None else "" if field.is_required() else _format_default(field.default)
    told, interval = f"{field.description} [{shown}]" if shown else str(field.description), range_of(settings, name)
    return typer.Option(*flags, help=told) if interval is None else number(interval, told, *flags)


def number(interval: Range, description: str, *flags: str) -> Any:
    """Make the option of a number, or of several, in a range; a number beyond it is an error that names the option.

    Args:
        description: help; the range is added before a bracket with the default.
    """

    def check(param: typer.CallbackParam, value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else () if value is None else (value,):
            interval.require(param.opts[-1], one)
        return value

    text, bracket, default = description.partition(" [")
    return typer.Option(*flags, help=f"{text} Range: {interval}.{bracket}{default}", callback=check)


def _format_default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
