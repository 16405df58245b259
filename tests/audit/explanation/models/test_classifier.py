"""Sources of a classifier, and the logit that belongs to a label."""

from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn.utils import prune
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor, to_tensor

from klarsicht.audit.explanation.models import weights
from klarsicht.audit.explanation.models.classifier import Classifier, label_indices, load_model
from klarsicht.audit.explanation.models.transforms import PhotographTransform, PixelTransform
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode, set_evaluation_mode
from klarsicht.ground.errors import CorpusError, ImageRefused, ModelError, ProgramFailed, UsageError


def network(channels=3, classes=5):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


# torchvision


def squeezed(classes=7):
    """The smallest architecture with a convolution for a head."""
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(weights=None, num_classes=classes)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_torchvision_with_a_local_checkpoint(tmp_path, wrap):
    saved = squeezed()
    torch.save(wrap(saved.state_dict()), tmp_path / "net.pt")
    classifier = load_model(f"torchvision:squeezenet1_1@{tmp_path / 'net.pt'}")
    assert classifier.n_classes == 7 and classifier.classes is None and not classifier.module.training
    assert all(torch.equal(v, saved.state_dict()[k]) for k, v in classifier.module.state_dict().items())
    assert classifier.transform(Image.new("RGB", (300, 400))).shape == (3, 224, 224)


def test_the_head_of_a_mobilenet_is_found(tmp_path):
    saved = torchvision.models.mobilenet_v2(weights=None, num_classes=3)
    torch.save(saved.state_dict(), tmp_path / "net.pt")
    classifier = load_model("torchvision:mobilenet_v2", checkpoint=tmp_path / "net.pt")
    assert (classifier.head, classifier.n_classes) == ("classifier.1", 3)


def test_a_checkpoint_that_does_not_fit_lists_keys(tmp_path):
    state = squeezed().state_dict()
    state["strange.weight"] = state.pop("features.0.weight")
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"features\.0\.weight missing.*strange\.weight unexpected"):
        load_model(f"torchvision:squeezenet1_1@{tmp_path / 'net.pt'}")


class Boom:
    def __reduce__(self):
        return (print, ("code ran while a checkpoint was read",))


def test_a_checkpoint_never_runs_code(tmp_path, capsys):
    torch.save({"state_dict": Boom()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="safely"):
        load_model(f"torchvision:squeezenet1_1@{tmp_path / 'evil.pt'}")
    assert capsys.readouterr().out == ""


def test_checkpoints_that_are_none(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name, words in (("list.pt", "no state dict"), ("text.pt", "safely"), ("absent.pt", "no such")):
        with pytest.raises(ModelError, match=words):
            weights.read_state_dict(tmp_path / name)


def test_nothing_is_downloaded_and_near_names_are_given():
    with pytest.raises(UsageError, match="nothing is ever downloaded"):
        load_model("torchvision:resnet50")
    with pytest.raises(UsageError, match="resnet50"):
        load_model("torchvision:resnet5@x.pt")
    with pytest.raises(UsageError, match="efficientnet-lite0"):
        load_model("efficientnet-lite")


# entry points and objects


def test_an_entry_point_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_zoo.py").write_text(
        "import torch\n"
        "def grey(): return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))\n"
        "def pair(): return grey(), lambda picture: torch.zeros(1, 4, 4)\n"
        "def broken(): raise RuntimeError('no weights here')\n"
        "def number(): return 3\n"
        "def script(): raise SystemExit('usage: zoo.py FILE')\n"
    )
    monkeypatch.chdir(tmp_path)
    grey = load_model("my_zoo:grey")
    assert grey.transform == PixelTransform("L") and grey.spec == "my_zoo:grey" and not grey.module.training
    assert load_model("my_zoo:pair").transform(None).shape == (1, 4, 4)
    for spec, words in (
        ("my_zoo:gray", "Did you mean grey"),
        ("my_zoo:broken", "my_zoo:broken.*no weights here"),
        ("my_zoo:number", "my_zoo:number is not a model; got int"),
        ("my_zoo:script", r"my_zoo:script: SystemExit: usage: zoo.py FILE \(my_zoo.py, line 6\)"),
        ("no_such_zoo:grey", "no_such_zoo"),
    ):
        with pytest.raises(ModelError, match=words):
            load_model(spec)


def test_an_exported_program_is_refused_in_one_line():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    exported = torch.export.export(network, (torch.zeros(1, 3, 8, 8),)).module()
    with pytest.raises(ModelError, match="Load the network that was exported"), evaluation_mode(exported):
        raise AssertionError("it was borrowed")
    with pytest.raises(ModelError, match="evaluation mode"):
        set_evaluation_mode(exported)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda net: nn.DataParallel(torch.compile(net))])
