"""Build, save and load the record of an artifact: a feature that images of a class share and that is not part of it.

    FOLDER/artifact.json     class, origin, quality of the detector, counts
    FOLDER/artifact.npz      members, parts, probabilities, place
    FOLDER/images.parquet    for people: path, member, probability, part, one line an image

The detector is fitted only on members of the part `fit`; see audit.explanation.data.splits. The place is sought on all
members. What varies from one to another is put on as those of `fit` have it, and shown as others have it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.cleaning.artifacts.carrier_classifier import CarrierProbabilities, predict_carriers
from klarsicht.audit.cleaning.artifacts.found_artifact import AuditedClass, FoundArtifact, name_folder
from klarsicht.audit.cleaning.artifacts.listed_group import put_listed_group
from klarsicht.audit.cleaning.artifacts.localisation import Draws, Localisation
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.samples import Case, draw_rows
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.splits import TEST, TRAIN, VALIDATION
from klarsicht.audit.results.class_verdict import UseResult
from klarsicht.audit.verdicts.interventions import overlay
from klarsicht.audit.verdicts.interventions.class_parts import ClassParts
from klarsicht.audit.verdicts.interventions.corruption import Corruption
from klarsicht.audit.verdicts.interventions.estimated_insertion import EstimatedInsertion, Imitation, read_imitation
from klarsicht.audit.verdicts.interventions.insertion import Insertion
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.audit.verdicts.interventions.planted_artifact import PlantedArtifact
from klarsicht.ground.arrays import Bools, Ints
from klarsicht.ground.errors import ImageError, InputError
from klarsicht.ground.machine.disk import read_regular_file, write_atomically
from klarsicht.ground.seeding import generator, integer
from klarsicht.numerics.statistics.intervals import roc_area

DETECTOR_ARRAYS: Final = ("features", "concepts", "head")  # arrays of a run that a detector may use
MAX_OTHERS: Final = 2000  # images without the artifact that a detector is fitted on, at most
FEWEST_TO_SEEK: Final = 8  # members of the part `fit`, from which on the place is sought on these alone
PLACE_IMAGES: Final = 300  # images of each kind from which the place is estimated, at most
SIGMAS: Final = 3.0  # median deviations by which an image may be further from the artifact than members are
SHARED: Final = 0.7  # area under the curve below which members share no feature
DRAW_PREFIXES: Final = {"new_draws": "new_", "choice_draws": "choice_"}
"""Before the names of arrays, by the attribute of an Artifact that holds them."""
CARRIES: Final = 0.5  # probability from which an image counts as carrying


@dataclass(frozen=True)
class Artifact:
    """Artifact of one class of a run. members: int (n,), rows of the corpus. part: int8 (N,), see
    audit.explanation.data.splits. place: its overlay, or None: it has no place, or images differ in size. imitation:
    change of the whole image of an artifact without a place, or None. planted: a known artifact of `audit plant`, or
    parts that all images of the class carry: it has no members. number: of the artifact in its class, from 1.
    of_others: int (k,), rows of images that carry other artifacts of the class and not this one: they are not clean.
    measured_use: what `audit quantify` measured of its effect, or None. new_draws, choice_draws: of an artifact that
    varies from member to member, the imitation or overlay as members of the part `show`, or `choose`, have it, and not
    those of `fit`; None where these are few. group_use: what the places that set listed images apart do to the class,
    in words; empty where it was not asked."""

    name: str
    target: int
    origin: str
    members: Ints
    part: NDArray[np.int8]
    membership: CarrierProbabilities
    place: Overlay | None
    imitation: Imitation | None = None
    planted: PlantedArtifact | ClassParts | None = None
    number: int = 1
    of_others: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    measured_use: UseResult | None = None
    new_draws: Draws | None = None
    group_use: str = ""
    choice_draws: Draws | None = None

    @property
    def folder_name(self) -> str:
        """Name of the folder of its correction among those of several classes."""
        return name_folder(self.target, self.number)

    @property
    def insertion(self) -> Insertion | None:
        """Insertion that puts the artifact on other images, or None."""
        return self.planted or self.imitation or self.place

    @property
    def insertion_text(self) -> str:
        """The way in which the artifact is put on other images, in words."""
        if isinstance(self.planted, ClassParts):
            return "exchanged with images of other classes; the verdict is about this part alone"
        if self.planted is not None:
            return "inserted into images of other classes"
        if self.imitation is not None:
            return f"inserted into other images: {self.imitation}"
        if self.place is None:
            return "seen only on the images that carry it"
        return "inserted at its place" if self.place.fixed else "inserted as the images that carry it show it"

    @property
    def member(self) -> Bools:
        """Members: bool (N,)."""
        return np.isin(np.arange(len(self.part)), self.members)

    @property
    def carries(self) -> Bools:
        """Members, and images that the detector predicts to carry it: bool (N,)."""
        return self.member | (self.membership.probability >= CARRIES)

    def case(self, audited: AuditedClass) -> Case:
        """Make the case on which corrections of the class are fitted and evaluated."""
        a, clean = audited, ~self.carries
        clean[self.of_others] = False
        return Case(a.corpus, a.classifier, self.target, a.labels, self.part, self.member, clean, self.planted)

    def to_json(self) -> dict[str, Any]:
        """Return the content of artifact.json."""
        place = "none" if self.place is None else "fixed" if self.place.fixed else "varies"
        pixels = None if self.place is None else float(self.place.masks.mean())
        detector = {k: v for k, v in asdict(self.membership).items() if k != "probability"}
        counts = {name: int((self.part[self.members] == i).sum()) for i, name in enumerate(splits.NAMES)}
        facts = {"class": self.name, "target": self.target, "origin": self.origin, "members": len(self.members)}
        return facts | {
            "members by part": counts, "carry it": int(self.carries.sum()),
            "detector": detector, "place": place, "share of pixels": pixels, "how": self.insertion_text,
            "imitation": None if self.imitation is None else self.imitation.to_json(),
            "planted": None if self.planted is None else self.planted.to_json(), "artifact": self.number,
            "measured use": None if self.measured_use is None else asdict(self.measured_use),
            "new draws": None if self.new_draws is None else self.new_draws.to_json(),
            "choice draws": None if self.choice_draws is None else self.choice_draws.to_json(),
            "use of the group": self.group_use,
        }  # fmt: skip

    def save(self, folder: Path, corpus: Corpus) -> None:
        """Write the three files atomically, the record last."""
        import pyarrow as pa
        from pyarrow import parquet

        m = self.membership
        arrays = {"members": self.members, "part": self.part, "probability": m.probability}
        if self.place is not None:
            arrays |= self.place.arrays()
        if isinstance(self.planted, ClassParts):
            arrays |= self.planted.arrays()
        if self.imitation is not None and not isinstance(self.imitation, Corruption):
            arrays |= self.imitation.arrays()
        for name, before in DRAW_PREFIXES.items():
            if (drawn := getattr(self, name)) is not None:
                arrays |= {f"{before}{key}": value for key, value in drawn.arrays().items()}
        if len(self.of_others):
            arrays["of_others"] = self.of_others
        content, lines = BytesIO(), BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        parts = [splits.NAMES[part] for part in self.part]
        columns = {"path": list(corpus.paths), "member": self.member, "probability": m.probability, "part": parts}
        parquet.write_table(pa.table(columns), lines)
        write_atomically(folder / "artifact.npz", content.getvalue())
        write_atomically(folder / "images.parquet", lines.getvalue())
        write_atomically(folder / "artifact.json", json.dumps(self.to_json(), indent=1).encode())


def load_artifact(folder: Path) -> Artifact:
    """Load a saved artifact. Raises InputError if the folder holds none, or a damaged one."""
    try:
        packages.check_artifact_files(folder)
        facts = json.loads(read_regular_file(folder / "artifact.json"))
        with np.load(folder / "artifact.npz") as file:
            kept = dict(file)
        place = Overlay.from_arrays(kept) if "opacity" in kept else None
        found = CarrierProbabilities(kept["probability"], **facts["detector"])
        imitation = read_imitation(facts["imitation"], kept) if facts["imitation"] else None
        drawn = facts["planted"]
        planted: PlantedArtifact | ClassParts | None = None
        if drawn:
            planted = ClassParts.from_json(drawn, kept) if "parts" in drawn else PlantedArtifact.from_json(drawn)
        who = facts["class"], facts["target"], facts["origin"]
        number, others = facts["artifact"], kept.get("of_others", np.empty(0, np.intp))
        use = UseResult(**measured) if (measured := facts.get("measured use")) else None
        artifact = Artifact(*who, kept["members"], kept["part"], found, place, imitation, planted, number, others, use)
        new, chosen_on = (read_draws(facts, kept, name) for name in DRAW_PREFIXES)
        use_of_group = facts.get("use of the group", "")
        return replace(artifact, group_use=use_of_group, new_draws=new, choice_draws=chosen_on)
    except InputError:
        raise
    except Exception as error:  # zipfile and numpy raise nearly anything on damaged files
        raise InputError("no artifact in this folder", got=f"{folder}: {type(error).__name__}: {error}") from error


def read_draws(facts: dict[str, Any], arrays: dict[str, NDArray[Any]], name: str) -> Draws | None:
    """Read draws of an attribute from the record and the arrays of an artifact; None without any."""
    record = facts.get(name.replace("_", " "))
    if not record:
        return None
    own = {
        key.removeprefix(DRAW_PREFIXES[name]): value
        for key, value in arrays.items()
        if key.startswith(DRAW_PREFIXES[name])
    }
    return EstimatedInsertion.from_json(record, own) if "how" in record else Overlay.from_arrays(own)


def build_artifact(
    found: FoundArtifact, *, seed: int = 0, region: Bools | None = None, part: NDArray[np.int8] | None = None
) -> Artifact:
    """Build the artifact that the found members share: its parts, detector and place. found: members are rows of the
    audited group. region: a mask (H, W) in the geometry of the model input, drawn by a person; otherwise the place
    follows from the detector's windows, or from relevance. part: int8 (N,), part of each image of the corpus; by
    default the sources are dealt into parts here. Raises UsageError: members of fewer than three sources; InputError:
    the members share no feature, see check_shared."""
    audited, members = found.audited, found.members
    group, corpus = audited.group, audited.corpus
    sources, member = corpus.source_numbers, np.isin(np.arange(len(corpus)), members)
    if part is None:
        part = splits.split_by_source(sources, member, generator(seed, "parts", group.target))
    fit = part == TRAIN
    inside, outside = (group.rows[(member[group.rows] == is_in) & fit[group.rows]] for is_in in (True, False))
    others = np.flatnonzero(fit & ~member & ~np.isin(np.arange(len(corpus)), group.rows))
    rng = generator(seed, "artifact", group.target)
    known = np.concatenate([inside, draw_rows(outside, MAX_OTHERS, rng), draw_rows(others, MAX_OTHERS, rng)])
    arrays = {name: audited.store.array(name) for name in DETECTOR_ARRAYS if audited.store.has_array(name)}
    carriers = predict_carriers(
        arrays, known, member[known], sources[known], len(corpus), integer(seed, "detector", group.target)
    )
    check_shared(carriers.probability, inside, outside)
    sides = [draw_rows(rows, PLACE_IMAGES, rng) for rows in (inside, outside, others)]
    localisation = Localisation.of(found, *sides)
    place, imitation = (None, None) if localisation is None else localisation.find_insertion(region)
    everywhere, few = group.rows[member[group.rows]], len(inside) < FEWEST_TO_SEEK
    if few and localisation is not None and imitation is None and (place is None or not place.fixed):
        localisation = Localisation.of(found, draw_rows(everywhere, PLACE_IMAGES, rng), *sides[1:])
        place, imitation = (None, None) if localisation is None else localisation.find_insertion(region)
    group_use = ""
    if localisation is not None and found.is_listed and place is None and imitation is None:
        place, group_use = put_listed_group(localisation, generator(seed, "listed group", group.target))
    if place is not None and place.opaque.any():
        carriers = carriers.with_certain(find_showing_rows(audited, place, draw_rows(inside, PLACE_IMAGES, rng)))
    varies = place if imitation is None else imitation
    choice_draws = new_draws = None
    if isinstance(varies, Draws) and not (isinstance(varies, Overlay) and varies.fixed):
        if not few:
            localisation = Localisation.of(found, draw_rows(everywhere, PLACE_IMAGES, rng), sides[1], others[:0])
        own, choice_draws, new_draws = draws_by_part(localisation, varies, part, few)
        place, imitation = (own, None) if isinstance(own, Overlay) else (place, own or imitation)
    return Artifact(
        found.name, group.target, found.origin, np.sort(members), part, carriers, place, imitation,
        number=found.number, of_others=np.array(found.of_others, np.intp), measured_use=found.measured_use,
        new_draws=new_draws, group_use=group_use, choice_draws=choice_draws,
    )  # fmt: skip


def draws_by_part(
    localisation: Localisation | None, insertion: Draws, part: NDArray[np.int8], few: bool
) -> tuple[Draws | None, Draws | None, Draws | None]:
    """Return an insertion that varies from member to member as those of the parts `fit`, `choose` and `show` have it;
    None of a part with too few members. Of few members it is the one that was found on all of them, and none is
    returned where `fit` has too few. Else it was found on those of `fit`, of which none is returned, and of the others
    it is the detector's windows or the same way of `audit quantify`."""
    if localisation is None:
        return None, None, None
    by_windows = isinstance(insertion, Overlay) and not few
    way = localisation.overlay_at_windows() if by_windows else insertion
    if way is None:
        return None, None, None
    fit, choose, show = (np.flatnonzero(part == one) for one in (TRAIN, VALIDATION, TEST))
    others = localisation.draws_of(way, choose, 1), localisation.draws_of(way, show)
    if not few:
        return None, *others
    own = localisation.draws_of(way, fit)
    return (None, None, None) if own is None else (own, *others)


