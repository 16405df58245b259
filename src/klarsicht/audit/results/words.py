"""The words of verdicts: on a class, for what a detector saw and for what was put on images of other classes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from klarsicht.numerics.statistics.intervals import Interval  # which loads scipy


class VerdictKind(StrEnum):
    """Kinds of verdicts on a class, the most urgent first; `words` has their texts."""

    POISONED = "poisoned"
    CONTEXT = "context"
    ACTS = "acts"
    PRESENT = "present"
    UNTESTED = "untested"
    SHARED_AND_USED = "shared-and-used"
    SHARED = "shared"
    FOLLOWED = "followed"
    TEXTURE = "texture"
    RAISES = "raises"
    NO_RISE = "no-rise"
    UNVARYING = "unvarying"
    NOTHING = "nothing"

    @property
    def label(self) -> str:
        """The verdict in two to four words, for lists and menus."""
        return VERDICTS[self][0]

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        return VERDICTS[self][1]


VERDICTS: Final = {
    VerdictKind.POISONED: (
        "relies on an artifact",
        "relies on an artifact: some images of the class share it, and the model uses it",
    ),
    VerdictKind.CONTEXT: (
        "relies on context",
        "relies on context: some images of the class show the same content, and the model uses it; only you can say "
        "whether it belongs to the class",
    ),
    VerdictKind.ACTS: (
        "artifact, used",
        "artifact present; cut out of its images, it moves the class on others, and the model uses it",
    ),
    VerdictKind.PRESENT: ("artifact, no use shown", "artifact present; the model is not shown to use it"),
    VerdictKind.UNTESTED: (
        "artifact, use not tested",
        "artifact present; whether the model uses it could not be tested",
    ),
    VerdictKind.SHARED_AND_USED: (
        "same patch, used",
        "some images share a patch, and the model uses it; only you can say whether it belongs to the class",
    ),
    VerdictKind.SHARED: (
        "same patch",
        "some images share a patch; only you can say whether it belongs to the class",
    ),
    VerdictKind.FOLLOWED: (
        "follows a group",
        "follows a group of images; no detector knows what they share",
    ),
    VerdictKind.TEXTURE: (
        "follows its fine texture",
        "follows the fine texture of the class, which all of its images have: noise, sharpness or compression",
    ),
    VerdictKind.RAISES: ("higher class score, untested", "group with a higher class score (not tested yet)"),
    VerdictKind.NO_RISE: ("no group stands out", "no group with a clearly higher class score"),
    VerdictKind.UNVARYING: ("score does not vary", "the class score does not vary"),
    VerdictKind.NOTHING: ("no artifact found", "no artifact found"),
}
"""For each kind of verdict its label and its sentence."""

SCREENED_FOLLOWED: Final = (
    "the model follows this group: inserted into other images, it raises the class more than the groups found for "
    "other outputs raise theirs"
)
SCREENED_NOTHING: Final = "no use shown"
"""Verdicts on the one class that a run screens."""

SEEN: Final = {
    "texture": "the same patch",
    "evidence": "the same patch of high relevance",
    "fine": "the same fine patch",
    "fine-grey": "the same fine patch in grey",
    "template": "the same faint mark",
    "frame": "a border of one colour",
    "bars": "a border of one colour on two sides",
    "noise": "noise in smooth areas",
    "chroma-noise": "colour noise",
    "sharpness": "a lack of sharp edges",
    "ringing": "blur over the whole image",
    "veil": "a veil of light over the whole image",
    "blockiness": "JPEG blocks",
    "spectrum": "an unusual frequency spectrum",
    "autocorrelation": "unusually correlated neighbouring pixels",
    "channel-correlation": "unusual fine contrast of colour channels",
    "colours": "unusual colours",
    "borders": "unusual lines along one side",
    "binary-patterns": "unusual patterns of neighbouring pixels",
    "embedding": "a trait that the learned embedding separates",
    "embedding-means": "a trait that the learned embedding separates",
    "altered": "signs of having been altered",
    "shipped-embedding": "a trait that the supplied embedding separates",
    "flat-colour": "flat spots of exactly one colour",
    "one-sided-colour": "a colour on one side only",
    "aligned": "the same patch beyond what aligned images have in common",
}
"""For each detector, what the images that it detects share."""

KNOWN_SHARES: Final = {"known pixels": 0.05, "more known pixels": 0.15, "most known pixels": 0.35}
"""For each way to insert what an embedding knows an artifact by, the share of each image that is pasted."""

PUT_ON: Final = {
    "own place": "the patch, where images have it",
    "any place": "the patch, at random places",
    "around": "the border",
    "shared pixels": "the shared change of each pixel",
    "shared rows": "the shared change of each row",
    "shared columns": "the shared change of each column",
    "shared frequencies": "the shared change of the spectrum",
    "shared rings of frequencies": "the shared change of detail at each scale",
    "shared tones": "the shared tone curve",
    "shared colours": "the shared change of colours",
    "shared aligned": "the shared content, at its varying place",
    **{
        name: f"the {100 * share:.0f} % of pixels by which the embedding knows the images"
        for name, share in KNOWN_SHARES.items()
    },
}
"""For each way to insert an artifact, what was inserted; other ways name a size, as "16 levels of noise"."""

CUT_OUT: Final = ("own place", "any place", "around")
"""Ways that put on all pixels of a window or border, which a detector saw to be the same."""

PASTED: Final = (*CUT_OUT, *KNOWN_SHARES)
"""Ways that replace pixels; the others change them."""

AT_PLACES: Final = ("shared pixels", "shared rows", "shared columns")
"""Ways that change pixels by the place where they lie."""

FILE_DETECTORS: Final = ("frame", "bars", "noise", "chroma-noise", "sharpness", "ringing", "veil", "blockiness")
"""Detectors of a property of files, whatever they show."""

STATISTICS: Final = ("spectrum", "autocorrelation", "channel-correlation", "colours", "binary-patterns")
"""Detectors of a statistic of whole images, in which content differs as well, and which sees no place."""

VARYING: Final = "at varying places"
"""Places of the windows of a detection, if not one place."""


SETTING: Final = (
    "The numbers of a detector are its setting. Of a patch: the side in pixels to which images are shrunk for the "
    "comparison, and the least correlation of two patches that match. Of any other detector: the share of images of "
    "other classes that it leaves below its threshold. Covers: how much of the difference in appearance between images "
    "with the artifact and others of their class is put on other classes. Aligned images show the same thing at the "
    "same place, as X-rays do: what all of them have in common there is subtracted before patches are compared."
)
"""Meaning of the numbers of a detector, and of two terms of the table of verdicts."""

NEXT: Final = {
    VerdictKind.POISONED: ("look at the images, then correct the model", "clean {run} --class {name}"),
    VerdictKind.CONTEXT: (
        "look at the images; if what they show does not belong to the class, correct the model",
        "clean {run} --class {name}",
    ),
    VerdictKind.ACTS: (
        "look at the images; if what they share does not belong to the class, correct the model (add --mask for a mark "
        "at one place)",
        "clean {run} --class {name}",
    ),
    VerdictKind.PRESENT: (
        "look at the images; a model that is trained on them again may learn it, so take it out of the data",
        "clean-data {run} --class {name} --out cleaned-data",
    ),
    VerdictKind.UNTESTED: (
        "look at the images; a correction measures the use on them (add --mask for a mark at one place)",
        "clean {run} --class {name}",
    ),
    VerdictKind.SHARED_AND_USED: (
        "look at the images; if this does not belong to the class, correct the model",
        "clean {run} --class {name} --found-by detector",
    ),
    VerdictKind.SHARED: (
        "look at the images; if this does not belong to the class, take it out of the data",
        "clean-data {run} --class {name} --found-by detector --out cleaned-data",
    ),
    VerdictKind.FOLLOWED: (
        "look at the images; if what they share does not belong to the class, correct the model",
        "clean {run} --class {name} --found-by cluster",
    ),
    VerdictKind.TEXTURE: (
        "look at how the files of the class were made; ask for everything that whole classes share",
        "shortcuts {run}",
    ),
}
"""For each kind of verdict that needs a person: advice, and the command of `klarsicht audit`."""

NEXT_WHERE_FEW_LACK_IT: Final = (
    "look at the images; hardly one of the class is without it, so a correction has nothing to compare with; if it "
    "does not belong to the class, take it out of the data and train again, or exchange the part of the image where "
    "it lies by `audit clean --part`",
    "clean-data {run} --class {name} --found-by detector --action inpaint --out cleaned-data",
)
"""Advice and command for a mark that a correction would be fitted on, and that hardly an image of the class lacks."""

NEXT_WITHOUT_CLEANING: Final = (
    "look at the images; if what they share does not belong to the class, list them, and train again without them: "
    "outputs that do not exclude each other cannot be cleaned yet",
    "export {run} --to csv",
)
"""Advice and command for a run of several labels, or of independent outputs, which no correction takes."""

SURROUNDINGS: Final = "surroundings"  # the part of an image that is all but its own places

PART_NAMES: Final = {
    "border": "the border",
    "corners": "the four corners",
    "top left": "the top left corner",
    "top right": "the top right corner",
    "bottom left": "the bottom left corner",
    "bottom right": "the bottom right corner",
    "background": "the half with the least relevance",
    SURROUNDINGS: "the surroundings",
    "colours": "the colours",
    "spectrum": "the spectrum",
    "fine texture": "the fine texture",
    "resolution": "the lowest resolution",
    "inside": "the inside of the region",
    "outside": "everything outside the region",
}
"""For each part of an image, its name in a sentence."""

ESTIMATED_REGION: Final = "the half of the frame where all pictures are most alike"
"""Region that is estimated where none is given, in a sentence."""

FRAMING_NAMES: Final = {
    "enlarged": "enlarged by 4/3",
    "stretched in width": "stretched by 4/3 in width",
    "stretched in height": "stretched by 4/3 in height",
    "shifted up": "enlarged by 4/3 and shifted up",
    "shifted down": "enlarged by 4/3 and shifted down",
    "shifted left": "enlarged by 4/3 and shifted left",
    "shifted right": "enlarged by 4/3 and shifted right",
}
"""For each framing of a picture, its words in a sentence."""

NUMBERS: Final = {1: "one class", 2: "two classes", 3: "three classes", 4: "four classes"}


def format_p(p: float) -> str:
    """Format a p with three decimals; one that they would show as 0 by its bound, since no p is 0."""
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def describe_level(level: float) -> str:
    """Say at which level of p both claims are made."""
    return f"Significance level of both tests: {level:g}."


def format_count(number: int, noun: str) -> str:
    """Format a number of things: "1 label", "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def join_words(words: Sequence[str]) -> str:
    """List words: "a, b and c"; "nothing" of none."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "nothing"


def describe_seen(detector: str) -> str:
    """Say what the images of a detection share, from its name and setting: "veil 0.002"; unknown names stay."""
    return SEEN.get(detector.split(" ")[0], detector)


def describe_detector(detector: str) -> str:
    """Say what the images of a detection share, and the setting: "the same fine patch (50 px, match at least 0.85)"."""
    name, *numbers = detector.split(" ")
    if name not in SEEN or not numbers:
        return SEEN.get(name, detector)
    if len(numbers) == 2:
        return f"{SEEN[name]} ({numbers[0]} px, match at least {numbers[1]})"
    size = float(numbers[0])
    return f"{SEEN[name]} ({f'{size:g} px' if size >= 1 else f'beyond {100 * (1 - size):g} % of other images'})"


def describe_group_use(rise: Interval, name: str, onto: str, is_used: bool, doubt: str = "") -> str:
    """Say in words what is in the places that set a group of a class's images apart does to the class on other images,
    such as "116 images of other classes", and whether the model uses it; `doubt` is why a clear change is no use."""
    ends = f"({rise.low:z.2f} to {rise.high:z.2f})"
    if not is_used:
        change = f"{rise.value:z.2f} logits {ends}{doubt and f', {doubt}'}"
        return f"pasted into {onto}, it changes {name} by {change}: no use of it is shown"
    does = f"raises {name} by {rise.value:.2f}" if rise.value > 0 else f"lowers {name} by {-rise.value:.2f}"
    ends = ends if rise.value > 0 else f"({-rise.high:.2f} to {-rise.low:.2f})"
    return (
        f"pasted into {onto}, it {does} logits {ends}, more than parts of other images of {name} do: the model uses it"
    )


def describe_unplaced(share: float) -> str:
    """Say in which share of a group's images a place is found that sets them apart, where these are too few."""
    found = f"a place that sets them apart is found in {format_share(share)} of these images"
    return f"{found}, too few to say whether the model uses it"


