"""Work units that put the artifact of every class on images of other classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.results.logit_effect import FLOOR, LogitEffect, is_raised, matters
from klarsicht.audit.results.rows import SHARED_CONTENT, EffectRow, SignRow
from klarsicht.audit.results.significance import output_strategy
from klarsicht.audit.results.words import KNOWN_SHARES
from klarsicht.audit.verdicts.detectors.artifact_embedding import ArtifactEmbedding, own_or_shipped
from klarsicht.audit.verdicts.detectors.bank import change_of
from klarsicht.audit.verdicts.detectors.detection import Detection, ImageStack
from klarsicht.audit.verdicts.detectors.outlying_groups import shrink_to_embed
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.early_stopping import choose_way, measure_in_looks, most_images_compared
from klarsicht.audit.verdicts.interventions.experiment import ComparedEffect, Predict, p_among_rivals
from klarsicht.audit.verdicts.interventions.insertion import CHANGES, Insertion
from klarsicht.audit.verdicts.interventions.known_pixels import KnownPixels
from klarsicht.audit.verdicts.interventions.patch import Patch
from klarsicht.audit.verdicts.interventions.random_artifacts import put_random_artifacts, strength_of
from klarsicht.audit.verdicts.interventions.recognition import (
    FEWEST_TOLD,
    recognised_share,
    remaining_separation,
    separation,
)
from klarsicht.audit.verdicts.interventions.shared_content import SharedContent
from klarsicht.audit.verdicts.pixel_changes.coverage import CarrierDifference
from klarsicht.audit.verdicts.quantification.selected_detections import TRIED
from klarsicht.audit.verdicts.quantification.units import EFFECT_BACKGROUNDS, EFFECTS, DetectionUnits, predictor
from klarsicht.ground.arrays import Floats, Pixels, Rows
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import Interval

CHOICE_IMAGES = 32  # further ones on which detection and way of insertion are chosen
MAX_CONTROLS = 200  # images of a class without its artifact: controls
COMPARED = 64  # carriers, and as many others, by which coverage is measured
SAME_MEMBERS = 0.5  # Jaccard index from which two detections share the same content
LESS_COVERED = 0.75  # of the best way's coverage; ways that put on less than this are not tried
MOST_SHARED = 4  # ways to put on what the carriers of a detection share, those that cover most
MOST_OWN = 4  # ways to put on what detectors saw, of all detections of a class: two places of a tile, two others
FEW_CARRIERS = 8  # with fewer, what they share cannot be told from what one of them shows
RIVAL_IMAGES = 8  # images on which an artifact is compared with rivals, for these differ by more than images do
SURE_RISE = 3.0  # standard errors by which carriers' evidence must exceed that of others


@dataclass(frozen=True)
class ArtifactTrial:
    """Artifact of a detection, and its ways to be inserted, by name.

    Attributes:
        found: carriers and other images.
        difference: between carriers and others, by which coverage is measured.
        rows: int (n,), rows of the run of carriers and others; empty where they are of no run.
    """

    sign: SignRow
    found: ArtifactExamples
    ways: dict[str, Insertion]
    difference: CarrierDifference
    rows: Rows = field(default_factory=lambda: np.empty(0, np.intp))

    @classmethod
    def of(
        cls, sign: SignRow, found: ArtifactExamples, scale: PixelScale, shared: bool, rng: np.random.Generator,
        own: bool = True, network: ArtifactEmbedding | None = None,
    ) -> ArtifactTrial:  # fmt: skip
        """Make the ways of a detection: `own`, of what the detector found, and `shared`, of shared content, at most
        MOST_SHARED, which cover more than LESS_COVERED of what the best one covers; and, of an artifact without a
        window, the pixels by which an embedding knows it."""
        ways: dict[str, Insertion] = dict(CHANGES[change_of(sign["sign"])](found, scale)) if own else {}
        if min(len(found.carriers), len(found.others)) < FEW_CARRIERS:
            return cls(sign, found, ways, CarrierDifference(()))
        if shared and network is not None and change_of(sign["sign"]) == SHARED_CONTENT:
            ways |= KnownPixels.ways(found, scale, network)
        trial = cls(sign, found, ways, CarrierDifference.of(found.carriers[:COMPARED], found.others[:COMPARED], rng))
        if not shared or not trial.difference.described:
            return trial
        more = SharedContent.ways(found, scale, rng)
        covered = {how: trial.covered_share(way, scale) for how, way in more.items()}
        most = sorted(more, key=covered.__getitem__, reverse=True)[:MOST_SHARED]
        best = max(covered.values(), default=0.0)
        return replace(trial, ways=ways | {how: more[how] for how in most if covered[how] > LESS_COVERED * best})

    def mark_others(self, way: Insertion, scale: PixelScale) -> Pixels:
        """Insert the artifact in COMPARED other images of the class, (k, H, W, C); always with the same draws."""
        put = way.put(scale.inputs(self.found.others[:COMPARED]), np.random.default_rng(0))[0]
        return np.stack([scale.levels(image) for image in put])

    def covered_share(self, way: Insertion, scale: PixelScale) -> float:
        """Compute the share of the carriers' difference that a way inserts; NaN without a significant difference."""
        return self.difference.covered_share(self.mark_others(way, scale))

    def change(self, how: str) -> str:
        """Return the kind of a way."""
        return SHARED_CONTENT if isinstance(self.ways[how], SharedContent) else change_of(self.sign["sign"])


