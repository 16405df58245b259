"""Models and corpora as people have them: what is refused in one line, what is left out by name, what just works."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import Marked, network, picture, write_corpus
from torch import nn
from torchvision.transforms.functional import to_tensor

from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.report.caveats import collect_caveats
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import ranking
from klarsicht.cli.app import run as cli
from klarsicht.ground.errors import InputError, ModelError, UsageError


def audit(tmp_path, model, data="data", run="run", classes=None, **changes):
    options = {"neighbours": 6, "unit": 25, "batch": 7} | changes
    settings = AuditSettings(model="object", data=str(tmp_path / data), **options)
    return pipeline.run(settings, tmp_path / run, classifier=load_model(model, classes=classes))


def skipped(store):
    keys = store.table("corpus")["key"].to_pylist()
    return {keys[line["row"]]: line["skipped"] for line in store.table("images").to_pylist() if line["skipped"]}


class Attend(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(3, 1, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.head(self.attend(tokens, tokens, tokens)[0].mean(1))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"target": "all"}, {"method": "HeadRelevance"}])
def test_attention_can_be_audited_by_head_relevance(tmp_path, changes):
    write_corpus(tmp_path / "data", per_class=25)
    store = audit(tmp_path, Attend().eval(), **changes)
    assert len(ranking.read_ranking(store)) == 3
    assert (store.path / "report.html").is_file()
    assert not store.has_array("maps")


@pytest.mark.slow
def test_head_relevance_without_maps_ranks_as_with_them(tmp_path):
    write_corpus(tmp_path / "data")
    with_maps = ranking.read_ranking(audit(tmp_path, network(), run="maps"))
    without = ranking.read_ranking(audit(tmp_path, network(), run="none", method="HeadRelevance"))
    assert [(e.name, e.rows) for e in with_maps] == [(e.name, e.rows) for e in without]
    np.testing.assert_allclose([e.z for e in with_maps], [e.z for e in without], rtol=1e-5)


@pytest.mark.slow
def test_grey_pictures_reach_a_colour_model_in_colour(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    for i in range(5):
        Image.new("L", (12, 12), 40 * i).save(tmp_path / "data" / "a" / f"grey{i}.png")
    assert skipped(audit(tmp_path, (network(), to_tensor))) == {}


class FixedSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.head = nn.Linear(3 * 12 * 12, 3)

    def forward(self, x):
        return self.head(self.flatten(x))


@pytest.mark.slow
def test_images_that_the_model_refuses_are_left_out_by_name_and_take_no_others_with_them(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "a" / "big.png")
    left_out = skipped(audit(tmp_path, FixedSize().eval()))
    assert set(left_out) == {"a/big.png"}
    assert "40" in left_out["a/big.png"]


def test_images_smaller_than_the_maps_are_left_out_and_larger_ones_are_not(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "a" / "small.png")
    Image.new("RGB", (70, 50), "red").save(tmp_path / "data" / "a" / "large.png")
    store = audit(tmp_path, network())
    assert set(skipped(store)) == {"a/small.png"}
    assert store.array("maps").shape[1:] == (12, 12)


def test_a_model_that_fails_on_every_image_is_told_in_one_line(tmp_path):
    write_corpus(tmp_path / "data", per_class=3)
    with pytest.raises(InputError, match="the model fails on an image"):
        audit(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(7, 3)).eval())


class Choosy(Marked):
    """Fails, in a way of its own, on pictures whose first pixel is black."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        if (x[:, :, 0, 0] == 0).all(1).any():
            raise self.error
        return super().forward(x)


