"""Models from timm, transformers, torch.export and files: their logits and transforms are those of their libraries."""

import copy
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.forward import open_observer
from klarsicht.audit.explanation.models.specifications import check_model_of_run
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.ground.errors import MissingExtra, ModelError, UnsupportedLayer, UntrustedCode, UsageError
from klarsicht.ground.trust import trusted_code

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8))


# timm


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm")


@pytest.fixture(scope="module")
def mobilenet(timm, tmp_path_factory):
    """A network of timm with nine classes, and its file."""
    torch.manual_seed(0)
    net = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=9).eval()
    path = tmp_path_factory.mktemp("timm") / "net.safetensors"
    save_file(net.state_dict(), path)
    return net, path


def test_a_timm_model_has_its_own_transform_and_logits(timm, mobilenet):
    net, path = mobilenet
    classifier = load_model(f"timm:mobilenetv3_small_050@{path}")
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=net), is_training=False)
    image = classifier.image(PICTURE)
    assert torch.equal(image, transform(PICTURE))
    with torch.no_grad():
        assert torch.equal(classifier.logits(image[None]), net(image[None]))
    assert (classifier.n_classes, classifier.classes, classifier.module.training) == (9, None, False)


def test_a_grey_timm_model(timm, tmp_path):
    net = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=3, in_chans=1)
    save_file(net.state_dict(), tmp_path / "grey.safetensors")
    grey = load_model(f"timm:mobilenetv3_small_050@{tmp_path / 'grey.safetensors'}")
    assert (grey.mode, grey.takes) == ("L", "grey")


def test_timm_errors_are_one_line_each(mobilenet):
    _, path = mobilenet
    with pytest.raises(UsageError, match="Did you mean mobilenetv3_small_0"):
        load_model(f"timm:mobilenetv3_small_05@{path}")
    with pytest.raises(UsageError, match="nothing is ever downloaded"):
        load_model("timm:mobilenetv3_small_050")
    with pytest.raises(UsageError, match="unknown timm architecture"):
        load_model("timm:hf-hub:timm/resnet18")
    with pytest.raises(ModelError, match=r"does not fit resnet18; got .*net.safetensors: fc.weight missing"):
        load_model(f"timm:resnet18@{path}")


# transformers


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A folder of save_pretrained with a tiny ViT of three classes."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        id2label={0: "cock", 1: "hen", 2: "duck"}, label2id={"cock": 0, "hen": 1, "duck": 2},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vit")
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return net, folder


def test_a_folder_of_transformers_has_its_processor_and_class_names(vit, capsys):
    transformers = pytest.importorskip("transformers")
    net, folder = vit
    capsys.readouterr()
    classifier = load_model(f"hf:{folder}")
    assert capsys.readouterr().err == ""
    assert classifier.classes == ("cock", "hen", "duck")
    assert (classifier.head, classifier.n_classes) == ("classifier", 3)
    image = classifier.image(PICTURE)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    assert torch.equal(image, processor(images=PICTURE, return_tensors="pt")["pixel_values"][0])
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(image[None]), net(image[None]).logits)


