"""A run as one HTML page that needs nothing else: ranking, embeddings, members with relevance, settings, skips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.data.label_order import Order
from klarsicht.audit.relevance.conservation import ABSORBED_BOUND
from klarsicht.audit.results import ranking, verdicts
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.results.verdicts import Quantification, Verdict
from klarsicht.ground.images import data_uri
from klarsicht.ground.store import RunStore

PAGE = "report.html"
RANKED = 20  # lines of the ranking on the page; the files hold all


@dataclass(frozen=True)
class Point:
    """One image in the scatter plot, in the units of its 400 x 400 picture."""

    x: float
    y: float
    member: bool
    path: str


@dataclass(frozen=True)
class Thumbnail:
    """One image with and without its relevance, as data URIs."""

    path: str
    plain: str
    relevance: str


@dataclass(frozen=True)
class ClusterView:
    """What the page shows of one suspect."""

    entry: Entry
    points: tuple[Point, ...]
    members: tuple[Thumbnail, ...]
    others: tuple[Thumbnail, ...]

    @property
    def sampled(self) -> bool:
        return len(self.points) < self.entry.n


def write_report(run: str | Path | RunStore) -> Path:
    """Writes RUN/report.html from what the run holds.

    Raises:
        StoreError: the run has not been ranked.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    store = run if isinstance(run, RunStore) else RunStore.open(run)
    pages = Environment(
        loader=PackageLoader("klarsicht.audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = pages.get_template("report.html.j2").render(**contents(store))
    store.write_bytes(PAGE, page.encode("utf-8", "replace"))
    return store.path / PAGE


def contents(store: RunStore) -> dict[str, Any]:
    """What the template is given."""
    manifest, found = store.manifest, ranking.read_ranking(store)
    settings = manifest["settings"]
    images = store.table("images", "attribution")
    return {
        "title": settings["model"],
        "model": settings["model"],
        "data": manifest["data"],
        "images": images.num_rows,
        "asked": _asked(settings),
        "version": manifest["klarsicht"],
        "created": manifest["created"][:16].replace("T", " "),
        "notes": notes(store, images),
        "quantified": verdicts.read_verdicts(store) if verdicts.quantified(store) else None,
        "findings": findings(store),
        "power": power(store),
        "followed": any(entry.effect is not None for entry in found),
        "screened": screened(store, settings["target"]),
        "beside": found.beside,
        "ranking": list(found),
        "shown": RANKED,
        "views": views(store, found),
        "conserving": not lost(absorbed(manifest, images)),
        "overlay": manifest.get("overlay", "relevance overlaid"),
        "skipped": skipped(store, images),
        "facts": facts(manifest, images),
    }


@dataclass(frozen=True)
class ArtifactView:
    """What the page shows of an artifactual class."""

    verdict: Verdict
    carriers: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]


def findings(store: RunStore) -> list[ArtifactView]:
    """Artifactual classes with (path, data URI) of images that carry the sign and of others."""
    if not (verdicts.quantified(store) and store.has_table("evidence")):
        return []
    records = store.table("evidence").to_pylist()

    def pictures(verdict: Verdict, member: bool) -> tuple[tuple[str, str], ...]:
        mine = [r for r in records if r["target"] == verdict.target and r["member"] == member]
        return tuple((r["path"], data_uri((store.path / r["picture"]).read_bytes(), "image/jpeg")) for r in mine)

    found: Quantification = verdicts.read_verdicts(store)
    drawn = {r["target"] for r in records}
    return [ArtifactView(v, pictures(v, True), pictures(v, False)) for v in found if v.target in drawn and v.noted]


def power(store: RunStore) -> list[dict[str, Any]]:
    """Lines of the table of detection limits, where `audit power` was run."""
    found: list[dict[str, Any]] = store.table("power").to_pylist() if store.has_table("power") else []
    return found


def screened(store: RunStore, target: str) -> tuple[str, ...]:
    """Where the one class that a corpus was screened for stands among all outputs; empty where that was not asked."""
    if target in ("label", "predicted", "all") or not store.has_table(ranking.FOLLOWED):
        return ()
    stands = [Specificity.from_line(line) for line in store.table(ranking.FOLLOWED).to_pylist()]
    outputs = store.array("logits").shape[1]
    return tuple(sentence for one in stands if one is not None for sentence in one.told(outputs))


def _asked(settings: dict[str, Any]) -> str:
    target = settings["target"]
    told = {
        "label": "each class on its own images",
        "predicted": "each class on the images predicted as it",
        "all": "every class screened over the whole corpus",
    }
    return told.get(target, f"the whole corpus screened for {target}") + ", by " + " and ".join(settings["metric"])


def notes(store: RunStore, images: Any) -> list[str]:
    """What a reader must know before believing the numbers."""
    told = []
    if "order" in store.manifest and (order := Order(**store.manifest["order"])).doubtful:
        told.append(str(order))
    sources = [s for s in store.table("corpus")["source"].to_pylist() if s]
    if len(set(sources)) < len(sources):
        told.append(
            f"{len(sources)} images come from {len(set(sources))} sources: each is compared with the median of its "
            "own source, and images of one source are never neighbours."
        )
    share = absorbed(store.manifest, images)
    if share is not None and lost(share):
        told.append(
            f"The network does not conserve: biases and stabilisers absorb {share:.1%} of the relevance before it "
            "reaches the pixels. Trust the ranking by head relevance (metric concept); pixel maps are hints only."
        )
    left = sum(1 for reason in images["skipped"].to_pylist() if reason)
    if left:
        told.append(f"{left} of {images.num_rows} images could not be used.")
    return told


def absorbed(manifest: dict[str, Any], images: Any) -> float | None:
    """Median share of relevance that did not reach the pixels; None for methods that promise nothing."""
    values = np.array(images["absorbed"].to_pylist(), float)
    share = float(np.nanmedian(values)) if np.isfinite(values).any() else manifest.get("absorbed")
    return share if share is not None and np.isfinite(share) else None


def lost(share: float | None) -> bool:
    """Whether so much is absorbed that pixel maps are hints only."""
    return share is not None and abs(share) > ABSORBED_BOUND


def skipped(store: RunStore, images: Any) -> list[tuple[str, str]]:
    """(what, why) of every image and every class that was left out."""
    paths = store.table("corpus")["path"].to_pylist()
    lost = [
        (paths[r], why) for r, why in zip(images["row"].to_pylist(), images["skipped"].to_pylist(), strict=True) if why
    ]
    for metric in store.manifest["settings"]["metric"]:
        records = store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist()
        for why in ("skipped", "aside"):
            lost += [(f"class {r['class']} ({metric})", r[why]) for r in records if r[why]]
    return lost + [tuple(note) for note in store.manifest.get("left_out", [])]


def facts(manifest: dict[str, Any], images: Any) -> list[tuple[str, str]]:
    """Settings, identities and versions, one line each."""
    lines = [(name, str(value)) for name, value in manifest["settings"].items()]
    lines += [(f"{name} identity", value) for name, value in manifest["identity"].items()]
    share = absorbed(manifest, images)
    lines += [("middle layer", manifest["middle"])] if "middle" in manifest else []
    lines += [] if share is None else [("relevance absorbed before the pixels, median", f"{share:.4f}")]
    residual = np.array(images["residual"].to_pylist(), float)
    if np.isfinite(residual).any():
        lines.append(("largest unaccounted residual", f"{np.nanmax(np.abs(residual)):.1e}"))
    return lines + [(f"version of {name}", value) for name, value in manifest["libraries"].items()]


def views(store: RunStore, found: Ranking) -> list[ClusterView]:
    """The suspects that were illustrated, in the order of the ranking."""
    if not store.has_table("views"):
        return []
    records = store.table("views").to_pylist()
    shown = [entry for entry in found if any(r["target"] == entry.target for r in records)]
    return [_view(store, entry, [r for r in records if r["target"] == entry.target]) for entry in shown]


def _view(store: RunStore, entry: Entry, records: Sequence[dict[str, Any]]) -> ClusterView:
    plates = [(r["member"], _plate(store, r)) for r in records if r["picture"]]
    return ClusterView(
        entry,
        tuple(Point(r["x"], r["y"], r["member"], r["path"]) for r in sorted(records, key=lambda r: r["member"])),
        tuple(plate for member, plate in plates if member),
        tuple(plate for member, plate in plates if not member),
    )


def _plate(store: RunStore, record: dict[str, Any]) -> Thumbnail:
    def uri(name: str) -> str:
        return data_uri((store.path / name).read_bytes(), "image/jpeg")

    return Thumbnail(record["path"], uri(f"{record['picture']}.jpg"), uri(f"{record['picture']}-relevance.jpg"))


def fitted(points: NDArray[Any], side: float = 400, margin: float = 14) -> NDArray[Any]:
    """Points (n, 2) moved and scaled into a square picture."""
    low, high = points.min(0), points.max(0)
    return np.asarray(margin + (points - low) / np.where(high > low, high - low, 1) * (side - 2 * margin))
