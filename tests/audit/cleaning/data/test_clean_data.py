"""A corpus relieved of an artifact: what is done to which image, and that nothing else is."""

import csv
import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from tests.audit.conftest import SIDE, network, write_corpus

from klarsicht.audit.cleaning.artifacts import masks
from klarsicht.audit.cleaning.data import image_actions
from klarsicht.audit.cleaning.data.clean_data import clean_corpus, clean_data
from klarsicht.audit.cleaning.data.data_record import MANIFEST
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.errors import InputError, RunMismatch, UsageError

CORNER = np.zeros((SIDE, SIDE), bool)
CORNER[:4, :4] = True
PLACE = Overlay(CORNER[None].astype(np.float32), np.ones((1, 3, SIDE, SIDE), np.float32))


def hashes(folder):
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*")) if file.is_file()}


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def resolved(paths):
    return [Path(path).resolve() for path in paths]


@pytest.fixture
def corpus(tmp_path):
    """36 images, of which four of class b are marked."""
    write_corpus(tmp_path / "data", per_class=12, share=0.3)
    return open_corpus(tmp_path / "data")


@pytest.fixture
def carries(corpus):
    return np.array([(pixels(path)[:4, :4] == 255).all() for path in corpus.paths])


@pytest.mark.parametrize(
    ("action", "labels", "weights"),
    [
        (image_actions.make_action("drop"), {"a": 12, "b": 8, "c": 12}, {"1": 32}),
        (image_actions.make_action("weigh", weight=0.25), {"a": 12, "b": 12, "c": 12}, {"1": 32, "0.25": 4}),
        (image_actions.make_action("move", label="tag"), {"a": 12, "b": 8, "c": 12, "tag": 4}, {"1": 36}),
        (image_actions.make_action("quarantine"), {"a": 12, "b": 8, "c": 12}, {"1": 32}),
        (image_actions.make_inpaint_action(masks.Masks.of(PLACE)), {"a": 12, "b": 12, "c": 12}, {"1": 36}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_new_manifest_opens_and_the_old_files_stay(corpus, carries, tmp_path, action, labels, weights):
    before = hashes(tmp_path / "data")
    found = clean_corpus(corpus, carries, action, tmp_path / "out")
    assert hashes(tmp_path / "data") == before
    assert found.counts == {"keep": 32, action.name: 4}
    new = open_corpus(found.manifest)
    assert {label: new.labels.count(label) for label in new.classes} == labels
    with found.manifest.open(newline="") as file:
        written = [line["weight"] for line in csv.DictReader(file)]
    assert {weight: written.count(weight) for weight in written} == weights
    kept = {path for path, has_it in zip(resolved(corpus.paths), carries, strict=True) if not has_it}
    assert kept <= set(resolved(new.paths))


def write_raw_corpus(folder):
    """A manifest of six files that Pillow does not read, and of parts of one; returns their function."""
    lines = [f"{name}/{i}.raw,{name}" for name in "ab" for i in range(3)] + ["stack.raw#1,b", "stack.raw#2,b"]
    for line in lines:
        file = folder / line.partition(",")[0].partition("#")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(range(SIDE * SIDE)))
    (folder / "raw.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    code = "import numpy as np\n\n\ndef read(path):\n    return np.fromfile(path.partition('#')[0], np.uint8)"
    (folder / "raw.py").write_text(f"{code}.reshape({SIDE}, {SIDE})\n")
    return f"{folder / 'raw.py'}:read"


def test_a_corpus_that_a_decoder_reads_is_cleaned_by_tables_alone(tmp_path):
    """The new manifest opens by the same function, and is the old corpus without the chosen rows."""
    decoder = write_raw_corpus(tmp_path)
    corpus = open_corpus(tmp_path / "raw.csv", decoder=decoder)
    chosen = np.isin(np.arange(8), [1, 4, 6])
    new = open_corpus(
        clean_corpus(corpus, chosen, image_actions.make_action("drop"), tmp_path / "out").manifest, decoder=decoder
    )
    assert resolved(new.paths) == [path for path, out in zip(resolved(corpus.paths), chosen, strict=True) if not out]
    assert new.labels == tuple("aabbb")
    np.testing.assert_array_equal(np.asarray(new.decode(4)).ravel(), np.arange(SIDE * SIDE))
    whole = corpus[range(6)]
    parted = clean_corpus(whole, chosen[:6], image_actions.make_action("quarantine"), tmp_path / "aside")
    aside = open_corpus(parted.folder / "quarantine.csv", decoder=decoder)
    assert [Path(path).read_bytes() for path in aside.paths] == [bytes(range(SIDE * SIDE))] * 2


def test_what_a_decoder_reads_is_not_written_back_and_a_part_is_not_copied(tmp_path):
    decoder = write_raw_corpus(tmp_path)
    corpus = open_corpus(tmp_path / "raw.csv", decoder=decoder)
    inpaint = image_actions.make_inpaint_action(masks.Masks.of(PLACE))
    with pytest.raises(UsageError, match=r"inpaint, --decode .*raw.py:read.*drop, weigh, move or quarantine"):
        clean_corpus(corpus, np.ones(8, bool), inpaint, tmp_path / "out")
    with pytest.raises(UsageError, match=r"stack.raw#1.*whole files.*drop, weigh or move"):
        clean_corpus(corpus, np.ones(8, bool), image_actions.make_action("quarantine"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_record_is_the_corpus_as_it_was(corpus, carries, tmp_path):
    clean_corpus(corpus, carries, image_actions.make_inpaint_action(masks.Masks.of(PLACE)), tmp_path / "out")
    old = open_corpus(tmp_path / "out" / "record.csv")
    assert (resolved(old.paths), old.labels) == (resolved(corpus.paths), corpus.labels)
    with (tmp_path / "out" / "record.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["sha256"] for line in lines] == [hashes(tmp_path / "data")[Path(path)] for path in corpus.paths]
    assert [line["action"] == "inpaint" for line in lines] == carries.tolist()


def test_inpainting_touches_the_mask_alone(corpus, carries, tmp_path):
    found = clean_corpus(corpus, carries, image_actions.make_inpaint_action(masks.Masks.of(PLACE)), tmp_path / "out")
    old = {line.new_path: line.path for line in found.lines if line.action == "inpaint"}
    assert len(old) == 4
    for new, path in old.items():
        changed = (pixels(tmp_path / "out" / new) != pixels(tmp_path / "out" / path)).any(2)
        np.testing.assert_array_equal(changed, CORNER)


def test_inpainting_gives_a_plane_back_exactly():
    """A plane is biharmonic: what was cut out of it comes back, in colour and in grey."""
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = (abs(y - 5) < 2) & (abs(x - 6) < 3)
    place = Overlay(mask[None].astype(np.float32), np.ones((1, 3, SIDE, SIDE), np.float32))
    plane = (20 + 7 * y + 9 * x).astype(np.uint8)
    for whole in (plane, np.stack([plane, plane[::-1], plane.T], 2)):
        spoilt = whole.copy()
        spoilt[mask] = 255
        found = image_actions.make_inpaint_action(masks.Masks.of(place)).repair(Image.fromarray(spoilt), 0)
        np.testing.assert_array_equal(np.asarray(found), whole)


def test_parquet_tables_say_what_csv_tables_say(corpus, carries, tmp_path):
    asked = image_actions.make_action("quarantine")
    for kind in ("csv", "parquet"):
        clean_corpus(corpus, carries, asked, tmp_path / kind, tables=kind)
    for name, n in (("manifest", 32), ("record", 36), ("quarantine", 4)):
        one, other = (open_corpus(tmp_path / kind / f"{name}.{kind}") for kind in ("csv", "parquet"))
        assert len(one) == n
        assert one.labels == other.labels
        assert [path.replace("/csv/", "/parquet/") for path in one.paths] == list(other.paths)
        assert one.weights == other.weights
    with pytest.raises(UsageError, match="kind of table"):
        clean_corpus(corpus, carries, asked, tmp_path / "xml", tables="xml")
    nothing = clean_corpus(
        corpus, np.ones(36, bool), image_actions.make_action("drop"), tmp_path / "none", tables="parquet"
    )
    assert parquet.read_table(nothing.manifest).column_names == list(MANIFEST)


def test_the_new_weights_are_those_of_the_corpus_that_is_read(corpus, carries, tmp_path):
    found = clean_corpus(
        corpus, carries, image_actions.make_action("weigh", weight=0.25), tmp_path / "out", tables="parquet"
    )
    np.testing.assert_array_equal(open_corpus(found.manifest).weights, np.where(carries, 0.25, 1))


def test_quarantine_holds_copies_and_is_a_corpus(corpus, carries, tmp_path):
    clean_corpus(corpus, carries, image_actions.make_action("quarantine"), tmp_path / "out")
    aside = open_corpus(tmp_path / "out" / "quarantine.csv")
    assert aside.labels == ("b",) * 4
    originals = [corpus.paths[row] for row in np.flatnonzero(carries)]
    for copy, original in zip(aside.paths, originals, strict=True):
        assert Path(copy).read_bytes() == Path(original).read_bytes()


def test_a_callable_gets_each_carrier_and_its_picture_is_written(corpus, carries, tmp_path):
    dark = image_actions.make_pass_action(lambda picture: picture.point(lambda value: value // 2), "half as bright")
    found = clean_corpus(corpus, carries, dark, tmp_path / "out")
    changed = [line for line in found.lines if line.action == "pass"]
    assert len(changed) == 4
    for line in changed:
        np.testing.assert_array_equal(
            pixels(tmp_path / "out" / line.new_path), pixels(tmp_path / "out" / line.path) // 2
        )
    with pytest.raises(InputError, match="gives no picture"):
        clean_corpus(corpus, carries, image_actions.make_pass_action(np.asarray, "an array"), tmp_path / "other")


def test_a_dry_run_says_the_same_and_writes_nothing(corpus, carries, tmp_path):
    (tmp_path / "out").mkdir()
    said = clean_corpus(
        corpus, carries, image_actions.make_inpaint_action(masks.Masks.of(PLACE)), tmp_path / "out", dry_run=True
    )
    assert list((tmp_path / "out").iterdir()) == []
    assert said == clean_corpus(
        corpus, carries, image_actions.make_inpaint_action(masks.Masks.of(PLACE)), tmp_path / "out"
    )


def test_after_a_kill_what_is_done_is_kept(corpus, carries, tmp_path):
    out, asked = tmp_path / "out", image_actions.make_inpaint_action(masks.Masks.of(PLACE))
    clean_corpus(corpus, carries, asked, out)
    whole = hashes(out)
    images = sorted((out / "images").iterdir())
    for file in (*images[::2], out / "manifest.csv"):
        file.unlink()
    (out / "images" / ".x.png.1.tmp").write_bytes(b"half")
    kept = {file: file.stat().st_mtime_ns for file in images[1::2]}
    clean_corpus(corpus, carries, asked, out)
    assert hashes(out) == whole
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(corpus, tmp_path):
    """SIGKILL, twice, while images are written; what follows is what an undisturbed run writes."""

    def dark(picture):
        return picture.point(lambda value: value // 2)

    def slowly_dark(picture):
        time.sleep(0.05)
        return dark(picture)

    whole, out = tmp_path / "whole", tmp_path / "out"
    clean_corpus(corpus, np.ones(36, bool), image_actions.make_pass_action(dark, "half as bright"), whole)
    for done in (1, 24):
        child = os.fork()  # a process of its own that need not import anything
        if not child:
            try:
                clean_corpus(
                    corpus, np.ones(36, bool), image_actions.make_pass_action(slowly_dark, "half as bright"), out
                )
            finally:
                os._exit(0)
        ended = 0
        while not ended and len(list(out.glob("images/[0-9]*.png"))) < done:
            time.sleep(0.005)
            ended, _ = os.waitpid(child, os.WNOHANG)
        assert not ended
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert not (out / "manifest.csv").exists()
    assert 24 <= len(list(out.glob("images/[0-9]*.png"))) < 36
    clean_corpus(corpus, np.ones(36, bool), image_actions.make_pass_action(dark, "half as bright"), out)
    told = [{str(file.relative_to(place)): value for file, value in hashes(place).items()} for place in (whole, out)]
    assert told[0] == told[1]


def test_a_folder_of_something_else_is_refused(corpus, carries, tmp_path):
    out = tmp_path / "out"
    clean_corpus(corpus, carries, image_actions.make_action("drop"), out)
    before = hashes(out)
    with pytest.raises(RunMismatch, match="another action"):
        clean_corpus(corpus, carries, image_actions.make_action("weigh"), out)
    with pytest.raises(RunMismatch, match="other images"):
        clean_corpus(corpus, ~carries, image_actions.make_action("drop"), out)
    assert hashes(out) == before
    (tmp_path / "data" / "a" / "mine.partial").touch()
    theirs = hashes(tmp_path / "data")
    with pytest.raises(InputError, match="not empty"):
        clean_corpus(corpus, carries, image_actions.make_action("drop"), tmp_path / "data")
    assert hashes(tmp_path / "data") == theirs


def test_a_corrupt_image_is_named_counted_and_skipped(corpus, carries, tmp_path):
    spoilt = [int(np.flatnonzero(carries)[0]), int(np.flatnonzero(~carries)[0])]
    for row in spoilt:
        Path(corpus.paths[row]).write_bytes(b"no image")
    found = clean_corpus(corpus, carries, image_actions.make_inpaint_action(masks.Masks.of(PLACE)), tmp_path / "out")
    assert found.counts == {"keep": 31, "inpaint": 3, "skip": 2}
    assert {path for path, _ in found.skipped} == {found.lines[row].path for row in spoilt}
    assert all("cannot decode" in why for _, why in found.skipped)
    assert len(open_corpus(found.manifest)) == 34
    assert len(open_corpus(tmp_path / "out" / "record.csv")) == 36


def test_an_image_that_cannot_be_mended_is_named_and_the_others_are_kept(corpus, carries, tmp_path):
    last = Path(corpus.paths[np.flatnonzero(carries)[-1]])
    Image.new("RGB", (5, 5)).save(last)
    with pytest.raises(InputError, match=f"{last.name}: a mask that does not fit"):
        clean_corpus(corpus, carries, image_actions.make_inpaint_action(masks.Masks.of(PLACE)), tmp_path / "out")
    assert len(list((tmp_path / "out" / "images").iterdir())) == 3
    assert not (tmp_path / "out" / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"name": "erase"}, "unknown action"),
        ({"name": "move"}, "lacks the new label"),
        ({"name": "drop", "label": "a"}, "label goes with"),
        ({"name": "weigh", "weight": 0}, "weight is out of range"),
        ({"name": "drop", "weight": 1}, "weight goes with"),
    ],
)
def test_an_action_that_makes_no_sense_is_refused(asked, told):
    with pytest.raises(UsageError, match=told):
        image_actions.make_action(**asked)


def test_a_place_that_varies_is_not_inpainted_where_relevance_does_not_say_how():
    two = Overlay(np.stack([CORNER, CORNER.T[::-1]]).astype(np.float32), np.ones((2, 3, SIDE, SIDE), np.float32))
    for place in (None, two):
        with pytest.raises(InputError, match="no mask"):
            masks.Masks.of(place)


@pytest.mark.slow
def test_a_run_is_cleaned_of_the_artifact_it_found(tmp_path):
    """The marked images, all of them and no other; no image of the new corpus carries the mark."""
    marked = write_corpus(tmp_path / "data", share=0.3)
    classifier = load_model(network(), classes=["a", "b", "c"])
    run = pipeline.run(
        AuditSettings(model="object", data=str(tmp_path / "data")), tmp_path / "run", classifier=classifier
    )
    found = clean_data(run.path, tmp_path / "out", "inpaint", name="b", classifier=classifier)
    root = tmp_path / "data"
    changed = {Path(tmp_path / "out" / one.path).resolve() for one in found.lines if one.action == "inpaint"}
    assert changed == {(root / key).resolve() for key in marked}
    assert not any((pixels(path)[:4, :4] == 255).all() for path in open_corpus(found.manifest).paths)

    asked = clean_model.CleanSettings(layer="last", images=60, method="nothing")
    kept = clean_model.clean(run.path, "b", asked, out=tmp_path / "c", classifier=classifier)
    again = clean_data(run.path, tmp_path / "again", "drop", correction=kept.folder, classifier=classifier)
    assert again.counts == {"keep": 180 - len(marked), "drop": len(marked)}
    with pytest.raises(UsageError, match="no class is named"):
        clean_data(run.path, tmp_path / "none", "drop", classifier=classifier)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("action", "given", "message"),
    [
        ("inpiant", {}, "Did you mean inpaint"),
        ("move", {}, "Give `label=NAME`"),
        ("drop", {"label": "fig"}, "Leave `label` out"),
        ("drop", {"weight": 0.5}, "Leave `weight` out"),
    ],
)
def test_an_action_that_cannot_be_is_refused_before_the_run_is_opened(tmp_path, action, given, message):
    with pytest.raises(UsageError, match=message):
        clean_data(tmp_path / "no run", tmp_path / "new", action, **given)
