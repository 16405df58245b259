"""The whole chain on networks of others: a ResNet and a ConvNeXt of timm, and a vision transformer of transformers.

    python benchmarks/audit/any_network.py IMAGENET32 --seeds 0 1 2 --json chain.jsonl
    python benchmarks/audit/any_network.py IMAGENET32 --networks vit --seeds 0 --json chain.jsonl --keep folder

Ten ImageNet classes at 32 px, drawn by the seed: 200 photographs of each are audited, 100 others test. `audit plant`
puts its tag on 30 % of the first class, and a small network, its weights drawn at random, is trained on them until the
tag turns at least a fifth of the other classes' test photographs into the first class. Then `audit run`, `quantify`,
`clean` and `evaluate`, by the doors of docs/your-model.md: a file with a function, and a folder of save_pretrained.

    accuracy   on test photographs without a tag
    flips      of other classes' test photographs not taken for the first, the share that is with the true tag on
    rise       of the first class's centred logit, by the audit's own insertion; told: the flips that `evaluate` says
    lost       points of accuracy, of all classes and of the first
    again      the corrected model built in as a network: largest difference of its logits from those under the hook
    exported   whether torch.export wrote the corrected model, and the same of it

A line of the JSON file is one network and seed; what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from klarsicht import audit
from klarsicht.audit.cleaning.corrections.activations import Correction, apply_correction
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.networks.outputs import as_logits
from klarsicht.audit.verdicts.synthetic.artifacts import plant_corpus, tag
from klarsicht.ground.errors import KlarsichtError

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes

EACH, TEST = 200, 100  # photographs of a class
SHARE = 0.3  # of the first class, with the tag
FLIPS = 0.2  # of other classes' test photographs, from which on the network counts as a Clever Hans
STEPS = ("train", "run", "quantify", "clean", "evaluate")
FILE = """import timm
from safetensors.torch import load_file


def build():
    net = timm.create_model({name!r}, **{options!r})
    net.load_state_dict(load_file({weights!r}))
    return net.eval()
