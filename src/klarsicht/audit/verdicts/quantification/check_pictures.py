"""Check single pictures against the artifacts that a quantified run knows.

A picture carries a known artifact where it is more like its carriers than clean images of the run are; whether its
prediction rests on it is told by taking it out. A prediction may rest on what no run knows, so its surroundings are
exchanged and its framing is changed as well.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import resize_levels
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.explanation.steps.audit_inputs import settings_to_open
from klarsicht.audit.results import verdicts
from klarsicht.audit.results.checked_picture import ELSEWHERE, CarriedArtifact, CheckedPicture, CheckedPictures
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import read_detections
from klarsicht.audit.results.logit_effect import LogitEffect, matters
from klarsicht.audit.results.measured_use import read_measured_uses
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.results.sufficiency import is_measured
from klarsicht.audit.results.words import name_artifact
from klarsicht.audit.verdicts.detectors.artifact_embedding import load_reference_embedding
from klarsicht.audit.verdicts.detectors.bank import (
    ALL_DETECTORS,
    DETECTORS,
    FEW_CLASS_DETECTORS,
    LEARNED_DETECTORS,
    TailDetector,
    change_of,
)
from klarsicht.audit.verdicts.detectors.detection import ImageStack
from klarsicht.audit.verdicts.detectors.outlying_groups import OutlyingGroups, embed_once
from klarsicht.audit.verdicts.interventions.border import measure_border
from klarsicht.audit.verdicts.interventions.carrier_template import CarrierTemplate, take_out_border
from klarsicht.audit.verdicts.interventions.experiment import Experiment, Predict
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits
from klarsicht.audit.verdicts.quantification.opened_pictures import NamedPicture, list_pictures, open_pictures
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.picture_questions import PictureQuestions
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels, Rows
from klarsicht.ground.errors import ImageError, StoreError, Unreachable
from klarsicht.ground.pictures.seen_area import SeenArea, read_seen_area
from klarsicht.ground.pictures.stored_images import DecodedImage
from klarsicht.ground.progress import track
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.linear_discriminants import cross_validated_scores, score_by_discriminants
from klarsicht.numerics.statistics.split_half import combined_p

CLEAN_IMAGES = 500  # of the run, that a picture is compared with
DRAWN_PLACES = 400  # places of which those that overlap the window least are taken
OWN_SHARE = 0.5  # of the images of another detection, that must be the verdict's
LEAST_LIKE = 0.5  # likeness of a picture that carries it
LEAST_SPREAD = 1e-9  # deviation of a component of a description; others say nothing


class KnownArtifact(Protocol):
    """Protocol of an artifact that single images can be compared with."""

    def scores(self, images: Pixels, /) -> Doubles:
        """Compute how much images (n, H, W, C) are like carriers, (n,)."""

    def place(self, image: Pixels, /) -> tuple[float, float, float, float] | None:
        """Return top, left, height and width in an image (H, W, C), in shares; None without a place."""

    def take_out(self, image: Pixels, /) -> Pixels | None:
        """Take it out of an image (H, W, C); None where it cannot be."""

    def take_out_elsewhere(self, image: Pixels, clean: Pixels, rng: np.random.Generator, /) -> tuple[Pixels, Pixels]:
        """Take as much out where it is not, for comparison: the images before and after, (k, H, W, C).

        Args:
            image: the picture.
            clean: clean images of the class.
        """


@dataclass(frozen=True)
class KnownWindow:
    """Artifact with a window.

    Attributes:
        template: of the window.
    """

    template: CarrierTemplate

    def scores(self, images: Pixels) -> Doubles:
        return np.array([self.template.match(image)[0] for image in images])

    def place(self, image: Pixels) -> tuple[float, float, float, float]:
        (height, width), (a, b), (h, w) = image.shape[:2], self.template.match(image)[1], self.template.extent
        return a / height, b / width, h / height, w / width

    def take_out(self, image: Pixels) -> Pixels:
        return self.template.take_out(image, self.template.match(image)[1])

    def take_out_elsewhere(self, image: Pixels, clean: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Take out windows of the same size at random places of the picture that overlap the found one least."""
        del clean
        found, extent = np.array(self.template.match(image)[1]), np.array(self.template.extent)
        sides = zip(image.shape[:2], extent, strict=True)
        drawn = np.stack([rng.integers(0, n - side + 1, DRAWN_PLACES) for n, side in sides], 1)
        overlap = np.maximum(extent - np.abs(drawn - found), 0).prod(1)
        places = drawn[np.argsort(overlap, kind="stable")[:ELSEWHERE]]
        filled = [self.template.take_out(image, (int(a), int(b))) for a, b in places]
        return np.repeat(image[None], ELSEWHERE, 0), np.stack(filled)