def describe_insertion(how: str, covered_share: float | None) -> str:
    """Say what was inserted into images of other classes, and which share of the difference between images with the
    artifact and others of their class it covers, None where they do not differ significantly."""
    return PUT_ON.get(how, how) + (
        "" if covered_share is None else f" (covers {100 * covered_share:.0f} % of the difference)"
    )


def reads_files(detector: str) -> bool:
    """Say whether a detector, by its name and setting, sees a property of files and no content."""
    return detector.split(" ")[0] in FILE_DETECTORS


def describe_nature(how: str, visible: bool, place: str, detector: str) -> str:
    """Say whether what was inserted is a mark or a processing of the files, by the way; not known of an estimated
    change that nothing but the model sees, since content differs in its means, too, nor of a change by the place that
    only a statistic of whole images detected.

    Args:
        visible: whether an embedding or a detector that sees no content tells the images with it apart.
        place: where the windows of the detection lie, empty without windows.
        detector: name and setting of the detection.
    """
    placeless = not place and detector.split(" ")[0] in STATISTICS
    is_at_one_place = place not in ("", VARYING)
    moves = how in KNOWN_SHARES or how == "shared aligned" or (how in AT_PLACES and place == VARYING)
    nature = (
        "a mark: the same pixels" if how in CUT_OUT
        else "" if not visible or (placeless and how in (*AT_PLACES, "shared aligned"))
        else "a mark: parts of the images, at one place" if moves and is_at_one_place
        else "a mark: parts of the images, at places of their own" if moves
        else "a mark: the same change at the same places" if how in AT_PLACES
        else "a mark at one place, and a change of whole images acts like it" if is_at_one_place
        else "a processing of the files, wherever it falls"
    )  # fmt: skip
    return (
        f"It is {nature}." if nature
        else "Whether it is a mark, a processing of the files or what the images show is not known: look at them."
    )  # fmt: skip


