"""Saved corrections: what is loaded does what was saved, with klarsicht and without it."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.shortcut import FACTS, TARGET, classifier, place, sample

from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData, JointCorrection
from klarsicht.audit.cleaning.corrections.corrected_model import load_corrected
from klarsicht.audit.cleaning.corrections.retraining import RETRAINED
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.ground.errors import InputError
from klarsicht.numerics.erasure import orthogonal_eraser

METHODS = CLOSED | RETRAINED


def bench():
    return FittingData(classifier(), TARGET, sample(120), place(), steps=2, batch=8)


def corrected(net, correction, x):
    with correction.applied(net), torch.no_grad():
        return net(x)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_loaded_corrects_as_what_was_saved(tmp_path, method):
    b, x = bench(), torch.rand(7, 4, 4, 4)
    made = METHODS[method].make(b, CorrectionParameters("last", 2, 0.9))
    packages.save_correction(tmp_path / "c", made, FACTS | {"class": "tee"})
    found, record = packages.load_correction(tmp_path / "c")
    assert record["class"] == "tee"
    torch.testing.assert_close(
        corrected(b.classifier.module, found, x), corrected(b.classifier.module, made, x), atol=0, rtol=0
    )


@pytest.mark.parametrize(
    "method", ["oblique", "reactive", "reactive-class", "restore", "inpaint", "augment", "nothing"]
)
def test_the_standalone_module_corrects_alike_without_klarsicht(tmp_path, method):
    b, x = bench(), torch.rand(7, 4, 4, 4)
    made = METHODS[method].make(b, CorrectionParameters("last", 2, 0.9))
    if method == "nothing":
        packages.save_correction(tmp_path / "c", made, FACTS)
        return
    packages.save_correction(tmp_path / "c", made, FACTS)
    code = (tmp_path / "c" / "corrected.py").read_text()
    assert "import klarsicht" not in code and "from klarsicht" not in code
    space = {"__file__": str(tmp_path / "c" / "corrected.py"), "__name__": "corrected"}
    exec(compile(code, "corrected.py", "exec"), space)
    with torch.no_grad():
        alone = space["corrected"](classifier().module)(x)
    torch.testing.assert_close(alone, corrected(b.classifier.module, made, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["project", "reactive", "restore", "augment"])
def test_the_exported_model_takes_batches_of_any_size(tmp_path, method):
    b, x = bench(), torch.rand(5, 4, 4, 4)
    made = METHODS[method].make(b, CorrectionParameters("last", 1, 1.0))
    assert packages.save_correction(tmp_path / "c", made, FACTS, b.classifier, x[0])["exported"]
    net = torch.export.load(str(tmp_path / "c" / "model.pt2")).module()
    for n in (1, 5):
        torch.testing.assert_close(
            net(x[:n]).detach(), corrected(b.classifier.module, made, x[:n]), atol=1e-5, rtol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["oblique"])
def test_the_exported_model_runs_in_a_process_that_never_saw_klarsicht(tmp_path, method):
    b, x = bench(), torch.rand(3, 4, 4, 4)
    made = METHODS[method].make(b, CorrectionParameters("last", 1, 1.0))
    record = packages.save_correction(tmp_path / "c", made, FACTS, b.classifier, x[0])
    assert record["exported"], record
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch; sys.modules['klarsicht'] = None\n"
        f"net = torch.export.load({str(tmp_path / 'c' / 'model.pt2')!r}).module()\n"
        f"torch.save(net(torch.load({str(tmp_path / 'x.pt')!r})), {str(tmp_path / 'y.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    expected = corrected(b.classifier.module, made, x)
    torch.testing.assert_close(torch.load(tmp_path / "y.pt").detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_network_with_an_output_object_is_exported_as_its_logits(tmp_path):
    transformers = pytest.importorskip("transformers")
    shape = {"image_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(patch_size=8, intermediate_size=16, num_labels=3, **shape)
    torch.manual_seed(0)
    net, rng = transformers.ViTForImageClassification(config).eval(), np.random.default_rng(0)
    made = Erasure("vit.layers.1", orthogonal_eraser(rng.standard_normal((16, 1)), np.ones(16)))
    x = torch.rand(3, 3, 32, 32)
    record = packages.save_correction(tmp_path / "c", made, FACTS, load_model(net), x[0])
    assert record["exported"], record
    found = torch.export.load(str(tmp_path / "c" / "model.pt2")).module()(x).detach()
    torch.testing.assert_close(found, corrected(net, made, x).logits, atol=1e-5, rtol=1e-5)


def test_a_model_that_cannot_be_exported_says_why(tmp_path):
    b = bench()
    made = CLOSED["reactive-class"].make(b, CorrectionParameters("last"))
    record = packages.save_correction(tmp_path / "c", made, FACTS, b.classifier, torch.rand(4, 4, 4))
    assert record["exported"] is False
    assert record["why"]
    assert not (tmp_path / "c" / "model.pt2").exists()
    assert (tmp_path / "c" / "corrected.py").is_file()


def test_what_was_saved_before_does_not_shine_through(tmp_path):
    b = bench()
    packages.save_correction(tmp_path / "c", RETRAINED["dfr"].make(b, CorrectionParameters()), FACTS)
    packages.save_correction(tmp_path / "c", CLOSED["oblique"].make(b, CorrectionParameters("last")), FACTS)
    found, _ = packages.load_correction(tmp_path / "c")
    assert found == replace(found)
    assert type(found).__name__ == "Erasure"


@pytest.mark.parametrize("content", [None, "no json"])
def test_a_folder_without_a_correction_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "correction.json").write_text(content)
    with pytest.raises(InputError, match="no correction"):
        packages.load_correction(tmp_path)


def test_a_folder_that_is_not_there_is_named_in_words(tmp_path):
    with pytest.raises(InputError, match=r"^no such folder; got .*nowhere; a folder with correction.json\. Make one"):
        packages.load_correction(tmp_path / "nowhere")


@pytest.mark.parametrize("method", ["oblique", "augment"])
def test_a_correction_without_a_part_or_with_a_damaged_one_is_refused_by_its_name(tmp_path, method):
    b = bench()
    made = METHODS[method].make(b, CorrectionParameters("last", 2, 0.9))
    packages.save_correction(tmp_path, made, FACTS)
    (part,) = (tmp_path / name for name in packages.PART_FILES if (tmp_path / name).is_file())
    whole, record = part.read_bytes(), (tmp_path / packages.RECORD).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        part.write_bytes(damaged)
        with pytest.raises(InputError, match=part.name):
            packages.load_correction(tmp_path)
    part.unlink()
    with pytest.raises(InputError, match=f"no {part.name}"):
        packages.load_correction(tmp_path)
    half = whole[: len(whole) // 2]
    part.write_bytes(half)  # which another program gave its sum
    sums = {part.name: hashlib.sha256(half).hexdigest()}
    (tmp_path / packages.RECORD).write_text(json.dumps(json.loads(record) | {"files": sums}))
    with pytest.raises(InputError, match="no correction in this folder"):
        packages.load_correction(tmp_path)
    part.write_bytes(whole)
    (tmp_path / packages.RECORD).write_bytes(record)
    packages.load_correction(tmp_path)
    (tmp_path / packages.RECORD).write_bytes(b"")
    with pytest.raises(InputError, match="no correction in this folder"):
        packages.load_correction(tmp_path)


@pytest.mark.parametrize("record", [[], None, 5, "text", {"format": 2}, {"format": "1"}, {"format": None}])
def test_a_correction_of_another_format_is_refused(tmp_path, record):
    packages.save_correction(tmp_path, JointCorrection(), FACTS)
    written = json.loads((tmp_path / "correction.json").read_bytes())
    assert written["format"] == 1
    changed = written | record if isinstance(record, dict) else record
    (tmp_path / "correction.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"correction\.json has another format; got format .*audit clean"):
        packages.load_correction(tmp_path)


@pytest.mark.parametrize("record", [
    {"model": None}, {"model": ["a"]}, {"files": []}, {"files": {"erasure.npz": None}},
    {"settings": None}, {"settings": {"overall": "a"}}, {"choice": {"chosen": 5}}, {"layers": "abc"},
    {"corrections": [{"folder": None}]}, {"corrections": {}}, {"identity": 5}, {"artifact files": None},
])  # fmt: skip
def test_a_record_of_another_shape_is_no_correction(tmp_path, record):
    packages.save_correction(tmp_path / "c", JointCorrection(), FACTS | {"model": "object:Net"})
    written = json.loads((tmp_path / "c" / "correction.json").read_bytes())
    changed = written | record if isinstance(record, dict) else record
    (tmp_path / "c" / "correction.json").write_text(json.dumps(changed))
    for reads in (packages.load_correction, lambda folder: load_corrected(str(folder))):
        with pytest.raises(InputError, match=r"no correction in this folder; got .*ValueError: ") as caught:
            reads(tmp_path / "c")
        assert "\n" not in str(caught.value)
