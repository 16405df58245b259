"""Settings: frozen pydantic models that are read from TOML files and the command line, with errors that name a
setting."""

from __future__ import annotations

import inspect
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from klarsicht.ground.errors import InputError, UsageError, naming_arguments, unknown_name
from klarsicht.ground.machine.disk import require_regular_file
from klarsicht.ground.names import describe_value


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


PathText = Annotated[str, BeforeValidator(_as_text)]
"""Setting of a path, kept as text; in Python it may be given as a path."""


class Settings(BaseModel):
    """Base class of all settings: a subclass lists its fields, their types, bounds and defaults. The constructor raises
    pydantic's ValidationError for a wrong value, the methods a UsageError."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from a mapping of names to values; fields that are not given keep their defaults. Raises
        UsageError: an unknown name (near matches are listed), or a value that breaks its rule."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _usage_error(cls, error) from error

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read settings from a TOML file. Raises InputError: it cannot be read; UsageError: it is not TOML, or a wrong
        value."""
        return cls.read(path, {})

    @classmethod
    def read(cls, path: str | Path | None, options: Mapping[str, Any]) -> Self:
        """Read settings from a TOML file, if any, and override them by options that are not None. Raises as
        from_toml."""
        written = {} if path is None else _read_toml(Path(path))
        return cls.from_mapping(written | {name: value for name, value in options.items() if value is not None})

    def with_values(self, **changes: Any) -> Self:
        """Return a copy with some values replaced; a change of None is ignored. Raises as from_mapping."""
        kept = self.model_dump()
        return self.from_mapping(kept | {name: value for name, value in changes.items() if value is not None})

    def to_toml(self) -> str:
        """Write the settings as TOML text, which from_toml reads back, without None values."""
        return "\n".join(_lines(self.model_dump(mode="json"))) + "\n"


def require_shape(record: Any, shape: type[BaseModel]) -> None:
    """Check that a record read from JSON has the fields of a shape, each of its kind. Raises ValueError: it has not;
    the message names the first field, and what is wrong with it."""
    try:
        shape.model_validate(record, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the record"
        raise ValueError(f"{place}: {first['msg']}") from error


class PublicSettings(Settings):
    """Base class of settings that a person makes in Python: the constructor, too, raises a UsageError, and help() shows
    the descriptions of the fields."""

    @classmethod
    def __pydantic_init_subclass__(cls, **more: Any) -> None:
        told = (f"    {name}: {field.description or ''}" for name, field in cls.model_fields.items())
        cls.__doc__ = "\n".join([f"{(cls.__doc__ or '').rstrip()}\n\nSettings:", *told])
        kind, nothing = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
        cls.__signature__ = inspect.Signature([
            inspect.Parameter(name, kind, default=nothing if field.is_required() else field.get_default())
            for name, field in cls.model_fields.items()
        ])  # fmt: skip

    def __init__(self, *positional: Any, **values: Any) -> None:
        if positional:
            fields = ", ".join(f"{name}=..." for name in list(type(self).model_fields)[: len(positional)])
            got, remedy = f"{len(positional)} values", f"Write {type(self).__name__}({fields})."
            raise UsageError("settings without names", got=got, rule="each value needs its name", remedy=remedy)
        try:
            super().__init__(**values)
        except ValidationError as error:
            with naming_arguments():
                raise _usage_error(type(self), error) from error


def _read_toml(path: Path) -> dict[str, Any]:
    require_regular_file(path)
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read the settings", got=f"{path}: {error}", remedy="Check the path.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError("the settings are not valid TOML", got=f"{path}: {error}", rule="name = value") from error


def _usage_error(model: type[BaseModel], error: ValidationError) -> UsageError:
    """Convert the first fault to a UsageError; unknown names come first, since a misspelt one may also be missing."""
    faults = error.errors(include_url=False)
    first, *others = sorted(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    place, name = first["loc"], ".".join(map(str, first["loc"]))
    more = f" {len(others)} more of the settings are wrong." if others else ""
    if first["type"] == "extra_forbidden":
        return unknown_name("setting", name, _names_at(model, place[:-1]))
    if first["type"] == "missing":
        names = [".".join(map(str, fault["loc"])) for fault in faults if fault["type"] == "missing"]
        options = " and ".join("--" + name.replace("_", "-") for name in names)
        wrong = len(faults) - len(names)
        more = f" {wrong} more of the settings are wrong." if wrong else ""
        same = "the same names" if len(names) > 1 else "the same name"
        what = f"settings {', '.join(names)} are missing" if len(names) > 1 else f"setting {name} is missing"
        return UsageError(what, remedy=f"Give {options}, or {same} in a file for --settings.{more}")
    rule = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    remedy = f"Correct {name}.{more}"
    if first["type"] == "tuple_type":
        rule = "it should be a list or a tuple"
        if isinstance(first["input"], str):
            remedy = f"Write {name} = [{json.dumps(first['input'], ensure_ascii=False)}].{more}"
    return UsageError(f"setting {name}", got=describe_value(first["input"]), rule=rule, remedy=remedy)


def _names_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """List the names of the settings at a place in the nested model, each with the place as its prefix."""
    for step in place:
        if step in model.model_fields:
            model = next(_models(model.model_fields[str(step)].annotation), model)
    return [".".join(map(str, (*place, name))) for name in model.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models inside a type annotation, e.g. `In` of `list[In] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _lines(table: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield the TOML lines of a table: its own values first, since TOML cannot return to it after a nested table."""
    for key, value in table.items():
        if value is not None and not isinstance(value, dict):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ("", f"[{place}{_key(key)}]", *_lines(value, f"{place}{_key(key)}."))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items() if v is not None)}}}"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's strings are JSON's, but for DEL


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)
