"""Inspection of a .pt2 file before torch.export loads it, which runs pickles, evaluates expressions and writes Python
code out of names in the file. Only what torch.export.save writes for a network of built-in operations passes. Records
are read by torch's own reader, since others may find another record by the same name in a crafted archive."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, Final

import torch

from klarsicht.ground.errors import ModelError, UntrustedCode
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.trust import TRUST_REMEDY

Record = Callable[[], bytes]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]*")
"""Text that is no code, wherever it is put: torch makes names of nodes and arguments those of variables."""

_FORMULA_WORDS: Final = (
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "Not", "And", "Or", "Eq",
    "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan",
    "GreaterThan", "Piecewise", "ExprCondPair", "floor", "ceiling", "sqrt", "oo", "int_oo", "True", "False", "true",
    "false", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator",
    "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
)  # fmt: skip
_ASSUMPTIONS: Final = (
    "positive", "nonnegative", "negative", "integer", "real", "finite", "zero", "nonzero", "precision",
)  # fmt: skip
_EXPRESSION: Final = re.compile(
    rf"(?:\s|\d++(?:\.\d++)?+|'[A-Za-z0-9_.]*+'|[-+*/%(),<>=&|~]|\b(?:s|ps|u|zf|zuf)\d++\b"
    rf"|\b(?:{'|'.join((*_FORMULA_WORDS, *_ASSUMPTIONS))})\b)*"
)
"""Formula of sizes, which sympy evaluates as Python."""

_HARMLESS: Final = frozenset(
    {f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "abs")}
    | {f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "getitem")}
    | {f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt")}
    | {f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not", "ite", "sum")}
    | {f"torch.ops.higher_order.wrap_with_{name}" for name in ("set_grad_enabled", "autocast")}
    | {"torch._C._set_grad_enabled"}
    | {f"torch.amp.autocast_mode._{name}_autocast" for name in ("enter", "exit")}
)
"""Operations on sizes, and what marks a part of a program, beside the operators of torch."""

_OPERATOR: Final = re.compile(r"torch\.ops\.(aten|prims|torchvision)\.([A-Za-z_]\w*)\.([A-Za-z]\w*)")
_CONTAINERS: Final = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_FREE: Final = ("as_string", "as_strings", "metadata", "guards_code", "verifiers", "torch_version")
"""Keys whose texts are no code: arguments, which become literals, and notes; guards are not checked, and so not run."""

_MAPPINGS: Final = (
    "tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "opset_version", "range_constraints",
    "treespec_namedtuple_fields", "as_string_to_argument", "config",
)  # fmt: skip
"""Keys of mappings, whose own keys are names that a program chooses."""

_LEGACY: Final = ("serialized_state_dict", "serialized_constants", "serialized_example_inputs")


def require_plain_program(file: IO[bytes], name: str) -> None:
    """Check that loading an open .pt2 file runs nothing that the file brings along; `name` is the file in an error.
    Raises UntrustedCode, which names the first pickle of more than tensors, compiled library, custom object, or program
    that calls, evaluates or names anything but built-in operators; and ModelError where it is no archive of
    torch.export."""
    archives = [records for read in (_torch_records, _zip_records) if (records := read(file)) is not None]
    if not archives:
        raise ModelError("the file holds no program of torch.export", got=name)
    for records in archives:
        for path, read in records.items():
            if (reason := _describe_code(path, read)) is not None:
                what = "a .pt2 file that would run code of its own as it is loaded"
                rule = "a program of torch.export.save with built-in operators runs none"
                raise UntrustedCode(what, got=f"{name}, {path}: {reason}", rule=rule, remedy=TRUST_REMEDY)


def _torch_records(file: IO[bytes]) -> dict[str, Record] | None:
    """Return the records that torch's reader finds, by their path in the archive; None where it finds no program."""
    file.seek(0)
    try:
        reader = torch._C.PyTorchFileReader(file)
        paths = reader.get_all_records()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return None
    return {path: partial(reader.get_record, path) for path in paths} if "archive_format" in paths else None


def _zip_records(file: IO[bytes]) -> dict[str, Record] | None:
    """Return the records of a file that torch 2.7 and before wrote; None of others."""
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        return None
    paths = archive.namelist()
    return {path: partial(archive.read, path) for path in paths} if "version" in paths else None


