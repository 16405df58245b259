"""Open a finished run for cleaning, and collect the members of an artifact in one of its classes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from klarsicht.audit.cleaning.artifacts.artifact import Artifact, build_artifact, deal_images, make_known_artifact
from klarsicht.audit.cleaning.artifacts.found_artifact import (
    BY_LIST,
    AuditedClass,
    FoundArtifact,
    MemberList,
    find_members,
    read_mask,
    read_member_list,
)
from klarsicht.audit.cleaning.models.exchanged_parts import check_parts, noted_parts
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data import groups
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.data.splits import TRAIN
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import InputImages, PixelScale
from klarsicht.audit.explanation.settings import ANY_DEVICE, counts_own_logits
from klarsicht.audit.explanation.steps.audit_inputs import Audit, open_data, settings_of_run
from klarsicht.audit.results import ranking, verdicts
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import read_detections
from klarsicht.audit.results.significance import SAME
from klarsicht.audit.results.surroundings import is_examined, read_surroundings
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VerdictKind, describe_detector, format_count, name_artifact
from klarsicht.audit.verdicts.detectors.bank import change_of
from klarsicht.audit.verdicts.interventions.class_parts import ClassParts
from klarsicht.audit.verdicts.interventions.planted_artifact import PlantedArtifact
from klarsicht.ground.arrays import Ints
from klarsicht.ground.errors import CorpusError, InputError, KlarsichtError, UsageError, unknown_name
from klarsicht.ground.progress import note
from klarsicht.ground.run_folder.decisions import ClassDecision, DecisionLog
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator

PART_DONORS = 128  # images of the class, and of others, whose parts are put on other images
ALL_CLASSES = "without --class, all classes that rely on an artifact are cleaned"
CLUSTER, DETECTOR = FINDERS = ("cluster", "detector")


def require_exclusive_classes(store: RunStore, data: Any = None) -> None:
    """Check that images of a run have one label each, and that its classes exclude each other: corrections are judged
    by centred logits and by the largest one. Raises UsageError otherwise."""
    settings = settings_of_run(store, data)
    if settings.several_labels or counts_own_logits(store.manifest):
        raise UsageError(
            "no cleaning of this run yet",
            got="several labels an image" if settings.several_labels else "independent outputs (sigmoids)",
            rule="corrections are judged on classes that exclude each other, one label an image",
            remedy="Audit a manifest with one label an image with --exclusive, and clean that run.",
        )


@dataclass(frozen=True)
class LabelledCorpus:
    """Corpus with the right output (N,) for each image, -1 where unknown."""

    corpus: Corpus
    labels: Ints


@dataclass(frozen=True)
class AuditedRun:
    """Finished run (`store`), opened with settings, model and corpus (`audit`)."""

    store: RunStore
    audit: Audit

    @classmethod
    def of(
        cls, run: str | Path | RunStore, data: Any = None, classifier: Classifier | None = None,
        device: str = ANY_DEVICE,
    ) -> AuditedRun:  # fmt: skip
        """Open a run; of one in Python, `data` is its corpus or sequence.

        Raises:
            UsageError: a run with several labels an image, or of independent outputs.
            RunMismatch: model or data differ from those of the run.
        """
        store = RunStore.open(run)
        require_exclusive_classes(store, data)
        audit = Audit.of_run(store, data, classifier, device)
        pipeline.check_unchanged(audit, store)
        return cls(store, audit)

    @property
    def labels(self) -> Ints:
        """Right output (N,) for each image of the corpus, -1 where unknown."""
        return np.array([self.audit.index.get(label, -1) for label in self.audit.corpus.labels])

    @property
    def labelled_corpus(self) -> LabelledCorpus:
        """The corpus of the run."""
        return LabelledCorpus(self.audit.corpus, self.labels)

    def open_other(self, data: Any) -> LabelledCorpus:
        """Open another corpus, a path or what it is in Python, whose labels are those of the run, or names or numbers
        of outputs. Raises CorpusError: there is none, its columns have other names than those of the run, or a label is
        not known."""
        try:
            corpus = open_data(self.audit.settings, data).as_arrays(self.audit.classifier.form)
            outputs = self.audit.index_of(corpus)
        except CorpusError as error:  # no option of what opens it names columns or classes
            remedies = {
                "-column": "Name its columns as in the table of the run.",
                "--class-map": "Name them as in the run.",
            }
            remedy = next((text for option, text in remedies.items() if option in error.remedy), error.remedy)
            raise CorpusError(error.what, got=error.got, rule=error.rule, remedy=remedy) from error
        return LabelledCorpus(corpus, np.array([outputs[label] for label in corpus.labels]))

    @property
    def quantification(self) -> Quantification | None:
        """The verdicts of `audit quantify`; None where it was not run."""
        return verdicts.read_verdicts(self.store) if verdicts.is_quantified(self.store) else None

    def audited_class(self, target: int, metric: str = "") -> AuditedClass:
        """Return the class of that output, with the group that was analysed under a metric, by default the first."""
        metric = metric or self.audit.settings.metric[0]
        return self.class_of(pipeline.make_analyses(self.audit, self.store, (metric,))[metric].group(target))

    def class_of(self, group: Group) -> AuditedClass:
        """Return the class of a group of images."""
        return AuditedClass(self.store, self.audit.corpus, self.audit.classifier, group, self.labels)

    def unseen_class(self, name: str, target: int) -> AuditedClass:
        """Return a class of which nothing was analysed."""
        return self.class_of(Group(name, target, np.empty(0, np.intp)))

    def find_members(self, name: str, by: str | None = None) -> FoundArtifact:
        """Return the members of the artifact of a class: those that a person decided, else those of the strongest
        detector, or the suspect cluster.

        Args:
            name: the class, or a further artifact of it: "carton (artifact 2)".
            by: a name of FINDERS; by default the decision of a person, else the detector where `audit quantify` named
                images of the class by one, also patches that too few classes let it call the same only: whoever names
                the class has decided.

        Raises:
            UsageError: the class was not audited or decided to be legitimate, or the finder is unknown or has found
                nothing.
        """
        if by not in (None, *FINDERS):
            raise unknown_name("finder", str(by), FINDERS)
        target, number = groups.find_artifact(name, self.audit.names, self.audit.index)
        decision = DecisionLog(self.store.path).decisions().get(target) if by is None else None
        if decision is not None and decision.is_legitimate:
            raise UsageError(
                "the class was decided to be legitimate", got=f"{name}, by {decision.author} on {decision.time[:10]}",
                rule="what its images share belongs to it",
                remedy="Decide again in `audit explore`, or name the images: --found-by or --members.",
            )  # fmt: skip
        if number > 1:
            if by == CLUSTER:
                raise UsageError(
                    "a further artifact of a class has no cluster", got=name, rule="a detector found it",
                    remedy="Leave out --found-by.",
                )  # fmt: skip
            return self.members_of_further(name, target, number)
        if decision is not None and decision.is_artifact and decision.members is not None:
            return self.members_of_decision(decision)
        if by != CLUSTER and (known := self.quantification) is not None:
            verdict = known.of_target(target) or known.of(name)
            if verdict.artifactual or verdict.shared:
                return self.members_of_detection(known, verdict)
            if by is None and verdict.kind is VerdictKind.TEXTURE:
                raise refuse_texture([verdict.name], self.store)
        if by == DETECTOR:
            raise UsageError(
                "no detector called this class artifactual", got=name,
                rule="a run that `audit quantify` has been through, and a class called artifactual by it",
                remedy="Run `audit quantify` first, or take the suspect cluster: --found-by cluster.",
            )  # fmt: skip
        entry = ranking.read_ranking(self.store).of(name)
        if by is None and known is not None and verdict.kind is VerdictKind.NOTHING:
            note(
                f"`audit quantify` found no artifact in {name}: the {format_count(len(entry.rows), 'image')} of its "
                "suspect cluster are taken, and may show ordinary content. Look at them first, or list others: "
                "--members"
            )
        return FoundArtifact(
            self.audited_class(entry.target, entry.metric), np.array(entry.rows), f"cluster: {entry.metric}"
        )

    def find_all_members(
        self, names: Sequence[str], by: str | None = None
    ) -> tuple[list[FoundArtifact], list[tuple[str, str]]]:
        """Find the members of several artifacts: those that were found, and (class, reason) of the others. Raises
        UsageError for an unknown class, or if nothing was found in any class."""
        named = [(name, name) for name in self.name_once(names)]
        return make_each(named, lambda name: self.with_use(self.find_members(name, by)), refusals=(UsageError,))

    def with_use(self, finding: FoundArtifact) -> FoundArtifact:
        """Return the members with what `audit quantify` measured of the artifact of mostly the same ones, if it did."""
        known, members = self.quantification, {*map(int, finding.members)}
        of_class = known.of_target(finding.audited.group.target) if known else None
        alike = (one for one in (of_class.artifacts if of_class else ()) if is_alike(members, {*one.rows}))
        return next((replace(finding, measured_use=one.use) for one in alike if one.use.tried), finding)

    def name_once(self, names: Sequence[str]) -> list[str]:
        """Return the names of artifacts, each artifact once. Raises UsageError for an unknown class."""
        named = {groups.find_artifact(name, self.audit.names, self.audit.index): name for name in reversed(names)}
        return list(reversed(named.values()))

    def name_clearly(self, name: str, target: int, number: int) -> str:
        """Name an artifact by its class, or by its output where another class has that name: a class may itself be
        called "carton (artifact 2)"."""
        by_name = groups.find_artifact(name, self.audit.names, self.audit.index)
        return name if by_name == (target, number) else name_artifact(str(target), number)

    def members_of_decision(self, decision: ClassDecision) -> FoundArtifact:
        """Return the members as a person left them, with the detector's windows where every member has one. Raises
        UsageError if none of them is an image of the class."""
        target, origin = decision.target, f"decision: {decision.artifact or decision.name}"
        audited = self.audited_class(target)
        rows = np.intersect1d(np.array(decision.members, np.int64), audited.group.rows)
        if not len(rows):
            raise UsageError(
                "the decision names no image of the class", got=decision.name,
                remedy="Look at it again: `klarsicht audit explore`.",
            )  # fmt: skip
        verdict = known.of_target(target) if (known := self.quantification) is not None else None
        further = {row for one in verdict.further for row in one.rows} if verdict else set()
        found = FoundArtifact(audited, rows, origin, of_others=tuple(sorted(further - set(rows.tolist()))))
        shown = verdict is not None and (verdict.artifactual or verdict.shared)
        if known is None or verdict is None or not (shown and set(rows.tolist()) <= set(verdict.rows)):
            return found
        detected = self.members_of_detection(known, verdict)
        kept = np.isin(detected.members, rows)
        places = detected.places[kept] if detected.has_places else detected.places
        return replace(
            detected, members=detected.members[kept], origin=origin, places=places, of_others=found.of_others
        )

    def members_of_further(self, name: str, target: int, number: int) -> FoundArtifact:
        """Return the members of the artifact `number` of a class. Raises UsageError if `audit quantify` found no such
        artifact."""
        if (known := self.quantification) is None:
            raise UsageError(
                "no such artifact", got=name, rule="further artifacts of a class are found by `audit quantify`",
                remedy="Run `klarsicht audit quantify` first.",
            )  # fmt: skip
        artifacts = (known.of_target(target) or known.of(name)).named_artifacts
        if number > len(artifacts):
            raise UsageError(
                "no such artifact of this class", got=name,
                rule=f"it has {format_count(len(artifacts) - 1, 'further artifact')}",
                remedy=f"Name one: {'; '.join(one for one, _ in artifacts)}.",
            )  # fmt: skip
        return self.members_of_detection(known, artifacts[number - 1][1], number)

    def members_of_detection(self, known: Quantification, verdict: Verdict, number: int = 1) -> FoundArtifact:
        """Return the members by the detector of a verdict, the artifact `number` of its class, each with its window."""
        sign, audited = verdict.detection.sign, self.audited_class(verdict.target)
        of_class = known.of_target(verdict.target)
        every = {row for one in of_class.artifacts for row in one.rows} if of_class else set()
        members = FoundArtifact(
            audited, np.array(verdict.rows), f"detector: {describe_detector(sign)}", change_of(sign), number=number,
            of_others=tuple(sorted(every - set(verdict.rows))),
        )  # fmt: skip
        for row in read_detections(self.store, known).get((verdict.target, number), []):
            if row["sign"] == sign and row["rows"] == list(verdict.rows):
                places = np.array(row["places"], float).reshape(-1, 2)
                return replace(members, places=places, extent=(row["height"], row["width"]))
        return members

    def read_members(self, name: str, members: MemberList) -> FoundArtifact:
        """Read the members that a person lists. Raises UsageError or InputError if the class was not audited, or the
        list cannot be used."""
        target = groups.find_output(name, self.audit.names, self.audit.index)
        audited = self.audited_class(target)
        names = read_member_list(members) if isinstance(members, Path) else members
        called = members.name if isinstance(members, Path) else f"{len(names)} images"
        return FoundArtifact(audited, find_members(names, audited), f"{BY_LIST}{called}")

    def known_artifact(self, name: str, kind: str, *, seed: int = 0) -> tuple[Artifact, AuditedClass]:
        """Make the record of a known artifact, a kind or family of `audit plant`, that raises any class of the model.

        Raises:
            UsageError: unknown class, kind or family, or images of fewer than three sources.
            ModelError: the model's transform bends grey levels.
        """
        target = groups.find_output(name, self.audit.names, self.audit.index)
        planted = PlantedArtifact(kind, seed, PixelScale.of(self.audit.classifier))
        _ = planted.plant  # an unknown kind is refused first
        part = deal_images(self.audit.corpus.source_numbers, target, seed)
        artifact = make_known_artifact(name, target, planted, part, f"audit plant: {planted}")
        return artifact, self.unseen_class(name, target)

    def part_artifact(self, name: str, parts: Sequence[str] = (), *, seed: int = 0) -> tuple[Artifact, AuditedClass]:
        """Make the record of parts (names of image_parts.IMAGE_PARTS) that every image of a class carries and that tell
        the class; by default the strongest that `audit shortcuts` noted.

        Raises:
            UsageError: unknown class or part, none that was noted, the background, or images of fewer than three
                sources or of one class.
            ModelError: the model's transform bends grey levels.
        """
        target = groups.find_output(name, self.audit.names, self.audit.index)
        chosen = tuple(parts) or noted_parts(self.store, name)
        check_parts(chosen, background=False, own=False)
        corpus, labels = self.audit.corpus, self.labels
        split = deal_images(corpus.source_numbers, target, seed)
        rng, read = generator(seed, "donors", target), InputImages.of(corpus, self.audit.classifier)
        own, other = (
            np.sort(rng.permutation(np.flatnonzero(which & (split == TRAIN)))[:PART_DONORS])
            for which in (labels == target, labels != target)
        )
        if not len(own) or not len(other):
            raise UsageError(
                "no images to exchange a part with", got=f"{len(own)} of the class, {len(other)} of others to fit on",
                rule="images of the class and of another one", remedy="Name a class with images in the run.",
            )  # fmt: skip
        known = ClassParts(chosen, read(own), read(other), read.pixel_scale)
        artifact = make_known_artifact(name, target, known, split, f"part of every image: {known}")
        return artifact, self.unseen_class(name, target)

    def build_artifact(
        self, name: str, *, found_by: str | None = None,
        members: MemberList | None = None, mask: Path | None = None, seed: int = 0,
    ) -> tuple[Artifact, AuditedClass]:  # fmt: skip
        """Build the artifact of a class from members that the audit found or a person lists, and from a mask of its
        place, if any.

        Raises:
            UsageError: the class was not audited, members are too few, or both a finder and a list are named.
            InputError: the list or the mask cannot be used.
        """
        if members is not None and found_by is not None:
            raise UsageError(
                "two sources of the images with the artifact", got=f"{found_by} and {members}",
                rule="--found-by or --members",
            )  # fmt: skip
        finding = self.find_members(name, found_by) if members is None else self.read_members(name, members)
        finding = self.with_use(finding)
        region = None if mask is None else read_mask(mask, finding.audited)
        origin = finding.origin + (", mask" if mask else "")
        return build_artifact(replace(finding, origin=origin), seed=seed, region=region), finding.audited


def is_alike(members: set[int], others: set[int]) -> bool:
    """Test whether two groups of rows are mostly the same, by their Jaccard index."""
    return len(members & others) >= SAME * len(members | others)


T = TypeVar("T")
Made = TypeVar("Made")


def make_each(
    classes: Iterable[tuple[str, T]], make: Callable[[T], Made], advance: Callable[[], None] = lambda: None,
    lacking: str = "", refusals: tuple[type[KlarsichtError], ...] = (InputError, UsageError),
) -> tuple[list[Made], list[tuple[str, str]]]:  # fmt: skip
    """Make something of each class, given by name and content, and return it with (class, reason) of those that are
    refused.

    Args:
        lacking: what a refused class lacks, for a note; empty: none is given.
        refusals: errors for which a class is left out; where all are, the last one is raised.
    """
    made: list[Made] = []
    left_out: list[tuple[str, str]] = []
    why: KlarsichtError | None = None
    for name, one in classes:
        try:
            made.append(make(one))
        except refusals as error:
            left_out.append((name, str(error)))
            why = error
            if lacking:
                note(f"{name}: no {lacking}: {error}")
        advance()
    if why is not None and not made:
        raise why
    return made, left_out


def find_classes_to_clean(run: AuditedRun) -> tuple[str, ...]:
    """Return the artifacts that the model relies on by `audit quantify`, in the order of its verdicts, and the classes
    that a person decided to carry one; without those that a person decided to be legitimate. Raises UsageError if there
    are none."""
    decisions = DecisionLog(run.store.path).decisions()
    decided = {decision.name for decision in decisions.values() if decision.is_artifact}
    legitimate = {decision.name for decision in decisions.values() if decision.is_legitimate}
    known = run.quantification
    poisoned = {
        run.name_clearly(name, one.target, number): one.name
        for one in known or ()
        for number, (name, used) in enumerate(one.named_artifacts, 1)
        if used.poisoned
    }
    left = [name for name, of_class in poisoned.items() if of_class not in legitimate]
    if names := tuple(dict.fromkeys([*left, *sorted(decided)])):
        return names
    if is_examined(run.store) and (use := read_surroundings(run.store).describe_use()):
        raise UsageError(
            use, got="no class whose artifact is to be cleaned", rule="surroundings are cleaned of all classes at once",
            remedy=f"Do it by `klarsicht audit clean {run.store.path} --part surroundings`.",
        )  # fmt: skip
    if known is None:
        raise UsageError(
            "no class is named", got="a run that is not quantified", rule=ALL_CLASSES,
            remedy="Run `klarsicht audit quantify` first, or name one by --class.",
        )  # fmt: skip
    if poisoned:
        raise UsageError(
            "every class that relies on an artifact was decided to be legitimate", got=", ".join(poisoned),
            remedy="Decide again in `klarsicht audit explore`, or name one by --class, and --found-by.",
        )  # fmt: skip
    if names := tuple(one.name for one in known if one.kind_of_class is VerdictKind.TEXTURE):
        raise refuse_texture(names, run.store)
    count = f"{len(known)} classes quantified"
    if findings := [one.name for one in known if one.needs_review]:
        raise UsageError(
            "no class is named, and no verdict decides for you", got=f"{count}, to be looked at: {', '.join(findings)}",
            rule=ALL_CLASSES,
            remedy="Look at their images; if these share an artifact, name the class, as --class "
            f"{shlex.quote(findings[0])}.",
        )  # fmt: skip
    raise UsageError(
        "no class relies on an artifact: there is nothing to clean", got=count, rule=ALL_CLASSES,
        remedy="Name one by --class to clean it all the same.",
    )  # fmt: skip


def refuse_texture(names: Sequence[str], store: RunStore) -> UsageError:
    """Return the refusal to correct a model for the fine texture of whole classes: it is removed from the pictures."""
    return UsageError(
        "all images of a class share its fine texture, and none is left to compare with", got=", ".join(names),
        rule="noise of a whole class is removed from every picture, and a model trained on these",
        remedy=f"Denoise the corpus: `klarsicht audit clean-data {store.path} --action denoise --out new`. To correct "
        "the model all the same, name the artifact: --kind, --part, --members or --found-by.",
    )  # fmt: skip
