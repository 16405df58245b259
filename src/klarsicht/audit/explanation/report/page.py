"""Report of a run as one self-contained HTML page: ranking, embeddings, members with relevance, settings, skips."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from klarsicht.audit.explanation.report.caveats import (
    absorbed_share,
    collect_caveats,
    count_images,
    describe_background,
    describe_predictions,
    describe_screened_class,
    describe_target,
    exceeds_absorbed_bound,
    list_facts,
    list_skipped,
)
from klarsicht.audit.explanation.report.noted_classes import list_noted_classes
from klarsicht.audit.explanation.report.views import (
    ArtifactView,
    SurroundingsView,
    collect_artifacts,
    collect_clusters,
    collect_profiles,
    collect_seen_groups,
    collect_surroundings,
    read_copies,
)
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
from klarsicht.audit.results.file_names import leave_out_folders
from klarsicht.audit.results.file_rules import describe_file_rules
from klarsicht.audit.results.questions import UNSURE_COPY, list_questions
from klarsicht.audit.results.sufficiency import Sufficiency
from klarsicht.audit.results.surroundings import Surroundings
from klarsicht.audit.results.verdict_lines import VerdictLine
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import SETTING, VerdictKind, describe_level, format_count, format_p
from klarsicht.ground.pages import load_template
from klarsicht.ground.pictures.colour_maps import diverging_colours
from klarsicht.ground.run_folder.store import RunStore

PAGE = "report.html"
TOLD_COLUMNS = ("row", "skipped", "noted", "absorbed", "noise", "residual")  # of the table of images
FINDINGS_SHOWN = 10  # headlines in the summary
FIRST_PICTURES = 4  # images beside a headline of the summary
FIRST_SEEN = 3  # groups without a verdict in the summary
UNDECIDED = (VerdictKind.CONTEXT, VerdictKind.SHARED_AND_USED, VerdictKind.SHARED, VerdictKind.FOLLOWED)
PARTS_ANCHOR = "parts"  # of the table of shortcuts
RANKED = 20  # rows of the table of shortcuts; its file contains all
SCRIPT = "report.js"  # its hash stands in the page's content security policy: no other script runs


def write_report(run: str | Path | RunStore, since: str | Path | None = None) -> Path:
    """Write RUN/report.html from the results of the run, compared with an earlier run if one is given. Raises
    StoreError where it has not been ranked, InputError where the runs have no finding in common to compare, and
    RunDamaged where a file is missing or altered, or does not fit the others."""
    store = run if isinstance(run, RunStore) else RunStore.open(run)
    earlier = None if since is None else RunStore.open(since)
    from jinja2 import TemplateError

    template = load_template("klarsicht.audit", "report.html.j2")
    with store.translate_parse_errors("tables", TemplateError):  # of a run without checksums
        page = template.render(**template_values(store), **compare_with(earlier, store))
    for one in (store,) if earlier is None else (store, earlier):
        page = leave_out_folders(page, one.manifest)
    store.write_bytes(PAGE, page.encode("utf-8", "replace"))
    return store.path / PAGE


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
    exceptions: Sequence[SurroundingsView] = (),
) -> list[tuple[str, str]]:
    """List (anchor on the page, headline) of every line that a person should look at, first of surroundings that nearly
    a whole class shares; for a part of images without its figures; no anchor without pictures."""
    drawn = {(view.verdict.target, view.number): view for view in findings}
    reviewed = list_reviewed_lines(quantification, parts) if quantification else []
    views = ((line, drawn.get((line.verdict.target, line.number))) for line in reviewed)
    anchors = {view.surroundings.target: view.anchor for view in exceptions}
    sentences = [(anchors.get(one.target, ""), one.describe()) for one in (around.relied_on if around else ())]
    sentences += [(view.anchor, view.headline) if view else ("", line.headline) for line, view in views]
    for line in parts.headlines if parts else ():
        region = f" The region is {parts.region}." if parts and "the region" in line.headline else ""
        sentences.append((PARTS_ANCHOR, f"{line.claim}{region}"))
    return sentences


def count_findings(artifacts: int | None, shortcuts: int, open_groups: int = 0) -> str:
    """Say how many findings there are of each kind, in one sentence; `artifacts` is None where none were looked for.
    `open_groups` groups of images share what only a person can call an artifact."""
    counts = []
    if artifacts or (artifacts is not None and not open_groups):
        some = format_count(artifacts, "artifact") if artifacts else "no artifact"
        counts.append(f"{some} that some images of a class share")
    if open_groups:
        whose = "its class" if open_groups == 1 else "their class"
        counts.append(f"{format_count(open_groups, 'group')} of images that share what may belong to {whose}")
    if shortcuts:
        counts.append(f"{format_count(shortcuts, 'possible shortcut')} that whole classes share")
    *first, last = counts or [""]
    sentence = f"{', '.join(first)}, and {last}" if first else last
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def crosses(group: Mapping[str, Any]) -> bool:
    """Say whether a group of copies, as duplicates.json has it, lies in several splits or under several labels."""
    return group["kind"] != UNSURE_COPY and bool(group["crosses_splits"] or group["crosses_labels"])


def template_values(store: RunStore) -> dict[str, Any]:
    """Collect the values of the template."""
    manifest, entries = store.manifest, ranking.read_ranking(store)
    script = (files("klarsicht.audit") / "templates" / SCRIPT).read_text("utf-8")
    settings = manifest["settings"]
    images = store.table("images", "attribution", TOLD_COLUMNS)
    quantification = verdicts.read_verdicts(store) if verdicts.is_quantified(store) else None
    findings, views = collect_artifacts(store), collect_clusters(store, entries)
    shown = {one.verdict.target for one in findings} | {view.entry.target for view in views}
    noted = list_noted_classes(store, entries, quantification, shown)
    parts = sufficiency.read_sufficiency(store) if sufficiency.is_measured(store) else None
    around = surroundings.read_surroundings(store) if surroundings.is_examined(store) else None
    exceptions = collect_surroundings(store, around)
    summary = summarise(quantification, findings, parts, around, exceptions)
    groups = seen_groups.load_seen_groups(store)
    kinds = [line.verdict.kind for line in quantification.lines if line.verdict.has_group] if quantification else []
    open_groups = sum(kind in UNDECIDED for kind in kinds)
    artifacts = len(kinds) - open_groups if quantification else None
    copies = read_copies(store)
    return {
        "title": settings["model"],
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "model": settings["model"],
        "data": manifest["data"],
        "images": count_images(store.texts("corpus", "key")),
        "asked": describe_target(settings),
        "predicted": describe_predictions(manifest),
        "version": manifest["klarsicht"],
        "created": manifest["created"][:16].replace("T", " "),
        "notes": collect_caveats(store, images),
        "quantified": quantification,
        "verdict_columns": list(verdict_lines.VERDICT_COLUMNS.values()),
        "part_columns": list(sufficiency.PART_COLUMNS.values()),
        "format_p": format_p,
        "setting": SETTING,
        "level": describe_level(quantification.level) if quantification else "",
        "summary": summary,
        "exceptions": len(around.exceptions) if around and around.relied_on else 0,
        "counted": count_findings(artifacts, len(summary) - len(kinds), open_groups) if summary else "",
        "shown_findings": FINDINGS_SHOWN,
        "first_seen": FIRST_SEEN,
        "pictures_beside": FIRST_PICTURES,
        "first_pictures": {view.anchor: view.carriers[:FIRST_PICTURES] for view in findings}
        | {view.anchor: view.exceptions[:FIRST_PICTURES] for view in exceptions},
        "surroundings": exceptions,
        "questions": list_questions(store),
        "found_classes": sum(one.needs_review for one in quantification or ()),
        "against": _css_colour(-1),
        "for": _css_colour(1),
        "findings": findings,
        "drawn": {one.verdict.target for one in findings},
        "seen": collect_seen_groups(store),
        "seen_count": len(groups),
        "seen_sentence": seen_groups.describe_seen_groups(groups),
        "seen_used": any(group.is_used for group in groups),
        "not_tested": seen_groups.NOT_TESTED,
        "noted": noted,
        "listed": {one.target for one in noted},
        "profiles": collect_profiles(store),
        "sufficiency": parts,
        "background_note": describe_background(parts, absorbed_share(manifest, images)),
        "file_sentences": describe_file_rules(parts.files)[:FINDINGS_SHOWN] if parts else [],
        "power": store.table("power").to_pylist() if store.has_table("power") else [],  # `audit power`
        "copies": copies,
        "wrong_copies": any(map(crosses, copies["groups"])) if copies else False,
        "followed": any(entry.effect is not None for entry in entries),
        "stability": stability.read_stability(store) if stability.is_stability_measured(store) else None,
        "format_correlation": stability.format_correlation,
        "screened": describe_screened_class(store, settings["target"]),
        "beside": entries.beside,
        "shown": RANKED,
        "ranking": list(entries),
        "views": views,
        "decided": entries.decided,
        "conserving": not exceeds_absorbed_bound(absorbed_share(manifest, images)),
        "has_maps": store.has_array("maps"),
        "overlay": manifest.get("overlay", "relevance overlaid"),
        "names": group_names.read_names(store),
        "skipped": list_skipped(store, images),
        "facts": list_facts(manifest, images),
    }


def _css_colour(value: float) -> str:
    """Return the colour of an overlay for a value from -1 to 1."""
    return "rgb({}, {}, {})".format(*diverging_colours(value / 2, 1).tolist())
