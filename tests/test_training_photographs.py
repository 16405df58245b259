"""Photographs that may be used for training: the licence of each file, as a copyright file or a table states it."""

import hashlib
import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks" / "burst"
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2018, The Club
License: CC-BY-SA-4.0

Files: 16.04/free.jpg
 16.04/also_free.jpg
Copyright: 2019, A. Painter
License: CC-BY-4.0

License: CC-BY-4.0
 Attribution 4.0 International
"""


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_only_what_the_copyright_file_puts_under_a_free_licence_is_collected(tmp_path, monkeypatch):
    module, shared = script("training_photographs"), tmp_path / "share"
    (shared / "doc" / "wallpapers").mkdir(parents=True)
    (shared / "doc" / "wallpapers" / "copyright").write_text(COPYRIGHT)
    (shared / "backgrounds").mkdir()
    for name in ("free.jpg", "also_free.jpg", "shared_alike.jpg"):
        (shared / "backgrounds" / name).write_bytes(name.encode())
    monkeypatch.setattr(module, "DOCUMENTS", Path("share/doc"))
    monkeypatch.setattr(module, "BACKGROUNDS", {"wallpapers": (Path("share/backgrounds"), "16.04/{}")})
    lines = module.collect(tmp_path / "out", root=tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["also_free.jpg", "free.jpg"]
    assert [line.split("\t")[:3] for line in lines] == [
        ["also_free.jpg", "CC-BY-4.0", "2019, A. Painter"],
        ["free.jpg", "CC-BY-4.0", "2019, A. Painter"],
    ]


ROW = "| {}.jpg | facade | A. Painter | {} (stated there) | owner/name: `a/{}.jpg` | {} |"
TABLE = [
    ("a", "CC0-1.0", "400x320"),
    ("b", "CC-BY-SA-4.0", "400x320"),
    ("c", "CC0-1.0 / US government work", "400x400"),
]
TABLE += [("d", "CC-BY-2.0", "900x319"), ("18f-hire-us", "CC0-1.0", "800x800"), ("phl-x", "CC0-1.0", "800x800")]
TABLE += [(f"e{i}", "CC0-1.0", "400x400") for i in range(6)]


def test_only_what_the_table_says_is_free_is_taught_and_every_sixth_is_kept_back(tmp_path):
    rows = "\n".join(ROW.format(name, licence, name, size) for name, licence, size in TABLE)
    (tmp_path / "README.md").write_text(
        f"# Photographs\n\n| file | kind | author | licence | source | size |\n{rows}\n"
    )
    for name, *_ in TABLE:
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    counts = script("licensed_photographs").choose(tmp_path, tmp_path / "out", None)
    names = {p.name: sorted(x.stem for x in p.glob("*.jpg")) for p in (tmp_path / "out").iterdir() if p.is_dir()}
    assert names == {"taught": ["a", "c", "e0", "e2", "e3", "e4", "e5"], "development": ["e1"]}
    assert counts == (7, 1, 4)
    left = dict(line.split("\t") for line in (tmp_path / "out" / "LEFT_OUT.txt").read_text().splitlines())
    assert sorted(left) == ["18f-hire-us.jpg", "b.jpg", "d.jpg", "phl-x.jpg"]
    line = (tmp_path / "out" / "development" / "LICENCES.txt").read_text().rstrip("\n").split("\t")
    assert line == ["e1.jpg", "CC0-1.0", "A. Painter", "owner/name: a/e1.jpg", hashlib.sha256(b"e1").hexdigest()]