ERRORS = [KeyError("logit"), AttributeError("no such part"), SystemExit(3), ZeroDivisionError("by zero")]


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_model_raises_takes_one_image_away_and_no_more(tmp_path, error):
    write_corpus(tmp_path / "data", per_class=25)
    Image.new("RGB", (12, 12), "black").save(tmp_path / "data" / "a" / "black.png")
    left_out = skipped(audit(tmp_path, Choosy(error).eval()))
    assert set(left_out) == {"a/black.png"}
    assert type(error).__name__ in left_out["a/black.png"]
    assert "test_hostile.py, line" in left_out["a/black.png"]


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_transform_raises_takes_one_image_away_and_no_more(tmp_path, error):
    def choosy(image):
        if image.size == (40, 40):
            raise error
        return to_tensor(image)

    write_corpus(tmp_path / "data", per_class=25)
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "a" / "big.png")
    left_out = skipped(audit(tmp_path, (network(), choosy)))
    assert set(left_out) == {"a/big.png"}
    assert f"choosy: {type(error).__name__}" in left_out["a/big.png"]


@pytest.mark.parametrize(
    ("transform", "told"),
    [
        (np.asarray, "asarray: ndarray"),
        (lambda image: to_tensor(image)[None], r"shape \(1, 3, 256, 256\)"),
        (lambda image: {"pixels": to_tensor(image)}, "lambda>: dict"),
    ],
)
def test_a_transform_that_makes_no_image_is_named(tmp_path, transform, told):
    write_corpus(tmp_path / "data", per_class=3)
    with pytest.raises(InputError, match=told):
        audit(tmp_path, (network(), transform))


def test_a_model_with_weights_that_are_no_numbers_is_not_called_unconserving(tmp_path):
    write_corpus(tmp_path / "data", per_class=3)
    net = network()
    with torch.no_grad():
        net.head.weight[1, 2] = torch.nan
    with pytest.raises(ModelError, match=r"head\.weight holds 1 NaN of 12"):
        audit(tmp_path, net)


