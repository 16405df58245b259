"""Names of files in a page that may be sent to people who have no business with the folders of a machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import escape

from klarsicht.ground.names import printable


def leave_out_folders(page: str, manifest: Mapping[str, Any], run: Path | None = None) -> str:
    """Name files of a page, HTML or JSON, relative to the corpus, and the run and files of models and settings by their
    last part."""
    texts = [re.sub(r"\w+://\S+", "", str(value)) for value in (manifest["data"], *manifest["settings"].values())]
    folders = {str(Path(texts[0]).absolute())} if texts[0] else set()
    folders |= set() if run is None else {str(run.absolute()), str(run.resolve())}
    for path in (match for text in texts for match in re.findall(r"(?:^|(?<=[@:'\" (]))/[^@:'\",)]+", text)):
        folders.add(path if Path(path).is_dir() else str(Path(path).parent))
    for folder in sorted(folders - {"/"}, key=len, reverse=True):
        for known in {folder, str(escape(printable(folder))), json.dumps(folder)[1:-1]}:
            page = page.replace(f"{known}/", "").replace(known, Path(folder).name)
    return page
