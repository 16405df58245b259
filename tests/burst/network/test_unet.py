"""The network against a literal rewrite of its U-Net, published sizes, and the laws that tiles and pictures rely on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.marks import slow, slow_but_first
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from klarsicht.burst.network.heads import (
    Features,
    HeadShape,
    InputFrames,
    KernelHead,
    UnitHead,
    gaussian_logits,
    identity_taps,
)
from klarsicht.burst.network.unet import (
    COLOURS,
    PRESETS,
    WHOLE,
    Network,
    NetworkSettings,
    build_network,
    linear_input,
    stabilised_input,
    upsample_twice,
)
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

NARROW = 0.125
READ, SHOT = torch.tensor([0.02, 0.05]), torch.tensor([0.004, 0.01])


def small(preset, colour="grey", seed=0, **changes):
    return build_network(NetworkSettings(preset=preset, colour=colour, width=NARROW, **changes), seed).eval()


def burst(colour="grey", frames=8, height=32, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, frames, COLOURS[colour], height, width, generator=generator)


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("preset", "sizes", "width", "millions"),
    [("mkpn", (1, 3, 5, 7, 9), 1, 31.7), ("mkpn", (1, 3, 5, 7), 1, 29.4), ("kpn", (5,), 1, 28.7),
     ("mkpn", (1, 3, 5, 7, 9), 0.25, 1.77)],
)  # fmt: skip
def test_the_published_layouts_have_their_number_of_parameters(preset, sizes, width, millions):
    layout = replace(PRESETS[preset], spec=replace(PRESETS[preset].spec, sizes=sizes))
    with torch.device("meta"):
        network = Network(NetworkSettings(preset=preset, width=width), layout)
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=0.05 if width == 1 else 0.005)


def literal_unet(x, weights):
    """KPN's U-Net, level by level, eating the convolutions in their order: 3 at each of 5 levels down, 3 of 3 up."""
    weights = iter(weights)

    def level(x):
        for _ in range(3):
            x = conv2d(x, next(weights), next(weights), padding=1).clamp(min=0)
        return x

    one = level(x)
    two = level(avg_pool2d(one, 2))
    three = level(avg_pool2d(two, 2))
    four = level(avg_pool2d(three, 2))
    five = level(avg_pool2d(four, 2))
    for skip in (four, three, two):
        double = interpolate(five, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        five = level(torch.cat([double, skip], 1))
    return five


def test_the_body_is_the_unet_of_kpn():
    body = small("mkpn").body
    x = torch.randn(1, 17, 32, 48)
    assert torch.allclose(body(x).fine, literal_unet(x, list(body.parameters())), atol=1e-5)


def test_the_head_commutes_with_upsampling():
    head, features = torch.nn.Conv2d(6, 10, 1), torch.randn(1, 6, 5, 7)
    assert torch.allclose(upsample_twice(head(features)), head(upsample_twice(features)), atol=1e-6)


@pytest.mark.parametrize("colour", slow_but_first(COLOURS))
@pytest.mark.parametrize("preset", ["mkpn", "kpn", slow("kpn-separable"), "direct", "swift"])
def test_with_a_head_that_learned_nothing_the_mean_of_the_valid_frames_comes_out(preset, colour, plain_kernels):
    network = small(preset, colour)
    for layer in network.head.children():
        torch.nn.init.zeros_(layer.weight)
        if preset == "direct":
            torch.nn.init.zeros_(layer.bias)
    frames = burst(colour, height=37, width=50)
    valid = torch.tensor([[1] * 8, [1, 0, 1, 1, 0, 0, 0, 1]]).bool()
    frames = frames * valid[:, :, None, None, None]
    expected = torch.stack([x[v].mean(0) for x, v in zip(frames, valid, strict=True)])
    assert torch.allclose(network(frames, READ, SHOT, valid).merged, expected, atol=1e-6)


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("separable", [True, False])
def test_kernels_at_rest_leave_a_frame_as_it_is_summed_or_averaged(separable, averaged, plain_kernels):
    spec = KernelSpec((1, 3, 5), separable=separable, averaged=averaged)
    taps = identity_taps(spec)[None, :, None, None].expand(-1, -1, 4, 4).contiguous()
    frame = torch.rand(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(apply_kernels(taps, frame, spec).merged[0], frame[0, 0], atol=1e-6)


@pytest.mark.parametrize("preset", ["swift", "mkpn", "bpn"])
def test_kernels_of_missing_frames_are_not_needed(preset, plain_kernels):
    """Two frames of four: the picture is that of four, the others 0 and not valid."""
    network, frames = small(preset, frames=4), burst(frames=4)
    network, frames[:, 2:] = network if preset == "bpn" else random_head(network), 0
    valid = torch.tensor([[True, True, False, False]]).expand(len(frames), -1)
    with torch.no_grad():
        padded = network(frames, READ, SHOT, valid).merged
        assert torch.allclose(network(frames[:, :2], READ, SHOT).merged, padded, atol=1e-5)


@pytest.mark.slow
def test_the_weights_of_a_basis_add_up_to_one():
    ones = torch.ones(2, 3, 1, 40, 40)
    inside = small("bpn")(ones, READ, SHOT).merged[..., 8:-8, 8:-8]
    assert torch.allclose(inside, torch.ones_like(inside), atol=1e-5)


def test_light_is_neither_made_nor_lost_at_the_taps(plain_kernels):
    """What frames of 1 become is the sum of each frame's kernels; one of the frames is missing."""
    network = small("swift", frames=2)
    with torch.no_grad():
        network.head.taps.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
        valid = torch.tensor([[True, False]])
        taps, frames, spec, weight = network.kernels(burst(frames=2)[:1], READ[:1], SHOT[:1], valid)
    fixed = taps[..., 5:6, 7:8].expand(-1, -1, 16, 16).contiguous()  # the same tap everywhere: nothing is interpolated
    sums = apply_kernels(fixed, torch.ones_like(frames), spec).per_frame[0, :, 0, 16, 16]
    assert sums.std() > 0.01
    assert sums[weight[0] > 0].mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("spec", [KernelSpec((1, 3)), KernelSpec((3, 5), separable=False, averaged=False)])
def test_sums_are_what_white_frames_become_and_dividing_by_them_changes_nothing_else(spec, plain_kernels):
    head, free = (Head(HeadShape(6, 6, 2, 1, 1.0), spec) for Head in (UnitHead, KernelHead))
    torch.nn.init.normal_(head.taps.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    free.load_state_dict(head.state_dict())
    f = torch.rand(1, 6, 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 6, 6)
    features, white = (
        Features(f, f),
        InputFrames(torch.ones(1, 2, 1, 12, 12), torch.ones(1, 2), torch.ones(1, 2, 1, 1, 1)),
    )
    middle = free(features, white).per_frame[0, :, 0, 6, 6]
    assert torch.allclose(head.kernel_sums(f, 2)[0, :, 3, 3], middle, atol=1e-4)
    assert middle.mean() > UnitHead.MIN_SUM and middle.std() > 0.01
    assert torch.allclose(head(features, white).per_frame[0, :, 0, 6, 6], middle / middle.mean(), atol=1e-4)


@pytest.mark.parametrize("preset", ["mkpn", "bpn", "swift"])
def test_missing_frames_are_frames_of_weight_nothing(preset, plain_kernels):
    network, frames = small(preset), burst(frames=5)
    filled = torch.cat([frames, torch.zeros(2, 3, 1, 32, 32)], 1)
    valid = torch.arange(8).expand(2, 8) < 5
    few, many = network(frames, READ, SHOT), network(filled, READ, SHOT, valid)
    assert few.per_frame.shape == (2, 5, 1, 32, 32)
    assert torch.allclose(few.merged, many.merged, atol=1e-6)
    assert torch.allclose(few.per_frame, many.per_frame[:, :5], atol=1e-6)


def test_the_mean_frame_is_of_what_agrees_with_the_reference():
    frames, agreement = burst(frames=3), torch.ones(2, 3, 32, 32)
    agreement[:, 1, :, :16], agreement[:, 2] = 0, 0.5
    mean = small("swift").kernels(frames, READ, SHOT, None, agreement).frames[:, -1, 0]
    one, two, three = frames[:, :, 0].unbind(1)
    assert torch.allclose(mean[..., :16], ((one + three / 2) / 1.5)[..., :16], atol=1e-6)
    assert torch.allclose(mean[..., 16:], ((one + two + three / 2) / 2.5)[..., 16:], atol=1e-6)


@pytest.mark.parametrize("preset", ["mkpn", "bpn", "swift"])
def test_the_picture_is_the_sum_of_weight_times_pixel(preset, plain_kernels):
    network, frames = small(preset), burst(height=33, width=47)
    with torch.no_grad():
        kernels = network.kernels(frames, READ, SHOT)
        assert torch.equal(apply_kernels(*kernels).merged, network(frames, READ, SHOT).merged)


def random_head(network):
    """Kernels that differ from pixel to pixel, as those of a trained network do."""
    with torch.no_grad():
        network.head.taps.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return network


@pytest.mark.parametrize("preset", ["mkpn", "swift"])
def test_a_tile_with_its_halo_gives_what_the_whole_gives(preset, plain_kernels):
    network, layout = random_head(small(preset, frames=2)), PRESETS[preset]
    whole = burst(frames=2, height=32 * layout.stride, width=21)
    margin = -(-layout.halo // layout.stride) * layout.stride
    first, last = 14 * layout.stride, 15 * layout.stride + 3
    with torch.no_grad():
        expected = network(whole, READ, SHOT).merged[..., first:last, :]
        tile = network(whole[..., first - margin : last + margin, :], READ, SHOT).merged
    assert expected.std() > 0.05
    assert torch.allclose(tile[..., margin : margin + last - first, :], expected, atol=1e-5)


@pytest.mark.parametrize("preset", ["mkpn", "swift"])
def test_no_pixel_beyond_the_halo_has_a_say(preset):
    network, layout = random_head(small(preset, frames=1)).double(), PRESETS[preset]
    frames = burst(frames=1, height=32 * layout.stride, width=4)[:1].double().requires_grad_()
    for pixel in (15 * layout.stride, 16 * layout.stride - 1):
        Y = network(frames, READ[:1], SHOT[:1]).merged
        (gradient,) = torch.autograd.grad(Y[..., pixel, :].square().sum(), frames)
        heard = gradient.abs().sum((0, 1, 2, 4)).nonzero()
        assert (heard - pixel).abs().max() <= layout.halo
        assert (heard - pixel).abs().max() > layout.halo - 2 * layout.stride


def shown(frames):
    return InputFrames(frames, torch.ones(1, 1), torch.ones(1, 1, 1, 1, 1))


def test_a_stabilised_sight_shows_black_white_and_noise_of_the_deviation_it_names():
    level, rng = NoiseLevel(read=0.02, shot=0.01), np.random.default_rng(0)
    light = np.repeat(np.linspace(0.2, 1, 4, dtype=np.float32), 20_000).reshape(1, 1, 1, 4, -1)
    noisy = torch.from_numpy(level.sample(light, rng))
    read, shot = (torch.full((1, 1, 1, 1), value) for value in (level.read, level.shot))
    planes, deviation = stabilised_input(shown(noisy), read, shot)
    assert torch.allclose(planes.std(-1), deviation[..., 0], rtol=0.05)
    ends = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2)
    assert torch.allclose(stabilised_input(shown(ends), read, shot)[0], ends, atol=1e-6)
    assert torch.isfinite(stabilised_input(shown(ends), read, torch.zeros_like(shot))[0]).all()


def test_a_linear_sight_is_the_deviation_map_of_the_reference():
    frames = burst(frames=2)
    _, known = linear_input(shown(frames), READ.view(-1, 1, 1, 1), SHOT.view(-1, 1, 1, 1))
    assert known[1, 0, 3, 4].item() == pytest.approx((0.05**2 + 0.01 * frames[1, 0, 0, 3, 4].item()) ** 0.5)


def test_first_weights_depend_on_the_seed_alone_and_disturb_no_one():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (torch.cat([w.flatten() for w in small("swift", seed=s).parameters()]) for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_half_precision_with_channels_last_stays_near_single():
    network, frames = random_head(small("swift")), burst()
    with torch.no_grad():
        single = network(frames, READ, SHOT).merged
        with torch.autocast("cpu", torch.bfloat16):
            half = network(frames, READ, SHOT).merged
    assert half.dtype == torch.float32
    assert 0 < (half - single).square().mean().sqrt() < 0.05 * single.std()


@pytest.mark.parametrize("preset", [slow(preset) if preset == "bpn" else preset for preset in PRESETS])
def test_every_preset_learns_and_every_weight_gets_a_gradient(preset, request):
    if preset != "bpn":  # no other test runs its program; those of others are run by test_training, test_pixel_kernels
        request.getfixturevalue("plain_kernels")
    network = small(preset, seed=2)
    out = network(burst(frames=3), READ, SHOT)
    (out.merged.square().mean() + out.per_frame.square().mean()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_resting_taps_leave_a_frame_and_gaussians_widen(plain_kernels):
    for spec in (KernelSpec(), KernelSpec((3, 5), separable=False), KernelSpec((7,))):
        frame = torch.rand(1, 1, 2, 9, 8)
        taps = identity_taps(spec)[None, :, None, None].expand(1, -1, 5, 4)
        assert torch.allclose(apply_kernels(taps, frame, spec).per_frame, frame, atol=1e-6)
    shares = gaussian_logits(4, 9).flatten(1).softmax(-1)
    assert (shares[:, 40].diff() < 0).all()


def test_names_and_shapes_that_do_not_fit_are_told():
    with pytest.raises(UsageError, match="mkpn"):
        NetworkSettings(preset="mkp")
    with pytest.raises(UsageError, match="grey"):
        NetworkSettings(colour="gray")
    with pytest.raises(UsageError, match="1 to 8 frames"):
        small("swift")(torch.zeros(1, 9, 1, 32, 32), READ[:1], SHOT[:1])
    with pytest.raises(UsageError, match="rgb"):
        small("swift", "rgb")(burst("mosaic"), READ, SHOT)
    with pytest.raises(UsageError, match="no kernels"):
        small("direct").kernels(burst(), READ, SHOT)


@pytest.mark.parametrize("preset", ["swift", "kpn"])
def test_a_network_for_colours_sees_a_grey_frame_as_three_equal_channels(preset, plain_kernels):
    network, frames = random_head(small(preset, "rgb")), burst("grey")
    with torch.no_grad():
        grey = network(frames, READ, SHOT).merged
        three = network(frames.expand(-1, -1, 3, -1, -1), READ, SHOT).merged
    assert grey.shape == (2, 1, 32, 32)
    assert torch.allclose(three, grey.expand(-1, 3, -1, -1), atol=1e-5 * grey.abs().max().item())


@pytest.mark.parametrize("preset", ["swift", "mkpn", "bpn"])
def test_kernels_of_a_part_are_those_of_the_whole_there(preset):
    """In the middle, at a border and in a corner of a picture whose sides the stride does not divide."""
    network, frames = small(preset) if preset == "bpn" else random_head(small(preset)), burst(height=101, width=150)
    for at in ((slice(40, 60), slice(64, 90)), (slice(0, 101), slice(0, 30)), (slice(96, 101), slice(130, 150))):
        with torch.no_grad():
            whole, part = (network.kernels(frames, READ, SHOT, part=p) for p in (WHOLE, at))
        rows, columns = (slice(s.start // 2, -(-s.stop // 2)) for s in at)
        assert torch.allclose(part.taps, whole.taps[..., rows, columns], atol=1e-5)
        assert torch.equal(part.frames, whole.frames[..., *at])


def test_a_picture_that_is_predicted_itself_has_the_channels_it_was_made_with():
    with pytest.raises(UsageError, match="takes"):
        small("direct", "rgb")(burst("grey"), READ, SHOT)


def test_what_is_alive_in_a_level_is_counted():
    """swift for mosaics enters with four pixels of nine frames of four planes, four of noise and eight of agreement."""
    body = build_network(NetworkSettings(colour="mosaic"), seed=1).body
    assert body.peak_values_per_pixel == 4 * 9 * 4 + 4 + 8 + 3 * 32
