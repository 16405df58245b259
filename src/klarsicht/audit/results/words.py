"""The words of verdicts: on a class, for what a detector saw and for what was put on images of other classes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class VerdictKind(StrEnum):
    """Kinds of verdicts on a class, the most urgent first; `words` has their texts."""

    POISONED = "poisoned"
    PRESENT = "present"
    UNTESTED = "untested"
    SHARED_AND_USED = "shared-and-used"
    SHARED = "shared"
    FOLLOWED = "followed"
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
    VerdictKind.POISONED: ("poisoned", "poisoned: an artifact, and the model uses it"),
    VerdictKind.PRESENT: ("present, no use shown", "artifactual: present, no use shown"),
    VerdictKind.UNTESTED: ("use not tested", "artifactual: present, use not tested"),
    VerdictKind.SHARED_AND_USED: (
        "windows of its own, used",
        "windows of its own: look whether they are its nature; the model uses them",
    ),
    VerdictKind.SHARED: ("windows of its own", "windows of its own: look whether they are its nature"),
    VerdictKind.FOLLOWED: (
        "followed group",
        "followed: the model follows a group of images, and no detector knows what they share",
    ),
    VerdictKind.RAISES: ("raises (observed)", "raises the target (observational)"),
    VerdictKind.NO_RISE: ("no rise", "no cluster clearly raises the target"),
    VerdictKind.UNVARYING: ("does not vary", "evidence does not vary"),
    VerdictKind.NOTHING: ("nothing found", "nothing found"),
}
"""For each kind of verdict its label and its sentence."""

SCREENED_FOLLOWED: Final = (
    "followed: put on other images, it raises this class more than what is found for other outputs raises them"
)
SCREENED_NOTHING: Final = "no use shown"
"""Verdicts on the one class that a run screens."""

SEEN: Final = {
    "texture": "the same window",
    "evidence": "the same window of high relevance",
    "fine": "the same fine window",
    "fine-grey": "the same fine window, without colour",
    "template": "a faint mark that many share",
    "frame": "a border of one colour",
    "bars": "a border of one colour on two sides",
    "noise": "noise where there is no content",
    "chroma-noise": "noise of colour",
    "sharpness": "no sharp edge",
    "ringing": "blur over the whole image",
    "veil": "light over the whole image",
    "blockiness": "blocks of JPEG",
    "spectrum": "a spectrum of their own",
    "autocorrelation": "neighbouring pixels that go together otherwise",
    "channel-correlation": "channels that go together otherwise",
    "colours": "colours of their own",
    "borders": "lines of their own along a side",
    "binary-patterns": "patterns of neighbouring pixels of their own",
    "embedding": "what the learned embedding sets apart",
    "shipped-embedding": "what the embedding that comes along sets apart",
    "flat-colour": "flat spots of exactly one colour",
    "one-sided-colour": "a colour at one place and not at its mirror image",
}
"""For each detector, what its members show."""

PUT_ON: Final = {
    "own place": "the detected window, where carriers have it",
    "any place": "the detected window, at random places",
    "around": "the border of carriers",
    "shared pixels": "what carriers share at each pixel",
    "shared rows": "what carriers share in each row",
    "shared columns": "what carriers share in each column",
    "shared frequencies": "what carriers share in their spectrum",
    "shared rings of frequencies": "the noise or blur that carriers share",
    "shared tones": "the tone curve that carriers share",
    "shared colours": "the change of colours that carriers share",
    "shared aligned": "what carriers share at a place that varies",
}
"""For each way to put an artifact on images, what was put on; other ways name a size, as "16 levels of noise"."""


SETTING: Final = (
    "The numbers behind a sign are its setting: of a window the side in pixels to which images are shrunk before they "
    "are compared, and the correlation from which on two windows count as the same; of any other sign the share of "
    "images of other classes that lies beyond it."
)
"""Meaning of the numbers in the name of a detection."""


def format_p(p: float) -> str:
    """Format a p with three decimals; one that they would show as 0 by its bound, since no p is 0."""
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def format_count(number: int, noun: str) -> str:
    """Format a number of things: "1 label", "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_sign(sign: str) -> str:
    """Say what the members of a detection show, from its name and setting: "veil 0.002"; unknown names stay."""
    return SEEN.get(sign.split(" ")[0], sign)


def describe_insertion(sign: str, how: str, covered_share: float | None) -> str:
    """Say what was put on images of other classes, and how much of the carriers' difference it is, where known.

    Args:
        sign: the detection whose carriers it was taken from.
        how: the way.
        covered_share: share of the difference between carriers and others of their class; None where there is none for
            sure.
    """
    share = "" if covered_share is None else f": {covered_share:.0%} of what separates the carriers"
    return f"{PUT_ON.get(how, how)} ({describe_sign(sign)}){share}"


def name_artifact(name: str, number: int) -> str:
    """Name an artifact by its class, and a further one by its number in the class too: "carton (artifact 2)"."""
    return name if number == 1 else f"{name} (artifact {number})"
