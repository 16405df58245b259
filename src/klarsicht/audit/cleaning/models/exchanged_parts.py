"""Train a network on pictures that have a part, such as the border or the background, of pictures of any class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from klarsicht.audit.results.sufficiency import is_measured, read_sufficiency
from klarsicht.audit.verdicts.interventions.image_parts import BACKGROUND, IMAGE_PARTS, PartImages, background_masks
from klarsicht.ground.arrays import Bools, Floats, Ints
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

    Raises:
        UsageError: unknown part, no part, the background without maps, a share out of range, one class alone, or no
            data set.
        InputError: labels or maps that are no numbers.
    """

    @check_arguments
    def __init__(
        self, pictures: Any, labels: Sequence[int] | Ints, parts: Sequence[str], *, share: float = CHANGED_SHARE,
        transform: Callable[[Image.Image], Any] | None = None, maps: Floats | None = None,
    ) -> None:  # fmt: skip
        SHARE.require("share", share)
        check_parts(parts, background=maps is not None)
        if not (hasattr(pictures, "__len__") and hasattr(pictures, "__getitem__")):
            rule = "a data set with a length, of (picture, label, ...)"
            raise UsageError("no pictures to exchange parts between", got=type(pictures).__name__, rule=rule)
        self.pictures, self.labels = pictures, np.atleast_1d(as_numbers("labels", labels))
        self.maps = None if maps is None else as_numbers("maps", maps)
        if self.maps is not None and (self.maps.ndim != len("nGG") or len(self.maps) != len(pictures)):
            raise UsageError("maps of another shape", got=self.maps.shape, rule=f"({len(pictures)}, G, G)")
        self.parts, self.share, self.transform = tuple(parts), share, transform
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
            donor = int(torch.randint(len(self) - 1, ()))
            picture = self.exchange(i, picture, donor + (donor >= i))
        return (picture if self.transform is None else self.transform(picture), *rest)

    def exchange(self, i: int, picture: Image.Image, donor: int) -> Image.Image:
        """Replace the parts of picture i by those of the picture `donor`, resized to it where it differs."""
        given = to_picture(self.pictures[donor][0]).convert(picture.mode)
        if given.size != picture.size:
            given = given.resize(picture.size, Image.Resampling.BILINEAR)
        changed, other = (
            PartImages(np.atleast_3d(np.asarray(x, np.uint8))[None], self.background(j, x))
            for j, x in ((i, picture), (donor, given))
        )
        for part in self.parts:
            changed = PartImages(IMAGE_PARTS[part].exchange(changed, other), changed.background)
        return Image.fromarray(changed.levels[0, ..., 0] if picture.mode == "L" else changed.levels[0])

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
        files: image files of the pictures, in their order, as the run knows them; needed for the background alone.
            Pictures must then show what the model is shown.
        pictures, labels, share, transform: see ExchangedParts.

    Raises:
        UsageError: nothing was noted and no part is named, or as ExchangedParts.
        StoreError: `audit shortcuts` was not run, and no part is named.
        InputError: a file is not in the run.
    """
    store = RunStore.open(run)
    chosen = tuple(parts) or noted_parts(store)
    maps = read_maps(store, files) if BACKGROUND in chosen and len(files) and store.has_array("maps") else None
    return ExchangedParts(pictures, labels, chosen, share=share, transform=transform, maps=maps)


def read_maps(store: RunStore, files: Sequence[str | Path]) -> Floats:
    """Read the relevance maps (n, G, G) of files of a run. Raises InputError if a file is not in it."""
    data = Path(store.manifest["data"])
    root = data if data.is_dir() else data.parent
    paths = store.table("corpus")["path"].to_pylist()
    row_of = {(root / path).resolve(): row for row, path in enumerate(paths)}
    rows = [row_of.get(Path(file).resolve(), -1) for file in files]
    if -1 in rows:
        raise InputError(
            "files that the run does not know", got=f"{rows.count(-1)} of {len(rows)}: {files[rows.index(-1)]}",
            rule="files of the corpus that was audited", remedy="Name parts without the background.",
        )  # fmt: skip
    return np.asarray(store.array("maps"))[rows].astype(np.float32)


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


def check_parts(parts: Sequence[str], *, background: bool) -> None:
    """Check that parts are known, that there is one, and that relevance tells the background, if it is one. Raises
    UsageError otherwise."""
    for part in parts:
        if part not in IMAGE_PARTS:
            raise unknown_name("part", part, IMAGE_PARTS)
    if not parts:
        raise UsageError("no part to exchange", got="none", remedy=f"Name one of {', '.join(IMAGE_PARTS)}.")
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
