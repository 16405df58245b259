"""Images that a run skipped are tried again. Oracle: the same run undisturbed, whose images could all be used."""

import shutil

import pytest
import torch
from tests.audit import faulty
from tests.audit.conftest import in_brief, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.duplicates import find_duplicates
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import ranking, verdicts
from klarsicht.ground.errors import TooManySkipped
from klarsicht.ground.run_folder.store import RunStore

EACH = 20


def audit(folder, data="data", run="run", **changes):
    options = {"neighbours": 6, "unit": 16, "batch": 4, "target": "all"} | changes
    settings = AuditSettings(model="object", data=str(folder / data), **options)
    return pipeline.run(settings, folder / run, classifier=load_model(faulty.network(), classes=["a", "b", "c"]))


def skipped(store):
    keys = store.table("corpus")["key"].to_pylist()
    return [keys[line["row"]] for line in store.table("images", "attribution").to_pylist() if line["skipped"]]


def loading_passes():
    """Count the forward passes that loading takes, with the name of its head."""
    with faulty.fault("none", KeyError(), 1) as calls:
        assert load_model(faulty.network()).head == "head"
        return calls["forward"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    write_corpus(folder / "data", per_class=EACH, share=0.3)
    with in_brief(60):
        audit(folder)
        yield folder


@pytest.fixture
def folder(undisturbed, tmp_path):
    """The corpus alone, in its own place: a report names it."""
    shutil.copytree(undisturbed / "data", tmp_path / "data")
    return tmp_path


@pytest.mark.slow
def test_an_image_on_which_the_network_failed_once_is_tried_again(undisturbed, tmp_path, capsys):
    """The batch fails, and of its images the first alone: the fault goes on for two calls."""
    first = loading_passes() + 4
    with faulty.fault("forward", faulty.KINDS["KeyError"], first, first + 1):
        store = audit(undisturbed, run=str(tmp_path / "again"))
    assert len(skipped(store)) == 1
    before = faulty.digest(store.path)
    assert before != faulty.digest(undisturbed / "run")
    capsys.readouterr()
    assert skipped(audit(undisturbed, run=str(tmp_path / "again"))) == []
    assert "1 of 1 skipped images can be used now" in capsys.readouterr().err
    assert faulty.digest(store.path) == faulty.digest(undisturbed / "run")


def test_an_image_that_cannot_be_decoded_stays_skipped_and_costs_no_forward_pass(folder):
    (folder / "data/a/005.png").write_bytes(b"no picture")
    store = audit(folder)
    assert skipped(store) == ["a/005.png"]
    before = faulty.digest(store.path)
    with faulty.fault("none", KeyError(), 1) as calls:
        audit(folder)
        passes = calls["forward"]
    assert passes == loading_passes()
    assert faulty.digest(store.path) == before


@pytest.mark.slow
def test_what_was_made_without_a_repaired_image_is_removed(folder):
    """Its end is changed: a fingerprint holds both ends of a file, of which the corpus's is made."""
    file = folder / "data/b/000.png"
    sound = file.read_bytes()
    middle = len(sound) // 2
    damaged = sound[:middle] + bytes([sound[middle] ^ 255]) + sound[middle + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klarsicht.audit.explanation.data.pictures.END_BYTES", 30)
        file.write_bytes(damaged)
        store = audit(folder)
        assert skipped(store) == ["b/000.png"]
        store.write_json(verdicts.VERDICTS_FILE, {"made": "without it"})
        store.mark_done("effects", 0, store.write_unit_file("pictures/one.jpg", b"drawn"))
        file.write_bytes(sound)
        assert skipped(audit(folder)) == []
        assert not store.has_file(verdicts.VERDICTS_FILE) and not store.done_units("effects")
        assert not (store.path / "pictures/one.jpg").exists()
        names = [entry.name for entry in ranking.read_ranking(store)]
        assert names == [entry.name for entry in ranking.read_ranking(audit(folder, run="fresh"))]


@pytest.mark.slow
def test_too_many_skipped_images_end_the_run_until_they_are_allowed_or_repaired(folder):
    files = sorted((folder / "data" / "b").iterdir())[:3]  # of 20 in the class, of 60 in all
    for file in files:
        file.write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(
            TooManySkipped, match=r"3 of 20 of class b; .*cannot decode 000\.png.*at most 2 .*`max_skipped`"
        ):
            audit(folder)
    store = RunStore(folder / "run")
    assert store.done_units("attribution") == {0}  # not the unit with the third of them, and none after it
    assert len(skipped(audit(folder, max_skipped=0.15))) == 3
    with pytest.raises(TooManySkipped, match="3 of 60 of all images"):
        audit(folder, max_skipped=0.0)


def test_links_to_a_disk_that_is_away_are_named_before_a_run_is_made(folder):
    for file in sorted((folder / "data" / "c").iterdir())[:3]:
        file.unlink()
        file.symlink_to("nothing.png")
    with pytest.raises(TooManySkipped, match=r"3 of 20 of class c.*it cannot be read"):
        audit(folder)
    assert not (folder / "run").exists()


@pytest.mark.slow
def test_copies_are_looked_for_again_among_images_that_can_be_read_now(folder):
    audit(folder)
    undisturbed = find_duplicates(folder / "run")
    files = faulty.digest(folder / "run")
    again = RunStore(shutil.copytree(folder / "run", folder / "again"))
    for step in ("thumbnails", "copies"):
        again.discard_step(step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klarsicht.audit.explanation.data.pictures.END_BYTES", 30)
        patch.setattr("klarsicht.audit.explanation.duplicates.require_corpus", lambda *_: None)
        file = folder / "data/b/003.png"
        sound = file.read_bytes()
        file.write_bytes(b"no picture")
        assert find_duplicates(folder / "again").unread == 1
        with pytest.raises(TooManySkipped, match="1 of 60"):
            find_duplicates(folder / "again", max_skipped=0.0)
        file.write_bytes(sound)
        assert find_duplicates(folder / "again") == undisturbed
    assert faulty.digest(folder / "again") == files
