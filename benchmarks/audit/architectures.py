"""Count the architectures that get a relevance map: one of every family of torchvision and timm, and of transformers;
and networks of segmentation, detection and volumes.

    python benchmarks/audit/architectures.py PHOTOGRAPHS [--package torchvision timm transformers] [--names ...]
    python benchmarks/audit/architectures.py PHOTOGRAPHS --package segmentation detection volumes

PHOTOGRAPHS is a folder of pictures. Weights are random, batch norms are settled on eight of the pictures; two pictures
are explained by EpsilonPlusFlat, or two volumes of eight pictures. Networks of segmentation and detection are those of
torchvision, in the modules of the page "Your model"; networks of volumes those of torchvision and MONAI. A network
passes when relevance is conserved to 1e-3 of what flows; printed are the residual, the share that biases absorb, and
the gross relevance over the seed (how noisy a map is). The families of timm are its modules; of each, the smallest
network by name.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.ground.errors import KlarsichtError

TORCHVISION = [
    *(
        "alexnet",
        "vgg11_bn",
        "resnet18",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "squeezenet1_1",
        "densenet121",
        "googlenet",
    ),
    *(
        "inception_v3",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "mnasnet0_5",
        "shufflenet_v2_x0_5",
        "efficientnet_b0",
        "efficientnet_v2_s",
        "regnet_x_400mf",
    ),
    *("regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"),
]
SEGMENTATION = (
    "fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)  # fmt: skip
DETECTION = {
    **{"ssdlite320_mobilenet_v3_large": ("Box", 320), "ssd300_vgg16": ("Box", 300)},
    **{"retinanet_resnet50_fpn": ("Box", 224), "retinanet_resnet50_fpn_v2": ("Box", 224)},
    **{"fcos_resnet50_fpn": ("Box", 224), "fasterrcnn_mobilenet_v3_large_320_fpn": ("Region", 224)},
    **{"fasterrcnn_resnet50_fpn": ("Region", 224)},
}
"""Detectors of torchvision, with the module of the page "Your model" and the side of a picture."""
VOLUMES = ("r3d_18", "mc3_18", "r2plus1d_18", "ResNet18")
"""Networks of volumes, of torchvision and, in capitals, of MONAI."""
ANCHOR, LABEL, SLICES = 100, 1, 8
PAGE = Path(__file__).parents[2] / "docs" / "your-model.md"
NO_WEIGHTS = {"weights": None, "weights_backbone": None}
SMALL = [
    *("atto", "femto", "pico", "nano", "xxs", "_xxt", "tiny", "_xt"),
    *("mini", "xsmall", "_xs", "small", "_s0", "_s", "_t", "_m0"),
    *("_b0", "_b1", "18", "_n", "_p0", "0", "_12", "_26"),
    *("_50", "_lite"),
]
CHOSEN = {
    **{"densenet": "densenet121", "dpn": "dpn68", "cspnet": "cspresnet50", "resnest": "resnest14d"},
    **{"convmixer": "convmixer_768_32", "nasnet": "nasnetalarge"},
}
BLOCKS = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
VIT = {**BLOCKS, "image_size": 64, "patch_size": 16}
DINO = {**VIT, "mlp_ratio": 2}
HIERARCHY = {"image_size": 64, "embed_dim": 24, "depths": [1, 1, 2]}
SWIN = {**HIERARCHY, "patch_size": 4, "num_heads": [2, 4, 4], "window_size": 4}
FOUR = {"embed_dim": 24, "depths": [1, 1, 2, 1]}
STAGES = {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 2, 1]}
TRANSFORMERS = {
    **{"ViT": VIT, "DeiT": VIT, "Beit": {**VIT, "use_relative_position_bias": True}},
    **{"Dinov2": DINO, "Dinov2WithRegisters": DINO, "Swin": SWIN, "Swinv2": SWIN},
    **{"ConvNext": STAGES, "ConvNextV2": STAGES, "ResNet": {**STAGES, "embedding_size": 16}},
    **{"RegNet": {**STAGES, "embedding_size": 16}, "EfficientNet": {"width_coefficient": 0.5, "hidden_dim": 640}},
    **{"MobileNetV1": {"depth_multiplier": 0.25}, "MobileNetV2": {"depth_multiplier": 0.25}},
    **{"CLIP": {"vision_config": VIT}, "Siglip": {"vision_config": VIT}, "MobileViT": {"image_size": 64}},
    **{"Levit": {"image_size": 224}, "Pvt": {"image_size": 64}, "PoolFormer": {}, "Cvt": {}},
    **{"Hiera": {**FOUR, "image_size": [64, 64]}, "FocalNet": {**FOUR, "image_size": 64}},
}


def photographs(folder: Path, count: int, side: int) -> Tensor:
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in {".jpg", ".jpeg", ".png"})[:count]
    pictures = (np.asarray(Image.open(f).convert("RGB").resize((side, side))) for f in files)
    return torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 127.5 - 1 for p in pictures])


def stacks(folder: Path, count: int, side: int, channels: int) -> Tensor:
    """Volumes (count, channels, SLICES, side, side), each of SLICES pictures."""
    pictures = photographs(folder, count * SLICES, side)[:, :channels]
    return pictures.reshape(count, -1, *pictures.shape[1:]).transpose(1, 2).contiguous()


def modules_of_page() -> dict[str, type[nn.Module]]:
    """The modules that the page shows for other tasks."""
    section = PAGE.read_text().split("## Other tasks")[1]
    space: dict[str, type[nn.Module]] = {}
    exec(compile(re.search(r"```python\n(.+?)```", section, re.S)[1], str(PAGE), "exec"), space)
    return space


def build_volumes(name: str) -> nn.Module:
    if name[0].islower():
        from torchvision.models import video

        return getattr(video, name)(weights=None, num_classes=4)
    from monai.networks import nets

    return getattr(nets, name.lower())(spatial_dims=3, n_input_channels=1, num_classes=4)


def settle(network: nn.Module, x: Tensor) -> nn.Module:
    """Settle batch norms on photographs, and draw heads that begin at zero."""
    for m in network.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = None
            m.reset_running_stats()
            m.train()
        elif isinstance(m, nn.Linear) and not m.weight.any():
            nn.init.normal_(m.weight, std=0.02)
    with torch.no_grad():
        network(x)
    return network.eval()


def tasks(packages: list[str]) -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    """Networks of other tasks than classification."""
    from torchvision.models import detection, segmentation

    page = modules_of_page()
    if "segmentation" in packages:
        for name in SEGMENTATION:
            yield f"segmentation {name}", lambda n=name: page["Segmented"](getattr(segmentation, n)(**NO_WEIGHTS)), 224
    if "detection" in packages:
        for name, (module, side) in DETECTION.items():
            which = ANCHOR if module == "Box" else LABEL
            yield (
                f"detection {name}",
                lambda n=name, m=module, w=which: page[m](getattr(detection, n)(**NO_WEIGHTS).eval(), w),
                side,
            )
    if "volumes" in packages:
        for name in VOLUMES:
            yield f"volumes {name}", lambda n=name: build_volumes(n), 64


def candidates(packages: list[str], names: list[str]) -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    yield from tasks(packages)
    if "torchvision" in packages:
        from torchvision.models import get_model

        for name in TORCHVISION:
            more = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
            side = 299 if name == "inception_v3" else 224
            yield f"torchvision {name}", lambda name=name, more=more: get_model(name, num_classes=10, **more), side
    if "timm" in packages:
        import timm

        for module in timm.list_modules():
            found = [n for n in timm.list_models(module=module) if not n.startswith("test_")]
            if not found:
                continue
            smallest = min(found, key=lambda n: (next((i for i, s in enumerate(SMALL) if s in n), 99), len(n)))
            name = CHOSEN.get(module, smallest)
            side = timm.get_pretrained_cfg(name).input_size[-1] if timm.get_pretrained_cfg(name) else 224
            yield f"timm {name}", lambda name=name: timm.create_model(name, num_classes=10), side
    if "transformers" in packages:
        import transformers

        for name, settings in TRANSFORMERS.items():
            side = settings.get("image_size", 64)
            config = getattr(transformers, f"{name}Config")(num_labels=10, **settings)
            build = getattr(transformers, f"{name}ForImageClassification")
            yield f"transformers {name}", lambda build=build, c=config: build(c), side if isinstance(side, int) else 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--package", nargs="+", default=["torchvision", "timm", "transformers"])
    parser.add_argument("--names", nargs="+", default=[], help="only networks whose name contains one of these")
    parser.add_argument("--skip", nargs="+", default=[], help="networks to leave out, such as those that are too large")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    passed = tried = 0
    print("| network | relevance map | residual | absorbed | gross over seed | s |\n|---|---|---|---|---|---|")
    for name, build, side in candidates(asked.package, asked.names):
        if (asked.names and not any(n in name for n in asked.names)) or any(n in name for n in asked.skip):
            continue
        torch.manual_seed(0)
        began = time.perf_counter()
        try:
            if name.startswith("volumes"):
                x = stacks(asked.photographs, 2, side, 1 if name.split()[1][0].isupper() else 3)
            else:
                x = photographs(asked.photographs, 8, side)
            network = settle(build(), x)
        except Exception as error:  # this version of the package does not run its own network
            print(f"| {name} | not built: {type(error).__name__}: {str(error)[:80]} | | | | |", flush=True)
            continue
        tried += 1
        try:
            shape = x.shape[1:]
            model = load_model((network, lambda _, shape=shape: torch.zeros(shape)) if x.ndim == 4 else network)
            found = explain(model, x[:2], torch.tensor([0, 1]))
        except KlarsichtError as error:
            print(f"| {name} | refused: {str(error)[:160]} | | | | |", flush=True)
            continue
        passed += 1
        gross = float((found.balance.gross / found.balance.seed.abs()).median())
        spent = time.perf_counter() - began
        residual, absorbed = np.abs(found.residual).max(), np.median(np.abs(found.absorbed))
        print(f"| {name} | yes | {residual:.0e} | {absorbed:.2g} | {gross:.3g} | {spent:.1f} |", flush=True)
    print(f"\n{passed} of {tried}")


if __name__ == "__main__":
    main()
