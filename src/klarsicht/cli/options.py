"""Options of the command line made from settings: name, help and default stand once, in the settings."""

from __future__ import annotations

from typing import Any

import typer

from klarsicht.ground.config import Settings


def option(settings: type[Settings], name: str, *flags: str, default: str | None = None) -> Any:
    """Make the option of one field: its description, and its default in brackets.

    Args:
        flags: in place of the field's own name.
        default: what stands in brackets in place of the field's default.
    """
    field = settings.model_fields[name]
    shown = default if default is not None else "" if field.is_required() else _written(field.default)
    return typer.Option(*flags, help=f"{field.description} [{shown}]" if shown else field.description)


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