@dataclass(frozen=True)
class InterventionUnits:
    """Work units that insert the artifact of every class into images of others; a unit is one class.

    Detection and way of insertion are chosen on some images, and the effect is measured on others; see
    interventions.early_stopping.

    Attributes:
        signs: for each class, by number, the rows of the table `signs` that are tried.
        left_out: rows of the run that count neither as carriers nor as other images of the class.
    """

    detection_units: DetectionUnits
    signs: tuple[tuple[SignRow, ...], ...]
    left_out: tuple[int, ...] = ()

    step = "effects"

    def __call__(self, unit: range) -> Written:
        store, written = self.detection_units.store, Written()
        for number in unit:
            written |= store.write_part("effects", number, pa.Table.from_pylist(self.effects(number), EFFECTS))
        return written

    def list_reads(self, unit: Sequence[int]) -> Iterator[Read]:
        """List what a unit reads of the run: what all units read, and logits of the pool and of its classes."""
        yield from self.detection_units.list_shared_reads()
        yield Read.of_rows("logits", self.detection_units.pool_rows)
        yield from self.detection_units.list_class_reads(unit, ("logits",))

    def effects(self, number: int) -> list[EffectRow]:
        """Return the chosen artifact as the only row of the table `effects`; none without a detection or other
        images."""
        work, signs = self.detection_units, self.signs[number]
        rng = generator(work.settings.seed, "trial", number)
        others = rng.permutation(np.flatnonzero(work.others(number)))[: CHOICE_IMAGES + EFFECT_BACKGROUNDS]
        if not signs or len(others) < 2:
            return []
        few = min(CHOICE_IMAGES, len(others) // 2)
        scale, target = work.input_images.pixel_scale, work.groups[number].target
        trials = self.make_trials(number, rng)
        ways = {(i, how): way for i, trial in enumerate(trials) for how, way in trial.ways.items()}
        if not ways:  # carriers are too few, or share nothing that can be put on
            return []
        first, then = (scale.inputs(work.pool.levels[some]) for some in (others[:few], others[few:]))
        with predictor(work) as predict:
            plain = work.logits(work.pool_rows[others], predict)
            best, how = choose_way(predict, first, plain[:few], target, ways, rng, work.scale)
            chosen, trial = ways[best, how], trials[best]
            effect, p_rivals = measure_in_looks(predict, chosen, then, plain[few:], target, rng, work.scale), 1.0
            count = output_strategy(work.outputs).other_windows
            if count and effect.leads:
                x = then[:RIVAL_IMAGES]
                own, rivals = put_beside_rivals(chosen, x, scale, rng, count)
                p_rivals = p_among_rivals(predict, x, own, rivals, target, count, work.scale)
            explained, remainder = self.compare_outputs(predict, trial, chosen, effect, target)
        covered, known = trial.covered_share(chosen, scale), self.recognise(trial, chosen)
        return [effect_row(target, trial, how, effect, p_rivals, covered, explained, *known, remainder)]

    def make_trials(self, number: int, rng: np.random.Generator) -> list[ArtifactTrial]:
        """Make the trials of a class; shared content is estimated once where detections have the same members."""
        work, trials = self.detection_units, list[ArtifactTrial]()
        seen: list[set[int]] = []
        for sign in self.signs[number]:
            examples, own_rows = self.make_examples(number, sign, rng)
            network, rows = own_or_shipped(work.embedding, examples.carriers.shape[-1]), set(sign["rows"])
            alike = any(len(rows & other) >= SAME_MEMBERS * len(rows | other) for other in seen)
            sharing = output_strategy(work.outputs).shares or change_of(sign["sign"]) == SHARED_CONTENT
            shared = sharing and not alike
            seen += [rows] * sharing
            trial = ArtifactTrial.of(sign, examples, work.input_images.pixel_scale, shared, rng, network=network)
            trials.append(replace(trial, rows=own_rows))
        return trials

    def make_examples(self, number: int, sign: SignRow, rng: np.random.Generator) -> tuple[ArtifactExamples, Rows]:
        """Read carriers, and images of the class without the artifact; where nearly all carry it, images of other
        classes. Return them with their rows of the run, carriers first."""
        work, rows = self.detection_units, np.array(sign["rows"], np.intp)
        without = np.setdiff1d(work.groups[number].rows, np.concatenate([rows, self.left_out]).astype(np.intp))
        if len(without) < MIN_IMAGES:
            without = work.other_rows(number)
        without = np.sort(rng.permutation(without)[:MAX_CONTROLS])
        some = np.sort(rng.permutation(len(rows))[:MAX_CONTROLS])
        used = np.concatenate([rows[some], without])
        levels = work.input_images(used)
        places = np.array(sign["places"]).reshape(-1, 2)
        members, extent = np.arange(len(some)), (sign["height"], sign["width"])
        return ArtifactExamples.of(
            Detection(sign["sign"], sign["score"], members, places[some] if len(places) else places, extent), levels
        ), used

    def compare_outputs(
        self, predict: Predict, trial: ArtifactTrial, way: Insertion, effect: ComparedEffect, target: int
    ) -> tuple[float, float]:
        """Compare the outputs of carriers, of other images of the class, and of these with the artifact inserted.
        Return the share of the carriers' evidence that it brings, see `share_of_evidence`; and, where the effect
        matters, how well outputs still tell carriers from these, see `remaining_separation`."""
        work, count = self.detection_units, len(trial.found.carriers)
        groups = trial.rows[:count][:COMPARED], trial.rows[count:][:COMPARED]
        own, other = (work.scale.scores(work.logits(group, predict)) for group in groups)
        has_effect = matters(LogitEffect(effect.rise, effect.turned))
        if not has_effect and np.isnan(share_of_evidence(own[:, target], other[:, target], other[:, target])):
            return float("nan"), float("nan")
        scale = work.input_images.pixel_scale
        marked = work.scale.scores(predict(scale.inputs(trial.mark_others(way, scale))))
        explained = share_of_evidence(*(scores[:, target] for scores in (own, other, marked)))
        return explained, remaining_separation(own, other, marked) if has_effect else float("nan")

    def recognise(self, trial: ArtifactTrial, way: Insertion) -> tuple[float, float]:
        """Compute the share of other images of the class that the embedding takes for carriers once the artifact is put
        on them, NaN where it does not part carriers, and how well it tells these from others, see `recognition`; both
        NaN where there is no embedding, or few images."""
        own, other = (group[:COMPARED] for group in (trial.found.carriers, trial.found.others))
        network = own_or_shipped(self.detection_units.embedding, own.shape[-1])
        if network is None or min(len(own), len(other)) < FEW_CARRIERS:
            return float("nan"), float("nan")
        marked = trial.mark_others(way, self.detection_units.input_images.pixel_scale)
        images = [shrink_to_embed(ImageStack(x)) for x in (own, other, marked)]
        share = recognised_share(*map(network.embed, images))
        shipped = own_or_shipped(None, own.shape[-1])  # one of the run learns that frequent carriers are clean
        if shipped is None or min(len(own), len(other)) < FEWEST_TOLD:
            return share, float("nan")
        return share, separation(*map(shipped.embed, images[:2]))


def put_beside_rivals(
    way: Insertion, images: Tensor, scale: PixelScale, rng: np.random.Generator, count: int
) -> tuple[Tensor, Iterator[Tensor]]:
    """Put an artifact on images (n, C, H, W), and yield them with `count` rivals: other pixels in the place of what is
    pasted, for these show natural content as well; else random artifacts of the same strength."""
    own = way.put(images, rng)[0]
    if isinstance(way, Patch | KnownPixels):
        return own, way.rivals(images, rng, count)
    return own, put_random_artifacts(images, strength_of(own, images, scale), scale, rng, count)


def most_images_inserted(outputs: int) -> int:
    """Bound the number of images that the artifacts of a class are put on, for a network of so many outputs."""
    rivals = output_strategy(outputs).other_windows
    windows = RIVAL_IMAGES * (2 + rivals) if rivals else 0
    ways = MOST_OWN + TRIED * (MOST_SHARED + len(KNOWN_SHARES))
    return most_images_compared(ways) + 2 * EFFECT_BACKGROUNDS + windows + COMPARED


def share_of_evidence(own: Floats, other: Floats, marked: Floats) -> float:
    """Compute (mean of marked - mean of other) / (mean of own - mean of other), scores of images (n,), in [0, 1]; NaN
    where the denominator is less than FLOOR, or than SURE_RISE standard errors."""
    error = np.hypot(*(group.std() / np.sqrt(len(group)) for group in (own, other)))
    excess, half = float(own.mean() - other.mean()), SURE_RISE * float(error)
    if not is_raised(LogitEffect(Interval(excess, excess - half, excess + half, len(own))), FLOOR):
        return float("nan")
    return float(np.clip((marked.mean() - other.mean()) / excess, 0, 1))


def effect_row(
    target: int, trial: ArtifactTrial, how: str, effect: ComparedEffect, p_rivals: float, covered: float,
    explained: float, recognition: float, apart: float, remainder: float,
) -> EffectRow:  # fmt: skip
    """Make a row of the table `effects` from the effect of a detection's artifact."""
    return {
        "target": target, "sign": trial.sign["sign"], "how": how, "rank": effect.rank, "images": effect.rise.n,
        "shift": effect.rise.value, "low": effect.rise.low, "high": effect.rise.high, "z": effect.z,
        "flips": effect.flips, "flips_control": effect.flips_control, "flips_low": effect.turned.low,
        "p_tiles": p_rivals, "change": trial.change(how), "covered": covered, "explained": explained,
        "recognition": recognition, "remainder": remainder, "separation": apart,
    }  # fmt: skip
