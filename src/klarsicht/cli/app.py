"""The command `klarsicht`: its tree of commands, and the conversion of errors to one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from klarsicht import __version__
from klarsicht.cli import audit, burst, demo
from klarsicht.cli.help_pages import CommandGroup, CommandWithExample
from klarsicht.cli.short_memory import describe_shortage, end_at_failed_threads
from klarsicht.cli.streams import guarded_streams
from klarsicht.ground.errors import KlarsichtError, ProgramFailed
from klarsicht.ground.foreign import describe_error, is_device_error
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.names import printable
from klarsicht.ground.progress import begin_loading
from klarsicht.ground.run_folder.run_files import MANIFEST

INTERRUPTED = 130
# typer uses the package click, or, since 0.29, a copy of its own: the class is reached by what typer exports.
ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="klarsicht",
    help="See which pixels a vision model used, find the ones it should not have used, and clean them up.",
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


RESUMED = {
    "audit": ("run", "quantify", "duplicates", "shortcuts", "power", "clean", "clean-data"),
    "burst": ("denoise", "explain", "audit", "train"),
}
"""Commands that keep what is complete when they are stopped; the others begin again."""


def does_resume(arguments: Sequence[str]) -> bool:
    """Tell whether the same command line goes on where it was stopped. `audit clean` does so for several classes only,
    which it corrects one after the other, and `audit duplicates` of a run, or with a folder of its own."""
    group, command = (*arguments, "", "")[:2]
    options = [word.partition("=")[0] for word in arguments]
    if (group, command) == ("audit", "clean"):
        return options.count("--class") != 1 and "--part" not in options
    if (group, command) == ("audit", "duplicates"):
        return "--out" in options or any((Path(word) / MANIFEST).exists() for word in arguments[2:])
    return command in RESUMED.get(group, ())


def guard_command(command: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command that says that it is loading, after some seconds, and that foreign code cannot end unnoticed.
    Raises ProgramFailed: Foreign code asked the interpreter to exit, as in a backward pass."""

    @wraps(command)
    def guarded_command(*arguments: Any, **options: Any) -> Any:
        begin_loading()
        try:
            return command(*arguments, **options)
        except SystemExit as error:
            raise _program_failed("foreign code ended the command", error) from error

    return guarded_command


for _one in (*audit.app.registered_commands, *burst.app.registered_commands):
    if _one.callback is not None:
        _one.callback, _one.cls = guard_command(_one.callback), CommandWithExample
app.add_typer(audit.app, name="audit")
app.add_typer(burst.app, name="burst")
app.command("demo", cls=CommandWithExample)(guard_command(demo.demo))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"klarsicht {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; see klarsicht.ground.errors for the codes."""
    with guarded_streams(), end_at_failed_threads():
        return _exit_code(arguments)


def _exit_code(arguments: Sequence[str]) -> int:
    try:
        code = app(list(arguments), prog_name="klarsicht", standalone_mode=False) or 0
    except KlarsichtError as error:
        return _print_error(error.with_options, error.exit_code)
    except ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a bare command: its message is the help, line by line
            return _print_help(error.format_message())
        return _print_error(f"{error.format_message().rstrip('.')}{_name_help(error)}", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as error:  # of the completion of shells
        code = error.code or 0
    except Exception as error:
        if is_device_error(error) and not is_out_of_memory(error):
            failed = _program_failed("the device failed", error)
            return _print_error(failed.with_options, failed.exit_code)
        if not is_out_of_memory(error):
            raise
        short = describe_shortage(error)
        return _print_error(short.with_options, short.exit_code)
    if code == INTERRUPTED:
        resuming = "what is complete is kept, and the same command resumes"
        return _print_error(
            f"stopped; {resuming if does_resume(arguments) else 'the same command begins again'}", INTERRUPTED
        )
    return int(code)


def _program_failed(what: str, error: BaseException) -> ProgramFailed:
    remedy = "Fix the code, or restart the device; the same command resumes."
    return ProgramFailed(what, got=describe_error(error), remedy=remedy)


def _name_help(error: Any) -> str:
    """Name the command's help as a remedy of a fault in its arguments; empty of other faults."""
    context = getattr(error, "ctx", None)
    stop = "" if error.format_message().endswith("?") else "."
    return f"{stop} See {context.command_path} --help." if context is not None else ""


def _print_help(text: str) -> int:
    try:
        typer.echo(text)
    except KlarsichtError as error:
        return _print_error(error.with_options, error.exit_code)
    return 0


def _print_error(message: str, code: int) -> int:
    print(f"klarsicht: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code
