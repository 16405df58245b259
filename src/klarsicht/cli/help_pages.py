"""Help of the commands: options in groups, an example of each, and the nearest name to one that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from typer.core import TyperCommand, TyperGroup

FEW = 6  # options that need no groups
OWN = "Options"
VALUES = {"str": "text", "int": "integer", "float": "number", "Path": "path"}
"""For each type of an option's value, its word."""
OPTION_GROUPS = {
    "Input": (
        "--model", "--data", "--target", "--class-map", "--path-column", "--label-column", "--source-column",
        "--label-separator", "--label-columns", "--decode", "--independent", "--split", "--white-level", "--megapixels",
        "--max-skipped", "--accept-labels", "--linear", "--noise", "--calibration", "--reference", "--test",
        "--members", "--mask", "--found-by",
    ),
    OWN: (),  # all that stand in no other group
    "Speed and memory": (
        "--batch", "--batch-memory", "--unit", "--threads", "--workers", "--device", "--readers", "--engine", "--shard",
        "--memory", "--exact",
    ),
    "Output": ("--out", "--json", "--pdf", "--top", "--preview", "--ghost-map", "--page", "--tables", "--dry-run"),
    "General": ("--settings", "--seed", "--trust", "--version", "--install-completion", "--show-completion", "--help"),
}  # fmt: skip
EXAMPLES = {
    "demo": "klarsicht demo --out demo-out",
    "audit run": "klarsicht audit run --model timm:resnet50@weights.safetensors --data photos --out run",
    "audit doctor": "klarsicht audit doctor --model timm:resnet50@weights.safetensors --data photos",
    "audit rank": "klarsicht audit rank run --top 10",
    "audit quantify": "klarsicht audit quantify run",
    "audit duplicates": "klarsicht audit duplicates photos --out copies",
    "audit shortcuts": "klarsicht audit shortcuts run",
    "audit content": "klarsicht audit content run --class carton",
    "audit power": "klarsicht audit power run --kind watermark --prevalence 0.1",
    "audit check": "klarsicht audit check run picture.jpg",
    "audit report": "klarsicht audit report run",
    "audit status": "klarsicht audit status run --verify",
    "audit plant": "klarsicht audit plant photos --out planted --kind watermark --class carton --share 0.1",
    "audit stability": "klarsicht audit stability run",
    "audit clean": "klarsicht audit clean run --class carton",
    "audit evaluate": "klarsicht audit evaluate run --correction run/corrections/carton-auto",
    "audit clean-data": "klarsicht audit clean-data run --class carton --out cleaned --dry-run",
    "audit gate": "klarsicht audit gate run --fail-on relies,leak --junit gate.xml",
    "audit compare": "klarsicht audit compare run-before run",
    "audit explore": "klarsicht audit explore run",
    "audit export": "klarsicht audit export run --to csv --out findings.csv",
    "burst denoise": "klarsicht burst denoise frames/ --out clean.dng",
    "burst calibrate": "klarsicht burst calibrate still-frames/",
    "burst explain": "klarsicht burst explain frames/ --out explained",
    "burst audit": "klarsicht burst audit frames/ more-frames/ --out strategies",
    "burst check": "klarsicht burst check frames/",
    "burst export": "klarsicht burst export network.safetensors --onnx network.onnx",
    "burst train": "klarsicht burst train --photos photos --out network.safetensors --colour rgb --minutes 60",
    "burst synth": "klarsicht burst synth photos --out bursts --set rgb-moving",
    "burst evaluate": "klarsicht burst evaluate --row single --row hdr+",
    "burst weights": "klarsicht burst weights",
}


class CommandWithExample(TyperCommand):
    """A command whose help shows its options in groups, then an example."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        params = [one for one in self.get_params(ctx) if one.get_help_record(ctx) is not None]
        options = [one for one in params if one.param_type_name == "option"]
        groups = {"Arguments": [one for one in params if one not in options]}
        if len(options) <= FEW:
            groups[OWN] = options
        else:
            options.sort(key=_place_in_group)
            groups |= {group: [one for one in options if _group_of(one) == group] for group in OPTION_GROUPS}
        for group, members in groups.items():
            if members:
                with formatter.section(group):
                    formatter.write_dl([_describe(one, ctx) for one in members])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Example"):
            formatter.write(f"  {EXAMPLES[_words_of(ctx)]}\n")


class CommandGroup(TyperGroup):
    """A group of commands that names the nearest command of the whole tree to one that does not exist."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word not in self.commands and not word.startswith("-") and not ctx.resilient_parsing:
            near = list(_near_commands(ctx.find_root().command, word))
            ctx.fail(f"No such command {word!r}." + (f" Did you mean {' or '.join(near)}?" if near else ""))
        return super().resolve_command(ctx, args)


def _describe(param: Any, ctx: Any) -> tuple[str, str]:
    """Return what an option is called, with the kind of a value of it, and what it does."""
    name, text = param.get_help_record(ctx)
    return re.sub(r"<(?:list\[)?(\w+)\]?>", lambda match: f"<{VALUES.get(match[1], match[1])}>", name), text


def _words_of(ctx: Any) -> str:
    return "" if ctx.parent is None else f"{_words_of(ctx.parent)} {ctx.info_name}".lstrip()


def _group_of(param: Any) -> str:
    return next((group for group, flags in OPTION_GROUPS.items() if {*flags} & {*param.opts}), OWN)


def _place_in_group(param: Any) -> int:
    """Return the place of an option in the list of its group; those that stand in none keep their order."""
    flags = OPTION_GROUPS[_group_of(param)]
    return min((flags.index(flag) for flag in param.opts if flag in flags), default=0)


def _near_commands(root: Any, word: str) -> Iterator[str]:
    """Yield words of the commands, of any group, whose last word is the given one or like it."""
    paths = list(_paths(root))
    near = get_close_matches(word, {path[-1] for path in paths}, cutoff=0.7)
    if word in near:
        near = [word]
    yield from (f"'{' '.join(path)}'" for path in paths if path[-1] in near)


def _paths(command: Any) -> Iterator[tuple[str, ...]]:
    for name, one in getattr(command, "commands", {}).items():
        yield (name,)
        yield from ((name, *path) for path in _paths(one))