def test_a_network_of_transformers_in_python_has_its_processor_and_class_names(vit):
    transformers = pytest.importorskip("transformers")
    net, folder = vit
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    classifier = load_model((net, processor))
    assert classifier.classes == ("cock", "hen", "duck")
    image = classifier.image(PICTURE)
    assert torch.equal(image, processor(images=PICTURE, return_tensors="pt")["pixel_values"][0])
    assert load_model(net, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    nameless = copy.deepcopy(net)
    nameless.config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert load_model(nameless).classes is None
    other_head = copy.deepcopy(net)
    other_head.classifier = torch.nn.Linear(16, 5)
    assert load_model(other_head).classes is None  # the names are those of the head that was there before


def test_equal_names_of_a_model_of_transformers_are_made_distinct_and_said(vit, tmp_path):
    shutil.copytree(vit[1], tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(
        json.dumps(config | {"id2label": {"0": "cock", "1": "hen", "2": "hen"}})
    )
    classifier = load_model(f"hf:{tmp_path / 'vit'}")
    assert classifier.classes == ("cock", "hen", "hen (2)")
    assert classifier.notes == ("classes of one name were made distinct: hen (2) is number 2, hen number 1",)
    assert load_model(f"hf:{tmp_path / 'vit'}", classes=["a", "b", "c"]).notes == ()


def test_weights_of_transformers_in_a_pickle_are_read_only_with_trust(vit, tmp_path):
    net, folder = vit
    shutil.copytree(folder, tmp_path / "vit", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(net.state_dict(), tmp_path / "vit" / "pytorch_model.bin")
    with pytest.raises(UntrustedCode, match=r"in a pickle.*pytorch_model\.bin.*save_pretrained.*trusted_code"):
        load_model(f"hf:{tmp_path / 'vit'}")
    with trusted_code():
        classifier = load_model(f"hf:{tmp_path / 'vit'}")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(x), net(x).logits)


def test_a_model_of_transformers_saved_in_bfloat16_is_audited_in_float32(vit, tmp_path):
    _, folder = vit
    transformers = pytest.importorskip("transformers")
    half = transformers.ViTForImageClassification.from_pretrained(folder, local_files_only=True).bfloat16()
    half.save_pretrained(tmp_path)
    transformers.AutoImageProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    classifier = load_model(f"hf:{tmp_path}")
    assert {p.dtype for p in classifier.module.parameters()} == {torch.float32}


def test_a_folder_without_its_head_or_its_processor_is_refused(vit, tmp_path):
    transformers = pytest.importorskip("transformers")
    net, _ = vit
    net.save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match=r"no image processor.*processor\.save_pretrained"):
        load_model(f"hf:{tmp_path / 'bare'}")
    transformers.ViTModel(net.config).save_pretrained(tmp_path / "headless")
    with pytest.raises(ModelError, match=r"lacks weights.*classifier\.bias"):
        load_model(f"hf:{tmp_path / 'headless'}")
    with pytest.raises(ModelError, match="no model of transformers in this folder"):
        load_model(f"hf:{tmp_path / 'nowhere'}")


def test_a_folder_of_a_config_alone_says_how_a_model_is_saved(vit, tmp_path):
    (tmp_path / "config.json").write_bytes((vit[1] / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"cannot load the model.*model\.save_pretrained\(FOLDER\)"):
        load_model(f"hf:{tmp_path}")


def test_a_file_of_code_is_asked_for_its_function():
    with pytest.raises(UsageError, match=r"got 'mine\.py'.*Write mine\.py:NAME"):
        load_model("mine.py")


def test_an_unknown_form_says_how_a_model_of_python_is_given():
    with pytest.raises(UsageError, match=r"unknown model; got 'mine'\. Known: .*FOLDER.*classifier="):
        load_model("mine")


def test_a_folder_without_the_form_of_its_model_is_refused_with_the_form(tmp_path):
    with pytest.raises(UsageError, match=rf"got '{tmp_path}'.*hf:{tmp_path} "):
        load_model(str(tmp_path))


@pytest.mark.parametrize(("package", "spec"), [("timm", "timm:resnet18@x.pt"), ("transformers", "hf:{}")])
def test_a_missing_library_is_named_with_its_extra(monkeypatch, tmp_path, package, spec):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed.*\.\[(timm|hf)\]"):
        load_model(spec.format(tmp_path))


# torch.export


def network(ending=None):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(*layers, *([ending] if ending else [])).eval()


def exported(path, net, batch=True, side=12):
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if batch else None
    torch.export.save(
        torch.export.export(net, (torch.zeros(2 if batch else 1, 3, side, side),), dynamic_shapes=shapes), path
    )
    return str(path)


@pytest.mark.parametrize("batch", [True, False])
def test_an_exported_program_gives_logits_features_and_gradients(tmp_path, batch):
    net = network()
    classifier = load_model(exported(tmp_path / "net.pt2", net, batch))
    x, target = torch.rand(1, 3, 12, 12), torch.tensor([1])
    assert (classifier.head, classifier.mode, classifier.n_classes) == ("head", "RGB", 3)
    with open_observer(classifier) as observe, torch.no_grad():
        found = observe(x)
        np.testing.assert_allclose(found.logits, net(x), rtol=1e-5)
        np.testing.assert_allclose(found.features, net[:5](x), rtol=1e-5)
    ours = explain(classifier, x, target, method="GradientTimesInput")
    theirs = explain(load_model(net), x, target, method="GradientTimesInput")
    np.testing.assert_allclose(ours.maps, theirs.maps, atol=1e-6)
    np.testing.assert_allclose(ours.head, theirs.head, atol=1e-6)


def test_propagation_through_an_exported_program_is_refused_or_that_of_the_network(tmp_path):
    classifier = load_model(exported(tmp_path / "net.pt2", network()))
    x, target = torch.rand(1, 3, 12, 12), torch.tensor([1])
    try:
        found = explain(classifier, x, target)
    except UnsupportedLayer as error:
        assert "head relevance" in str(error)
    else:
        np.testing.assert_allclose(found.maps, explain(load_model(network()), x, target).maps, atol=1e-5)


@pytest.mark.parametrize(
    "ending",
    [
        nn.Softmax(1),
        nn.LogSoftmax(1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Dropout()),
    ],
)
def test_what_follows_the_head_of_an_exported_program_is_left_out(tmp_path, ending):
    classifier = load_model(exported(tmp_path / "net.pt2", network(ending)))
    x = torch.rand(4, 3, 12, 12)
    torch.testing.assert_close(classifier.logits(x), network()(x))


def test_a_program_that_ends_otherwise_and_a_file_that_is_none_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"does not end in a fully connected layer.*relu"):
        load_model(exported(tmp_path / "net.pt2", network(nn.ReLU())))
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(ModelError, match=r"no program of torch\.export; got .*text\.pt2"):
        load_model(str(tmp_path / "text.pt2"))
    with pytest.raises(ModelError, match="no such file"):
        load_model(str(tmp_path / "absent.pt2"))


# files


def test_a_function_in_a_file_of_any_folder(tmp_path, monkeypatch):
    (tmp_path / "zoo_parts.py").write_text("WIDTH = 5\n")
    (tmp_path / "json.py").write_text(
        "from dataclasses import dataclass\nimport torch\nfrom zoo_parts import WIDTH\n"
        "@dataclass\nclass Half:\n    by: float = 2.0\n"
        "    def __call__(self, picture): return torch.ones(3, 8, 8) / self.by\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, WIDTH)), Half()\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    classifier = load_model(f"{tmp_path / 'json.py'}:net")
    assert classifier.n_classes == 5
    assert float(classifier.image(PICTURE).mean()) == 0.5
    import json

    assert hasattr(json, "loads")
    with pytest.raises(ModelError, match="no such file"):
        load_model("../absent.py:net")
    with pytest.raises(ModelError, match="Did you mean net"):
        load_model("../json.py:ned")


def test_a_file_of_weights_alone_is_refused_with_what_to_write():
    with pytest.raises(UsageError, match=r"Write torchvision:NAME@net\.pt, timm:"):
        load_model("net.pt")


def test_a_run_of_python_says_that_its_model_must_be_given(tmp_path):
    """A folder may be a correction; a file that is gone is named as such."""
    with pytest.raises(UsageError, match=r"the model of this run is not given; got --model 'mine'.*classifier="):
        check_model_of_run("mine")
    check_model_of_run(str(tmp_path))
    check_model_of_run("package.module:callable")
    with pytest.raises(ModelError, match=r"no such file.*from the folder where it was made"):
        check_model_of_run(f"{tmp_path}/gone.py:build")