def make_known_artifact(
    name: str, target: int, planted: PlantedArtifact | ClassParts, part: NDArray[np.int8], origin: str
) -> Artifact:
    """Make the record of a known artifact that raises a class, and that no image of the corpus carries."""
    membership = CarrierProbabilities(np.zeros(len(part), np.float32), "nothing", 0.5, 0.0, 0.0)
    return Artifact(name, target, origin, np.empty(0, np.intp), part, membership, None, None, planted)


def deal_images(sources: Ints, target: int, seed: int) -> NDArray[np.int8]:
    """Deal the sources (N,) of a corpus into parts, for an artifact of a class without members: int8 (N,). Raises
    UsageError for images of fewer than three sources."""
    return splits.split_by_source(sources, np.ones(len(sources), bool), generator(seed, "parts", target))


def check_shared(probability: NDArray[np.float32], inside: Ints, outside: Ints) -> None:
    """Check that members share a feature: within their class, the detector must separate them from other images out of
    fold. Raises InputError: the 95 % interval of its area under the curve, at least 0.5, lies below SHARED."""
    rows = np.concatenate([inside, outside])
    told = roc_area(probability[rows], np.isin(rows, inside))
    if told.n and max(told.value, 0.5) + told.high - told.value < SHARED:
        raise InputError(
            "the images with the artifact are like the others of the class",
            got=f"area under the curve {told}, half is chance",
            rule="an artifact is a feature that these images share, and that the model sees",
            remedy="Look at these images again, or list others: --members.",
        )  # fmt: skip


def find_showing_rows(audited: AuditedClass, place: Overlay, inside: Ints) -> Ints:
    """Find rows of the group whose images show a fixed, opaque artifact as closely as most members (rows `inside`) do:
    a detector of features misses some of these."""
    read = decode_rows(audited.corpus, (int(row) for row in audited.group.rows))
    usable = ((row, audited.classifier.image(picture)) for row, picture in read if not isinstance(picture, ImageError))
    apart = {row: place.distance(image) for row, image in usable if place.fits(image)}
    of_members = np.array([apart[row] for row in inside if row in apart])
    middle = np.median(of_members)
    most = middle + SIGMAS * max(np.median(np.abs(of_members - middle)), overlay.FAINT * max(apart.values()))
    return np.array([row for row, distance in apart.items() if distance <= most], np.intp)
