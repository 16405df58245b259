"""Windows of an artifact at random places: located, filled from around, and nothing else changed."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.shortcut import FACTS, TARGET, Shortcut, classifier, place, sample
from torch import nn

from klarsicht.audit.cleaning.corrections import corrected_model, packages
from klarsicht.audit.cleaning.corrections import feature_inpainting as f
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.explanation.models.correction_tensors import first_convolution
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.errors import InputError

SIDE = 8


def anywhere(seed=0, m=40):
    """The mark of the shortcut, 2 x 2, at m random places."""
    rng = np.random.default_rng(seed)
    opacity, colour = np.zeros((m, SIDE, SIDE), np.float32), np.zeros((m, 4, SIDE, SIDE), np.float32)
    for mask, (a, b) in zip(opacity, rng.integers(0, SIDE - 1, (m, 2)), strict=True):
        mask[a : a + 2, b : b + 2] = 1
    colour[:, 3] = 4
    return Overlay(opacity, colour)


def marked(n=200, seed=0):
    """Images of which some carry the mark, each at a place of its own."""
    plain, rng, overlay = sample(n, seed, SIDE, members=0), np.random.default_rng(seed), anywhere(seed + 10)
    member = (plain.labels == TARGET) & (rng.random(n) < 0.3)
    images = [put_on(i, overlay, rng) if m else i for i, m in zip(plain.images, member, strict=True)]
    return Sample(images, member, plain.sources, plain.labels)


def fitted(layer="last", **more):
    return CLOSED["inpaint"].make(
        FittingData(classifier(), TARGET, marked(), anywhere(), **more), CorrectionParameters(layer)
    )


@pytest.mark.parametrize("layer", ["body", "last"])
def test_the_mark_is_located_filled_and_nothing_is_lost(layer):
    """By closed form: activations at both layers are the image itself, and all evidence for the mark is channel 3."""
    found, rng, overlay = fitted(layer), np.random.default_rng(3), anywhere(5)
    assert found.kernel.shape == (4, 2, 2)
    plain = torch.stack(list(sample(60, 2, SIDE, members=0).images))
    chosen = [overlay.draw_number(rng) for _ in plain]
    under = torch.stack([overlay.blend(image, i) for image, i in zip(plain, chosen, strict=True)])
    filled, mask = found(under), torch.from_numpy(overlay.masks[chosen])[:, None]
    near = nn.functional.max_pool2d(mask.float(), 3, 1, 1) > 0  # half of a mark is located, too
    assert torch.equal(torch.where(near, 0, filled), torch.where(near, 0, plain))
    assert filled[:, 3].max() <= 0.2 + 1e-6  # of images without it
    test = CorrectionTest(classifier(), marked(300, 1), TARGET, anywhere(6))
    before, after = test.evaluate(None), test.evaluate(found)
    assert before.flips.value > 0.05 and before.rise.value > 0.3
    assert after.flips.value == 0 and abs(after.rise.value) < 0.02 * before.rise.value
    assert after.harm.value <= 0 and after.harm_affected.value <= 0


def test_an_image_without_a_located_window_keeps_its_logits_to_the_bit():
    found, images = fitted(), sample(80, 4, SIDE, members=0).images
    np.testing.assert_array_equal(compute_logits(classifier(), images, found), compute_logits(classifier(), images))


def test_filling_is_normalised_convolution_written_as_loops():
    rng = np.random.default_rng(0)
    a, mask = rng.standard_normal((3, 2, 6, 7)).astype(np.float32), rng.random((3, 1, 6, 7)) < 0.6
    mask[1] = True  # nothing to fill from
    reference, steps = np.array([0.5, -2.0], np.float32), 2
    expected = a.copy()
    for image in range(3):
        known = ~mask[image, 0]
        for _ in range(steps):
            before, was = expected[image].copy(), known.copy()
            for i in range(6):
                for j in range(7):
                    near = [
                        (k, m) for k in range(i - 1, i + 2) for m in range(j - 1, j + 2)
                        if 0 <= k < 6 and 0 <= m < 7 and was[k, m]
                    ]  # fmt: skip
                    if not was[i, j] and near:
                        expected[image][:, i, j] = np.mean([before[:, k, m] for k, m in near], axis=0)
                        known[i, j] = True
        expected[image][:, ~known] = reference[:, None]
    found = f.fill_masked(torch.from_numpy(a), torch.from_numpy(mask), torch.from_numpy(reference), steps).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found[~np.broadcast_to(mask, a.shape)], a[~np.broadcast_to(mask, a.shape)])


@pytest.mark.parametrize("extent", [(2, 3), (3, 2), (1, 1), (3, 3)])
def test_scores_and_masks_are_those_of_windows_written_as_loops(extent):
    (h, w), rng = extent, np.random.default_rng(1)
    a, K, z = (rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 5, 6), (3, h, w), (3,)))
    scores = f.window_scores(*map(torch.from_numpy, (a, K, z)))
    edge = float(scores.flatten().sort().values[-4:-2].mean())
    mask = f.window_mask(scores > edge, extent)[:, 0].numpy()
    expected = np.zeros((2, 5, 6), bool)
    for image, values in enumerate(a - z[:, None, None]):
        wide = np.pad(values, ((0, 0), (h, h), (w, w)))
        for i in range(-(h // 2), 5 + h // 2 - h + 1):
            for j in range(-(w // 2), 6 + w // 2 - w + 1):
                score = (K * wide[:, i + h : i + 2 * h, j + w : j + 2 * w]).sum()
                assert score == pytest.approx(float(scores[image, 0, i + h // 2, j + w // 2]), abs=1e-4)
                if score > edge:
                    expected[image, max(i, 0) : max(i + h, 0), max(j, 0) : max(j + w, 0)] = True
    np.testing.assert_array_equal(mask, expected)
    assert expected.any() and not expected.all()


def test_tokens_and_channels_last_are_filled_as_a_grid_and_leading_tokens_are_kept():
    found = fitted()
    grid = torch.stack(list(marked(12, 7).images))
    expected = found(grid)
    assert not torch.equal(expected, grid)
    last = FeatureInpainting("last", found.kernel, found.threshold, found.reference, -1)
    torch.testing.assert_close(last(grid.movedim(1, -1)), expected.movedim(1, -1), atol=0, rtol=0)
    tokens, leading = grid.flatten(2).transpose(1, 2), torch.rand(12, 2, 4)
    torch.testing.assert_close(
        last(torch.cat([leading, tokens], 1)),
        torch.cat([leading, expected.flatten(2).transpose(1, 2)], 1),
        atol=0,
        rtol=0,
    )
    with pytest.raises(InputError, match="do not fit"):
        found(torch.rand(2, 4))


def test_the_discriminant_is_that_of_known_gaussians():
    """S^-1 (m1 - m0) of two Gaussians, by both estimates of S (positions are independent)."""
    rng = np.random.default_rng(0)
    root, shift = rng.standard_normal((2, 2)) + 2 * np.eye(2), rng.standard_normal((2, 2, 2))
    draws = [np.einsum("cd,ndij->ncij", root, rng.standard_normal((4000, 2, 2, 2))) + m for m in (shift, 0 * shift)]
    expected = np.einsum("cd,dij->cij", np.linalg.inv(root @ root.T), shift)
    for most in (600, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f, "FULL_COVARIANCE", most)
            found = f.window_discriminant(*draws)
        assert (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99


def test_a_threshold_lies_between_what_is_apart_and_holds_false_alarms_where_it_is_not():
    clean = np.arange(200.0)
    assert f.separating_threshold(clean, clean + 1000) == pytest.approx((197.01 + 1001.99) / 2)
    assert (clean > f.separating_threshold(clean, clean + 3)).mean() <= f.FALSE_ALARMS


def test_an_artifact_of_the_whole_image_or_of_none_is_refused():
    whole = Overlay(np.full((1, SIDE, SIDE), 0.5, np.float32), np.full((1, 4, SIDE, SIDE), 3, np.float32))
    for insertion, rule in ((whole, "nearly everywhere"), (None, "neither a place nor an imitation")):
        with pytest.raises(InputError, match=rule):
            CLOSED["inpaint"].make(FittingData(classifier(), TARGET, marked(), insertion), CorrectionParameters("last"))
    with pytest.raises(InputError, match="no grid"):
        fitted("head")


@pytest.mark.parametrize(("share", "kept"), [(1.0, True), (0.6, True), (0.4, False), (0.0, False)])
def test_members_that_do_not_show_what_is_put_on_refuse_it(share, kept):
    """By construction: members carry the mark, which is located in every image that shows it, or nothing at all."""
    fit, rng, overlay = marked(), np.random.default_rng(4), anywhere(10)
    plain = sample(200, 0, SIDE, members=0)
    members = np.flatnonzero(fit.member)
    carry = members[: round(share * len(members))]
    images = [put_on(image, overlay, rng) if i in carry else image for i, image in enumerate(plain.images)]
    found = fitted()
    located = found.locate(torch.stack(images))
    assert located[carry].all() and located.sum() <= len(carry) + 2
    data = FittingData(classifier(), TARGET, replace(fit, images=images), anywhere())
    if kept:
        assert CLOSED["inpaint"].make(data, CorrectionParameters("last")).layer == "last"
        return
    with pytest.raises(InputError, match=f"{len(carry)} of {len(members)}"):
        CLOSED["inpaint"].make(data, CorrectionParameters("last"))
    paired = replace(data, fit=replace(data.fit, paired=True))  # copies: what is put on is the artifact
    assert CLOSED["inpaint"].make(paired, CorrectionParameters("last")).layer == "last"


def test_the_image_itself_is_tried_where_the_first_convolution_is_not_among_the_layers():
    data = FittingData(classifier(), TARGET, marked(), anywhere())
    assert data.layers == ("last", "head") and data.first_layers == ("body",)
    assert first_convolution(nn.Linear(2, 2)) == ""


def test_saved_built_in_exported_and_alone_it_is_the_same(tmp_path):
    found, images = fitted(), marked(24, 8).images
    x = torch.stack(list(images))
    expected = compute_logits(classifier(), images, found)
    assert np.abs(expected - compute_logits(classifier(), images)).max() > 0.1
    told = packages.save_correction(tmp_path, found, FACTS, classifier(), images[0])
    loaded, _ = packages.load_correction(tmp_path)
    np.testing.assert_array_equal(compute_logits(classifier(), images, loaded), expected)
    after = corrected_model.corrected_classifier(classifier(), tmp_path)
    np.testing.assert_allclose(compute_logits(after, images), expected, atol=1e-6)
    assert set(after.module.state_dict()) >= {"last.layer.weight", "last.change.kernel"}
    assert after.module.last.out_channels == 4  # the network may ask the layer for it
    assert told["exported"], told
    program = torch.export.load(tmp_path / "model.pt2").module()
    np.testing.assert_allclose(program(x).detach().numpy(), expected, atol=1e-5)
    space = {"__file__": str(tmp_path / "corrected.py"), "__name__": "corrected"}
    exec(compile((tmp_path / "corrected.py").read_text(), "corrected.py", "exec"), space)
    with torch.no_grad():
        np.testing.assert_allclose(space["corrected"](Shortcut().eval())(x).numpy(), expected, atol=1e-6)


def test_at_a_sum_it_is_built_in_as_hooks():
    class Residual(Shortcut):
        def forward(self, x):
            y = self.body(x)
            return self.head((y + self.last(y)).mean((2, 3)))

    net, found, x = Residual().eval(), fitted(), torch.stack(list(marked(24, 8).images))
    at_sum = FeatureInpainting(":sum1", found.kernel / 2, found.threshold, 2 * found.reference)
    with at_sum.applied(net), torch.no_grad():
        expected = net(x)
    built = corrected_model.build_in(copy.deepcopy(net), at_sum)
    with torch.no_grad():
        assert not torch.allclose(net(x), expected)
        assert torch.equal(built(x), expected)
        assert torch.equal(copy.deepcopy(built)(x), expected)


def test_auto_tries_it_and_place_of_one_corner_works_too():
    data = FittingData(classifier(), TARGET, sample(200), place())
    found = CorrectionTest(classifier(), sample(200, 1), TARGET, place()).evaluate(
        CLOSED["inpaint"].make(data, CorrectionParameters("last"))
    )
    assert found.flips.value < 0.05 and found.harm.value <= 0.01


@pytest.mark.parametrize("rules", ["EpsilonPlusFlat", "GradientTimesInput"])
def test_relevance_of_the_corrected_model_leaves_the_filled_mark_out(rules):
    """Without a located window it is that of the model; the mark itself gets none, as nothing depends on it."""
    found = fitted("body" if rules == "GradientTimesInput" else "last")
    built = replace(classifier(), module=corrected_model.build_in(classifier().module, found))
    plain = torch.stack(list(sample(6, 9, SIDE, members=0).images))
    targets, overlay = torch.zeros(6, dtype=torch.long), anywhere(5)
    maps = [explain(one, plain, targets, method=rules).maps for one in (built, classifier())]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5 * np.abs(maps[1]).max())
    under = torch.stack([overlay.blend(image, i) for i, image in enumerate(plain)])
    seen, was = (np.abs(explain(one, under, targets, method=rules).maps) for one in (built, classifier()))
    at = overlay.masks[:6]
    assert seen.shape[1:] == at.shape[1:]
    assert was[at].sum() > 0.1 * was.sum() and seen[at].sum() < 1e-5 * seen.sum()