@dataclass(frozen=True)
class KnownMeasure:
    """Artifact that is a tail of a measure of whole images; a border can be taken out, other ones cannot.

    Attributes:
        detector: of the measure.
        widths: of the border at the top, bottom, left and right; None of other artifacts.
    """

    detector: TailDetector
    widths: tuple[int, int, int, int] | None

    def scores(self, images: Pixels) -> Doubles:
        return np.asarray(self.detector.values(ImageStack(images)), np.float64)

    def place(self, image: Pixels) -> None:
        del image

    def take_out(self, image: Pixels) -> Pixels | None:
        return None if self.widths is None else take_out_border(image, self.widths)

    def take_out_elsewhere(self, image: Pixels, clean: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Take the border out of clean images of the class."""
        del image
        assert self.widths is not None
        some = clean[rng.permutation(len(clean))[:ELSEWHERE]]
        return some, np.stack([take_out_border(one, self.widths) for one in some])


@dataclass(frozen=True)
class KnownGroup:
    """Artifact that only a group shares: the linear discriminant of its carriers in a description. It cannot be taken
    out of a single picture.

    Attributes:
        describe: vectors (n, d) of a stack of images.
        vectors: float (m, d), of carriers and other images of the class.
        carries: bool (m,), which of them are carriers.
    """

    describe: Callable[[ImageStack], Floats]
    vectors: Doubles
    carries: Bools

    @classmethod
    def of(cls, describe: Callable[[ImageStack], Floats], carriers: Pixels, others: Pixels) -> KnownGroup:
        """Describe carriers (n, H, W, C), and other images of the class (m, H, W, C)."""
        vectors = [np.asarray(describe(ImageStack(levels)), np.float64) for levels in (carriers, others)]
        return cls(describe, np.concatenate(vectors), np.arange(len(carriers) + len(others)) < len(carriers))

    def scores(self, images: Pixels) -> Doubles:
        spread = self.vectors.std(0)
        unit = np.where(spread > LEAST_SPREAD, spread, np.inf)
        examples, x = ((v - self.vectors.mean(0)) / unit for v in (self.vectors, self.describe(ImageStack(images))))
        return score_by_discriminants(examples, self.carries.astype(np.intp), x, 2, x.shape[1])[:, 1]

    def carrier_scores(self) -> Doubles:
        """Compute the scores of the carriers, each by a discriminant that was fitted without it."""
        rows = np.arange(len(self.vectors))
        return np.asarray(cross_validated_scores(self.vectors, self.carries.astype(np.intp), rows)[self.carries, 1])

    def place(self, image: Pixels) -> None:
        del image

    def take_out(self, image: Pixels) -> None:
        del image

    def take_out_elsewhere(self, image: Pixels, clean: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Take out nothing."""
        del image, rng
        return clean, clean


@dataclass(frozen=True)
class Comparison:
    """Known artifact of a verdict, with scores of images that do not carry it and of its carriers.

    Attributes:
        sign: the detection that it is compared by, see `choose_sign`.
        clean, carriers: float (n,) and (m,).
        number: of the artifact in its class, from 1.
    """

    verdict: Verdict
    sign: str
    artifact: KnownArtifact
    clean: Doubles
    carriers: Doubles
    number: int = 1

    def p_clean(self, score: float) -> float:
        """Compute the p-value of a score among clean images."""
        return float(1 + (self.clean >= score).sum()) / (len(self.clean) + 1)

    def likeness(self, score: float) -> float:
        """Place a score on a line: 0 at the median clean image, 1 where a tenth of the carriers lies below."""
        middle, least = float(np.median(self.clean)), float(np.quantile(self.carriers, 0.1))
        return float((score - middle) / max(least - middle, 1e-9))


@dataclass(frozen=True)
class PictureCheck:
    """Artifacts that a run knows, ready to be compared with pictures.

    Attributes:
        work: store, corpus, settings and groups.
        names: of the outputs.
        verdicts: verdicts on classes with an artifact.
        level: of p.
        area: part of a file that the model sees; None where it is not known.
        has_verdicts: whether the run was asked for artifacts.
    """

    work: DetectionUnits
    names: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    level: float
    area: SeenArea | None = None
    has_verdicts: bool = True

    @cached_property
    def comparisons(self) -> dict[tuple[int, int], Comparison | None]:
        """Each artifact by output and number in its class, ready to be compared with single images; None where it
        cannot be."""
        made: dict[tuple[int, int], Comparison | None] = {}
        if not self.verdicts:
            return made
        clean = self.work.input_images(self.clean_rows)
        detections = read_detections(self.work.store, verdicts.read_verdicts(self.work.store))
        for verdict in track(self.verdicts, len(self.verdicts), "known artifacts"):
            before: tuple[int, ...] = ()
            for number, one in enumerate(verdict.artifacts, 1):
                which = one.target, number
                made[which] = self.make_comparison(one, number, detections.get(which, []), before, clean)
                before += one.rows
        return made

    @property
    def known(self) -> tuple[Comparison, ...]:
        """Artifacts that single images can be compared with."""
        return tuple(one for one in self.comparisons.values() if one is not None)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Artifacts that single images cannot be compared with: known by what a group shares."""
        names = {verdict.target: verdict.name for verdict in self.verdicts}
        lacking = (which for which, one in self.comparisons.items() if one is None)
        return tuple(name_artifact(names[target], number) for target, number in lacking)

    @cached_property
    def unknown_targets(self) -> frozenset[int]:
        """Outputs of the classes with such an artifact."""
        return frozenset(target for (target, _), one in self.comparisons.items() if one is None)

    @cached_property
    def carrying(self) -> Rows:
        """Rows of images that carry a known artifact, and -1."""
        every = (one.rows for verdict in self.verdicts for one in verdict.artifacts)
        return np.concatenate([[-1], *every]).astype(np.intp)

    @cached_property
    def questions(self) -> PictureQuestions:
        """Images whose parts pictures get."""
        return PictureQuestions(self.work, self.names, self.carrying)

    @cached_property
    def clean_rows(self) -> Rows:
        """Rows of images that carry no known artifact, CLEAN_IMAGES at most."""
        rows = np.setdiff1d(np.concatenate([group.rows for group in self.work.groups]), self.carrying)
        return np.sort(generator(self.work.settings.seed, "clean images").permutation(rows)[:CLEAN_IMAGES])

    def make_comparison(
        self, verdict: Verdict, which: int, rows: Sequence[SignRow], before: Sequence[int], clean: Pixels
    ) -> Comparison | None:
        """Compare clean images (n, H, W, C) with the artifact of a verdict; None where no detection of it is a
        window, a measure or a description of whole images.

        Args:
            which: number of the artifact in its class, from 1.
            rows: detections of the class, or of what is left of it.
            before: rows of the run that carry the artifacts of the class before this one.
        """
        sign = choose_sign(verdict, rows, self.level)
        if sign is None:
            return None
        name = sign["sign"].split()[0]
        (number,) = (i for i, group in enumerate(self.work.groups) if group.target == verdict.target)
        rng = generator(self.work.settings.seed, "known", number)
        examples, _ = InterventionUnits(self.work, (), tuple(before)).make_examples(number, sign, rng)
        detector, describe = DETECTORS.get(name), self.description_of(name)
        artifact: KnownArtifact
        if describe is not None:
            group = KnownGroup.of(describe, examples.carriers, examples.others)
            return Comparison(verdict, sign["sign"], group, group.scores(clean), group.carrier_scores(), which)
        if isinstance(detector, TailDetector):
            border = change_of(sign["sign"]) == "border"
            top, bottom, left, right = (int(width) for width in measure_border(examples.carriers))
            artifact = KnownMeasure(detector, (top, bottom, left, right) if border else None)
        else:
            artifact = KnownWindow(CarrierTemplate.of(examples))
        scores = artifact.scores(clean), artifact.scores(examples.carriers)
        return Comparison(verdict, sign["sign"], artifact, *scores, which)

    def description_of(self, name: str) -> Callable[[ImageStack], Floats] | None:
        """Return the description in which a detector finds groups; None of others."""
        detector = ALL_DETECTORS.get(name)
        if isinstance(detector, OutlyingGroups):
            return detector.vectors
        network = load_reference_embedding() if name in FEW_CLASS_DETECTORS else self.work.embedding
        if isinstance(detector, LEARNED_DETECTORS) and network is not None:
            return lambda shown: embed_once(network, shown)
        return None

    def check(self, path: str, picture: DecodedImage, predict: Predict) -> CheckedPicture:
        """Compare a picture with every known artifact, and take out those that it carries.

        Raises:
            ImageRefused: the model's transform refuses it.
        """
        work, images = self.work, self.work.input_images
        seen = images.classifier.image(picture)
        image = resize_levels(images.pixel_scale.levels(seen), images.shape)
        logits = predict(images.pixel_scale.inputs(image[None]))
        target = int(logits[0].argmax())
        probability = float(np.exp(work.scale.log_probability(logits, target)[0]))
        artifacts = [self.compare(image, logits, one, predict) for one in self.known]
        order = sorted(artifacts, key=lambda one: (one.p, one.target))
        shown, filled = 1.0, 1.0
        if self.area is not None and isinstance(picture, Image.Image):  # of arrays the size is not told
            shown, filled = self.area.overlap(picture.size)
        return CheckedPicture(
            path, self.names[target], target, probability, tuple(order), shown=shown, filled=filled,
            uncompared=target in self.unknown_targets, questions=self.questions.ask(image, target, predict),
            has_verdicts=self.has_verdicts,
        )  # fmt: skip

    def compare(self, image: Pixels, logits: Floats, with_known: Comparison, predict: Predict) -> CarriedArtifact:
        """Compare an image (H, W, C) with a known artifact; where it carries it, take it out."""
        work, known, verdict = self.work, with_known.artifact, with_known.verdict
        target, score = verdict.target, float(known.scores(image[None])[0])
        p = min(1.0, with_known.p_clean(score) * len(self.known))
        like = with_known.likeness(score)
        carried = p <= self.level and like >= LEAST_LIKE
        told = CarriedArtifact(verdict.name, target, with_known.sign, p, like, carried, number=with_known.number)
        if not told.carried:
            return told
        told = replace(told, place=known.place(image))
        without = known.take_out(image)
        if without is None:
            return told
        inputs, rng = work.input_images.pixel_scale.inputs, generator(work.settings.seed, "elsewhere", target)
        after = predict(inputs(without[None]))
        pair = known.take_out_elsewhere(image, self.clean_of(target), rng)
        there, gone = (predict(inputs(one)) for one in pair)
        falls = Experiment(there, gone, target, work.scale).rises()
        drop = float(Experiment(logits, after, target, work.scale).rises()[0])
        p_drop = float(1 + (falls >= drop).sum()) / (len(falls) + 1)
        rests = matters(LogitEffect.of_values(drop), "value") and p_drop <= self.level
        return replace(told, drop=drop, p_drop=p_drop, without=self.names[int(after[0].argmax())], rests=rests)

    def clean_of(self, target: int) -> Pixels:
        """Read clean images of a class, ELSEWHERE at most, and of other classes where it has fewer."""
        (group,) = (group for group in self.work.groups if group.target == target)
        own = np.setdiff1d(group.rows, self.carrying)
        own = generator(self.work.settings.seed, "clean images", target).permutation(own)[:ELSEWHERE]
        more = np.setdiff1d(self.clean_rows, group.rows)[: ELSEWHERE - len(own)]
        return self.work.input_images(np.concatenate([own, more]))


def choose_sign(verdict: Verdict, rows: Sequence[SignRow], level: float) -> SignRow | None:
    """Choose the detection by which single pictures are compared with the artifact of a verdict.

    It is the verdict's own where that has windows or is a measure of whole images, so that it may be taken out; else,
    of the detections that have or are, that share OWN_SHARE of their images with the verdict's and reach the level by
    themselves, the one of the largest score. Without any it is the verdict's own, if that is a group in a description;
    else None.

    Args:
        rows: of the table `signs`, all of the class.
    """
    able = [
        row for row in rows if len(row["places"]) or isinstance(DETECTORS.get(row["sign"].split()[0]), TailDetector)
    ]
    own = next((row for row in rows if row["sign"] == verdict.detection.sign and row["rows"]), None)
    if own in able:
        return own
    p_own = combined_p([row["score"] for row in able], len(rows)) if able else ()
    shared = [len(set(row["rows"]) & set(verdict.rows)) >= OWN_SHARE * max(len(row["rows"]), 1) for row in able]
    alike = [row for row, p, share in zip(able, p_own, shared, strict=True) if p <= level and share and row["rows"]]
    group = isinstance(ALL_DETECTORS.get(verdict.detection.sign.split()[0]), (OutlyingGroups, *LEARNED_DETECTORS))
    return max(alike, key=lambda row: row["score"], default=own if group else None)


def check_one(check: PictureCheck, named: NamedPicture, predict: Predict) -> CheckedPicture:
    """Check a picture; one that cannot be decoded, or may not be read, says so.

    Raises:
        Unreachable: its disk does not give it any more.
    """
    try:
        return check.check(named.name, named.corpus.decode(named.row), predict)
    except Unreachable as error:
        unreadable = error.__cause__
        if unreadable is None or not isinstance(unreadable.__cause__, PermissionError):
            raise
        why = str(unreadable)
    except ImageError as error:
        why = str(error)
    return CheckedPicture(named.name, "", -1, 0.0, (), " ".join(why.split()), has_verdicts=check.has_verdicts)


@check_arguments
def check_pictures(
    run: str | Path | RunStore, pictures: str | Path | Image.Image | Sequence[str | Path | Image.Image], *,
    level: float = LEVEL, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CheckedPictures:  # fmt: skip
    """Check pictures against the artifacts that a quantified run knows, and exchange their parts; of a run that only
    `audit shortcuts` has been through, parts alone.

    Args:
        run, data, classifier, device: see quantification.quantify.
        pictures: one or a list of files, folders and Pillow images; of a folder all images are checked. Files of
            several pictures are read as a run reads them.
        level: of p, below which a picture carries an artifact, and its prediction rests on it.

    Raises:
        StoreError: the run was neither quantified nor asked for shortcuts.
        InputError: there is no such file or folder, or no image in a folder.
        UsageError, RunMismatch: as quantify.
    """
    store = RunStore.open(run)
    settings_to_open(store, data, classifier, device)  # of a run that may not be opened, nothing else is said
    has_verdicts = verdicts.is_quantified(store)
    if not (has_verdicts or is_measured(store)):
        name = shlex.quote(str(store.path))
        raise StoreError(
            "the run was neither quantified nor asked for shortcuts", got=store.path,
            rule="a picture is compared with what one of these commands found",
            remedy=f"Run `klarsicht audit quantify {name}`; for parts and surroundings `klarsicht audit shortcuts "
            f"{name}` is enough.",
        )  # fmt: skip
    every = verdicts.read_verdicts(store) if has_verdicts else ()
    with_artifact = tuple(v for v in every if (v.artifactual or v.shared) and v.rows)
    several = [pictures] if isinstance(pictures, str | Path | Image.Image) else pictures
    files_and_images = list(list_pictures(several, any_ending=bool(store.manifest["settings"].get("decode"))))
    with open_run(store, level=level, workers=1, data=data, classifier=classifier, device=device) as (audit, work):
        check = PictureCheck(work, audit.names, with_artifact, level, read_seen_area(work.store.manifest), has_verdicts)
        with predictor(work) as predict:
            opened = open_pictures(files_and_images, work.settings, work.input_images.classifier.form)
            results = tuple(check_one(check, named, predict) for named in track(opened, len(opened), "pictures"))
        names = tuple(name_artifact(one.verdict.name, one.number) for one in check.known)
        uses = {name_artifact(one.name, one.number): one for one in read_measured_uses(work.store)}
        measured = tuple(uses[name].describe() for name in check.unknown if name in uses)
        return CheckedPictures(results, names, check.unknown, level, len(check.clean_rows), measured)