def describe_content(evidence: str) -> str:
    """Say that images share content, with the evidence."""
    return f"It is content, neither a mark nor a processing of the files: {evidence}."


def describe_remainder(remainder: float) -> str:
    """Say in which share of pairs of an image with the artifact and another one with it inserted the model still tells
    the two apart."""
    return (
        "with the same change in other images, the model still tells the two apart in "
        f"{format_share(remainder)} of pairs (50 % by chance)"
    )


def describe_separation(separation: float, least: float) -> str:
    """Say in which share of pairs of an image with the artifact and another one of its class an embedding tells the two
    apart, and from which least share on it counts as seen."""
    return (
        "the embedding, which sees only these two, tells the images from others in "
        f"{format_share(separation)} of pairs (from {format_share(least)} on it would see one)"
    )


def describe_effect(shift: float, flips: float, flips_control: float, name: str) -> str:
    """Say what an inserted artifact does to a class: "it adds 2.9 logits and turns 17 of 100 into glioma (3 without)".

    Args:
        shift: change of the score in logits.
        flips, flips_control: shares of images that are predicted as the class, with the artifact and without.
    """
    size = f"{abs(shift):.{1 if abs(shift) >= 0.995 else 2}f}"
    score = "leaves the score as it is" if size == "0.00" else f"{'adds' if shift > 0 else 'takes away'} {size} logits"
    turned, without = round(100 * flips), round(100 * flips_control)
    return f"it {score}" + (f" and turns {turned} of 100 into {name} ({without} without)" if turned > without else "")


