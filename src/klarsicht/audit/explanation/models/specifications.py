"""Forms of a specification of a model, and what can be checked of one without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from klarsicht.ground.entry_points import WHERE_FROM
from klarsicht.ground.errors import ModelError, UntrustedCode, UsageError, unknown_name
from klarsicht.ground.trust import TRUST_REMEDY, is_trusted
from klarsicht.ground.trust import trusted_code as trusted_code

LITE0: Final = "efficientnet-lite0"
TORCHVISION_PREFIX: Final = "torchvision:"
TIMM_PREFIX: Final = "timm:"
HF_PREFIX: Final = "hf:"
PROGRAM_ENDING: Final = ".pt2"
PICKLE_ENDING: Final = ".bin"
ENTRY_POINTS: Final = ("package.module:callable", "file.py:callable")
KNOWN_FORMS: Final = (
    LITE0, f"{TORCHVISION_PREFIX}NAME@FILE", f"{TIMM_PREFIX}NAME@FILE", f"{HF_PREFIX}FOLDER", f"FILE{PROGRAM_ENDING}",
    *ENTRY_POINTS,
)  # fmt: skip
TIMM_SIZE: Final = "timm's default size. If yours was trained at another, load it by a function (file.py:callable)"
"""Doubt about the input of a network of timm, whose file does not name the size of its images."""
WEIGHTS: Final = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def code_of(spec: str) -> str | None:
    """Return a specification that names a function, `package.module:callable` or `file.py:callable`; None of others."""
    prefixes = (TORCHVISION_PREFIX, TIMM_PREFIX, HF_PREFIX)
    return spec if ":" in spec and not spec.startswith(prefixes) and not spec.endswith(PROGRAM_ENDING) else None


def names_files(spec: str) -> bool:
    """Test whether a model is loaded from files that a specification names, and can be pickled, as a program cannot."""
    return "@" in spec or spec.startswith(HF_PREFIX) or spec.rpartition(":")[0].endswith(".py")


def check_specification(spec: str) -> None:
    """Check that a specification has a known form, else raise UsageError, and that what it names exists, else
    ModelError."""
    if spec == LITE0:
        return
    if spec.startswith((TORCHVISION_PREFIX, TIMM_PREFIX)):
        if file := spec.partition("@")[2]:
            require_checkpoint(Path(file))
    elif spec.startswith(HF_PREFIX):
        require_saved_model(Path(spec.removeprefix(HF_PREFIX)))
    elif spec.endswith(PROGRAM_ENDING):
        if not Path(spec).is_file():
            raise ModelError("no such file", got=spec, remedy=WHERE_FROM)
    elif ":" in spec:
        path = spec.rpartition(":")[0]
        if path.endswith(".py") and not Path(path).is_file():
            raise ModelError("no such file", got=path, rule=ENTRY_POINTS[1], remedy=WHERE_FROM)
    elif spec.endswith(WEIGHTS):
        remedy = f"Write torchvision:NAME@{spec}, timm:NAME@{spec}, or {' or '.join(ENTRY_POINTS)}."
        raise UsageError("a file of weights does not say of which network", got=repr(spec), remedy=remedy)
    elif spec.endswith(".py"):
        rule = "a function or a class in it returns a module, or a module and its transform"
        remedy = f"Write {spec}:NAME, with the function's name."
        raise UsageError("a file of code does not say which function", got=repr(spec), rule=rule, remedy=remedy)
    elif Path(spec).is_dir():
        remedy = f"Write hf:{spec} for what save_pretrained wrote, or {' or '.join(ENTRY_POINTS)}."
        raise UsageError("a folder does not say how its model is loaded", got=repr(spec), remedy=remedy)
    else:
        error = unknown_name("model", spec, KNOWN_FORMS)
        remedy = f"{error.remedy} In Python, a model that was built there is given as classifier=."
        raise UsageError(error.what, got=error.got, remedy=remedy)


def check_model_of_run(spec: str) -> None:
    """Check the specification of a run whose model is opened again, unless it is a folder, which may be a correction.
    Raises ModelError: what it names is gone; UsageError: it only names a model that was built in Python."""
    if Path(spec).is_dir():
        return
    try:
        check_specification(spec)
    except UsageError as error:
        raise UsageError(
            "the model of this run is not given", got=f"--model {spec!r}",
            rule="the run was made in Python, which only named the model so",
            remedy="Call the function in Python with classifier= this model, or audit again with "
            f"--model {ENTRY_POINTS[1]}, which the command line can load.",
        ) from error  # fmt: skip


def require_checkpoint(path: Path) -> None:
    """Check that a file of weights exists and is not empty; raises ModelError."""
    if path.is_dir():
        raise ModelError("the checkpoint is a folder", got=str(path), remedy="Name the file in it, or hf:FOLDER.")
    if not path.is_file():
        raise ModelError("no such checkpoint", got=str(path), remedy="Check the path after @.")
    if not path.stat().st_size:
        raise ModelError("the checkpoint is empty", got=f"{path}: 0 bytes", remedy="Copy or save it again.")


def require_saved_model(folder: Path) -> None:
    """Check that a folder holds a model of transformers (else ModelError), and not in a pickle (UntrustedCode)."""
    if not (folder / "config.json").is_file():
        raise ModelError(
            "no model of transformers in this folder", got=str(folder),
            rule="a folder that save_pretrained wrote holds a config.json, and nothing is ever downloaded",
            remedy="Save the model first: model.save_pretrained(FOLDER).",
        )  # fmt: skip
    pickles = sorted(file.name for file in folder.glob(f"*{PICKLE_ENDING}"))
    if pickles and not is_trusted() and not any(folder.glob("*.safetensors")):
        raise UntrustedCode(
            "weights of transformers in a pickle, which may run code of its own",
            got=f"{folder}: {pickles[0]}",
            rule="weights are read from .safetensors",
            remedy=f"Save them again: model.save_pretrained(FOLDER). {TRUST_REMEDY}",
        )