"""


@dataclass(frozen=True)
class Architecture:
    """A network with random weights for K classes, and a door for it: save(net, folder, classes) -> a specification."""

    build: Callable[[int], nn.Module]
    save: Callable[[nn.Module, Path, list[str]], str]
    rate: float
    epochs: int


def of_timm(name: str, rate: float, epochs: int, **options: Any) -> Architecture:
    def save(net: nn.Module, folder: Path, classes: list[str]) -> str:
        weights, shape = folder / "weights.safetensors", options | {"num_classes": len(classes)}
        save_file(net.state_dict(), weights)
        (folder / "network.py").write_text(FILE.format(name=name, options=shape, weights=str(weights)))
        return f"{folder / 'network.py'}:build"

    return Architecture(lambda k: timm.create_model(name, num_classes=k, **options), save, rate, epochs)


def vit(classes: int) -> nn.Module:
    shape = {"image_size": 32, "patch_size": 4, "hidden_size": 64, "num_hidden_layers": 4}
    return ViTForImageClassification(
        ViTConfig(**shape, num_attention_heads=4, intermediate_size=128, num_labels=classes)
    )


def save_vit(net: nn.Module, folder: Path, classes: list[str]) -> str:
    net.config.id2label = dict(enumerate(classes))
    net.config.label2id = {name: i for i, name in enumerate(classes)}
    net.save_pretrained(folder / "vit")
    ViTImageProcessorPil(do_resize=False, do_normalize=False).save_pretrained(folder / "vit")
    return f"hf:{folder / 'vit'}"


NETWORKS = {
    "resnet": of_timm("resnet10t", 2e-3, 12, channels=(16, 32, 64, 128)),
    "convnext": of_timm("convnext_atto", 2e-3, 16, patch_size=2, depths=(1, 1, 2, 1), dims=(24, 48, 96, 192)),
    "vit": Architecture(vit, save_vit, 1e-3, 16),
}


def inputs(levels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(levels).movedim(-1, 1).float() / 255


def logits(net: nn.Module, x: Tensor, correction: Correction | None = None) -> Tensor:
    with apply_correction(net, correction), torch.no_grad():
        return torch.cat([as_logits(net(batch)) for batch in x.split(100)])


@dataclass(frozen=True)
class Truth:
    """Test photographs, without a tag and with it, and their labels; the tag belongs to label 0."""

    plain: Tensor
    tagged: Tensor
    labels: Tensor

    def figures(self, net: nn.Module, correction: Correction | None = None) -> dict[str, float]:
        plain, under = (logits(net, x, correction).argmax(1) for x in (self.plain, self.tagged))
        own, right = self.labels == 0, (plain == self.labels).float()
        eligible = ~own & (plain != 0)
        return {
            "accuracy": float(right.mean()),
            "class": float(right[own].mean()),
            "flips": float((under[eligible] == 0).float().mean()),
        }


def train(net: nn.Module, x: Tensor, y: Tensor, truth: Truth, how: Architecture, seed: int) -> int:
    """Train until the tag flips enough test photographs, four epochs at least; return the epochs."""
    noise = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), how.rate, weight_decay=0.05)
    for epoch in range(how.epochs):
        net.train()
        for rows in torch.randperm(len(x), generator=noise).split(64):
            optimizer.zero_grad()
            cross_entropy(as_logits(net(x[rows])), y[rows], label_smoothing=0.1).backward()
            optimizer.step()
        net.eval()
        if epoch >= 3 and truth.figures(net)["flips"] >= FLIPS:
            break
    return epoch + 1


def one(name: str, seed: int, folder: Path, imagenet32: Path, classes: int, method: str) -> dict[str, Any]:
    names, images = planted_classes.classes(imagenet32, classes, seed)
    for label, stack in zip(names, images[:, :EACH], strict=True):
        (folder / "plain" / label).mkdir(parents=True)
        for i, image in enumerate(stack):
            Image.fromarray(image).save(folder / "plain" / label / f"{i:03d}.png")
    corpus = open_corpus(str(folder / "plain"))
    manifest = plant_corpus(corpus, folder / "tagged", kind="tag", label=names[0], share=SHARE, seed=seed).manifest
    lines = pyarrow.csv.read_csv(manifest).to_pylist()
    carriers = {str(manifest.parent / line["path"]) for line in lines if line["planted"]}
    x = inputs(np.stack([np.asarray(Image.open(manifest.parent / line["path"])) for line in lines]))
    y = torch.tensor([names.index(line["label"]) for line in lines])
    test = images[:, EACH : EACH + TEST].reshape(-1, *images.shape[2:])
    rng = np.random.default_rng(seed)
    marked = np.stack([tag(image, rng).pixels for image in test])
    truth = Truth(inputs(test), inputs(marked), torch.arange(classes).repeat_interleave(TEST))

    torch.manual_seed(seed)
    how, seconds = NETWORKS[name], {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            return work()
        finally:
            seconds[step] = round(time.perf_counter() - began, 1)

    net = how.build(classes)
    epochs = timed("train", lambda: train(net, x, y, truth, how, seed))
    result: dict[str, Any] = {"network": name, "seed": seed, "method": method, "epochs": epochs, "seconds": seconds}
    result["before"] = truth.figures(net)
    spec = how.save(net, folder, names)

    settings = audit.AuditSettings(model=spec, data=str(manifest), batch=64, seed=seed)
    store = timed("run", lambda: audit.run(settings, folder / "run"))
    noted = store.table("images", "attribution").to_pydict()
    for k in ("residual", "absorbed", "noise"):
        result[k] = float(np.nanmedian(np.array(noted[k], float)))
    found = timed("quantify", lambda: audit.quantify(folder / "run"))
    own = found.of(names[0])
    hits = len(carriers & set(own.members))
    entry = audit.rank(folder / "run").of(names[0])
    result["audit"] = {
        "verdict": own.verdict,
        "sign": own.detection.sign,
        "p": own.detection.p_rank,
        "p_use": own.use.p_use,
        "rise": own.use.shift,
        "flips": own.use.flips,
        "f1": 2 * hits / max(len(own.members) + len(carriers), 1),
        "cluster f1": 2 * len(carriers & set(entry.members)) / max(len(entry.members) + len(carriers), 1),
        "called": [v.name for v in found if v.needs_review and v.name != names[0]],
        "others poisoned": [v.name for v in found if v.poisoned and v.name != names[0]],
    }
    try:
        cleaned = timed("clean", lambda: audit.clean(folder / "run", names[0], CleanSettings(method=method, seed=seed)))
    except KlarsichtError as error:  # such as that of a network that did not learn to see the tag
        return result | {"refused": str(error)}
    shown = timed("evaluate", lambda: audit.evaluate(folder / "run", cleaned.folder))
    correction, record = audit.load_correction(cleaned.folder)
    result["after"] = truth.figures(net, correction)
    result["correction"] = record["choice"]["chosen"] | {"members": record["artifact"].get("origin"), "tried": []}
    result["correction"]["tried"] = sorted({line["layer"] for line in record["choice"]["tried"]})
    result["told"] = {
        "verdict": shown.verdict,
        "flips": [shown.before.outcome.flips.value, shown.after.outcome.flips.value],
        "harm": shown.after.outcome.harm.value,
    }
    result["again"], result["exported"] = rebuilt(cleaned.folder, net, correction, truth.tagged[:100], record)
    return result


def rebuilt(folder: Path, net: nn.Module, correction: Correction, x: Tensor, record: dict) -> tuple[Any, Any]:
    """Largest difference of logits of the corrected model, built in and exported, from those under the correction."""
    wanted = logits(net, x, correction)
    try:
        again: Any = float((logits(load_model(str(folder)).module.eval(), x) - wanted).abs().max())
    except KlarsichtError as error:
        again = str(error)
    if not record.get("exported"):
        return again, record.get("why")
    program = torch.export.load(folder / "model.pt2").module()
    with torch.no_grad():
        return again, float((as_logits(program(x)) - wanted).abs().max())


def table(results: list[dict[str, Any]]) -> None:
    print(
        "\n| network, seed | accuracy | verdict | F1 | others called | flips, before and after | lost, of the class |",
        end="",
    )
    print(f" {', '.join(STEPS)}, s |\n|---|---|---|---|---|---|---|---|")
    for r in sorted(results, key=lambda r: (list(NETWORKS).index(r["network"]), r["seed"])):
        before, after, told = r["before"], r.get("after", r["before"]), r["audit"]
        lost, of_class = (100 * (before[k] - after[k]) for k in ("accuracy", "class"))
        taken = ", ".join(f"{r['seconds'][step]:.0f}" for step in STEPS if step in r["seconds"])
        print(
            f"| {r['network']}, {r['seed']} | {before['accuracy']:.2f} | {told['verdict'].split(':')[0]} |"
            f" {told['f1']:.2f} | {len(told['called'])} of {r['classes'] - 1} |"
            f" {before['flips']:.1%} to {after['flips']:.1%} | {lost:.1f}, {of_class:.1f} | {taken} |"
            + (f" not cleaned: {r['refused']}" if "refused" in r else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--method", default="oblique", help="of `audit clean`")
    parser.add_argument("--keep", type=Path, help="a folder for networks, runs and corrections")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = [json.loads(line) for line in asked.json.read_text().splitlines()] if asked.json.exists() else []
    for seed in asked.seeds:
        for name in asked.networks:
            if (name, seed) in {(r["network"], r["seed"]) for r in results}:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                folder = asked.keep / f"{name}-{seed}" if asked.keep else Path(scratch)
                folder.mkdir(parents=True, exist_ok=True)
                found = one(name, seed, folder, asked.imagenet32, asked.classes, asked.method)
            results.append(found | {"classes": asked.classes})
            print(json.dumps(results[-1]), flush=True)
            with asked.json.open("a") as lines:
                lines.write(json.dumps(results[-1]) + "\n")
    table(results)


if __name__ == "__main__":
    main()
