"""Which photographs may be taught: the licence of each file, as a copyright file of Debian's format states it."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "training_photographs.py"
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


def script():
    spec = importlib.util.spec_from_file_location("training_photographs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_what_the_copyright_file_puts_under_a_free_licence_is_collected(tmp_path, monkeypatch):
    module, shared = script(), tmp_path / "share"
    (shared / "doc" / "wallpapers").mkdir(parents=True)
    (shared / "doc" / "wallpapers" / "copyright").write_text(COPYRIGHT)
    (shared / "backgrounds").mkdir()
    for name in ("free.jpg", "also_free.jpg", "shared_alike.jpg"):
        (shared / "backgrounds" / name).write_bytes(name.encode())
    monkeypatch.setattr(module, "DOCUMENTS", shared / "doc")
    monkeypatch.setattr(module, "BACKGROUNDS", {"wallpapers": (shared / "backgrounds", "16.04/{}")})
    lines = module.collect(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["also_free.jpg", "free.jpg"]
    assert [line.split("\t")[:3] for line in lines] == [
        ["also_free.jpg", "CC-BY-4.0", "2019, A. Painter"],
        ["free.jpg", "CC-BY-4.0", "2019, A. Painter"],
    ]
