"""Pages: templates of HTML in which no value can become markup, and none can hide or turn what stands beside it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from klarsicht.ground.names import printable

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup


def _printable(value: object) -> object:
    """Escape a text, its line breaks too; what is markup already, as a template's own parts are, stays."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def mark_commands(text: str) -> Markup:
    """Mark what stands between backticks in a sentence as code; the sentence is escaped."""
    from markupsafe import Markup, escape

    parts = (escape(printable(part)) for part in text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else part for k, part in enumerate(parts))


def keep_signs(cell: object) -> Markup:
    """Keep percent signs of a cell on the line of their number; a cell that is no markup is escaped."""
    from markupsafe import escape

    return escape(_printable(cell)).replace(" %", "\N{NO-BREAK SPACE}%")


@cache  # compiling one takes longer than filling it in
def load_template(package: str, name: str) -> Template:
    """Load a template of a package's folder `templates`; its texts are escaped, for HTML and by `names.printable`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_printable
    )
    pages.filters["commands"] = mark_commands
    pages.filters["unbroken"] = keep_signs
    return pages.get_template(name)