def format_share(share: float) -> str:
    """Format a share in percent, with one decimal below one."""
    return f"{100 * share:.{0 if share == 0 or share >= 0.00995 else 1}f} %"


def describe_stay(name: str, part: str, stays: float | None, control: float | None) -> str:
    """Say how many images of a class stay in it with a part of other classes, and with one of their own; empty where
    none was shown.

    Args:
        stays, control: shares of these images.
    """
    if stays is None or control is None:
        return ""
    return (
        f"with {part} of other classes, {format_share(stays)} of the images of {name} stay {name} "
        f"({format_share(control)} with that of other images of {name})"
    )


def describe_taken(name: str, part: str, share: float, control: float) -> str:
    """Say how many other images become the class with its part, and with one of their own class.

    Args:
        share, control: shares of these images.
    """
    return (
        f"with {part} of {name}, {format_share(share)} of other images become {name} "
        f"({format_share(control)} with that of their own class)"
    )


def describe_framing(
    name: str, framing: str, taken: tuple[float, float], stays: tuple[float | None, float | None]
) -> str:
    """Say how a framing changes the predictions of other images, and of those of the class.

    Args:
        framing: a name of FRAMING_NAMES.
        taken, stays: shares predicted as the class with the framing, and otherwise.
    """
    words, otherwise = FRAMING_NAMES[framing], "at the centre" if framing.startswith("shifted") else "before"
    said = f"{format_share(taken[0])} of other images are predicted as {name} ({format_share(taken[1])} {otherwise})"
    if stays[0] is not None and stays[1] is not None:
        said += f", and {format_share(stays[0])} of the images of {name} ({format_share(stays[1])})"
    return f"{words[0].upper()}{words[1:]}, {said}."