@pytest.mark.slow
def test_a_model_of_half_precision_is_audited_in_single(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    assert ranking.read_ranking(audit(tmp_path, network().half()))[0].name == "b"


@pytest.mark.slow
def test_a_double_precision_model_works(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    assert len(ranking.read_ranking(audit(tmp_path, network().double()))) == 3


@pytest.mark.slow
def test_a_picture_with_numbers_that_are_not_finite_is_left_out(tmp_path):
    def standardised(image):
        pixels = to_tensor(image)
        return (pixels - pixels.mean()) / pixels.std()  # 0 / 0 for a picture of one colour

    write_corpus(tmp_path / "data", per_class=25)
    Image.new("RGB", (12, 12), "black").save(tmp_path / "data" / "c" / "uniform.png")
    store = audit(tmp_path, (network(), standardised))
    assert set(skipped(store)) == {"c/uniform.png"}


class HeadFirst(nn.Module):
    """The head is written down first, and a hidden dense layer last."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.hidden = nn.Linear(3, 5)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


@pytest.mark.slow
def test_the_head_is_the_layer_that_runs_last(tmp_path):
    assert load_model(HeadFirst().eval()).head == "head"
    write_corpus(tmp_path / "data", per_class=25)
    store = audit(tmp_path, HeadFirst().eval(), target="all")
    assert store.array("features").shape == (75, 5)


def test_a_dropout_that_never_rests_is_named(tmp_path):
    torch.manual_seed(0)  # by chance two passes may agree
    write_corpus(tmp_path / "data", per_class=3)

    class Restless(Marked):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5, training=True)

    with pytest.raises(ModelError, match="differently each time"):
        audit(tmp_path, Restless().eval(), run="restless")


@pytest.mark.parametrize(
    ("ending", "told"), [(nn.Linear(432, 1), "one output"), (nn.Sequential(nn.Linear(432, 3), nn.Softmax(1)), "probab")]
)
def test_answers_that_no_test_image_could_show_are_refused_at_the_first_image(tmp_path, ending, told):
    """The network takes images of 12 x 12 px only, and has no transform that makes such."""
    write_corpus(tmp_path / "data", per_class=3)
    options = {"target": "predicted", "method": "GradientTimesInput"}
    with pytest.raises(ModelError, match=rf"{told}.*return \(module, transform\)"):
        audit(tmp_path, nn.Sequential(nn.Flatten(), ending).eval(), **options)


@pytest.mark.slow
def test_probabilities_are_audited_by_their_logits(tmp_path):
    """Oracle: the same audit of the network without its softmax; probabilities would saturate at 1."""
    write_corpus(tmp_path / "data")
    plain = audit(tmp_path, network(), run="logits")
    soft = audit(tmp_path, nn.Sequential(network(), nn.Softmax(1)).eval(), run="softmax")
    for a, b in zip(ranking.read_ranking(plain), ranking.read_ranking(soft), strict=True):
        assert (a.name, a.rows) == (b.name, b.rows)
        assert b.shift == pytest.approx(a.shift, rel=1e-5)
    assert any("final softmax is left out" in line for line in collect_caveats(soft, soft.table("images")))
    assert not any("softmax" in line for line in collect_caveats(plain, plain.table("images")))


@pytest.mark.slow
def test_a_network_with_one_output_is_audited_as_two_classes(tmp_path):
    write_corpus(tmp_path / "data")
    (tmp_path / "map.csv").write_text("label,index\na,0\nb,1\nc,0\n")
    torch.manual_seed(0)
    net = nn.Sequential(*list(network().children())[:-1], nn.Linear(4, 1)).eval()
    with torch.no_grad():
        net[-1].weight.copy_(torch.tensor([[-1.0, 1.0, -1.0, 9.0]]))
    store = audit(tmp_path, net, class_map=str(tmp_path / "map.csv"))
    found = ranking.read_ranking(store)
    assert {e.name: e.n for e in found} == {"a / c": 120, "b": 60}
    assert found[0].name == "b"


def test_screening_without_a_linear_head_is_refused_before_any_work(tmp_path):
    write_corpus(tmp_path / "data", per_class=3)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(UsageError, match="no head relevance"):
        audit(tmp_path, net, target="all")
    assert not (tmp_path / "run").exists()


def test_a_class_from_one_source_and_a_class_of_copies_are_skipped_by_name(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    for i in range(25):
        Image.new("RGB", (12, 12), "red").save(tmp_path / "data" / "c" / f"{i:03d}.png")
    lines = ["path,label,source"]
    lines += [
        f"{p.relative_to(tmp_path)},{p.parent.name},{'one' if p.parent.name == 'a' else ''}"
        for p in sorted((tmp_path / "data").rglob("*.png"))
    ]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    store = audit(tmp_path, network(), data="all.csv", classes=["a", "b", "c"])
    assert [e.name for e in ranking.read_ranking(store)] == ["b"]
    page = (store.path / "report.html").read_text()
    assert "of one source" in page
    assert "distinct image" in page


@pytest.mark.slow
def test_labels_of_one_output_are_one_class_and_none_vanishes(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    (tmp_path / "map.csv").write_text("label,index\na,0\nb,1\nc,1\n")
    store = audit(tmp_path, network(), class_map=str(tmp_path / "map.csv"))
    assert {e.name: e.n for e in ranking.read_ranking(store)} == {"a": 25, "b / c": 50}


@pytest.mark.slow
def test_one_class_is_screened_by_its_folder_name(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    store = audit(tmp_path, network(), target="b")
    assert [e.name for e in ranking.read_ranking(store)] == ["b"]


def test_another_transform_is_another_model():
    half = load_model((network(), lambda p: to_tensor(p) / 2))
    whole = load_model((network(), to_tensor))
    assert half.identity != whole.identity
    assert whole.identity == load_model((network(), to_tensor)).identity


@pytest.mark.slow
def test_a_corpus_that_moved_is_cleaned_where_it_is_now(tmp_path):
    write_corpus(tmp_path / "data")
    classifier = load_model(network(), classes=["a", "b", "c"])
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), neighbours=6)
    pipeline.run(settings, tmp_path / "run", classifier=classifier)
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = str(tmp_path / "moved")
    clean_model.clean(tmp_path / "run", "b", data=moved, classifier=classifier)
    pipeline.run(settings.with_values(data=moved), tmp_path / "run", classifier=classifier)
    assert all(Path(path).is_file() for path in ranking.read_ranking(tmp_path / "run")[0].members)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(UsageError, match="seed"):
        AuditSettings.from_mapping({"model": "x", "data": "y", "seed": -1})


@pytest.mark.slow
def test_a_file_name_that_is_no_text_is_reported_all_the_same(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    place = bytes(tmp_path / "data") + b"/\xff\xfe"
    import os

    os.mkdir(place)  # noqa: PTH102 - a name that pathlib would have to decode
    assert (audit(tmp_path, network(), classes=["a", "b", "c"]).path / "report.html").is_file()


@pytest.mark.slow
def test_a_dangling_link_is_left_out_by_name(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    picture(0, False, np.random.default_rng(0)).save(tmp_path / "gone.png")
    (tmp_path / "data" / "a" / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "gone.png").unlink()
    assert "a/link.png" in skipped(audit(tmp_path, network()))


@pytest.mark.slow
def test_what_is_read_in_part_or_looks_black_is_said_and_a_stated_white_level_is_used(tmp_path, capsys):
    write_corpus(tmp_path / "data", per_class=25)
    rng = np.random.default_rng(0)
    for i in range(3):
        codes = rng.integers(0, 4096, (12, 12)).astype(np.uint16)
        Image.fromarray(codes).save(tmp_path / "data" / "a" / f"deep{i}.png")
    frames = [Image.new("L", (12, 12), level) for level in (10, 90)]
    frames[0].save(tmp_path / "data" / "b" / "pages.tif", save_all=True, append_images=frames[1:])
    (tmp_path / "data" / "b" / "cut.png").write_bytes((tmp_path / "data" / "a" / "deep0.png").read_bytes()[:60])
    store = audit(tmp_path, (network(), to_tensor))
    told = collect_caveats(store, store.table("images"))
    assert any(t.startswith("3 images, deep0.png the first: it uses less than a quarter") for t in told)
    assert "1 image, pages.tif the first: 2 pages, of which only the first is read." in told
    (unused,) = (t for t in told if "could not be used" in t)
    assert unused.startswith("1 of 80 images could not be used, b/cut.png the first: cannot decode")
    assert "supported formats" not in unused
    stated = audit(tmp_path, (network(), to_tensor), run="stated", white_level=4095)
    assert not any("quarter" in t for t in collect_caveats(stated, stated.table("images")))
    row = store.table("corpus")["key"].to_pylist().index("a/deep0.png")
    dark, bright = (s.array("logits")[row] for s in (store, stated))
    assert np.abs(bright).max() > 8 * np.abs(dark).max()  # 65535 / 4095 is 16; the network is linear in the grey level


@pytest.mark.slow
def test_an_image_larger_than_the_bound_is_left_out_by_name(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    head = struct.pack(">IIBBBBB", 20_000, 12_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    pixels = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "data" / "a" / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + pixels)  # 240 megapixels
    left_out = skipped(audit(tmp_path, (network(), to_tensor)))
    assert list(left_out) == ["a/large.png"]
    assert "20000 x 12000 pixels, more than the 220 megapixels" in left_out["a/large.png"]


@pytest.mark.slow
def test_names_that_turn_the_text_around_them_are_shown_escaped(tmp_path, capsys):
    write_corpus(tmp_path / "data", per_class=25)
    (tmp_path / "data" / "c").rename(tmp_path / "data" / "c\u202efig")
    (tmp_path / "data" / "b" / "photo\u202egnp.png").write_bytes(b"no picture")
    store = audit(tmp_path, (network(), to_tensor))
    shown = (store.path / "report.html").read_text()
    assert "\u202e" not in shown and r"c\u202efig" in shown and r"photo\u202egnp.png" in shown
    assert cli(["audit", "rank", str(store.path)]) == 0
    missing = "torchvision:resnet18@\u202eweights.pt"
    assert cli(["audit", "run", "--model", missing, "--data", str(tmp_path / "data")]) == 4
    told = capsys.readouterr()
    assert "\u202e" not in told.out + told.err
    assert r"c\u202efig" in told.out and r"\u202eweights.pt" in told.err
