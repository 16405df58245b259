"""Files of a run that another program wrote with their checksums, so that what they hold reaches the parsers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from klarsicht.ground.run_folder.checksums import Checksum


@contextmanager
def vouched(run: Path, file: Path) -> Iterator[None]:
    """Give a file of a run the checksum of what it holds now, in a file beside or in its marker, while open."""
    name, checksum = file.relative_to(run).as_posix(), Checksum.of(file.read_bytes()).to_json()
    beside = run / "checksums" / f"{name}.json"
    markers = {one: one.read_bytes() for one in run.glob("done/*/*.json") if one != file}
    keepers = {beside: beside.read_bytes()} if beside.is_file() else _naming(markers, name)
    for keeper, content in keepers.items():
        record = json.loads(content)
        keeper.write_text(
            json.dumps([checksum] if keeper == beside else record | {"files": record["files"] | {name: checksum}})
        )
    try:
        yield
    finally:
        for keeper, content in keepers.items():
            keeper.write_bytes(content)


def _naming(markers: dict[Path, bytes], name: str) -> dict[Path, bytes]:
    """Select the markers that name a file."""
    return {one: content for one, content in markers.items() if name in json.loads(content)["files"]}
