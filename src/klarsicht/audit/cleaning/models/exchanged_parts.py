"""Train a network on pictures that have a part, such as the border or the surroundings, of pictures of any class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from klarsicht.audit.results.sufficiency import is_measured, read_sufficiency
from klarsicht.audit.results.surroundings import (
    PLACES_TABLE,
    SURROUNDINGS_STEP,
    PlacesRow,
    is_examined,
    unpack_places,
)
from klarsicht.audit.results.words import SURROUNDINGS
from klarsicht.audit.verdicts.interventions.image_parts import BACKGROUND, IMAGE_PARTS, PartImages, background_masks
from klarsicht.audit.verdicts.own_places.composites import RIM, Pairs, lay_on_others, usable_places
from klarsicht.audit.verdicts.own_places.own_places import enlarge
from klarsicht.ground.arrays import Bools, Floats, Ints, Pixels
from klarsicht.ground.errors import InputError, StoreError, UsageError, unknown_name
from klarsicht.ground.ranges import SHARE
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.ground.user_arrays import as_numbers

CHANGED_SHARE: Final = 1.0  # share of the pictures that get a part of a random one


class ExchangedParts(Dataset[tuple[Any, ...]]):
    """Data set of torch whose pictures get parts of a random other picture, whatever its class: the part then says
    nothing of the class. Torch's generator draws anew each time that a picture is asked for.

    Args:
        pictures: data set with a length of (picture, label, ...); a picture is of PIL, or uint8 (H, W) or (H, W, C).
        labels: int (n,), the label of each picture.
        parts: names of image_parts.IMAGE_PARTS, all taken from the same picture.
        share: share of the pictures that are changed, above 0 to 1.
        transform: function of a picture of PIL, applied last.
        maps: float (n, G, G), relevance of each picture, by which its background is found; needed for that alone.
        own: bool (n, h, w), own places of each picture, around which its surroundings lie; needed for these alone.
            Pictures without own places keep their surroundings, and give none; those that give are of every class
            equally often.

    Raises:
        UsageError: unknown part, no part, the background without maps, surroundings without own places, a share out of
            range, one class alone, or no data set.
        InputError: labels or maps that are no numbers.
    """

    @check_arguments
    def __init__(
        self, pictures: Any, labels: Sequence[int] | Ints, parts: Sequence[str], *, share: float = CHANGED_SHARE,
        transform: Callable[[Image.Image], Any] | None = None, maps: Floats | None = None, own: Bools | None = None,
    ) -> None:  # fmt: skip
        SHARE.require("share", share)
        check_parts(parts, background=maps is not None, own=own is not None)
        if not (hasattr(pictures, "__len__") and hasattr(pictures, "__getitem__")):
            rule = "a data set with a length, of (picture, label, ...)"
            raise UsageError("no pictures to exchange parts between", got=type(pictures).__name__, rule=rule)
        self.pictures, self.labels = pictures, np.atleast_1d(as_numbers("labels", labels))
        self.maps = None if maps is None else as_numbers("maps", maps)
        if self.maps is not None and (self.maps.ndim != len("nGG") or len(self.maps) != len(pictures)):
            raise UsageError("maps of another shape", got=self.maps.shape, rule=f"({len(pictures)}, G, G)")
        self.parts, self.share, self.transform = tuple(parts), share, transform
        self.own = None if own is None else as_numbers("own", own).astype(bool)
        if self.own is not None and (self.own.ndim != len("nhw") or len(self.own) != len(pictures)):
            raise UsageError("own places of another shape", got=self.own.shape, rule=f"({len(pictures)}, h, w)")
        if len(self.labels) != len(pictures) or len(np.unique(self.labels)) < 2:
            raise UsageError(
                "no pictures to exchange parts between",
                got=f"{len(pictures)} pictures, {len(self.labels)} labels of {len(np.unique(self.labels))} class(es)",
                rule="a label for each picture, and two classes", remedy="Give the labels of the data set.",
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        picture, *rest = self.pictures[i]
        picture = to_picture(picture)
        if float(torch.rand(())) < self.share:
            picture = self.exchange(i, picture, self.draw_donor(i))
        return (picture if self.transform is None else self.transform(picture), *rest)

    def draw_donor(self, i: int) -> int:
        """Draw another picture; for surroundings one with own places, of any class with the same chance."""
        if SURROUNDINGS not in self.parts:
            donor = int(torch.randint(len(self) - 1, ()))
            return donor + (donor >= i)
        rows = self.givers[int(torch.randint(len(self.givers), ()))]
        others = rows[rows != i] if len(rows) > 1 else rows
        return int(others[int(torch.randint(len(others), ()))])

    @cached_property
    def givers(self) -> Sequence[Ints]:
        """Pictures of each class with own places. Raises UsageError where fewer than two classes have some."""
        assert self.own is not None
        able = self.own.any((1, 2))
        rows = [np.flatnonzero(able & (self.labels == label)) for label in np.unique(self.labels)]
        givers = [some for some in rows if len(some)]
        if len(givers) < 2:
            raise UsageError(
                "no surroundings to exchange", got=f"own places in pictures of {len(givers)} class(es)",
                rule="own places in pictures of two classes at least", remedy="Name other parts: --part border.",
            )  # fmt: skip
        return givers

    def exchange(self, i: int, picture: Image.Image, donor: int) -> Image.Image:
        """Replace the parts of picture i by those of the picture `donor`, resized to it where it differs."""
        given = to_picture(self.pictures[donor][0]).convert(picture.mode)
        if given.size != picture.size:
            given = given.resize(picture.size, Image.Resampling.BILINEAR)
        changed, other = (
            PartImages(np.atleast_3d(np.asarray(x, np.uint8))[None], self.background(j, x))
            for j, x in ((i, picture), (donor, given))
        )
        if self.own is not None and SURROUNDINGS in self.parts and self.own[i].any():
            changed = PartImages(self.lay_on(changed.levels, other.levels, i, donor), changed.background)
        for part in (one for one in self.parts if one != SURROUNDINGS):
            changed = PartImages(IMAGE_PARTS[part].exchange(changed, other), changed.background)
        return Image.fromarray(changed.levels[0, ..., 0] if picture.mode == "L" else changed.levels[0])

    def lay_on(self, levels: Pixels, given: Pixels, i: int, donor: int) -> Pixels:
        """Lay the own places of picture i on another of its size, both (1, H, W, C); up to RIM pixels are left out."""
        assert self.own is not None
        own = enlarge(self.own[[i, donor]], (levels.shape[1], levels.shape[2]), 0)
        rng, pair = np.random.default_rng(int(torch.randint(2**31, ()))), Pairs(np.array([0]), np.array([1]))
        return lay_on_others(np.concatenate([levels, given]), own, pair, rng, RIM)

    def background(self, i: int, picture: Image.Image) -> Bools | None:
        """Mark the background of a picture (1, H, W) by its relevance; None without maps."""
        if self.maps is None:
            return None
        return background_masks(np.asarray(self.maps[i], np.float32)[None], (picture.height, picture.width))


@check_arguments
def exchange_parts(
    run: str | Path | RunStore, pictures: Any, labels: Sequence[int] | Ints, files: Sequence[str | Path] = (), *,
    parts: Sequence[str] = (), share: float = CHANGED_SHARE, transform: Callable[[Image.Image], Any] | None = None,
) -> ExchangedParts:  # fmt: skip
    """Exchange in a data set the strongest part that `audit shortcuts` noted in each class of a run, or the named
    parts.

    Args:
        files: image files of the pictures, in their order, as the run knows them; needed for background and
            surroundings alone. Pictures must then show what the model is shown.
        pictures, labels, share, transform: see ExchangedParts.

    Raises:
        UsageError: nothing was noted and no part is named, or as ExchangedParts.
        StoreError: `audit shortcuts` was not run, and no part is named.
        InputError: a file is not in the run.
    """
    store = RunStore.open(run)
    chosen = tuple(parts) or noted_parts(store)
    maps = read_maps(store, files) if BACKGROUND in chosen and len(files) and store.has_array("maps") else None
    own = read_own_places(store, files) if SURROUNDINGS in chosen and len(files) and is_examined(store) else None
    return ExchangedParts(pictures, labels, chosen, share=share, transform=transform, maps=maps, own=own)


def read_maps(store: RunStore, files: Sequence[str | Path]) -> Floats:
    """Read the relevance maps (n, G, G) of files of a run. Raises InputError if a file is not in it."""
    return np.asarray(store.array("maps"))[find_rows(store, files)].astype(np.float32)


def read_own_places(store: RunStore, files: Sequence[str | Path]) -> Bools:
    """Read the own places (n, h, w) of files of a run, as `audit shortcuts` found them; none of files that were not
    examined, or whose own places are not about as large as usual. Raises InputError if a file is not in the run."""
    places: list[PlacesRow] = store.table(PLACES_TABLE, SURROUNDINGS_STEP).to_pylist()
    own, odd = np.stack([unpack_places(row) for row in places]), [row["side"] != row["target"] for row in places]
    usable = usable_places(own, np.array(odd))
    own_of_row = {row["row"]: one for row, one, use in zip(places, own, usable, strict=True) if use}
    return np.stack([own_of_row.get(row, np.zeros_like(own[0])) for row in find_rows(store, files)])


def find_rows(store: RunStore, files: Sequence[str | Path]) -> list[int]:
    """Find the rows of files of a run. Raises InputError if a file is not in it."""
    data = Path(store.manifest["data"])
    root = data if data.is_dir() else data.parent
    paths = store.table("corpus")["path"].to_pylist()
    row_of = {(root / path).resolve(): row for row, path in enumerate(paths)}
    rows = [row_of.get(Path(file).resolve(), -1) for file in files]
    if -1 in rows:
        raise InputError(
            "files that the run does not know", got=f"{rows.count(-1)} of {len(rows)}: {files[rows.index(-1)]}",
            rule="files of the corpus that was audited", remedy="Name parts that need no files: --part border.",
        )  # fmt: skip
    return rows


def noted_parts(store: RunStore, name: str | None = None) -> tuple[str, ...]:
    """Return of a class, or of each class, the part that `audit shortcuts` noted with the largest rise, in the order of
    IMAGE_PARTS: further parts hold the same mark, and an exchange of all of them leaves nothing of the image.

    Raises:
        StoreError: `audit shortcuts` was not run.
        UsageError: the class was not examined, or nothing was noted.
    """
    if not is_measured(store):
        raise StoreError(
            "nothing says which parts tell a class", got=store.path,
            rule="a run that `audit shortcuts` has been through",
            remedy=f"Run `klarsicht audit shortcuts {store.path}`, or name parts: --part border.",
        )  # fmt: skip
    found = read_sufficiency(store)
    profiles = found.profiles if name is None else (found.of(name),)
    parts = [[one.part for one in profile.noted if one.part in IMAGE_PARTS] for profile in profiles]
    noted = {names[0] for names in parts if names}
    if not noted:
        raise UsageError(
            "no part is flagged" if name is None else "no part of this class is flagged",
            got=name or f"{len(found)} classes",
            rule="parts that `audit shortcuts` flagged, or named ones",
            remedy=f"Name them: --part border. Known are {', '.join(IMAGE_PARTS)}.",
        )  # fmt: skip
    return tuple(part for part in IMAGE_PARTS if part in noted)


def check_parts(parts: Sequence[str], *, background: bool, own: bool) -> None:
    """Check that parts are known, that there is one, and that relevance tells the background and own places the
    surroundings, if they are among them. Raises UsageError otherwise."""
    names = (*IMAGE_PARTS, SURROUNDINGS)
    for part in parts:
        if part not in names:
            raise unknown_name("part", part, names)
    if not parts:
        raise UsageError("no part to exchange", got="none", remedy=f"Name one of {', '.join(names)}.")
    if SURROUNDINGS in parts and not own:
        raise UsageError(
            "no surroundings to exchange", got="no own places of the images",
            rule="own places that `audit shortcuts` found, of files that are named",
            remedy="Name the files, or other parts: --part border.",
        )  # fmt: skip
    if BACKGROUND in parts and not background:
        raise UsageError(
            "no background to exchange", got="no relevance maps of the images",
            rule="relevance says what is background", remedy="Name other parts: --part border.",
        )  # fmt: skip


def to_picture(picture: Any) -> Image.Image:
    """Return a picture of PIL in grey or colour, from one or from uint8 (H, W) or (H, W, C). Raises InputError for
    other values or channels."""
    if isinstance(picture, Image.Image):
        found = picture
    else:
        levels = np.asarray(picture)
        if levels.dtype != np.uint8 or levels.ndim not in (2, 3) or levels.shape[2:] not in ((), (1,), (3,)):
            raise _not_eight_bits(f"{levels.dtype} {levels.shape}")
        found = Image.fromarray(levels[..., 0] if levels.shape[2:] == (1,) else levels)
    if found.mode[:1] in ("I", "F"):
        raise _not_eight_bits(f"a picture of mode {found.mode}")
    return found if found.mode in ("L", "RGB") else found.convert("RGB")


def _not_eight_bits(got: str) -> InputError:
    return InputError(
        "parts of these images cannot be exchanged", got=got,
        rule="pictures of PIL, or uint8 (H, W) or (H, W, 1 or 3)", remedy="Convert the data set's images to 8 bits.",
    )  # fmt: skip