def test_a_network_is_taken_out_of_its_wrapper(wrap):
    net = network()
    assert load_model(wrap(net)).module is net


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(1, 3, 8, 8))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused_in_one_line(make):
    with pytest.raises(ModelError, match=r"TorchScript.*Return the network"):
        load_model(make(network().eval()))


def test_a_module_given_stays_in_its_mode():
    given = network().train()
    classifier = load_model(given, classes=list("abcde"))
    assert classifier.module is given and given.training
    assert classifier.classes == tuple("abcde")
    with pytest.raises(ModelError, match="2 names"):
        load_model(given, classes=["a", "b"])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_without_a_transform_pictures_are_floats_of_the_first_layer_s_channels(channels, mode):
    picture = Image.new(mode, (6, 5), tuple([255] * channels) if channels > 1 else 255)
    tensor = load_model(network(channels)).transform(picture)
    assert tensor.shape == (channels, 5, 6) and tensor.dtype == torch.float32 and (tensor == 1).all()


def test_a_transform_that_the_network_carries_is_said_to_be_unused():
    """torchvision's detectors have a layer of that name, so it cannot be taken for one of pictures."""
    module = network(3)
    assert not any("attribute" in note for note in load_model(module).notes)
    module.transform = lambda picture: torch.zeros(3, 4, 4)
    assert any("attribute `transform`" in note and "(net, transform)" in note for note in load_model(module).notes)
    assert load_model((module, module.transform)).notes == load_model((network(3), module.transform)).notes


@pytest.mark.parametrize(("mode", "shape"), [("L", (5, 7)), ("RGB", (5, 7, 3)), ("RGBA", (5, 7, 4))])
def test_a_picture_that_keeps_its_size_is_torchvisions_tensor(mode, shape):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    assert torch.equal(PixelTransform(mode)(picture), to_tensor(picture))


def test_channels_that_no_picture_has():
    with pytest.raises(ModelError, match="got 7"):
        load_model(network(7))


def test_a_flattened_square_is_grey():
    assert load_model(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))).transform == PixelTransform("L")
    assert load_model(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))).transform == PixelTransform("RGB")


# facts


def test_logits_are_counted_when_the_head_cannot_say():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    classifier = load_model(net)
    assert (classifier.head, classifier.n_classes, net.training) == ("0", 6, True)


def test_a_transform_that_fails_on_an_image_is_tried_on_a_test_image():
    sound = PixelTransform("RGB")

    def transform(picture):
        if refusals is None or picture.size in refusals:
            raise IndexError("no such crop")
        return sound(picture)

    refusals = {(9, 9)}
    classifier = load_model((network(), transform))
    with pytest.raises(ImageRefused, match="transform: IndexError: no such crop"):
        classifier.image(Image.new("RGB", (9, 9)))
    refusals = None
    with pytest.raises(ProgramFailed, match=r"fails on a test image as well; got .*no such crop"):
        classifier.image(Image.new("RGB", (10, 10)))


