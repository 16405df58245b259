"""Every reader of foreign files, at some 500 mutants of a fixed seed; `campaign.py` draws new ones for an hour a night.

The oracle is the exit code: a reader returns, or raises a KlarsichtError that says something.
"""

import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.fuzzing import mutators
from tests.fuzzing.readers import targets

KINDS = (
    "pictures",
    "arrays",
    "photographs",
    "raw_frames",
    "opcode_lists",
    "manifests",
    "settings",
    "run_folders",
    "corrections",
    "weights",
)
MUTANTS = {"run_folders": 24}  # a mutant of a run draws its whole page


@pytest.fixture(scope="module")
def all_targets(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_mutant_is_answered_by_a_traceback(all_targets, kind):
    rng, some = np.random.default_rng(20), [one for one in all_targets if one.name == kind]
    for i in range(MUTANTS.get(kind, 70)):
        fault = some[i % len(some)].strike(rng)
        assert fault is None, f"{fault.file.name}, mutant {i}: {fault.error!r}"


def test_sound_files_are_read(all_targets):
    for one in all_targets:
        for file in one.files[: 1 if one.name == "run_folders" else None]:  # each of which reads the whole run
            one.read(file)


def test_all_kinds_are_struck(all_targets):
    assert tuple(dict.fromkeys(one.name for one in all_targets)) == KINDS


# The mutators: of a sound file, one that another library still reads, or reads in part


def saved(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 40, dtype=np.uint8).reshape(40, 48)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.arange(48 * 40, dtype=np.uint16).reshape(40, 48), rowsperstrip=8, metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize("mutator", mutators.ANY, ids=lambda one: one.__name__)
def test_a_mutator_is_a_function_of_bytes_and_seed(mutator):
    content = np.random.default_rng(0).bytes(1024)
    made = [mutator(content, np.random.default_rng(seed)) for seed in range(20)]
    assert made == [mutator(content, np.random.default_rng(seed)) for seed in range(20)]
    assert sum(one != content for one in made) >= 15


def test_png_mutants_keep_right_checksums():
    content, edits = saved("PNG"), (mutators.edit_chunk, mutators.swap_chunks, mutators.edit_png_header)
    for seed in range(30):
        made = edits[seed % 3](content, np.random.default_rng(seed))
        assert made == mutators.join_chunks(mutators.chunks(made))
    assert mutators.join_chunks(mutators.chunks(content)) == content


def test_jpeg_segments_are_found():
    exif = Image.Exif()
    exif[272] = "Example"
    content = saved("JPEG", exif=exif)
    markers = [content[place + 1] for place, _ in mutators.segments(content)]
    assert markers[0] == 0xE0 and {0xE1, 0xDB, 0xC0, 0xC4} <= set(markers)
    without = mutators.drop_segment(content, np.random.default_rng(0))
    assert len(mutators.segments(without)) == len(markers) - 1


def test_tiff_records_are_found_and_one_field_changes():
    content = tiff()
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        assert mutators.records(content) == ("<", [tag.offset for tag in file.pages[0].tags])
    for seed in range(30):
        made = mutators.edit_tag(content, np.random.default_rng(seed))
        assert len(made) == len(content) and sum(a != b for a, b in zip(made, content, strict=True)) <= 4


def test_json_mutants_are_json():
    content = json.dumps({"a": [1, {"b": 2}], "c": "x"}).encode()
    made = {mutators.edit_json(content, np.random.default_rng(seed)) for seed in range(40)}
    assert len(made) > 15 and all(json.loads(one) is not None for one in made)
