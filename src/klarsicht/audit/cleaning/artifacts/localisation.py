"""Localise an artifact by comparing members of a class with its other images, or estimate a corruption of whole images.
A place is accepted only if the artifact, inserted into other images there, raises the class by at least half of the
difference between members and others, and under a person's mask by at least half of what is found without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import torch

from klarsicht.audit.cleaning.artifacts import masks
from klarsicht.audit.cleaning.artifacts.found_artifact import AuditedClass, FoundArtifact
from klarsicht.audit.cleaning.corrections import samples
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.samples import Images
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.logit_effect import LogitEffect, is_raised
from klarsicht.audit.results.significance import PLACED
from klarsicht.audit.results.words import KNOWN_SHARES
from klarsicht.audit.verdicts.detectors.artifact_embedding import own_or_shipped
from klarsicht.audit.verdicts.detectors.detection import Detection
from klarsicht.audit.verdicts.detectors.shared_colours import find_shared_colours
from klarsicht.audit.verdicts.detectors.shared_windows import find_shared_windows
from klarsicht.audit.verdicts.interventions import overlay
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples, grow_window
from klarsicht.audit.verdicts.interventions.corruption import KINDS, Corruption
from klarsicht.audit.verdicts.interventions.estimated_insertion import EstimatedInsertion, Imitation
from klarsicht.audit.verdicts.interventions.experiment import Experiment, logit_excess
from klarsicht.audit.verdicts.interventions.frame_changes import FrameChange, excess_left, fit_frame_change
from klarsicht.audit.verdicts.interventions.insertion import Insertion, put_on
from klarsicht.audit.verdicts.interventions.known_pixels import KnownPixels
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.audit.verdicts.quantification.units import read_embedding
from klarsicht.ground.arrays import Bools, Floats, Ints, Pixels
from klarsicht.ground.errors import InputError, ModelError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, mean_interval

PASTE_IMAGES: Final = 64  # images into which an overlay is pasted
RISE_SHARE: Final = 0.5  # share of the members' rise, or of another insertion's, that an overlay must cause
BLEND_SHARE: Final = 0.8  # share of the rise by members' own pixels that one blend of all members must cause
MATERIAL_RISE: Final = 0.1  # logits by which a shared window or region must raise the class: a tenth of its odds
FEWEST_LENT: Final = 2  # members of a part that lend their pixels, from which on these are a draw of their own
FEWEST_REDRAWN: Final = 8  # members of a part, from which on a way of `audit quantify` is estimated from them alone
Draws = Overlay | EstimatedInsertion
KIND_AUC: Final = 0.9  # area under the curve by which a measure must separate members from others


@dataclass(frozen=True)
class Localisation:
    """Members, bool (n,), and other images of a group, all of one size; rows are of the corpus, `elsewhere` those of
    images of other classes."""

    artifact: FoundArtifact
    rows: Ints
    images: Images
    member: Bools
    elsewhere: Ints

    @classmethod
    def of(cls, artifact: FoundArtifact, inside: Ints, outside: Ints, elsewhere: Ints) -> Localisation | None:
        """Read the images; None where they differ in size, or where either side is empty."""
        both = np.concatenate([inside, outside])
        images, kept, _ = samples.read_images(artifact.audited.corpus, artifact.audited.classifier, both)
        rows = both[kept]
        member = np.isin(rows, inside)
        alike = len({tuple(image.shape) for image in images}) == 1
        some = alike and 0 < member.sum() < len(member)
        # at equal steps, so that all classes are represented: rows are sorted by class
        spread_out = elsewhere[:: max(1, len(elsewhere) // PASTE_IMAGES)][:PASTE_IMAGES]
        return cls(artifact, rows, images, member, spread_out) if some else None

    @property
    def audited(self) -> AuditedClass:
        return self.artifact.audited

    @cached_property
    def image_array(self) -> Floats:
        """Images as one array (n, C, H, W)."""
        return torch.stack(list(self.images)).numpy()

    @cached_property
    def maps(self) -> Floats:
        """Relevance (n, G, G) for the class."""
        a = self.audited
        return masks.relevance_maps(a.store, a.classifier, a.group.target, self.rows, self.images)

    def find_insertion(self, region: Bools | None = None) -> tuple[Overlay | None, Imitation | None]:
        """Find the overlay and the imitation of the artifact; of both, the imitation is what is put on images. It is
        the overlay in the region that a person marks, unless that covers most of the image, or what `locate` finds; and
        the way of `audit quantify` where what is located is shown to raise the class by less than BLEND_SHARE of that.
        Raises InputError: the region misses most of the artifact, see check_region."""
        if region is not None and (drawn := self.overlay_in_region(region)) is not None:
            self.check_region(drawn)
            return drawn, None
        overlaid, imitation = self.locate()
        way, other = self.measured_way or self.overlay_from_embedding(), imitation or overlaid
        if way is None or not (self.raises_class(way) if other is None else self.is_weaker(other, way, BLEND_SHARE)):
            return overlaid, imitation
        return (way, None) if isinstance(way, Overlay) else (overlaid, way)

    def draws_of(self, insertion: Draws, rows: Ints, least: int = FEWEST_LENT) -> Draws | None:
        """Return an insertion that varies from member to member as the members of some rows have it: the examples that
        they lend, at least so many, or the way of `audit quantify` estimated from them alone. None of too few."""
        lenders = self.member & np.isin(self.rows, rows)
        if isinstance(insertion, Overlay):
            pictures = {image.tobytes() for image in self.image_array[lenders]}
            numbers = [i for i, picture in enumerate(insertion.colour) if picture.tobytes() in pictures]
            return insertion.select(numbers) if len(numbers) >= least else None
        if lenders.sum() < FEWEST_REDRAWN:
            return None
        at = np.flatnonzero(lenders | ~self.member)
        some = replace(self, rows=self.rows[at], images=[self.images[int(i)] for i in at], member=self.member[at])
        return some.measured_way

    @cached_property
    def measured_way(self) -> EstimatedInsertion | None:
        """The way by which `audit quantify` measured the artifact, estimated from the members; None without one, and
        of pixels that the embedding knows, which are an overlay."""
        use, scale = self.artifact.measured_use, self.pixel_scale
        if use is None or not use.change or scale is None or use.how in KNOWN_SHARES:
            return None
        no_places = ArtifactExamples(self.levels[self.member], self.levels[~self.member], np.zeros((0, 2), int), (0, 0))
        examples = self.window_examples() or no_places
        if use.change == PLACED and not len(examples.places):
            return None
        return EstimatedInsertion.of(use.how, use.change, examples, scale)

    def overlay_from_embedding(self) -> Overlay | None:
        """Estimate the overlay to which members contribute the pixels by which the embedding knows them, where `audit
        quantify` measured by these; None where it did not, or the embedding does not know these members."""
        use, scale, own = self.artifact.measured_use, self.pixel_scale, self.levels
        if use is None or use.how not in KNOWN_SHARES or scale is None:
            return None
        network = own_or_shipped(read_embedding(self.audited.store), own.shape[-1])
        examples = ArtifactExamples(own[self.member], own[~self.member], np.zeros((0, 2), int), (0, 0))
        way = None if network is None else KnownPixels.ways(examples, scale, network).get(use.how)
        if way is None:
            return None
        givers = self.image_array[self.member][: len(way.masks)]
        return overlay.overlay_of_masks(givers, way.masks, self.maps[~self.member])

    def locate(self) -> tuple[Overlay | None, Imitation | None]:
        """Locate the artifact and estimate its overlay, or imitate it, one of the two.

        In this order: the windows of the detector, a fixed place by relevance or the window that members share, a
        change of the whole image, regions of colours that members share, a varying place by relevance. Of a fixed place
        and a shared window the one is taken that raises the class more on images of other classes; a window only if it
        raises it materially. A map of colours or a fixed pattern goes before them where its interval lies above theirs.
        """
        change = self.artifact.change
        if change not in KINDS and (seen := self.overlay_from_windows()) is not None:
            return seen, None
        place = None if change in KINDS else self.overlay_from_relevance()
        kinds = (change,) if change in KINDS else ()
        overlaid = place if place is not None and place.fixed else None
        window = None if kinds else self.overlay_from_shared_windows()
        if window is not None:
            effect = self.effect_elsewhere(window)
            if is_raised(effect, MATERIAL_RISE) and (
                overlaid is None or effect.rise.value > self.effect_elsewhere(overlaid).rise.value
            ):
                overlaid = window
        imitation = self.estimate_imitation(kinds)
        if overlaid is not None:
            more = isinstance(imitation, FrameChange) and self.raises_more(imitation, overlaid)
            return (None, imitation) if more else (overlaid, None)
        if imitation is not None:
            return None, imitation
        return (None if kinds else self.overlay_from_shared_colours()) or place, None

    def overlay_from_windows(self) -> Overlay | None:
        """Estimate the overlay from the detector's windows; None without windows, and where it lacks the effect of the
        artifact."""
        seen = self.overlay_at_windows()
        return seen if seen is not None and self.share_of_rise(seen) >= RISE_SHARE else None

    def overlay_at_windows(self) -> Overlay | None:
        """Estimate the overlay from the detector's windows, grown to the whole artifact; None without windows."""
        windows = self.window_examples()
        if windows is None:
            return None
        whole = grow_window(windows)
        return self.overlay_at(np.flatnonzero(self.member), whole.places, whole.extent)

    def overlay_at(self, rows: Ints, places: Ints, extent: tuple[int, int]) -> Overlay:
        """Estimate the overlay from windows of members at rows (m,) and upper left pixels (m, 2)."""
        x, other = self.image_array, ~self.member
        return overlay.overlay_at_windows(x[rows], x[other], places, extent, self.maps[other])

    @cached_property
    def pixel_scale(self) -> PixelScale | None:
        """Levels of files that model inputs stand for; None where the model's transform is not affine: then nothing can
        be put on images by levels."""
        try:
            return PixelScale.of(self.audited.classifier)
        except ModelError:
            return None

    @cached_property
    def levels(self) -> Pixels:
        """Images of the class in levels of files, (n, H, W, C); empty without a pixel scale."""
        scale = self.pixel_scale
        return np.empty((0, 0, 0, 0), np.uint8) if scale is None else np.stack([scale.levels(i) for i in self.images])

    @cached_property
    def levels_elsewhere(self) -> Pixels:
        """Images of other classes and of the same size, likewise (m, H, W, C)."""
        scale, size = self.pixel_scale, self.levels.shape[1:3]
        alike = (image for image in self.images_elsewhere if tuple(image.shape[1:]) == size)
        return np.stack(some) if scale and (some := [scale.levels(image) for image in alike]) else self.levels[:0]

    def overlay_from_shared_windows(self) -> Overlay | None:
        """Estimate the overlay from the window that members share at varying places; None where they share none. The
        effect on images of the class itself is not asked for: their evidence may be full already."""
        if self.pixel_scale is None:
            return None
        own = self.levels
        found = find_shared_windows(own[self.member], own[~self.member], self.levels_elsewhere)
        if found is None:
            return None
        return self.overlay_at(np.flatnonzero(self.member)[found.rows], found.places, found.extent)

    def overlay_from_shared_colours(self) -> Overlay | None:
        """Estimate the overlay from the regions of colours that members share, at any place and size; None where they
        share none, or these do not raise the class materially on images of other classes."""
        if self.pixel_scale is None:
            return None
        own, rng = self.levels, generator(0, "colours", self.audited.group.target)
        regions = find_shared_colours(own[self.member], own[~self.member], self.levels_elsewhere, rng)
        if regions is None:
            return None
        rows = np.flatnonzero(self.member)[regions.rows]
        pasted = overlay.overlay_of_masks(self.image_array[rows], regions.masks, self.maps[~self.member])
        return pasted if is_raised(self.effect_elsewhere(pasted), MATERIAL_RISE) else None

    def window_examples(self) -> ArtifactExamples | None:
        """Cut out the members' windows in 8-bit values; None without windows."""
        if not self.artifact.has_places or self.pixel_scale is None:
            return None
        number = {int(row): i for i, row in enumerate(self.artifact.members)}
        places = self.artifact.places[[number[int(row)] for row in self.rows[self.member]]]
        detection = Detection(self.artifact.origin, 0.0, np.flatnonzero(self.member), places, self.artifact.extent)
        return ArtifactExamples.of(detection, self.levels)

    def overlay_from_relevance(self) -> Overlay | None:
        """Estimate the overlay where members' relevance differs from that of the others; None where no place is found,
        and where the overlay lacks the effect of the artifact."""
        found = self.estimate_overlay()
        return found if found is None or self.share_of_rise(found) >= RISE_SHARE else None

    def overlay_in_region(self, region: Bools) -> Overlay | None:
        """Estimate the overlay in a region (H, W): one blend of all members, or the pixels of each where the blend is
        weaker, as that of a mark that moves by a pixel. None where the region covers most of the image."""
        blend = self.estimate_overlay(region)
        if blend is None or not blend.fixed:
            return blend
        own = overlay.overlay_in_region(self.image_array[self.member], region)
        return own if self.is_weaker(blend, own, BLEND_SHARE) else blend

    def estimate_overlay(self, region: Bools | None = None) -> Overlay | None:
        """Estimate the overlay from images and relevance, see overlay.estimate_overlay."""
        x, maps, member = self.image_array, self.maps, self.member
        return overlay.estimate_overlay(x[member], x[~member], maps[member], maps[~member], region)

    def check_region(self, place: Overlay) -> None:
        """Check that the overlay in a region has at least RISE_SHARE of the effect of the insertion that is found
        without the region. Raises InputError: it has less; a correction of it would be called clean too early."""
        overlaid, imitation = self.find_insertion()
        other = imitation or overlaid
        if other is not None and self.is_weaker(place, other, RISE_SHARE):
            images = self.select_images(place, other)
            less, more = (float(self.rises_beyond_class(one, images).mean()) for one in (place, other))
            raise InputError(
                "the mask misses most of the artifact",
                got=f"{less:z.2f} logits by the pixels under the mask, {more:.2f} without the mask",
                rule="what lies under the mask raises the class at least half as much",
                remedy="Leave out --mask, or draw a wider one: all places at which the artifact lies.",
            )  # fmt: skip

    def estimate_imitation(self, origin: tuple[str, ...] = ()) -> Imitation | None:
        """Estimate the change of the whole image that members show: a corruption (of the kind that a detector gave, if
        any), a map of colours or a fixed pattern. Of two, the one counts after which other images are more like
        members."""
        corruption = self.estimate_corruption(origin)
        frame = None if origin else self.estimate_frame_change()
        if corruption is None or frame is None:
            return corruption or frame
        carriers, others = self.levels[self.member], self.levels[~self.member]
        left = (excess_left(frame.kind, one.alter, carriers, others) for one in (frame, corruption))
        return frame if next(left) < next(left) else corruption

    def estimate_frame_change(self) -> FrameChange | None:
        """Estimate a map of colours or a fixed pattern as members show it; None where other members do not show it, or
        where it does not raise the class elsewhere."""
        if self.pixel_scale is None:
            return None
        rng = generator(0, "frame", self.audited.group.target)
        found = fit_frame_change(self.levels[self.member], self.levels[~self.member], self.pixel_scale, rng)
        return found if found is not None and self.raises_class(found) else None

    def estimate_corruption(self, origin: tuple[str, ...] = ()) -> Corruption | None:
        """Estimate noise, blur, brightness or JPEG corruption as members show it, of the kind that a detector gave, or
        else that separates members from the others best. None where none separates nearly all of them, or where this
        one does not raise the class elsewhere: then the measure belongs to the class itself."""
        if self.pixel_scale is None:
            return None
        carriers, others = self.levels[self.member], self.levels[~self.member]
        telling = {kind: KINDS[kind].separation(carriers, others) for kind in origin or KINDS}
        best = max(telling, key=lambda kind: telling[kind])
        if not origin and telling[best] < KIND_AUC:
            return None
        found = Corruption.of(best, carriers, others, self.pixel_scale)
        return found if found.size and (origin or self.raises_class(found)) else None

    def raises_class(self, insertion: Insertion) -> bool:
        """Test whether the insertion raises the class on images of other classes, by the 95 % interval."""
        return is_raised(self.effect_elsewhere(insertion))

    def raises_more(self, one: Insertion, other: Insertion) -> bool:
        """Test whether an insertion raises the class more than another one on images of other classes: their 95 %
        intervals do not meet."""
        return self.effect_elsewhere(one).rise.low > self.effect_elsewhere(other).rise.high

    def is_weaker(self, one: Insertion, other: Insertion, share: float) -> bool:
        """Test whether an insertion is shown to raise the class by less than this share of what another one does, which
        raises it materially: by the 95 % interval of the difference on the same images of other classes."""
        images = self.select_images(one, other)
        if not images:
            return False
        less, more = (self.rises_beyond_class(insertion, images) for insertion in (one, other))
        material = is_raised(LogitEffect(mean_interval(more)), MATERIAL_RISE)
        return material and is_raised(LogitEffect(mean_interval(share * more - less)))

    def select_images(self, *insertions: Insertion) -> Images:
        """Select images of other classes, or else of the group without the artifact, that fit all insertions."""
        images = self.images_elsewhere or [self.images[int(i)] for i in np.flatnonzero(~self.member)[:PASTE_IMAGES]]
        return [image for image in images if all(insertion.fits(image) for insertion in insertions)]

    def rises_beyond_class(self, insertion: Insertion, images: Images) -> Floats:
        """Compute the rise of the class on each image (n,) above the control of the insertion, which is what the class
        alone brings. Where members lend their own pixels, it is the pixels of its other images under the same masks."""
        target = self.audited.group.target
        rng, same = (generator(0, "beyond the class", target) for _ in range(2))
        with_artifact, without = zip(*(insertion.put(image[None], rng) for image in images), strict=True)
        if isinstance(insertion, Overlay) and not insertion.fixed:
            lent = replace(insertion, colour=np.resize(self.image_array[~self.member], insertion.colour.shape))
            without = tuple(lent.put(image[None], same)[0] for image in images)
        pasted, plain = (
            compute_logits(self.audited.classifier, [x[0] for x in some]) for some in (with_artifact, without)
        )
        return Experiment(pasted, plain, target).rises()

    def effect_elsewhere(self, insertion: Insertion) -> LogitEffect:
        """Measure the effect of the insertion on images of other classes; where there are none, on images of the group
        without the artifact."""
        a, rng = self.audited, generator(0, "raises", self.audited.group.target)
        fit = self.select_images(insertion)
        if not fit:
            return LogitEffect(NO_INTERVAL)
        pasted, plain = (compute_logits(a.classifier, some) for some in ([put_on(i, insertion, rng) for i in fit], fit))
        return LogitEffect(mean_interval(Experiment(pasted, plain, a.group.target).rises()))

    @cached_property
    def images_elsewhere(self) -> Images:
        """Images of other classes."""
        return samples.read_images(self.audited.corpus, self.audited.classifier, self.elsewhere)[0]

    def share_of_rise(self, insertion: Insertion) -> float:
        """Compute the rise by the insertion on the others, as a share of the difference between members and others."""
        a, rng = self.audited, generator(0, "carried", self.audited.group.target)
        target, rows = a.group.target, self.rows.astype(np.intp)
        plain = np.asarray(a.store.array("logits")[rows], np.float32)
        without = np.flatnonzero(~self.member)[:PASTE_IMAGES]
        pasted = compute_logits(a.classifier, [put_on(self.images[int(i)], insertion, rng) for i in without])
        rise = float(logit_excess(plain[self.member], plain[~self.member], target).mean())
        brought = float(Experiment(pasted, plain[without], target).rises().mean())
        return brought / rise if rise > 0 else float(brought >= RISE_SHARE * rise)