def _describe_code(path: str, read: Record) -> str | None:
    """Describe code that torch.export would run of a record; None where there is none."""
    folder, name, suffix = str(PurePosixPath(path).parent), PurePosixPath(path).name, PurePosixPath(path).suffix
    if path in ("archive_format", "archive_version", "byteorder", "version"):
        return None
    if path.startswith((".", "extra/", "extra_files/")):  # read as texts, or not at all
        return None
    if (folder, suffix) == ("models", ".json") or path == "serialized_exported_program.json":
        return _describe_program(read)
    if folder in ("data/weights", "data/constants") and name.endswith("_config.json"):
        return _describe_program(read)
    if re.fullmatch(r"data/weights/weight_\d+|data/constants/tensor_\d+", path):
        return None
    if suffix == ".pt" and folder in ("data/sample_inputs", "data/weights", "data/constants"):
        return _describe_pickle(read)
    if folder == "." and path.partition(".")[0] in _LEGACY:
        return _describe_pickle(read)
    return "a record that programs of built-in operators do not have"


def _describe_pickle(read: Record) -> str | None:
    """Describe a pickle that torch.export would read without limits, as it does where `weights_only` fails."""
    content = read()
    try:
        if content:
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return "a pickle of more than tensors"
    return None


def _describe_program(read: Record) -> str | None:
    """Describe the first text of a program, or of its list of weights, that is or names code."""
    try:
        return next(_code_in(json.loads(read().decode())), None)
    except (ValueError, RecursionError):
        return "it is no JSON"


def _code_in(value: Any, key: str = "") -> Iterator[str]:
    """Yield descriptions of code in a JSON value that stands under a key."""
    if isinstance(value, dict):
        is_mapping = key in _MAPPINGS
        named = _EXPRESSION if key == "range_constraints" else _NAME
        for inner, content in value.items():
            if not named.fullmatch(inner):
                yield f"the name {inner[:60]!r}"
            if is_mapping or inner not in _FREE or not _is_text(content):
                yield from _code_in(content, "" if is_mapping else inner)
    elif isinstance(value, list):
        for content in value:
            yield from _code_in(content, key)
    elif key == "use_pickle" and value is not False:
        yield "a tensor in a pickle"
    elif isinstance(value, str):
        yield from _code_in_text(value, key)


def _is_text(content: Any) -> bool:
    """Test for a text, and for a list or a dictionary of texts."""
    held = content.values() if isinstance(content, dict) else content if isinstance(content, list) else (content,)
    return all(isinstance(one, str) for one in held)


def _code_in_text(text: str, key: str) -> Iterator[str]:
    """Yield a description of a text where it is or names code, by the key under which it stands."""
    if key in ("target", "as_operator"):
        if not _is_builtin(text):
            yield f"the operator {text[:60]!r}"
    elif key == "expr_str":
        if not _EXPRESSION.fullmatch(text):
            yield f"the expression {text[:60]!r}"
    elif key in ("in_spec", "out_spec"):
        yield from _code_in_containers(json.loads(text))
    elif key in ("class_fqn", "custom_obj_name"):
        yield "a custom object"
    elif not _NAME.fullmatch(text):
        yield f"the name {text[:60]!r}"


def _code_in_containers(spec: Any) -> Iterator[str]:
    """Yield descriptions of what is imported to make the containers of inputs or outputs: [version, tree]."""
    trees = spec[1:] if isinstance(spec, list) else [spec]
    while trees:
        tree = trees.pop()
        if not isinstance(tree, dict) or tree.get("type") not in _CONTAINERS:
            yield f"the container {str(tree.get('type') if isinstance(tree, dict) else tree)[:60]!r}"
            return
        context = tree.get("context")
        keys = json.loads(context) if isinstance(context, str) else context
        is_plain = isinstance(keys, list) and all(isinstance(one, str) and _NAME.fullmatch(one) for one in keys)
        if keys is not None and not is_plain:
            yield f"the container {str(context)[:60]!r}"
            return
        trees += tree.get("children_spec", [])


def _is_builtin(target: str) -> bool:
    """Test whether a target is an operation on sizes, or an operator of torch that opens no file."""
    if target in _HARMLESS:
        return True
    match = _OPERATOR.fullmatch(target)
    packet = getattr(getattr(torch.ops, match[1]), match[2], None) if match else None
    operator = getattr(packet, match[3], None) if match else None
    return isinstance(operator, torch._ops.OpOverload) and all(
        argument.name != "filename" for argument in operator._schema.arguments
    )