def test_identity_follows_the_weights():
    net = network()
    before = load_model(net).identity
    assert before == load_model(net).identity and len(before) == 64
    with torch.no_grad():
        net[0].bias[0] += 1e-6
    assert load_model(net).identity != before


def test_identity_follows_hooks_and_a_forward_that_was_set(monkeypatch):
    """A hook changes what the network computes, and no weight; without hooks the identity is as before."""
    net = network()
    plain = load_model(net).identity
    handle = net[0].register_forward_hook(lambda module, inputs, output: output * 0)
    silenced = load_model(net).identity
    handle.remove()
    assert load_model(net).identity == plain != silenced
    handle = net[0].register_forward_hook(lambda module, inputs, output: output * 2)
    assert load_model(net).identity not in (plain, silenced)
    handle.remove()
    monkeypatch.setattr(net[0], "forward", partial(torch.mul, other=0))
    assert load_model(net).identity != plain


def test_a_hook_of_torch_that_computes_a_weight_of_the_state_dict_changes_no_identity():
    net = network()
    prune.identity(net[0], "weight")
    hooked = load_model(net).identity
    for hook in list(net[0]._forward_pre_hooks):
        del net[0]._forward_pre_hooks[hook]
    assert load_model(net).identity == hooked


def test_a_model_without_a_transform_says_so_and_a_swapped_pair_is_refused():
    assert "no transform" in load_model(network()).notes[0]
    assert load_model((network(), PixelTransform("RGB"))).notes == ()
    with pytest.raises(ModelError, match="Swap the two"):
        load_model((v2.Identity(), network()))


def test_the_box_is_black_and_white_after_normalisation():
    low, high = Classifier(network(), PhotographTransform(), None, "test").pixel_bounds
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(torch.tensor(low), -mean / std, atol=1e-5)
    assert torch.allclose(torch.tensor(high), (1 - mean) / std, atol=1e-5)


def test_the_box_of_a_grey_network_has_its_one_channel():
    low, high = load_model((network(1), lambda picture: pil_to_tensor(picture) / 255 - 0.5)).pixel_bounds
    assert (low, high) == ((-0.5,), (0.5,))


# labels


def named(*classes):
    return load_model(network(classes=len(classes)), classes=classes)


def test_labels_are_names_then_numbers_then_in_sorted_order():
    assert label_indices(["hen", "cock"], named("cock", "hen", "duck")) == {"hen": 1, "cock": 0}
    assert label_indices(["2", "0"], named("cock", "hen", "duck")) == {"2": 2, "0": 0}
    assert label_indices(["n03", "n01", "n02"], named("cock", "hen", "duck")) == {"n01": 0, "n02": 1, "n03": 2}


def test_a_class_called_by_a_number_is_meant_by_its_name():
    assert label_indices(["1", "0"], named("1", "0")) == {"1": 0, "0": 1}


def test_labels_the_model_does_not_know():
    classifier = named("carton", "crate", "chest")
    with pytest.raises(CorpusError, match=r"'cartoon' \(near 'carton'.*class-map"):
        label_indices(["cartoon", "chest"], classifier)
    with pytest.raises(CorpusError, match="'3'"):
        label_indices(["3"], classifier)
    many = [f"zz{i}" for i in range(9)]
    with pytest.raises(CorpusError, match=r"'zz4', \.\.\."):
        label_indices(many, classifier)


@pytest.mark.parametrize("label", ["hen;cock", "hen | duck", "duck,hen,cock"])
def test_several_labels_of_an_image_are_said_to_be_so(label):
    with pytest.raises(CorpusError, match=r"several labels.*Give --label-separator"):
        label_indices(["hen", label], named("cock", "hen", "duck"))
    assert label_indices(["hen;cock"], named("hen;cock", "hen", "cock")) == {"hen;cock": 0}


def test_sorted_order_does_not_overrule_a_known_name():
    with pytest.raises(CorpusError, match="'hull'"):
        label_indices(["hen", "hull"], named("hen", "cock"))
