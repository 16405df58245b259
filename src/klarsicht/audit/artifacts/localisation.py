"""Members of a class beside its other images: where does the artifact lie, or what is it like, if it lies nowhere?

A place that is seen counts only if it does what the artifact does: put on images without it, it must raise the class by
at least half of what members are above them. What has no place shows in what is measured of whole images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from klarsicht.audit.artifacts import masks
from klarsicht.audit.artifacts.audited_class import AuditedClass
from klarsicht.audit.corrections import samples
from klarsicht.audit.corrections.activations import logits
from klarsicht.audit.corrections.outcomes import centred
from klarsicht.audit.corrections.samples import Images
from klarsicht.audit.interventions import overlay
from klarsicht.audit.interventions.corruptions import KINDS, Corruption
from klarsicht.audit.interventions.overlay import Insertion, Overlay
from klarsicht.audit.models.inputs import PixelScale
from klarsicht.ground.arrays import Bools, Ints
from klarsicht.ground.errors import ModelError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import mean

TRIED: Final = 64  # images on which a place is tried
CARRIED: Final = 0.5  # of the members' rise, which it must bring
TELLS: Final = 0.9  # area under the curve by which a measure must tell members from the others


@dataclass(frozen=True)
class Localisation:
    """Members and others of a group side by side, all of one size.

    Attributes:
        rows: int (n,), of the corpus.
        images: n, as the model takes them.
        member: bool (n,), some and not all.
        elsewhere: rows of images of other classes; empty where the group is the whole corpus.
    """

    audited: AuditedClass
    rows: Ints
    images: Images
    member: Bools
    elsewhere: Ints

    @classmethod
    def of(cls, audited: AuditedClass, inside: Ints, outside: Ints, elsewhere: Ints) -> Localisation | None:
        """None where images differ in size, or where either side is empty."""
        both = np.concatenate([inside, outside])
        images, kept, _ = samples.read(audited.corpus, audited.classifier, both)
        rows = both[kept]
        member = np.isin(rows, inside)
        alike = len({tuple(image.shape) for image in images}) == 1
        some = alike and 0 < member.sum() < len(member)
        apart = elsewhere[:: max(1, len(elsewhere) // TRIED)][:TRIED]  # of all classes: rows are sorted by them
        return cls(audited, rows, images, member, apart) if some else None

    def putting(self, region: Bools | None = None, change: str = "") -> tuple[Overlay | None, Corruption | None]:
        """What puts the artifact on images, at most one of the two. A place that varies comes last: its pixels are
        those of members, and bring along what members show of the class.

        Args:
            region: where a person marks it.
            change: how a detector found it, a name of changes.CHANGES.
        """
        place = None if change in KINDS else self.place(region)
        if place is not None and (place.fixed or region is not None):
            return place, None
        imitation = self.imitation((change,) if change in KINDS else ())
        return (place, None) if imitation is None else (None, imitation)

    def place(self, region: Bools | None) -> Overlay | None:
        """Where members differ from the others; None where nothing can be seen, and where what is seen does not do what
        the artifact does."""
        a, member = self.audited, self.member
        x = torch.stack(list(self.images)).numpy()
        maps = masks.relevance(a.store, a.classifier, a.group.target, self.rows, self.images)
        found = overlay.estimated(x[member], x[~member], maps[member], maps[~member], region)
        return found if found is None or region is not None or self.share(found) >= CARRIED else None

    def imitation(self, said: tuple[str, ...] = ()) -> Corruption | None:
        """Noise, blur, light or JPEG as members show it: of the kind that a detector said, else of the one that tells
        members from the others best; None where none tells nearly all of them, or where that one does not raise the
        class elsewhere: then members have more of what is their class."""
        try:
            glass = PixelScale.of(self.audited.classifier)
        except ModelError:  # grey levels are bent: nothing can be put on images
            return None
        levels = np.stack([glass.levels(image) for image in self.images])
        carriers, others = levels[self.member], levels[~self.member]
        telling = {kind: KINDS[kind].apart(carriers, others) for kind in said or KINDS}
        best = max(telling, key=lambda kind: telling[kind])
        if not said and telling[best] < TELLS:
            return None
        found = Corruption.of(best, carriers, others, glass)
        return found if found is None or said or self.raises(found) else None

    def raises(self, putting: Insertion) -> bool:
        """Whether the class rises for sure, by the 95 % interval, where it is put on images of other classes."""
        a, rng = self.audited, generator(0, "raises", self.audited.group.target)
        images = samples.read(a.corpus, a.classifier, self.elsewhere)[0]
        if not images:
            images = [self.images[int(i)] for i in np.flatnonzero(~self.member)[:TRIED]]
        fit = [image for image in images if putting.fits(image)]
        if not fit:
            return False
        pasted, plain = (logits(a.classifier, some) for some in ([putting.paste(i, rng) for i in fit], fit))
        return mean(centred(pasted, a.group.target) - centred(plain, a.group.target)).low > 0

    def share(self, putting: Insertion) -> float:
        """Of what members are above the others, what the artifact brings that is put on the others: relevance that
        misses it finds some other place, and members differ in more than it."""
        a, rng = self.audited, generator(0, "carried", self.audited.group.target)
        target, rows = a.group.target, self.rows.astype(np.intp)
        level = centred(np.asarray(a.store.array("logits").oindex[rows], np.float32), target)
        without = np.flatnonzero(~self.member)[:TRIED]
        pasted = logits(a.classifier, [putting.paste(self.images[int(i)], rng) for i in without])
        rise = float(level[self.member].mean() - level[~self.member].mean())
        brought = float((centred(pasted, target) - level[without]).mean())
        return brought / rise if rise > 0 else float(brought >= CARRIED * rise)
