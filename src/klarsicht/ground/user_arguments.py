"""Arguments that a user gives a public function, checked against the annotations of the function."""

from __future__ import annotations

import inspect
import math
import operator
import typing
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache, wraps
from numbers import Real
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, ParamSpec, TypeVar, Union, cast, get_args, get_origin

import numpy as np
from PIL import Image

from klarsicht.ground.errors import UsageError, naming_arguments
from klarsicht.ground.names import describe_value
from klarsicht.ground.user_paths import as_path

P = ParamSpec("P")
R = TypeVar("R")
WORDS: Final = {
    str: "a text", Path: "a path", bool: "True or False", int: "an integer", float: "a finite number",
    Callable: "a function", Sequence: "a list", tuple: "a list", Image.Image: "a Pillow image",
}  # fmt: skip
NO_LISTS: Final = (str, bytes, Mapping, Set, PathLike)  # have items, or no order of them


class _Misfit(Exception):
    """Value that is of another kind."""


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function, or a constructor, so that it checks its arguments against its annotations: texts,
    paths, numbers, flags, functions, sequences of these, and instances of classes, whose attribute MADE_BY says which
    call returns one. Raises UsageError: in the call, for a value of another kind, a number that is not finite, or a
    path that no file can have, an argument that is missing, or one that it does not know. Errors that leave it name
    arguments in place of options."""
    signature = inspect.signature(function)

    def call_with(positional: tuple[Any, ...], by_name: dict[str, Any]) -> R:
        try:
            call, kinds = signature.bind(*positional, **by_name), _annotations(function)
        except TypeError as error:
            needed = (of for of, one in signature.parameters.items() if one.default is one.empty and of != "self")
            raise UsageError(
                f"wrong arguments of {function.__qualname__}", got=str(error).removeprefix("got "),
                rule=f"needed: {', '.join(needed) or 'none'}",
                remedy=f"Known: {', '.join(name for name in signature.parameters if name != 'self')}.",
            ) from error  # fmt: skip
        for name, value in call.arguments.items():
            call.arguments[name] = as_kind(name, value, kinds[name]) if name in kinds else value
        return function(*call.args, **call.kwargs)

    @wraps(function)
    def checked(*positional: P.args, **named: P.kwargs) -> R:
        with naming_arguments():
            returned = call_with(positional, named)
        return cast(R, _iterate(returned)) if isinstance(returned, Generator) else returned

    return checked


def _iterate(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    with naming_arguments():
        return (yield from steps)


def check_fields(record: Any) -> None:
    """Check the fields of a frozen dataclass as `check_arguments` does, in its `__post_init__`. Raises UsageError."""
    for name, kind in _annotations(type(record)).items():
        if get_origin(kind) is not typing.ClassVar:
            object.__setattr__(record, name, as_kind(name, getattr(record, name), kind))


_annotations: Callable[[Any], dict[str, Any]] = cache(typing.get_type_hints)


def as_kind(name: str, value: Any, kind: Any) -> Any:
    """Convert a value that is given under a name to the kind of an annotation. Raises UsageError: it is of another."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not all(map(_is_checked, kinds)):
        return value
    for one in kinds:
        with suppress(_Misfit):
            fit = _as_one_kind(name, value, one)
            if one is str and Path in kinds:
                as_path(f"argument {name}", value)
            return fit
    named = [one for one in kinds if one is not NoneType and (one is not str or Path not in kinds)]
    allowed = " or ".join(dict.fromkeys(WORDS.get(_class_of(one), _class_of(one).__name__) for one in named))
    classes = [one for one in named if _class_of(one) not in WORDS]
    remedy = " ".join(getattr(one, "MADE_BY", f"{one.__name__}(...) makes one.") for one in classes)
    raise UsageError(f"argument {name} must be {allowed}", got=describe_value(value), remedy=remedy)


def _class_of(kind: Any) -> Any:
    """Return the class of an annotation, such as `tuple` of `tuple[int, ...]`."""
    return get_origin(kind) or kind


def _is_checked(kind: Any) -> bool:
    """Tell whether values of a kind are checked here: not of Any, of protocols, and of arrays."""
    of = _class_of(kind)
    return isinstance(of, type) and not getattr(of, "_is_protocol", False) and of not in (Any, object, np.ndarray)


def _as_one_kind(name: str, value: Any, kind: Any) -> Any:
    """Convert a value to a kind that is no union. Raises _Misfit: it is of another kind; UsageError: an item of a
    sequence is of another kind, or a path that no file can have."""
    of = _class_of(kind)
    if of is Path and isinstance(value, str | PathLike):
        return as_path(f"argument {name}", value)
    if of in (Sequence, tuple) and isinstance(value, Iterable) and not isinstance(value, NO_LISTS):
        items, of_each = tuple(value), get_args(kind)
        if of is Sequence or of_each[-1] is Ellipsis:
            of_each = (of_each[0],) * len(items)
        if len(items) == len(of_each):
            return tuple(as_kind(f"{name}[{i}]", *one) for i, one in enumerate(zip(items, of_each, strict=True)))
    if of is int and not isinstance(value, bool | np.bool_):
        with suppress(TypeError):
            return operator.index(value)
    if (of is float and _is_finite(value)) or (of is Callable and callable(value)):
        return value
    if of is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if of not in (Path, Sequence, tuple, int, float, bool, Callable) and isinstance(value, of):
        return value
    raise _Misfit


def _is_finite(value: Any) -> bool:
    with suppress(OverflowError):  # an integer beyond floats
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return False
