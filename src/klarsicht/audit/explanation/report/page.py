"""Report of a run as one self-contained HTML page: ranking, embeddings, members with relevance, settings, skips."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from klarsicht.audit.explanation.data.label_order import Order
from klarsicht.audit.explanation.relevance.conservation import ABSORBED_BOUND
from klarsicht.audit.explanation.report.noted_classes import is_small, list_noted_classes, read_picture
from klarsicht.audit.explanation.report.rows import EvidenceRow, PartPictureRow, SeenPictureRow, ViewRow
from klarsicht.audit.explanation.settings import counts_own_logits
from klarsicht.audit.results import (
    group_names,
    ranking,
    seen_groups,
    stability,
    sufficiency,
    surroundings,
    verdict_lines,
    verdicts,
)
from klarsicht.audit.results.alarms import CAUSES, compare_runs
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import read_places
from klarsicht.audit.results.file_rules import describe_file_rules
from klarsicht.audit.results.questions import COPIES_FILE, list_questions
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.audit.results.rows import FollowedRow
from klarsicht.audit.results.seen_groups import SeenGroup
from klarsicht.audit.results.specificity import Specificity, describe_screening
from klarsicht.audit.results.sufficiency import ClassProfile, Sufficiency
from klarsicht.audit.results.surroundings import Surroundings
from klarsicht.audit.results.verdict_lines import VerdictLine
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import SETTING, describe_level, format_count, format_p
from klarsicht.ground.names import printable
from klarsicht.ground.pages import load_template
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.pictures.colour_maps import diverging_colours
from klarsicht.ground.pictures.encoded_pictures import data_uri, png_bytes
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.texts import Texts

PAGE = "report.html"
VIEWS = "views"  # the table of pictures and points, and the step whose marker lists the pictures
EVIDENCE = "evidence"  # the same of the pictures of artifacts
PROFILES = "profiles"  # the same of the pictures of parts
SEEN_PICTURES = "seen"  # the same of the pictures of groups that no verdict names
OWN_LOGITS = (
    "Outputs are independent: a class counts by its own logit, not by its lead over the mean of all, and an image is "
    "predicted as every class whose logit is positive."
)
COPIES_SHOWN, COPIES_IN_ROW = 20, 8  # groups of copies on the page, and images of each
TOLD_COLUMNS = ("row", "skipped", "noted", "absorbed", "noise", "residual")  # of the table of images
FINDINGS_SHOWN = 10  # headlines in the summary
FIRST_PICTURES = 4  # images beside a headline of the summary
BACKGROUND_PART = "background"  # the part that relevance maps cut
PARTS_ANCHOR = "parts"  # of the table of shortcuts
RANKED = 20  # rows of the table of shortcuts; its file contains all
SCRIPT = "report.js"  # its hash stands in the page's content security policy: no other script runs


@dataclass(frozen=True)
class Thumbnail:
    """An image with and without its relevance, as data URIs."""

    path: str
    plain: str
    relevance: str


@dataclass(frozen=True)
class ClusterView:
    """Content of the page for one suspect cluster."""

    entry: Entry
    points: Sequence[ViewRow]
    members: tuple[Thumbnail, ...]
    others: tuple[Thumbnail, ...]

    @property
    def sampled(self) -> bool:
        """Whether the scatter plot shows only a sample of the images."""
        return len(self.points) < self.entry.n


def write_report(run: str | Path | RunStore, since: str | Path | None = None) -> Path:
    """Write RUN/report.html from the results of the run, compared with an earlier run if one is given. Raises
    StoreError where it has not been ranked, InputError where the runs have no finding in common to compare, and
    RunDamaged where a file is missing or altered, or does not fit the others."""
    store = run if isinstance(run, RunStore) else RunStore.open(run)
    earlier = None if since is None else RunStore.open(since)
    with store.translate_parse_errors("tables"):  # of a run without checksums
        page = load_template("klarsicht.audit", "report.html.j2").render(
            **template_values(store), **compare_with(earlier, store)
        )
    for one in (store,) if earlier is None else (store, earlier):
        page = leave_out_folders(page, one.manifest)
    store.write_bytes(PAGE, page.encode("utf-8", "replace"))
    return store.path / PAGE


def leave_out_folders(page: str, manifest: Mapping[str, Any]) -> str:
    """Name files of a page relative to the corpus, and files of models and settings by their last part: a report may be
    sent to people outside."""
    texts = [re.sub(r"\w+://\S+", "", str(value)) for value in (manifest["data"], *manifest["settings"].values())]
    folders = {str(Path(texts[0]).absolute())} if texts[0] else set()
    for path in (match for text in texts for match in re.findall(r"(?:^|(?<=[@:'\" (]))/[^@:'\",)]+", text)):
        folders.add(path if Path(path).is_dir() else str(Path(path).parent))
    for folder in sorted(folders - {"/"}, key=len, reverse=True):
        for known in {folder, str(escape(printable(folder)))}:
            page = page.replace(f"{known}/", "").replace(known, Path(folder).name)
    return page


def compare_with(earlier: RunStore | None, store: RunStore) -> dict[str, Any]:
    """Collect the values of the section that compares two runs: none without an earlier one."""
    if earlier is None:
        return {"comparison": None}
    return {
        "comparison": compare_runs(earlier, store), "causes": CAUSES, "earlier": earlier.manifest,
        "earlier_name": earlier.path.resolve().name,
    }  # fmt: skip


def list_reviewed_lines(quantification: Quantification, parts: Sufficiency | None) -> list[VerdictLine]:
    """List the lines that a person should look at, without those of a fine texture of which the headlines of parts say
    more."""
    targets = {line.profile.target for line in parts.headlines} if parts else set()
    lines = [line for line in quantification.lines if line.verdict.needs_review]
    return [line for line in lines if line.verdict.has_group or line.verdict.target not in targets]


def summarise(
    quantification: Quantification | None,
    findings: Sequence[ArtifactView],
    parts: Sufficiency | None,
    around: Surroundings | None,
) -> list[tuple[str, str]]:
    """List (anchor on the page, headline) of every line that a person should look at, for a part of images without its
    figures; no anchor without pictures."""
    drawn = {(view.verdict.target, view.number): view for view in findings}
    reviewed = list_reviewed_lines(quantification, parts) if quantification else []
    views = ((line, drawn.get((line.verdict.target, line.number))) for line in reviewed)
    sentences = [(view.anchor, view.headline) if view else ("", line.headline) for line, view in views]
    for line in parts.headlines if parts else ():
        region = f" The region is {parts.region}." if parts and "the region" in line.headline else ""
        sentences.append((PARTS_ANCHOR, f"{line.claim}{region}"))
    return sentences + [("", one.describe()) for one in (around.relied_on if around else ())]


def count_findings(artifacts: int | None, shortcuts: int) -> str:
    """Say how many findings there are of each kind, in one sentence; `artifacts` is None where none were looked for."""
    counts = []
    if artifacts is not None:
        some = format_count(artifacts, "artifact") if artifacts else "no artifact"
        counts.append(f"{some} that some images of a class share")
    if shortcuts:
        counts.append(f"{format_count(shortcuts, 'possible shortcut')} that whole classes share")
    sentence = ", and ".join(counts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def template_values(store: RunStore) -> dict[str, Any]:
    """Collect the values of the template."""
    manifest, entries = store.manifest, ranking.read_ranking(store)
    script = (files("klarsicht.audit") / "templates" / SCRIPT).read_text("utf-8")
    settings = manifest["settings"]
    images = store.table("images", "attribution", TOLD_COLUMNS)
    quantification = verdicts.read_verdicts(store) if verdicts.is_quantified(store) else None
    findings, views = artifact_views(store), cluster_views(store, entries)
    shown = {one.verdict.target for one in findings} | {view.entry.target for view in views}
    noted = list_noted_classes(store, entries, quantification, shown)
    parts = sufficiency.read_sufficiency(store) if sufficiency.is_measured(store) else None
    around = surroundings.read_surroundings(store) if surroundings.is_examined(store) else None
    summary = summarise(quantification, findings, parts, around)
    artifacts = sum(line.verdict.has_group for line in quantification.lines) if quantification else None
    return {
        "title": settings["model"],
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "model": settings["model"],
        "data": manifest["data"],
        "images": count_images(store.texts("corpus", "key")),
        "asked": _describe_target(settings),
        "version": manifest["klarsicht"],
        "created": manifest["created"][:16].replace("T", " "),
        "notes": notes(store, images),
        "quantified": quantification,
        "verdict_columns": list(verdict_lines.VERDICT_COLUMNS.values()),
        "part_columns": list(sufficiency.PART_COLUMNS.values()),
        "format_p": format_p,
        "setting": SETTING,
        "level": describe_level(quantification.level) if quantification else "",
        "summary": summary,
        "counted": count_findings(artifacts, len(summary) - (artifacts or 0)) if summary else "",
        "shown_findings": FINDINGS_SHOWN,
        "first_pictures": {view.anchor: view.carriers[:FIRST_PICTURES] for view in findings},
        "questions": list_questions(store),
        "found_classes": sum(one.needs_review for one in quantification or ()),
        "against": _css_colour(-1),
        "for": _css_colour(1),
        "findings": findings,
        "drawn": {one.verdict.target for one in findings},
        "seen": seen_views(store),
        "seen_count": len(seen_groups.read_seen_groups(store)),
        "seen_classes": tuple(dict.fromkeys(group.name for group in seen_groups.read_seen_groups(store))),
        "not_tested": seen_groups.NOT_TESTED,
        "noted": noted,
        "listed": {one.target for one in noted},
        "profiles": profile_views(store),
        "sufficiency": parts,
        "background_note": describe_background(parts, absorbed_share(manifest, images)),
        "file_sentences": describe_file_rules(parts.files)[:FINDINGS_SHOWN] if parts else [],
        "power": store.table("power").to_pylist() if store.has_table("power") else [],  # `audit power`
        "copies": read_copies(store),
        "followed": any(entry.effect is not None for entry in entries),
        "stability": stability.read_stability(store) if stability.is_stability_measured(store) else None,
        "format_correlation": stability.format_correlation,
        "screened": screening_sentences(store, settings["target"]),
        "beside": entries.beside,
        "shown": RANKED,
        "ranking": list(entries),
        "views": views,
        "decided": entries.decided,
        "conserving": not exceeds_absorbed_bound(absorbed_share(manifest, images)),
        "overlay": manifest.get("overlay", "relevance overlaid"),
        "names": group_names.read_names(store),
        "skipped": list_skipped(store, images),
        "facts": list_facts(manifest, images),
    }


def _css_colour(value: float) -> str:
    """Return the colour of an overlay for a value from -1 to 1."""
    return "rgb({}, {}, {})".format(*diverging_colours(value / 2, 1).tolist())


@dataclass(frozen=True)
class ArtifactView:
    """Content of the page for an artifact of a class: its line in the table of verdicts, its place
    (`detection_rows.read_places`), and (path, data URI) of images with the artifact and of others."""

    line: VerdictLine
    place: str
    carriers: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]

    @property
    def verdict(self) -> Verdict:
        return self.line.verdict

    @property
    def number(self) -> int:
        """Number of the artifact in its class, from 1."""
        return self.line.number

    @property
    def anchor(self) -> str:
        """Name of its section on the page."""
        return f"f{self.verdict.target}" + ("" if self.number == 1 else f"-{self.number}")

    @property
    def headline(self) -> str:
        return self.line.headline_at(self.place)

    @property
    def next_step(self) -> tuple[str, str]:
        return self.line.next_step()


def artifact_views(store: RunStore) -> list[ArtifactView]:
    """Collect the artifactual classes with images that carry the artifact and others; empty without evidence."""
    if not (verdicts.is_quantified(store) and store.has_table(EVIDENCE) and store.is_finished(EVIDENCE)):
        return []
    records: list[EvidenceRow] = store.table(EVIDENCE).to_pylist()

    def pictures(target: int, number: int, member: bool) -> tuple[tuple[str, str], ...]:
        which = target, number, member
        mine = [r for r in records if (r["target"], r["artifact"], r["member"]) == which]
        return tuple((r["path"], read_picture(store, r["picture"], EVIDENCE)) for r in mine)

    quantification: Quantification = verdicts.read_verdicts(store)
    targets = {r["target"] for r in records if not is_small(r["picture"])}
    reviewed = {one.target for one in quantification if one.has_group} & targets
    places = read_places(store, quantification)
    return [
        ArtifactView(line, places[which], pictures(*which, True), pictures(*which, False))
        for line in quantification.lines
        if (which := (line.verdict.target, line.number))[0] in reviewed
    ]


@dataclass(frozen=True)
class ProfileView:
    """Content of the page for the profile of a class: (part, data URI) of an image of which that part was kept."""

    profile: ClassProfile
    path: str
    pictures: tuple[tuple[str, str], ...]


def profile_views(store: RunStore) -> list[ProfileView]:
    """Collect the classes whose parts are drawn; empty where `audit shortcuts` was not run."""
    if not (sufficiency.is_measured(store) and store.has_table(PROFILES) and store.is_finished(PROFILES)):
        return []
    pictures_of: dict[int, list[PartPictureRow]] = {}
    rows: list[PartPictureRow] = store.table(PROFILES).to_pylist()
    for record in rows:
        pictures_of.setdefault(record["target"], []).append(record)

    def pictures(records: list[PartPictureRow]) -> tuple[tuple[str, str], ...]:
        return tuple((one["part"], read_picture(store, one["picture"], PROFILES)) for one in records)

    return [
        ProfileView(profile, pictures_of[profile.target][0]["path"], pictures(pictures_of[profile.target]))
        for profile in sufficiency.read_sufficiency(store)
        if profile.target in pictures_of
    ]


@dataclass(frozen=True)
class SeenView:
    """Content of the page for a group that no verdict names: its number, and (path, data URI) of some of its images."""

    number: int
    group: SeenGroup
    pictures: tuple[tuple[str, str], ...]


def seen_views(store: RunStore) -> list[SeenView]:
    """Collect the groups that no verdict names and that have pictures."""
    if not (store.has_table(SEEN_PICTURES) and store.is_finished(SEEN_PICTURES)):
        return []
    pictures: dict[int, list[tuple[str, str]]] = {}
    rows: list[SeenPictureRow] = store.table(SEEN_PICTURES).to_pylist()
    for row in rows:
        pictures.setdefault(row["group"], []).append((row["path"], read_picture(store, row["picture"], SEEN_PICTURES)))
    groups = enumerate(seen_groups.read_seen_groups(store))
    return [SeenView(i, group, tuple(pictures[i])) for i, group in groups if i in pictures]


def read_copies(store: RunStore) -> dict[str, Any] | None:
    """Read the record of `audit duplicates` with its first groups, each with `images`: (path, label, split, data URI);
    None where it was not run."""
    if not store.has_file(COPIES_FILE):
        return None
    record = store.read_json(COPIES_FILE)
    groups = record["groups"][:COPIES_SHOWN]
    rows = sorted({row for group in groups for row in group["rows"][:COPIES_IN_ROW]})
    thumbnails = store.array("thumbnails")[np.array(rows, np.int64)]
    uri = {row: data_uri(png_bytes(pixels)) for row, pixels in zip(rows, thumbnails, strict=True)}

    def images(group: dict[str, Any]) -> list[tuple[str, str, str, str]]:
        each = zip(group["rows"], group["paths"], group["labels"], group["splits"], strict=True)
        return [(path, label, split, uri[row]) for row, path, label, split in each if row in uri]

    return {**record, "groups": [group | {"images": images(group)} for group in groups]}


def screening_sentences(store: RunStore, target: str) -> tuple[str, ...]:
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


def _describe_target(settings: dict[str, Any]) -> str:
    target = settings["target"]
    asked = {
        "label": "groups within the images of each class",
        "predicted": "groups within the images predicted as each class",
        "all": "groups within all images, for each class",
    }.get(target, f"groups within all images, for {target}")
    return f"{asked}, compared by {' and '.join(settings['metric'])}"


def notes(store: RunStore, images: Any) -> list[str]:
    """Collect the caveats that a reader must know to interpret the numbers."""
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
            f"The network does not conserve: biases and stabilisers absorb {share:.1%} of the relevance before it "
            "reaches the pixels. Trust the ranking by head relevance (metric concept); pixel maps are hints only."
        )
    sentences += image_notes(store, images)
    if left := {keys[row] for row, _ in rows_with_text(images, "skipped")}:
        sentences.append(f"{len(left)} of {count} images could not be used.")
    return sentences


def count_images(keys: Texts) -> int:
    """Count the images of rows whose keys are given: rows of one key are one image."""
    return len(keys) if keys.are_distinct else len(set(keys))


def rows_with_text(images: Any, column: str) -> list[tuple[int, str]]:
    """List (row, text) of the lines of the table of images whose text in a column is not empty."""
    from pyarrow import compute

    some = images.filter(compute.not_equal(images[column], ""))
    return list(zip(some["row"].to_pylist(), some[column].to_pylist(), strict=True))


def image_notes(store: RunStore, images: Any) -> list[str]:
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


def cluster_views(store: RunStore, ranking: Ranking) -> list[ClusterView]:
    """Collect the illustrated suspects, in the order of the ranking."""
    if not (store.has_table(VIEWS) and store.is_finished(VIEWS)):
        return []
    rows: list[ViewRow] = store.table(VIEWS).to_pylist()
    records = [row for row in rows if not is_small(row["picture"])]
    shown = [entry for entry in ranking if any(r["target"] == entry.target for r in records)]
    return [_cluster_view(store, entry, [r for r in records if r["target"] == entry.target]) for entry in shown]


def _cluster_view(store: RunStore, entry: Entry, records: Sequence[ViewRow]) -> ClusterView:
    pictured = sorted((r for r in records if r["picture"]), key=lambda r: -_evidence(store, r["row"], entry.target))
    plates = [(r["member"], _thumbnail(store, r)) for r in pictured]
    points = sorted(records, key=lambda r: r["member"])
    members, others = (tuple(plate for member, plate in plates if member == side) for side in (True, False))
    return ClusterView(entry, points, members, others)


def _evidence(store: RunStore, row: int, target: int) -> float:
    """Return the centred logit of a row of the run for an output; 0 without stored logits."""
    if not store.has_array("logits"):
        return 0.0
    logits = np.asarray(store.array("logits")[row], float)
    return float(logits[target] - logits.mean())


def _thumbnail(store: RunStore, record: ViewRow) -> Thumbnail:
    plain, relevance = (read_picture(store, f"{record['picture']}{end}.jpg", VIEWS) for end in ("", "-relevance"))
    return Thumbnail(record["path"], plain, relevance)


def fit_to_square(points: NDArray[Any], side: float = 400, margin: float = 14) -> NDArray[Any]:
    """Scale points (n, 2) into a square picture of `side` with a margin, both in its units."""
    low, high = points.min(0), points.max(0)
    return np.asarray(margin + (points - low) / np.where(high > low, high - low, 1) * (side - 2 * margin))