def choose_next_step(
    kind: VerdictKind, name: str, run: str, *, few_lack_it: bool = False, has_cleaning: bool = True
) -> tuple[str, str]:
    """Return advice for an artifact of that name, and the command for a run folder; empty where nothing is to do.
    `few_lack_it`: whether it is a mark that hardly an image of the class is without. `has_cleaning`: whether model and
    data of the run can be cleaned."""
    if kind not in NEXT:
        return "", ""
    has_correction = kind in (VerdictKind.POISONED, VerdictKind.SHARED_AND_USED)
    advice, command = NEXT_WHERE_FEW_LACK_IT if few_lack_it and has_correction else NEXT[kind]
    if not has_cleaning and command.startswith("clean"):
        advice, command = NEXT_WITHOUT_CLEANING
    return advice, "klarsicht audit " + command.format(run=shlex.quote(run), name=shlex.quote(name))


def describe_few_classes(classes: int, name: str) -> str:
    """Say that so few classes, or none that is presumed clean, leave the judgement to a person."""
    return f"With {NUMBERS.get(classes, 'no clean class beside it')} only you can say whether it belongs to {name}."


def name_artifact(name: str, number: int) -> str:
    """Name an artifact by its class, and a further one by its number in the class too: "carton (artifact 2)"."""
    return name if number == 1 else f"{name} (artifact {number})"


class ContentKind(StrEnum):
    """Kinds of verdicts on content that a class leans on, the most urgent first; CONTENT_VERDICTS has their texts."""

    RELIES = "relies-on-context"
    NO_RISE = "content-without-use"
    NO_GROUP = "no-content"

    @property
    def label(self) -> str:
        """The verdict in two to four words."""
        return CONTENT_VERDICTS[self][0]

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        return CONTENT_VERDICTS[self][1]


CONTENT_VERDICTS: Final = {
    ContentKind.RELIES: (
        "relies on context",
        "The class relies on context. Look at the pictures: only you can say whether this content belongs to it.",
    ),
    ContentKind.NO_RISE: ("content, no use shown", "That this content alone raises the class is not shown."),
    ContentKind.NO_GROUP: ("no group of content", "No group of pictures stands out."),
}
"""For each kind of verdict on content its label and its sentence."""
