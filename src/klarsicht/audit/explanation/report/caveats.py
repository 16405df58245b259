"""Caveats, images left out and settings: what a reader of a report must know beside the findings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.data.label_order import Order
from klarsicht.audit.explanation.relevance.conservation import ABSORBED_BOUND
from klarsicht.audit.explanation.settings import counts_own_logits
from klarsicht.audit.results import ranking
from klarsicht.audit.results.rows import FollowedRow
from klarsicht.audit.results.specificity import Specificity, describe_screening
from klarsicht.audit.results.sufficiency import Sufficiency
from klarsicht.audit.results.words import join_words
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.texts import Texts

OWN_LOGITS = (
    "Outputs are independent: a class counts by its own logit, not by its lead over the mean of all, and an image is "
    "predicted as every class whose logit is positive."
)
COMPARED_BY: Final = {
    "concept": "relevance of the last features",
    "features": "the last features, without relevance",
    "euclidean": "relevance maps, pixel by pixel",
    "channels": "relevance of the channels of a middle layer",
}
"""Words for what a metric compares; the others compare relevance maps by optimal transport."""
FEW_NAMES: Final = 3  # of classes
BACKGROUND_PART = "background"  # the part that relevance maps cut


def describe_screened_class(store: RunStore, target: str) -> tuple[str, ...]:
    """Describe how the screened class compares with all outputs; empty where no single class was screened."""
    if target in ("label", "predicted", "all") or not store.has_table(ranking.FOLLOWED):
        return ()
    rows: list[FollowedRow] = store.table(ranking.FOLLOWED).to_pylist()
    outputs = store.array("logits").shape[1]
    told = [sentence for row in rows for sentence in Specificity.from_row(row).describe(outputs)]
    if not store.has_file(ranking.SCREENING_FILE):
        return tuple(told)
    content = store.read_json(ranking.SCREENING_FILE)
    return tuple(sentence for sentence in (describe_screening(content), *told, content["limits"]) if sentence)


def describe_target(settings: dict[str, Any]) -> str:
    target = settings["target"]
    asked = {
        "label": "groups within the images of each class",
        "predicted": "groups within the images predicted as each class",
        "all": "groups within all images, for each class",
    }.get(target, f"groups within all images, for {target}")
    metrics = (
        f"{metric} ({COMPARED_BY.get(metric, 'relevance maps, moved onto each other')})"
        for metric in settings["metric"]
    )
    return f"{asked}, compared by {' and '.join(metrics)}"


def describe_predictions(manifest: dict[str, Any]) -> str:
    """Describe how many images with one label are predicted as it; empty where other classes than the labels are
    explained."""
    if "order" not in manifest:
        return ""
    share = Order.from_json(manifest["order"]).right
    return (
        f"The model predicts {100 * share:.1f} % of the images as labelled; it may have been trained on some of them."
    )


def collect_caveats(store: RunStore, images: Any) -> list[str]:
    """Collect the sentences that a reader must know to interpret the numbers."""
    sentences = [f"The model: {note}." for note in store.manifest.get("model_notes", ())]
    if known := store.manifest.get("array_form"):
        sentences.append(
            f"Images are arrays: {ArrayForm.from_json(known)}. Relevance and predictions are of these numbers; "
            "detectors, interventions and pictures have 256 levels between."
        )
    if "order" in store.manifest and (order := Order.from_json(store.manifest["order"])).doubtful:
        described = order.describe(store.manifest["names"])
        sentences.append(f"{described[0].upper()}{described[1:]}. If so, name the output of each label: --class-map.")
    if counts_own_logits(store.manifest):
        sentences.append(OWN_LOGITS)
    keys = store.texts("corpus", "key")
    count = count_images(keys)
    if count < len(keys):
        sentences.append(
            f"{count} images have {len(keys)} labels: each class is audited on the images that carry it, and "
            "compared with images that do not."
        )
    named = store.texts("corpus", "source")
    of_images = dict(zip(keys, named, strict=True)).values() if any(named) else ()
    sources = [source for source in of_images if source]
    if len(set(sources)) < len(sources):
        sentences.append(
            f"{len(sources)} images come from {len(set(sources))} sources: each is compared with the median of its "
            "own source, and images of one source are never neighbours."
        )
    share = absorbed_share(store.manifest, images)
    if share is not None and exceeds_absorbed_bound(share):
        sentences.append(
            f"Pixel maps are hints only: biases and stabilisers of the network absorb {share:.1%} of the relevance "
            "before it reaches the pixels. Trust the ranking by head relevance (metric concept). `klarsicht audit "
            "doctor` shows which --method conserves more."
        )
    sentences += describe_image_notes(store, images)
    sentences += describe_small_classes(store)
    if unused := rows_with_text(images, "skipped"):
        (row, why), left = unused[0], {keys[row] for row, _ in unused}
        name = "/".join(Path(store.texts("corpus", "path")[row]).parts[-2:])
        sentences.append(f"{len(left)} of {count} images could not be used, {name} the first: {state_cause(why)}.")
    return sentences


def describe_small_classes(store: RunStore) -> list[str]:
    """Name the classes that are ranked by no metric, with the reason of the first; none where each is ranked."""
    metrics = store.manifest["settings"]["metric"]
    lines = [line for metric in metrics for line in store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist()]
    in_ranking = {line["class"] for line in lines if not line["skipped"]}
    reasons = {line["class"]: line["skipped"] for line in lines if line["class"] not in in_ranking}
    if not reasons:
        return []
    names, (first, why) = list(reasons), next(iter(reasons.items()))
    more = [f"{len(names) - FEW_NAMES} more"] if len(names) > FEW_NAMES else []
    return [f"Not in the ranking: {join_words([*names[:FEW_NAMES], *more])}. Class {first}: {why}."]


def count_images(keys: Texts) -> int:
    """Count the images of rows whose keys are given: rows of one key are one image."""
    return len(keys) if keys.are_distinct else len(set(keys))


def rows_with_text(images: Any, column: str) -> list[tuple[int, str]]:
    """List (row, text) of the lines of the table of images whose text in a column is not empty."""
    from pyarrow import compute

    some = images.filter(compute.not_equal(images[column], ""))
    return list(zip(some["row"].to_pylist(), some[column].to_pylist(), strict=True))


def state_cause(error: str) -> str:
    """Return what an error says was wrong and got, on one line, without the rule and the remedy."""
    return "; ".join(" ".join(error.split()).split("; ")[:2]).rstrip(".")


def describe_image_notes(store: RunStore, images: Any) -> list[str]:
    """Say of how many images only a part is read, or the range is narrow, and name the first of each."""
    paths, first, noted = store.texts("corpus", "path"), dict[str, str](), rows_with_text(images, "noted")
    for row, why in noted:
        first.setdefault(why, Path(paths[row]).name)
    counts = Counter(why for _, why in noted)
    return [f"{n} image{'s' * (n > 1)}, {first[why]} the first: {why}." for why, n in counts.most_common()]


def absorbed_share(manifest: dict[str, Any], images: Any) -> float | None:
    """Compute the median absorbed share of relevance; None for methods that promise no conservation."""
    values = _numbers(images, "absorbed")
    share = float(np.nanmedian(values)) if np.isfinite(values).any() else manifest.get("absorbed")
    return share if share is not None and np.isfinite(share) else None


def _numbers(images: Any, column: str) -> NDArray[np.float64]:
    """Read a column of numbers of the table of images, NaN where there is none."""
    return np.asarray(images[column].to_numpy(zero_copy_only=False), float)


def exceeds_absorbed_bound(share: float | None) -> bool:
    """Test whether the absorbed share exceeds ABSORBED_BOUND, so that pixel maps are hints only."""
    return share is not None and abs(share) > ABSORBED_BOUND


def describe_background(parts: Sufficiency | None, share: float | None) -> str:
    """Say that the background was cut by maps that are hints only; empty where they are more, or none was cut."""
    cut = parts is not None and any(part.part == BACKGROUND_PART for one in parts for part in one.parts)
    if not cut or share is None or not exceeds_absorbed_bound(share):
        return ""
    return (
        f"The background is what lies outside the largest relevance, and {share:.1%} of the relevance was absorbed "
        "before it reached the pixels: where the background begins is a hint only, and so are its figures."
    )


def list_skipped(store: RunStore, images: Any) -> list[tuple[str, str]]:
    """List (item, reason) of every image and class that was left out."""
    paths = store.texts("corpus", "path")
    skipped_images = [(paths[row], why) for row, why in rows_with_text(images, "skipped")]
    skipped_images = list(dict.fromkeys(skipped_images))  # an image of several labels is named once
    for metric in store.manifest["settings"]["metric"]:
        records = store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist()
        for why in ("skipped", "aside"):
            skipped_images += [(f"class {r['class']} ({metric})", r[why]) for r in records if r[why]]
    return skipped_images + [tuple(note) for note in store.manifest["left_out"]]


def list_facts(manifest: dict[str, Any], images: Any) -> list[tuple[str, str]]:
    """List settings, identities, conservation figures and versions as (name, value)."""
    lines = [(name, str(value)) for name, value in manifest["settings"].items()]
    lines += [(f"{name} identity", value) for name, value in manifest["identity"].items()]
    share = absorbed_share(manifest, images)
    lines += [("relevance by", manifest["method"])] if "method" in manifest else []
    lines += [("middle layer", manifest["middle"])] if "middle" in manifest else []
    lines += [] if share is None else [("relevance absorbed before the pixels, median", f"{share:.4f}")]
    noise = _numbers(images, "noise")
    if np.isfinite(noise).any():
        name = "sum of |relevance| over the relevance explained, largest of any layer, median"
        lines.append((name, f"{np.nanmedian(noise):.1f}"))
    residual = _numbers(images, "residual")
    if np.isfinite(residual).any():
        lines.append(("largest unaccounted residual", f"{np.nanmax(np.abs(residual)):.1e}"))
    return lines + [(f"version of {name}", value) for name, value in manifest["libraries"].items()]
